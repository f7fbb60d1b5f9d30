package cluster

import (
	"errors"
	"time"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/engine/cluster/ledger"
	"github.com/parleyd/parley/engine/internal/fanout"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/rooms"
)

// This file makes the ledger's seats and created rooms fit the engine's interfaces.

// seats implements [fanout.Seats] over the ledger.
type seats struct{ w *worker }

// Acquire implements fanout.Seats.
func (s seats) Acquire(room string, limit int, ticket fanout.SeatTicket, done func(error)) {
	held, tell := s.w.ledger.Load().Seats, func(err error) { done(roomError(err)) }
	var err error
	if ticket == (fanout.SeatTicket{}) {
		err = held.Acquire(room, limit, 1, func(_ int, err error) { tell(err) })
	} else {
		err = held.Take(room, limit, ledger.Ticket(ticket), tell)
	}
	if err != nil {
		tell(err)
	}
}

// Give implements fanout.Seats. A seat that cannot be given is released.
func (s seats) Give(room string, to ident.Worker, ticket fanout.SeatTicket, done func()) {
	held := s.w.ledger.Load().Seats
	if err := held.Give(room, to, ledger.Ticket(ticket), func(error) { done() }); err != nil {
		held.Release(room, 1)
		done()
	}
}

// Release implements fanout.Seats.
func (s seats) Release(room string) { s.w.ledger.Load().Seats.Release(room, 1) }

// Force implements fanout.Seats.
func (s seats) Force(room string, limit, n int) { s.w.ledger.Load().Seats.Force(room, limit, n) }

// created implements [fanout.Created] over the ledger.
type created struct{ w *worker }

// Create implements fanout.Created.
func (c created) Create(r fanout.CreatedRoom, done func(error)) {
	room := ledger.Room{Name: r.Name, MembersMax: uint32(r.MaxMembers), Metadata: r.Metadata, History: sharedHistory(r.History)}
	if err := c.w.ledger.Load().Rooms.Create(room, func(err error) { done(roomError(err)) }); err != nil {
		done(roomError(err))
	}
}

// Delete implements fanout.Created.
func (c created) Delete(name string, done func(error)) {
	if err := c.w.ledger.Load().Rooms.Delete(name, func(err error) { done(roomError(err)) }); err != nil {
		done(roomError(err))
	}
}

// Update implements fanout.Created.
func (c created) Update(name string, u fanout.RoomUpdate, done func(error)) {
	change := func(r *ledger.Room) {
		if u.MaxMembers != nil {
			r.MembersMax = uint32(*u.MaxMembers)
		}
		if u.Metadata != nil {
			r.Metadata = u.Metadata
		}
		if u.History != nil {
			r.History = sharedHistory(u.History)
		}
	}
	if err := c.w.ledger.Load().Rooms.Update(name, change, func(err error) { done(roomError(err)) }); err != nil {
		done(roomError(err))
	}
}

// roomChanged passes changes of created rooms on to the server. It runs on the ledger's goroutine.
func (w *worker) roomChanged(r ledger.Room, change ledger.RoomChange) {
	known := w.srv.Worker().Rooms
	room := fanout.CreatedRoom{Name: r.Name, MaxMembers: int(r.MembersMax), Metadata: r.Metadata,
		CreatedAt: r.CreatedAt / time.Second.Milliseconds(), History: historyOf(r.History)}
	switch change {
	case ledger.RoomCreated:
		known.RoomCreated(room)
	case ledger.RoomUpdated:
		known.RoomUpdated(room)
	case ledger.RoomDeleted:
		known.RoomDeleted(r.Name)
	}
}

// sharedHistory is a history as the ledger keeps it. Its bounds are within those of the settings, which are far below the largest
// numbers of the ledger.
func sharedHistory(o *rooms.HistoryOptions) *ledger.History {
	if o == nil {
		return nil
	}
	return &ledger.History{Messages: int32(max(o.Messages, -1)), Bytes: int32(o.Bytes), Age: o.Age, Slow: uint8(o.Slow)}
}

func historyOf(h *ledger.History) *rooms.HistoryOptions {
	if h == nil {
		return nil
	}
	return &rooms.HistoryOptions{Messages: int(h.Messages), Bytes: int(h.Bytes), Age: h.Age, Slow: rooms.SlowPolicy(h.Slow)}
}

// roomError translates an error of the ledger about rooms and seats into the engine's. Any other is a caller's mistake,
// such as too large metadata, and is returned as it is.
func roomError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ledger.ErrFull):
		return engine.ErrRoomFull
	case errors.Is(err, ledger.ErrExists):
		return engine.ErrRoomExists
	case errors.Is(err, ledger.ErrUnknown):
		return engine.ErrRoomUnknown
	case errors.Is(err, ledger.ErrBusy):
		return engine.ErrOverloaded
	case errors.Is(err, ledger.ErrAway), errors.Is(err, ledger.ErrClosed):
		return engine.ErrUnavailable
	}
	return err
}
