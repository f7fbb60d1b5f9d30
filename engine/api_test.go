package engine

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/protocol/ident"
)

// Events come in order, to every listener, of every server that shares the emitter.
func TestEvents(t *testing.T) {
	emitter := NewEmitter()
	var mu sync.Mutex
	var seen []string
	note := func(text string) {
		mu.Lock()
		seen = append(seen, text)
		mu.Unlock()
	}
	var tokens []string
	for _, kind := range []EventKind{EventStarted, EventStopped, EventConnect, EventMessage, EventRoomJoin, EventRoomLeave, EventReconnect} {
		emitter.On(kind, func(e Event) {
			text := strings.TrimPrefix(string(e.Kind), "websocket.") + e.Room
			if e.Message != nil {
				text += ":" + e.Message.Type()
			}
			note(text)
		})
	}
	emitter.On(EventDisconnect, func(e Event) {
		note("disconnect:" + e.Cause.String())
		mu.Lock()
		tokens = append(tokens, e.Token)
		mu.Unlock()
	})
	emitter.On(EventConnect, func(Event) { panic("a listener's panic stops nobody") })
	second := 0
	off := emitter.On(EventConnect, func(Event) { mu.Lock(); second++; mu.Unlock() })
	cfg := DefaultConfig()
	cfg.Port, cfg.Loops = -1, 1
	s, err := New(cfg, WithEmitter(emitter), WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	c := dial(t, s)
	c.send(`{"type":"join","room":"r"}`)
	c.expect("joined")
	c.conn.Close()
	eventually(t, "disconnect", func() bool { return s.ConnectionCount() == 0 })
	off()
	heir := dial(t, s)
	mu.Lock()
	token := tokens[0]
	mu.Unlock()
	heir.send(`{"type":"reconnect","token":"` + token + `"}`)
	heir.expect("reconnected")
	stopped := make(chan error, 1)
	go func() { stopped <- s.Shutdown(t.Context()) }()
	heir.expectClose()
	heir.conn.Close() // or the server would wait for it
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	want := []string{"started", "connect", "message:join", "room.joinr", "room.leaver", "disconnect:peer_gone", "connect", "message:reconnect", "room.joinr", "reconnect", "room.leaver", "disconnect:shutdown", "stopped"}
	// A session is parked before its rooms are left: both orders of leave and disconnect are one turn.
	mu.Lock()
	defer mu.Unlock()
	if !slices.Equal(seen, want) {
		t.Errorf("\n got %v\nwant %v", seen, want)
	}
	if second != 1 {
		t.Errorf("a listener behind one that panics was told %d times", second)
	}
}

func TestConnections(t *testing.T) {
	s := startServer(t, nil, nil)
	a, b := dial(t, s), dial(t, s)
	ca, cb := s.Connection(a.id), s.Connection(b.id)
	if ca == nil || cb == nil || s.ConnectionCount() != 2 || len(slices.Collect(s.Connections())) != 2 {
		t.Fatal("connections are missing")
	}
	if s.Connection("") != nil || s.Connection("zz") != nil || s.Connection(strings.Repeat("0", ident.TextBytes)) != nil || s.Connection(a.id[:len(a.id)-1]+"x") != nil {
		t.Error("an id of nobody finds somebody")
	}
	facts := ca.Facts()
	if facts.ID != a.id || facts.RemoteAddress != "127.0.0.1" || time.Since(time.Unix(facts.ConnectedAt, 0)) > time.Minute {
		t.Error(facts)
	}
	if err := ca.SetAttribute("user_id", 123); err != nil {
		t.Fatal(err)
	}
	ca.SetAttribute("profile", map[string]any{"b": 1, "a": 2})
	if got := s.FindByAttribute("profile", map[string]any{"a": 2, "b": 1}); len(got) != 1 || got[0] != ca {
		t.Error("equal values are not found:", got)
	}
	if got := s.FindByAttribute("user_id", 123); len(got) != 1 {
		t.Error(got)
	}
	if _, ok := Attribute[string](ca, "user_id"); ok {
		t.Error("a number was read as a string")
	}
	if _, ok := Attribute[int](ca, "none"); ok {
		t.Error("what was never set is there")
	}
	if err := ca.SetAttribute("big", strings.Repeat("x", 20<<10)); err != ErrAttributesFull {
		t.Error(err)
	}
	ca.SetAttribute("user_id", nil)
	if ca.Attribute("user_id") != nil || len(ca.Attributes()) != 1 {
		t.Error(ca.Attributes())
	}
	if err := ca.SetUserData([]int{1, 2}); err != nil {
		t.Fatal(err)
	}
	if v, ok := UserData[[]int](ca); !ok || len(v) != 2 {
		t.Error(v, ok)
	}
	if !s.SendTo(a.id, M{"type": "x"}) || s.SendTo("nobody", M{"type": "x"}) {
		t.Error("SendTo tells the wrong thing")
	}
	a.expect("x")
	if !ca.Alive() || time.Since(ca.LastActivity()) > time.Minute {
		t.Error("a fresh connection is not alive")
	}
	ca.Close()
	if code := a.expectClose(); code != ws.StatusNormalClosure {
		t.Error(code)
	}
	eventually(t, "it is gone", func() bool { return s.Connection(a.id) == nil })
	if ca.Alive() || ca.Cause() != CauseApplication || s.SendTo(a.id, M{"type": "x"}) || ca.Send(M{"type": "x"}) != nil {
		t.Error("an ended connection misbehaves")
	}
}

func TestRooms(t *testing.T) {
	s := startServer(t, nil, nil)
	a, b, c := dial(t, s), dial(t, s), dial(t, s)
	rooms := s.Rooms()
	if err := rooms.Create("game", RoomOptions{MaxMembers: 2, Metadata: M{"game_type": "chess"}}); err != nil {
		t.Fatal(err)
	}
	if err := rooms.Create("game", RoomOptions{}); err != ErrRoomExists {
		t.Error(err)
	}
	for _, x := range []*client{a, b} {
		if err := rooms.Join(s.Connection(x.id), "game"); err != nil {
			t.Fatal(err)
		}
	}
	if err := rooms.Join(s.Connection(c.id), "game"); err != ErrRoomFull {
		t.Error(err)
	}
	// A broadcast after Join has returned reaches the new member.
	if n, err := s.Broadcast("game", M{"type": "go"}, a.id); err != nil || n != 2 {
		t.Error(n, err)
	}
	for b.next()["type"] != "go" {
	}
	eventually(t, "both are in", func() bool { return len(rooms.Members("game")) == 2 })
	stats, ok := rooms.Stats("game")
	if !ok || stats.Connections != 2 || stats.MaxMembers != 2 || string(stats.Metadata) != `{"game_type":"chess"}` || stats.CreatedAt == 0 {
		t.Error(stats)
	}
	rooms.Join(s.Connection(c.id), "other")
	if err := s.BroadcastRooms([]string{"game", "other", "game"}, M{"type": "each"}); err != nil {
		t.Fatal(err)
	}
	rooms.Join(s.Connection(c.id), "second")
	s.BroadcastRooms([]string{"other", "second"}, M{"type": "once"})
	s.BroadcastAll(M{"type": "all"}, b.id)
	s.BroadcastWhere(func(c *Conn) bool { return c.ID() == b.id }, M{"type": "chosen"})
	for x, want := range map[*client]string{a: "each all", b: "each chosen", c: "each once all"} {
		var got []string
		for range strings.Fields(want) {
			m := x.next()
			for m["type"] == "member_joined" || m["type"] == "joined" {
				m = x.next()
			}
			got = append(got, m["type"].(string))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("got %v, want %s", got, want)
		}
	}
	if n := len(rooms.List()); n != 3 {
		t.Errorf("%d rooms", n)
	}
	rooms.Leave(s.Connection(a.id), "game")
	b.expect("member_left")
	if !rooms.Delete("game") || rooms.Delete("game") {
		t.Error("deleting twice")
	}
	b.expect("left")
	if names := s.Connection(b.id).Rooms(); len(names) != 0 {
		t.Error(names)
	}
}

// A room that outgrows its announcements says so once, and again when it has shrunk.
func TestAnnouncements(t *testing.T) {
	s := startServer(t, func(c *Config) { c.AnnounceMembersMax = 4; c.Loops = 1 }, nil)
	first := dial(t, s)
	first.send(`{"type":"join","room":"r"}`)
	first.expect("joined")
	var others []*client
	for range 7 {
		o := dial(t, s)
		o.send(`{"type":"join","room":"r"}`)
		o.expect("joined")
		others = append(others, o)
	}
	for _, o := range others {
		o.send(`{"type":"leave","room":"r"}`)
		for o.next()["type"] != "left" {
		}
	}
	var got []string
	for len(got) < 6 {
		m := first.next()
		if text := m["type"].(string); text == "announcements" {
			got = append(got, fmt.Sprintf("announcements:%v", m["on"]))
		} else {
			got = append(got, text)
		}
	}
	want := "member_joined member_joined member_joined announcements:false announcements:true member_left"
	if text := strings.Join(got, " "); text != want {
		t.Errorf("\n got %s\nwant %s", text, want)
	}
}

// A join and a leave in one turn are announced to no member.
func TestNoticesCancel(t *testing.T) {
	s := startServer(t, nil, nil)
	ann, bob := dial(t, s), dial(t, s)
	ann.send(`{"type":"join","room":"r"}`)
	ann.expect("joined")
	var batch []byte
	for _, text := range []string{`{"type":"join","room":"r"}`, `{"type":"leave","room":"r"}`, `{"type":"join","room":"r"}`, `{"type":"broadcast","room":"r","data":1}`} {
		batch = append(batch, ws.MustCompileFrame(ws.MaskFrame(ws.NewTextFrame([]byte(text))))...)
	}
	bob.conn.Write(batch)
	ann.expect("member_joined")
	ann.expect("broadcast")
}

// Shutdown tells all clients, even those in the middle of a handshake, and is over in time.
func TestShutdown(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Port, cfg.Loops = -1, 2
	s, err := New(cfg, WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		<-ctx.Done()
		bounded, stop := context.WithTimeout(context.Background(), patient)
		defer stop()
		done <- s.Shutdown(bounded)
	}()
	c := dial(t, s)
	cancel()
	if code := c.expectClose(); code != ws.StatusGoingAway {
		t.Errorf("closed with %d", code)
	}
	c.conn.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := s.Start(); err == nil {
		t.Error("a stopped server started again")
	}
}

// The uptime goes up with the clock, by whole seconds.
func TestUptime(t *testing.T) {
	w := newScript(t, nil)
	for _, at := range []time.Duration{0, 900 * time.Millisecond, time.Second, 3*time.Hour + 1} {
		w.now = at
		if got := w.server.Server.Stats().Uptime; got != int64(at/time.Second) {
			t.Errorf("after %v it is %d", at, got)
		}
	}
}

// The seed's very keys are in the stats.
func TestStats(t *testing.T) {
	s := startServer(t, nil, nil)
	c := dial(t, s)
	c.send(`{"type":"join","room":"r"}`)
	c.expect("joined")
	eventually(t, "the counts are published", func() bool { return s.Stats().MessagesReceived == 1 })
	st := s.Stats()
	if st.Connections != 1 || st.Rooms != 1 || st.MessagesSent != 3 || st.MemoryUsage == 0 || st.Uptime < 0 || st.Accepted != 1 {
		t.Errorf("%+v", st)
	}
	if err := s.Healthy(t.Context()); err != nil {
		t.Error(err)
	}
}
