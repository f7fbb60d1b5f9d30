package ledger

import (
	"errors"
	"math"
	"slices"
	"time"

	"github.com/parleyd/parley/protocol/ident"
)

// A seat goes from one worker to another without being free in between: a connection that takes over a session from another
// worker must not lose its rooms to clients that wait for seats there.
//
//	give    one write lowers the giver's holding and adds a gift to the record: the sum stays the same
//	take    one write removes the gift and raises the taker's holding: the sum stays the same
//	recall  a gift that was not taken within giftTime is removed, and its seat is free
//
// Each write is a compare-and-set, so a gift is taken or recalled, never both. A gift to a dead worker is void at once. A
// gift of a dead worker is void a second later, with the second reaping: until then its receiver can still take it.
//
// The alternative, a taker that lowers the giver's holding itself, would need one write less; but then a holding would have
// several writers, and would not show any more which of its instance's writes have succeeded.

// giftTime is longer than a take-over lasts: the giver's answer, and the taker's time until ErrAway.
const giftTime = 3 * time.Second

// giftsMax bounds a record. Further seats are released, and their heirs compete for free ones.
const giftsMax = 1000

// giving is a call that gives a seat.
type giving struct {
	to      ident.Worker
	ticket  Ticket
	promise *promise
}

// Give passes a granted seat on to another instance, where a call of Take with the ticket gets it. When done gets nil, the
// seat can be taken, for giftTime; after an error it may become so, or be released. In any case the caller has lost it. If
// Give itself returns an error, nothing has happened. Any goroutine.
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

// Take is Acquire of one seat: the one that was given with the ticket, ahead of all waiting calls and even beyond the
// limit, since the record counts it already; or any other, if that gift is gone. Any goroutine.
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

// give writes the gifts. A seat whose receiver is dead, or whose call got ErrAway, is released.
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

// gave takes the outcome of the write with the gifts in going.
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

// redeemed splits the gifts: left are those that remain when the waiting calls have taken theirs, n in number.
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

// recallLater recalls a gift after giftTime.
func (s *Seats) recallLater(key string, ticket Ticket) {
	s.l.after(giftTime, func() {
		due, running := s.recalls[key]
		s.recalls[key] = append(due, ticket)
		if !running {
			s.recall(key)
		}
	})
}

// recall removes the expired gifts from a record, all with one write, including those that expire while it tries. Separate
// writes would conflict with one another, the more the slower the bus is.
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
