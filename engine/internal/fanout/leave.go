package fanout

import (
	"slices"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/protocol/message"
	"github.com/parleyd/parley/rooms"
)

// Exit takes c out of a room, and reports whether it was in.
func (l *Loop) Exit(c *Conn, r *rooms.Room) bool {
	l.settle(c, r)
	left, seq := l.Rooms.Index.Leave(r, c.Place())
	if !left {
		return false
	}
	c.removeRoom(r)
	c.RoomsTaken.Add(-1)
	l.LeftRoom(c, r, seq)
	return true
}

// LeftRoom does what follows an exit: the notice, the event.
func (l *Loop) LeftRoom(c *Conn, r *rooms.Room, seq uint64) {
	if g := l.lagIn(c, r); g != nil {
		l.dropLag(c, g)
	}
	l.notify(notice{room: r, place: c.Place(), user: l.Rooms.shown(c), seq: seq})
	l.Rooms.Counted(r)
	l.Rooms.Above.Left(c, r)
}

// RoomsAtOnce is the rooms that a connection leaves, or enters again, in one turn.
const RoomsAtOnce = 64

// TakeRooms takes the list of its rooms from c.
func (l *Loop) TakeRooms(c *Conn) []*rooms.Room {
	c.Mu.Lock()
	list := c.Rooms
	c.Rooms = nil
	c.Mu.Unlock()
	if c.rare() != nil {
		c.rare().roomAt = nil
	}
	return list
}

// Leave takes c out of a room that is no longer in the list of c.
func (l *Loop) Leave(c *Conn, r *rooms.Room) {
	if left, seq := l.Rooms.Index.Leave(r, c.Place()); left {
		c.RoomsTaken.Add(-1)
		l.LeftRoom(c, r, seq)
	}
}

// addRoom notes that c is in a room.
func (c *Conn) addRoom(r *rooms.Room) {
	c.Mu.Lock()
	c.Rooms = append(c.Rooms, r)
	c.Mu.Unlock()
	switch n := len(c.Rooms); {
	case n <= RoomsAtOnce:
	case c.rare() != nil && c.rare().roomAt != nil:
		c.rare().roomAt[r] = n - 1
	default:
		at := make(map[*rooms.Room]int, 2*n)
		for i, r := range c.Rooms {
			at[r] = i
		}
		c.withRare().roomAt = at
	}
}

// removeRoom notes that c has left a room. The last room of the list takes its index.
func (c *Conn) removeRoom(r *rooms.Room) {
	var at map[*rooms.Room]int
	if c.rare() != nil {
		at = c.rare().roomAt
	}
	i, known := at[r]
	if at == nil {
		i = slices.Index(c.Rooms, r)
		known = i >= 0
	}
	if !known {
		return
	}
	last := len(c.Rooms) - 1
	c.Mu.Lock()
	c.Rooms[i] = c.Rooms[last]
	c.Rooms[last] = nil
	c.Rooms = c.Rooms[:last]
	c.Mu.Unlock()
	switch {
	case at == nil:
	case last <= RoomsAtOnce/2:
		c.rare().roomAt = nil
	default:
		delete(at, r)
		if i < last {
			at[c.Rooms[i]] = i
		}
	}
}

// deleteRoom ends a room on this worker.
func (x *Rooms) deleteRoom(name string) bool { return x.endRoom(name, x.Index.Delete) }

// vacateRoom ends a room that came to be by itself.
func (x *Rooms) vacateRoom(name string) bool { return x.endRoom(name, x.Index.Vacate) }

func (x *Rooms) endRoom(name string, remove func(name string) (*rooms.Room, bool)) bool {
	x.emptying.Add(1) // before any connection can enter a new room of that name
	defer x.emptying.Add(-1)
	r, ok := remove(name)
	if ok {
		x.Order.dropped(name)
		x.empty(r)
	}
	return ok
}

// empty has the members of a room that is deleted leave it.
func (x *Rooms) empty(r *rooms.Room) {
	name := r.Name()
	f := turn.BuildFrame(ws.OpText, len(name)+noticeBytes, func(dst []byte) []byte {
		return message.AppendLeft(dst, []byte(name), nil)
	})
	for _, l := range x.Loops {
		step := func(int64) bool {
			if !l.vacate(r, f) {
				return false
			}
			x.emptying.Add(-1)
			return true
		}
		x.emptying.Add(1)
		l.PostCall(func() {
			if !step(0) {
				l.Work(step)
			}
		})
	}
}

// Emptying is the number of deletions of rooms that may still have members on a loop.
func (x *Rooms) Emptying() int { return int(x.emptying.Load()) }

// vacate takes this loop's members out of a deleted room, some at a time, and reports whether all are. Who has entered a
// new room of that name by now is told nothing: it would take it for the new one.
func (l *Loop) vacate(r *rooms.Room, left *turn.Frame) (all bool) {
	for range vacateMax {
		roster := r.Roster(l.Index)
		if len(roster) == 0 {
			return true
		}
		c := ConnOf(l.Slab.At(roster[len(roster)-1].Slot))
		l.Exit(c, r)
		if heir := l.Rooms.Index.FindString(r.Name()); heir == nil || !heir.Has(c.Place()) {
			c.Queue(left)
		}
	}
	return len(r.Roster(l.Index)) == 0
}

// leaveDead takes c, which has just entered a room, out of a deleted one of that name that is still being emptied: the
// application and the client hear that the connection left before they hear that it joined, as on any way from one room to the
// next: the client knows that the members it heard of are no more.
func (l *Loop) leaveDead(c *Conn, heir *rooms.Room) {
	if l.Rooms.emptying.Load() == 0 {
		return
	}
	for _, r := range c.Rooms {
		if r != heir && r.Name() == heir.Name() {
			l.Exit(c, r)
			c.QueueText(message.AppendLeft(nil, []byte(r.Name()), nil))
			return // entries into others of that name have done the same
		}
	}
}

// vacateMax is the members that leave a deleted room in one go: others want their turn, too.
const vacateMax = 128

// FreeHeld frees a seat that is held for p and counted.
func (x *Rooms) FreeHeld(r *rooms.Room, p ident.Place) {
	x.Index.Release(r, p)
	x.Counted(r)
}

// InParts begins a job of the steps 0 to n-1, and of an end.
func (l *Loop) InParts(n int, step func(i int), end func()) {
	i := 0
	l.Work(func(until int64) bool {
		for {
			for range min(turn.PartSize, n-i) {
				step(i)
				i++
			}
			switch {
			case i == n:
				end()
				return true
			case l.Ground.Clock() > until:
				return false
			}
		}
	})
}

// LeaveRoom takes c out of a room, or keeps it from entering, and tells it `left`. It reports whether c was in. Loop only.
func (c *Conn) LeaveRoom(name string) bool {
	l := c.loop()
	l.TurnBack(c, name)
	r := l.Rooms.Index.FindString(name)
	if r == nil || !l.Exit(c, r) {
		return false
	}
	l.Text = message.AppendLeft(l.Text[:0], []byte(name), nil)
	c.Answer(l.Text)
	return true
}
