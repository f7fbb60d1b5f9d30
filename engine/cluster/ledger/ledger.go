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

// Options identify the worker, and bound times and numbers of calls. Zero values mean the defaults.
//
// Owner: immutable after Open.
type Options struct {
	// Instance is the worker's, never 0, and never used twice within an epoch.
	Instance ident.Worker
	// Epoch is when the supervisor started, in milliseconds since 1970, the same for all its workers. All instances of
	// other epochs are dead.
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
	// RoomChanged is called for each change of a created room, on the ledger's goroutine; it must not block. May be nil.
	RoomChanged func(room Room, change RoomChange)
	// Fault is called with unexpected errors (a record that cannot be read, a refusal by the bus), on the ledger's
	// goroutine. May be nil.
	Fault func(error)
	// Say is called with news for the operator: the records on the bus are gone, and the workers write them again. On the
	// ledger's goroutine; may be nil.
	Say func(error)
	// Lost is called when the sessions on the bus are gone. Before it returns, it must call Forget for each session that another
	// worker may have used. It must save every live session of this worker again, and call done when Save was called for all, and
	// when no Park of a forgotten session can follow. On the ledger's goroutine; it must not block. May be nil.
	Lost func(done func())
	// Peers are the workers that already serve: see Ledger.Peers.
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

// Ledger is one worker's view of the records that all workers share. Any goroutine may call its exported methods and those
// of its parts; only Open and Close wait.
//
// Owner: the ledger's goroutine, except the fields after mu, the atomic ones and Rooms.
type Ledger struct {
	// Sessions are restored by tokens.
	Sessions *Sessions
	// Seats are the rights to be members of limited rooms.
	Seats *Seats
	// Rooms are the created rooms.
	Rooms *Rooms

	opts      Options
	kept      [3]*bucket // sessions, seats, shared
	peers     []ident.Worker
	why       atomic.Pointer[string]
	ready     func()    // called once, when the ledger is open; nil then
	suspected time.Time // of the latest suspect that checked the origins
	wire      *wire
	life      *life
	feed      *feed
	timers    timers
	now       time.Time
	writer    uint64 // random: the first half of our marks
	marks     uint64 // the second half of the latest mark

	pending atomic.Int64 // accepted calls that wait for their callbacks
	backlog atomic.Int64 // requests to the bus without an answer, including those of calls that got ErrAway
	mu      sync.Mutex   // guards letters and closed
	letters []func()
	closed  bool
	wake    chan struct{} // capacity one: at most one wake-up is outstanding
	done    chan struct{}
}

// Open prepares the streams and waits until the ledger knows the dead workers and the created rooms, at most until ctx
// ends. The caller keeps the connection, which should reconnect for ever (nats.MaxReconnects(-1)).
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

// opened ends Open, once this worker's records are on the bus and the feed has read all shared ones.
func (l *Ledger) opened() {
	if l.ready != nil && l.feed.synced && l.bucket(sessionBucket).marked && l.bucket(seatBucket).marked {
		l.ready()
		l.ready = nil
	}
}

// Close ends the ledger. Pending calls get ErrClosed; their writes may never happen. It returns after the last callback,
// so a callback must not call it.
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

// Pending is the number of accepted calls whose callbacks have not run. Any goroutine.
func (l *Ledger) Pending() int { return int(l.pending.Load()) }

// accept posts a call that has a callback, unless too many are pending.
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

// end calls all pending callbacks: each has a timer (see promise).
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

// promise is a callback that is called exactly once: with the outcome, or with ErrAway after AwayAfter.
//
// Owner: the ledger's goroutine.
type promise struct {
	l     *Ledger
	tell  func(error)
	timer *timer
	kept  bool
}

// promise starts the time of an accepted call. tell gets the argument of keep, or the error of the deadline.
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

// keep gives the outcome to the callback. After the deadline it has no effect.
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
