package cluster_test

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/parleyd/parley/engine/canary"
)

// crowd has the members of a room, as the clients know them.
type crowd struct {
	t  *testing.T
	s  *serverProcess
	in map[*client]bool
}

// enter makes n new clients of a worker join.
func (x *crowd) enter(n int, worker string) (list []*client) {
	x.t.Helper()
	for range n {
		m := x.s.dialTo(x.s.pid(worker))
		if code := m.joins("r"); code != "" {
			x.t.Fatal(code)
		}
		x.in[m] = true
		list = append(list, m)
	}
	return list
}

// lose removes the clients of a killed worker.
func (x *crowd) lose(worker string) { x.loseAll(x.s.pid(worker)) }

func (x *crowd) loseAll(pid int) {
	for c := range x.in {
		if c.pid == pid {
			delete(x.in, c)
		}
	}
}

// agree polls until every member is told of as many recipients as there are.
func (x *crowd) agree(when string) {
	x.t.Helper()
	told := map[string]int{}
	poll(x.t, when+" all workers count right", func() bool {
		clear(told)
		for c := range x.in {
			answer, err := c.ask(`{"type":"broadcast","room":"r","data":1}`, "broadcast_sent", "error")
			if err != nil {
				x.t.Fatalf("%s a member is cut off: %v", when, err)
			}
			told[fmt.Sprint(answer["recipients"], " ", answer["code"])]++
		}
		return told[fmt.Sprint(len(x.in)-1, " ", nil)] == len(x.in)
	})
}

// A worker is frozen for a while, shorter or longer than FrozenAfter: meanwhile members leave, are taken over, and end with
// their workers, and the bus is restarted. Soon after the worker goes on, or is replaced, all workers count right.
func TestCountsAfterFreezes(t *testing.T) {
	s := startProcesses(t, patientSessions(3, 0))
	x := &crowd{t, s, map[*client]bool{}}
	for round, how := range []string{"thawed", "with another killed", "killed itself", "without the bus"} {
		worker := func(i int) string { return fmt.Sprint("worker ", (round+i)%3) }
		frozen, other := worker(0), worker(1)
		of := x.enter(4, frozen)
		on := x.enter(2, other)
		x.enter(2, worker(2))
		x.agree("before it is frozen,")

		pid := s.pid(frozen)
		freeze(t, pid)
		begun := time.Now()
		of[0].conn.Close()
		delete(x.in, of[0])
		if err := on[0].tryLeave("r"); err != nil {
			t.Fatal(err)
		}
		delete(x.in, on[0])
		of[1].send(m{"type": "leave", "room": "r"})
		delete(x.in, of[1])
		heir, kept, err := s.heir(of[2]) // after a second: the owner does not answer
		if err != nil || !kept {
			t.Fatal("the heir of a member of a frozen worker is told", kept, err)
		}
		t.Cleanup(func() { heir.conn.Close() })
		x.in[heir] = true
		delete(x.in, of[2])
		switch how {
		case "with another killed":
			x.lose(other)
			killed := s.signal(other, syscall.SIGKILL)
			poll(t, "another worker is gone", func() bool { return s.isGone(other, killed) })
		case "killed itself":
			x.lose(frozen)
			poll(t, "a frozen worker is replaced", func() bool { return s.isReady(frozen, pid) })
		case "without the bus":
			killed := s.signal("bus", syscall.SIGKILL)
			poll(t, "the bus is back", func() bool { return s.isReady("bus", killed) })
		}
		if how != "killed itself" {
			syscall.Kill(pid, syscall.SIGCONT)
			if _, err := of[3].ask(`{"type":"tell"}`, "told"); err != nil {
				// On a slow machine all this may take longer than a worker may stand still.
				stood := time.Since(begun)
				gone := canary.Wait(5*time.Second, func() bool { return s.isGone(frozen, pid) })
				if stood < 2*time.Second || !gone {
					t.Fatalf("frozen for %v, it does not go on: %v", stood, err)
				}
				t.Logf("it stood still for %v, and was killed", stood)
				x.loseAll(pid)
			}
		}
		x.agree(how + ",")
		for i := range 3 {
			poll(t, "all workers are there", func() bool { return s.isReady(worker(i), 0) })
		}
	}
}
