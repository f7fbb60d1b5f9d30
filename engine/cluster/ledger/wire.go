package ledger

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// flyingMax bounds what one worker has on its way to the bus. A stream takes 100,000 at once (older servers
	// 10,000) and refuses the rest; a hundred workers stay below.
	flyingMax = 1000
	// attemptTime is after how long without an answer a request counts as lost.
	attemptTime = 400 * time.Millisecond
	// restTime is how long to wait before asking a bus that is not there, or not ready.
	restTime = 15 * time.Millisecond
)

var errLost = errors.New("no answer")

// wire carries requests to the bus and answers back. Whatever may wait for the connection's lock, which a write to a
// frozen bus holds, runs on goroutines of its own, so that deadlines are met regardless.
//
// Owner: the ledger's goroutine, but for what mu guards.
type wire struct {
	nc      *nats.Conn
	l       *Ledger
	subs    []*nats.Subscription
	status  chan nats.Status
	inbox   string
	calls   map[uint64]*call
	last    uint64
	flying  int
	waiting []*call
	resting *timer

	mu    sync.Mutex // guards out and ended
	out   []*nats.Msg
	ended bool
	wake  chan struct{}
}

// call is one request. An answer goes to done; errLost where there was none.
//
// Owner: the ledger's goroutine.
type call struct {
	msg   *nats.Msg
	done  func(*nats.Msg, error)
	many  bool // several answers: done is called for each until hangUp
	timer *timer
	id    uint64
}

func newWire(nc *nats.Conn, l *Ledger) (*wire, error) {
	w := &wire{nc: nc, l: l, calls: make(map[uint64]*call), inbox: nc.NewInbox() + ".", wake: make(chan struct{}, 1)}
	if err := w.listen(w.inbox+"*", w.answered); err != nil {
		return nil, err
	}
	w.status = nc.StatusChanged(nats.CONNECTED)
	go w.follow()
	go w.write()
	return w, nil
}

// listen gives what comes on a subject to f, on the ledger's goroutine. It may wait for the connection.
func (w *wire) listen(subject string, f func(*nats.Msg)) error {
	sub, err := w.nc.Subscribe(subject, func(m *nats.Msg) {
		w.l.post(func() { f(m) })
	})
	if err != nil {
		return fmt.Errorf("subscribe to %s: %w", subject, err)
	}
	if err := sub.SetPendingLimits(-1, -1); err != nil { // what we asked for is bounded by flyingMax
		return fmt.Errorf("lift limits of %s: %w", subject, err)
	}
	w.subs = append(w.subs, sub)
	return nil
}

func (w *wire) stop() {
	w.mu.Lock()
	w.ended = true
	w.mu.Unlock()
	w.ring()
	go func() { // it may wait for the connection
		for _, sub := range w.subs {
			_ = sub.Unsubscribe() // fails only where the connection is gone
		}
		w.nc.RemoveStatusListener(w.status)
	}()
}

// follow waits for the connection to come back. What was on its way then is lost; it is sent again at once.
func (w *wire) follow() {
	for {
		select {
		case _, open := <-w.status:
			if !open || !w.l.post(w.reconnected) {
				return
			}
		case <-w.l.done:
			return
		}
	}
}

func (w *wire) reconnected() {
	flying := w.calls
	w.calls = make(map[uint64]*call)
	w.flying = 0
	for _, c := range flying {
		w.l.timers.stop(c.timer)
		c.done(nil, errLost)
	}
	w.pump()
}

func (w *wire) ring() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// write runs on its own goroutine, because publishing can block.
func (w *wire) write() {
	var batch []*nats.Msg
	for range w.wake {
		w.mu.Lock()
		batch, w.out = w.out, batch[:0]
		ended := w.ended
		w.mu.Unlock()
		if ended {
			return
		}
		for i, m := range batch {
			if !w.nc.IsConnected() || w.nc.PublishMsg(m) != nil {
				w.l.post(func() { w.unsent(m.Reply) })
			}
			batch[i] = nil
		}
	}
}

// unsent brings back a request that did not leave. It waits for its turn once more.
func (w *wire) unsent(reply string) {
	c := w.callOf(reply)
	if c == nil {
		return
	}
	w.land(c)
	w.rest()
	c.done(nil, errLost)
}

func (w *wire) callOf(subject string) *call {
	token, ours := strings.CutPrefix(subject, w.inbox)
	id, err := strconv.ParseUint(token, 36, 64)
	if !ours || err != nil {
		return nil
	}
	return w.calls[id]
}

// send puts a message on its way, without waiting for an answer.
func (w *wire) send(m *nats.Msg) {
	w.mu.Lock()
	w.out = append(w.out, m)
	w.mu.Unlock()
	w.ring()
}

// request sends m and gives the answer to done.
func (w *wire) request(m *nats.Msg, done func(*nats.Msg, error)) *call {
	c := &call{msg: m, done: done}
	w.enqueue(c)
	return c
}

func (w *wire) enqueue(c *call) {
	w.waiting = append(w.waiting, c)
	w.pump()
}

func (w *wire) pump() {
	if w.resting == nil && len(w.waiting) > 0 && w.clogged() {
		w.rest()
	}
	for w.resting == nil && len(w.waiting) > 0 && w.flying < flyingMax {
		c := w.waiting[0]
		w.waiting[0] = nil
		w.waiting = w.waiting[1:]
		w.fly(c)
	}
	if len(w.waiting) == 0 {
		w.waiting = nil
	}
	w.l.backlog.Store(int64(len(w.waiting) + w.flying))
}

// clogged reports whether the connection takes nothing: the bus is frozen.
func (w *wire) clogged() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.out) > 2*flyingMax
}

// rest holds everything back for a moment: the bus is not there, or not ready.
func (w *wire) rest() {
	if w.resting == nil {
		w.resting = w.l.after(restTime, func() {
			w.resting = nil
			w.pump()
		})
	}
}

func (w *wire) fly(c *call) {
	w.last++
	c.id = w.last
	w.calls[c.id] = c
	w.flying++
	c.timer = w.l.after(attemptTime, func() {
		w.land(c)
		c.done(nil, errLost)
		w.pump()
	})
	c.msg.Reply = w.inbox + strconv.FormatUint(c.id, 36)
	m := *c.msg // the writer reads it while a later attempt may change the reply
	w.send(&m)
}

func (w *wire) land(c *call) {
	if _, flying := w.calls[c.id]; flying {
		delete(w.calls, c.id)
		w.flying--
	}
	w.l.timers.stop(c.timer)
}

// hangUp ends a call with many answers, even one that has not left yet.
func (w *wire) hangUp(c *call) {
	c.done = func(*nats.Msg, error) {}
	w.land(c)
	w.pump()
}

func (w *wire) answered(m *nats.Msg) {
	c := w.callOf(m.Subject)
	if c == nil {
		return // too late: it was sent again
	}
	if c.many {
		c.done(m, nil)
		return
	}
	w.land(c)
	if m.Header.Get("Status") == "503" { // nobody listens there: the stream is still being restored
		w.rest()
		c.done(nil, errLost)
		return
	}
	c.done(m, nil)
	w.pump()
}
