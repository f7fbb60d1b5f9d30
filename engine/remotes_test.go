package engine

import (
	"context"
	"testing"

	"github.com/parleyd/parley/engine/internal/fanout"
	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/engine/internal/membership"
	"github.com/parleyd/parley/protocol/ident"
)

// ear is a bus that keeps the counts that were told: of each room the latest.
type ear map[string]uint64

func (e ear) Append(entry []byte) error {
	h, err := fleet.Decode(entry, 0)
	if h.Kind == fleet.Count {
		e[string(h.Room)] = h.Members
	}
	return err
}

func (ear) Flush()   {}
func (ear) Up() bool { return true }

func (ear) Confirm(context.Context) error { return nil }

// tick lets the loops look at their timers, later than the last time.
func (w *script) tick() {
	w.now += w.server.TickEvery()
	w.server.Tick()
	w.drain()
}

// A seat that was kept for an heir who never came is not counted any more: the others are told.
func TestCountsForgetKeptSeats(t *testing.T) {
	w, told := newScript(t, nil), ear{}
	w.server.Server.worker.Attach(membership.Membership{Instance: 7, Bus: told})
	stays, old, heir := w.welcome(1), w.welcome(0), w.welcome(1)
	for _, c := range []*Conn{stays, old} {
		w.say(c, `{"type":"join","room":"r"}`)
	}
	w.tick()
	if told["r"] != 2 {
		t.Fatal("two are in, and the others are told", told)
	}
	w.say(heir, `{"type":"reconnect","token":"`+w.token(old)+`"}`)
	w.server.Drain(0) // it hands over
	w.now += w.server.TickEvery()
	w.server.Drain(0) // and the count is told, while the seat waits
	w.server.Gone(heir)
	w.drain()
	w.tick()
	if told["r"] != 1 || w.server.Server.rooms.Index.FindString("r").Len() != 1 {
		t.Error("one is in, and the others were told", told)
	}

	// The application's join, of one who ends before it is in.
	late := w.welcome(1)
	if err := w.server.Server.Rooms().Join(late, "r"); err != nil {
		t.Fatal(err)
	}
	w.say(w.welcome(0), `{"type":"join","room":"r"}`)
	w.now += w.server.TickEvery()
	w.server.Drain(0)
	w.server.Gone(late)
	w.drain()
	w.tick()
	if told["r"] != 2 {
		t.Error("two are in, and the others were told", told)
	}
}

// A worker's last batch is lost: the workers that missed it learn the true counts, also of rooms without members since.
func TestCountsAfterLoss(t *testing.T) {
	ws := startWorkers(t, 2, nil, nil)
	here, there := ws.list[0], ws.list[1]
	stays := dial(t, here.Server)
	stays.join("r")
	goes := dial(t, there.Server)
	goes.join("r")
	away := func() int { return here.rooms.Index.FindString("r").AwayOf(there.link.Self) }
	eventually(t, "its member is counted", func() bool { return away() == 1 })

	there.loses.Store(uint32(fleet.Count))
	goes.send(`{"type":"leave","room":"r"}`)
	goes.skipTo("left")
	eventually(t, "its last word is lost", func() bool { return there.swallowed.Load() > 0 })
	there.loses.Store(0)
	if away() != 1 {
		t.Fatal("the count is right although nobody told it")
	}
	here.worker.Missed(there.link.Self)
	eventually(t, "nobody is counted who is gone", func() bool { return away() == 0 })
}

// toldBy has the server hear a count of another worker.
func (w *script) toldBy(worker ident.Worker, room string, n int) {
	w.t.Helper()
	e := fleet.Entry{Kind: fleet.Count, Room: room, Body: fleet.Body{Members: uint64(n)}}
	if err := w.server.Server.worker.Receive(worker, fleet.Append(nil, &e)); err != nil {
		w.t.Fatal(err)
	}
	w.drain()
}

// The first member that joins a room on this worker is told of the members on others, however long ago they joined, and a
// message that it sends at once has the right number of recipients, too.
func TestFirstMemberIsToldOfOthers(t *testing.T) {
	w, _ := newPeer(t, func(c *Config) { c.AnnounceMembersMax = 4 })
	s := w.server.Server
	c := w.welcome(0)
	first := func(what, joined string) {
		t.Helper()
		w.say(c, `{"type":"join","room":"r"}`)
		w.drain()
		if texts := w.read(c); texts[0] != joined {
			t.Errorf("%s: %s, want %s", what, texts, joined)
		}
	}
	goes := func() {
		t.Helper()
		w.say(c, `{"type":"leave","room":"r"}`)
		w.drain()
		w.read(c)
	}
	s.link.Peers([]ident.Worker{3, 4, 7})
	w.toldBy(3, "r", 1)
	w.toldBy(4, "r", 2)
	for range 3 {
		w.tick()
	}
	first("nobody was in it here", `{"type":"joined","room":"r","members":4}`)
	w.say(c, `{"type":"broadcast","room":"r","data":1}`)
	w.drain()
	w.say(c, `{"type":"members","room":"r"}`)
	w.drain()
	if texts := w.read(c); len(texts) == 0 || texts[0] != `{"type":"broadcast_sent","room":"r","recipients":3}` {
		t.Error(texts)
	}
	goes()

	w.toldBy(3, "r", 3)
	first("it vanished here, and somebody came there", `{"type":"joined","room":"r","members":6}`)
	goes()
	if n, err := s.Broadcast("r", M{"type": "x"}); n != 5 || err != nil {
		t.Error("a broadcast from where nobody is in reaches", n, err)
	}
	s.rooms.RoomCreated(fanout.CreatedRoom{Name: "r"})
	if n := s.rooms.Index.FindString("r").Away(); n != 5 {
		t.Error("a room that is created knows of", n)
	}
	s.rooms.RoomDeleted("r")
	w.drain()
	s.worker.Gone(3)
	first("a worker died", `{"type":"joined","room":"r","members":3}`)
	goes()
	w.toldBy(4, "r", 0)
	first("all have left", `{"type":"joined","room":"r","members":1}`)
	goes()

	w.toldBy(4, "r", 4)
	w.say(c, `{"type":"join","room":"r"}`)
	w.drain()
	w.expect(c, "joined announcements")
}

// A worker asks again for the counts that it has missed: of the rooms that it has one by one, of all others in one question.
// The answer comes room by room, and older counts are dropped.
func TestCountsAreAskedFor(t *testing.T) {
	w, b := newPeer(t, nil)
	s := w.server.Server
	c := w.welcome(1)
	w.say(c, `{"type":"join","room":"here"}`)
	w.drain()
	w.read(c)
	s.link.Peers([]ident.Worker{3, 7})
	w.toldBy(3, "there", 5)
	s.worker.Missed(3)
	if n := s.rooms.Index.Away("there"); n != 0 || len(b.of(fleet.Census)) != 1 {
		t.Error("after a loss, of a room elsewhere is known", n)
	}
	w.tick()
	b.entries = nil
	if err := s.worker.Receive(3, fleet.Append(nil, &fleet.Entry{Kind: fleet.Census, Target: 7})); err != nil {
		t.Fatal(err)
	}
	w.drain()
	told := b.of(fleet.Count)
	if len(told) != 1 {
		t.Fatal(len(told), "counts are told of one room")
	}
	if h, err := fleet.Decode(told[0], 3); string(h.Room) != "here" || h.Members != 1 {
		t.Errorf("told is %q, %d, %v", h.Room, h.Members, err)
	}
}

// A worker that starts late learns of the rooms of all others, without anybody's doing anything in them.
func TestCountsForANewWorker(t *testing.T) {
	ws := startWorkers(t, 2, nil, nil)
	dial(t, ws.list[0].Server).join("r")
	dial(t, ws.list[1].Server).join("r")
	eventually(t, "all is told", func() bool {
		return ws.list[0].rooms.Index.Away("r") == 1 && ws.list[1].rooms.Index.Away("r") == 1
	})
	late := ws.start(nil, nil)
	eventually(t, "the late one knows both", func() bool { return late.rooms.Index.Away("r") == 2 })
	if n := dial(t, late.Server).join("r"); n != 3 {
		t.Errorf("the first to join there is told of %v members, want 3", n)
	}
}
