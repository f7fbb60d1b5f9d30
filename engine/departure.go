package engine

import (
	"slices"

	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/rooms"
)

// The way out of all rooms at once. A connection with few rooms leaves them in the turn in which it ends. One with many
// rooms takes several turns, and the next steps wait for the last: the session is parked, or handed to its heir, when no
// room has the connection any more. So its member_left goes out before the heir's member_joined, and no seat is counted
// twice. Until then the connection keeps its slot, since rosters name it. An heir that comes meanwhile gets the seats that
// are still taken, and competes for the others.

// roomsAtOnce is the rooms that a connection leaves, or enters again, in one turn.
const roomsAtOnce = 64

// departure is a connection that has ended on its way out of many rooms.
//
// Owner: loop.
type departure struct {
	conn    *Conn
	cause   Cause
	opened  bool // it had a session, and its end is an event
	token   token
	rooms   []*rooms.Room
	state   *parked
	h       handover
	heir    place // [nowhere]: on another worker
	inherit func(*loop, handover)
}

// takeRooms takes the list of its rooms from c.
func (l *loop) takeRooms(c *Conn) []*rooms.Room {
	c.mu.Lock()
	list := c.rooms
	c.rooms = nil
	c.mu.Unlock()
	if c.rare != nil {
		c.rare.roomAt = nil
	}
	return list
}

// leaveAll takes an ending connection out of all its rooms, parks its session and emits the event.
func (l *loop) leaveAll(c *Conn, cause Cause, opened bool) {
	if c.rare != nil && c.rare.departure != nil {
		return // to its heir, which has begun
	}
	if len(c.rooms) > roomsAtOnce {
		if cause == CauseUnauthorized {
			l.endSession(c, nil)
		}
		l.beginDeparture(&departure{conn: c, cause: cause, opened: opened})
		return
	}
	told := ""
	if opened {
		told = l.park(c, cause, nil)
	}
	for _, r := range l.takeRooms(c) {
		l.leave(c, r)
	}
	if opened {
		l.srv.emit(Event{Kind: EventDisconnect, Conn: c, Cause: cause, Token: told})
	}
}

func (l *loop) leave(c *Conn, r *rooms.Room) {
	if left, seq := l.srv.index.Leave(r, c.place()); left {
		c.seats.Add(-1)
		l.left(c, r, seq)
	}
}

// beginDeparture makes the connection leave its rooms in the turns that follow.
func (l *loop) beginDeparture(d *departure) {
	c := d.conn
	d.rooms = l.takeRooms(c)
	if d.state == nil {
		d.state = l.snapshotAlone(c)
	}
	d.state.rooms = make([]string, 0, len(d.rooms))
	d.token, c.token = c.token, noToken
	c.extra().departure = d
	c.wire.Flags |= turn.FlagKept
	l.work(inParts(len(d.rooms), d.step, d.end))
}

// step takes the connection out of one room.
func (d *departure) step(l *loop, i int) {
	c, r := d.conn, d.rooms[i]
	d.rooms[i] = nil
	if !r.Dead() {
		d.state.rooms = append(d.state.rooms, r.Name())
	}
	if d.inherit == nil {
		l.leave(c, r)
		return
	}
	l.bequeath(c, r, d.heir, &d.h)
}

// endow passes the session to an heir of a connection that is already on its way out.
func (d *departure) endow(l *loop, heir place, then func(*loop, handover)) {
	switch {
	case d.inherit != nil:
		then(l, handover{}) // another heir was first
	case d.state.attempts >= l.srv.sessions.max:
		then(l, handover{kind: handoverSpent})
	default:
		d.heir, d.inherit = heir, then
	}
}

// bequeath takes c out of one room in favour of its heir.
func (l *loop) bequeath(c *Conn, r *rooms.Room, heir place, h *handover) {
	var left, kept bool
	var seq uint64
	if heir == nowhere {
		if left, seq, kept = l.srv.index.Withdraw(r, c.place()); kept {
			h.given = append(h.given, r.Name())
		}
	} else if left, seq = l.srv.index.Handover(r, c.place(), heir); left {
		h.held = append(h.held, r)
	}
	if left {
		c.seats.Add(-1)
		l.left(c, r, seq)
	}
}

// end runs when no room has the connection any more.
func (d *departure) end(l *loop) {
	c := d.conn
	c.rare.departure = nil
	c.wire.Flags &^= turn.FlagKept
	l.announce()
	told := ""
	c.token = d.token
	if d.inherit != nil {
		l.endSession(c, nil) // its token is another than the claimed one
		d.h.kind, d.h.state = handoverState, d.state
	} else if d.opened {
		told = l.park(c, d.cause, d.state)
	}
	if d.opened {
		l.srv.emit(Event{Kind: EventDisconnect, Conn: c, Cause: d.cause, Token: told})
	}
	if d.inherit != nil {
		d.inherit(l, d.h)
	}
	if c.wire.Phase == turn.PhaseGone {
		l.Forget(&c.wire)
	}
}

// addRoom notes that c is in a room.
func (c *Conn) addRoom(r *rooms.Room) {
	c.mu.Lock()
	c.rooms = append(c.rooms, r)
	c.mu.Unlock()
	switch n := len(c.rooms); {
	case n <= roomsAtOnce:
	case c.rare != nil && c.rare.roomAt != nil:
		c.rare.roomAt[r] = n - 1
	default:
		at := make(map[*rooms.Room]int, 2*n)
		for i, r := range c.rooms {
			at[r] = i
		}
		c.extra().roomAt = at
	}
}

// removeRoom notes that c has left a room. The last room of the list takes its index.
func (c *Conn) removeRoom(r *rooms.Room) {
	var at map[*rooms.Room]int
	if c.rare != nil {
		at = c.rare.roomAt
	}
	i, known := at[r]
	if at == nil {
		i = slices.Index(c.rooms, r)
		known = i >= 0
	}
	if !known {
		return
	}
	last := len(c.rooms) - 1
	c.mu.Lock()
	c.rooms[i] = c.rooms[last]
	c.rooms[last] = nil
	c.rooms = c.rooms[:last]
	c.mu.Unlock()
	switch {
	case at == nil:
	case last <= roomsAtOnce/2:
		c.rare.roomAt = nil
	default:
		delete(at, r)
		if i < last {
			at[c.rooms[i]] = i
		}
	}
}
