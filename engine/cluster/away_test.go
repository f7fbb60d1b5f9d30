package cluster_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/parleyd/parley/engine"
)

// The rows of the table "While the bus is away" in docs/processes.md.

// holdBus kills or freezes the bus, and returns the function that brings it back. The supervisor is stopped meanwhile: it
// would start the bus again at once, or after three seconds, too soon for a slow machine.
func holdBus(t *testing.T, s *serverProcess, kill bool) (back func()) {
	t.Helper()
	bus, parent := s.status().Bus.PID, s.cmd.Process.Pid
	signal := func(pid int, sig syscall.Signal) {
		t.Helper()
		if err := syscall.Kill(pid, sig); err != nil {
			t.Fatal(err)
		}
	}
	signal(parent, syscall.SIGSTOP)
	if kill {
		signal(bus, syscall.SIGKILL)
		return func() { signal(parent, syscall.SIGCONT) }
	}
	freeze(t, bus)
	return func() {
		signal(bus, syscall.SIGCONT)
		signal(parent, syscall.SIGCONT)
	}
}

func TestBusAway(t *testing.T) {
	t.Parallel()
	s := startProcesses(t, engine.Config{Processes: 3, HeartbeatInterval: time.Minute})
	for _, kill := range []bool{true, false} {
		name := map[bool]string{true: "killed", false: "frozen"}[kill]
		t.Run(name, func(t *testing.T) {
			s.t = t
			defer func() { s.t = nil }()
			awayRows(t, s, kill)
		})
	}
	s.t = t
}

const leaveLocal = `{"type":"leave","room":"local"}`

func awayRows(t *testing.T, s *serverProcess, kill bool) {
	list := s.onEach(3)
	ann, bob := list[0], list[1]
	near := s.dial("")
	for near.pid != ann.pid {
		near.conn.Close()
		near = s.dial("")
	}
	for _, c := range []*client{ann, bob, list[2], near} {
		c.join("r")
	}
	checkCounts(t, list, map[string]map[string]bool{"r": {ann.id: true, bob.id: true, list[2].id: true, near.id: true}})
	back := holdBus(t, s, kill)
	returned := false
	defer func() {
		if !returned {
			back()
		}
	}()

	// A broadcast reaches the members of this worker at once and the others later, and the answer says so as soon as the
	// worker knows.
	sent := 0
	say := func() (delayed bool) {
		t.Helper()
		ann.send(m{"type": "broadcast", "room": "r", "data": sent})
		if got := near.until("broadcast")["data"]; got != float64(sent) {
			t.Fatalf("the neighbour got %v, want %d", got, sent)
		}
		sent++
		answer := ann.until("broadcast_sent")
		if answer["recipients"] != 3.0 {
			t.Fatal("the best known figure:", answer)
		}
		return answer["delayed"] == true
	}
	known := say()
	if kill {
		poll(t, "the answer says delayed", say)
		known = true
	}
	for range 50 { // that a frozen one is away is known after some seconds
		was := known
		if known = say(); was && !known {
			t.Fatal("delayed comes and goes while the bus is away")
		}
	}

	// A join or leave of a room without a limit succeeds as usual, or is told to try again, since the store is late. Direct
	// messages on one worker arrive as usual.
	for _, c := range []*client{ann, near} {
		code := c.joins("local")
		if code == "" {
			code, _ = c.must(leaveLocal, "left", "error")["code"].(string)
		}
		if code != "" && code != "unavailable" {
			t.Fatal("a join or leave of a room without a limit is told", code)
		}
	}
	if answer := ann.do(deed{Verb: "sendTo", To: near.id, Say: note(1)}); answer["n"] != true {
		t.Fatal(answer)
	}
	near.until("note")

	// A message to a client of another worker waits, behind earlier ones.
	if answer := ann.do(deed{Verb: "sendTo", To: bob.id, Say: note(2)}); answer["n"] != true {
		t.Fatal(answer)
	}

	// Questions to other workers are answered in part, and say so.
	count, ids, partial := ann.members("r")
	if count != 4 || len(ids) != 2 || !partial {
		t.Fatal("members:", count, ids, partial)
	}
	if answer := ann.do(deed{Verb: "count"}); answer["partial"] != true {
		t.Fatal("count:", answer)
	}

	// When it is back, all messages arrive, in order, once; counts are right within a second.
	back()
	returned = true
	for _, c := range list[1:] {
		for i := range sent {
			if got := c.until("broadcast")["data"]; got != float64(i) {
				t.Fatalf("got %v, want %d", got, i)
			}
		}
	}
	if bob.until("note")["n"] != 2.0 {
		t.Fatal("the message that waited is another")
	}
	poll(t, "nothing is delayed any more", func() bool {
		ann.send(m{"type": "broadcast", "room": "r", "data": "again"})
		return ann.until("broadcast_sent")["delayed"] == nil
	})
	for _, c := range []*client{ann, near} {
		poll(t, "a leave is not told to ask again", func() bool { return c.must(leaveLocal, "left", "error")["code"] != "unavailable" })
	}
	poll(t, "the supervisor is well", func() bool { return len(s.pids()) == 3 })
	checkCounts(t, list, map[string]map[string]bool{"r": {ann.id: true, bob.id: true, list[2].id: true, near.id: true}})
}
