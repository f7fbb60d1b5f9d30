package engine

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/engine/internal/fanout"
	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/deflate"
)

// script is a world for tests that say themselves what happens when.
type script struct {
	t      testing.TB
	now    time.Duration
	server *Lockstep
	out    map[int]*bytes.Buffer
	takes  map[int]int // bytes that a wire still takes; unlimited where there is no entry
	rung   []bool
	seed   byte
	mute   bool // what is written is thrown away
	writes int
	pace   time.Duration // that a write takes
	ends   []string      // of wires: "shut 0" when our half is shut, "drop 0" when it is closed
}

func newScript(t testing.TB, change func(*Config)) *script {
	cfg := DefaultConfig()
	cfg.Loops = 2
	if change != nil {
		change(&cfg)
	}
	w := &script{t: t, out: map[int]*bytes.Buffer{}, takes: map[int]int{}, rung: make([]bool, cfg.Loops)}
	x, err := NewLockstep(cfg, w, WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	w.server = x
	return w
}

func (w *script) Now() time.Duration { return w.now }

func (w *script) Entropy(b []byte) {
	for i := range b {
		w.seed += 13
		b[i] = w.seed
	}
}

func (w *script) Write(wire int, p []byte) (int, bool) {
	w.writes++
	w.now += w.pace
	if w.mute {
		return len(p), true
	}
	n := len(p)
	if left, ok := w.takes[wire]; ok {
		n = min(n, left)
		w.takes[wire] -= n
	}
	w.out[wire].Write(p[:n])
	return n, true
}

func (w *script) Shutdown(wire int) { w.ends = append(w.ends, fmt.Sprint("shut ", wire)) }

func (w *script) Drop(wire int) { w.ends = append(w.ends, fmt.Sprint("drop ", wire)) }

func (w *script) Watch(int) {}

func (w *script) Ring(loop int) { w.rung[loop] = true }

// open connects a client and returns it greeted. Wires are counted from 0 as they are opened.
func (w *script) open(loop int) *Conn {
	wire := len(w.out)
	w.out[wire] = new(bytes.Buffer)
	c := w.server.Open(loop, wire)
	w.server.Serve(c, []byte("GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"))
	w.server.Offloaded()
	w.drain()
	return c
}

// drain gives every loop the turns that it asked for.
func (w *script) drain() {
	for again := true; again; {
		again = false
		for loop := range w.rung {
			if w.rung[loop] {
				w.rung[loop], again = false, true
				w.server.Drain(loop)
			}
		}
	}
}

// pass lets time pass, tick by tick.
func (w *script) pass(d time.Duration) {
	for step := w.server.TickEvery(); d > 0; d -= step {
		w.now += min(d, step)
		w.server.Tick()
		w.drain()
	}
}

// say serves a text message of a client.
func (w *script) say(c *Conn, text string) { w.server.Serve(c, masked(ws.OpText, text)) }

func masked(op ws.OpCode, text string) []byte {
	var buf bytes.Buffer
	ws.WriteFrame(&buf, ws.MaskFrame(ws.NewFrame(op, true, []byte(text))))
	return buf.Bytes()
}

// read takes what a client was sent since the last time: the text of each frame, "close CODE" for a close frame.
func (w *script) read(c *Conn) (texts []string) {
	w.t.Helper()
	raw := w.out[int(c.wire.Fd)]
	if at := bytes.Index(raw.Bytes(), []byte("\r\n\r\n")); at >= 0 && bytes.HasPrefix(raw.Bytes(), []byte("HTTP")) {
		raw.Next(at + 4)
	}
	for raw.Len() > 0 {
		f, err := ws.ReadFrame(raw)
		if err != nil {
			w.t.Fatalf("the stream breaks off or is damaged: %v", err)
		}
		if f.Header.Rsv1() {
			f.Payload, _ = deflate.Inflate(nil, f.Payload, 1<<20, nil)
		}
		switch f.Header.OpCode {
		case ws.OpText:
			texts = append(texts, string(f.Payload))
		case ws.OpClose:
			code, _ := ws.ParseCloseFrameData(f.Payload)
			texts = append(texts, fmt.Sprint("close ", code))
		}
	}
	return texts
}

// kinds shortens messages to their types.
func kinds(texts []string) string {
	var list []string
	for _, text := range texts {
		kind, _, _ := strings.Cut(strings.TrimPrefix(text, `{"type":"`), `"`)
		list = append(list, kind)
	}
	return strings.Join(list, " ")
}

func (w *script) expect(c *Conn, want string) []string {
	w.t.Helper()
	texts := w.read(c)
	if got := kinds(texts); got != want {
		w.t.Fatalf("the client reads %q, want %q: %v", got, want, texts)
	}
	return texts
}

// token is the latest token that a client was given.
func (w *script) token(c *Conn) string { return c.wire.Token() }

// An answer that goes through the mailbox pays for its place as much as it gives back.
func TestPostedAnswerIsAccountedFor(t *testing.T) {
	w := newScript(t, nil)
	c := w.open(0)
	c.Send(M{"type": "push"})
	w.say(c, `{"type":"ping"}`)
	w.drain()
	w.expect(c, "connected reconnect_token push pong")
	if m := &c.loop().Mail; m.Waiting.Load() != 0 || m.Bytes.Load() != 0 {
		t.Error("the account does not close:", m.Waiting.Load(), m.Bytes.Load())
	}
}

// Nothing of a room arrives before the answer to the join, whatever is published at that very moment and
// whatever else is on its way to the client.
func TestNothingOvertakesJoined(t *testing.T) {
	w := newScript(t, nil)
	s := w.server.Server
	c, other := w.open(0), w.open(1)
	s.Emitter().On(EventRoomJoin, func(ev Event) { s.Broadcast(ev.Room, M{"type": "news"}) })
	w.read(c)
	c.Send(M{"type": "push"})
	w.say(c, `{"type":"join","room":"r"}`)
	w.say(c, `{"type":"ping"}`)
	w.drain()
	w.expect(c, "push joined pong news")

	w.say(other, `{"type":"join","room":"r"}`)
	w.drain()
	w.read(c)
	token := w.token(other)
	w.server.Gone(other)
	w.drain()
	w.read(c)
	heir := w.open(1)
	w.read(heir)
	heir.Send(M{"type": "push"})
	w.say(heir, `{"type":"reconnect","token":"`+token+`"}`)
	w.drain()
	w.expect(heir, "push reconnected reconnect_token news")
}

// A frame that the kernel has a part of is finished, also when the connection ends because it is slow.
func TestHalfWrittenAnswerIsFinished(t *testing.T) {
	w := newScript(t, func(c *Config) { c.MessageBytesMax, c.BacklogSoftBytes, c.BacklogHardBytes = 1<<10, 1<<10, 2<<10 })
	c := w.open(0)
	w.read(c)
	w.takes[int(c.wire.Fd)] = 10 // of the answer
	w.say(c, `{"type":"ping"}`)
	c.Send(M{"type": "push", "pad": strings.Repeat("x", 3<<10)})
	w.drain()
	if c.Cause() != CauseSlow {
		t.Fatal("the backlog is over its bound, and the cause is", c.Cause())
	}
	delete(w.takes, int(c.wire.Fd))
	w.server.Writable(c)
	w.drain()
	w.expect(c, "pong close 4003")
}

// Pings to a silent peer count toward its backlog like all frames.
func TestPingsAreBounded(t *testing.T) {
	w := newScript(t, func(c *Config) {
		c.MessageBytesMax, c.BacklogSoftBytes, c.BacklogHardBytes = 125, 125, 125
		c.HeartbeatInterval, c.HeartbeatTimeout = time.Second, time.Hour
	})
	c := w.open(0)
	w.takes[int(c.wire.Fd)] = 0
	w.pass(20 * time.Second)
	if c.Cause() != CauseSlow || w.server.Backlog(c) > 125+32 {
		t.Error("a peer that takes nothing has a backlog of", w.server.Backlog(c), "and the cause", c.Cause())
	}
}

// A client that enters a new room of the same name hears that the old one ended, and then that it is in the new one: what it knew
// of the members is over.
func TestDeletedRoomAndItsHeir(t *testing.T) {
	w := newScript(t, nil)
	s := w.server.Server
	a, b := w.open(0), w.open(1)
	w.say(a, `{"type":"join","room":"r"}`)
	w.say(b, `{"type":"join","room":"r"}`)
	w.drain()
	w.read(a)
	w.read(b)
	s.Rooms().Delete("r")
	w.say(a, `{"type":"join","room":"r"}`)
	w.drain()
	w.expect(a, "left joined")
	w.expect(b, "left")
	if !s.Rooms().Has("r", a) || s.Rooms().Has("r", b) {
		t.Error("the new room has the wrong members")
	}
}

// A member that enters a new room before it has left the deleted one of the same name leaves first: an application that counts the
// events knows where the connection is.
func TestDeletedRoomIsLeftBeforeItsHeir(t *testing.T) {
	w := newScript(t, nil)
	s := w.server.Server
	var events []string
	for _, kind := range []EventKind{EventRoomJoin, EventRoomLeave} {
		s.Emitter().On(kind, func(ev Event) { events = append(events, string(kind)+" "+ev.Room) })
	}
	a := w.open(0)
	for range 3 {
		w.say(a, `{"type":"join","room":"r"}`)
		s.Rooms().Delete("r")
	}
	w.say(a, `{"type":"join","room":"r"}`)
	w.drain()
	join, leave := string(EventRoomJoin)+" r", string(EventRoomLeave)+" r"
	if want := []string{join, leave, join, leave, join, leave, join}; !slices.Equal(events, want) {
		t.Errorf("the events are %q", events)
	}
	if n := s.rooms.Emptying(); n != 0 || !s.Rooms().Has("r", a) || !slices.Equal(a.Rooms(), []string{"r"}) {
		t.Error("it is in", a.Rooms(), "and", n, "rooms are being emptied")
	}
}

// A room that was deleted is not brought back by the session of a member that dropped at that moment.
func TestDeletedRoomIsNotRestored(t *testing.T) {
	w := newScript(t, nil)
	c := w.open(0)
	w.say(c, `{"type":"join","room":"r"}`)
	token := w.token(c)
	w.server.Server.Rooms().Delete("r")
	w.server.Gone(c)
	w.drain()
	heir := w.open(0)
	w.say(heir, `{"type":"reconnect","token":"`+token+`"}`)
	w.drain()
	texts := w.expect(heir, "connected reconnect_token reconnected reconnect_token")
	if !strings.Contains(texts[2], `"rooms":[]`) {
		t.Error(texts[2])
	}
}

// A peer that hangs up is announced at once, not when the clock comes by.
func TestGoneIsAnnouncedAtOnce(t *testing.T) {
	w := newScript(t, nil)
	a, b := w.open(0), w.open(1)
	w.say(a, `{"type":"join","room":"r"}`)
	w.say(b, `{"type":"join","room":"r"}`)
	w.drain()
	w.read(a)
	w.server.Gone(b)
	w.drain()
	w.expect(a, "member_left")
}

// A join and a leave within a turn cancel each other only if no other member joined in between.
func TestNoticesCancelUnlessSomebodyCame(t *testing.T) {
	w := newScript(t, nil)
	a, b := w.open(0), w.open(0)
	w.say(a, `{"type":"join","room":"r"}`)
	w.drain()
	w.read(a)
	twice := append(masked(ws.OpText, `{"type":"join","room":"r"}`), masked(ws.OpText, `{"type":"leave","room":"r"}`)...)
	w.server.Serve(b, twice)
	w.drain()
	w.expect(a, "")
	c, once := w.open(1), false
	w.server.Server.Emitter().On(EventRoomJoin, func(ev Event) {
		if !once { // b has joined, its loop is in the middle of the turn, and c comes
			once = true
			w.say(c, `{"type":"join","room":"r"}`)
		}
	})
	w.read(b)
	w.read(c)
	w.server.Serve(b, append(masked(ws.OpText, `{"type":"join","room":"r"}`), masked(ws.OpText, `{"type":"leave","room":"r"}`)...))
	w.drain()
	texts := w.expect(c, "joined member_left")
	if !strings.Contains(texts[0], `"members":3`) {
		t.Error(texts)
	}
}

// A seat that the application holds belongs to no member until its connection enters: `joined` does not count it, and no
// notice of it is missing.
func TestHeldSeats(t *testing.T) {
	w := newScript(t, nil)
	a, b := w.open(0), w.open(1)
	w.read(a)
	w.read(b)
	if err := w.server.Server.Rooms().Join(b, "r"); err != nil {
		t.Fatal(err)
	}
	w.say(a, `{"type":"join","room":"r"}`)
	w.server.Server.Broadcast("r", M{"type": "news"})
	w.drain()
	texts := w.expect(a, "joined news member_joined")
	if !strings.Contains(texts[0], `"members":1`) {
		t.Error(texts[0])
	}
	w.expect(b, "joined news member_joined")
}

// The attempts of a session count, too, when it is claimed while its connection ends.
func TestAttemptsOfAnEndingSession(t *testing.T) {
	w := newScript(t, func(c *Config) { c.ReconnectionMaxAttempts = 1 })
	first, second, third := w.open(0), w.open(0), w.open(1)
	w.say(second, `{"type":"reconnect","token":"`+w.token(first)+`"}`)
	w.drain()
	w.read(third)
	w.say(third, `{"type":"reconnect","token":"`+w.token(second)+`"}`) // its letter is on the way
	w.server.Gone(second)
	w.drain()
	texts := w.expect(third, "error")
	if !strings.Contains(texts[0], "attempts_exhausted") {
		t.Error(texts[0])
	}
}

// The heartbeat of a connection that waited long for its verdict starts when it is let in.
func TestHeartbeatStartsWithTheUpgrade(t *testing.T) {
	w := newScript(t, func(c *Config) {
		c.HeartbeatInterval, c.HeartbeatTimeout, c.OffloadTimeout = time.Second, 2*time.Second, time.Minute
	})
	w.server.Server.OnConnect(func(*Conn, *Request) error {
		w.now += 10 * time.Second
		return nil
	})
	c := w.open(0)
	w.pass(1500 * time.Millisecond)
	w.expect(c, "connected reconnect_token ping")
}

// The members of a large room come in pages.
func TestMembersInPages(t *testing.T) {
	w := newScript(t, func(c *Config) { c.AnnounceMembersMax = -1 })
	const n = 2*fanout.MembersMax + 7
	var first *Conn
	for i := range n {
		c := w.open(i % 2)
		w.say(c, `{"type":"join","room":"r"}`)
		if first == nil {
			first = c
		}
	}
	w.read(first)
	seen, after, pages := map[string]bool{}, "", 0
	for more := true; more; pages++ {
		w.say(first, `{"type":"members","room":"r"`+after+`}`)
		var page struct {
			Count   int
			Members []string
			Partial bool
			Next    string
		}
		if err := json.Unmarshal([]byte(w.expect(first, "members")[0]), &page); err != nil {
			t.Fatal(err)
		}
		if page.Count != n || page.Partial != (page.Next != "") || page.Partial && len(page.Members) != fanout.MembersMax {
			t.Fatalf("page %d: %d of %d members, next %q", pages, len(page.Members), page.Count, page.Next)
		}
		for _, id := range page.Members {
			seen[id] = true
		}
		more, after = page.Partial, `,"after":"`+page.Next+`"`
	}
	if len(seen) != n || pages != 3 {
		t.Errorf("%d members on %d pages", len(seen), pages)
	}
	for _, wrong := range []string{`"x"`, `"1"`, `"1.2"`, `"1.300.3"`, `"1.2.3.4"`, `""`, `"-1.5"`} {
		w.say(first, `{"type":"members","room":"r","after":`+wrong+`}`)
		w.expect(first, "error")
	}
}

// A peer has two seconds for its close frame, and two more to end its stream; then it is cut off.
func TestCloseOfASilentPeer(t *testing.T) {
	w := newScript(t, nil)
	c := w.open(0)
	w.read(c)
	w.server.SendAway()
	w.drain()
	w.expect(c, "goodbye close 1001")
	for _, step := range []struct {
		pass time.Duration
		want []string
	}{{1900, nil}, {200, []string{"shut 0"}}, {1800, []string{"shut 0"}}, {300, []string{"shut 0", "drop 0"}}} {
		w.pass(step.pass * time.Millisecond)
		if !slices.Equal(w.ends, step.want) {
			t.Fatalf("after %v the wire has seen %q, want %q", w.now, w.ends, step.want)
		}
	}
}

// Letters that keep coming and queue no frame do not keep a loop from its input.
func TestLettersLeaveTimeForInput(t *testing.T) {
	w := newScript(t, nil)
	l, opened := w.server.Server.loops[0], 0
	var again func()
	again = func() {
		w.now += 100 * time.Microsecond
		if opened++; opened < 1000 {
			l.PostCall(again)
		}
	}
	l.PostCall(again)
	w.rung[0] = false
	w.server.Drain(0)
	if most := int(turn.DrainBudget/(100*time.Microsecond)) + 2; opened > most || !w.rung[0] {
		t.Errorf("%d letters were opened in one turn, %d fit; it goes on: %v", opened, most, w.rung[0])
	}
}
