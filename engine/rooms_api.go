package engine

import (
	"math"

	"github.com/parleyd/parley/engine/internal/fanout"
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
	// History is the room's history; nil: that of the setting history, if one of its entries names the room.
	// &HistoryOptions{}: with the defaults. Members that the room has already are told their position, with seq 0.
	History *HistoryOptions
}

// RoomStats says how a room is.
type RoomStats = fanout.RoomStats

// HistoryStats says how the history of a room is: the position of the newest message, and how many messages are kept.
type HistoryStats = fanout.HistoryStats

// Errors of Rooms.
var (
	ErrRoomExists   = fanout.ErrRoomExists
	ErrRoomUnknown  = fanout.ErrRoomUnknown
	ErrNotOpen      = fanout.ErrNotOpen
	ErrForeignConn  = fanout.ErrForeignConn
	ErrRoomFull     = message.ErrRoomFull
	ErrTooManyRooms = message.ErrTooManyRooms
	ErrNotInRoom    = message.ErrNotInRoom
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
		return message.ErrorOf(code)
	}
	var metadata []byte
	if o.Metadata != nil {
		var err error
		if metadata, err = message.Encode(nil, o.Metadata); err != nil {
			return err
		}
	}
	r := fanout.CreatedRoom{Name: name, MaxMembers: min(max(o.MaxMembers, 0), math.MaxInt32), Metadata: metadata}
	var err error
	if r.History, err = x.history(o.History); err != nil {
		return err
	}
	return answered(func(done func(error)) { x.srv.rooms.CreateEverywhere(r, done) })
}

// history are options as a room takes them.
func (x *Rooms) history(o *HistoryOptions) (*rooms.HistoryOptions, error) {
	if o == nil {
		return nil, nil
	}
	if o.Messages >= 0 && !x.srv.link.Alone() && x.srv.rooms.Order == nil {
		return nil, ErrHistoryShared
	}
	bounded := o.bounded()
	return &bounded, nil
}

// RoomUpdate is a change of a created room.
//
// Owner: the caller.
type RoomUpdate struct {
	MaxMembers *int // nil: as it is; 0 means the server's max_connections_per_room
	Metadata   any  // encoded as JSON; nil: as it is
	// History has the new bounds; the oldest messages beyond them are forgotten. A room without history gets one. Messages
	// below 0 end a history that has had no message; any other one stays. nil: as it is.
	History *HistoryOptions
}

// Update changes a room that was created: its members stay, even if they are more than the new limit. All workers know it
// within a second. Cost: as [Rooms.Create]. Errors: [ErrRoomUnknown]: no room of this name was created; metadata that cannot be
// encoded; [ErrHistoryShared]; [ErrUnavailable]: the bus is away, and the room may be changed all the same.
//
// Scope: all workers.
func (x *Rooms) Update(name string, u RoomUpdate) error {
	var change fanout.RoomUpdate
	if u.Metadata != nil {
		var err error
		if change.Metadata, err = message.Encode(nil, u.Metadata); err != nil {
			return err
		}
	}
	if u.MaxMembers != nil {
		most := min(max(*u.MaxMembers, 0), math.MaxInt32)
		change.MaxMembers = &most
	}
	var err error
	if change.History, err = x.history(u.History); err != nil {
		return err
	}
	return answered(func(done func(error)) { x.srv.rooms.Created.Update(name, change, done) })
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
	_, err := x.srv.rooms.Join(c.member(), name, nil)
	return err
}

// JoinThen is Join, and tells done, once, what came of it: nil when c is in. Besides Join's errors there are
// [ErrUnavailable] and [ErrOverloaded], where what the workers share does not answer within two seconds, and
// [ErrNotInRoom], where [Rooms.Leave] came first. Cost: with several workers and a limited room up to a round trip to
// the bus. done must not block: it runs on c's loop, or before JoinThen returns.
//
// Scope: this worker.
func (x *Rooms) JoinThen(c *Conn, name string, done func(error)) {
	x.srv.rooms.JoinThen(c.member(), name, done)
}

// Leave takes c out of a room, soon, and tells it `left`. Being out already is no error. A connection of another server is in
// no room of this one: nothing happens. [Everywhere.Leave] takes out a connection of any worker.
//
// Scope: this worker.
func (x *Rooms) Leave(c *Conn, name string) {
	if c == nil || c.loop().srv != x.srv {
		return
	}
	l := c.loop()
	l.PostCall(func() { c.wire.LeaveRoom(name) })
}

// Members lists the connections in a room: the seed's getRoomMembers. [Everywhere.Members] asks all workers.
//
// Scope: this worker.
func (x *Rooms) Members(name string) []*Conn {
	r := x.srv.rooms.Index.FindString(name)
	if r == nil {
		return nil
	}
	places := r.Members(nil)
	list := make([]*Conn, 0, len(places))
	for _, p := range places {
		if c := connOf(x.srv.loops[p.Loop].ConnAt(p)); c != nil {
			list = append(list, c)
		}
	}
	return list
}

// Has reports whether c is in a room, or on its way into it. A connection of another server is in none of this one.
//
// Scope: this worker.
func (x *Rooms) Has(name string, c *Conn) bool {
	r := x.srv.rooms.Index.FindString(name)
	return r != nil && c != nil && c.loop().srv == x.srv && r.Contains(c.place())
}

// Stats says how a room is; ok is false where there is none. Of members on other workers it is what these said last, a
// fraction of a second ago. A room that came to be by itself and has members on other workers only has CreatedAt 0:
// [Everywhere.Rooms] asks them. Any goroutine.
//
// Scope: all workers.
func (x *Rooms) Stats(name string) (stats RoomStats, ok bool) {
	if r := x.srv.rooms.Index.FindString(name); r != nil {
		return fanout.StatsOf(r), true
	}
	if n := x.srv.rooms.Index.Away(name); n > 0 {
		return RoomStats{Name: name, Connections: n, MaxMembers: x.srv.cfg.MaxConnectionsPerRoom}, true
	}
	return stats, false
}

// List returns the rooms: the seed's getRooms. It walks through all of them; for a million rooms, use Range. With several
// workers it lists those that were created, and those that have members here; of each, Connections counts the members on
// all workers. The names of the others are not known here: [Everywhere.Rooms] asks for them.
//
// Scope: this worker.
func (x *Rooms) List() []RoomStats {
	list := make([]RoomStats, 0, x.srv.rooms.Index.Len())
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
	x.srv.rooms.Index.Range(func(r *rooms.Room) bool { return f(fanout.StatsOf(r)) })
}

// Len is the number of rooms in [Rooms.List]; Rooms of [Server.Stats] is that of all workers.
//
// Scope: this worker.
func (x *Rooms) Len() int { return x.srv.rooms.Index.Len() }

// Delete ends a room: its members are told that they left it. It reports whether there was one. On all workers it is
// empty within a second. Cost: with several workers it waits for a round trip to the bus, two seconds at most, as
// [Rooms.Create] does, and reports false where the bus is away, or where a room that was never created has members on
// other workers only.
//
// Scope: all workers.
func (x *Rooms) Delete(name string) bool {
	return answered(func(done func(bool)) { x.srv.rooms.DeleteEverywhere(name, done) })
}

// answered waits for the answer to a call.
func answered[T any](call func(done func(T))) T {
	answer := make(chan T, 1)
	call(func(x T) { answer <- x })
	return <-answer
}
