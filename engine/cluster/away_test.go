package cluster_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/parleyd/parley/engine"
)

// The rows of the table "While the bus is away" in docs/processes.md.

// holdBus takes the bus away, and returns what brings it back: killed, with the supervisor stopped so that it is not
// started again yet; or frozen.
func holdBus(t *testing.T, s *serverProcess, kill bool) (back func()) {
	t.Helper()
	bus, parent := s.status().Bus.PID, s.cmd.Process.Pid
	signal := func(pid int, sig syscall.Signal) {
		t.Helper()
		if err := syscall.Kill(pid, sig); err != nil {
			t.Fatal(err)
		}
	}
	if !kill {
		signal(bus, syscall.SIGSTOP)
		return func() { syscall.Kill(bus, syscall.SIGCONT) } // unless the supervisor has found it frozen and replaced it
	}
	signal(parent, syscall.SIGSTOP)
	signal(bus, syscall.SIGKILL)
	return func() { signal(parent, syscall.SIGCONT) }
}

func TestBusAway(t *testing.T) {
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

	// A broadcast reaches the members of this worker at once; who is elsewhere gets it later, and the answer says so as
	// soon as the worker knows.
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
	say()
	if kill {
		poll(t, "the answer says delayed", say)
	}
	for range 50 {
		if say() != kill {
			t.Fatal("delayed comes and goes while the bus is away; a frozen one is not known to be")
		}
	}

	// Joins and leaves of rooms without a limit, direct messages on one worker: as ever, but that who asks while the bus
	// hangs may be told to ask again.
	ann.join("local")
	near.join("local")
	near.insist(m{"type": "leave", "room": "local"}, "left")
	if answer := ann.do(deed{Verb: "sendTo", To: near.id, Say: note(1)}); answer["n"] != true {
		t.Fatal(answer)
	}
	near.until("note")

	// A message to somebody elsewhere waits, behind what was said before.
	if answer := ann.do(deed{Verb: "sendTo", To: bob.id, Say: note(2)}); answer["n"] != true {
		t.Fatal(answer)
	}

	// Questions to other workers are answered in part, after a second, and say so.
	begun := time.Now()
	count, ids, partial := ann.members("r")
	if count != 4 || len(ids) != 2 || !partial {
		t.Fatal("members:", count, ids, partial)
	}
	if took := time.Since(begun); took > 3*time.Second {
		t.Fatal("members took", took)
	}
	if answer := ann.do(deed{Verb: "count"}); answer["partial"] != true {
		t.Fatal("count:", answer)
	}

	// When it is back, everything arrives, in order, once; counts are right within a second.
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
	ann.send(m{"type": "leave", "room": "local"})
	ann.until("left")
	poll(t, "the supervisor is well", func() bool { return len(s.pids()) == 3 })
	checkCounts(t, list, map[string]map[string]bool{"r": {ann.id: true, bob.id: true, list[2].id: true, near.id: true}})
}
