package engine

import (
	"bytes"
	"maps"
	"slices"

	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/rooms"
)

// Admission: the ways into a room. Every connection that enters a room does so in admit, on its loop.
//
// Invariant: a connection in a room is counted among its rooms (max_rooms_per_connection), and has a seat in the room. Some
// ways bring one or both along; admit takes the rest. An admission that ends without an entry gives all of it back, once.
//
// Only a client's join is stored first, where the store is late (sessionlate.go). The caller of admit tells the client and
// the application the outcome.

// way is how a connection comes into a room.
type way uint8

const (
	wayJoin         way = iota // the client's message
	wayCall                    // [Rooms.Join], which holds a seat
	waySent                    // [Rooms.Join], where all workers share the limit
	waySeated                  // wayJoin or waySent, once the shared seat is there
	wayHeir                    // the seat that the session's last connection handed over
	wayResume                  // a room of the session
	wayResumeSeated            // the same, with a shared seat
)

// ways says what an admission brings along, and whether it can wait for the rest.
var ways = [...]struct {
	counted  bool // the connection's limit of rooms counts the room
	held     bool // the room holds a seat
	acquired bool // of the seats that all workers share, one is there
	waits    bool // for a shared seat; else a room that needs one is unavailable
}{
	wayJoin:         {waits: true},
	wayCall:         {counted: true, held: true},
	waySent:         {counted: true, waits: true},
	waySeated:       {counted: true, acquired: true},
	wayHeir:         {held: true},
	wayResume:       {},
	wayResumeSeated: {acquired: true},
}

// admission is a connection on its way into a room.
//
// Owner: loop.
type admission struct {
	how     way
	left    bool // sent out again before it was in
	conn    *Conn
	room    []byte
	held    *rooms.Room // of a held seat, instead of room
	verdict error       // why there is no acquired seat
	done    func(error) // of [Rooms.JoinThen]; nil: the application does not ask
}

// admit takes a connection into a room. The error is one for the client and the application, or [rooms.ErrSeat], of a way
// that waits: then the connection's limit of rooms counts the room, and the caller acquires a shared seat and admits
// again, or gives up.
func (l *loop) admit(a *admission) (e rooms.Entry, err error) {
	c, w := a.conn, &ways[a.how]
	switch {
	case a.verdict != nil:
		err = a.verdict
	case c.wire.Phase != turn.PhaseOpen:
		err = ErrNotOpen
	case a.left:
		err = ErrNotInRoom
	case w.counted || c.reserveRoom():
	case l.isIn(a):
		c.seats.Add(1)
	default:
		err = ErrTooManyRooms
	}
	if err != nil {
		l.giveUp(a)
		return e, err
	}
	e, err = l.seat(a)
	switch {
	case err == rooms.ErrSeat && w.waits:
		return e, err
	case err == rooms.ErrSeat: // the room got its limit in this instant
		err = errUnavailable
	case err == rooms.ErrNotHeld: // the room was deleted
		l.srv.counted(a.held)
		err = ErrNotInRoom
	case err != nil:
		err = ErrRoomFull
	case !e.Already:
		l.entered(c, e)
		return e, nil
	}
	c.seats.Add(-1)
	return e, err
}

// seat makes the connection a member.
func (l *loop) seat(a *admission) (e rooms.Entry, err error) {
	p, now := a.conn.place(), l.srv.seconds(l.Now)
	switch w := &ways[a.how]; {
	case w.held:
		return a.held.EnterHeld(p)
	case !w.acquired:
		return l.srv.index.Enter(a.room, p, now)
	}
	e, spare := l.srv.index.EnterSeated(a.room, p, now)
	if spare {
		l.srv.peers.Seats.Release(string(a.room))
	}
	return e, nil
}

// isIn reports whether the connection is a member already.
func (l *loop) isIn(a *admission) bool {
	r := a.held
	if r == nil {
		r = l.srv.index.Find(a.room)
	}
	return r != nil && r.Has(a.conn.place())
}

// giveUp gives back everything that the way brought along.
func (l *loop) giveUp(a *admission) {
	w := &ways[a.how]
	if w.counted {
		a.conn.seats.Add(-1)
	}
	switch {
	case w.held:
		l.srv.freeHeld(a.held, a.conn.place())
	case w.acquired && a.verdict == nil:
		l.srv.peers.Seats.Release(string(a.room))
	}
}

// reserveRoom counts one room more, or reports that the connection is in as many as it may. Whoever reserves before
// entering, and gives back what comes to nothing, keeps the limit on whatever goroutines others do the same. Any goroutine.
func (c *Conn) reserveRoom() bool {
	limit := c.loop().srv.cfg.MaxRoomsPerConnection
	for {
		n := c.seats.Load()
		if limit > 0 && int(n) >= limit {
			return false
		}
		if c.seats.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// entered does what follows an entry: the connection's own list, the notice, the event.
func (l *loop) entered(c *Conn, e rooms.Entry) {
	r := e.Room
	c.addRoom(r)
	l.notify(notice{room: r, place: c.place(), seq: e.JoinSeq, joined: true})
	l.srv.counted(r)
	l.changed(c)
	l.srv.emit(Event{Kind: EventRoomJoin, Conn: c, Room: r.Name()})
}

// Limited rooms of several workers. Whether there is a seat is known only once all of them agree, so a join waits: the
// connection's later messages wait with it, in order, as for any other answer. A seat belongs to the room, by its name:
// it is acquired before the connection enters, and given back by the room in the step in which the connection leaves it.
// If the connection ended while it waited, or is a member already, the seat is given back at once.
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

// acquire asks for a seat of a room and goes on, on the loop, with the verdict: nil, or why there is no seat.
func (l *loop) acquire(room string, limit int, ticket SeatTicket, then func(l *loop, err error)) {
	l.srv.peers.Seats.Acquire(room, limit, ticket, func(err error) {
		if err != nil {
			err = seatError(err)
		}
		l.postCall(func(l *loop) { then(l, err) })
	})
}

// seatError is the error that a client is told.
func seatError(err error) *Error {
	if known := coded(err); known != nil {
		return known
	}
	return errUnavailable
}

// awaitSeat makes c, whose limit of rooms counts the room, wait for a shared seat in it, and then join. m is borrowed.
func (l *loop) awaitSeat(c *Conn, m move, limit int) {
	p := l.await(c, pendingSeat, "join", m.ref)
	m.room, m.ref, m.seated = bytes.Clone(m.room), p.ref, true
	if m.stored {
		p.move = m // a save until then must have it, too
	}
	l.acquire(string(m.room), limit, SeatTicket{}, func(l *loop, err error) {
		m.verdict = err
		l.seatFound(c, p, m)
	})
}

// seatFound lets c in, behind everything that was posted for it meanwhile. The store may have become late while c waited.
func (l *loop) seatFound(c *Conn, p *pending, m move) {
	if c.wire.Posted.Load() > 0 {
		l.postCall(func(l *loop) { l.seatFound(c, p, m) })
		return
	}
	waits := l.settled(c, p)
	if m.stored && (!waits || m.verdict != nil) {
		l.changed(c) // the store has it
	}
	switch a := m.admission(c); {
	case !waits:
		l.giveUp(&a)
		return
	case m.stored || m.verdict != nil:
		l.joinNow(c, m)
	default:
		l.storeFirst(c, m, (*loop).joinNow)
	}
	l.goOnAfter(c, p)
}

// seatVerdicts say what became of the seats that a resuming connection asked for, by room; nil is a seat.
type seatVerdicts map[string]error

// giveBackSeats gives back those that were granted.
func (l *loop) giveBackSeats(seats seatVerdicts) {
	for _, room := range slices.Sorted(maps.Keys(seats)) { // in one order, so that a simulation can be repeated
		if seats[room] == nil {
			l.srv.peers.Seats.Release(room)
		}
	}
}

// gatherSeats acquires a seat in each of several rooms. The verdicts are complete when then is called.
func (l *loop) gatherSeats(limits map[string]int, ticket SeatTicket, then func(*loop)) seatVerdicts {
	seats := make(seatVerdicts, len(limits))
	left := len(limits)
	for _, room := range slices.Sorted(maps.Keys(limits)) {
		l.acquire(room, limits[room], ticket, func(l *loop, err error) {
			seats[room] = err
			if left--; left == 0 {
				then(l)
			}
		})
	}
	return seats
}

// unknown is why it is not known whether a room has a seat; nil where all are known.
func (s seatVerdicts) unknown() (why error) {
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
func (l *loop) enterAgain(c *Conn, room string, seats seatVerdicts) error {
	a := admission{how: wayResume, conn: c, room: []byte(room)}
	if verdict, asked := seats[room]; asked {
		a.how, a.verdict = wayResumeSeated, verdict
		delete(seats, room) // a seat is used once
	}
	_, err := l.admit(&a)
	return err
}

// arrive lets in a connection that [Rooms.Join] sends, and tells the application the outcome; a handler that panics costs
// the connection. The connection's messages do not wait for a shared seat.
func (l *loop) arrive(a *admission) {
	c := a.conn
	entry, err := l.admit(a)
	switch {
	case err == rooms.ErrSeat:
		c.extra().arrivals = append(c.extra().arrivals, a)
		l.acquire(string(a.room), entry.Limit, SeatTicket{}, func(l *loop, err error) {
			a.how, a.verdict = waySeated, err
			c.forgetArrival(a)
			l.arrive(a)
		})
		return
	case err == nil && !entry.Already:
		l.tellJoined(c, entry)
	}
	if a.done != nil && l.srv.guard("JoinThen", c, func() error { a.done(err); return nil }) != nil {
		l.endBy(c, CausePanic)
	}
}

// forgetArrival notes that c does not wait any more.
func (c *Conn) forgetArrival(a *admission) {
	if c.rare == nil {
		return
	}
	c.rare.arrivals = slices.DeleteFunc(c.rare.arrivals, func(other *admission) bool { return other == a })
	if len(c.rare.arrivals) == 0 {
		c.rare.arrivals = nil
	}
}

// turnBack keeps c from entering a room that it is on its way to.
func (l *loop) turnBack(c *Conn, room string) {
	if c.rare == nil {
		return
	}
	for _, a := range c.rare.arrivals {
		if string(a.room) == room {
			a.left = true
		}
	}
}
