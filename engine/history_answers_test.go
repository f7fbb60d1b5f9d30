package engine

import (
	"strings"
	"testing"
	"time"
)

// A member of a room with history is behind before its backlog is over the bounds, however small they are.
func TestHistorySmallBacklog(t *testing.T) {
	w := newScript(t, func(c *Config) {
		c.History, c.MessageBytesMax, c.BacklogSoftBytes, c.BacklogHardBytes = []string{"h"}, 4<<10, 2<<10, 4<<10
	})
	f, c := follow(t)("slow"), w.open(0)
	w.say(c, `{"type":"join","room":"h"}`)
	w.drain()
	f.take(w.read(c))
	w.takes[int(c.wire.Fd)] = 100
	for i := range 20 {
		w.server.Server.Broadcast("h", newsOf("h", i, strings.Repeat("x", 1000+150*i)))
		w.drain()
	}
	if c.Cause() != CauseNone {
		t.Fatal("it was ended:", c.Cause())
	}
	delete(w.takes, int(c.wire.Fd))
	w.server.Writable(c)
	w.drain()
	if f.take(w.read(c)); f.at["h"].Seq != 20 {
		t.Errorf("it is at %d", f.at["h"].Seq)
	}
}

// A connection that resumes, and for which the history has moved on meanwhile where that ends connections, ends once, and
// leaves nothing behind.
func TestHistoryGoneInResume(t *testing.T) {
	w := newScript(t, func(c *Config) {
		c.History, c.ReconnectionTTL = []string{"h*=messages:1;age:1s;slow:disconnect"}, time.Second
	})
	s := w.server.Server
	c := w.open(0)
	for _, room := range []string{"h1", "h2"} {
		w.say(c, `{"type":"join","room":"`+room+`"}`)
	}
	w.drain()
	token := w.token(c)
	w.server.Gone(c)
	s.BroadcastRooms([]string{"h1", "h2"}, M{"type": "news"})
	w.drain()
	s.Emitter().On(EventRoomJoin, func(ev Event) {
		if ev.Room == "h2" {
			s.Broadcast("h1", M{"type": "news"})
			s.Broadcast("h1", M{"type": "news"})
		}
	})
	heir := w.open(1)
	w.read(heir)
	w.say(heir, `{"type":"reconnect","token":"`+token+`"}`)
	w.drain()
	if got := kinds(w.read(heir)); !strings.HasSuffix(got, "close 4003") {
		t.Error(got)
	}
	w.server.Gone(heir)
	w.pass(10 * time.Second)
	if left := w.server.Leftovers(); len(left) > 0 {
		t.Error(left)
	}
}

// What may be repeated covers all earlier connections of a session.
func TestHistoryRepeatsOfAll(t *testing.T) {
	w := historic(t, "h=bytes:1000000")
	c := w.open(0)
	w.say(c, `{"type":"join","room":"h"}`)
	for i := range 40 {
		w.server.Server.Broadcast("h", newsOf("h", i, strings.Repeat("x", 4000)))
	}
	w.drain()
	w.read(c)
	for i := range 3 {
		token := w.token(c)
		w.server.Gone(c)
		w.drain()
		c = w.open(i % 2)
		w.takes[int(c.wire.Fd)] = 1000
		w.say(c, `{"type":"reconnect","token":"`+token+`"}`)
		w.drain()
		if got := w.out[int(c.wire.Fd)].String(); !strings.Contains(got, `"repeats":{"h":40}`) {
			t.Errorf("resume %d: %.500s", i, got)
		}
	}
}
