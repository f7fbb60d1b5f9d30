package ledger

import (
	"errors"
	"math"
	"slices"
	"time"

	"github.com/parleyd/parley/protocol/ident"
)

// A seat goes from one worker to another without being free in between: who takes over a session that lives elsewhere
// must not lose its rooms to those who queue for them.
//
//	give    one write lowers the giver's holding and puts a gift into the record: the sum stays as it is
//	take    one write takes the gift out and raises the taker's holding: the sum stays as it is
//	recall  what nobody has taken after giftTime is taken out again, and free
//
// Each write is a compare-and-set, so a gift is taken or recalled, never both. A gift to the dead is void at once. One of
// the dead is void a second later, with the second reaping: until then whoever it was promised to can still take it.
//
// The alternative, a taker that lowers the giver's holding itself, would need one write less; but then holdings are not
// their own instance's any more, and no longer say which of its writes have landed.

// giftTime is longer than a take-over lasts: the answer of the giver, and the taker's time until ErrAway.
const giftTime = 3 * time.Second

// giftsMax bounds a record. What is beyond is released, and the heir takes what there is.
const giftsMax = 1000

// giving is a call that gives a seat.
type giving struct {
	to      ident.Worker
	ticket  Ticket
	promise *promise
}

// Give passes a seat that Acquire granted on to another instance, for whoever shows the ticket there to Take. When done
// gets nil, it can be taken, for giftTime; with an error it may come to that, or be released. In any case it is no more
// the caller's. What is returned instead says that nothing has happened. Any goroutine.
func (s *Seats) Give(room string, to ident.Worker, ticket Ticket, done func(error)) error {
	return s.l.accept(func() {
		g := &giving{to, ticket, s.l.promise(done)}
		r := s.rooms[encodeName(room)]
		if r == nil || r.used <= len(r.gifts)+len(r.going) {
			s.l.fault(errors.New("give a seat: more than were acquired"))
			g.promise.keep(ErrUnknown)
			return
		}
		r.gifts = append(r.gifts, g)
		r.serve()
	})
}

// Take is Acquire of one seat: of the one that was given with a ticket, before all who wait, and beyond the limit if need
// be, as it is taken already. Where that one is not there any more, any other will do. Any goroutine.
func (s *Seats) Take(room string, limit int, ticket Ticket, done func(error)) error {
	switch {
	case room == "" || len(room) > nameBytesMax:
		return errName
	case limit < 1 || limit > math.MaxInt32:
		return errSeatCount
	}
	return s.l.accept(func() {
		a := &acquire{n: 1, ticket: ticket, tell: func(_ int, err error) { done(err) }}
		a.promise = s.l.promise(done)
		r := s.roomOf(encodeName(room), limit)
		heirs := 0
		for heirs < len(r.waiting) && r.waiting[heirs].ticket != (Ticket{}) {
			heirs++
		}
		r.waiting = slices.Insert(r.waiting, heirs, a)
		r.full, r.fresh = time.Time{}, false
		r.serve()
	})
}

// give writes what is to be given. Where that is not wanted any more, the seat is released.
func (r *seatRoom) give() {
	me, gifts := r.s.l.opts.Instance, slices.Clone(r.view.gifts)
	for _, g := range r.gifts {
		if g.promise.kept || r.s.isGone(g.to) || len(gifts) >= giftsMax {
			r.used--
			g.promise.keep(nil)
			continue
		}
		r.going = append(r.going, g)
		gifts = append(gifts, gift{me, g.to, g.ticket})
	}
	r.gifts = nil
	if len(r.going) > 0 {
		r.writeWith(r.count-len(r.going), gifts)
		return
	}
	r.serve()
}

// gave is told what became of the write that was to give.
func (r *seatRoom) gave(landed bool) {
	going := r.going
	r.going = nil
	if !landed {
		r.gifts = append(going, r.gifts...)
		return
	}
	r.used -= len(going)
	for _, g := range going {
		r.s.recallLater(r.key, g.ticket)
		g.promise.keep(nil)
	}
}

// redeemed are the gifts that remain when those who wait have taken theirs, and how many these are.
func (r *seatRoom) redeemed() (left []gift, n int) {
	for _, g := range r.view.gifts {
		mine := g.to == r.s.l.opts.Instance && slices.ContainsFunc(r.waiting, func(a *acquire) bool {
			return a.ticket == g.ticket && !a.promise.kept
		})
		if mine {
			n++
			continue
		}
		left = append(left, g)
	}
	return left, n
}

// recallLater sees to it that a gift which nobody takes is free again.
func (s *Seats) recallLater(key string, ticket Ticket) {
	s.l.after(giftTime, func() {
		due, running := s.recalls[key]
		s.recalls[key] = append(due, ticket)
		if !running {
			s.recall(key)
		}
	})
}

// recall takes the gifts whose time is over out of a record. All of them leave with one write, those too that come while
// it tries: a write for each would make them compete with one another, the more the slower the bus is.
func (s *Seats) recall(key string) {
	s.l.get(seatBucket, key, func(f found) {
		seen := 0
		s.rewrite(key, f, func(r *seatRecord) {
			due := s.recalls[key]
			seen = len(due)
			r.gifts = slices.DeleteFunc(r.gifts, func(g gift) bool { return slices.Contains(due, g.ticket) })
		}, func() {
			if left := s.recalls[key][seen:]; seen > 0 && len(left) > 0 {
				s.recalls[key] = left
				s.recall(key)
				return
			}
			delete(s.recalls, key)
		})
	})
}
