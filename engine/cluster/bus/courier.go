package bus

import (
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/parleyd/parley/protocol/ident"
)

// Courier carries what is not in a stream: a follower's submissions to the sequencer, or the sequencer's answers. It publishes on
// a goroutine of its own, for the reason that the sender does: nats.Conn.Publish blocks while the server does not read.
//
// What is published while the connection breaks is lost; while it is known to be broken nothing is taken from the source.
//
// Owner: shared (mutex: mu, for closed), except buf, its goroutine's.
type Courier struct {
	wire    wire
	next    func(buf []byte) (subject string, payload []byte) // empty: there is nothing more
	buf     []byte
	wake    chan struct{}
	stop    chan struct{}
	stopped chan struct{}
	sub     *nats.Subscription

	mu     sync.Mutex
	closed bool
}

// Follow carries between this worker and the sequencer. outgoing appends the next batch to dst, or nothing; it is called by one
// goroutine, one batch after the other, after each [Courier.Wake]. answer gets the sequencer's answers; it is called by one
// goroutine, which is not that of the [Receiver], and may keep them.
func (l *Link) Follow(outgoing func(dst []byte) []byte, answer func(answer []byte)) (*Courier, error) {
	subject := subject("o", l.instance)
	next := func(buf []byte) (string, []byte) { return subject, outgoing(buf) }
	return l.courier("r.*."+strconv.Itoa(int(l.instance)), next, func(m *nats.Msg) { answer(m.Data) })
}

// Sequence carries between the followers and this process, which is the sequencer. take gets the followers' batches; it is called
// by one goroutine, must not block, and may keep them.
func (l *Link) Sequence(take func(from ident.Worker, batch []byte)) (*Answers, error) {
	a := &Answers{from: l.instance}
	c, err := l.courier("o.*", a.next, func(m *nats.Msg) {
		if from, ok := publisher(m.Subject); ok {
			take(from, m.Data)
		}
	})
	a.Courier = c
	return a, err
}

// courier subscribes, and starts the goroutine that publishes.
func (l *Link) courier(subject string, next func([]byte) (string, []byte), take nats.MsgHandler) (*Courier, error) {
	c := &Courier{wire: wire{l.nc.Publish, l.nc.IsConnected}, next: next, wake: make(chan struct{}, 1), stop: make(chan struct{}), stopped: make(chan struct{})}
	var err error
	c.sub, err = l.nc.Subscribe(subject, func(m *nats.Msg) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if !c.closed {
			take(m)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("subscribe to %s: %w", subject, err)
	}
	if err := c.sub.SetPendingLimits(inboxBatchesMax, inboxBytesMax); err != nil {
		return nil, fmt.Errorf("bound %s: %w", subject, err)
	}
	go c.run()
	return c, nil
}

// Wake has everything published that the source has. Any goroutine; never blocks.
func (c *Courier) Wake() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *Courier) run() {
	defer close(c.stopped)
	for {
		select {
		case <-c.wake:
			c.sendAll()
		case <-c.stop:
			c.sendAll()
			return
		}
	}
}

// keptBufferBytes is the largest buffer that is kept for the next batch.
const keptBufferBytes = 1 << 20

func (c *Courier) sendAll() {
	for c.wire.connected() {
		subject, payload := c.next(c.buf[:0])
		if len(payload) == 0 {
			return
		}
		if c.buf = payload; cap(c.buf) > keptBufferBytes {
			c.buf = nil
		}
		if c.wire.publish(subject, payload) != nil {
			return
		}
	}
}

// Close publishes what the source still has, and waits a second for it at most; the link's Close flushes it. Nothing that arrives
// is passed on any more. Any goroutine but those that Courier calls; once, and before the link's Close.
func (c *Courier) Close() {
	close(c.stop)
	late := time.NewTimer(closeWait)
	defer late.Stop()
	select {
	case <-c.stopped:
	case <-late.C: // Publish blocks until the connection ends
	}
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	_ = c.sub.Unsubscribe() // it fails where the connection has ended, and with it the subscription
}

// Answers are the sequencer's answers on their way.
//
// Owner: shared (mutex: waiting).
type Answers struct {
	*Courier
	from ident.Worker

	waiting sync.Mutex
	list    []answer
	bytes   int
}

type answer struct {
	to    ident.Worker
	piece []byte
}

// answersBytesMax bounds the answers that wait.
const answersBytesMax = 32 << 20

// Tell sends an answer to a follower; piece is the callee's. It reports false where too much waits already: the answer is dropped,
// and the follower asks again. Any goroutine; never blocks.
func (a *Answers) Tell(to ident.Worker, piece []byte) (ok bool) {
	a.waiting.Lock()
	ok = len(a.list) == 0 || a.bytes+len(piece) <= answersBytesMax
	if ok {
		a.list = append(a.list, answer{to, piece})
		a.bytes += len(piece)
	}
	a.waiting.Unlock()
	a.Wake()
	return ok
}

func (a *Answers) next([]byte) (subject string, payload []byte) {
	a.waiting.Lock()
	defer a.waiting.Unlock()
	if len(a.list) == 0 {
		return "", nil
	}
	x := a.list[0]
	a.list[0] = answer{}
	if a.list = a.list[1:]; len(a.list) == 0 {
		a.list = nil
	}
	a.bytes -= len(x.piece)
	return subjectTo("r", a.from, x.to), x.piece
}
