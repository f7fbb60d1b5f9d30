package engine

import (
	"context"
	"encoding/json"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/engine/internal/membership"
	"github.com/parleyd/parley/engine/internal/reactor"
	"github.com/parleyd/parley/engine/internal/session"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/protocol/message"
)

// Everywhere asks all workers that are one server, where the methods of [Server], [Rooms] and [Conn] know this one.
// With one process it works on that.
//
// Every method waits for answers: a few tenths of a millisecond where all workers are well, and a second at most for one
// that does not answer. So they are for handlers registered with [Offload] and for goroutines of the application's
// own; on a loop they would hold up all of its connections. What could not be asked is named by a [*PartialError]; what
// comes with it is true as far as it goes.
type Everywhere struct{ srv *Server }

// Everywhere gives access to all workers. Any goroutine.
func (s *Server) Everywhere() *Everywhere { return &Everywhere{s} }

// ErrPartial is what errors.Is finds in a [*PartialError].
var ErrPartial = fleet.ErrPartial

// PartialError names the workers whose part is missing in a result. It unwraps to [ErrPartial], and to the context's error where
// that was the cause.
type PartialError = fleet.PartialError

// ErrConnectionUnknown says that no worker has an open connection with this id.
var ErrConnectionUnknown = membership.ErrConnectionUnknown

// Up reports whether the other workers are reached, as far as is known; it does not wait. While they are not, what is
// said to them waits, and questions are answered in part. True where there is one process.
//
// Scope: all workers.
func (x *Everywhere) Up() bool { return x.srv.link.Bus.Up() }

// ConnectionCount is the number of open connections. Cost: one question to each worker. Errors: [*PartialError].
//
// Scope: all workers.
func (x *Everywhere) ConnectionCount(ctx context.Context) (total int, err error) {
	return x.srv.worker.Count(ctx)
}

// Stats adds up the figures of all workers, as /stats does; a room is counted once. Cost: one question to each, which
// takes it about 40 us. Errors: [*PartialError].
//
// Scope: all workers.
func (x *Everywhere) Stats(ctx context.Context) (Stats, error) {
	total := Stats{Ended: map[string]uint64{}}
	err := x.srv.link.Each(ctx, fleet.Stats, nil, func(_ ident.Worker, r *fleet.Reader) {
		var one Stats
		if r.Bad = json.Unmarshal(r.Rest, &one) != nil; !r.Bad {
			total.Add(one)
		}
	})
	total.Rooms = total.RoomsCounted
	return total, err
}

// Members lists the ids of a room's members. Who is a member all the time is listed, once. Cost: a question to each
// worker for every 10,000 of its members. Errors: [*PartialError].
//
// Scope: all workers.
func (x *Everywhere) Members(ctx context.Context, room string) ([]string, error) {
	return x.srv.worker.Members(ctx, room)
}

// Rooms lists all rooms, each once, sorted by name, with the members that they have on all workers together. Cost: each
// worker walks through all of its rooms, and sends them in questions of about 64 KiB: a tenth of a second for
// 100,000 rooms. Errors: [*PartialError].
//
// Scope: all workers.
func (x *Everywhere) Rooms(ctx context.Context) ([]RoomStats, error) {
	return x.srv.worker.AllRooms(ctx)
}

// FindByAttribute describes the open connections whose attribute has a value, compared as JSON. Cost: each
// worker looks through all of its connections (about 30 ns each) and sends those found, some 4 us each.
// Errors: [*PartialError]; value cannot be encoded.
//
// Scope: all workers.
func (x *Everywhere) FindByAttribute(ctx context.Context, key string, value any) ([]Facts, error) {
	raw, err := message.Encode(nil, value)
	if err != nil {
		return nil, err
	}
	return membership.Find[Facts](ctx, x.srv.worker, fleet.FindQuestion{Kind: fleet.Matching, Key: []byte(key), Value: raw})
}

// FindFiltered describes the open connections that a filter accepts which every worker has registered
// ([Server.RegisterFilter]), asked for with asked. Cost: that of [Everywhere.FindByAttribute], and the filter's.
// Errors: [ErrFilterUnknown]; [*PartialError], also for a worker that has not registered it.
//
// Scope: all workers.
func (x *Everywhere) FindFiltered(ctx context.Context, filter string, asked []byte) ([]Facts, error) {
	if x.srv.filter(filter) == nil {
		return nil, ErrFilterUnknown
	}
	return membership.Find[Facts](ctx, x.srv.worker, fleet.FindQuestion{Kind: fleet.Filtered, Key: []byte(filter), Value: asked})
}

// Connection describes an open connection. Cost: one question to its worker, none where that is this one. Errors:
// [ErrConnectionUnknown]; [ErrUnanswered].
//
// Scope: all workers.
func (x *Everywhere) Connection(ctx context.Context, id string) (f Facts, err error) {
	err = x.srv.worker.Ask(ctx, membership.Question{Verb: fleet.Facts, ID: id, Take: func(r *fleet.Reader) error {
		return message.Decode(r.Rest, &f)
	}})
	return f, err
}

// Close ends a connection as [Conn.CloseWith] does, and returns once its worker has heard it. Cost and errors as of
// [Everywhere.Connection].
//
// Scope: all workers.
func (x *Everywhere) Close(ctx context.Context, id string, code ws.StatusCode, reason string) error {
	return x.srv.worker.Ask(ctx, membership.Question{Verb: fleet.Close, ID: id, With: func(w *fleet.Writer) { w.Number(uint64(code)).Text(reason) }})
}

// Join takes a connection into a room, and returns when it is in, as [Rooms.JoinThen] does. Cost: one question to its
// worker, which for a limited room asks the bus for a seat. Errors: those of [Rooms.JoinThen] and of
// [Everywhere.Connection]; [ErrOnLoop]: the connection is this worker's, whose loop may be the one that the call is made
// on. After [ErrUnanswered], within 2.5 s, it may be in or not.
//
// Scope: all workers.
func (x *Everywhere) Join(ctx context.Context, id, room string) error {
	if _, whose := x.srv.link.Locate(id); whose == fleet.Ours && reactor.OnLoop() {
		return ErrOnLoop
	}
	return x.srv.worker.Ask(ctx, membership.Question{Verb: fleet.Join, ID: id, With: func(w *fleet.Writer) { w.Text(room) }})
}

// Leave takes a connection out of a room, soon, as [Rooms.Leave] does. Cost and errors as of [Everywhere.Connection].
//
// Scope: all workers.
func (x *Everywhere) Leave(ctx context.Context, id, room string) error {
	return x.srv.worker.Ask(ctx, membership.Question{Verb: fleet.Leave, ID: id, With: func(w *fleet.Writer) { w.Text(room) }})
}

// SendTo sends v to one connection, and reports whether it exists; [Server.SendTo] does not wait, and knows only whether
// its worker lives. What one goroutine sends and broadcasts arrives in its order. Cost: one question to its worker.
// Errors: v cannot be encoded; [ErrMessageTooLarge]; [ErrOverloaded]; [ErrUnanswered]: it may have been sent or not.
//
// Scope: all workers.
func (x *Everywhere) SendTo(ctx context.Context, id string, v any) (exists bool, err error) {
	f, err := x.srv.link.EncodeFrame(v)
	if err != nil {
		return false, err
	}
	err = x.srv.worker.Ask(ctx, membership.Question{Verb: fleet.Send, ID: id, With: func(w *fleet.Writer) { w.B = append(w.B, f.Plain...) }})
	if err == ErrConnectionUnknown {
		return false, nil
	}
	return err == nil, err
}

// Errors of [Everywhere].
var (
	// ErrUnanswered is the error of a question to a worker that did not answer in time.
	ErrUnanswered = fleet.ErrUnanswered
	// ErrWorkerGone is the error of a question to a worker that has ended or never existed.
	ErrWorkerGone = fleet.ErrWorkerGone
)

// Lists of users, rooms and members over all workers, in pages: package membership puts them together.

// ErrCursor is the error for an "after" that no page of the list has given as its next.
var ErrCursor = membership.ErrCursor

// UserCount is a user, and the number of its open connections on all workers.
type UserCount = membership.UserCount

// Users counts the open connections of users, in the order of names; 0 for a user that has none. Cost: a question to each
// worker, which takes it about 100 ns for each name. Errors: [*PartialError].
//
// Scope: all workers.
func (x *Everywhere) Users(ctx context.Context, names []string) ([]UserCount, error) {
	return x.srv.worker.Users(ctx, names)
}

// UsersPage lists up to limit (1 to 1000) users that have open connections, in an order that is always the same and means
// nothing. next is "" at the end, else the "after" of the next page. A user that is there all the time is on exactly one page.
// Cost: a question to each worker. Errors: [ErrCursor]; [*PartialError].
//
// Scope: all workers.
func (x *Everywhere) UsersPage(ctx context.Context, after string, limit int) (rows []UserCount, next string, err error) {
	return x.srv.worker.UsersPage(ctx, after, limit)
}

// RoomsQuery chooses rooms by name. The zero RoomsQuery chooses all.
type RoomsQuery = membership.RoomsQuery

// RoomsPage lists up to limit (1 to 1000) rooms, with their members on all workers, in an order that is always the same and
// means nothing. next is "" at the end, else the "after" of the next page. A room that is there all the time is on exactly
// one page. Where few rooms match, a page may be short, or empty, and have a next. Cost: a question to each worker, 32 at
// most where few rooms match. Errors: [ErrCursor]; [*PartialError].
//
// Scope: all workers.
func (x *Everywhere) RoomsPage(ctx context.Context, q RoomsQuery, after string, limit int) (rows []RoomStats, next string, err error) {
	return x.srv.worker.RoomsPage(ctx, q, after, limit)
}

// Room describes a room, with its members on all workers. Cost: a question to each worker. Errors: [ErrRoomUnknown];
// [*PartialError], also where only a worker that has not answered may have the room.
//
// Scope: all workers.
func (x *Everywhere) Room(ctx context.Context, name string) (stats RoomStats, err error) {
	return x.srv.worker.Room(ctx, name)
}

// Member is a connection in a room.
type Member = membership.Member

// MemberPage is a page of a room's members.
type MemberPage = membership.MemberPage

// MembersPage lists up to limit (1 to 1000) members of a room, worker by worker. A member that stays is on a page, perhaps on
// two, if others leave between them. A room that does not exist has no members. Cost: a question to each worker. Errors:
// [ErrCursor]; [*PartialError].
//
// Scope: all workers.
func (x *Everywhere) MembersPage(ctx context.Context, room, after string, limit int) (p MemberPage, err error) {
	return x.srv.worker.MembersPage(ctx, room, after, limit)
}

// Lists of connections, and what is done to connections at an address: package membership asks the workers.

// ConnectionFacts describes a connection of any worker, for lists.
type ConnectionFacts = session.Facts

// ConnectionFilter chooses connections.
type ConnectionFilter = membership.ConnectionFilter

// ConnectionOrder says which connections come first.
type ConnectionOrder = session.Order

// The orders.
const (
	ByBacklog = session.ByBacklog // the most bytes that the kernel has not taken
	ByIdle    = session.ByIdle    // the longest time since the peer's latest input
	ByAge     = session.ByAge     // the oldest
)

// Farewell says how connections end.
type Farewell = membership.Farewell

// ErrCloseCode is the error for a close code that must not be sent.
var ErrCloseCode = membership.ErrCloseCode

// ConnectionFacts describes an open connection. Cost: one question to its worker and one letter to its loop. Errors:
// [ErrConnectionUnknown]; [ErrUnanswered]; [ErrOnLoop].
//
// Scope: all workers.
func (x *Everywhere) ConnectionFacts(ctx context.Context, id string) (f ConnectionFacts, err error) {
	return x.srv.worker.ConnectionFacts(ctx, id)
}

// ConnectionsPage lists up to limit (1 to 1000) open connections that a filter accepts, worker by worker. next is "" at the
// end, else the "after" of the next page. A page of more than 4 MiB ends earlier. A connection that is there all the time is on
// exactly one page. Cost: a question to each worker that the page needs, and a letter to each of its loops; a filter without a
// user or a room has the worker look through its connections, 50,000 for each question. Errors: [ErrCursor]; [ErrOnLoop];
// [*PartialError]; the value cannot be encoded.
//
// Scope: all workers.
func (x *Everywhere) ConnectionsPage(ctx context.Context, filter ConnectionFilter, after string, limit int) (rows []ConnectionFacts, next string, err error) {
	return x.srv.worker.ConnectionsPage(ctx, filter, after, limit)
}

// ConnectionsTop lists the first limit (1 to 1000) open connections of all workers in an order. Cost: a question to each
// worker, whose loops look through all of their connections (about 20 ns each, some in each turn), and one for the facts.
// Errors: [ErrOnLoop]; [*PartialError].
//
// Scope: all workers.
func (x *Everywhere) ConnectionsTop(ctx context.Context, order ConnectionOrder, limit int) ([]ConnectionFacts, error) {
	return x.srv.worker.ConnectionsTop(ctx, order, limit)
}

// CloseWhere ends the connections at an address, and returns how many there were, when their loops have ended them. Cost: a
// question to each worker. With EndSessions each worker also looks through the sessions that wait in its memory, and this
// worker through those in the store, where there is one: some 10 us each. Errors: [ErrAddress]; [ErrCloseCode]; [ErrOnLoop];
// [*PartialError]; [ErrUnavailable]: the store has not deleted all sessions within two seconds, and goes on.
//
// Scope: all workers.
func (x *Everywhere) CloseWhere(ctx context.Context, at Address, how Farewell) (closed int, err error) {
	return x.srv.worker.CloseWhere(ctx, at, how)
}

// EndSessions ends the sessions of the connections at an address and those that wait for a connection: no token of before is
// good any more. The connections are closed with 4001, and counted. Cost and errors as of [Everywhere.CloseWhere].
//
// Scope: all workers.
func (x *Everywhere) EndSessions(ctx context.Context, at Address) (ended int, err error) {
	return x.srv.worker.EndSessions(ctx, at)
}

// JoinAt takes the connections at an address into a room, and returns how many are in, those that were before too. The error
// is that of a connection that got not in: the first of a worker. Cost: a question to each worker, which asks the bus for each
// seat of a limited room. Errors: [ErrAddress]; those of [Rooms.JoinThen]; [ErrOnLoop]; [*PartialError], within 2.5 s: those
// of its workers may be in or not.
//
// Scope: all workers.
func (x *Everywhere) JoinAt(ctx context.Context, at Address, room string) (joined int, err error) {
	return x.srv.worker.JoinAt(ctx, at, room)
}

// LeaveAt takes the connections at an address out of a room, and returns how many were in. Cost: a question to each worker.
// Errors: [ErrAddress]; [ErrOnLoop]; [*PartialError].
//
// Scope: all workers.
func (x *Everywhere) LeaveAt(ctx context.Context, at Address, room string) (left int, err error) {
	return x.srv.worker.LeaveAt(ctx, at, room)
}

// SetAttributes sets and removes attributes of a connection in one step, and returns all that it has then. A value that is
// null is kept as null. Cost and errors as of [Everywhere.Connection], and [ErrAttributesFull]: nothing has changed; a value
// that is no JSON.
//
// Scope: all workers.
func (x *Everywhere) SetAttributes(ctx context.Context, id string, set map[string]json.RawMessage, remove []string) (all map[string]json.RawMessage, err error) {
	return x.srv.worker.SetAttributes(ctx, id, set, remove)
}
