package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/ident"
)

// people are clients by name, spread over workers: two of the user ann, two of bob, two without a user. All are in the room
// all, those with an even number also in the room even, and have the attribute even.
type people map[string]*client

func gatherPeople(t *testing.T, workers []*testWorker) people {
	t.Helper()
	all := people{}
	for i, name := range []string{"ann0", "bob1", "ann2", "bob3", "4", "5"} {
		w := workers[i%len(workers)]
		c := dialURL(t, "ws://"+w.Addr().String()+"/?user="+strings.TrimRight(name, "0123456789"), ws.Dialer{})
		c.id = c.expect("connected")["connection_id"].(string)
		c.expect("reconnect_token")
		c.join("all")
		if i%2 == 0 {
			c.join("even")
		}
		if err := w.Connection(c.id).SetAttribute("even", i%2 == 0); err != nil {
			t.Fatal(err)
		}
		all[name] = c
	}
	return all
}

// known takes the user from the request.
func known(s *Server) {
	s.OnConnect(func(c *Conn, r *Request) error {
		if user := r.Query("user"); user != "" {
			c.SetPrincipal(user)
		}
		return nil
	})
}

// expectPosted wants the message n at exactly these clients. A second message of the same worker, to all connections, comes behind
// it.
func (all people) expectPosted(from *testWorker, n int, names ...string) {
	if err := from.Post(Address{Everybody: true}, M{"type": "mark", "n": n}); err != nil {
		for _, c := range all {
			c.t.Fatal(err)
		}
	}
	for name, c := range all {
		c.t.Helper()
		got := false
		for m := c.next(); ; m = c.next() {
			if m["type"] == "mark" && m["n"] == float64(n) {
				break
			}
			if m["type"] == "post" && m["n"] == float64(n) {
				if got {
					c.t.Errorf("%s gets message %d twice", name, n)
				}
				got = true
			}
		}
		if got != slices.Contains(names, name) {
			c.t.Errorf("message %d at %s: %v", n, name, got)
		}
	}
}

// A post reaches exactly the connections at its address, on all workers, and its count is exact.
func TestPost(t *testing.T) {
	for _, n := range []int{1, 3} {
		t.Run(fmt.Sprint(n, " workers"), func(t *testing.T) {
			workers := startWorkers(t, n, nil, known).list
			all := gatherPeople(t, workers)
			for i, row := range []struct {
				to    Address
				names string
			}{
				{Address{Rooms: []string{"even"}}, "ann0 ann2 4"},
				{Address{Rooms: []string{"even", "all", "none", "all"}}, "ann0 bob1 ann2 bob3 4 5"},
				{Address{Rooms: []string{"even", "all"}, ExceptUsers: []string{"ann", "eve"}}, "bob1 bob3 4 5"},
				{Address{Rooms: []string{"all"}, Except: []string{all["4"].id, "nonsense"}, ExceptUsers: []string{"bob"}}, "ann0 ann2 5"},
				{Address{Rooms: []string{"none"}}, ""},
				{Address{Users: []string{"ann"}}, "ann0 ann2"},
				{Address{Users: []string{"ann", "bob", "ann", "eve", ""}, Except: []string{all["bob1"].id}}, "ann0 ann2 bob3"},
				{Address{Users: []string{""}}, ""},
				{Address{Connections: []string{all["bob1"].id, all["5"].id, all["5"].id, "nonsense"}}, "bob1 5"},
				{Address{Connections: []string{all["bob1"].id, all["5"].id}, ExceptUsers: []string{"bob"}}, "5"},
				{Address{Attribute: "even", Value: true}, "ann0 ann2 4"},
				{Address{Attribute: "even", Value: true, ExceptUsers: []string{"ann"}}, "4"},
				{Address{Everybody: true}, "ann0 bob1 ann2 bob3 4 5"},
				{Address{Everybody: true, Except: []string{all["5"].id, all["5"].id}, ExceptUsers: []string{"ann"}}, "bob1 bob3 4"},
			} {
				from, names := workers[i%n], strings.Fields(row.names)
				if i%2 == 0 {
					count, err := from.Everywhere().Post(t.Context(), row.to, M{"type": "post", "n": i})
					if err != nil || count != len(names) {
						t.Errorf("%+v: %d, %v", row.to, count, err)
					}
				} else {
					if err := from.Post(row.to, M{"type": "post", "n": i}); err != nil {
						t.Errorf("%+v: %v", row.to, err)
					}
				}
				all.expectPosted(from, i, names...)
			}
		})
	}
}

// The index follows a user that changes, and a connection that ends, on whatever goroutine.
func TestUsersIndex(t *testing.T) {
	s := startServer(t, nil, known)
	c := dialURL(t, "ws://"+s.Addr().String()+"/?user=ann", ws.Dialer{})
	c.id = c.expect("connected")["connection_id"].(string)
	c.expect("reconnect_token")
	conn := s.Connection(c.id)
	for range 100 {
		conn.SetPrincipal("bob")
		if s.rooms.Users.Count("ann") != 0 || s.rooms.Users.Count("bob") != 1 {
			t.Fatal("ann", s.rooms.Users.Count("ann"), "bob", s.rooms.Users.Count("bob"))
		}
		conn.SetPrincipal("ann")
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for conn.Cause() == CauseNone {
			conn.SetPrincipal("carl")
			conn.SetPrincipal("ann")
		}
		conn.SetPrincipal("late")
	}()
	conn.Close()
	<-ended
	eventually(t, "no user is left", func() bool { return s.rooms.Users.Len() == 0 })
	if conn.Principal() != "late" {
		t.Error(conn.Principal())
	}
}

// An address is refused without effect: none, two, and a value that cannot be encoded.
func TestAddresses(t *testing.T) {
	s := startServer(t, nil, nil)
	for _, to := range []Address{{}, {Except: []string{"x"}}, {Rooms: []string{"a"}, Everybody: true}, {Users: []string{"a"}, Attribute: "b"}} {
		if err := s.Post(to, 1); !errors.Is(err, ErrAddress) {
			t.Errorf("%+v: %v", to, err)
		}
		if _, err := s.Everywhere().Post(context.Background(), to, 1); !errors.Is(err, ErrAddress) {
			t.Errorf("%+v: %v", to, err)
		}
	}
	if err := s.Post(Address{Attribute: "a", Value: func() {}}, 1); err == nil || errors.Is(err, ErrAddress) {
		t.Error(err)
	}
	if err := s.Post(Address{Everybody: true}, func() {}); err == nil {
		t.Error("a function was sent")
	}
}

// A damaged address of another worker is an error of its entry, and does nothing.
func TestDamagedAddress(t *testing.T) {
	x, _ := newPeer(t, nil)
	a := fleet.Address{Users: []string{"ann"}}
	frame, err := turn.EncodeFrame(M{"type": "post"})
	if err != nil {
		t.Fatal(err)
	}
	for _, payload := range [][]byte{nil, a.AppendTo(nil)[:3], {0, 255, 255, 255, 255, 15}} {
		entry := fleet.Append(nil, &fleet.Entry{Kind: fleet.Post, Frame: frame.Plain, Body: fleet.Body{Payload: payload}})
		if err := x.server.Server.worker.Receive(ident.Worker(9), entry); !errors.Is(err, fleet.ErrEntry) {
			t.Errorf("%v: %v", payload, err)
		}
	}
}
