package engine

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/engine/internal/fanout"
	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/engine/internal/membership"
	"github.com/parleyd/parley/engine/internal/session"
	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/rooms"
)

// recordingBus is a bus that keeps what it is given.
type recordingBus struct {
	silentBus
	entries [][]byte
}

func (b *recordingBus) Append(entry []byte) error {
	b.entries = append(b.entries, bytes.Clone(entry))
	return nil
}

// of are the entries of a kind.
func (b *recordingBus) of(kind fleet.Kind) (list [][]byte) {
	for _, entry := range b.entries {
		if fleet.Kind(entry[1]) == kind {
			list = append(list, entry)
		}
	}
	return list
}

// newPeer is one of several workers in lockstep; what it says is kept.
func newPeer(t testing.TB, change func(*Config)) (*script, *recordingBus) {
	return newPeerOf(t, 7, change)
}

func newPeerOf(t testing.TB, instance ident.Worker, change func(*Config)) (*script, *recordingBus) {
	w := newScript(t, change)
	b := &recordingBus{}
	s := w.server.Server
	s.worker.Attach(membership.Membership{Instance: instance, Bus: b})
	s.worker.Receiving.Store(true)
	return w, b
}

// All connections that a function chooses get the message, or none does, also where one loop takes no letters.
func TestChosenAllOrNobody(t *testing.T) {
	w := newScript(t, nil)
	s := w.server.Server
	c, d := w.welcome(0), w.welcome(1)
	all := func(*Conn) bool { return true }
	s.loops[1].Mail.Waiting.Add(turn.MailboxLettersMax)
	if n, err := s.BroadcastWhere(all, M{"type": "x"}); n != 0 || !errors.Is(err, ErrOverloaded) {
		t.Fatal(n, err)
	}
	s.loops[1].Mail.Waiting.Add(-turn.MailboxLettersMax)
	w.drain()
	w.expect(c, "")
	if n, err := s.BroadcastWhere(all, M{"type": "y"}); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	w.drain()
	w.expect(c, "y")
	w.expect(d, "y")
	w.server.Gone(c)
	w.server.Gone(d)
	for _, l := range s.loops {
		if n := l.Mail.Waiting.Load(); n != 0 {
			t.Errorf("loop %d keeps %d places", l.Index, n)
		}
	}
}

// A filter that panics costs neither the process nor those whom it accepted before.
func TestFilterPanics(t *testing.T) {
	w, _ := newPeer(t, nil)
	s := w.server.Server
	s.RegisterFilter("bad", func(c *Conn, asked []byte) bool { panic("a filter's own fault") })
	c := w.welcome(0)
	d := w.welcome(1)
	var told int
	s.Emitter().On(EventError, func(Event) { told++ })
	e := fleet.Entry{Kind: fleet.Filtered, Key: "bad", Frame: turn.NewFrame(ws.OpText, []byte("{}")).Plain}
	if err := s.worker.Receive(3, fleet.Append(nil, &e)); err != nil {
		t.Fatal(err)
	}
	if answer := answerNow(s, fleet.Find, fleet.FindQuestion{Kind: fleet.Filtered, Key: []byte("bad")}.AppendTo(nil)); len(answer) != 3 {
		t.Error("found:", answer)
	}
	w.drain()
	w.expect(c, "")
	w.expect(d, "")
	if n := s.Stats().Panics; n != 2 || told != 2 {
		t.Errorf("%d panics are counted and %d told; it ran twice", n, told)
	}
}

// A worker hears what others say as soon as it takes connections: who has been told that it joined misses nothing.
func TestHearsWhenItAccepts(t *testing.T) {
	hears := false
	startServer(t, nil, func(s *Server) {
		s.worker.Attach(membership.Membership{Instance: 7, Bus: silentBus{}})
		s.Emitter().On(EventStarted, func(Event) { hears = s.worker.Receiving.Load() })
	})
	if !hears {
		t.Error("it accepts, and hears nothing of the others")
	}
}

// A frame that is not one whole message, or not as we write it, would break the streams of all members: it is refused.
func TestDamagedFrames(t *testing.T) {
	whole := turn.NewFrame(ws.OpText, bytes.Repeat([]byte("x"), 200)).Plain
	change := func(f func(b []byte) []byte) []byte { return f(bytes.Clone(whole)) }
	for what, raw := range map[string][]byte{
		"none":       {},
		"one byte":   whole[:1],
		"cut":        whole[:len(whole)-1],
		"too long":   append(bytes.Clone(whole), 0),
		"wrong size": change(func(b []byte) []byte { b[3]--; return b }),
		"short":      change(func(b []byte) []byte { b[1] = 5; return b[:102] }),
		"masked":     change(func(b []byte) []byte { b[1] |= 0x80; return b }),
		"reserved":   change(func(b []byte) []byte { b[0] |= 0x40; return b }),
		"not final":  change(func(b []byte) []byte { b[0] &= 0x7f; return b }),
		"close":      {0x88, 2, 3, 0xe8},
	} {
		w, _ := newPeer(t, nil)
		c := w.welcome(0)
		w.say(c, `{"type":"join","room":"r"}`)
		w.drain()
		w.read(c)
		e := fleet.Entry{Kind: fleet.Publish, Room: "r", Frame: raw}
		if err := w.server.Server.worker.Receive(3, fleet.Append(nil, &e)); err == nil {
			t.Errorf("%s: it is taken", what)
		}
		w.drain()
		w.expect(c, "")
	}
}

// Messages that a dead worker could not send any more are counted and told, and no other worker is asked for them.
func TestMissedOfTheDead(t *testing.T) {
	w, b := newPeer(t, nil)
	s := w.server.Server
	c := w.welcome(0)
	w.say(c, `{"type":"join","room":"r"}`)
	tick := func() {
		w.now += w.server.TickEvery()
		w.server.Tick()
		w.drain()
	}
	tick()
	if n := len(b.of(fleet.Count)); n != 1 {
		t.Fatal(n, "counts are told of one room")
	}
	s.worker.Missed(9)
	tick()
	if n := len(b.of(fleet.Count)); n != 1 || s.Stats().Missed != 1 {
		t.Errorf("after a death %d counts are told, %d misses are counted", n-1, s.Stats().Missed)
	}
	s.link.Peers([]ident.Worker{7, 9})
	s.worker.Missed(9)
	tick()
	if n := len(b.of(fleet.Count)); n != 2 {
		t.Errorf("of who lives, %d counts are asked for", n-1)
	}
}

// The counts of very many rooms are told a part at a time, all of them soon.
func TestManyCounts(t *testing.T) {
	w, b := newPeer(t, nil)
	s := w.server.Server
	const n = 2*fanout.CountsMax + 1
	for i := range n {
		name := ident.ID{Place: ident.Place{Slot: uint32(i)}}.Append(nil)
		entry, err := s.rooms.Index.Enter(name, ident.Place{Loop: 1, Slot: 1, Gen: 1}, 0)
		if err != nil {
			t.Fatal(err)
		}
		s.rooms.Counted(entry.Room)
	}
	l := s.loops[0]
	for turn, told := range []int{fanout.CountsMax, 2 * fanout.CountsMax, n, n} {
		l.ReportCounts()
		if got := len(b.of(fleet.Count)); got != told {
			t.Errorf("%d counts are told after %d turns, want %d", got, turn+1, told)
		}
	}
}

// A worker that learns of a created room asks how many members it has elsewhere: it may have had them before.
func TestCreatedRoomIsCounted(t *testing.T) {
	ws := startWorkers(t, 2, nil, nil)
	a, b := ws.list[0], ws.list[1]
	dial(t, b.Server).join("r")
	eventually(t, "it has been told of, to nobody's use", func() bool {
		return b.rooms.CountsWait() == 0
	})
	a.rooms.RoomCreated(fanout.CreatedRoom{Name: "r"})
	eventually(t, "the member elsewhere is known", func() bool { return a.rooms.Index.FindString("r").Away() == 1 })
	eventually(t, "the room is counted once", func() bool {
		return a.Stats().RoomsCounted+b.Stats().RoomsCounted == 1
	})
}

// A damaged entry is refused, causes no panic, and reaches no client.
func FuzzReceive(f *testing.F) {
	frame := turn.NewFrame(ws.OpText, []byte(`{"type":"x"}`)).Plain
	who := []ident.ID{{Worker: 7, Place: ident.Place{Loop: 0, Slot: 0, Gen: 1}}, {Worker: 3, Place: ident.Place{Loop: 1, Slot: 2, Gen: 3}}}
	for _, e := range []fleet.Entry{
		{Kind: fleet.Publish, Room: "r", Conns: who, Frame: frame},
		{Kind: fleet.Spread, Rooms: []string{"r", "s"}, Conns: who, Frame: frame},
		{Kind: fleet.Spread, Frame: frame},
		{Kind: fleet.Matching, Target: 7, Key: "k", Frame: frame, Body: fleet.Body{Payload: []byte("1")}},
		{Kind: fleet.Filtered, Target: 7, Key: "all", Frame: frame, Body: fleet.Body{Payload: []byte("1")}},
		{Kind: fleet.Direct, Target: 7, Conns: who[:1], Frame: frame},
		{Kind: fleet.Count, Room: "r", Body: fleet.Body{Members: 3, Asks: fleet.AsksMembers}},
		{Kind: fleet.Notice, Room: "r", Conns: who[1:], Frame: frame, Body: fleet.Body{On: true}},
		{Kind: fleet.Roster, Room: "r", Conns: who[1:], Body: fleet.Body{Loop: 1}},
		{Kind: fleet.Quiet, Room: "r"},
		{Kind: fleet.Wish, Body: fleet.Body{Events: 31, Asks: fleet.AsksMembers}},
		{Kind: fleet.Census, Target: 7},
		{Kind: fleet.Event, Body: fleet.Body{Payload: []byte(`{"kind":"websocket.connect","conn":{}}`)}},
		{Kind: fleet.Answer, Target: 7, Body: fleet.Body{Number: 1, Payload: []byte("x")}},
		{Kind: fleet.Vacate, Room: "s"},
		{Kind: fleet.Full, Body: fleet.Body{On: true}},
		{Kind: fleet.Figures, Body: fleet.Body{Figures: fleet.FigureSet{Connections: 1, Rooms: 1, Sent: 1, Received: 1, Memory: 1, Uptime: 1}}},
	} {
		f.Add(fleet.Append(nil, &e), []byte(nil))
	}
	for _, v := range []fleet.Verb{fleet.HandOver, fleet.Connections, fleet.Stats, fleet.Members, fleet.Rooms, fleet.Find, fleet.Facts, fleet.Close,
		fleet.Join, fleet.Leave, fleet.Send} {
		e := fleet.Entry{Kind: fleet.Request, Target: 7, Body: fleet.Body{Number: 1, Verb: v}}
		f.Add(fleet.Append(nil, &e), []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 4, 'r', 0})
	}
	f.Fuzz(func(t *testing.T, entry, question []byte) {
		w, _ := newPeer(t, nil)
		s := w.server.Server
		defer s.pools.Answering.Close()
		s.RegisterFilter("all", func(*Conn, []byte) bool { return true })
		c := w.welcome(0)
		w.say(c, `{"type":"join","room":"r"}`)
		w.say(c, `{"type":"join","room":"s"}`)
		w.drain()
		w.read(c)
		_ = s.worker.Receive(3, entry)
		if h, _ := fleet.Decode(entry, s.link.Self); h.Kind == fleet.Request { // what else runs on the pool
			everyAnswer(s, h.Verb, question)
		}
		s.worker.Gone(3)
		w.drain()
		w.read(c) // fails where the stream is damaged
		w.server.Gone(c)
		w.drain()
		s.rooms.Index.Range(func(r *rooms.Room) bool {
			t.Errorf("room %q is left with %d members", r.Name(), r.Len())
			return true
		})
	})
}

// answerNow returns the answer of a server in lockstep, also where the answer is one for the pool.
func answerNow(s *Server, v fleet.Verb, question []byte) (answer []byte) {
	s.worker.Answer(v, question, func(b []byte) { answer = b })
	for s.pools.Answering.RunOne() {
	}
	return answer
}

// everyAnswer has a question answered, here and now, and reads the answer as the asking worker would; then it takes the
// question for an answer.
func everyAnswer(s *Server, v fleet.Verb, question []byte) {
	asked := []fleet.Verb{fleet.Stats, fleet.Members, fleet.Rooms, fleet.Find}
	for _, answer := range [][]byte{question, nil} {
		if answer == nil && slices.Contains(asked, v) {
			answer = answerNow(s, v, question)
		}
		switch r := (&fleet.Reader{Rest: answer}); v {
		case fleet.HandOver:
			session.ReadHandOver(answer)
		case fleet.Members:
			new(fanout.MembersList).Take(3, r)
		case fleet.Rooms:
			for r.Number(); len(r.Rest) > 0 && !r.Bad; {
				fanout.ReadRoomStats(r)
			}
		default:
			_ = membership.ReadOutcome(r)
		}
	}
}

// Entries of a newer version that this one does not know are skipped and counted; such a question is not answered.
func TestNewerWorkers(t *testing.T) {
	w, b := newPeer(t, nil)
	s := w.server.Server
	further := append(fleet.Append(nil, &fleet.Entry{Kind: fleet.Vacate, Room: "r"}), 1, 2, 3)
	further[0]++
	said := len(b.entries)
	for n, entry := range [][]byte{
		{fleet.Version + 1, byte(fleet.KindsEnd), 0, 0, 9, 9},
		further,
		fleet.Append(nil, &fleet.Entry{Kind: fleet.Request, Target: 7, Body: fleet.Body{Number: 1, Verb: 200}}),
	} {
		if err := s.worker.Receive(3, entry); err != nil || s.Stats().EntriesSkipped != uint64(n+1) {
			t.Errorf("entry %d: %v, %d are counted", n, err, s.Stats().EntriesSkipped)
		}
	}
	if len(b.entries) != said {
		t.Error("it is answered")
	}
}

// An id that no worker can have given names no connection, also where it names another worker that lives.
func TestSendToNobody(t *testing.T) {
	w, _ := newPeer(t, nil)
	s := w.server.Server
	s.link.Peers([]ident.Worker{7, 8})
	for p, want := range map[ident.Place]bool{{Loop: 1, Slot: 3, Gen: 5}: true, {Loop: 2, Slot: 3, Gen: 5}: false, {Loop: 1, Slot: 3}: false} {
		if s.SendTo(ident.ID{Worker: 8, Place: p}.String(), M{"type": "x"}) != want {
			t.Errorf("%v: not %v", p, want)
		}
	}
	if s.SendTo(ident.ID{Worker: 9, Place: ident.Place{Gen: 1}}.String(), M{"type": "x"}) {
		t.Error("a worker that does not live has a connection")
	}
}

// A worker that deletes a room that came to be by itself does not delete the one that was created since.
func TestLateDeletionSparesCreatedRoom(t *testing.T) {
	w, _ := newPeer(t, nil)
	s := w.server.Server
	c := w.open(0)
	w.say(c, `{"type":"join","room":"r"}`)
	s.rooms.RoomCreated(fanout.CreatedRoom{Name: "r", MaxMembers: 5})
	if err := s.worker.Receive(9, fleet.Append(nil, &fleet.Entry{Kind: fleet.Vacate, Room: "r"})); err != nil {
		t.Fatal(err)
	}
	w.drain()
	if r := s.rooms.Index.FindString("r"); r == nil || !r.Explicit() || r.Len() != 1 {
		t.Error("the created room is gone, or empty")
	}
}
