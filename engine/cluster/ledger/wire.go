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
	// flyingMax bounds what one worker has on its way to the bus. A stream takes 100,000 at once (older servers
	// 10,000) and refuses the rest; a hundred workers stay below.
	flyingMax = 500
	// attemptTime is after how long without an answer a request counts as lost, when the bus has answered nothing else
	// meanwhile either.
	attemptTime = 400 * time.Millisecond
	// lostTime is after how long it counts as lost although the bus answers others.
	lostTime = 2 * time.Second
	// triesPatient is up to which attempt both times grow: by as much each time.
	triesPatient = 8
	// turnsUrgent is how many requests that are waited for leave before one that can wait.
	turnsUrgent = 4
	// restTime is how long to wait before asking a bus that is not there, or not ready.
	restTime = 15 * time.Millisecond
)

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
	heard   time.Time // when the bus last answered
	waiting []*call
	more    func() bool // requests one thing that can wait; false where there is none
	turns   int         // since then
	pumping bool
	resting *timer

	mu    sync.Mutex // guards out and ended
	out   []*nats.Msg
	ended bool
	wake  chan struct{}
}

// call is one request. It is sent until it is answered, under one name: an answer that comes late, to an earlier attempt,
// is as good as any.
//
// Owner: the ledger's goroutine.
type call struct {
	msg    *nats.Msg
	done   func(*nats.Msg)
	lost   func() // for several answers: done is called for each until hangUp, and this once, instead of sending again
	bare   bool   // before all others, and the answer that nobody listens is one, too
	id     uint64
	tries  int
	flying bool
	over   bool // answered, or nobody wants to know any more
	sent   time.Time
	timer  *timer
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
	for _, c := range slices.Collect(maps.Values(w.calls)) {
		if c.flying {
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

// unsent brings back a request that did not leave. It waits for its turn once more.
func (w *wire) unsent(reply string) {
	if c := w.callOf(reply); c != nil && c.flying {
		w.bounce(c)
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

// send puts a message on its way, without waiting for an answer.
func (w *wire) send(m *nats.Msg) {
	w.mu.Lock()
	w.out = append(w.out, m)
	w.mu.Unlock()
	w.ring()
}

// request sends m and gives the answer to done.
func (w *wire) request(m *nats.Msg, done func(*nats.Msg)) *call {
	c := &call{msg: m, done: done}
	w.enqueue(c)
	return c
}

// repeat sends a request once more whose answer was that the bus is not ready.
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

// pump sends what there is room for. What can wait is not even requested before: until then it goes on gathering.
func (w *wire) pump() {
	if w.pumping {
		return
	}
	w.pumping = true
	if w.resting == nil && w.clogged() {
		w.rest()
	}
	for w.resting == nil && w.flying < flyingMax {
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
			w.fly(c)
		}
	}
	if len(w.waiting) == 0 {
		w.waiting = nil
	}
	w.l.backlog.Store(int64(len(w.waiting) + w.flying))
	w.pumping = false
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
	if c.id == 0 {
		w.last++
		c.id = w.last
		w.calls[c.id] = c
	}
	c.tries++
	c.flying, c.sent = true, w.l.now
	w.flying++
	c.timer = w.l.after(attemptTime, func() { w.doubt(c) })
	m := *c.msg // the writer reads it later
	m.Reply = w.inbox + strconv.FormatUint(c.id, 36)
	w.send(&m)
}

// doubt decides about a request that has waited long. While the bus answers others it is only busy: what is sent again
// then makes it busier, until it does nothing but decide what it has decided before.
func (w *wire) doubt(c *call) {
	last := c.sent
	if w.heard.After(last) {
		last = w.heard
	}
	patience := time.Duration(min(c.tries, triesPatient))
	left := min(last.Add(patience*attemptTime).Sub(w.l.now), c.sent.Add(patience*lostTime).Sub(w.l.now))
	if left > 0 {
		c.timer = w.l.after(left, func() { w.doubt(c) })
		return
	}
	w.fail(c)
	w.pump()
}

// bounce brings a request back that has not arrived. Nothing can be sent for a moment.
func (w *wire) bounce(c *call) {
	w.rest()
	c.tries--
	w.fail(c)
}

// fail says that an attempt has come to nothing: the request waits for its turn once more.
func (w *wire) fail(c *call) {
	w.land(c)
	if c.lost != nil {
		w.hangUp(c)
		c.lost()
		return
	}
	w.enqueue(c)
}

func (w *wire) land(c *call) {
	w.l.timers.stop(c.timer)
	if c.flying {
		c.flying = false
		w.flying--
	}
}

// hangUp ends a request, even one that has not left yet.
func (w *wire) hangUp(c *call) {
	c.over = true
	w.land(c)
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
	case m.Header.Get("Status") == "503" && !c.bare: // nobody listens there: the stream is still being restored, or is gone
		w.l.suspect()
		if c.flying {
			w.bounce(c)
		}
	default:
		w.hangUp(c)
		c.done(m)
	}
}
