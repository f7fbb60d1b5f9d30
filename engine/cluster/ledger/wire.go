package ledger

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// inFlightMax bounds the requests of one worker on their way to the bus. A stream takes 100,000 at once (older servers
	// 10,000) and refuses the rest; a hundred workers stay below.
	inFlightMax = 500
	// attemptTime is the time after which a request counts as lost, if the bus has answered no other meanwhile either.
	attemptTime = 400 * time.Millisecond
	// lostTime is the time after which a request counts as lost although the bus answers others.
	lostTime = 2 * time.Second
	// triesPatient bounds the growth of both times: they are multiplied by the number of the attempt, up to this.
	triesPatient = 8
	// turnsUrgent is how many awaited requests leave before one that can wait.
	turnsUrgent = 4
	// restTime is the pause before the next request to a bus that is not there, or not ready.
	restTime = 15 * time.Millisecond
)

// wire carries requests to the bus and answers back. A write to a frozen bus blocks and holds the connection's lock; so all
// calls that may wait for that lock run on other goroutines, and deadlines are met.
//
// Owner: the ledger's goroutine, except the fields that mu guards.
type wire struct {
	nc       *nats.Conn
	l        *Ledger
	subs     []*nats.Subscription
	status   chan nats.Status
	inbox    string
	calls    map[uint64]*call
	last     uint64
	inFlight int
	heard    time.Time // when the bus last answered
	waiting  []*call
	more     func() bool // sends a request that can wait; false if there is none
	turns    int         // awaited requests since the last call of more
	pumping  bool
	resting  *timer

	mu    sync.Mutex // guards out and ended
	out   []*nats.Msg
	ended bool
	wake  chan struct{}
}

// call is one request. It is sent until it is answered, always with the same id: a late answer to an earlier attempt is
// valid too.
//
// Owner: the ledger's goroutine.
type call struct {
	msg      *nats.Msg
	done     func(*nats.Msg)
	lost     func() // for a call with several answers: done gets each until finish, and lost is called in place of a repeat
	bare     bool   // sent ahead of all others; done also gets NATS's answer that there is no listener
	id       uint64
	tries    int
	inFlight bool
	over     bool // answered, or given up
	sent     time.Time
	timer    *timer
}

func newWire(nc *nats.Conn, l *Ledger) (*wire, error) {
	w := &wire{nc: nc, l: l, calls: make(map[uint64]*call), inbox: nc.NewInbox() + ".", wake: make(chan struct{}, 1)}
	w.more = l.Sessions.sendDue
	if err := w.listen(w.inbox+"*", w.answered); err != nil {
		return nil, err
	}
	w.status = nc.StatusChanged(nats.CONNECTED)
	go w.follow()
	go w.write()
	return w, nil
}

// listen passes the messages on a subject to f, on the ledger's goroutine. It may wait for the connection.
func (w *wire) listen(subject string, f func(*nats.Msg)) error {
	sub, err := w.nc.Subscribe(subject, func(m *nats.Msg) {
		w.l.post(func() { f(m) })
	})
	if err != nil {
		return fmt.Errorf("subscribe to %s: %w", subject, err)
	}
	if err := sub.SetPendingLimits(-1, -1); err != nil { // inFlightMax bounds the answers
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
	go func() { // may wait for the connection
		for _, sub := range w.subs {
			_ = sub.Unsubscribe() // fails only if the connection is closed
		}
		w.nc.RemoveStatusListener(w.status)
	}()
}

// follow waits for reconnections. Requests that were on their way are lost then, and are sent again at once.
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
	for _, c := range slices.Collect(maps.Values(w.calls)) {
		if c.inFlight {
			w.fail(c)
		}
	}
	w.l.checkAll()
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

// unsent queues a request again that could not be published.
func (w *wire) unsent(reply string) {
	if c := w.callOf(reply); c != nil && c.inFlight {
		w.sendLater(c)
	}
}

func (w *wire) callOf(subject string) *call {
	token, ours := strings.CutPrefix(subject, w.inbox)
	id, err := strconv.ParseUint(token, 36, 64)
	if !ours || err != nil {
		return nil
	}
	return w.calls[id]
}

// send sends a message that needs no answer.
func (w *wire) send(m *nats.Msg) {
	w.mu.Lock()
	w.out = append(w.out, m)
	w.mu.Unlock()
	w.ring()
}

// request sends m; done gets the answer.
func (w *wire) request(m *nats.Msg, done func(*nats.Msg)) *call {
	c := &call{msg: m, done: done}
	w.enqueue(c)
	return c
}

// repeat sends an answered request again, because the bus was not ready.
func (w *wire) repeat(c *call) {
	c.id, c.over = 0, false
	w.enqueue(c)
}

func (w *wire) enqueue(c *call) {
	if c.bare {
		w.waiting = slices.Insert(w.waiting, 0, c)
	} else {
		w.waiting = append(w.waiting, c)
	}
	w.pump()
}

// pump sends requests, up to inFlightMax. Requests that can wait are only made then: until then their values can change.
func (w *wire) pump() {
	if w.pumping {
		return
	}
	w.pumping = true
	if w.resting == nil && w.clogged() {
		w.rest()
	}
	for w.resting == nil && w.inFlight < inFlightMax {
		if w.turns++; w.turns > turnsUrgent || len(w.waiting) == 0 {
			w.turns = 0
			if !w.more() && len(w.waiting) == 0 {
				break
			}
		}
		c := w.waiting[0]
		w.waiting[0] = nil
		w.waiting = w.waiting[1:]
		if !c.over {
			w.transmit(c)
		}
	}
	if len(w.waiting) == 0 {
		w.waiting = nil
	}
	w.l.backlog.Store(int64(len(w.waiting) + w.inFlight))
	w.pumping = false
}

// clogged reports whether the connection takes nothing: the bus is frozen.
func (w *wire) clogged() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.out) > 2*inFlightMax
}

// rest pauses all requests for restTime: the bus is not there, or not ready.
func (w *wire) rest() {
	if w.resting == nil {
		w.resting = w.l.after(restTime, func() {
			w.resting = nil
			w.pump()
		})
	}
}

func (w *wire) transmit(c *call) {
	if c.id == 0 {
		w.last++
		c.id = w.last
		w.calls[c.id] = c
	}
	c.tries++
	c.inFlight, c.sent = true, w.l.now
	w.inFlight++
	c.timer = w.l.after(attemptTime, func() { w.checkLost(c) })
	m := *c.msg // a copy: the writer's goroutine reads it later
	m.Reply = w.inbox + strconv.FormatUint(c.id, 36)
	w.send(&m)
}

// checkLost decides whether a request without an answer is lost. While the bus answers others it may only be busy, and repeated
// requests would make it busier, until it does nothing but answer repeats.
func (w *wire) checkLost(c *call) {
	last := c.sent
	if w.heard.After(last) {
		last = w.heard
	}
	patience := time.Duration(min(c.tries, triesPatient))
	left := min(last.Add(patience*attemptTime).Sub(w.l.now), c.sent.Add(patience*lostTime).Sub(w.l.now))
	if left > 0 {
		c.timer = w.l.after(left, func() { w.checkLost(c) })
		return
	}
	w.fail(c)
	w.pump()
}

// sendLater queues a request again that has not arrived, and pauses.
func (w *wire) sendLater(c *call) {
	w.rest()
	c.tries--
	w.fail(c)
}

// fail ends an attempt without an answer, and queues the request again.
func (w *wire) fail(c *call) {
	w.endFlight(c)
	if c.lost != nil {
		w.finish(c)
		c.lost()
		return
	}
	w.enqueue(c)
}

func (w *wire) endFlight(c *call) {
	w.l.timers.stop(c.timer)
	if c.inFlight {
		c.inFlight = false
		w.inFlight--
	}
}

// finish ends a request, even one that has not left yet.
func (w *wire) finish(c *call) {
	c.over = true
	w.endFlight(c)
	delete(w.calls, c.id)
	w.pump()
}

func (w *wire) answered(m *nats.Msg) {
	w.heard = w.l.now
	c := w.callOf(m.Subject)
	switch {
	case c == nil: // answered before
	case c.lost != nil:
		c.done(m)
	case m.Header.Get("Status") == "503" && !c.bare: // no listener: the stream is still being restored, or is gone
		w.l.suspect()
		if c.inFlight {
			w.sendLater(c)
		}
	default:
		w.finish(c)
		c.done(m)
	}
}
