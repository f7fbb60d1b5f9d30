package engine

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// within makes a script whose server may hold some bytes.
func within(t *testing.T, bytes int) *script {
	return newScript(t, func(c *Config) {
		c.History, c.MemoryBytesMax = []string{"h*=messages:1000;bytes:10000000;age:5m"}, bytes
		c.MessageBytesMax = 1 << 20
		c.BacklogSoftBytes, c.BacklogHardBytes, c.AttributesBytesMax = 10_000_000, 10_000_000, 100_000
	})
}

// look lets the loops look at their memory, loop 0 behind the others, and carry out what it decides.
func (w *script) look() { w.pass(250 * time.Millisecond) }

// Of connections that do not read, those with the largest backlog end first, and no more than must.
func TestMemoryOfSlowConnections(t *testing.T) {
	w := within(t, 1<<20)
	s := w.server.Server
	var clients []*Conn
	for i := range 6 {
		c := w.open(i % 2)
		w.read(c)
		w.takes[int(c.wire.Fd)] = 0
		for range i + 1 {
			c.Send(M{"type": "push", "pad": strings.Repeat("x", 20_000)})
		}
		clients = append(clients, c)
	}
	w.drain()
	w.look()
	held := s.StatsHere()
	if held.MemoryParts["sockets"] != 6*128<<10 || held.MemoryParts["queues"] < 21*20_000 || held.MemoryLimit != 1<<20 {
		t.Errorf("%v of %d", held.MemoryParts, held.MemoryLimit)
	}
	for i, c := range clients {
		ended := c.Cause()
		if last := i >= 4; last != (ended == CauseMemory) || !last && ended != CauseNone {
			t.Errorf("client %d, with %d bytes: %v", i, (i+1)*20_000, ended)
		}
	}
	if n := s.StatsHere().Relieved; n["connections"] == 0 || n["unused_histories"] != 0 {
		t.Error(n)
	}
}

// A frame that waits for many connections is counted once.
func TestMemoryOfSharedFrames(t *testing.T) {
	w := within(t, 100<<20)
	for i := range 8 {
		c := w.open(i % 2)
		w.say(c, `{"type":"join","room":"plain"}`)
		w.drain()
		w.takes[int(c.wire.Fd)] = 0
	}
	w.server.Server.Broadcast("plain", M{"pad": strings.Repeat("x", 100_000)})
	w.drain()
	w.look()
	if n := w.server.Server.StatsHere().MemoryParts["queues"]; n < 200_000 || n > 240_000 { // once on each of two loops
		t.Errorf("%d bytes in queues", n)
	}
}

// Histories go when no connection is slow: those of unused rooms first, the longest unused first, then halves of the largest.
func TestMemoryOfHistories(t *testing.T) {
	w := within(t, 1<<20)
	s := w.server.Server
	fill := func(room string, n int) {
		for range n {
			if err := s.Publish(room, newsOf(room, 0, strings.Repeat("x", 10_000)), BroadcastOptions{}); err != nil {
				t.Fatal(err)
			}
			w.drain()
		}
	}
	kept := func(room string) int {
		page, err := s.History(t.Context(), room, HistoryQuery{})
		if err == ErrNoHistory {
			return 0 // the room is forgotten as a whole
		}
		return int(page.Top - page.Low + 1)
	}
	c := w.open(0)
	w.say(c, `{"type":"join","room":"h-used"}`)
	w.drain()
	fill("h-old", 30)
	w.now += time.Minute
	fill("h-new", 30)
	fill("h-used", 30)
	w.drain()
	w.look()
	if a, b, c := kept("h-old"), kept("h-new"), kept("h-used"); a != 30 || b != 30 || c != 30 {
		t.Fatal("something is forgotten within the limit:", a, b, c, s.StatsHere().MemoryParts)
	}
	fill("h-used", 30)
	w.drain()
	w.look()
	if a, b, c := kept("h-old"), kept("h-new"), kept("h-used"); a != 0 || b != 30 || c != 60 {
		t.Error("the room that was unused for the longest time goes first:", a, b, c)
	}
	fill("h-used", 60)
	w.drain()
	w.look()
	if b, c := kept("h-new"), kept("h-used"); b != 0 || c == 120 || c < 50 {
		t.Error("then the older half of the largest:", b, c)
	}
	stats := s.StatsHere()
	if stats.Relieved["unused_histories"] == 0 || stats.Relieved["histories"] == 0 || stats.HistoryDropped["memory"] == 0 {
		t.Error(stats.Relieved, stats.HistoryDropped)
	}
}

// Clients that come and go through very many rooms with history cost no more than the limit.
func TestMemoryOfEmptyRooms(t *testing.T) {
	w := within(t, 1<<20)
	s := w.server.Server
	c := w.open(0)
	for i := range 6_000 {
		w.say(c, fmt.Sprintf(`{"type":"join","room":"h%d"}`, i))
		w.say(c, fmt.Sprintf(`{"type":"leave","room":"h%d"}`, i))
		if i%500 == 0 {
			w.drain()
			w.read(c)
			w.look()
		}
	}
	w.look()
	if n := s.Rooms().Len(); n > 2500 {
		t.Error(n, "rooms")
	}
	if parts := s.StatsHere().MemoryParts; parts["histories"] > 1<<20 {
		t.Error(parts)
	}
	w.pass(6 * time.Minute)
	if n := s.StatsHere(); n.MemoryParts["histories"] > 10_000 || s.Rooms().Len() > 10 {
		t.Error(n.MemoryParts, s.Rooms().Len(), "rooms at the end")
	}
}

// Waiting sessions go last; and when nothing is left to go, newcomers are refused until there is memory again.
func TestMemoryRefusesNewcomers(t *testing.T) {
	w := within(t, 300_000)
	s := w.server.Server
	for i := range 40 {
		c := w.open(i % 2)
		if err := c.SetAttribute("pad", strings.Repeat("x", 60_000)); err != nil {
			t.Fatal(err)
		}
		w.server.Gone(c)
		w.drain()
	}
	w.look()
	stats := s.StatsHere()
	if stats.Relieved["sessions"] == 0 || stats.SessionsEvicted == 0 || stats.MemoryParts["sessions"] > 300_000 {
		t.Error(stats.Relieved, stats.SessionsEvicted, stats.MemoryParts)
	}
	c := w.open(0)
	w.read(c)
	long := masked(1, `"`+strings.Repeat("x", 60_000))
	long[0] &^= 0x80 // not the last frame
	for range 6 {    // a message that does not end
		w.server.Serve(c, bytes.Clone(long))
		long[0] = 0
	}
	w.look()
	if c.Cause() != CauseNone {
		t.Fatal(c.Cause())
	}
	late := w.open(1)
	answer := w.out[int(late.wire.Fd)].String()
	if !strings.HasPrefix(answer, "HTTP/1.1 503 ") || !strings.Contains(answer, "no memory left") {
		t.Errorf("%.80q; %v", answer, s.StatsHere().MemoryParts)
	}
	w.server.Gone(c)
	w.drain()
	w.look()
	if late = w.open(1); !strings.HasPrefix(w.out[int(late.wire.Fd)].String(), "HTTP/1.1 101") {
		t.Error("newcomers are refused although there is memory")
	}
}

// Where the memory that may be used is not known, there is no limit, and a loop's lists of connections are tidied all the same.
func TestMemoryWithoutLimit(t *testing.T) {
	w := newScript(t, nil)
	w.server.Server.budget.Limit = 0
	c := w.open(0)
	w.read(c)
	for range 50 {
		w.takes[int(c.wire.Fd)] = 1
		c.Send(M{"type": "push"})
		w.drain()
		delete(w.takes, int(c.wire.Fd))
		w.server.Writable(c)
		w.drain()
	}
	w.look()
	if l := c.loop(); len(l.Blocked) > 0 || len(l.Partial) > 0 {
		t.Errorf("%d connections are taken for blocked, %d for in a message", len(l.Blocked), len(l.Partial))
	}
}

// A limit of 0 is a share of what the process may use.
func TestMemoryByDefault(t *testing.T) {
	w := newScript(t, nil)
	stats := w.server.Server.StatsHere()
	raw, _ := json.Marshal(stats)
	if !strings.Contains(string(raw), `"memory_limit":`) || stats.MemoryLimit < 64<<20 {
		t.Error(fmt.Sprint(stats.MemoryLimit), "bytes by default")
	}
}
