package engine

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/parleyd/parley/engine/internal/turn"
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
	w.pace, w.writes = turn.DrainBudget/turn.FlushGroup/2, 0
	return w, members
}

// A message that is published while a loop walks through a large room reaches the members late in the walk in the same write
// as the earlier message.
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

// A publisher that goes on without end does not make the queues of members grow that the walk has not reached.
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
		most = max(most, last.wire.Backlog)
	}
	w.rung[0] = true
	w.pace = 0
	w.drain()
	if bound := turn.DrainBytesMax + 2*len(pad); most > bound {
		t.Errorf("%d bytes are queued for the last member, %d at most are in order", most, bound)
	}
	for _, c := range members {
		if n := len(w.read(c)); n != 200 {
			t.Fatalf("a member has %d of 200 messages", n)
		}
	}
}

// Several messages to one room in one turn are one frame for most members, and for each what it would have got from
// them one by one: their senders, and who joined in between, get the others.
func TestRunOfMessages(t *testing.T) {
	w := newScript(t, func(c *Config) { c.Loops, c.AnnounceMembersMax = 1, -1 })
	ann, bob, cid, dan := w.open(0), w.open(0), w.open(0), w.open(0)
	for _, c := range []*Conn{ann, bob, cid} {
		w.say(c, `{"type":"join","room":"r"}`)
	}
	w.drain()
	for _, c := range []*Conn{ann, bob, cid, dan} {
		w.read(c)
	}
	cid.wire.Bits = 15 // what it gets is compressed, whole or in parts
	say := func(c *Conn, what string) {
		w.say(c, `{"type":"broadcast","room":"r","data":"`+what+strings.Repeat(" ", 200)+`"}`)
	}
	say(ann, "one")
	say(bob, "two")
	w.say(dan, `{"type":"join","room":"r"}`)
	say(ann, "three")
	w.writes = 0
	w.drain()
	if w.writes != 4 {
		t.Errorf("%d writes for four members", w.writes)
	}
	for _, row := range []struct {
		c    *Conn
		want string
	}{{ann, "two"}, {bob, "one three"}, {cid, "one two three"}, {dan, "three"}} {
		var got []string
		for _, text := range w.read(row.c) {
			var m struct{ Type, Data string }
			if err := json.Unmarshal([]byte(text), &m); err != nil {
				t.Fatal(err)
			}
			if m.Type == "broadcast" {
				got = append(got, strings.TrimSpace(m.Data))
			}
		}
		if strings.Join(got, " ") != row.want {
			t.Errorf("a member gets %q, %q is for it", got, row.want)
		}
	}
}

// A walk that carries all that it may goes on by itself: the bell that was answered can be rung again.
func TestFullWalkGoesOn(t *testing.T) {
	w, members := walkers(t, 300)
	s := w.server.Server
	pad := strings.Repeat("x", 8<<10)
	for range 3 * turn.DrainBytesMax / len(pad) {
		s.Broadcast("r", M{"type": "m", "pad": pad})
	}
	w.drain()
	for _, c := range members {
		if n := len(w.read(c)); n != 3*turn.DrainBytesMax/len(pad) {
			t.Fatalf("a member has %d of %d messages, and nobody is woken", n, 3*turn.DrainBytesMax/len(pad))
		}
	}
}

// A notice keeps the place of what it tells of, also behind a later message in one run: who came in between is told
// the message alone.
func TestNoticeInARun(t *testing.T) {
	w := newScript(t, nil)
	ann, bob, cid := w.open(0), w.open(0), w.open(1)
	for _, c := range []*Conn{ann, bob} {
		w.say(c, `{"type":"join","room":"r"}`)
		w.drain()
	}
	w.say(bob, `{"type":"leave","room":"r"}`) // told at the end of loop 0's turn, which is yet to come
	w.say(cid, `{"type":"join","room":"r"}`)
	w.server.Drain(1)
	w.server.Server.Broadcast("r", M{"type": "news"})
	w.drain()
	if texts := strings.Join(w.read(cid), " "); strings.Contains(texts, "member_left") || !strings.Contains(texts, "news") {
		t.Errorf("the newcomer reads %s", texts)
	}
}
