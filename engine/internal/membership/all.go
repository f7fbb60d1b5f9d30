package membership

import (
	"cmp"
	"context"
	"slices"

	"github.com/parleyd/parley/engine/internal/fanout"
	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/protocol/message"
)

// Questions to all workers, whose answers are put together.

// Count is the number of open connections.
func (w *Worker) Count(ctx context.Context) (total int, err error) {
	err = w.Link.Each(ctx, fleet.Connections, nil, func(_ ident.Worker, r *fleet.Reader) { total += int(r.Number()) })
	return total, err
}

// CountThen is Count for a server in lockstep.
func (w *Worker) CountThen(done func(n int, missing []ident.Worker)) {
	w.EachThen(fleet.Connections, nil, func(answers []fleet.Part, missing []ident.Worker) {
		n := 0
		for _, a := range answers {
			r := &fleet.Reader{Rest: a.Bytes}
			n += int(r.Number())
		}
		done(n, missing)
	})
}

// Members lists the ids of a room's members.
func (w *Worker) Members(ctx context.Context, room string) ([]string, error) {
	b := w.membersList(room)
	err := w.Link.PagesOf(ctx, b.Verb(), b.Ask(), b.Take)
	return idsOf(b), err
}

// MembersThen is Members for a server in lockstep, with one page of each worker.
func (w *Worker) MembersThen(room string, done func(ids []string, missing []ident.Worker)) {
	b := w.membersList(room)
	w.GatherThen(b.Verb(), b.Ask(), func(answers []fleet.Part, missing []ident.Worker) {
		b.TakeAll(answers)
		done(idsOf(b), missing)
	})
}

func (w *Worker) membersList(room string) *fanout.MembersList {
	return &fanout.MembersList{Rooms: w.Rooms, Room: []byte(room), From: fanout.MembersBegin}
}

// idsOf lists each member once: a member can be on two pages of its worker.
func idsOf(b *fanout.MembersList) []string {
	page, _, _ := b.Page()
	seen := make(map[string]bool, len(page.IDs))
	return slices.DeleteFunc(page.IDs, func(id string) bool {
		was := seen[id]
		seen[id] = true
		return was
	})
}

// AllRooms lists all rooms, each once, sorted by name, with the members that they have on all workers together.
func (w *Worker) AllRooms(ctx context.Context) ([]fanout.RoomStats, error) {
	byName := map[string]*fanout.RoomStats{}
	from := func(shard uint64) []byte { return (&fleet.Writer{}).Number(shard).B }
	err := w.Link.Pages(ctx, fleet.Rooms, from(0), func(_ ident.Worker, r *fleet.Reader) (next []byte) {
		after := r.Number()
		for len(r.Rest) > 0 && !r.Bad {
			fanout.ReadRoomStats(r).AddTo(byName)
		}
		if after != 0 {
			next = from(after)
		}
		return next
	})
	list := make([]fanout.RoomStats, 0, len(byName))
	for _, r := range byName {
		list = append(list, *r)
	}
	fanout.AddHistories(w.Rooms.Index, list)
	slices.SortFunc(list, func(a, b fanout.RoomStats) int { return cmp.Compare(a.Name, b.Name) })
	return list, err
}

// Find lists the connections that a question chooses; T has the facts of one.
func Find[T any](ctx context.Context, w *Worker, q fleet.FindQuestion) (list []T, err error) {
	err = w.Link.Pages(ctx, fleet.Find, q.AppendTo(nil), func(_ ident.Worker, r *fleet.Reader) (next []byte) {
		var page fleet.FindPage
		page.Read(r)
		for len(r.Rest) > 0 && !r.Bad {
			var facts T
			if message.Decode(r.Bytes(), &facts) != nil {
				r.Bad = true
				break
			}
			list = append(list, facts)
		}
		if page.More {
			q := q
			q.Loop, q.Slot = page.Loop, page.Slot
			next = q.AppendTo(nil)
		}
		return next
	})
	return list, err
}
