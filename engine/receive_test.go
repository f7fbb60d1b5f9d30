package engine

import (
	"bytes"
	"errors"
	"testing"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/rooms"
)

// spoken is a bus that keeps what it is given.
type spoken struct {
	deaf
	entries [][]byte
}

func (b *spoken) Append(entry []byte) error {
	b.entries = append(b.entries, bytes.Clone(entry))
	return nil
}

// of are the entries of a kind.
func (b *spoken) of(kind entryKind) (list [][]byte) {
	for _, entry := range b.entries {
		if entryKind(entry[0]) == kind {
			list = append(list, entry)
		}
	}
	return list
}

// newPeer is one of several workers in lockstep; what it says is kept.
func newPeer(t testing.TB, change func(*Config)) (*script, *spoken) {
	w := newScript(t, change)
	b := &spoken{}
	s := w.server.Server
	s.Attach(Membership{Instance: 7, Bus: b})
	s.receiving.Store(true)
	return w, b
}

// Who is chosen by a function gets the message, or nobody does: also where one loop takes no letters.
func TestChosenAllOrNobody(t *testing.T) {
	w := newScript(t, nil)
	s := w.server.Server
	c, d := w.welcome(0), w.welcome(1)
	all := func(*Conn) bool { return true }
	s.loops[1].mail.waiting.Add(mailboxLettersMax)
	if n, err := s.BroadcastWhere(all, M{"type": "x"}); n != 0 || !errors.Is(err, ErrOverloaded) {
		t.Fatal(n, err)
	}
	s.loops[1].mail.waiting.Add(-mailboxLettersMax)
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
		if n := l.mail.waiting.Load(); n != 0 {
			t.Errorf("loop %d keeps %d places", l.index, n)
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
	e := new(entryWriter).begin(entryFiltered, 0).text("bad").text("").places(nil).frame(newOutFrame(ws.OpText, []byte("{}")))
	if err := s.Receive(3, e.buf); err != nil {
		t.Fatal(err)
	}
	if answer := s.answerFind(&entryReader{rest: (&findQuestion{kind: entryFiltered, key: "bad"}).appendTo(nil)}); len(answer) != 3 {
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
		s.Attach(Membership{Instance: 7, Bus: deaf{}})
		s.Emitter().On(EventStarted, func(Event) { hears = s.receiving.Load() })
	})
	if !hears {
		t.Error("it accepts, and is deaf to the others")
	}
}

// A frame that is not one whole message, or not as we write it, would break the streams of all members: it is refused.
func TestDamagedFrames(t *testing.T) {
	whole := newOutFrame(ws.OpText, bytes.Repeat([]byte("x"), 200)).plain
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
		e := new(entryWriter).begin(entryPublish, 0).text("r").places(nil)
		if err := w.server.Server.Receive(3, append(e.buf, raw...)); err == nil {
			t.Errorf("%s: it is taken", what)
		}
		w.drain()
		w.expect(c, "")
	}
}

// What a dead worker could not say any more is counted and told, and nobody else is asked for it.
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
	if n := len(b.of(entryCount)); n != 1 {
		t.Fatal(n, "counts are told of one room")
	}
	s.Missed(9)
	tick()
	if n := len(b.of(entryCount)); n != 1 || s.Stats().Missed != 1 {
		t.Errorf("after a death %d counts are told, %d misses are counted", n-1, s.Stats().Missed)
	}
	s.Peers([]ident.Worker{7, 9})
	s.Missed(9)
	tick()
	if n := len(b.of(entryCount)); n != 2 {
		t.Errorf("of who lives, %d counts are asked for", n-1)
	}
}

// The counts of very many rooms are told a part at a time, all of them soon.
func TestManyCounts(t *testing.T) {
	w, b := newPeer(t, nil)
	s := w.server.Server
	const n = 2*countsMax + 1
	for i := range n {
		name := ident.ID{Place: place{Slot: uint32(i)}}.Append(nil)
		entry, err := s.index.Enter(name, place{Loop: 1, Slot: 1, Gen: 1}, 0)
		if err != nil {
			t.Fatal(err)
		}
		s.counted(entry.Room)
	}
	l := s.loops[0]
	for turn, told := range []int{countsMax, 2 * countsMax, n, n} {
		l.reportCounts()
		if got := len(b.of(entryCount)); got != told {
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
		b.peers.mu.Lock()
		defer b.peers.mu.Unlock()
		return len(b.peers.changed) == 0
	})
	a.RoomCreated(CreatedRoom{Name: "r"})
	eventually(t, "the member elsewhere is known", func() bool { return a.index.FindString("r").Away() == 1 })
	eventually(t, "the room is counted once", func() bool {
		return a.Stats().RoomsCounted+b.Stats().RoomsCounted == 1
	})
}

// What is garbage is refused, panics nowhere, and reaches nobody.
func FuzzReceive(f *testing.F) {
	frame := newOutFrame(ws.OpText, []byte(`{"type":"x"}`))
	who := []ident.ID{{Worker: 7, Place: place{Loop: 0, Slot: 0, Gen: 1}}, {Worker: 3, Place: place{Loop: 1, Slot: 2, Gen: 3}}}
	for _, w := range []*entryWriter{
		new(entryWriter).begin(entryPublish, 0).text("r").places(who).frame(frame),
		new(entryWriter).begin(entrySpread, 0).number(2).text("r").text("s").places(who).frame(frame),
		new(entryWriter).begin(entrySpread, 0).number(0).places(nil).frame(frame),
		new(entryWriter).begin(entryMatching, 7).text("k").text("1").places(nil).frame(frame),
		new(entryWriter).begin(entryFiltered, 7).text("all").text("1").places(nil).frame(frame),
		new(entryWriter).begin(entryDirect, 7).places(who[:1]).frame(frame),
		new(entryWriter).begin(entryCount, 0).text("r").number(3).number(1),
		new(entryWriter).begin(entryNotice, 0).text("r").number(1).places(who[1:]).frame(frame),
		new(entryWriter).begin(entryRoster, 0).text("r").number(1).places(who[1:]),
		new(entryWriter).begin(entryQuiet, 0).text("r"),
		new(entryWriter).begin(entryWish, 0).number(31).number(1),
		new(entryWriter).begin(entryCensus, 7),
		new(entryWriter).begin(entryEvent, 0).text(`{"kind":"websocket.connect","conn":{}}`),
		new(entryWriter).begin(entryAnswer, 7).number(1).text("x"),
		new(entryWriter).begin(entryVacate, 0).text("s"),
		new(entryWriter).begin(entryFull, 0).number(1),
		new(entryWriter).begin(entryFigures, 0).number(1).number(1).number(1).number(1).number(1).number(1),
	} {
		f.Add(bytes.Clone(w.buf), []byte(nil))
	}
	for _, v := range []verb{verbHandOver, verbCount, verbStats, verbMembers, verbRooms, verbFind, verbFacts, verbClose, verbJoin, verbLeave, verbSend} {
		f.Add([]byte{byte(entryRequest), 0, 7, 1, v, 0}, []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 4, 'r', 0})
	}
	f.Fuzz(func(t *testing.T, entry, question []byte) {
		w, _ := newPeer(t, nil)
		s := w.server.Server
		defer s.peers.answering.close()
		s.RegisterFilter("all", func(*Conn, []byte) bool { return true })
		c := w.welcome(0)
		w.say(c, `{"type":"join","room":"r"}`)
		w.say(c, `{"type":"join","room":"s"}`)
		w.drain()
		w.read(c)
		_ = s.Receive(3, entry)
		if len(entry) > 4 && entryKind(entry[0]) == entryRequest { // what else runs on the pool
			everyAnswer(s, entry[4], question)
		}
		s.Gone(3)
		w.drain()
		w.read(c) // fails where the stream is damaged
		w.server.Gone(c)
		w.drain()
		s.index.Range(func(r *rooms.Room) bool {
			t.Errorf("room %q is left with %d members", r.Name(), r.Len())
			return true
		})
	})
}

// everyAnswer has a question answered, here and now, and reads the answer as whoever asked would; then it takes the
// question for an answer.
func everyAnswer(s *Server, v verb, question []byte) {
	ask := map[verb]func(*Server, *entryReader) []byte{verbStats: (*Server).answerStats, verbMembers: (*Server).answerMembers,
		verbRooms: (*Server).answerRooms, verbFind: (*Server).answerFind}
	for _, answer := range [][]byte{question, nil} {
		if f := ask[v]; f != nil && answer == nil {
			answer = f(s, &entryReader{rest: question})
		}
		switch r := (&entryReader{rest: answer}); v {
		case verbHandOver:
			_, _ = decodeHandover(answer)
		case verbMembers:
			readMembersPage(r, 3)
		case verbRooms:
			for r.number(); len(r.rest) > 0 && !r.bad; {
				readRoomStats(r)
			}
		default:
			_ = readOutcome(r)
		}
	}
}

// An id that no worker can have given is nobody's, also where it names another worker that lives.
func TestSendToNobody(t *testing.T) {
	w, _ := newPeer(t, nil)
	s := w.server.Server
	s.Peers([]ident.Worker{7, 8})
	for p, want := range map[place]bool{{Loop: 1, Slot: 3, Gen: 5}: true, {Loop: 2, Slot: 3, Gen: 5}: false, {Loop: 1, Slot: 3}: false} {
		if s.SendTo(ident.ID{Worker: 8, Place: p}.String(), M{"type": "x"}) != want {
			t.Errorf("%v: not %v", p, want)
		}
	}
	if s.SendTo(ident.ID{Worker: 9, Place: place{Gen: 1}}.String(), M{"type": "x"}) {
		t.Error("a worker that does not live has a connection")
	}
}
