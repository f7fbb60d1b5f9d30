package engine

import (
	"encoding/json"
	"errors"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/protocol/message"
	"github.com/parleyd/parley/rooms"
)

// Rooms is the application's way to rooms: the seed's room manager. Its methods are for any goroutine.
//
// Joining takes the seat at once, under the room's lock, and so tells at once whether there is one; the
// connection enters on its own loop, behind what was posted before. What is broadcast after Join returned
// reaches the connection.
type Rooms struct{ srv *Server }

// RoomOptions are what a room may be created with.
type RoomOptions struct {
	MaxMembers int // 0 means the server's max_connections_per_room
	Metadata   any // encoded as JSON
}

// RoomStats says how a room is.
//
// Owner: the caller.
type RoomStats struct {
	Name        string          `json:"name"`
	Connections int             `json:"connections"`
	CreatedAt   int64           `json:"created_at"` // seconds since the epoch
	MaxMembers  int             `json:"max_members"`
	Metadata    json.RawMessage `json:"metadata,omitempty"`
}

// Errors of Rooms.
var (
	ErrRoomExists   = errors.New("the room exists already")
	ErrRoomUnknown  = errors.New("there is no such room")
	ErrNotOpen      = errors.New("the connection is not open: it has ended, or its connect handlers have not admitted it yet")
	ErrRoomFull     = wireError(message.RoomFull)
	ErrTooManyRooms = wireError(message.TooManyRooms)
	ErrNotInRoom    = wireError(message.NotInRoom)
)

// Rooms gives access to the rooms: the seed's getRoomManager.
func (s *Server) Rooms() *Rooms { return &Rooms{s} }

// Create makes a room that stays although it is empty. Errors: [ErrRoomExists]; a name that is none;
// metadata that cannot be encoded.
func (x *Rooms) Create(name string, o RoomOptions) error {
	if code := message.ValidRoom([]byte(name)); code != message.OK {
		return wireError(code)
	}
	var metadata []byte
	if o.Metadata != nil {
		var err error
		if metadata, err = message.Encode(nil, o.Metadata); err != nil {
			return err
		}
	}
	_, err := x.srv.index.Create(name, rooms.CreateOptions{
		MaxMembers: o.MaxMembers, Metadata: metadata, CreatedAt: x.srv.seconds(x.srv.clock())})
	if errors.Is(err, rooms.ErrExists) {
		return ErrRoomExists
	}
	return err
}

// Join takes c into a room, creating the room where there is none. Errors: [ErrRoomFull],
// [ErrTooManyRooms], [ErrNotOpen], or a name that is none. Being in already is no error.
func (x *Rooms) Join(c *Conn, name string) error {
	if code := message.ValidRoom([]byte(name)); code != message.OK {
		return wireError(code)
	}
	if !c.isOpen() {
		return ErrNotOpen
	}
	p := c.place()
	if r := x.srv.index.FindString(name); r != nil && r.Contains(p) {
		return nil
	}
	limit := int32(x.srv.cfg.MaxRoomsPerConnection)
	if n := c.seats.Add(1); limit > 0 && n > limit {
		c.seats.Add(-1)
		return ErrTooManyRooms
	}
	held, err := x.srv.index.Hold([]byte(name), p, x.srv.seconds(x.srv.clock()))
	if err != nil || held.Already {
		c.seats.Add(-1)
		if err != nil {
			return ErrRoomFull
		}
		return nil
	}
	c.loop.postCall(func(l *loop) { l.enterHeld(c, held.Room) })
	return nil
}

// enterHeld turns a held seat into membership, or gives it back where the connection has ended.
func (l *loop) enterHeld(c *Conn, r *rooms.Room) {
	if c.phase != phaseOpen && c.phase != phaseAuth {
		l.srv.index.Release(r, c.place())
		return
	}
	entry, err := r.EnterHeld(c.place())
	if err != nil || entry.Already {
		c.seats.Add(-1)
		return
	}
	l.entered(c, entry)
}

// Leave takes c out of a room, soon. Being out already is no error.
func (x *Rooms) Leave(c *Conn, name string) {
	c.loop.postCall(func(l *loop) {
		if r := x.srv.index.FindString(name); r != nil {
			l.exit(c, r)
		}
	})
}

// Members lists the connections in a room: the seed's getRoomMembers.
func (x *Rooms) Members(name string) []*Conn {
	r := x.srv.index.FindString(name)
	if r == nil {
		return nil
	}
	places := r.Members(nil)
	list := make([]*Conn, 0, len(places))
	for _, p := range places {
		if c := x.srv.loops[p.Loop].connAt(p); c != nil {
			list = append(list, c)
		}
	}
	return list
}

// Has reports whether c is in a room, or on its way into it.
func (x *Rooms) Has(name string, c *Conn) bool {
	r := x.srv.index.FindString(name)
	return r != nil && r.Contains(c.place())
}

// Stats says how a room is; ok is false where there is none.
func (x *Rooms) Stats(name string) (stats RoomStats, ok bool) {
	r := x.srv.index.FindString(name)
	if r == nil {
		return stats, false
	}
	return statsOf(r), true
}

func statsOf(r *rooms.Room) RoomStats {
	return RoomStats{Name: r.Name(), Connections: r.Len(), CreatedAt: r.CreatedAt(),
		MaxMembers: r.Limit(), Metadata: r.Metadata()}
}

// List returns all rooms: the seed's getRooms. It walks through all of them; for a million rooms, use Range.
func (x *Rooms) List() []RoomStats {
	list := make([]RoomStats, 0, x.srv.index.Len())
	x.Range(func(r RoomStats) bool {
		list = append(list, r)
		return true
	})
	return list
}

// Range calls f for each room until it returns false.
func (x *Rooms) Range(f func(RoomStats) bool) {
	x.srv.index.Range(func(r *rooms.Room) bool { return f(statsOf(r)) })
}

// Len is the number of rooms.
func (x *Rooms) Len() int { return x.srv.index.Len() }

// Delete ends a room: its members are told that they left it. It reports whether there was one.
func (x *Rooms) Delete(name string) bool {
	r, ok := x.srv.index.Delete(name)
	if !ok {
		return false
	}
	f := buildOutFrame(ws.OpText, len(name)+noticeBytes, func(dst []byte) []byte {
		return message.AppendLeft(dst, []byte(name), nil)
	})
	for _, l := range x.srv.loops {
		l.postCall(func(l *loop) { l.vacate(r, f) })
	}
	return true
}

// vacate takes this loop's members out of a deleted room. Who has entered a new room of that name by now is
// told nothing: it would take it for the new one.
func (l *loop) vacate(r *rooms.Room, told *outFrame) {
	for range vacateMax {
		roster := r.Roster(l.index)
		if len(roster) == 0 {
			return
		}
		c := l.slab.at(roster[len(roster)-1].Slot)
		l.exit(c, r)
		if heir := l.srv.index.FindString(r.Name()); heir == nil || !heir.Has(c.place()) {
			l.queue(c, told)
		}
	}
	l.postCall(func(l *loop) { l.vacate(r, told) })
}

// vacateMax is the members that leave a deleted room in one go: others want their turn, too.
const vacateMax = 1000
