package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/engine/internal/fanout"
	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/engine/internal/lists"
	"github.com/parleyd/parley/engine/internal/users"
	"github.com/parleyd/parley/protocol/ident"
)

// dialAs connects a client of a user.
func dialAs(t testing.TB, w *testWorker, user string) *client {
	t.Helper()
	c := dialURL(t, "ws://"+w.Addr().String()+"/?user="+user, ws.Dialer{})
	c.id = c.expect("connected")["connection_id"].(string)
	c.expect("reconnect_token")
	return c
}

// overWorkers runs a test over one and over three workers.
func overWorkers(t *testing.T, f func(t *testing.T, workers []*testWorker)) {
	for _, n := range []int{1, 3} {
		t.Run(fmt.Sprint(n, " workers"), func(t *testing.T) { f(t, startWorkers(t, n, nil, known).list) })
	}
}

// Users are counted over all workers, and the pages of all workers together have each user once.
func TestUsersEverywhere(t *testing.T) {
	overWorkers(t, func(t *testing.T, workers []*testWorker) {
		want := map[string]int{}
		for i := range 30 {
			user := fmt.Sprint("user-", i%20)
			dialAs(t, workers[i%len(workers)], user)
			want[user]++
		}
		dial(t, workers[0].Server)
		for _, w := range workers {
			x := w.Everywhere()
			counts, err := x.Users(t.Context(), []string{"user-3", "user-15", "nobody", "", "user-3"})
			if err != nil || fmt.Sprint(counts) != "[{user-3 2} {user-15 1} {nobody 0} { 0} {user-3 2}]" {
				t.Error(counts, err)
			}
			for _, limit := range []int{-1, 7, 20, 5000} {
				got := map[string]int{}
				for after, first := "", true; first || after != ""; first = false {
					rows, next, err := x.UsersPage(t.Context(), after, limit)
					if err != nil || len(rows) > max(limit, 1) {
						t.Fatal(rows, err)
					}
					for _, row := range rows {
						got[row.User] += 100 + row.Connections
					}
					after = next
				}
				for user, n := range want {
					if got[user] != 100+n {
						t.Errorf("limit %d: %s has %d", limit, user, got[user])
					}
				}
				if len(got) != len(want) {
					t.Errorf("limit %d: %v", limit, got)
				}
			}
			if _, err := x.Users(t.Context(), nil); err != nil {
				t.Error(err)
			}
		}
	})
}

// pagesOfRooms reads all pages of rooms.
func pagesOfRooms(t *testing.T, x *Everywhere, q RoomsQuery, limit int) map[string]RoomStats {
	t.Helper()
	got := map[string]RoomStats{}
	for after, first := "", true; first || after != ""; first = false {
		rows, next, err := x.RoomsPage(t.Context(), q, after, limit)
		if err != nil || len(rows) > limit {
			t.Fatal(len(rows), err)
		}
		for _, row := range rows {
			if _, twice := got[row.Name]; twice {
				t.Errorf("%s is on two pages", row.Name)
			}
			got[row.Name] = row
		}
		after = next
	}
	return got
}

// The pages of rooms have each room once, with the members of all workers; they can be narrowed by prefix and by a function.
func TestRoomsPage(t *testing.T) {
	overWorkers(t, func(t *testing.T, workers []*testWorker) {
		for i := range 6 {
			c := dial(t, workers[i%len(workers)].Server)
			c.join("lobby")
			for n := range 40 {
				c.join(fmt.Sprintf("own:%d:%d", i, n))
			}
		}
		metadata := strings.Repeat("m", 40_000)
		for n := range 4 {
			for _, w := range workers { // the ledger would do this
				w.rooms.RoomCreated(fanout.CreatedRoom{Name: fmt.Sprint("made:", n), MaxMembers: 7, Metadata: []byte(`"` + metadata + `"`), CreatedAt: 12})
			}
		}
		for _, w := range workers {
			x := w.Everywhere()
			for _, limit := range []int{1, 33, 1000} {
				got := pagesOfRooms(t, x, RoomsQuery{}, limit)
				if len(got) != 245 || got["lobby"].Connections != 6 || got["own:3:7"].Connections != 1 || got["made:2"].MaxMembers != 7 ||
					got["made:2"].Connections != 0 || len(got["made:2"].Metadata) != 40_002 || got["made:2"].CreatedAt != 12 {
					t.Errorf("%d rooms, lobby %+v", len(got), got["lobby"])
				}
			}
			if got := pagesOfRooms(t, x, RoomsQuery{Prefix: "own:3:"}, 7); len(got) != 40 || got["own:3:39"].Connections != 1 {
				t.Error(len(got), "rooms with the prefix")
			}
			sevens := RoomsQuery{Prefix: "own:", Match: func(name string) bool { return strings.HasSuffix(name, ":7") }}
			for _, limit := range []int{1, 4, 100} {
				if got := pagesOfRooms(t, x, sevens, limit); len(got) != 6 {
					t.Errorf("limit %d: %d rooms match", limit, len(got))
				}
			}
			if got := pagesOfRooms(t, x, RoomsQuery{Prefix: "none"}, 10); len(got) != 0 {
				t.Error(got)
			}
			one, err := x.Room(t.Context(), "lobby")
			if err != nil || one.Connections != 6 || one.Name != "lobby" {
				t.Error(one, err)
			}
			if one, err := x.Room(t.Context(), "none"); err != ErrRoomUnknown {
				t.Error(one, err)
			}
		}
	})
}

// The pages of a room have each member that stays, with its user.
func TestMembersPage(t *testing.T) {
	overWorkers(t, func(t *testing.T, workers []*testWorker) {
		want := map[string]string{}
		for i := range 25 {
			c := dialAs(t, workers[i%len(workers)], fmt.Sprint("user-", i))
			c.join("r")
			want[c.id] = fmt.Sprint("user-", i)
		}
		plain := dial(t, workers[0].Server)
		plain.join("r")
		want[plain.id] = ""
		for _, w := range workers {
			for _, limit := range []int{1, 4, 26, 9999} {
				got := map[string]string{}
				for after, first := "", true; first || after != ""; first = false {
					page, err := w.Everywhere().MembersPage(t.Context(), "r", after, limit)
					if err != nil || page.Count != 26 || len(page.Members) > limit {
						t.Fatal(page, err)
					}
					for _, m := range page.Members {
						if _, twice := got[m.ID]; twice {
							t.Error("twice:", m)
						}
						got[m.ID] = m.User
					}
					after = page.Next
				}
				if fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("limit %d: %v", limit, got)
				}
			}
			if page, err := w.Everywhere().MembersPage(t.Context(), "none", "", 5); err != nil || len(page.Members) != 0 || page.Count != 0 || page.Next != "" {
				t.Error(page, err)
			}
		}
	})
}

// A text that is no cursor of a list is refused, also the cursor of another list.
func TestStrangeCursors(t *testing.T) {
	x := startServer(t, nil, nil).Everywhere()
	of := lists.Place{Shard: users.ShardOf("ann"), After: "ann"}
	for _, after := range []string{"x", "!", "nonsense", lists.Rooms.Cursor(lists.Place{Shard: 1 << 20}), strings.Repeat("A", 1<<20), "\x00"} {
		if _, _, err := x.UsersPage(t.Context(), after, 5); err != ErrCursor {
			t.Errorf("users after %.20q: %v", after, err)
		}
		if _, _, err := x.RoomsPage(t.Context(), RoomsQuery{}, after, 5); err != ErrCursor {
			t.Errorf("rooms after %.20q: %v", after, err)
		}
		if _, err := x.MembersPage(t.Context(), "r", after, 5); err != ErrCursor {
			t.Errorf("members after %.20q: %v", after, err)
		}
	}
	if _, _, err := x.RoomsPage(t.Context(), RoomsQuery{}, lists.Users.Cursor(of), 5); err != ErrCursor {
		t.Error(err)
	}
	if rows, next, err := x.UsersPage(t.Context(), lists.Users.Cursor(of), 5); len(rows) != 0 || next != "" || err != nil {
		t.Error("a user that has gone is a place:", rows, next, err)
	}
}

// trio are the workers 2, 3 and 7 in lockstep. The application asks 7, and the loops of 2 take no turns. Each has a connection of
// a user in room r.
//
// Owner: the test, in a bubble of package synctest.
type trio struct {
	t                 *testing.T
	held, other, here *script
	said              [3]*recordingBus
	poolStands        bool // of worker 2
	stuck             *Conn
}

func newTrio(t *testing.T) *trio {
	x := &trio{t: t}
	for i, w := range []**script{&x.held, &x.other, &x.here} {
		*w, x.said[i] = newPeerOf(t, []ident.Worker{2, 3, 7}[i], nil)
		c := (*w).welcome(0)
		c.SetPrincipal(fmt.Sprint("user-", i))
		(*w).say(c, joinText)
		(*w).drain()
		(*w).server.Server.link.Peers([]ident.Worker{2, 3, 7})
		(*w).server.Server.link.Serving([]ident.Worker{2, 3, 7})
		if i == 0 {
			x.stuck = c
		}
	}
	return x
}

// exchange brings what the workers have said to the others, has them do their work, and reports whether there was any.
func (x *trio) exchange() (busy bool) {
	workers := []*script{x.held, x.other, x.here}
	for i, b := range x.said {
		entries := b.entries
		b.entries = nil
		for _, entry := range entries {
			for j, to := range workers {
				if j == i {
					continue
				}
				if err := to.server.Server.worker.Receive(workers[i].server.Server.link.Self, entry); err != nil {
					x.t.Fatal(err)
				}
				busy = true
			}
		}
	}
	for _, w := range workers {
		for (w != x.held || !x.poolStands) && w.server.Offloaded() {
			busy = true
		}
		if w != x.held {
			w.drain()
		}
	}
	return busy
}

// asks runs a call that waits, and returns how long that took on the clock of worker 7. The clock of the bubble stands still.
func (x *trio) asks(call func()) time.Duration {
	ended, begun := false, x.here.now
	go func() {
		call()
		ended = true
	}()
	for synctest.Wait(); !ended; synctest.Wait() {
		if !x.exchange() {
			x.here.tick()
		}
	}
	return x.here.now - begun
}

// A worker that does not answer within a second is named, and the others' part is there.
func TestPartialLists(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTrio(t)
		x := w.here.server.Server.Everywhere()
		for name, list := range map[string]func(ctx context.Context) (int, error){
			"users": func(ctx context.Context) (int, error) {
				rows, _, err := x.UsersPage(ctx, "", 10)
				return len(rows), err
			},
			"counts": func(ctx context.Context) (int, error) {
				rows, err := x.Users(ctx, []string{"user-0", "user-1", "user-2"})
				return rows[0].Connections + rows[1].Connections + rows[2].Connections, err
			},
			"rooms": func(ctx context.Context) (int, error) {
				rows, _, err := x.RoomsPage(ctx, RoomsQuery{}, "", 10)
				return rows[0].Connections, err
			},
			"members": func(ctx context.Context) (int, error) {
				page, err := x.MembersPage(ctx, "r", "", 10)
				return len(page.Members), err
			},
			"connections": func(ctx context.Context) (int, error) { // which ask the loops
				rows, _, err := x.ConnectionsPage(ctx, ConnectionFilter{}, "", 5)
				return len(rows), err
			},
		} {
			w.poolStands = name != "connections"
			var n int
			var err error
			took := w.asks(func() { n, err = list(t.Context()) })
			if partial, ok := errors.AsType[*PartialError](err); n != 2 || !ok || !slices.Equal(partial.Workers, []uint16{2}) {
				t.Errorf("%s: %d, %v", name, n, err)
			}
			if took < fleet.GatherWait || took > fleet.GatherWait+w.here.late() {
				t.Errorf("%s: it took %v", name, took)
			}
		}
		w.poolStands = false
		var err error
		took := w.asks(func() { _, err = x.ConnectionFacts(t.Context(), w.stuck.ID()) })
		if err != ErrUnanswered || took < fleet.GatherWait || took > fleet.GatherWait+w.here.late() {
			t.Errorf("facts: %v, after %v", err, took)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := x.MembersPage(ended, "r", "", 10); !errors.Is(err, ErrPartial) || !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// A damaged question has no answer that a worker would take for rows.
func TestDamagedListQuestions(t *testing.T) {
	s := startServer(t, nil, nil)
	for _, v := range []fleet.Verb{fleet.UserNames, fleet.RoomNames, fleet.MemberUsers} {
		for _, question := range [][]byte{nil, {255}, {1, 200, 1}} {
			told := false
			if !s.worker.Answer(v, question, func(b []byte) { told = len(b) > 0 }) || told {
				t.Errorf("verb %d answers %v", v, question)
			}
		}
	}
}
