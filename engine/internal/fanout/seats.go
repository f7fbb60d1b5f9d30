package fanout

import (
	"errors"
	"maps"
	"slices"

	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/protocol/message"
)

// Limited rooms of several workers. Whether there is a seat is known only once all of them agree, so a join waits: the
// connection's later messages wait with it, in order, as for any other answer. A seat belongs to the room, by its name:
// it is acquired before the connection enters, and given back by the room in the step in which the connection leaves it.
// If the connection ended while it waited, or is a member already, the seat is given back at once.
//
// Rooms without a limit, and servers that are alone, know nothing of this.

// Seats are the places in limited rooms, which all workers share. The methods are for any goroutine and never wait.
type Seats interface {
	// Acquire takes a seat of a room: with a ticket the one that another worker gave with it, where it is still there. done is
	// called exactly once, within two seconds, on any goroutine: with nil, [message.ErrRoomFull], [message.ErrUnavailable] or
	// [message.ErrOverloaded]; unless with nil, no seat is taken.
	Acquire(room string, limit int, ticket SeatTicket, done func(error))
	// Give keeps a seat that was acquired here, for a few seconds, for whoever shows the ticket to another worker. done is
	// called exactly once, within two seconds, on any goroutine, when he may.
	Give(room string, to ident.Worker, ticket SeatTicket, done func())
	// Release gives a seat back.
	Release(room string)
	// Force takes n seats, whether there are as many or not, for those who were in when the room got its limit.
	Force(room string, limit, n int)
}

// OwnSeats are the seats of a worker whose limits hold for it alone: its rooms count them.
type OwnSeats struct{}

// Acquire is of [Seats].
func (OwnSeats) Acquire(_ string, _ int, _ SeatTicket, done func(error)) { done(nil) }

// Give is of [Seats].
func (OwnSeats) Give(_ string, _ ident.Worker, _ SeatTicket, done func()) { done() }

// Release is of [Seats].
func (OwnSeats) Release(string) {}

// Force is of [Seats].
func (OwnSeats) Force(string, int, int) {}

// SeatTicket names a seat that one worker gives to another. The zero ticket is none.
type SeatTicket [16]byte

// Acquire asks for a seat of a room and goes on, on the loop, with the verdict: nil, or why there is no seat.
func (l *Loop) Acquire(room string, limit int, ticket SeatTicket, then func(err error)) {
	l.Rooms.Seats.Acquire(room, limit, ticket, func(err error) {
		if err != nil {
			err = SeatError(err)
		}
		l.PostCall(func() { then(err) })
	})
}

// SeatError is the error that a client is told.
func SeatError(err error) *message.Error {
	if known, ok := errors.AsType[*message.Error](err); ok {
		return known
	}
	return message.ErrUnavailable
}

// SeatVerdicts say what became of the seats that a resuming connection asked for, by room; nil is a seat.
type SeatVerdicts map[string]error

// GiveBackSeats gives back those that were granted.
func (l *Loop) GiveBackSeats(seats SeatVerdicts) {
	for _, room := range slices.Sorted(maps.Keys(seats)) { // in one order, so that a simulation can be repeated
		if seats[room] == nil {
			l.Rooms.Seats.Release(room)
		}
	}
}

// GatherSeats acquires a seat in each of several rooms. The verdicts are complete when then is called.
func (l *Loop) GatherSeats(limits map[string]int, ticket SeatTicket, then func()) SeatVerdicts {
	seats := make(SeatVerdicts, len(limits))
	left := len(limits)
	for _, room := range slices.Sorted(maps.Keys(limits)) {
		l.Acquire(room, limits[room], ticket, func(err error) {
			seats[room] = err
			if left--; left == 0 {
				then()
			}
		})
	}
	return seats
}

// Unknown is why it is not known whether a room has a seat; nil where all are known.
func (s SeatVerdicts) Unknown() (why error) {
	for _, err := range s {
		if err != nil && err != message.ErrRoomFull {
			why = err
		}
	}
	return why
}

// ScarceRooms are those that c needs a shared seat for, with their limits.
func (l *Loop) ScarceRooms(c *Conn, names []string) (limits map[string]int) {
	for _, name := range names {
		if limit := l.Rooms.Index.Scarce([]byte(name), c.Place()); limit > 0 {
			if limits == nil {
				limits = make(map[string]int)
			}
			limits[name] = limit
		}
	}
	return limits
}

// EnterAgain takes c into a room of the session that it resumes.
func (l *Loop) EnterAgain(c *Conn, room string, seats SeatVerdicts) error {
	a := Admission{How: WayResume, Conn: c, Room: []byte(room)}
	if verdict, asked := seats[room]; asked {
		a.How, a.Verdict = WayResumeSeated, verdict
		delete(seats, room) // a seat is used once
	}
	_, err := l.Admit(&a)
	return err
}
