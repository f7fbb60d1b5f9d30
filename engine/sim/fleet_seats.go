package sim

import (
	"slices"
	"time"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/engine/internal/fanout"
	"github.com/parleyd/parley/protocol/ident"
)

// seatBook has the simulated seats of limited rooms, with the promises of the ledger and its adapter in package cluster, and
// no others. There are never more seats than the limit, except forced and given ones. A verdict that a room is full may be a
// moment old. One worker's calls for one room happen in order. A dead worker's seats become free some time after its death.
//
// Owner: the simulation.
type seatBook struct {
	f     *Fleet
	rooms map[string]*seatRecord
}

// seatRecord is the seats of one room.
//
// Owner: the simulation.
type seatRecord struct {
	used   map[*worker]int
	gifts  []seatGift
	fullAt time.Duration
	was    bool // full, at fullAt
}

// seatGift is a seat that one worker has given to another.
//
// Owner: the simulation.
type seatGift struct {
	from, to *worker
	ticket   fanout.SeatTicket
	until    time.Duration
}

const (
	giftTime = 3 * time.Second
	fullTime = 50 * time.Millisecond
)

func (b *seatBook) record(room string) *seatRecord {
	r := b.rooms[room]
	if r == nil {
		r = &seatRecord{used: map[*worker]int{}}
		b.rooms[room] = r
	}
	r.gifts = slices.DeleteFunc(r.gifts, func(g seatGift) bool { return g.until <= b.f.now })
	return r
}

func (r *seatRecord) taken() int {
	n := len(r.gifts)
	for _, used := range r.used {
		n += used
	}
	return n
}

// reap frees the seats of a dead worker, once another worker was told of the death. A gift of the dead worker is void a
// second later.
func (b *seatBook) reap(dead *worker) {
	b.f.later(b.f.span(time.Millisecond, 50*time.Millisecond), func() {
		for _, r := range b.rooms {
			delete(r.used, dead)
			r.gifts = slices.DeleteFunc(r.gifts, func(g seatGift) bool { return g.to == dead })
			for i := range r.gifts {
				if g := &r.gifts[i]; g.from == dead {
					g.until = min(g.until, b.f.now+time.Second)
				}
			}
		}
	})
}

// leftovers checks that no worker holds a seat.
func (b *seatBook) leftovers() {
	for room := range b.rooms {
		if n := b.record(room).taken(); n != 0 {
			b.f.complain("leaks", "%d seats of %s are taken, and nobody is in", n, room)
		}
	}
}

// seatsOf are the seats as one worker uses them.
type seatsOf struct{ w *worker }

// Acquire is of [fanout.Seats].
func (s seatsOf) Acquire(room string, limit int, ticket fanout.SeatTicket, done func(error)) {
	if s.w.f.fault(s.w.f.plan.storeBusy) {
		done(engine.ErrOverloaded)
		return
	}
	told := false
	s.w.f.later(awayTime, func() {
		if !told && !s.w.dead {
			told = true
			done(engine.ErrUnavailable)
		}
	})
	var take func()
	take = func() {
		switch {
		case told || s.w.dead:
			return
		case !s.w.f.written(): // other workers' seats are not all known
			s.w.f.later(50*time.Millisecond, func() { s.w.atBook(take) })
			return
		}
		err := s.acquire(room, limit, ticket)
		s.w.f.tracef("worker %d acquires a seat in %s: %v", s.w.instance, room, err)
		told = true
		s.w.answer(func() { done(err) })
	}
	s.w.atBook(take)
}

func (s seatsOf) acquire(room string, limit int, ticket fanout.SeatTicket) error {
	f, r := s.w.f, s.w.f.seats.record(room)
	for i, g := range r.gifts {
		if g.to == s.w && g.ticket == ticket {
			r.gifts = slices.Delete(r.gifts, i, i+1)
			r.used[s.w]++
			return nil
		}
	}
	switch {
	case r.taken() >= limit:
		r.was, r.fullAt = true, f.now
		return engine.ErrRoomFull
	case r.was && f.now-r.fullAt < fullTime && ticket == (fanout.SeatTicket{}) && f.chance(0.3):
		return engine.ErrRoomFull
	}
	r.used[s.w]++
	return nil
}

// Give is of [fanout.Seats].
func (s seatsOf) Give(room string, to ident.Worker, ticket fanout.SeatTicket, done func()) {
	s.w.atBook(func() {
		r := s.w.f.seats.record(room)
		s.w.f.tracef("worker %d gives %d a seat in %s", s.w.instance, to, room)
		if r.used[s.w] > 0 {
			r.used[s.w]--
			if heir := s.w.f.of(to); !heir.dead {
				r.gifts = append(r.gifts, seatGift{s.w, heir, ticket, s.w.f.now + giftTime})
			}
		}
		s.w.answer(done)

	})
}

// Release is of [fanout.Seats].
func (s seatsOf) Release(room string) {
	s.w.atBook(func() {
		r := s.w.f.seats.record(room)
		if r.used[s.w]--; r.used[s.w] < 0 && !s.w.dead {
			s.w.f.complain("seats", "worker %d gives back a seat of %s that it does not have", s.w.instance, room)
		}

	})
}

// Force is of [fanout.Seats].
func (s seatsOf) Force(room string, _, n int) { s.w.f.seats.record(room).used[s.w] += n }

// atBook runs do on the bus, behind the worker's earlier calls.
func (w *worker) atBook(do func()) {
	w.book = append(w.book, do)
	if len(w.book) == 1 {
		w.f.later(w.f.span(200*time.Microsecond, w.f.plan.storeDelay), w.nextAtBook)
	}
}

func (w *worker) nextAtBook() {
	switch {
	case w.dead:
		return
	case !w.reached():
		w.f.later(20*time.Millisecond, w.nextAtBook)
		return
	}
	w.shelves.learn()
	for len(w.book) > 0 {
		do := w.book[0]
		w.book = w.book[1:]
		do()
		if w.f.chance(0.5) && len(w.book) > 0 {
			w.f.later(w.f.span(100*time.Microsecond, w.f.plan.storeDelay), w.nextAtBook)
			return
		}
	}
}

// answer runs told on the worker in a moment, unless it is dead by then.
func (w *worker) answer(told func()) {
	w.f.later(w.f.span(100*time.Microsecond, w.f.plan.storeDelay), func() {
		if !w.dead {
			told()
		}
	})
}
