package session

import (
	"github.com/parleyd/parley/engine/internal/fanout"
	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/rooms"
)

// The way out of all rooms at once. A connection with few rooms leaves them in the turn in which it ends. One with many
// rooms takes several turns, and the next steps wait for the last: the session is parked, or handed to its heir, when no
// room has the connection any more. So its member_left goes out before the heir's member_joined, and no seat is counted
// twice. Until then the connection keeps its slot, since rosters name it. An heir that comes meanwhile gets the seats that
// are still taken, and competes for the others.

// departure is a connection that has ended on its way out of many rooms.
//
// Owner: loop.
type departure struct {
	conn    *Conn
	cause   turn.Cause
	opened  bool // it had a session, and its end is an event
	token   token
	rooms   []*rooms.Room
	state   *parked
	h       handover
	heir    ident.Place // [fanout.Nowhere]: on another worker
	inherit func(*Loop, handover)
}

// LeaveAll takes an ending connection out of all its rooms, parks its session and emits the event.
func (l *Loop) LeaveAll(c *Conn, cause turn.Cause, opened bool) {
	if c.rare() != nil && c.rare().departure != nil {
		return // to its heir, which has begun
	}
	if len(c.Rooms) > fanout.RoomsAtOnce {
		if cause == turn.CauseUnauthorized {
			l.endSession(c, nil)
		}
		l.beginDeparture(&departure{conn: c, cause: cause, opened: opened})
		return
	}
	token := ""
	if opened {
		token = l.park(c, cause, nil)
	}
	for _, r := range l.TakeRooms(&c.Conn) {
		l.Leave(&c.Conn, r)
	}
	if opened {
		l.Sessions.Above.Ended(c, cause, token)
	}
}

// beginDeparture makes the connection leave its rooms in the turns that follow.
func (l *Loop) beginDeparture(d *departure) {
	c := d.conn
	d.rooms = l.TakeRooms(&c.Conn)
	if d.state == nil {
		d.state = l.snapshotAlone(c)
	}
	d.state.rooms = make([]string, 0, len(d.rooms))
	d.token, c.token = c.token, noToken
	c.withRare().departure = d
	c.Flags |= turn.FlagKept
	l.InParts(len(d.rooms), func(i int) { d.step(l, i) }, func() { d.end(l) })
}

// step takes the connection out of one room.
func (d *departure) step(l *Loop, i int) {
	c, r := d.conn, d.rooms[i]
	d.rooms[i] = nil
	if !r.Dead() {
		d.state.rooms = append(d.state.rooms, r.Name())
		d.state.savePlace(l, c, r)
	}
	if d.inherit == nil {
		l.Leave(&c.Conn, r)
		return
	}
	l.bequeath(c, r, d.heir, &d.h)
}

// endow passes the session to an heir of a connection that is already on its way out.
func (d *departure) endow(l *Loop, heir ident.Place, then func(*Loop, handover)) {
	switch {
	case d.inherit != nil:
		then(l, handover{}) // another heir was first
	case d.state.attempts >= l.Sessions.Memory.max:
		then(l, handover{kind: fleet.HandedOverSpent})
	default:
		d.heir, d.inherit = heir, then
	}
}

// bequeath takes c out of one room in favour of its heir.
func (l *Loop) bequeath(c *Conn, r *rooms.Room, heir ident.Place, h *handover) {
	var left, kept bool
	var seq uint64
	if heir == fanout.Nowhere {
		if left, seq, kept = l.Rooms.Index.Withdraw(r, c.Place()); kept {
			h.given = append(h.given, r.Name())
		}
	} else if left, seq = l.Rooms.Index.Handover(r, c.Place(), heir); left {
		h.held = append(h.held, r)
	}
	if left {
		c.RoomsTaken.Add(-1)
		l.LeftRoom(&c.Conn, r, seq)
	}
}

// end runs when no room has the connection any more.
func (d *departure) end(l *Loop) {
	c := d.conn
	c.rare().departure = nil
	c.Flags &^= turn.FlagKept
	l.Announce()
	token := ""
	c.token = d.token
	if d.inherit != nil {
		l.endSession(c, nil) // its token is another than the claimed one
		d.h.kind, d.h.state = fleet.HandedOverState, d.state
	} else if d.opened {
		token = l.park(c, d.cause, d.state)
	}
	if d.opened {
		l.Sessions.Above.Ended(c, d.cause, token)
	}
	if d.inherit != nil {
		d.inherit(l, d.h)
	}
	if c.Phase == turn.PhaseGone {
		c.Forget()
	}
}
