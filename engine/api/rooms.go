package api

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"

	"github.com/parleyd/parley/engine"
)

// roomRequest is the body of /v1/rooms/create, /v1/rooms/update and /v1/rooms/delete.
//
// Owner: one goroutine.
type roomRequest struct {
	room       string
	maxMembers *int // nil: not given; 0 for null
	metadata   []byte
	history    []byte
}

var roomName = field[roomRequest]{"room", func(r *roomRequest, v []byte) string { return takeText(&r.room, v) }}

var deleteFields = fields[roomRequest]{roomName}

var metadata = field[roomRequest]{"metadata", func(r *roomRequest, v []byte) string { r.metadata = v; return "" }}

var roomHistory = field[roomRequest]{"history", func(r *roomRequest, v []byte) string { r.history = v; return "" }}

var createFields = fields[roomRequest]{
	roomName,
	{"max_members", func(r *roomRequest, v []byte) string {
		n, err := strconv.ParseInt(string(v), 10, 32)
		most := int(n)
		if r.maxMembers = &most; err != nil || n < 1 {
			return "give a number from 1 to 2147483647, or leave it out"
		}
		return ""
	}},
	metadata,
	roomHistory,
}

var updateFields = fields[roomRequest]{
	roomName,
	{"max_members", func(r *roomRequest, v []byte) string {
		most := 0
		if r.maxMembers = &most; v[0] == 'n' {
			return ""
		}
		n, err := strconv.ParseInt(string(v), 10, 32)
		if most = int(n); err != nil || n < 1 {
			return "give a number from 1 to 2147483647, or null for the server's limit, or leave it out"
		}
		return ""
	}},
	metadata,
	roomHistory,
}

// decodeRoom reads the body, and checks the room.
func decodeRoom(c *call, list fields[roomRequest]) (r roomRequest, wrong *problem) {
	if wrong = list.decode(c.object, &r); wrong == nil {
		wrong = c.seesRoom(r.room)
	}
	return r, wrong
}

// createRoom makes a room that stays although it is empty.
func createRoom(s *Server, c *call) ([]byte, *problem) {
	r, wrong := decodeRoom(c, createFields)
	if wrong != nil {
		return nil, wrong
	}
	var o engine.RoomOptions
	if o.History, wrong = readHistory(object{raw: r.history, at: c.at + "/history"}); wrong != nil {
		return nil, wrong
	}
	if r.maxMembers != nil {
		o.MaxMembers = *r.maxMembers
	}
	if r.metadata != nil {
		o.Metadata = json.RawMessage(r.metadata)
	}
	return []byte("{}"), s.ask(c, func(context.Context) error { return s.engine.Rooms().Create(r.room, o) })
}

// updateRoom changes a room that was created; what the request does not name stays.
func updateRoom(s *Server, c *call) ([]byte, *problem) {
	r, wrong := decodeRoom(c, updateFields)
	if wrong != nil {
		return nil, wrong
	}
	if r.maxMembers == nil && r.metadata == nil && r.history == nil {
		return nil, invalid([]fault{{c.at, "name what to change: max_members, metadata or history"}})
	}
	u := engine.RoomUpdate{MaxMembers: r.maxMembers}
	if u.History, wrong = readHistory(object{raw: r.history, at: c.at + "/history"}); wrong != nil {
		return nil, wrong
	}
	if r.metadata != nil {
		u.Metadata = json.RawMessage(r.metadata)
	}
	return []byte("{}"), s.ask(c, func(context.Context) error { return s.engine.Rooms().Update(r.room, u) })
}

// deleteRoom ends a room: its members leave it first, which tells their number.
func deleteRoom(s *Server, c *call) ([]byte, *problem) {
	r, wrong := decodeRoom(c, deleteFields)
	if wrong != nil {
		return nil, wrong
	}
	return s.act(c, "left", func(ctx context.Context) (left int, err error) {
		x := s.engine.Everywhere()
		_, err = x.Room(ctx, r.room)
		if errors.Is(err, engine.ErrRoomUnknown) {
			return 0, err
		}
		left, err = x.LeaveAt(ctx, engine.Address{Rooms: []string{r.room}}, r.room)
		if !s.engine.Rooms().Delete(r.room) && err == nil {
			// It was never created, and went with its last member; or the bus is away.
			if _, err = x.Room(ctx, r.room); err == nil {
				err = engine.ErrUnavailable
			} else if errors.Is(err, engine.ErrRoomUnknown) {
				err = nil
			}
		}
		return left, err
	})
}

// isPartial reports whether an error says that workers did not answer.
func isPartial(err error) bool { return errors.Is(err, engine.ErrPartial) }
