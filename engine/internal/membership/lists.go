package membership

import (
	"context"
	"slices"

	"github.com/parleyd/parley/engine/internal/fanout"
	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/engine/internal/lists"
	"github.com/parleyd/parley/engine/internal/users"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/protocol/message"
	"github.com/parleyd/parley/rooms"
)

// Lists of users, rooms and members over all workers, in pages. Each worker keeps users and rooms in an order that is the same
// everywhere, so a page of all workers is merged of one page of each, and no worker gathers a whole list.

// ErrCursor is the error for an "after" that no page of the list has given as its next.
var ErrCursor = lists.ErrCursor

// Bounds of a page.
const (
	ListMax       = 1000 // rows of a page
	roomRoundsMax = 32   // questions to each worker for one page of rooms
)

func listLimit(limit int) int { return min(max(limit, 1), ListMax) }

// UserCount is a user, and the number of its open connections on all workers.
type UserCount struct {
	User        string `json:"user"`
	Connections int    `json:"connections"`
}

// Users counts the open connections of users, in the order of names; 0 for a user that has none. Cost: a question to each
// worker, which takes it about 100 ns for each name. Errors: [*fleet.PartialError].
func (w *Worker) Users(ctx context.Context, names []string) ([]UserCount, error) {
	list := make([]UserCount, len(names))
	for i, name := range names {
		list[i].User = name
	}
	err := w.Link.Each(ctx, fleet.UserCounts, fleet.AppendTexts(nil, names), func(_ ident.Worker, r *fleet.Reader) {
		for i := range list {
			list[i].Connections += int(r.Number())
		}
	})
	return list, err
}

// Delivered counts the members of a room that have a message for certain, and all members; known is false where no worker has the
// room's epoch. Cost: a question to each worker, and a walk through the members. Errors: [*fleet.PartialError].
func (w *Worker) Delivered(ctx context.Context, room string, at message.Position) (have, members int, known bool, err error) {
	question := new(fleet.Writer).Text(room).Text(at.Epoch).Number(at.Seq).B
	err = w.Link.Each(ctx, fleet.Delivered, question, func(_ ident.Worker, r *fleet.Reader) {
		known = r.Flag() || known
		have, members = have+int(r.Number()), members+int(r.Number())
	})
	return have, members, known, err
}

// UsersPage lists up to limit (1 to 1000) users that have open connections, in an order that is always the same and means
// nothing. next is "" at the end, else the "after" of the next page. A user that is there all the time is on exactly one page.
// Cost: a question to each worker. Errors: [ErrCursor]; [*fleet.PartialError].
func (w *Worker) UsersPage(ctx context.Context, after string, limit int) (rows []UserCount, next string, err error) {
	at, err := lists.Users.Place(after, users.Shards, users.ShardOf)
	if err != nil {
		return nil, "", err
	}
	limit = listLimit(limit)
	question := fleet.NamesQuestion{Shard: uint64(at.Shard), After: at.After, Max: uint64(limit)}.AppendTo(nil)
	var parts []lists.Part[UserCount]
	err = w.Link.Each(ctx, fleet.UserNames, question, func(_ ident.Worker, r *fleet.Reader) {
		parts = appendPart(parts, r, func(r *fleet.Reader) UserCount {
			var row fleet.UserRow
			row.Read(r)
			return UserCount{row.User, int(row.Connections)}
		})
	})
	page := lists.Merge(parts, limit, func(u *UserCount) lists.Place { return lists.Place{Shard: users.ShardOf(u.User), After: u.User} },
		func(sum, row *UserCount) { sum.Connections += row.Connections })
	if page.More {
		next = lists.Users.Cursor(page.Next)
	}
	return page.Rows, next, err
}

// appendPart reads one worker's page of names.
func appendPart[T any](parts []lists.Part[T], r *fleet.Reader, row func(r *fleet.Reader) T) []lists.Part[T] {
	var page fleet.NamesPage
	page.Read(r)
	part := lists.Part[T]{More: page.More, Until: lists.Place{Shard: int(page.Shard), After: page.After}}
	for len(r.Rest) > 0 {
		part.Rows = append(part.Rows, row(r))
	}
	if r.Bad {
		return parts
	}
	return append(parts, part)
}

// RoomsQuery chooses rooms by name. The zero RoomsQuery chooses all.
type RoomsQuery struct {
	Prefix string                 // each worker skips other names: it costs least
	Match  func(name string) bool // called on this worker for the names that have the prefix; nil: all
}

// RoomsPage lists up to limit (1 to 1000) rooms, with their members on all workers, in an order that is always the same and
// means nothing. next is "" at the end, else the "after" of the next page. A room that is there all the time is on exactly
// one page. Where few rooms match, a page may be short, or empty, and have a next. Cost: a question to each worker, 32 at
// most where few rooms match. Errors: [ErrCursor]; [*fleet.PartialError].
func (w *Worker) RoomsPage(ctx context.Context, q RoomsQuery, after string, limit int) (rows []fanout.RoomStats, next string, err error) {
	at, err := lists.Rooms.Place(after, rooms.Shards, rooms.ShardOf)
	if err != nil {
		return nil, "", err
	}
	limit = listLimit(limit)
	partial, more := new(fleet.PartialError), true
	for round := 0; more && len(rows) < limit && round < roomRoundsMax && ctx.Err() == nil; round++ {
		page, err := w.roomsFrom(ctx, at, q, limit)
		partial.Gather(err)
		at, more = page.Next, page.More
		for i := range page.Rows {
			if q.Match != nil && !q.Match(page.Rows[i].Name) {
				continue
			}
			if len(rows) == limit {
				at, more = roomPlace(&rows[limit-1]), true
				break
			}
			rows = append(rows, page.Rows[i])
		}
	}
	fanout.AddHistories(w.Rooms.Index, rows)
	if more {
		next = lists.Rooms.Cursor(at)
	}
	if ctx.Err() != nil && len(partial.Workers) == 0 {
		return rows, next, ctx.Err()
	}
	return rows, next, partial.OrNil()
}

func roomPlace(r *fanout.RoomStats) lists.Place {
	return lists.Place{Shard: rooms.ShardOf(r.Name), After: r.Name}
}

// roomsFrom asks all workers for the rooms behind a place.
func (w *Worker) roomsFrom(ctx context.Context, at lists.Place, q RoomsQuery, limit int) (lists.Page[fanout.RoomStats], error) {
	if q.Match != nil {
		limit = ListMax
	}
	question := fleet.NamesQuestion{Shard: uint64(at.Shard), After: at.After, Prefix: q.Prefix, Max: uint64(limit)}.AppendTo(nil)
	var parts []lists.Part[fanout.RoomStats]
	err := w.Link.Each(ctx, fleet.RoomNames, question, func(_ ident.Worker, r *fleet.Reader) { parts = appendPart(parts, r, fanout.ReadRoomStats) })
	return lists.Merge(parts, limit, roomPlace, (*fanout.RoomStats).Add), err
}

// Room describes a room, with its members on all workers. Cost: a question to each worker. Errors: [fanout.ErrRoomUnknown];
// [*fleet.PartialError], also where only a worker that has not answered may have the room.
func (w *Worker) Room(ctx context.Context, name string) (stats fanout.RoomStats, err error) {
	found := false
	err = w.Link.Each(ctx, fleet.Room, []byte(name), func(_ ident.Worker, r *fleet.Reader) {
		if len(r.Rest) == 0 {
			return
		}
		if one := fanout.ReadRoomStats(r); r.Bad {
			return
		} else if found {
			stats.Add(&one)
		} else {
			stats, found = one, true
		}
	})
	if !found && err == nil {
		err = fanout.ErrRoomUnknown
	}
	one := []fanout.RoomStats{stats}
	fanout.AddHistories(w.Rooms.Index, one)
	return one[0], err
}

// Lists of connections: worker by worker, and on each in the order of its loops. Only the workers that a page
// needs are asked, one after the other.

// course is a list on its way through the workers.
//
// Owner: the goroutine that asks.
type course struct {
	verb     fleet.Verb
	from     lists.Slot
	question func(at lists.Slot) []byte
	take     func(worker ident.Worker, r *fleet.Reader) (next lists.Slot, more bool)
	full     func() bool
}

// inTurn follows a list until the page is full, and returns where the next page begins.
func (w *Worker) inTurn(ctx context.Context, c course) (next lists.Slot, more bool, err error) {
	partial := new(fleet.PartialError)
	all := append(slices.Clone(w.Link.Others()), w.Link.Self)
	slices.Sort(all)
	for _, worker := range all {
		at := lists.Slot{Worker: uint64(worker.Instance())}
		switch {
		case at.Worker < c.from.Worker:
			continue
		case at.Worker == c.from.Worker:
			at = c.from
		}
		for more := true; more; {
			if c.full() {
				return at, true, partial.OrNil()
			}
			answers, missing := w.Link.Collect(ctx, c.verb, []fleet.Part{{Worker: worker, Bytes: c.question(at)}})
			if missing != nil {
				partial.Gather(missing)
				break
			}
			if len(answers) == 0 {
				break // it has ended
			}
			r := &fleet.Reader{Rest: answers[0].Bytes}
			if at, more = c.take(worker, r); r.Bad {
				partial.Workers = append(partial.Workers, worker.Instance())
				break
			}
			at.Worker = uint64(worker.Instance())
		}
	}
	return next, false, partial.OrNil()
}

// Member is a connection in a room.
type Member struct {
	ID   string `json:"id"`
	User string `json:"user,omitempty"`
}

// MemberPage is a page of a room's members.
type MemberPage struct {
	Members []Member
	Count   int    // of all members, on all workers that answered
	Next    string // the "after" of the next page; "" at the end
}

// MembersPage lists up to limit (1 to 1000) members of a room, worker by worker. A member that stays is on a page, perhaps on
// two, if others leave between them. A room that does not exist has no members. Cost: a question to each worker. Errors:
// [ErrCursor]; [*fleet.PartialError].
func (w *Worker) MembersPage(ctx context.Context, room, after string, limit int) (p MemberPage, err error) {
	b := w.membersList(room)
	b.Max, b.Users, b.CountAll = listLimit(limit), true, true
	if after != "" {
		at, err := lists.Members.Slot(after)
		if err != nil {
			return p, err
		}
		b.From = fanout.MembersCursor{Worker: ident.On(0, uint16(at.Worker)), Cursor: rooms.Cursor{Loop: uint8(at.Loop), Left: uint32(at.At)}}
	}
	err = w.Link.PagesOf(ctx, b.Verb(), b.Ask(), b.Take)
	page, next, more := b.Page()
	p.Count = page.Count
	for i, id := range page.IDs {
		m := Member{ID: id}
		if i < len(page.Users) {
			m.User = page.Users[i]
		}
		p.Members = append(p.Members, m)
	}
	if more {
		p.Next = lists.Members.SlotCursor(lists.Slot{Worker: uint64(next.Worker.Instance()), Loop: uint64(next.Loop), At: uint64(next.Left)})
	}
	return p, err
}
