//go:build linux

package main

import (
	"encoding/json"
	"fmt"
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

// keeper is a server with one room, whose messages it numbers and keeps. faulty makes what it sends in place of a message, live or
// replayed.
type keeper struct {
	mu      sync.Mutex
	log     []string
	members map[net.Conn]bool
	faulty  func(number int, replayed bool, message string) []string

	refused int    // the message of which the publisher is told an error, although it has a number; 0: none
	code    string // of that error
	keyless bool   // a publish that is sent again gets another number
}

func (k *keeper) serve(conn net.Conn) {
	defer conn.Close()
	if _, err := ws.Upgrade(conn); err != nil {
		return
	}
	say := func(to net.Conn, text string) { wsutil.WriteServerText(to, []byte(text)) }
	say(conn, `{"type":"reconnect_token","token":"t"}`)
	for {
		text, err := wsutil.ReadClientText(conn)
		k.mu.Lock()
		var m struct {
			Type      string
			Data, Ref json.RawMessage
			Last      map[string]struct{ Seq int }
		}
		if err != nil || json.Unmarshal(text, &m) != nil {
			delete(k.members, conn)
			k.mu.Unlock()
			return
		}
		switch m.Type {
		case "join":
			k.members[conn] = true
			say(conn, fmt.Sprintf(`{"type":"joined","seq":%d,"epoch":"e"}`, len(k.log)))
		case "reconnect":
			k.members[conn] = true
			say(conn, `{"type":"reconnected"}`)
			for n := m.Last["room-0"].Seq; n < len(k.log); n++ {
				for _, x := range k.faulty(n, true, k.log[n]) {
					say(conn, x)
				}
			}
		case "broadcast":
			n, ref := len(k.log), ""
			if m.Ref != nil {
				ref = `,"ref":` + string(m.Ref)
			}
			if was := slices.IndexFunc(k.log, func(text string) bool { return strings.Contains(text, string(m.Data)) }); was >= 0 && !k.keyless {
				say(conn, fmt.Sprintf(`{"type":"broadcast_sent","duplicate":{"seq":%d,"epoch":"e"}%s}`, was+1, ref))
				break
			}
			k.log = append(k.log, fmt.Sprintf(`{"type":"broadcast","data":%s,"seq":%d,"epoch":"e"}`, m.Data, n+1))
			if n > 0 && n == k.refused {
				say(conn, fmt.Sprintf(`{"type":"error","code":%q%s}`, k.code, ref))
				say(conn, fmt.Sprintf(`{"type":"skip","room":"room-0","seq":%d,"epoch":"e","why":"own"}`, n+1))
			} else {
				say(conn, fmt.Sprintf(`{"type":"broadcast_sent","seq":%d,"epoch":"e"%s}`, n+1, ref))
			}
			for c := range k.members {
				for _, x := range k.faulty(n, false, k.log[n]) {
					if c != conn {
						say(c, x)
					}
				}
			}
		}
		k.mu.Unlock()
	}
}

// startKeeper runs a keeper until the test ends.
func startKeeper(t *testing.T, faulty func(number int, replayed bool, message string) []string) (addr string) {
	return (&keeper{faulty: faulty}).start(t)
}

func (k *keeper) start(t *testing.T) (addr string) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	k.members = map[net.Conn]bool{}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go k.serve(conn)
		}
	}()
	return listener.Addr().String()
}

// returning is a plan of the scenario recovery. No process is watched: the servers here have no CPU of their own.
func returning(addr string) load.Plan {
	return load.Plan{Scenario: "recovery", Addr: addr, PID: 0, Conns: 6, Rooms: 1, Size: 64, Missed: 10, Kept: true}
}

// A message that is lost or doubled in a replay is counted, by each client.
func TestRecoveryCounts(t *testing.T) {
	for name, row := range map[string]struct {
		faulty        func(n int, replayed bool, m string) []string
		lost, doubled uint64
	}{
		"faultless": {func(_ int, _ bool, m string) []string { return []string{m} }, 0, 0},
		"loses": {func(n int, replayed bool, m string) []string {
			if replayed && n == 4 {
				return nil
			}
			return []string{m}
		}, 5, 0},
		"doubles": {func(n int, replayed bool, m string) []string {
			if replayed && n == 10 {
				return []string{m, m}
			}
			return []string{m}
		}, 0, 5},
	} {
		t.Run(name, func(t *testing.T) {
			r := play(t, returning(startKeeper(t, row.faulty)))
			if r.Void != "" || r.Messages != 5 || r.Lost != row.lost || r.Doubled != row.doubled {
				t.Errorf("%+v", r)
			}
		})
	}
}

// A number that a client is not told voids the run, also that of one process of several.
func TestNumbersAreChecked(t *testing.T) {
	for _, wrong := range []bool{false, true} {
		faulty := func(n int, _ bool, m string) []string {
			if wrong && n == 5 {
				m = m[:len(m)-len(`6,"epoch":"e"}`)] + `7,"epoch":"e"}`
			}
			return []string{m}
		}
		rooms := shortPlan("rooms", "")
		rooms.PID, rooms.Conns, rooms.Rooms, rooms.Window = 0, 3, 1, 1
		part := fleetPlan("", 1)
		part.Rooms = 1
		for _, p := range []load.Plan{rooms, part} {
			run := play
			if p.Parts > 0 {
				run = fly
			}
			p.Addr, p.Numbered = startKeeper(t, faulty), true
			r := run(t, p)
			for ; r.Void == "" && (wrong || r.Messages == 0) && p.Measure < time.Minute; p.Measure *= 4 { // a starved machine needs longer
				p.Addr = startKeeper(t, faulty)
				r = run(t, p)
			}
			if (r.Void != "") != wrong || !wrong && r.Messages == 0 {
				t.Errorf("wrong: %v: %+v", wrong, r)
			}
		}
	}
}

// Centrifuge with history gives clients that come back what they missed, and the load fills channels of it.
func TestCentrifugeKeeps(t *testing.T) {
	addr, err := freeAddr()
	if err != nil {
		t.Fatal(err)
	}
	startPeer(t, "centrifuge-history", addr, "")
	p := returning(addr)
	cell{}.forServer("centrifuge-history", &p)
	if r := play(t, p); r.Void != "" || r.Messages != 5 || r.Lost+r.Doubled > 0 {
		t.Errorf("%+v", r)
	}
	p = load.Plan{Scenario: "store", Addr: addr, PID: os.Getpid(), Conns: 3, Visited: 10, Each: 20, Size: 280, Measure: time.Millisecond}
	cell{}.forServer("centrifuge-history", &p)
	if r := play(t, p); r.Void != "" || r.Messages != 200 || r.Frame < 280 || r.Frame > 400 {
		t.Errorf("%+v", r)
	}
}

// In a paired cell a server's ratio is to the same server without history.
func TestPairedRatios(t *testing.T) {
	c := cell{name: "c", figure: cpuFigure, paired: true}
	b := &bench{}
	for server, cpu := range map[string]float64{"parley": 2, "parley-history": 3, "centrifuge": 10, "centrifuge-history": 40} {
		b.records = append(b.records, record{Scenario: "c", Server: server, Round: 1, Result: load.Result{CPU: cpu}})
	}
	for _, r := range b.rows(c) {
		want := map[string]float64{"parley": 1, "parley-history": 1.5, "centrifuge": 1, "centrifuge-history": 4}[r.server]
		if r.ratio != want {
			t.Errorf("%s: %v, not %v", r.server, r.ratio, want)
		}
	}
}
