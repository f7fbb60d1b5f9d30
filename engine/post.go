package engine

import (
	"context"

	"github.com/parleyd/parley/engine/internal/fanout"
	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/engine/internal/membership"
	"github.com/parleyd/parley/engine/internal/turn"
)

// An Address names the connections, on all workers, that a message is for: those of one of the fields from Rooms to
// Everybody, less the exceptions.
type Address = membership.Address

// ErrAddress is the error for an [Address] that names no connections, or names them in two ways.
var ErrAddress = membership.ErrAddress

// Post sends v to the connections at an address, once to each. Users, rooms and connections that do not exist get nothing, and are
// no error. What one goroutine posts and broadcasts arrives in its order; with several workers, a message may overtake an earlier
// one that waits for its number. Cost: one entry on the bus; an attribute makes each worker look through all of its connections. Any
// goroutine. Errors: [ErrAddress]; v or the value cannot be encoded; [ErrMessageTooLarge]; [ErrOverloaded]: no connection gets it.
//
// Scope: all workers.
func (s *Server) Post(to Address, v any) error { return s.worker.Post(to, v) }

// Post is [Server.Post], and returns how many connections the message was queued for. Cost: a question to each worker.
// Errors: also [*PartialError]: those workers have not answered, and their connections may have the message.
//
// Scope: all workers.
func (x *Everywhere) Post(ctx context.Context, to Address, v any) (recipients int, err error) {
	return x.srv.worker.PostCounted(ctx, to, v)
}

// Confirm waits until the bus has everything that was sent to other workers before the call: from then on the end of this
// process does not take it from them. A server that is alone confirms at once. Cost: a round trip to the bus, which all
// callers of one moment share. It must not be called on a loop: it waits. Errors: [ErrUnavailable] where the bus has not
// answered within a second, and what was sent leaves when the bus is back; the error of ctx.
//
// Scope: all workers.
func (s *Server) Confirm(ctx context.Context) error { return s.link.Bus.Confirm(ctx) }

// Broadcast sends v, encoded as JSON once, to all members of a room except those whose ids are given, and returns how many
// members the room had: exact within a worker, and the best known figure across workers. An unknown room has none. Cost: one
// entry on the bus. Any goroutine. Errors: v cannot be encoded; [ErrMessageTooLarge] and [ErrOverloaded], after which no
// member gets v.
//
// Scope: all workers.
func (s *Server) Broadcast(room string, v any, except ...string) (members int, err error) {
	f, err := s.link.EncodeFrame(v)
	if err != nil {
		return 0, err
	}
	return s.rooms.Broadcast(room, f, fleet.ParseIDs(except))
}

// BroadcastRooms sends v to the members of several rooms, once to each connection, and once more for each room with history. Cost:
// one entry on the bus. Any goroutine.
//
// Scope: all workers.
func (s *Server) BroadcastRooms(names []string, v any, except ...string) error {
	f, err := s.link.EncodeFrame(v)
	if err != nil {
		return err
	}
	return s.rooms.BroadcastRooms(names, f, fleet.ParseIDs(except))
}

// BroadcastAll sends v to every open connection, whether it is in a room or not. Cost: one entry on the bus. Any
// goroutine.
//
// Scope: all workers.
func (s *Server) BroadcastAll(v any, except ...string) error {
	f, err := s.link.EncodeFrame(v)
	if err != nil {
		return err
	}
	return s.rooms.BroadcastAll(f, fleet.ParseIDs(except))
}

// BroadcastWhere sends v to the open connections that chosen accepts, and returns their number. chosen runs on the caller's
// goroutine. A function cannot be sent to another process: to reach the connections of all workers, use
// [Server.BroadcastMatching] or [Server.BroadcastFiltered]. Any goroutine.
//
// Scope: this worker.
func (s *Server) BroadcastWhere(chosen func(*Conn) bool, v any, except ...string) (int, error) {
	f, err := turn.EncodeFrame(v)
	if err != nil {
		return 0, err
	}
	return s.rooms.PublishChosen(func(c *fanout.Conn) bool { return chosen(connOf(c.Wire())) }, f, s.link.Own(fleet.ParseIDs(except)))
}
