package engine

import (
	"bytes"
	"errors"
	"slices"

	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/protocol/message"
	"github.com/parleyd/parley/rooms"
)

// Limited rooms of several workers. Whether there is a seat is known only once all of them agree, so a join waits: the
// connection's later messages wait with it, in order, as for any other answer. A seat belongs to the room, by its name:
// it is acquired before the connection enters, and given back by the room in the step in which the connection leaves it.
// Who ended while he waited, or turns out to be in already, gives it back at once.
//
// Rooms without a limit, and servers that are alone, know nothing of this.

// Seats are the places in limited rooms, which all workers share. The methods are for any goroutine and never wait.
type Seats interface {
	// Acquire takes a seat of a room: with a ticket the one that another worker gave with it, where it is still there. done
	// is called exactly once, within two seconds, on any goroutine: with nil, [ErrRoomFull], [ErrUnavailable] or
	// [ErrOverloaded]; unless with nil, no seat is taken.
	Acquire(room string, limit int, ticket SeatTicket, done func(error))
	// Give keeps a seat that was acquired here, for a few seconds, for whoever shows the ticket to another worker. done is
	// called exactly once, within two seconds, on any goroutine, when he may.
	Give(room string, to ident.Worker, ticket SeatTicket, done func())
	// Release gives a seat back.
	Release(room string)
	// Force takes n seats, whether there are as many or not, for those who were in when the room got its limit.
	Force(room string, limit, n int)
}

// SeatTicket names a seat that one worker gives to another. The zero ticket is none.
type SeatTicket [16]byte

// errSeat says that a seat must be acquired first. No client hears of it.
var errSeat = &Error{Code: "seat", Message: rooms.ErrSeat.Error()}

// acquire asks for a seat of a room and goes on, on the loop, with what it is told.
func (l *loop) acquire(room string, limit int, ticket SeatTicket, then func(l *loop, err *Error)) {
	l.srv.peers.Seats.Acquire(room, limit, ticket, func(err error) {
		l.postCall(func(l *loop) { then(l, seatError(err)) })
	})
}

// seatError is what a client is told.
func seatError(err error) *Error {
	if err == nil {
		return nil
	}
	if known, ok := errors.AsType[*Error](err); ok {
		return known
	}
	return errUnavailable
}

// awaitSeat makes c, which counts as in already, wait for a seat in a room, and then join it. m is borrowed.
func (l *loop) awaitSeat(c *Conn, m move, limit int) {
	p := l.await(c, pendingSeat, "join", m.ref)
	m.room, m.ref = bytes.Clone(m.room), p.ref
	if m.stored {
		p.move = m // what is stored meanwhile must have it, too
	}
	l.acquire(string(m.room), limit, SeatTicket{}, func(l *loop, err *Error) { l.seatFound(c, p, m, err) })
}

// seatFound ends the wait. What was posted for c in the meantime goes out before the answer.
func (l *loop) seatFound(c *Conn, p *pending, m move, err *Error) {
	if c.wire.Posted.Load() > 0 {
		l.postCall(func(l *loop) { l.seatUsed(c, p, m, err) })
		return
	}
	l.seatUsed(c, p, m, err)
}

// seatUsed lets c in. The store may have become late while c waited.
func (l *loop) seatUsed(c *Conn, p *pending, m move, err *Error) {
	waits := l.settled(c, p)
	if waits && err == nil {
		if m.seated = true; m.stored {
			l.joinSeated(c, m)
		} else {
			l.storeFirst(c, m, (*loop).joinSeated)
		}
		l.goOnAfter(c, p)
		return
	}
	c.seats.Add(-1)
	if m.stored {
		l.changed(c) // the store has it
	}
	if !waits {
		l.giveBackSeats(seatVerdicts{string(m.room): err})
		return
	}
	l.complain(c, err, m.ref)
	l.goOnAfter(c, p)
}

func (l *loop) joinSeated(c *Conn, m move) {
	entry := l.takeSeat(c, string(m.room))
	l.Text = message.AppendJoined(l.Text[:0], message.Joined{Room: m.room, Members: entry.Members + entry.Room.Away(), Gap: m.since, Ref: m.ref})
	l.answerNow(c, l.Text)
}

// takeSeat enters c, for which a seat was acquired and counted in c.seats.
func (l *loop) takeSeat(c *Conn, room string) rooms.Entry {
	entry, spare := l.srv.index.EnterSeated([]byte(room), c.place(), l.srv.seconds(l.Now))
	if spare {
		l.srv.peers.Seats.Release(room)
	}
	if entry.Already {
		c.seats.Add(-1)
		return entry
	}
	l.entered(c, entry)
	return entry
}

// seatVerdicts say what became of the seats that a resuming connection asked for, by room; nil is a seat.
type seatVerdicts map[string]*Error

// giveBackSeats gives back those that were granted.
func (l *loop) giveBackSeats(seats seatVerdicts) {
	for room, err := range seats {
		if err == nil {
			l.srv.peers.Seats.Release(room)
		}
	}
}

// gatherSeats acquires a seat in each of several rooms. The verdicts are complete when then is called.
func (l *loop) gatherSeats(limits map[string]int, ticket SeatTicket, then func(*loop)) seatVerdicts {
	seats := make(seatVerdicts, len(limits))
	left := len(limits)
	for room, limit := range limits {
		l.acquire(room, limit, ticket, func(l *loop, err *Error) {
			seats[room] = err
			if left--; left == 0 {
				then(l)
			}
		})
	}
	return seats
}

// unknown is why it is not known whether a room has a seat; nil where all are known.
func (s seatVerdicts) unknown() (why *Error) {
	for _, err := range s {
		if err != nil && err != ErrRoomFull {
			why = err
		}
	}
	return why
}

// scarceRooms are those that c needs a shared seat for, with their limits.
func (l *loop) scarceRooms(c *Conn, names []string) (limits map[string]int) {
	for _, name := range names {
		if limit := l.srv.index.Scarce([]byte(name), c.place()); limit > 0 {
			if limits == nil {
				limits = make(map[string]int)
			}
			limits[name] = limit
		}
	}
	return limits
}

// enterAgain takes c into a room of the session that it resumes.
func (l *loop) enterAgain(c *Conn, room string, seats seatVerdicts) *Error {
	verdict, asked := seats[room]
	delete(seats, room) // a seat is used once
	switch {
	case !asked:
		_, err := l.enter(c, []byte(room))
		if err == errSeat { // it got its limit in this instant
			c.seats.Add(-1)
			return errUnavailable
		}
		return err
	case verdict != nil:
		return verdict
	case !c.reserveRoom():
		l.srv.peers.Seats.Release(room)
		return wireError(message.TooManyRooms)
	}
	l.takeSeat(c, room)
	return nil
}

// arrival is a connection on its way into a limited room, sent there by the application.
type arrival struct {
	room string
	done func(error) // nil: nobody asks
	left bool        // sent out again before it was in
}

// tellArrival tells the application what came of a join. A panic costs the connection.
func (l *loop) tellArrival(c *Conn, a *arrival, err error) {
	if a.done == nil {
		return
	}
	if l.srv.guard("JoinThen", c, func() error { a.done(err); return nil }) != nil {
		l.endBy(c, CausePanic)
	}
}

// arrive has c wait for a seat that [Rooms.Join] asks for. Its messages do not wait with it.
func (l *loop) arrive(c *Conn, a *arrival) {
	if c.wire.Phase != turn.PhaseOpen {
		l.tellArrival(c, a, ErrNotOpen)
		return
	}
	entry, err := l.srv.index.Enter([]byte(a.room), c.place(), l.srv.seconds(l.Now))
	switch {
	case err == rooms.ErrSeat:
		c.extra().arrivals = append(c.extra().arrivals, a)
		l.acquire(a.room, entry.Limit, SeatTicket{}, func(l *loop, err *Error) { l.arrived(c, a, err) })
	case err != nil:
		c.seats.Add(-1)
		l.tellArrival(c, a, ErrRoomFull)
	case entry.Already:
		c.seats.Add(-1)
		l.tellArrival(c, a, nil)
	default:
		l.entered(c, entry)
		l.tellJoined(c, entry)
		l.tellArrival(c, a, nil)
	}
}

func (l *loop) arrived(c *Conn, a *arrival, err *Error) {
	if c.rare != nil {
		c.rare.arrivals = slices.DeleteFunc(c.rare.arrivals, func(other *arrival) bool { return other == a })
		if len(c.rare.arrivals) == 0 {
			c.rare.arrivals = nil
		}
	}
	open := c.wire.Phase == turn.PhaseOpen
	if err == nil && open && !a.left {
		if entry := l.takeSeat(c, a.room); !entry.Already {
			l.tellJoined(c, entry)
		}
		l.tellArrival(c, a, nil)
		return
	}
	c.seats.Add(-1)
	l.giveBackSeats(seatVerdicts{a.room: err})
	switch {
	case err != nil:
		l.tellArrival(c, a, err)
	case open:
		l.tellArrival(c, a, ErrNotInRoom)
	default:
		l.tellArrival(c, a, ErrNotOpen)
	}
}

// turnBack keeps c from entering a room that it is on its way to.
func (l *loop) turnBack(c *Conn, room string) {
	if c.rare == nil {
		return
	}
	for _, a := range c.rare.arrivals {
		if a.room == room {
			a.left = true
		}
	}
}
