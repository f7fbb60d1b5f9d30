package engine

import (
	"slices"

	"github.com/parleyd/parley/engine/internal/invariant"
	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/rooms"
)

// checkedRooms is the number of rooms of a connection, and of members of each, that one check compares.
const checkedRooms = 3

// Check panics where a connection, its rooms and its pending answer contradict each other.
func (f roomsFloor) Check(t *turn.Conn) {
	c := connOf(t)
	if c.rare != nil && c.rare.pending != nil {
		c.rare.pending.check(c)
	}
	if n := int(c.seats.Load()); n < len(c.rooms) {
		invariant.Broken("connection %d is in %d rooms and counts %d", c.wire.Slot, len(c.rooms), n)
	}
	for i := range min(len(c.rooms), checkedRooms) {
		r := c.rooms[(int(f.CheckAt)+i)%len(c.rooms)]
		if !r.Has(c.place()) {
			invariant.Broken("connection %d lists room %q, whose roster has no such member", c.wire.Slot, r.Name())
		}
		if n := r.Miscount(); n != 0 {
			invariant.Broken("room %q counts %d more than it has members and held seats", r.Name(), n)
		}
		f.checkRoster(r)
	}
}

// check compares the bytes that a pending counts with the messages that it holds.
func (p *pending) check(c *Conn) {
	bytes := 0
	for i := range p.held {
		bytes += len(p.held[i].payload) + heldItemBytes
	}
	if bytes != p.bytes {
		invariant.Broken("connection %d holds %d bytes of messages and counts %d", c.wire.Slot, bytes, p.bytes)
	}
}

// checkRoster compares some members of a room with their connections.
func (f roomsFloor) checkRoster(r *rooms.Room) {
	roster := r.Roster(f.Index)
	for i := range min(len(roster), checkedRooms) {
		m := &roster[(int(f.CheckAt)+i)%len(roster)]
		c := f.connAt(place{Loop: f.Index, Slot: m.Slot, Gen: m.Gen})
		if c == nil {
			invariant.Broken("room %q has connection %d of generation %d as a member, and there is none", r.Name(), m.Slot, m.Gen)
		}
		if leaving := c.rare != nil && c.rare.departure != nil; !leaving && !c.lists(r) {
			invariant.Broken("room %q has connection %d as a member, which does not list the room", r.Name(), m.Slot)
		}
	}
}

func (c *Conn) lists(r *rooms.Room) bool {
	if c.rare != nil && c.rare.roomAt != nil {
		_, in := c.rare.roomAt[r]
		return in
	}
	return slices.Contains(c.rooms, r)
}
