package fanout

import (
	"slices"

	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/message"
	"github.com/parleyd/parley/rooms"
)

// Admission: the ways into a room. Every connection that enters a room does so in Admit, on its loop.
//
// Invariant: a connection in a room is counted among its rooms (max_rooms_per_connection), and has a seat in the room. Some
// ways bring one or both along; Admit takes the rest. An admission that ends without an entry gives all of it back, once.
//
// Only a client's join is stored first, where the store is late (the floor of sessions). The caller of Admit tells the client
// and the application the outcome.

// way is how a connection comes into a room.
type way uint8

// The ways.
const (
	WayJoin         way = iota // the client's message
	WayCall                    // the application's call, which holds a seat
	WaySent                    // the application's call, where all workers share the limit
	WaySeated                  // WayJoin or WaySent, once the shared seat is there
	WayHeir                    // the seat that the session's last connection handed over
	WayResume                  // a room of the session
	WayResumeSeated            // the same, with a shared seat
)

// ways says what an admission brings along, and whether it can wait for the rest.
var ways = [...]struct {
	counted  bool // the connection's limit of rooms counts the room
	held     bool // the room holds a seat
	acquired bool // of the seats that all workers share, one is there
	waits    bool // for a shared seat; else a room that needs one is unavailable
}{
	WayJoin:         {waits: true},
	WayCall:         {counted: true, held: true},
	WaySent:         {counted: true, waits: true},
	WaySeated:       {counted: true, acquired: true},
	WayHeir:         {held: true},
	WayResume:       {},
	WayResumeSeated: {acquired: true},
}

// Admission is a connection on its way into a room.
//
// Owner: loop.
type Admission struct {
	How     way
	left    bool // sent out again before it was in
	Conn    *Conn
	Room    []byte
	Held    *rooms.Room // of a held seat, instead of room
	Verdict error       // why there is no acquired seat
	Done    func(error) // the application's; nil: it does not ask
}

// Admit takes a connection into a room. The error is one for the client and the application, or [rooms.ErrSeat], of a way
// that waits: then the connection's limit of rooms counts the room, and the caller acquires a shared seat and admits
// again, or gives up.
func (l *Loop) Admit(a *Admission) (e rooms.Entry, err error) {
	c, w := a.Conn, &ways[a.How]
	switch {
	case a.Verdict != nil:
		err = a.Verdict
	case c.Phase != turn.PhaseOpen:
		err = ErrNotOpen
	case a.left:
		err = message.ErrNotInRoom
	case w.counted || c.ReserveRoom():
	case l.isIn(a):
		c.RoomsTaken.Add(1)
	default:
		err = message.ErrTooManyRooms
	}
	if err != nil {
		l.GiveUp(a)
		return e, err
	}
	e, err = l.seat(a)
	switch {
	case err == rooms.ErrSeat && w.waits:
		return e, err
	case err == rooms.ErrSeat: // the room got its limit in this instant
		err = message.ErrUnavailable
	case err == rooms.ErrNotHeld: // the room was deleted
		l.Rooms.Counted(a.Held)
		err = message.ErrNotInRoom
	case err != nil:
		err = message.ErrRoomFull
	case !e.Already:
		l.entered(c, e)
		return e, nil
	}
	c.RoomsTaken.Add(-1)
	return e, err
}

// seat makes the connection a member.
func (l *Loop) seat(a *Admission) (e rooms.Entry, err error) {
	p, now := a.Conn.Place(), l.Ground.Seconds(l.Now)
	switch w := &ways[a.How]; {
	case w.held:
		return a.Held.EnterHeld(p)
	case !w.acquired:
		return l.Rooms.Index.Enter(a.Room, p, now)
	}
	e, spare := l.Rooms.Index.EnterSeated(a.Room, p, now)
	if spare {
		l.Rooms.Seats.Release(string(a.Room))
	}
	return e, nil
}

// isIn reports whether the connection is a member already.
func (l *Loop) isIn(a *Admission) bool {
	r := a.Held
	if r == nil {
		r = l.Rooms.Index.Find(a.Room)
	}
	return r != nil && r.Has(a.Conn.Place())
}

// GiveUp gives back everything that the way brought along.
func (l *Loop) GiveUp(a *Admission) {
	w := &ways[a.How]
	if w.counted {
		a.Conn.RoomsTaken.Add(-1)
	}
	switch {
	case w.held:
		l.Rooms.FreeHeld(a.Held, a.Conn.Place())
	case w.acquired && a.Verdict == nil:
		l.Rooms.Seats.Release(string(a.Room))
	}
}

// Join takes c in, or sends it on its way, for the application. later: done gets the outcome. c and done may be nil. Any
// goroutine.
func (x *Rooms) Join(c *Conn, name string, done func(error)) (later bool, err error) {
	if code := message.ValidRoom([]byte(name)); code != message.OK {
		return false, message.ErrorOf(code)
	}
	switch {
	case c != nil && c.loop().Rooms != x:
		return false, ErrForeignConn
	case !c.IsOpen():
		return false, ErrNotOpen
	}
	r := x.Index.FindString(name)
	if r != nil && r.Contains(c.Place()) {
		return false, nil
	}
	if x.Order.Keeps([]byte(name)) && (r == nil || r.History() == nil) {
		x.Order.joinFollowed(c, name, done)
		return true, nil
	}
	if !c.ReserveRoom() {
		return false, message.ErrTooManyRooms
	}
	a := &Admission{How: WayCall, Conn: c, Room: []byte(name), Done: done}
	held, err := x.Index.Hold(a.Room, c.Place(), x.Ground.Seconds(x.Ground.Clock()))
	switch {
	case err == rooms.ErrSeat && (done != nil || r == nil || r.Len()+r.Away() < r.Limit()):
		a.How = WaySent
	case err != nil:
		c.RoomsTaken.Add(-1)
		return false, message.ErrRoomFull
	case held.Already:
		c.RoomsTaken.Add(-1)
		return false, nil
	}
	a.Held = held.Room
	l := c.loop()
	l.PostCall(func() { l.Arrive(a) })
	return true, nil
}

// JoinThen is Join, and calls done once, with the outcome.
func (x *Rooms) JoinThen(c *Conn, name string, done func(error)) {
	later, err := x.Join(c, name, done)
	if !later && done != nil {
		done(err)
	}
}

// ReserveRoom counts one room more, or reports that the connection is in as many as it may. Whoever reserves before
// entering, and gives back what comes to nothing, keeps the limit on whatever goroutines others do the same. Any goroutine.
func (c *Conn) ReserveRoom() bool {
	limit := c.loop().Rooms.RoomsMax
	for {
		n := c.RoomsTaken.Load()
		if limit > 0 && int(n) >= limit {
			return false
		}
		if c.RoomsTaken.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// entered does what follows an entry: the connection's own list, the notice, the event.
func (l *Loop) entered(c *Conn, e rooms.Entry) {
	r := e.Room
	l.leaveDead(c, r)
	c.addRoom(r)
	l.notify(notice{room: r, place: c.Place(), user: l.Rooms.shown(c), seq: e.JoinSeq, joined: true})
	l.Rooms.Counted(r)
	if e.Epoch == "" && l.Rooms.Order != nil {
		if bounds, _ := r.Bounds(); bounds != nil { // it was forgotten in this instant
			l.Rooms.Order.followMembers(r)
		}
	}
	l.Rooms.Above.Entered(c, r)
}

// tellJoined tells c that the application took it into a room: as the answer to a join does, in front of whatever the room
// gives it from now on, but without a ref.
func (l *Loop) tellJoined(c *Conn, e rooms.Entry) {
	l.Text = message.AppendJoined(l.Text[:0], message.Joined{Room: []byte(e.Room.Name()), Members: e.Members + e.Room.Away(),
		Start: message.Start{Position: e.Position()}})
	c.QueueText(l.Text)
}

// Arrive lets in a connection that the application sends, and tells the application the outcome; a handler that panics costs
// the connection. The connection's messages do not wait for a shared seat.
func (l *Loop) Arrive(a *Admission) {
	c := a.Conn
	entry, err := l.Admit(a)
	switch {
	case err == rooms.ErrSeat:
		c.withRare().arrivals = append(c.withRare().arrivals, a)
		l.Acquire(string(a.Room), entry.Limit, SeatTicket{}, func(err error) {
			a.How, a.Verdict = WaySeated, err
			c.forgetArrival(a)
			l.Arrive(a)
		})
		return
	case err == nil && !entry.Already:
		l.tellJoined(c, entry)
	}
	if a.Done != nil {
		l.Rooms.Above.Answer(c, a.Done, err)
	}
}

// forgetArrival notes that c does not wait any more.
func (c *Conn) forgetArrival(a *Admission) {
	if c.rare() == nil {
		return
	}
	c.rare().arrivals = slices.DeleteFunc(c.rare().arrivals, func(other *Admission) bool { return other == a })
	if len(c.rare().arrivals) == 0 {
		c.rare().arrivals = nil
	}
}

// TurnBack keeps c from entering a room that it is on its way to.
func (l *Loop) TurnBack(c *Conn, room string) {
	if c.rare() == nil {
		return
	}
	for _, a := range c.rare().arrivals {
		if string(a.Room) == room {
			a.left = true
		}
	}
}
