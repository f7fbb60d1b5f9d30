package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/engine/internal/fleet"
)

// dialAgain connects a client of a user that shows a token, and returns the type of the answer.
func dialAgain(t *testing.T, w *testWorker, user, token string) string {
	t.Helper()
	c := dialURL(t, "ws://"+w.Addr().String()+"/?user="+user, ws.Dialer{})
	c.expect("connected")
	c.expect("reconnect_token")
	c.send(`{"type":"reconnect","token":"` + token + `"}`)
	for {
		if m := c.next(); m["type"] == "reconnected" || m["type"] == "error" {
			if m["type"] == "error" {
				return m["code"].(string)
			}
			return "reconnected"
		}
	}
}

// sessionOf connects a client of a user, and returns it with its token.
func sessionOf(t *testing.T, w *testWorker, user string) *client {
	t.Helper()
	c := dialURL(t, "ws://"+w.Addr().String()+"/?user="+user, ws.Dialer{})
	c.id = c.expect("connected")["connection_id"].(string)
	c.token = c.expect("reconnect_token")["token"].(string)
	return c
}

// Exactly the connections at an address are closed, on all workers, with the code and the reason, and counted.
func TestCloseWhere(t *testing.T) {
	overWorkers(t, func(t *testing.T, workers []*testWorker) {
		for i, row := range []struct {
			to    func(all people) Address
			names string
		}{
			{func(people) Address { return Address{Users: []string{"ann", "ann", "nobody"}} }, "ann0 ann2"},
			{func(p people) Address { return Address{Rooms: []string{"all", "even"}, Except: []string{p["4"].id}} }, "ann0 bob1 ann2 bob3 5"},
			{func(people) Address { return Address{Attribute: "even", Value: true, ExceptUsers: []string{"ann"}} }, "4"},
			{func(p people) Address { return Address{Connections: []string{p["5"].id, "nonsense", p["5"].id}} }, "5"},
			{func(people) Address { return Address{Rooms: []string{"none"}} }, ""},
			{func(people) Address { return Address{Everybody: true} }, "ann0 bob1 ann2 bob3 4 5"},
		} {
			all := gatherPeople(t, workers)
			names := strings.Fields(row.names)
			x := workers[i%len(workers)].Everywhere()
			n, err := x.CloseWhere(t.Context(), row.to(all), Farewell{Code: 4321, Reason: "enough"})
			if n != len(names) || err != nil {
				t.Errorf("row %d: %d, %v", i, n, err)
			}
			for _, name := range names {
				if code := all[name].expectClose(); code != 4321 {
					t.Errorf("row %d: %s was closed with %d", i, name, code)
				}
				delete(all, name)
			}
			all.expectPosted(workers[0], i)
			if _, err := x.CloseWhere(t.Context(), Address{Everybody: true}, Farewell{Code: 1000}); err != nil {
				t.Error(err)
			}
		}
	})
}

// A session that was ended is good nowhere: one with a connection, one that waits, on this worker or another. Others stay good.
func TestEndSessions(t *testing.T) {
	overWorkers(t, func(t *testing.T, workers []*testWorker) {
		for i, w := range workers {
			user := fmt.Sprint("ann-", i)
			live, waits, other := sessionOf(t, w, user), sessionOf(t, w, user), sessionOf(t, w, "bob")
			waits.conn.Close()
			other.conn.Close()
			eventually(t, "two sessions wait", func() bool { return w.sessions.Memory.Parked() == 2 })
			x := workers[(i+1)%len(workers)].Everywhere()
			if n, err := x.EndSessions(t.Context(), Address{Users: []string{user}}); n != 1 || err != nil {
				t.Error(n, err)
			}
			if code := live.expectClose(); code != StatusUnauthorized {
				t.Error("closed with", code)
			}
			for _, c := range []*client{live, waits} {
				if got := dialAgain(t, w, user, c.token); got != "invalid_token" {
					t.Error("an ended session:", got)
				}
			}
			if got := dialAgain(t, w, "bob", other.token); got != "reconnected" {
				t.Error("a session of another user:", got)
			}
		}
	})
}

// The addresses that waiting sessions can be at: by user, by room, by attribute and by the id of the connection that had them.
func TestEndWaitingSessions(t *testing.T) {
	s := startServer(t, nil, known)
	w := &testWorker{Server: s}
	to := map[string]func(c *client) Address{
		"user":      func(*client) Address { return Address{Users: []string{"ann"}} },
		"room":      func(*client) Address { return Address{Rooms: []string{"none", "vip"}} },
		"attribute": func(*client) Address { return Address{Attribute: "level", Value: 7} },
		"id":        func(c *client) Address { return Address{Connections: []string{c.id}} },
		"everybody": func(c *client) Address { return Address{Everybody: true} },
	}
	for name, address := range to {
		for _, spared := range []bool{false, true} {
			c := sessionOf(t, w, "ann")
			c.join("vip")
			if err := s.Connection(c.id).SetAttribute("level", 7); err != nil {
				t.Fatal(err)
			}
			c.conn.Close()
			eventually(t, "the session waits", func() bool { return s.sessions.Memory.Parked() == 1 })
			at, want := address(c), "invalid_token"
			if spared {
				at.Except, want = []string{c.id}, "reconnected"
			}
			n, err := s.Everywhere().CloseWhere(t.Context(), at, Farewell{Code: 4007, EndSessions: true})
			if n != 0 || err != nil {
				t.Error(name, n, err)
			}
			if got := dialAgain(t, w, "ann", c.token); got != want {
				t.Errorf("%s, spared %v: %s", name, spared, got)
			}
			if _, err := s.Everywhere().EndSessions(t.Context(), Address{Everybody: true}); err != nil {
				t.Error(err)
			}
			eventually(t, "nothing is left", func() bool { return s.sessions.Memory.Parked() == 0 && s.rooms.Open.Load() == 0 })
		}
	}
}

// Without EndSessions a session waits for its client, also behind a code of the application.
func TestCloseKeepsSessions(t *testing.T) {
	overWorkers(t, func(t *testing.T, workers []*testWorker) {
		w := workers[len(workers)-1]
		c := sessionOf(t, w, "ann")
		if n, err := workers[0].Everywhere().CloseWhere(t.Context(), Address{Users: []string{"ann"}}, Farewell{Code: 4100}); n != 1 || err != nil {
			t.Error(n, err)
		}
		if code := c.expectClose(); code != 4100 {
			t.Error(code)
		}
		if got := dialAgain(t, w, "ann", c.token); got != "reconnected" {
			t.Error(got)
		}
	})
}

// Connections at an address enter and leave a room; who does not fit is told, and the others are in.
func TestJoinAndLeaveAt(t *testing.T) {
	overWorkers(t, func(t *testing.T, workers []*testWorker) {
		all := gatherPeople(t, workers)
		x, to := workers[0].Everywhere(), Address{Users: []string{"ann", "bob"}}
		if n, err := x.JoinAt(t.Context(), to, "party"); n != 4 || err != nil {
			t.Fatal(n, err)
		}
		if ids, err := x.Members(t.Context(), "party"); len(ids) != 4 || err != nil || slices.Contains(ids, all["5"].id) {
			t.Error(ids, err)
		}
		if n, err := x.JoinAt(t.Context(), Address{Rooms: []string{"all"}}, "party"); n != 6 || err != nil {
			t.Error("those who are in count, too:", n, err)
		}
		if n, err := x.LeaveAt(t.Context(), to, "party"); n != 4 || err != nil {
			t.Error(n, err)
		}
		if n, err := x.LeaveAt(t.Context(), to, "party"); n != 0 || err != nil {
			t.Error("they are out:", n, err)
		}
		if page, err := x.MembersPage(t.Context(), "party", "", 10); len(page.Members) != 2 || err != nil {
			t.Error(page, err)
		}
		all["ann0"].skipTo("joined")
		all["ann0"].skipTo("left")
		for _, name := range []string{"", "\x01", strings.Repeat("x", 1000)} {
			if n, err := x.JoinAt(t.Context(), to, name); n != 0 || err == nil || errors.Is(err, ErrPartial) {
				t.Errorf("%.10q: %d, %v", name, n, err)
			}
		}
	})
	s := startServer(t, func(c *Config) { c.MaxConnectionsPerRoom = 3 }, known)
	w := &testWorker{Server: s}
	for range 5 {
		dialAs(t, w, "ann")
	}
	if n, err := s.Everywhere().JoinAt(t.Context(), Address{Users: []string{"ann"}}, "small"); n != 3 || err != ErrRoomFull {
		t.Error(n, err)
	}
}

// Attributes of a connection of any worker change in one step, or not at all.
func TestSetAttributes(t *testing.T) {
	overWorkers(t, func(t *testing.T, workers []*testWorker) {
		c := dialAs(t, workers[len(workers)-1], "ann")
		x := workers[0].Everywhere()
		type values = map[string]json.RawMessage
		all, err := x.SetAttributes(t.Context(), c.id, values{"a": json.RawMessage(` {"x": [1, 2]} `), "b": json.RawMessage(`null`)}, []string{"none"})
		if err != nil || len(all) != 2 || string(all["a"]) != `{"x":[1,2]}` || string(all["b"]) != "null" {
			t.Fatal(all, err)
		}
		all, err = x.SetAttributes(t.Context(), c.id, values{"c": json.RawMessage("7")}, []string{"a", "b", "b"})
		if err != nil || len(all) != 1 || string(all["c"]) != "7" {
			t.Fatal(all, err)
		}
		large := json.RawMessage(`"` + strings.Repeat("x", 20_000) + `"`)
		if all, err := x.SetAttributes(t.Context(), c.id, values{"c": json.RawMessage("8"), "large": large}, []string{"c"}); err != ErrAttributesFull || all != nil {
			t.Error(len(all), err)
		}
		for _, wrong := range []string{"", "{", "1 2", "\xff", "nul"} {
			if _, err := x.SetAttributes(t.Context(), c.id, values{"c": json.RawMessage(wrong)}, nil); err == nil {
				t.Errorf("%q is taken", wrong)
			}
		}
		f, err := x.ConnectionFacts(t.Context(), c.id)
		if err != nil || len(f.Attributes) != 1 || string(f.Attributes["c"]) != "7" {
			t.Error(f, err)
		}
		if _, err := x.SetAttributes(t.Context(), "nonsense", values{}, nil); err != ErrConnectionUnknown {
			t.Error(err)
		}
		if rows, _, err := x.ConnectionsPage(t.Context(), ConnectionFilter{AttributeKey: "c", AttributeValue: 7}, "", 5); len(rows) != 1 || err != nil {
			t.Error(rows, err)
		}
	})
}

// A refused call changes nothing: addresses of nothing, codes that must not be sent, and calls on a loop.
func TestActsRefused(t *testing.T) {
	s := startServer(t, nil, func(s *Server) {
		s.On("acts", func(_ *Conn, _ *Message, s *Server) (any, error) {
			x, to := s.Everywhere(), Address{Everybody: true}
			_, first := x.CloseWhere(context.Background(), to, Farewell{Code: 4000})
			_, second := x.JoinAt(context.Background(), to, "r")
			_, third := x.LeaveAt(context.Background(), to, "r")
			return M{"type": "acts", "all": first == ErrOnLoop && second == ErrOnLoop && third == ErrOnLoop}, nil
		})
	})
	c := dial(t, s)
	c.send(`{"type":"acts"}`)
	if m := c.skipTo("acts"); m["all"] != true {
		t.Error(m)
	}
	x := s.Everywhere()
	for _, code := range []ws.StatusCode{0, 999, 1005, 1006, 1015, 2000, 5000} {
		if n, err := x.CloseWhere(t.Context(), Address{Everybody: true}, Farewell{Code: code}); n != 0 || err != ErrCloseCode {
			t.Error(code, n, err)
		}
	}
	if _, err := x.EndSessions(t.Context(), Address{}); err != ErrAddress {
		t.Error(err)
	}
	if _, err := x.JoinAt(t.Context(), Address{Users: []string{"a"}, Everybody: true}, "r"); err != ErrAddress {
		t.Error(err)
	}
	for _, v := range []fleet.Verb{fleet.CloseAt, fleet.JoinAt, fleet.LeaveAt, fleet.Attributes} {
		for _, question := range [][]byte{nil, {255}, {1, 200, 1}} {
			s.worker.Answer(v, question, func(b []byte) {
				if len(b) > 0 {
					t.Errorf("verb %d answers %v with %v", v, question, b)
				}
			})
		}
	}
	c.send(`{"type":"ping"}`)
	c.skipTo("pong")
}

// Closing many connections takes many turns, and other connections get theirs in between.
func TestCloseMany(t *testing.T) {
	overWorkers(t, func(t *testing.T, workers []*testWorker) {
		for i := range 200 {
			dialAs(t, workers[i%len(workers)], fmt.Sprint("user-", i%2))
		}
		x := workers[0].Everywhere()
		if n, err := x.CloseWhere(t.Context(), Address{Everybody: true, ExceptUsers: []string{"user-1"}}, Farewell{Code: 1001, EndSessions: true}); n != 100 || err != nil {
			t.Error(n, err)
		}
		if n, err := x.ConnectionCount(t.Context()); n != 100 || err != nil {
			t.Error(n, err)
		}
	})
}
