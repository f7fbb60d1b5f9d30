package cluster_test

import (
	"encoding/json"
	"fmt"
	"syscall"
	"testing"

	"github.com/gobwas/ws/wsutil"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/engine/canary"
	"github.com/parleyd/parley/rooms"
)

// reader is a member of a room with history that checks each number it is told.
type reader struct {
	*client
	at    rooms.Position
	texts map[rooms.Position]string // by others, under their numbers
	sent  int                       // own publishes that have a number
	again int                       // own publishes that were sent again: on a slow machine the answer takes more than two seconds
	reset int                       // epochs that have begun while it was a member
}

const chat = "chat"

// enter joins the room, after a position if it has one.
func enter(c *client, since *rooms.Position) *reader {
	c.t.Helper()
	r := &reader{client: c, texts: map[rooms.Position]string{}}
	join := m{"type": "join", "room": chat}
	if since != nil {
		join["since"] = m{"seq": since.Seq, "epoch": since.Epoch}
	}
	c.send(join)
	answer := c.until("joined", "error")
	if answer["type"] != "joined" {
		c.t.Fatalf("join is answered with %v", answer)
	}
	r.at = placeOf(answer)
	return r
}

func placeOf(message m) (at rooms.Position) {
	if seq, ok := message["seq"].(float64); ok {
		at.Seq = uint64(seq)
	}
	at.Epoch, _ = message["epoch"].(string)
	return at
}

func (r *reader) publish(from, to int) {
	r.t.Helper()
	for n := from; n < to; n++ {
		r.publishOne(fmt.Sprint(n))
	}
}

// publishOne publishes a message which, sent again, gets no second number.
func (r *reader) publishOne(n string) {
	r.t.Helper()
	r.send(m{"type": "broadcast", "room": chat, "data": n + " of " + r.id, "ref": n, "idempotency_key": n + " of " + r.id})
}

// reads reads until a condition holds. Each number must be the one behind the last, unless a new epoch is told.
func (r *reader) reads(what string, until func() bool) {
	r.t.Helper()
	for begun := canary.Now(); !until(); {
		message, err := r.read()
		if err != nil || canary.Now()-begun > patient {
			r.t.Fatalf("%s: at %+v, %d sent, %d resets: %v", what, r.at, r.sent, r.reset, err)
		}
		r.take(message)
	}
}

func (r *reader) take(message m) {
	r.t.Helper()
	next := placeOf(message)
	switch message["type"] {
	case "broadcast":
		r.texts[next] = message["data"].(string)
	case "broadcast_sent":
		r.sent++
		if message["duplicate"] != nil {
			return
		}
	case "gap":
		if message["reset"] != true {
			r.t.Fatalf("a gap that no member has earned: %v", message)
		}
		r.at = next
		r.reset++
		return
	case "error":
		if message["code"] != "unavailable" {
			r.t.Fatal(message)
		}
		r.again++
		r.publishOne(message["ref"].(string))
		return
	case "skip":
		if from, ok := message["from"].(float64); ok {
			r.at.Seq = uint64(from) - 1
		}
		r.at.Seq = next.Seq - 1
	default:
		return
	}
	if next != (rooms.Position{Seq: r.at.Seq + 1, Epoch: r.at.Epoch}) {
		r.t.Fatalf("%v comes behind %+v", message, r.at)
	}
	r.at = next
}

// agree checks that readers have the same text under the same number.
func agree(t *testing.T, list ...*reader) {
	t.Helper()
	all := map[rooms.Position]string{}
	for _, r := range list {
		for at, text := range r.texts {
			if was, ok := all[at]; ok && was != text {
				t.Errorf("under %+v are %q and %q", at, was, text)
			}
			all[at] = text
		}
	}
}

// Members on two workers get one order. A client that comes to another worker than its own, whose worker was killed, gets what it
// missed and nothing else. When the bus process is killed, all members are told the new epoch, and go on in one order.
func TestHistoryOverWorkers(t *testing.T) {
	t.Parallel()
	s := startProcesses(t, engine.Config{Processes: 2, History: []string{chat + "=messages:1000"}})
	clients := s.each(2)
	a, b := enter(clients[0], nil), enter(clients[1], nil)
	c := enter(s.dialTo(a.pid), nil) // reads only
	if a.at != b.at || a.at.Seq != 0 || a.at.Epoch == "" {
		t.Fatalf("the room begins at %+v, at the other worker at %+v", a.at, b.at)
	}
	const each = 100
	a.publish(0, each)
	b.publish(0, each)
	for _, r := range []*reader{a, b} {
		r.reads("the answers", func() bool { return r.sent == each })
	}
	for _, r := range []*reader{a, b, c} {
		r.reads("all publishes", func() bool { return r.at.Seq == 2*each })
	}
	if len(c.texts) != 2*each {
		t.Errorf("a third member has %d messages, want %d", len(c.texts), 2*each)
	}
	agree(t, a, b, c)
	poll(t, "the workers' figures have all publishes, and how long each waited", func() bool {
		var published, waited, micros uint64
		for i := range 2 {
			var figures engine.Stats
			if raw := s.ward(fmt.Sprint("worker ", i)).Stats; len(raw) == 0 || json.Unmarshal(raw, &figures) != nil {
				return false
			}
			published, micros = published+figures.OrderPublishes, micros+figures.OrderWaitMicros
			for _, n := range figures.OrderWaits {
				waited += n
			}
		}
		return published == uint64(2*each+a.again+b.again) && waited >= 2*each && micros > 0
	})

	late := enter(s.dialTo(b.pid), &rooms.Position{Seq: 150, Epoch: a.at.Epoch})
	late.reads("the replay", func() bool { return late.at == a.at })
	if len(late.texts) != 2*each-150 {
		t.Errorf("behind 150 come %d messages of %d", len(late.texts), 2*each)
	}
	agree(t, c, late)

	b.stored()
	pid := s.signal("worker 1", syscall.SIGKILL)
	a.publish(each, 2*each)
	a.reads("its publishes", func() bool { return a.sent == 2*each })
	heir := &reader{client: s.dialAt("", pid), texts: map[rooms.Position]string{}}
	heir.send(m{"type": "reconnect", "token": b.token, "last": m{chat: m{"seq": b.at.Seq, "epoch": b.at.Epoch}}})
	answer := heir.until("reconnected", "error")
	if answer["type"] != "reconnected" || answer["gaps"] != nil {
		t.Fatalf("the session goes on with %v", answer)
	}
	heir.at = placeOf(answer["positions"].(m)[chat].(m))
	heir.reads("what it missed", func() bool { return heir.at == a.at })
	if len(heir.texts) != each {
		t.Errorf("it missed %d messages, and gets %d", each, len(heir.texts))
	}
	c.reads("the same", func() bool { return c.at == a.at })
	agree(t, c, heir)

	poll(t, "the worker is back", func() bool { return s.isReady("worker 1", pid) })
	d := enter(s.dialTo(s.pid("worker 1")), &a.at)
	before := a.at
	a.publish(2*each, 2*each+each/2) // some of which the sequencer has numbered, and some not
	killed := s.signal("bus", syscall.SIGKILL)
	poll(t, "the bus is back", func() bool { return s.isReady("bus", killed) })
	a.publish(2*each+each/2, 3*each)
	a.reads("its publishes after the death of the bus", func() bool { return a.sent == 3*each })
	for _, r := range []*reader{c, d, heir} {
		r.reads("the same after the death of the bus", func() bool { return r.at == a.at })
	}
	if resets := a.reset + c.reset + d.reset + heir.reset; a.at.Epoch != before.Epoch || resets > 0 {
		t.Errorf("the room goes on from %+v at %+v, after %d resets", before, a.at, resets)
	}
	agree(t, c, d, heir)
	if err := wsutil.WriteClientText(d.conn, []byte(`{"type":"history","room":"chat"}`)); err != nil {
		t.Fatal(err)
	}
	if page := d.until("history", "error"); page["type"] != "history" || placeOf(m{"seq": page["top"], "epoch": page["epoch"]}) != a.at {
		t.Errorf("the history is %v, and the room at %+v", page, a.at)
	}
}

// A room that is created with a history on one worker has it on all, with its bounds.
func TestHistoryOfCreatedRooms(t *testing.T) {
	t.Parallel()
	s := startProcesses(t, engine.Config{Processes: 2})
	list := s.each(2)
	a, b := list[0], list[1]
	if answer := a.must(`{"type":"create","room":"chat","history":{"Messages":2}}`, "created"); answer["err"] != "<nil>" {
		t.Fatal(answer)
	}
	poll(t, "the other worker has the room with its history", func() bool {
		joined := b.must(`{"type":"join","room":"chat"}`, "joined")
		b.must(`{"type":"leave","room":"chat"}`, "left")
		return joined["epoch"] != nil
	})
	x, y := enter(a, nil), enter(b, nil)
	x.publish(0, 3)
	x.reads("its publishes", func() bool { return x.sent == 3 })
	y.reads("them", func() bool { return y.at == x.at })
	agree(t, x, y)
	for _, c := range []*client{a, b} {
		page := c.must(`{"type":"history","room":"chat"}`, "history", "error")
		if kept, _ := page["messages"].([]any); len(kept) != 2 {
			t.Errorf("the history is %v, want the newest 2 messages", page)
		}
	}
}

// An external NATS server that goes away and comes back costs a room with history nothing: the sequencer is in a process of ours,
// and the numbering goes on.
func TestHistoryOverAnExternalBus(t *testing.T) {
	t.Parallel()
	n := startNATS(t, 1<<20)
	s := startProcesses(t, engine.Config{Processes: 2, BusURL: n.url("one"), History: []string{chat, "another"}})
	clients := s.each(2)
	a, b := enter(clients[0], nil), enter(clients[1], nil)
	const each = 50
	publishAll := func(from int) {
		t.Helper()
		before := a.at.Seq
		a.publish(from, from+each)
		b.publish(from, from+each)
		for _, r := range []*reader{a, b} {
			r.reads("all publishes", func() bool { return r.at.Seq == before+2*each })
		}
	}
	publishAll(0)
	epoch := a.at.Epoch
	n.Shutdown()
	n.WaitForShutdown()
	n.start()
	for i, c := range s.each(2) {
		poll(t, fmt.Sprintf("a client of worker %d can join another room", i), func() bool { return c.joins("another") == "" })
	}
	publishAll(each)
	if a.at != b.at || a.at.Epoch != epoch || a.reset+b.reset > 0 {
		t.Errorf("the room is at %+v and %+v, and was in the epoch %s", a.at, b.at, epoch)
	}
	agree(t, a, b)
}
