package fanout

import (
	"fmt"
	"slices"

	"github.com/parleyd/parley/engine/internal/invariant"
	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/rooms"
)

// checkedRooms is the number of rooms of a connection, and of members of each, that one check compares.
const checkedRooms = 3

// CheckConn panics where a connection, its rooms and its pending answer contradict each other.
func (l *Loop) CheckConn(t *turn.Conn) {
	c := ConnOf(t)
	c.Check()
	if n := int(c.RoomsTaken.Load()); n < len(c.Rooms) {
		invariant.Broken("connection %d is in %d rooms and counts %d", c.Slot, len(c.Rooms), n)
	}
	for i := range min(len(c.Rooms), checkedRooms) {
		r := c.Rooms[(int(l.CheckAt)+i)%len(c.Rooms)]
		if !r.Has(c.Place()) {
			invariant.Broken("connection %d lists room %q, whose roster has no such member", c.Slot, r.Name())
		}
		if n := r.Miscount(); n != 0 {
			invariant.Broken("room %q counts %d more than it has members and held seats", r.Name(), n)
		}
		l.checkRoster(r)
	}
}

// checkRoster compares some members of a room with their connections.
func (l *Loop) checkRoster(r *rooms.Room) {
	roster := r.Roster(l.Index)
	for i := range min(len(roster), checkedRooms) {
		m := &roster[(int(l.CheckAt)+i)%len(roster)]
		c := ConnOf(l.ConnAt(ident.Place{Loop: l.Index, Slot: m.Slot, Gen: m.Gen}))
		if c == nil {
			invariant.Broken("room %q has connection %d of generation %d as a member, and there is none", r.Name(), m.Slot, m.Gen)
		}
		if !c.Has(turn.FlagKept) && !c.lists(r) {
			invariant.Broken("room %q has connection %d as a member, which does not list the room", r.Name(), m.Slot)
		}
	}
}

func (c *Conn) lists(r *rooms.Room) bool {
	if c.rare() != nil && c.rare().roomAt != nil {
		_, in := c.rare().roomAt[r]
		return in
	}
	return slices.Contains(c.Rooms, r)
}

// CheckIndex says how the index of a connection's rooms contradicts its list; "" if it does not.
func (c *Conn) CheckIndex() (fault string) {
	if c.rare() == nil || c.rare().roomAt == nil {
		if len(c.Rooms) > RoomsAtOnce {
			return fmt.Sprintf("%d rooms have no index", len(c.Rooms))
		}
		return ""
	}
	at := c.rare().roomAt
	if len(at) != len(c.Rooms) {
		return fmt.Sprintf("%d rooms, of which %d are in the index", len(c.Rooms), len(at))
	}
	for i, r := range c.Rooms {
		if n, ok := at[r]; !ok || n != i {
			return fmt.Sprintf("room %d is looked for at %d", i, n)
		}
	}
	return ""
}

// Leftovers calls expect for each thing that a loop without connections should have freed, with how many are left.
func (l *Loop) Leftovers(expect func(what string, n int)) {
	expect("load", int(l.Load.Load()))
	expect("slots", l.Slab.Live)
	expect("letters", len(l.Mail.Letters)+len(l.Letters)-l.Opened)
	expect("reserved letters", int(l.Mail.Waiting.Load()))
	expect("reserved bytes", int(l.Mail.Bytes.Load()))
	expect("dirty connections", len(l.Dirty))
	expect("doomed connections", len(l.Doomed))
	expect("notices", len(l.notices))
	expect("readers of histories", len(l.readers))
	expect("receipts", len(l.Receipts.asked))
	expect("jobs", len(l.Jobs))
	expect("connections whose input waits", len(l.Late))
	expect("timers", l.Wheel.Armed()+l.Far.Armed()+len(l.Timers))
}

// Leftovers calls expect for what a server without connections should have freed.
func (x *Rooms) Leftovers(expect func(what string, n int)) {
	expect("open connections", int(x.Open.Load()))
	expect("members that are behind", int(x.Behind.Load()))
	histories := x.Index.HistoryCounts()
	expect("messages in histories", int(histories.Messages))
	expect("bytes in histories", int(histories.Bytes))
	x.Index.Range(func(r *rooms.Room) bool {
		if r.History() != nil {
			histories.Rooms--
		}
		if !r.Explicit() {
			expect("room "+r.Name(), 1)
		}
		expect("seats in room "+r.Name(), r.Len())
		return true
	})
	expect("histories of no room", int(histories.Rooms))
	for _, l := range x.Loops {
		l.Leftovers(expect)
	}
}

// WalkLocks takes and frees the locks of connections, mailboxes, rooms and the link.
func (x *Rooms) WalkLocks() {
	for _, l := range x.Loops {
		l.Slab.Each(func(t *turn.Conn) bool {
			c := ConnOf(t)
			c.Mu.Lock()
			c.Mu.Unlock()
			return true
		})
		l.Mail.Mu.Lock()
		l.Mail.Mu.Unlock()
	}
	x.Index.Range(func(r *rooms.Room) bool {
		r.Limit()
		return true
	})
	x.CountsWait()
	x.Link.Lock()
	x.Link.Unlock()
}
