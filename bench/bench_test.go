//go:build linux

package main

import (
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/parleyd/parley/bench/load"
	"github.com/parleyd/parley/bench/peers"
)

func shortPlan(scenario, addr string) load.Plan {
	p := load.Plan{Scenario: scenario, Addr: addr, PID: os.Getpid(), Conns: 20, Window: 2, Size: 64,
		Warmup: 20 * time.Millisecond, Measure: 100 * time.Millisecond}
	switch scenario {
	case "rooms":
		p.Rooms = 4
	case "bursts":
		p.Scenario, p.Rooms, p.Rate = "rooms", 2, 2000
	case "publishers":
		p.Scenario, p.Rooms, p.Publishers = "rooms", 2, 4
	case "churn":
		p.Conns, p.Rooms, p.Rate = 10, 1, 200
	case "after":
		p.Scenario, p.Rooms, p.First = "idle", 4, 1000
	}
	return p
}

// play runs a plan. A busy generator is no fault here, since it shares the cores with the server.
func play(t *testing.T, p load.Plan) load.Result {
	t.Helper()
	r, err := load.Run(p)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(r.Void, "measured itself") {
		r.Void = ""
	}
	return r
}

// TestMain is a peer, a load, or a part of one, if its arguments say so: a process of its own, as in the benchmark.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && (os.Args[1] == "part" || os.Args[1] == "load") {
		if err := command(os.Args[1:]); err != nil {
			panic(err)
		}
		return
	}
	if name := os.Getenv("BENCH_PEER"); name != "" {
		peers.Servers[name](os.Getenv("BENCH_ADDR"), os.Getenv("BENCH_ECHO") != "")
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// startPeer runs a peer until the test ends.
func startPeer(t *testing.T, name, addr, echo string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "BENCH_PEER="+name, "BENCH_ADDR="+addr, "BENCH_ECHO="+echo)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	if err := awaitPort(addr); err != nil {
		t.Fatal(err)
	}
}

// Every peer speaks the protocol, and loses, doubles and reorders no message.
func TestPeers(t *testing.T) {
	for name := range peers.Servers {
		for _, scenario := range []string{"echo", "rooms", "bursts", "publishers", "churn", "after"} {
			t.Run(name+"/"+scenario, func(t *testing.T) {
				addr, err := freeAddr()
				if err != nil {
					t.Fatal(err)
				}
				echo := ""
				if scenario == "echo" {
					echo = "echo"
				}
				startPeer(t, name, addr, echo)
				p := shortPlan(scenario, addr)
				cell{}.forServer(name, &p)
				if name == "nbio" && scenario == "churn" {
					t.Skip("it closes connections that it has just accepted, now and then")
				}
				r := play(t, p)
				for ; r.Void == "" && r.Messages == 0 && p.Measure < time.Minute; p.Measure *= 4 { // a starved machine needs longer
					r = play(t, p)
				}
				if r.Void != "" || r.Messages == 0 {
					t.Errorf("%d messages, void: %q", r.Messages, r.Void)
				}
			})
		}
	}
}

// Cells of a group are one curve, in the order of their places; one cell is no curve.
func TestGroups(t *testing.T) {
	places := map[string][]float64{}
	for _, group := range groups(cells) {
		for _, c := range group {
			places[c.group] = append(places[c.group], c.x)
		}
	}
	for _, name := range []string{"members", "visits"} {
		if len(places[name]) < 3 || !slices.IsSorted(places[name]) {
			t.Errorf("%s: %v", name, places[name])
		}
	}
	if one := groups(chosen(options{scenarios: []string{"visits-1000"}})[:1]); len(one) != 0 {
		t.Errorf("one cell is a curve: %v", one)
	}
}

// A server that loses, doubles or swaps a message voids the run, and so does one that hangs up.
func TestFaultyServersVoidTheRun(t *testing.T) {
	faults := map[string]func(conn net.Conn, n int, frame []byte, last []byte) bool{
		"loses":   func(c net.Conn, n int, f, _ []byte) bool { return n == 5 || write(c, f) },
		"doubles": func(c net.Conn, n int, f, _ []byte) bool { return write(c, f) && (n != 5 || write(c, f)) },
		"swaps": func(c net.Conn, n int, f, last []byte) bool {
			return n == 5 || write(c, f) && (n != 6 || write(c, last))
		},
		"hangs up": func(c net.Conn, n int, f, _ []byte) bool { return n < 5 && write(c, f) },
	}
	for name, answer := range faults {
		t.Run(name, func(t *testing.T) {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			go serveFaulty(listener, answer)
			if r := play(t, shortPlan("echo", listener.Addr().String())); r.Void == "" {
				t.Error("the run counts, although the server", name)
			}
		})
	}
}

func write(c net.Conn, frame []byte) bool {
	_, err := c.Write(frame)
	return err == nil
}

// serveFaulty is an echo server whose answers have a fault.
func serveFaulty(listener net.Listener, answer func(net.Conn, int, []byte, []byte) bool) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			if _, err := ws.Upgrade(conn); err != nil {
				return
			}
			var last []byte
			for n := 1; ; n++ {
				payload, err := wsutil.ReadClientText(conn)
				if err != nil {
					return
				}
				frame, err := ws.CompileFrame(ws.NewTextFrame(payload))
				if err != nil || !answer(conn, n, frame, last) {
					return
				}
				last = frame
			}
		}()
	}
}
