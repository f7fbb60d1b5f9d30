package ledger

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/parleyd/parley/protocol/ident"
)

// Options say who the caller is and how patient the ledger shall be. Zero values mean the defaults.
//
// Owner: immutable after Open.
type Options struct {
	// Instance is the worker's, never 0, and never used twice within an epoch.
	Instance ident.Worker
	// Epoch is when the supervisor started, in milliseconds since 1970: the same for all its workers. All
	// instances of other epochs are dead.
	Epoch int64
	// SessionTTL is how long a session outlives its connection, or its dead owner (300 s; at least 1 s).
	SessionTTL time.Duration
	// Coalesce is how long saves of one session wait for further ones (20 ms).
	Coalesce time.Duration
	// AwayAfter bounds every call (2 s).
	AwayAfter time.Duration
	// PendingMax bounds the calls that wait for their callbacks (65,536).
	PendingMax int
	// Replicas is how many buses keep each record (1).
	Replicas int
	// RoomChanged hears of created and deleted rooms, on the ledger's goroutine; it must not block. May be nil.
	RoomChanged func(room Room, deleted bool)
	// Fault hears of what should not happen (a record that cannot be read, a refusal by the bus), on the ledger's
	// goroutine. May be nil.
	Fault func(error)
	// Say hears of what an operator should know: what was on the bus is gone, and is written anew. On the ledger's
	// goroutine; may be nil.
	Say func(error)
	// Lost is called where the sessions are gone from the bus. It has every live session of this worker saved once more,
	// and calls done when all have been given to Save. On the ledger's goroutine; it must not block. May be nil.
	Lost func(done func())
	// Peers are the workers that serve already: see Ledger.Peers.
	Peers []ident.Worker
}

func (o *Options) complete() error {
	if o.Instance == 0 || o.Epoch <= 0 {
		return errors.New("instance and epoch must be set: the supervisor assigns both")
	}
	if o.SessionTTL == 0 {
		o.SessionTTL = 300 * time.Second
	}
	o.SessionTTL = max(o.SessionTTL, time.Second)
	if o.Coalesce == 0 {
		o.Coalesce = 20 * time.Millisecond
	}
	if o.AwayAfter == 0 {
		o.AwayAfter = 2 * time.Second
	}
	if o.PendingMax == 0 {
		o.PendingMax = 1 << 16
	}
	o.Replicas = max(o.Replicas, 1)
	return nil
}

// Ledger is one worker's view of what all workers agree on. Its exported methods, and those of its parts, may be
// called by any goroutine, and none but Open and Close waits.
//
// Owner: the ledger's goroutine, but for what is marked.
type Ledger struct {
	// Sessions are what tokens restore.
	Sessions *Sessions
	// Seats are the places in limited rooms.
	Seats *Seats
	// Rooms are those that were created on purpose.
	Rooms *Rooms

	opts   Options
	kept   [3]*bucket // of sessions, seats, and what all follow
	peers  []ident.Worker
	why    atomic.Pointer[string]
	ready  func() // called once, when the ledger is open; nil then
	doubts time.Time
	wire   *wire
	life   *life
	feed   *feed
	timers timers
	now    time.Time
	writer uint64 // random: the first half of our marks
	marks  uint64 // the second half of the last one

	pending atomic.Int64 // accepted calls that wait for their callbacks
	backlog atomic.Int64 // requests to the bus that have no answer yet, of calls that were given up too
	mu      sync.Mutex   // guards letters and closed
	letters []func()
	closed  bool
	wake    chan struct{} // capacity one: at most one wake-up is outstanding
	done    chan struct{}
}

// Open prepares the streams and waits until the ledger knows who is dead and which rooms exist, at most until
// ctx ends. The connection stays the caller's; it should reconnect for ever (nats.MaxReconnects(-1)).
func Open(ctx context.Context, nc *nats.Conn, opts Options) (*Ledger, error) {
	if err := opts.complete(); err != nil {
		return nil, err
	}
	l := &Ledger{opts: opts, now: time.Now(), writer: rand.Uint64(), wake: make(chan struct{}, 1), done: make(chan struct{}), peers: opts.Peers}
	l.kept = [...]*bucket{newBucket(l, sessionBucket), newBucket(l, seatBucket), newBucket(l, sharedBucket)}
	l.life = newLife(l)
	l.Sessions, l.Seats, l.Rooms = newSessions(l), newSeats(l), newRooms(l)
	ready := make(chan struct{})
	l.ready = func() { close(ready) }
	l.feed = newFeed(l)
	l.assess()
	var err error
	if l.wire, err = newWire(nc, l); err != nil {
		return nil, err
	}
	if err := l.wire.listen(wantedSubject, l.Seats.wanted); err != nil {
		l.wire.stop()
		return nil, err
	}
	if err := l.wire.listen(changesPrefix+">", l.feed.hint); err != nil {
		l.wire.stop()
		return nil, err
	}
	l.post(l.watch)
	go l.run()
	select {
	case <-ready:
		return l, nil
	case <-ctx.Done():
		l.Close()
		return nil, fmt.Errorf("%w: %s", ctx.Err(), l.Why())
	}
}

// opened ends Open, once all that we have to say is on the bus and all that is there is known.
func (l *Ledger) opened() {
	if l.ready != nil && l.feed.synced && l.bucket(sessionBucket).marked && l.bucket(seatBucket).marked {
		l.ready()
		l.ready = nil
	}
}

// Close ends the ledger. Calls that wait get ErrClosed; what was not written stays unwritten. It returns once no
// callback will run any more, so a callback must not call it.
func (l *Ledger) Close() {
	l.mu.Lock()
	was := l.closed
	l.closed = true
	l.mu.Unlock()
	if !was {
		l.ring()
	}
	<-l.done
}

// Pending is the number of calls that wait for their callbacks. Any goroutine.
func (l *Ledger) Pending() int { return int(l.pending.Load()) }

// accept lets a call in that will have a callback.
func (l *Ledger) accept(f func()) error {
	if n := int64(l.opts.PendingMax); l.pending.Add(1) > n || l.backlog.Load() > n {
		l.pending.Add(-1)
		return ErrBusy
	}
	if !l.post(f) {
		l.pending.Add(-1)
		return ErrClosed
	}
	return nil
}

// post hands f to the ledger's goroutine. Any goroutine. It reports false after Close.
func (l *Ledger) post(f func()) bool {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return false
	}
	l.letters = append(l.letters, f)
	l.mu.Unlock()
	l.ring()
	return true
}

func (l *Ledger) ring() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *Ledger) run() {
	defer close(l.done)
	alarm := time.NewTimer(time.Hour)
	var batch []func()
	for {
		l.mu.Lock()
		batch, l.letters = l.letters, batch[:0]
		closed := l.closed
		l.mu.Unlock()
		l.now = time.Now()
		for i, f := range batch {
			f()
			batch[i] = nil
		}
		if closed {
			l.end()
			return
		}
		for t := l.timers.due(l.now); t != nil; t = l.timers.due(l.now) {
			t.f()
		}
		wait := time.Hour
		if len(l.timers) > 0 {
			wait = time.Until(l.timers[0].at)
		}
		alarm.Reset(wait)
		select {
		case <-l.wake:
		case <-alarm.C:
		}
	}
}

// end tells whoever still waits. Every callback that is owed hangs on a timer (see promise).
func (l *Ledger) end() {
	l.wire.stop()
	for len(l.timers) > 0 {
		t := l.timers[0]
		l.timers.stop(t)
		if t.owed {
			t.f()
		}
	}
}

func (l *Ledger) after(d time.Duration, f func()) *timer { return l.timers.start(l.now.Add(d), f) }

func (l *Ledger) unix() int64 { return l.now.UnixMilli() }

func (l *Ledger) fault(err error) {
	if l.opts.Fault != nil {
		l.opts.Fault(err)
	}
}

func (l *Ledger) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

// promise is a callback that will be called exactly once: with the outcome, or with ErrAway when time is over.
//
// Owner: the ledger's goroutine.
type promise struct {
	l     *Ledger
	tell  func(error)
	timer *timer
	kept  bool
}

// promise starts the time of a call that accept let in. tell gets the error of the deadline, or what keep is given.
func (l *Ledger) promise(tell func(error)) *promise {
	p := &promise{l: l, tell: tell}
	p.timer = l.after(l.opts.AwayAfter, func() {
		if l.isClosed() {
			p.keep(ErrClosed)
			return
		}
		p.keep(ErrAway)
	})
	p.timer.owed = true
	return p
}

// keep tells the outcome. Where the deadline came first, it does nothing.
func (p *promise) keep(err error) {
	p.keepWith(func() { p.tell(err) })
}

func (p *promise) keepWith(tell func()) {
	if p.kept {
		return
	}
	p.kept = true
	p.l.timers.stop(p.timer)
	p.l.pending.Add(-1)
	tell()
}
