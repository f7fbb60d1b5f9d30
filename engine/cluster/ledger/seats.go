package ledger

import (
	"errors"
	"math"
	"time"

	"github.com/parleyd/parley/protocol/ident"
)

// Seats are the seats of limited rooms, shared by all workers.
//
// A room's record says how many seats each instance holds. A worker takes seats by writing its own holding at the revision
// that it knows, so the sum never exceeds the limit, whichever process dies. Seats that a worker holds and does not use are
// idle: it grants them without a write. Far from the limit it takes a few more than it needs (a block); near the limit it
// takes only as many as it needs, and gives released ones back at once.
//
// If there are too few, the worker asks all holders, which give their idle seats back and answer; only then, after another
// read, it refuses. So no call is refused while another worker has idle seats.
//
// A worker has one write of a room on its way; calls that come meanwhile share the next.
//
// Owner: the ledger's goroutine.
type Seats struct {
	l       *Ledger
	rooms   map[string]*seatRoom // by key
	gone    map[ident.Worker]int // how many times an instance was reaped
	recalls map[string][]Ticket  // by key: expired gifts, while they are taken out of the record
}

// seatRoom is a room of which this worker holds, or wants, seats. used <= held <= count. While a write that lowers our
// holding is on its way, held is already lower than count; one that raises it raises both when it has succeeded.
//
// Forced seats are used before they are held; then no seat is granted until the record has them.
//
// Owner: the ledger's goroutine.
type seatRoom struct {
	s        *Seats
	key      string
	limit    int
	view     seatRecord // as last read or written
	revision uint64
	count    int // our holding in view
	target   int // our holding in the write that is on its way; -1 if there is none
	held     int // how many of count may be granted
	used     int
	waiting  []*acquire // those with a ticket first
	gifts    []*giving  // not yet in a write: used until they are given
	going    []*giving  // in the write that is on its way
	stage    stage
	fresh    bool      // no call with a ticket has come since the last read began
	busy     bool      // a read, a write or a question is on its way
	stray    bool      // a write for a lost stream may have reached its successor: the seats that it took are not ours
	voided   bool      // the limit has changed: idle seats must not be granted
	full     time.Time // until then calls are refused without a read
	scarce   time.Time // until then another worker is short of seats
	giveBack *timer
	askers   []string // reply subjects of workers that wait until no seat is idle here
}

// stage is how far a round that finds too few seats has come.
type stage uint8

const (
	begun  stage = iota // the view may be stale
	looked              // the view is fresh
	asked               // all holders have answered
	judged              // the view was read after their answers
)

// acquire is a call that waits for seats.
//
// Owner: its room.
type acquire struct {
	n       int
	ticket  Ticket // of a seat that was given; zero for none
	promise *promise
	tell    func(int, error)
}

const (
	// blockShare: one worker may keep the blockShare-th part of the limit idle while half of the seats are free.
	blockShare = 16
	// lingerTime is how long seats stay idle before they are given back, far from the limit.
	lingerTime = 100 * time.Millisecond
	// fullTime is how long a verdict holds: within it, refusals cost no read.
	fullTime = 50 * time.Millisecond
	// scarceTime is how long a worker gives idle seats back at once after another was short of seats.
	scarceTime = 5 * time.Second
	// askTime bounds the wait for the answers of holders: one may be frozen.
	askTime = 250 * time.Millisecond
)

var errSeatCount = errors.New("limit and number of seats must be positive, and fit 32 bits")

func newSeats(l *Ledger) *Seats {
	return &Seats{l: l, rooms: make(map[string]*seatRoom), gone: make(map[ident.Worker]int), recalls: make(map[string][]Ticket)}
}

// Acquire takes up to n seats of a room with a limit. done gets how many were granted; fewer than n means that the room is
// full with these, ErrFull that none was free. A limit that differs from the last call's holds from now on; members above
// it stay. After ErrAway no seat is granted. Any goroutine.
func (s *Seats) Acquire(room string, limit, n int, done func(granted int, err error)) error {
	switch {
	case room == "" || len(room) > nameBytesMax:
		return errName
	case limit < 1 || n < 1 || limit > math.MaxInt32 || n > math.MaxInt32:
		return errSeatCount
	}
	return s.l.accept(func() {
		a := &acquire{n: n, tell: done}
		a.promise = s.l.promise(func(err error) { done(0, err) })
		r := s.roomOf(encodeName(room), limit)
		r.waiting = append(r.waiting, a)
		r.serve()
	})
}

// Release gives granted seats back. It is never refused. Any goroutine.
func (s *Seats) Release(room string, n int) {
	s.l.post(func() {
		r := s.rooms[encodeName(room)]
		if r == nil || r.used < n || n < 0 {
			s.l.fault(errors.New("release seats: more than were acquired"))
			return
		}
		r.used -= n
		r.serve()
	})
}

// Force takes n seats of a room with a limit, even beyond it, for connections that were members when the room got its
// limit. Release gives them back. It is never refused. Any goroutine.
func (s *Seats) Force(room string, limit, n int) {
	s.l.post(func() {
		r := s.room(encodeName(room))
		r.limit, r.full = limit, time.Time{}
		r.used += n
		r.serve()
	})
}

func (s *Seats) room(key string) *seatRoom {
	r := s.rooms[key]
	if r == nil {
		r = &seatRoom{s: s, key: key, target: -1, view: seatRecord{epoch: s.l.opts.Epoch}}
		s.rooms[key] = r
	}
	return r
}

// roomOf is room for a call that wants seats. It also drops waiting calls that have got ErrAway.
func (s *Seats) roomOf(key string, limit int) *seatRoom {
	r := s.room(key)
	if r.limit != limit {
		r.voided = r.limit != 0
		r.limit, r.full, r.stage = limit, time.Time{}, begun
	}
	for len(r.waiting) > 0 && r.waiting[0].promise.kept {
		r.waiting = r.waiting[1:]
	}
	return r
}

// serve grants and refuses as far as that is possible now, and starts at most one read, write or question.
func (r *seatRoom) serve() {
	if r.voided && !r.busy {
		r.held, r.voided = min(r.held, r.used), false
	}
	r.grant()
	if r.busy {
		r.answer()
		return
	}
	need := r.need()
	switch {
	case r.used > r.held:
		r.write(r.used)
	case len(r.gifts) > 0:
		r.give()
	case need > 0 && r.s.l.now.Before(r.full):
		r.refuse()
	case need > 0:
		r.takeMore(need)
	default:
		r.stage = begun
		r.returnIdle()
	}
	r.answer()
	if !r.busy && r.count == 0 && r.used == 0 && len(r.waiting) == 0 {
		r.s.l.timers.stop(r.giveBack)
		delete(r.s.rooms, r.key)
	}
}

// grant grants idle seats to the waiting calls, in their order.
func (r *seatRoom) grant() {
	for len(r.waiting) > 0 {
		a := r.waiting[0]
		if !a.promise.kept {
			if r.voided || r.held-r.used < a.n {
				return
			}
			r.used += a.n
			a.promise.keepWith(func() { a.tell(a.n, nil) })
		}
		r.waiting[0] = nil
		r.waiting = r.waiting[1:]
	}
	r.waiting = nil
}

// need is how many seats the waiting calls lack.
func (r *seatRoom) need() int {
	n := 0
	for _, a := range r.waiting {
		if !a.promise.kept {
			n += a.n
		}
	}
	return n - (r.held - r.used)
}

// refuse tells the waiting calls that the room is full; the first of them get the idle seats.
func (r *seatRoom) refuse() {
	waiting := r.waiting
	r.waiting, r.stage = nil, begun
	for _, a := range waiting {
		granted := min(a.n, r.held-r.used)
		switch {
		case a.promise.kept:
		case granted > 0:
			r.used += granted
			a.promise.keepWith(func() { a.tell(granted, nil) })
		default:
			a.promise.keep(ErrFull)
		}
	}
	r.returnIdle()
}

func (r *seatRoom) fail(err error) {
	waiting := r.waiting
	r.waiting, r.stage = nil, begun
	for _, a := range waiting {
		a.promise.keep(err)
	}
}

// takeMore takes seats, or finds out that there are none.
func (r *seatRoom) takeMore(need int) {
	if !r.s.l.bucket(seatBucket).whole {
		return // other workers have not yet written their holdings
	}
	if r.stray && r.count > r.used {
		r.write(r.used)
		return
	}
	r.stray = false
	others, holders := r.view.others(r.s.l.opts.Instance)
	left, given := r.redeemed()
	others -= given
	take := max(min(need, r.limit-others-r.held), min(need, given))
	if take > 0 {
		if sum := others + r.held + take; sum < r.limit/2 && !r.s.l.now.Before(r.scarce) {
			take += min(r.limit/blockShare, r.limit/2-sum)
		}
		r.writeWith(r.held+take, left)
		return
	}
	switch {
	case r.stage == begun:
		r.look(looked)
	case r.stage == looked && holders > 0:
		r.ask()
	case r.stage == asked || !r.fresh:
		r.look(judged)
	default:
		r.full = r.s.l.now.Add(fullTime)
		r.refuse()
	}
}

// near reports whether idle seats should be given back at once.
func (r *seatRoom) near() bool {
	others, _ := r.view.others(r.s.l.opts.Instance)
	return r.s.l.now.Before(r.scarce) || 2*(others+r.count) >= r.limit || r.held < r.count
}

// returnIdle gives idle seats back: near the limit at once, else those beyond a block, after lingerTime.
func (r *seatRoom) returnIdle() {
	idle := r.count - r.used
	if idle <= 0 || r.busy {
		return
	}
	if r.near() {
		r.held = r.used
		r.write(r.used)
		return
	}
	if r.giveBack == nil && (r.used == 0 || idle > r.limit/blockShare) {
		r.giveBack = r.s.l.after(lingerTime, func() {
			r.giveBack = nil
			r.lingered()
		})
	}
}

func (r *seatRoom) lingered() {
	keep := 0
	if r.used > 0 {
		keep = r.limit / blockShare
	}
	if r.busy || len(r.waiting) > 0 || r.count <= r.used+keep {
		r.serve()
		return
	}
	r.held = r.used + keep
	r.write(r.held)
}
