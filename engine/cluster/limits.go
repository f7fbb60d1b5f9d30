package cluster

import (
	"errors"
	"time"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/engine/cluster/ledger"
	"github.com/parleyd/parley/protocol/ident"
)

// What of the ledger the engine uses for rooms: the seats of limited ones, and those that were created on purpose.

// seats are the ledger's, as the engine asks for them.
type seats struct{ w *worker }

// Acquire implements engine.Seats.
func (s seats) Acquire(room string, limit int, ticket engine.SeatTicket, done func(error)) {
	book, tell := s.w.book.Load(), func(err error) { done(told(err)) }
	var err error
	if ticket == (engine.SeatTicket{}) {
		err = book.Seats.Acquire(room, limit, 1, func(_ int, err error) { tell(err) })
	} else {
		err = book.Seats.Take(room, limit, ledger.Ticket(ticket), tell)
	}
	if err != nil {
		tell(err)
	}
}

// Give implements engine.Seats. A seat that cannot be given is free.
func (s seats) Give(room string, to ident.Worker, ticket engine.SeatTicket, done func()) {
	book := s.w.book.Load()
	if err := book.Seats.Give(room, to, ledger.Ticket(ticket), func(error) { done() }); err != nil {
		book.Seats.Release(room, 1)
		done()
	}
}

// Release implements engine.Seats.
func (s seats) Release(room string) { s.w.book.Load().Seats.Release(room, 1) }

// Force implements engine.Seats.
func (s seats) Force(room string, limit, n int) { s.w.book.Load().Seats.Force(room, limit, n) }

// created are the ledger's rooms, as the engine asks for them.
type created struct{ w *worker }

// Create implements engine.Created.
func (c created) Create(r engine.CreatedRoom, done func(error)) {
	room := ledger.Room{Name: r.Name, MembersMax: uint32(r.MaxMembers), Metadata: r.Metadata}
	if err := c.w.book.Load().Rooms.Create(room, func(err error) { done(told(err)) }); err != nil {
		done(told(err))
	}
}

// Delete implements engine.Created.
func (c created) Delete(name string, done func(error)) {
	if err := c.w.book.Load().Rooms.Delete(name, func(err error) { done(told(err)) }); err != nil {
		done(told(err))
	}
}

// roomChanged is told of rooms that were created or deleted, on the ledger's goroutine.
func (w *worker) roomChanged(r ledger.Room, deleted bool) {
	if deleted {
		w.srv.RoomDeleted(r.Name)
		return
	}
	w.srv.RoomCreated(engine.CreatedRoom{Name: r.Name, MaxMembers: int(r.MembersMax), Metadata: r.Metadata,
		CreatedAt: r.CreatedAt / time.Second.Milliseconds()})
}

// told is the ledger's error as the engine knows it. What it does not know is a caller's mistake, such as metadata that
// are too large, and says so itself.
func told(err error) error {
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
