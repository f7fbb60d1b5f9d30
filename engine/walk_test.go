package engine

import (
	"fmt"
	"testing"
)

// walkers is a room of n on one loop whose writes take so long that a walk through it takes many turns.
func walkers(t *testing.T, n int) (*script, []*Conn) {
	w := newScript(t, func(c *Config) { c.Loops = 1 })
	members := make([]*Conn, n)
	for i := range members {
		members[i] = w.open(0)
		w.say(members[i], `{"type":"join","room":"r"}`)
		w.drain()
	}
	for _, c := range members {
		w.read(c)
	}
	w.pace, w.writes = drainBudget/flushGroup/2, 0
	return w, members
}

// What is published while a loop walks through a large room leaves with what the rest of the room has not got yet:
// one write, not two. [DESIGN "A turn"]
func TestLateMessagesJoinTheWalk(t *testing.T) {
	w, members := walkers(t, 500)
	s := w.server.Server
	s.Broadcast("r", M{"type": "m0"})
	w.rung[0] = false
	w.server.Drain(0)
	first := w.writes
	if first == 0 || first > 100 {
		t.Fatalf("the first turn writes to %d members", first)
	}
	for i := range 7 {
		s.Broadcast("r", M{"type": fmt.Sprint("m", i+1)})
	}
	w.drain()
	if most := len(members) + first; w.writes > most {
		t.Errorf("%d writes for %d members, %d are enough", w.writes, len(members), most)
	}
	for _, c := range members {
		w.expect(c, "m0 m1 m2 m3 m4 m5 m6 m7")
	}
}

// Whoever publishes without end does not make the queues of those grow that the walk has not reached.
func TestWalkIsBounded(t *testing.T) {
	w, members := walkers(t, 400)
	s := w.server.Server
	pad := make([]byte, 8<<10)
	for i := range pad {
		pad[i] = 'x'
	}
	last, most := members[len(members)-1], 0
	for range 40 {
		for range 5 {
			s.Broadcast("r", M{"type": "m", "pad": string(pad)})
		}
		w.server.Drain(0)
		most = max(most, last.backlog)
	}
	w.rung[0] = true
	w.pace = 0
	w.drain()
	if bound := drainBytesMax + 2*len(pad); most > bound {
		t.Errorf("%d bytes are queued for the last member, %d at most are in order", most, bound)
	}
	for _, c := range members {
		if n := len(w.read(c)); n != 200 {
			t.Fatalf("a member has %d of 200 messages", n)
		}
	}
}
