package engine

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/engine/internal/lists"
	"github.com/parleyd/parley/engine/internal/turn"
)

// pagesOfConns reads all pages of connections, and returns their ids in order.
func pagesOfConns(t *testing.T, x *Everywhere, filter ConnectionFilter, limit int) (ids []string) {
	t.Helper()
	for after, first := "", true; first || after != ""; first = false {
		rows, next, err := x.ConnectionsPage(t.Context(), filter, after, limit)
		if err != nil || len(rows) > limit {
			t.Fatal(len(rows), err)
		}
		for _, row := range rows {
			if slices.Contains(ids, row.ID) {
				t.Error("twice:", row.ID)
			}
			ids = append(ids, row.ID)
		}
		after = next
	}
	return ids
}

// The pages of all workers have exactly the connections that the filter accepts, each once, and the same on every worker.
func TestConnectionsPage(t *testing.T) {
	overWorkers(t, func(t *testing.T, workers []*testWorker) {
		all := gatherPeople(t, workers)
		for i := range 30 {
			dialAs(t, workers[i%len(workers)], fmt.Sprint("more-", i%3))
		}
		for _, row := range []struct {
			filter ConnectionFilter
			names  string
			n      int
		}{
			{ConnectionFilter{}, "ann0 bob1 ann2 bob3 4 5", 36},
			{ConnectionFilter{Address: "127.0.0.1"}, "ann0 bob1 ann2 bob3 4 5", 36},
			{ConnectionFilter{Address: "127.0.0.2"}, "", 0},
			{ConnectionFilter{User: "ann"}, "ann0 ann2", 2},
			{ConnectionFilter{User: "more-1"}, "", 10},
			{ConnectionFilter{User: "nobody"}, "", 0},
			{ConnectionFilter{Room: "even"}, "ann0 ann2 4", 3},
			{ConnectionFilter{Room: "none"}, "", 0},
			{ConnectionFilter{Room: "even", User: "bob"}, "", 0},
			{ConnectionFilter{Room: "all", User: "bob"}, "bob1 bob3", 2},
			{ConnectionFilter{AttributeKey: "even", AttributeValue: false}, "bob1 bob3 5", 3},
			{ConnectionFilter{AttributeKey: "even", AttributeValue: json.RawMessage(" true ")}, "ann0 ann2 4", 3},
			{ConnectionFilter{AttributeKey: "even", AttributeValue: "true"}, "", 0},
			{ConnectionFilter{AttributeKey: "even", AttributeValue: true, Room: "all", User: "ann", Address: "127.0.0.1"}, "ann0 ann2", 2},
		} {
			var same []string
			for _, w := range workers {
				for _, limit := range []int{1, 5, 1000} {
					ids := pagesOfConns(t, w.Everywhere(), row.filter, limit)
					if same == nil {
						same = ids
					}
					if len(ids) != row.n || !slices.Equal(ids, same) {
						t.Errorf("%+v, limit %d: %v", row.filter, limit, ids)
					}
					for _, name := range strings.Fields(row.names) {
						if !slices.Contains(ids, all[name].id) {
							t.Errorf("%+v: %s is missing", row.filter, name)
						}
					}
				}
			}
		}
	})
}

// A connection's facts are those of its worker, wherever they are asked for.
func TestConnectionFacts(t *testing.T) {
	overWorkers(t, func(t *testing.T, workers []*testWorker) {
		last := workers[len(workers)-1]
		before := time.Now().Add(-2 * time.Second).UnixMilli()
		ann := dialAs(t, last, "ann")
		ann.join("lobby")
		if err := last.Connection(ann.id).SetAttribute("name", "Ann <3"); err != nil {
			t.Fatal(err)
		}
		for _, w := range workers {
			f, err := w.Everywhere().ConnectionFacts(t.Context(), ann.id)
			if err != nil || f.ID != ann.id || f.User != "ann" || f.Address != "127.0.0.1" || !slices.Equal(f.Rooms, []string{"lobby"}) ||
				f.Worker != last.link.Self.Instance() || f.Session != ann.id || f.Generation != 1 || f.BacklogBytes != 0 || f.TokenUntil != 0 {
				t.Errorf("%+v, %v", f, err)
			}
			var name string
			if err := json.Unmarshal(f.Attributes["name"], &name); err != nil || name != "Ann <3" || len(f.Attributes) != 1 {
				t.Errorf("%s, %v", f.Attributes, err)
			}
			if now := time.Now().UnixMilli(); f.ConnectedAt < before || f.ConnectedAt > now || f.LastActivity < before || f.LastActivity > now+1000 {
				t.Errorf("%+v, now %d", f, now)
			}
			for _, id := range []string{"", "nonsense", ann.id[:23] + "x", strings.Repeat("0", 24)} {
				if _, err := w.Everywhere().ConnectionFacts(t.Context(), id); err != ErrConnectionUnknown {
					t.Errorf("%q: %v", id, err)
				}
			}
		}
		ann.conn.Close()
		eventually(t, "the connection is unknown", func() bool {
			_, err := workers[0].Everywhere().ConnectionFacts(t.Context(), ann.id)
			return err == ErrConnectionUnknown
		})
	})
}

// A session keeps the name of its first connection, and counts its connections.
func TestSessionName(t *testing.T) {
	s := startServer(t, nil, nil)
	c := dial(t, s)
	first := c.id
	for generation := 2; generation <= 4; generation++ {
		token := c.token
		heir := dial(t, s)
		if heir.send(`{"type":"reconnect","token":"` + token + `"}`); generation == 3 {
			c.conn.Close() // alive or not: the session is the same
		}
		heir.skipTo("reconnected")
		heir.token = heir.skipTo("reconnect_token")["token"].(string)
		f, err := s.Everywhere().ConnectionFacts(t.Context(), heir.id)
		if err != nil || f.Session != first || f.Generation != generation {
			t.Fatalf("%+v, %v; want %s, %d", f, err, first, generation)
		}
		c = heir
	}
}

// The first connections of all workers come in the order that is asked for.
func TestConnectionsTop(t *testing.T) {
	overWorkers(t, func(t *testing.T, workers []*testWorker) {
		var ids []string
		for i := range 9 {
			w := workers[i%len(workers)]
			c := dial(t, w.Server)
			conn := w.Connection(c.id)
			fill, told := i*1000, make(chan struct{})
			conn.loop().PostCall(func() { // as a kernel that takes nothing and a peer that says nothing would
				conn.wire.Blocked = true
				if fill > 0 {
					conn.wire.Queue(turn.NewFrame(1, make([]byte, fill)))
				}
				conn.wire.ConnectedAt -= uint32(100 * i)
				close(told)
			})
			<-told
			conn.wire.LastActive.Add(-int64(fill) * int64(time.Millisecond))
			ids = append(ids, c.id)
		}
		slices.Reverse(ids)
		for _, w := range workers {
			for _, order := range []ConnectionOrder{ByBacklog, ByIdle, ByAge} {
				for _, limit := range []int{1, 4, 9, 1000} {
					rows, err := w.Everywhere().ConnectionsTop(t.Context(), order, limit)
					var got []string
					for _, row := range rows {
						got = append(got, row.ID)
					}
					if err != nil || !slices.Equal(got, ids[:min(limit, 9)]) {
						t.Errorf("order %d, limit %d: %v, %v, want %v", order, limit, got, err, ids)
					}
				}
			}
			rows, err := w.Everywhere().ConnectionsTop(t.Context(), ByBacklog, 1)
			if err != nil || rows[0].BacklogBytes < 8000 || rows[0].BacklogBytes > 8020 {
				t.Error(rows, err)
			}
			if rows, err := w.Everywhere().ConnectionsTop(t.Context(), ConnectionOrder(77), 5); err != nil || len(rows) != 0 {
				t.Error(rows, err)
			}
		}
	})
}

// Facts of large attributes come in answers of a bounded size, and none is missing.
func TestLargeFacts(t *testing.T) {
	overWorkers(t, func(t *testing.T, workers []*testWorker) {
		for i := range 30 {
			w := workers[i%len(workers)]
			c := dial(t, w.Server)
			if err := w.Connection(c.id).SetAttribute("large", strings.Repeat("x", 15_000)); err != nil {
				t.Fatal(err)
			}
		}
		if ids := pagesOfConns(t, workers[0].Everywhere(), ConnectionFilter{}, 1000); len(ids) != 30 {
			t.Error(len(ids))
		}
		if rows, err := workers[0].Everywhere().ConnectionsTop(t.Context(), ByAge, 1000); len(rows) != 30 || err != nil {
			t.Error(len(rows), err)
		}
		q := fleet.ConnsQuestion{Max: 1000}
		answered := make(chan int, 1)
		workers[0].worker.Answer(fleet.Conns, q.AppendTo(nil), func(b []byte) { answered <- len(b) })
		if n := <-answered; n > 64<<10+20_000 {
			t.Error("an answer of", n, "bytes")
		}
	})
}

// Lists of connections are refused on a loop, and name strange cursors.
func TestConnectionsRefused(t *testing.T) {
	ws := startWorkers(t, 3, nil, func(s *Server) {
		s.On("lists", func(_ *Conn, _ *Message, s *Server) (any, error) {
			_, _, first := s.Everywhere().ConnectionsPage(t.Context(), ConnectionFilter{}, "", 5)
			_, second := s.Everywhere().ConnectionsTop(t.Context(), ByAge, 5)
			return M{"type": "refused", "all": first == ErrOnLoop && second == ErrOnLoop}, nil
		})
	})
	var last *client
	for _, w := range ws.list {
		last = dial(t, w.Server)
		last.send(`{"type":"lists"}`)
		if m := last.skipTo("refused"); m["all"] != true {
			t.Error(m)
		}
	}
	x := ws.list[0].Everywhere()
	for _, after := range []string{"x", lists.Members.SlotCursor(lists.Slot{Worker: 1}), strings.Repeat("A", 1<<20)} {
		if _, _, err := x.ConnectionsPage(t.Context(), ConnectionFilter{}, after, 5); err != ErrCursor {
			t.Errorf("%.20q: %v", after, err)
		}
	}
	if _, _, err := x.ConnectionsPage(t.Context(), ConnectionFilter{AttributeKey: "k", AttributeValue: func() {}}, "", 5); err == nil {
		t.Error("a function is an attribute")
	}
	gone := lists.Connections.SlotCursor(lists.Slot{Worker: 2, Loop: 255, At: 1<<32 - 1})
	if rows, next, err := x.ConnectionsPage(t.Context(), ConnectionFilter{}, gone, 5); len(rows) != 1 || next != "" || err != nil {
		t.Error("behind the second worker there is the third:", rows, next, err)
	}
}
