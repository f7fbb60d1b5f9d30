//go:build linux

package main

import (
	"bytes"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/parleyd/parley/bench/load"
)

func fleetPlan(addr string, parts int) load.Plan {
	return load.Plan{Scenario: spreadScenario, Addr: addr, PID: os.Getpid(), Parts: parts, Conns: 12, Rooms: 2, Publishers: 2,
		Window: 1, Size: 16, Rate: 200, Warmup: 50 * time.Millisecond, Measure: 300 * time.Millisecond}
}

func fly(t *testing.T, p load.Plan) load.Result {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r, err := (&bench{self: self}).playFleet(cell{shared: true}, p)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Members of a room in several processes get the messages of publishers in all of them.
func TestFleet(t *testing.T) {
	addr, err := freeAddr()
	if err != nil {
		t.Fatal(err)
	}
	startPeer(t, "gobwas", addr, "")
	for _, parts := range []int{1, 3} {
		// The plan's 200 a second, 5 members besides the publisher each, within a round of publishers.
		p := fleetPlan(addr, parts)
		if r := fly(t, p); r.Void != "" || r.Messages < 250 || r.Messages > 350 || r.P50 == 0 {
			t.Errorf("%d parts: %+v", parts, r)
		}
		p.Together, p.Publishers, p.Rate = true, 1, 20
		if r := fly(t, p); r.Void != "" || r.Messages%10 != 0 || r.Messages == 0 || r.Reach == 0 {
			t.Errorf("%d parts, together: %+v", parts, r)
		}
	}
}

// relay is a room server with a fault in its deliveries. Its ids name two workers: two clients of a part are on one, the
// next two on the other. Clients come from one port after the other, and go to rooms in turn.
type relay struct {
	mu      sync.Mutex
	members map[string][]*seat
	deliver func(s *seat, n int, frame []byte)
}

type seat struct {
	conn net.Conn
	got  int
	held []byte
}

func (r *relay) serve(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		go r.attend(conn)
	}
}

func (r *relay) attend(conn net.Conn) {
	defer conn.Close()
	if _, err := ws.Upgrade(conn); err != nil {
		return
	}
	s := &seat{conn: conn}
	id := []string{"0001", "0002"}[conn.RemoteAddr().(*net.TCPAddr).Port/2%2]
	wsutil.WriteServerText(conn, []byte(`{"type":"connected","connection_id":"`+id+`00000000"}`))
	for {
		text, err := wsutil.ReadClientText(conn)
		if err != nil {
			return
		}
		_, rest, _ := strings.Cut(string(text), `"room":"`)
		room, _, _ := strings.Cut(rest, `"`)
		r.mu.Lock()
		if bytes.Contains(text, []byte(`"type":"join"`)) {
			r.members[room] = append(r.members[room], s)
			wsutil.WriteServerText(conn, []byte(`{"type":"joined"}`))
		} else {
			frame, _ := ws.CompileFrame(ws.NewTextFrame(text))
			for _, to := range r.members[room] {
				if to != s {
					to.got++
					r.deliver(to, to.got, frame)
				}
			}
		}
		r.mu.Unlock()
	}
}

// A fault in one member's deliveries voids the run, also if no message comes after it.
func TestFaultyServersVoidTheFleet(t *testing.T) {
	first := func(r *relay, s *seat) bool { return slices.Index(r.members["room-0"], s) == 0 }
	faults := map[string]func(*relay, *seat, int, []byte){
		"":      func(_ *relay, s *seat, _ int, f []byte) { write(s.conn, f) },
		"loses": func(r *relay, s *seat, n int, f []byte) { _ = n == 20 && first(r, s) || write(s.conn, f) },
		"loses all from some time on": func(r *relay, s *seat, n int, f []byte) {
			_ = n >= 20 && first(r, s) || write(s.conn, f)
		},
		"doubles": func(r *relay, s *seat, n int, f []byte) {
			_ = write(s.conn, f) && n == 20 && first(r, s) && write(s.conn, f)
		},
		"swaps two messages of one sender": func(r *relay, s *seat, _ int, f []byte) {
			switch {
			case !first(r, s) || s.got < 20:
				write(s.conn, f)
			case s.held == nil && s.got < 40:
				s.held = f
			case s.held != nil && bytes.Equal(publisherOf(s.held), publisherOf(f)):
				write(s.conn, f)
				write(s.conn, s.held)
				s.held = nil
				s.got = 40
			default:
				write(s.conn, f)
			}
		},
		"hangs up": func(r *relay, s *seat, n int, f []byte) {
			if write(s.conn, f); n == 20 && first(r, s) {
				s.conn.Close()
			}
		},
	}
	for name, deliver := range faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			r := &relay{members: map[string][]*seat{}}
			r.deliver = func(s *seat, n int, f []byte) { deliver(r, s, n, f) }
			go r.serve(listener)
			result := fly(t, fleetPlan(listener.Addr().String(), 2))
			if (result.Void != "") != (name != "") {
				t.Errorf("a server that %s: void %q", name, result.Void)
			}
			if name == "" && (len(result.Workers) != 2 || result.Local == 0 || result.Away == 0) {
				t.Errorf("workers are not told from each other: %+v", result)
			}
		})
	}
}

// publisherOf is the part of a message's number that names its publisher.
func publisherOf(frame []byte) []byte {
	_, rest, _ := bytes.Cut(frame, []byte(`"bench_n":"`))
	return rest[:3]
}
