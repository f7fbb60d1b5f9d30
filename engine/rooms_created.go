package engine

import (
	"errors"

	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/rooms"
)

// Created rooms, if several workers are one server. Such a room, with its limit and its metadata, is the same on all
// workers. A worker asks the ledger to create it; all workers, the asking one too, learn of it from the ledger.

// Created are the created rooms, as all workers know them. The methods are for any goroutine and never wait. done is called
// exactly once, within two seconds, on any goroutine, and after this worker's [Server.RoomCreated] or [Server.RoomDeleted].
type Created interface {
	// Create makes a room known to all workers. Errors: [ErrRoomExists], [ErrUnavailable], [ErrOverloaded].
	Create(r CreatedRoom, done func(error))
	// Delete deletes it on all workers. Errors: [ErrRoomUnknown], [ErrUnavailable], [ErrOverloaded].
	Delete(name string, done func(error))
}

// CreatedRoom is a room that an application created.
//
// Owner: immutable.
type CreatedRoom struct {
	Name       string
	MaxMembers int    // 0 means the server's max_connections_per_room
	Metadata   []byte // JSON
	CreatedAt  int64  // seconds since the epoch
}

// created are the created rooms that workers share; nil if each worker has its own.
func (s *Server) created() Created {
	if s.peers == nil {
		return nil
	}
	return s.peers.Rooms
}

// RoomCreated creates a room here that all workers have. An earlier created room of the same name has been deleted since.
// Any goroutine, but always the same.
func (s *Server) RoomCreated(r CreatedRoom) {
	room, old := s.index.Adopt(r.Name, rooms.CreateOptions{MaxMembers: r.MaxMembers, Metadata: r.Metadata, CreatedAt: r.CreatedAt})
	s.counted(room) // other workers may have had members in it earlier
	if old != nil {
		s.empty(old)
	}
}

// RoomDeleted deletes a created room. Any goroutine, but always that of [Server.RoomCreated].
func (s *Server) RoomDeleted(name string) { s.deleteRoom(name) }

// createEverywhere creates a room on all workers.
func (x *Rooms) createEverywhere(r CreatedRoom, done func(error)) {
	if old := x.srv.index.FindString(r.Name); old != nil && old.Explicit() {
		done(ErrRoomExists)
		return
	}
	x.srv.created().Create(r, done)
}

// deleteEverywhere deletes a room on all workers: a created one in the ledger, any other by an entry. done learns whether
// there was one.
func (x *Rooms) deleteEverywhere(name string, done func(bool)) {
	if r := x.srv.index.FindString(name); r != nil && !r.Explicit() {
		done(x.vacateEverywhere(name))
		return
	}
	x.srv.created().Delete(name, func(err error) {
		switch {
		case err == nil:
			done(true)
		case errors.Is(err, ErrRoomUnknown):
			done(x.vacateEverywhere(name))
		default:
			x.srv.log.Error("a room cannot be deleted", "room", name, "err", err)
			done(false)
		}
	})
}

func (x *Rooms) vacateEverywhere(name string) bool {
	x.srv.peers.say(true, &fleet.Entry{Kind: fleet.Vacate, Room: name})
	return x.srv.vacateRoom(name)
}

// receiveVacate deletes a room that another worker has deleted, unless an application has created it since.
func (s *Server) receiveVacate(h *fleet.Heard) { s.vacateRoom(string(h.Room)) }

// answered waits for the answer to a call.
func answered[T any](call func(done func(T))) T {
	answer := make(chan T, 1)
	call(func(x T) { answer <- x })
	return <-answer
}
