package fanout

import (
	"errors"

	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/rooms"
)

// Created rooms, if several workers are one server. Such a room, with its limit and its metadata, is the same on all
// workers. A worker asks the ledger to create it; all workers, the asking one too, learn of it from the ledger.

// Errors of created rooms.
var (
	ErrRoomExists  = errors.New("the room exists already")
	ErrRoomUnknown = errors.New("there is no such room")
)

// Created are the created rooms, as all workers know them. The methods are for any goroutine and never wait. done is called
// exactly once, within two seconds, on any goroutine, and after this worker's [Rooms.RoomCreated], [Rooms.RoomUpdated] or
// [Rooms.RoomDeleted].
type Created interface {
	// Create makes a room known to all workers. Errors: [ErrRoomExists], [message.ErrUnavailable], [message.ErrOverloaded].
	Create(r CreatedRoom, done func(error))
	// Update changes it on all workers. Errors: [ErrRoomUnknown], [message.ErrUnavailable], [message.ErrOverloaded].
	Update(name string, u RoomUpdate, done func(error))
	// Delete deletes it on all workers. Errors: [ErrRoomUnknown], [message.ErrUnavailable], [message.ErrOverloaded].
	Delete(name string, done func(error))
}

// CreatedRoom is a room that an application created.
//
// Owner: immutable.
type CreatedRoom struct {
	Name       string
	MaxMembers int                   // 0 means the server's max_connections_per_room
	Metadata   []byte                // JSON
	CreatedAt  int64                 // seconds since the epoch
	History    *rooms.HistoryOptions // nil: as the setting history says
}

// RoomUpdate is a change of a created room.
//
// Owner: immutable.
type RoomUpdate struct {
	MaxMembers *int   // nil: as it is; 0 means the server's max_connections_per_room
	Metadata   []byte // JSON; nil: as it is
	History    *rooms.HistoryOptions
}

// OwnRooms are the created rooms of a worker that has its own.
type OwnRooms struct{ Rooms *Rooms }

// Create is of [Created].
func (x OwnRooms) Create(r CreatedRoom, done func(error)) {
	_, err := x.Rooms.Index.Create(r.Name, rooms.CreateOptions{MaxMembers: r.MaxMembers, Metadata: r.Metadata, History: r.History,
		CreatedAt: x.Rooms.Ground.Seconds(x.Rooms.Ground.Clock()), Begun: Historic{x.Rooms}.begun})
	if errors.Is(err, rooms.ErrExists) {
		err = ErrRoomExists
	}
	done(err)
}

// Update is of [Created].
func (x OwnRooms) Update(name string, u RoomUpdate, done func(error)) {
	err := x.Rooms.Index.Update(name, rooms.UpdateOptions{MaxMembers: u.MaxMembers, Metadata: u.Metadata, History: u.History,
		Begun: Historic{x.Rooms}.begun})
	if errors.Is(err, rooms.ErrUnknown) {
		err = ErrRoomUnknown
	}
	done(err)
}

// Delete is of [Created].
func (x OwnRooms) Delete(name string, done func(error)) {
	if !x.Rooms.deleteRoom(name) {
		done(ErrRoomUnknown)
		return
	}
	done(nil)
}

// RoomCreated creates a room here that all workers have. An earlier created room of the same name has been deleted since.
// Any goroutine, but always the same.
func (x *Rooms) RoomCreated(r CreatedRoom) {
	x.emptying.Add(1)
	defer x.emptying.Add(-1)
	room, old := x.Index.Adopt(r.Name, rooms.CreateOptions{MaxMembers: r.MaxMembers, Metadata: r.Metadata, CreatedAt: r.CreatedAt,
		History: r.History})
	if old != nil {
		x.Order.dropped(r.Name)
	}
	x.Order.followMembers(room)
	x.Counted(room) // other workers may have had members in it earlier
	if old != nil {
		x.empty(old)
	}
}

// RoomUpdated changes a created room; where it is unknown, it has been deleted since. Any goroutine, but always that of
// [Rooms.RoomCreated].
func (x *Rooms) RoomUpdated(r CreatedRoom) {
	x.Index.Update(r.Name, rooms.UpdateOptions{MaxMembers: &r.MaxMembers, Metadata: r.Metadata, History: r.History})
	if room := x.Index.FindString(r.Name); room != nil {
		x.Order.followMembers(room)
	}
}

// RoomDeleted deletes a created room. Any goroutine, but always that of [Rooms.RoomCreated].
func (x *Rooms) RoomDeleted(name string) { x.deleteRoom(name) }

// CreateEverywhere creates a room on all workers.
func (x *Rooms) CreateEverywhere(r CreatedRoom, done func(error)) {
	if old := x.Index.FindString(r.Name); old != nil && old.Explicit() {
		done(ErrRoomExists)
		return
	}
	x.Created.Create(r, done)
}

// DeleteEverywhere deletes a room on all workers: a created one in the ledger, any other by an entry. done learns whether
// there was one.
func (x *Rooms) DeleteEverywhere(name string, done func(bool)) {
	if r := x.Index.FindString(name); r != nil && !r.Explicit() {
		done(x.vacateEverywhere(name))
		return
	}
	x.Created.Delete(name, func(err error) {
		switch {
		case err == nil:
			x.Order.end(name)
			done(true)
		case errors.Is(err, ErrRoomUnknown):
			done(x.vacateEverywhere(name))
		default:
			x.Ground.Log.Error("a room cannot be deleted now; delete it again", "room", name, "err", err)
			done(false)
		}
	})
}

func (x *Rooms) vacateEverywhere(name string) bool {
	x.Order.end(name)
	x.Link.Say(true, &fleet.Entry{Kind: fleet.Vacate, Room: name})
	return x.vacateRoom(name)
}

// HearVacate deletes a room that another worker has deleted, unless an application has created it since.
func (x *Rooms) HearVacate(h *fleet.Heard) { x.vacateRoom(string(h.Room)) }
