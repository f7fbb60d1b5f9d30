package engine

import (
	"encoding/json"
	"errors"
	"math"
	"slices"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/engine/internal/turn"
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
	ErrForeignConn  = errors.New("the connection belongs to another server: use the Rooms of c.Server()")
	ErrRoomFull     = wireError(message.RoomFull)
	ErrTooManyRooms = wireError(message.TooManyRooms)
	ErrNotInRoom    = wireError(message.NotInRoom)
)

// Rooms gives access to the rooms: the seed's getRoomManager.
func (s *Server) Rooms() *Rooms { return &Rooms{s} }

// Create makes a room that stays although it is empty; one that came to be by itself keeps its members, even if they
// are more than the limit. All workers know it within a second. Before the start it is made in this worker: its
// program creates the same rooms in each. Cost: with several workers it waits for a round trip to the bus, two seconds
// at most, so a handler that calls it must be registered with [Offload]. Errors: [ErrRoomExists]; a name that is none;
// metadata that cannot be encoded; [ErrUnavailable]: the bus is away, and the room may come to be all the same.
//
// Scope: all workers.
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
	if x.srv.created() != nil {
		r := CreatedRoom{Name: name, MaxMembers: min(max(o.MaxMembers, 0), math.MaxInt32), Metadata: metadata}
		return answered(func(done func(error)) { x.createEverywhere(r, done) })
	}
	_, err := x.srv.index.Create(name, rooms.CreateOptions{
		MaxMembers: min(o.MaxMembers, math.MaxInt32), Metadata: metadata, CreatedAt: x.srv.seconds(x.srv.clock())})
	if errors.Is(err, rooms.ErrExists) {
		return ErrRoomExists
	}
	return err
}

// Join takes c into a room, creating the room where there is none. Errors: [ErrRoomFull],
// [ErrTooManyRooms], [ErrNotOpen], [ErrForeignConn], or a name that is none. Being in already is no error. The client is told
// `joined`, without a ref; the others in the room, `member_joined`.
//
// Where several workers share a room's limit, Join does not wait for its seat: nil means that c is on its way, and will be
// in within a moment if there is a seat; ErrRoomFull, that all are taken as far as is known here. [Rooms.JoinThen] tells
// exactly. Rooms without a limit are joined at once there, too. [Everywhere.Join] takes a connection of any worker.
//
// Scope: this worker.
func (x *Rooms) Join(c *Conn, name string) error {
	_, err := x.join(c, name, nil)
	return err
}

// JoinThen is Join, and tells done, once, what came of it: nil when c is in. Besides Join's errors there are
// [ErrUnavailable] and [ErrOverloaded], where what the workers share does not answer within two seconds, and
// [ErrNotInRoom], where [Rooms.Leave] came first. Cost: with several workers and a limited room up to a round trip to
// the bus. done must not block: it runs on c's loop, or before JoinThen returns.
//
// Scope: this worker.
func (x *Rooms) JoinThen(c *Conn, name string, done func(error)) {
	told, err := x.join(c, name, done)
	if !told && done != nil {
		done(err)
	}
}

// join takes c in, or sends it on its way. told: done is told the outcome.
func (x *Rooms) join(c *Conn, name string, done func(error)) (told bool, err error) {
	if code := message.ValidRoom([]byte(name)); code != message.OK {
		return false, wireError(code)
	}
	switch {
	case c != nil && c.loop().srv != x.srv:
		return false, ErrForeignConn
	case !c.isOpen():
		return false, ErrNotOpen
	}
	r := x.srv.index.FindString(name)
	if r != nil && r.Contains(c.place()) {
		return false, nil
	}
	if !c.reserveRoom() {
		return false, ErrTooManyRooms
	}
	a := &admission{how: wayCall, conn: c, room: []byte(name), done: done}
	held, err := x.srv.index.Hold(a.room, c.place(), x.srv.seconds(x.srv.clock()))
	switch {
	case err == rooms.ErrSeat && (done != nil || r == nil || r.Len()+r.Away() < r.Limit()):
		a.how = waySent
	case err != nil:
		c.seats.Add(-1)
		return false, ErrRoomFull
	case held.Already:
		c.seats.Add(-1)
		return false, nil
	}
	a.held = held.Room
	c.loop().postCall(func(l *loop) { l.arrive(a) })
	return true, nil
}

// tellJoined tells c that the application took it into a room: as the answer to a join does, in front of whatever the room
// gives it from now on, but without a ref.
func (l *loop) tellJoined(c *Conn, e rooms.Entry) {
	l.Text = message.AppendJoined(l.Text[:0], message.Joined{Room: []byte(e.Room.Name()), Members: e.Members + e.Room.Away()})
	l.answerNow(c, l.Text)
}

// Leave takes c out of a room, soon, and tells it `left`. Being out already is no error. A connection of another server is in
// no room of this one: nothing happens. [Everywhere.Leave] takes out a connection of any worker.
//
// Scope: this worker.
func (x *Rooms) Leave(c *Conn, name string) {
	if c == nil || c.loop().srv != x.srv {
		return
	}
	c.loop().postCall(func(l *loop) {
		l.turnBack(c, name)
		if r := x.srv.index.FindString(name); r != nil && l.exit(c, r) {
			l.Text = message.AppendLeft(l.Text[:0], []byte(name), nil)
			l.answer(c, l.Text)
		}
	})
}

// Members lists the connections in a room: the seed's getRoomMembers. [Everywhere.Members] asks all workers.
//
// Scope: this worker.
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

// Has reports whether c is in a room, or on its way into it. A connection of another server is in none of this one.
//
// Scope: this worker.
func (x *Rooms) Has(name string, c *Conn) bool {
	r := x.srv.index.FindString(name)
	return r != nil && c != nil && c.loop().srv == x.srv && r.Contains(c.place())
}

// Stats says how a room is; ok is false where there is none. Of members on other workers it is what these said last, a
// fraction of a second ago. A room that came to be by itself and has members on other workers only has CreatedAt 0:
// [Everywhere.Rooms] asks them. Any goroutine.
//
// Scope: all workers.
func (x *Rooms) Stats(name string) (stats RoomStats, ok bool) {
	if r := x.srv.index.FindString(name); r != nil {
		return statsOf(r), true
	}
	if n := x.srv.index.Away(name); n > 0 {
		return RoomStats{Name: name, Connections: n, MaxMembers: x.srv.cfg.MaxConnectionsPerRoom}, true
	}
	return stats, false
}

func statsOf(r *rooms.Room) RoomStats {
	return RoomStats{Name: r.Name(), Connections: r.Len() + r.Away(), CreatedAt: r.CreatedAt(),
		MaxMembers: r.Limit(), Metadata: slices.Clip(r.Metadata())}
}

// List returns the rooms: the seed's getRooms. It walks through all of them; for a million rooms, use Range. With several
// workers it lists those that were created, and those that have members here; of each, Connections counts the members on
// all workers. The names of the others are not known here: [Everywhere.Rooms] asks for them.
//
// Scope: this worker.
func (x *Rooms) List() []RoomStats {
	list := make([]RoomStats, 0, x.srv.index.Len())
	x.Range(func(r RoomStats) bool {
		list = append(list, r)
		return true
	})
	return list
}

// Range calls f for each room of [Rooms.List] until it returns false.
//
// Scope: this worker.
func (x *Rooms) Range(f func(RoomStats) bool) {
	x.srv.index.Range(func(r *rooms.Room) bool { return f(statsOf(r)) })
}

// Len is the number of rooms in [Rooms.List]; Rooms of [Server.Stats] is that of all workers.
//
// Scope: this worker.
func (x *Rooms) Len() int { return x.srv.index.Len() }

// Delete ends a room: its members are told that they left it. It reports whether there was one. On all workers it is
// empty within a second. Cost: with several workers it waits for a round trip to the bus, two seconds at most, as
// [Rooms.Create] does, and reports false where the bus is away, or where a room that was never created has members on
// other workers only.
//
// Scope: all workers.
func (x *Rooms) Delete(name string) bool {
	if x.srv.created() != nil {
		return answered(func(done func(bool)) { x.deleteEverywhere(name, done) })
	}
	return x.srv.deleteRoom(name)
}

// deleteRoom ends a room on this worker.
func (s *Server) deleteRoom(name string) bool {
	r, ok := s.index.Delete(name)
	if ok {
		s.empty(r)
	}
	return ok
}

// vacateRoom ends a room that came to be by itself.
func (s *Server) vacateRoom(name string) bool {
	r, ok := s.index.Vacate(name)
	if ok {
		s.empty(r)
	}
	return ok
}

// empty has the members of a room that is deleted leave it.
func (s *Server) empty(r *rooms.Room) {
	name := r.Name()
	f := turn.BuildFrame(ws.OpText, len(name)+noticeBytes, func(dst []byte) []byte {
		return message.AppendLeft(dst, []byte(name), nil)
	})
	for _, l := range s.loops {
		l.postCall(func(l *loop) {
			if !l.vacate(r, f) {
				l.work(func(l *loop, _ int64) bool { return l.vacate(r, f) })
			}
		})
	}
}

// vacate takes this loop's members out of a deleted room, some at a time, and reports whether all are. Who has entered a
// new room of that name by now is told nothing: it would take it for the new one.
func (l *loop) vacate(r *rooms.Room, told *turn.Frame) (all bool) {
	for range vacateMax {
		roster := r.Roster(l.Index)
		if len(roster) == 0 {
			return true
		}
		c := connOf(l.Slab.At(roster[len(roster)-1].Slot))
		l.exit(c, r)
		if heir := l.srv.index.FindString(r.Name()); heir == nil || !heir.Has(c.place()) {
			l.Queue(&c.wire, told)
		}
	}
	return len(r.Roster(l.Index)) == 0
}

// vacateMax is the members that leave a deleted room in one go: others want their turn, too.
const vacateMax = 128
