package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/parleyd/parley/engine/cluster/bus"
	"github.com/parleyd/parley/engine/internal/fleet"
)

// A question to all workers has the same answer on every worker, and on one that is alone.
func TestEverywhere(t *testing.T) {
	for _, n := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d workers", n), func(t *testing.T) { askEverywhere(t, n) })
	}
}

func askEverywhere(t *testing.T, n int) {
	workers := startWorkers(t, n, nil, func(s *Server) {
		s.RegisterFilter("level", func(c *Conn, asked []byte) bool {
			v, ok := Attribute[string](c, "level")
			return ok && v == string(asked)
		})
	}).list
	ctx := context.Background()
	var all []*client
	var ids []string
	for i := range 6 {
		w := workers[i%n]
		c := dial(t, w.Server)
		c.join("lobby")
		c.join(fmt.Sprintf("own%d", i))
		conn := w.Connection(c.id)
		conn.SetAttribute("even", i%2 == 0)
		conn.SetAttribute("level", fmt.Sprint(i%3))
		all = append(all, c)
		ids = append(ids, c.id)
	}
	slices.Sort(ids)
	for _, w := range workers {
		x := w.Everywhere()
		got, err := x.Members(ctx, "lobby")
		slices.Sort(got)
		if err != nil || !slices.Equal(got, ids) {
			t.Fatal("members:", got, err)
		}
		if n, err := x.ConnectionCount(ctx); n != 6 || err != nil {
			t.Fatal("connections:", n, err)
		}
		rooms, err := x.Rooms(ctx)
		if err != nil || len(rooms) != 7 || rooms[0].Name != "lobby" || rooms[0].Connections != 6 || rooms[3].Connections != 1 {
			t.Fatal("rooms:", rooms, err)
		}
		found, err := x.FindByAttribute(ctx, "even", true)
		if err != nil || len(found) != 3 || len(found[0].Rooms) != 2 || found[0].RemoteAddress != "127.0.0.1" {
			t.Fatal("find by attribute:", found, err)
		}
		if found, err = x.FindFiltered(ctx, "level", []byte("2")); err != nil || len(found) != 2 {
			t.Fatal("find filtered:", found, err)
		}
		if _, err := x.FindFiltered(ctx, "no such", nil); err != ErrFilterUnknown {
			t.Fatal(err)
		}
		eventually(t, "each room is counted once", func() bool {
			stats, err := x.Stats(ctx)
			return err == nil && stats.Rooms == 7 && stats.Connections == 6
		})
		actOnOne(t, x, all[2], all[4])
		if !x.Up() {
			t.Fatal("not up")
		}
	}
	if err := workers[0].Everywhere().Close(ctx, all[1].id, 4321, "enough"); err != nil {
		t.Fatal(err)
	}
	if code := all[1].expectClose(); code != 4321 {
		t.Fatal(code)
	}
	eventually(t, "the closed connection is unknown", func() bool {
		_, err := workers[0].Everywhere().Connection(ctx, all[1].id)
		return err == ErrConnectionUnknown
	})
}

// actOnOne joins, sends, leaves and asks on behalf of a connection that may be elsewhere.
func actOnOne(t *testing.T, x *Everywhere, c, other *client) {
	t.Helper()
	ctx := context.Background()
	facts, err := x.Connection(ctx, c.id)
	if err != nil || facts.ID != c.id || len(facts.Rooms) != 2 {
		t.Fatal("connection:", facts, err)
	}
	if err := x.Join(ctx, c.id, "party"); err != nil {
		t.Fatal(err)
	}
	if _, err := x.srv.Broadcast("party", M{"type": "note", "n": 1}); err != nil {
		t.Fatal(err)
	}
	if exists, err := x.SendTo(ctx, c.id, M{"type": "note", "n": 2}); err != nil || !exists {
		t.Fatal(exists, err)
	}
	x.srv.SendTo(c.id, M{"type": "note", "n": 3})
	for n := 1.0; n <= 3; n++ {
		if m := c.skipTo("note"); m["n"] != n {
			t.Fatalf("got %v, want note %v: one sender's messages come in its order, after a join too", m, n)
		}
	}
	if err := x.Leave(ctx, c.id, "party"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "left", func() bool {
		members, err := x.Members(ctx, "party")
		return err == nil && len(members) == 0
	})
	if err := x.Join(ctx, c.id, "\x01"); err == nil || errors.Is(err, ErrPartial) {
		t.Fatal("a name that is none:", err)
	}
	for _, id := range []string{"", "nonsense", "ffff000000010000000000ff", other.id[:23] + "z"} {
		if exists, err := x.SendTo(ctx, id, "x"); exists || err != nil {
			t.Fatal(id, exists, err)
		}
		if err := x.Join(ctx, id, "party"); err != ErrConnectionUnknown {
			t.Fatal(id, err)
		}
	}
}

// A worker that does not answer is named, and costs a second at most, or what the caller's context allows.
func TestPartialAnswers(t *testing.T) {
	ws := startWorkers(t, 3, nil, nil)
	for _, w := range ws.list {
		dial(t, w.Server).join("r")
	}
	asker := dial(t, ws.list[0].Server)
	asker.join("r")
	block := make(chan struct{})
	for range answerers {
		ws.list[1].pools.Answering.Submit(func() { <-block })
	}
	x := ws.list[0].Everywhere()
	begun := time.Now()
	members, err := x.Members(context.Background(), "r")
	var partial *PartialError
	if len(members) != 3 || !errors.As(err, &partial) || !errors.Is(err, ErrPartial) || !slices.Equal(partial.Workers, []uint16{2}) {
		t.Fatal(members, err)
	}
	if took := time.Since(begun); took < fleet.GatherWait || took > fleet.GatherWait+fleet.GatherGrace+time.Second {
		t.Fatal("it took", took)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if rooms, err := x.Rooms(ctx); !errors.Is(err, ErrPartial) || !errors.Is(err, context.DeadlineExceeded) || len(rooms) != 1 {
		t.Fatal(rooms, err)
	}
	asker.send(`{"type":"members","room":"r","ref":1}`)
	asker.send(`{"type":"ping","ref":2}`)
	m := asker.skipTo("members")
	if m["partial"] != true || m["next"] != nil || len(m["members"].([]any)) != 3 || m["count"] != 4.0 || m["ref"] != 1.0 {
		t.Fatal("the count is the best known figure, the list says that it is not whole:", m)
	}
	asker.expect("pong") // it waited for the answer before it
	close(block)
	asker.send(`{"type":"members","room":"r"}`)
	if m := asker.skipTo("members"); m["partial"] != false || len(m["members"].([]any)) != 4 {
		t.Fatal(m)
	}
	ws.die(ws.list[1])
	asker.send(`{"type":"members","room":"r"}`)
	if m := asker.skipTo("members"); m["partial"] != false || len(m["members"].([]any)) != 3 {
		t.Fatal("who is dead is not waited for:", m)
	}
	if !strings.Contains(partial.Error(), "[2]") {
		t.Error(partial)
	}
}

// The pages of all workers together hold each member once.
func TestMembersOverWorkers(t *testing.T) {
	const each = 450
	ws := startWorkers(t, 3, func(c *Config) { c.AnnounceMembersMax = -1 }, nil)
	want := map[string]bool{}
	var clients []*client
	for i := range 3 * each {
		c := dial(t, ws.list[i%3].Server)
		c.join("r")
		want[c.id] = true
		clients = append(clients, c)
	}
	for _, w := range ws.list {
		eventually(t, "all count all", func() bool { return w.rooms.Index.FindString("r").Away() == 2*each })
	}
	for _, asker := range clients[:3] {
		seen, next, pages := map[string]bool{}, "", 0
		for more := true; more; pages++ {
			asker.send(`{"type":"members","room":"r"` + next + `}`)
			m := asker.skipTo("members")
			if m["count"] != 3.0*each {
				t.Fatal("count:", m["count"])
			}
			for _, id := range m["members"].([]any) {
				if seen[id.(string)] || !want[id.(string)] {
					t.Fatal("twice, or a stranger:", id)
				}
				seen[id.(string)] = true
			}
			after, ok := m["next"].(string)
			if more = ok; m["partial"] != ok {
				t.Fatal("partial:", m["partial"])
			}
			next = `,"after":"` + after + `"`
		}
		if len(seen) != len(want) || pages != 2 {
			t.Fatalf("%d members on %d pages, want %d on 2", len(seen), pages, len(want))
		}
	}
	asker := clients[0]
	for _, wrong := range []string{"", "1", "1.2", "x.y.z", "1.2.3.4", "1.2.3x", "70000.0.1", "-1.0.1"} {
		asker.send(`{"type":"members","room":"r","after":"` + wrong + `"}`)
		if m := asker.next(); m["code"] != "invalid_message" {
			t.Fatalf("%q: %v", wrong, m)
		}
	}
}

// events collects what is told of all workers.
type events struct {
	mu   sync.Mutex
	list []RemoteEvent
}

func (e *events) add(ev RemoteEvent) {
	e.mu.Lock()
	e.list = append(e.list, ev)
	e.mu.Unlock()
}

func (e *events) count(ok func(RemoteEvent) bool) (n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, ev := range e.list {
		if ok(ev) {
			n++
		}
	}
	return n
}

// Events go to all workers that wish them, and to one that starts later; without a wish no worker sends any.
func TestEventsEverywhere(t *testing.T) {
	ws := startWorkers(t, 2, nil, nil)
	ann := dial(t, ws.list[0].Server)
	ann.join("r")
	if n := ws.list[0].link.Wanted(); n != 0 {
		t.Fatal("wanted without a wish:", n)
	}
	var heard, late events
	off := ws.list[0].Everywhere().OnEvent([]EventKind{EventConnect, EventDisconnect, EventRoomJoin, EventRoomLeave, EventReconnect}, heard.add)
	third := ws.start(nil, func(s *Server) { s.Everywhere().OnEvent([]EventKind{EventRoomJoin}, late.add) })
	eventually(t, "all know the wishes", func() bool {
		return ws.list[1].link.Wanted() == 31 && third.link.Wanted() == 31
	})
	kinds := func(who *client, kind EventKind) func() bool {
		return func() bool {
			return heard.count(func(ev RemoteEvent) bool { return ev.Kind == kind && ev.Conn.ID == who.id }) == 1
		}
	}
	for _, w := range ws.list {
		bob := dial(t, w.Server)
		bob.join("r")
		bob.send(`{"type":"leave","room":"r"}`)
		bob.skipTo("left")
		bob.join("r")
		bob.conn.Close()
		eventually(t, "connect", kinds(bob, EventConnect))
		eventually(t, "disconnect", kinds(bob, EventDisconnect))
		eventually(t, "joined twice and left twice", func() bool {
			return heard.count(func(ev RemoteEvent) bool {
				return ev.Conn.ID == bob.id && ev.Room == "r" && ev.Worker == w.link.Self.Instance()
			}) == 4
		})
		eventually(t, "the third hears of joins", func() bool {
			return late.count(func(ev RemoteEvent) bool { return ev.Conn.ID == bob.id && ev.Kind == EventRoomJoin }) == 2
		})
		heir := dial(t, w.Server)
		heir.send(`{"type":"reconnect","token":"` + bob.token + `"}`)
		heir.skipTo("reconnected")
		eventually(t, "reconnect", func() bool {
			return heard.count(func(ev RemoteEvent) bool {
				return ev.Kind == EventReconnect && ev.Conn.ID == heir.id && ev.Session.PreviousConnectionID == bob.id
			}) == 1
		})
	}
	if n := late.count(func(ev RemoteEvent) bool { return ev.Kind != EventRoomJoin }); n != 0 {
		t.Error("an event that was not wished:", late.list)
	}
	off()
	ws.die(third)
	eventually(t, "no worker wishes any event", func() bool {
		return ws.list[0].link.Wanted() == 0 && ws.list[1].link.Wanted() == 0
	})
	defer func() {
		if recover() == nil {
			t.Error("a message event cannot be had of others, and nobody says so")
		}
	}()
	ws.list[0].Everywhere().OnEvent([]EventKind{EventMessage}, heard.add)
}

// notices are what a client is told of a room until its own mark comes back.
func (c *client) notices(mark int) (list []string) {
	c.t.Helper()
	c.send(fmt.Sprintf(`{"type":"ping","ref":%d}`, mark))
	for {
		switch m := c.next(); m["type"] {
		case "member_joined", "member_left":
			list = append(list, m["type"].(string)+" "+m["connection_id"].(string))
		case "pong":
			if m["ref"] == float64(mark) {
				return list
			}
		}
	}
}

// The members of a dead worker leave in rooms that announce, each once, those that came before and after the others knew
// the room.
func TestDeadWorkersMembersLeave(t *testing.T) {
	ws := startWorkers(t, 3, func(c *Config) { c.AnnounceMembersMax = 6 }, nil)
	dying := ws.list[2]
	early := dial(t, dying.Server)
	early.join("r")
	ann := dial(t, ws.list[0].Server)
	ann.join("r")
	eventually(t, "counted", func() bool { return ws.list[0].rooms.Index.FindString("r").Away() == 1 })
	late, gone := dial(t, dying.Server), dial(t, dying.Server)
	for _, c := range []*client{late, gone} {
		c.join("r")
		m := ann.skipTo("member_joined")
		if m["connection_id"] == early.id { // its notice was still on its way when ann joined
			m = ann.skipTo("member_joined")
		}
		if m["connection_id"] != c.id {
			t.Fatal(m)
		}
	}
	gone.conn.Close()
	if m := ann.skipTo("member_left"); m["connection_id"] != gone.id {
		t.Fatal(m)
	}
	var crowd []*client
	for range 9 { // a room that does not announce
		c := dial(t, dying.Server)
		c.join("crowd")
		crowd = append(crowd, c)
	}
	bob := dial(t, ws.list[1].Server)
	bob.join("crowd")
	bob.join("r")
	ann.skipTo("member_joined")
	eventually(t, "all counted", func() bool {
		return ws.list[1].rooms.Index.FindString("crowd").Away() == 9 && ws.list[1].rooms.Index.FindString("r").Away() == 3
	})
	eventually(t, "bob's worker knows who is there", func() bool {
		return ws.list[1].rooms.Index.FindString("r").RemoteMembers(dying.link.Self) == 2
	})
	if n := ws.list[1].rooms.Index.FindString("crowd").RemoteMembers(dying.link.Self); n != 0 {
		t.Error(n, "ids are kept of a room that does not announce")
	}
	ws.die(dying)
	eventually(t, "the dead are not counted", func() bool {
		return ws.list[0].rooms.Index.FindString("r").Away() == 1 && ws.list[1].rooms.Index.FindString("crowd").Away() == 0
	})
	want := []string{"member_left " + early.id, "member_left " + late.id}
	slices.Sort(want)
	for i, c := range []*client{ann, bob} {
		var got []string
		for range want { // the counts are right a moment before all is told
			got = append(got, "member_left "+c.skipTo("member_left")["connection_id"].(string))
		}
		got = append(got, c.notices(i)...)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("client %d is told\n%v, want\n%v", i, got, want)
		}
	}
	_ = crowd
}

// A room that shrinks announces again, and its members are known again.
func TestAnnouncingAgain(t *testing.T) {
	ws := startWorkers(t, 2, func(c *Config) { c.AnnounceMembersMax = 6 }, nil)
	ann := dial(t, ws.list[0].Server)
	ann.join("r")
	var others []*client
	for range 8 {
		c := dial(t, ws.list[1].Server)
		c.join("r")
		others = append(others, c)
	}
	for _, c := range []*client{ann, others[0]} {
		if m := c.skipTo("announcements"); m["on"] != false || m["members"].(float64) < 7 {
			t.Fatal(m)
		}
	}
	for _, c := range others[:7] {
		c.send(`{"type":"leave","room":"r"}`)
		c.skipTo("left")
	}
	for _, c := range []*client{ann, others[7]} {
		m := c.skipTo("announcements")
		if c != ann && m["on"] == false { // it came while the others were told
			m = c.skipTo("announcements")
		}
		if m["on"] != true {
			t.Fatal(m)
		}
	}
	eventually(t, "its last member is known", func() bool { return ws.list[0].rooms.Index.FindString("r").RemoteMembers(2) == 1 })
	ws.die(ws.list[1])
	for ann.skipTo("member_left")["connection_id"] != others[7].id {
	}
}

// Batches that the ring no longer holds are lost, and an event, a figure and a log line say so. The worker asks again for
// the other worker's members.
func TestBeyondTheRing(t *testing.T) {
	ws := &testWorkers{t: t, ring: bus.RingBytesMin}
	ws.startBus()
	var told atomic.Int32
	for range 2 {
		ws.start(nil, func(s *Server) {
			s.Emitter().On(EventError, func(ev Event) {
				if _, ok := errors.AsType[*MissedError](ev.Err); ok {
					told.Add(1)
				}
			})
		})
	}
	ann, bob := dial(t, ws.list[0].Server), dial(t, ws.list[1].Server)
	ann.join("r")
	bob.join("r")
	eventually(t, "counted", func() bool { return ws.list[0].rooms.Index.FindString("r").Away() == 1 })
	ws.bus.Close()
	eventually(t, "noticed", func() bool { return !ws.list[0].Up() })
	big := strings.Repeat("x", 500)
	for i := range 40 {
		ann.send(fmt.Sprintf(`{"type":"broadcast","room":"r","data":"%d %s"}`, i, big))
		if m := ann.skipTo("broadcast_sent"); m["delayed"] != true {
			t.Fatal(m)
		}
	}
	late := dial(t, ws.list[0].Server)
	late.join("r")
	ws.startBus()
	last := -1
	for last != 39 {
		var n int
		fmt.Sscan(bob.skipTo("broadcast")["data"].(string), &n)
		if n <= last {
			t.Fatalf("%d came after %d", n, last)
		}
		last = n
	}
	eventually(t, "it is said that something is lost", func() bool {
		return told.Load() > 0 && ws.list[1].Stats().Missed > 0
	})
	eventually(t, "who is there is known again", func() bool {
		r := ws.list[1].rooms.Index.FindString("r")
		return r.Away() == 2 && r.RemoteMembers(1) == 2
	})
}

// A worker's death is the supervisor's word: its members leave also while the bus is away.
func TestDeathWhileTheBusIsAway(t *testing.T) {
	ws := startWorkers(t, 2, nil, nil)
	ann, bob := dial(t, ws.list[0].Server), dial(t, ws.list[1].Server)
	ann.join("r")
	bob.join("r")
	ann.skipTo("member_joined")
	ws.bus.Close()
	ws.die(ws.list[1])
	if m := ann.skipTo("member_left"); m["connection_id"] != bob.id {
		t.Fatal(m)
	}
	if n := ws.list[0].rooms.Index.FindString("r").Away(); n != 0 {
		t.Fatal(n, "members are counted of a dead worker")
	}
}
