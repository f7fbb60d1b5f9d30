package engine

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// byName decides by the room's name: "no" refuses, "full" refuses with another code, "ask" allows later and "doubt" refuses
// later. A grant is a list of rooms that are refused besides.
type byName struct{ later chan func() }

func (p byName) Allow(c *Conn, act Act, room string, member bool) Decision {
	kept := strings.Clone(room)
	if refused, _ := c.Identity().Grant.(string); refused != "" && strings.Contains(refused, room) {
		return Decision{Refuse: errors.New("not in the grant")}
	}
	switch {
	case act == ActMembers && room == "secret":
		return Decision{Refuse: errors.New("no list")}
	case act == ActMembers && room == "open":
		return Decision{}
	case act == ActMembers && !member:
		return Decision{Refuse: ErrNotInRoom}
	case act == ActPublish && strings.HasPrefix(kept, "mute"):
		return Decision{Refuse: errors.New("mute")}
	case act != ActJoin:
		return Decision{}
	case strings.HasPrefix(kept, "no"):
		return Decision{Refuse: errors.New("no")}
	case strings.HasPrefix(kept, "full"):
		return Decision{Refuse: ErrRoomFull}
	case strings.HasPrefix(kept, "ask"):
		return Decision{Ask: func(done func(error)) { p.later <- func() { done(nil) } }}
	case strings.HasPrefix(kept, "doubt"):
		return Decision{Ask: func(done func(error)) { p.later <- func() { done(errors.New("no")) } }}
	case strings.HasPrefix(kept, "fault"):
		return Decision{Ask: func(func(error)) { panic("a fault of the policy") }}
	}
	return Decision{}
}

func withPolicy(t *testing.T) (*Server, byName) {
	p := byName{make(chan func(), 16)}
	return startServer(t, nil, func(s *Server) { s.SetPolicy(p) }), p
}

// exchange sends a message and wants an answer of a type, with a code if it is an error.
func (c *client) exchange(text, typ, code string) map[string]any {
	c.t.Helper()
	c.send(text)
	m := c.expect(typ)
	if got, _ := m["code"].(string); got != code {
		c.t.Errorf("%s: %v, wanted the code %q", text, m, code)
	}
	return m
}

// An act that a policy refuses does not happen; the client learns the code, and the connection lives.
func TestPolicyRefuses(t *testing.T) {
	s, _ := withPolicy(t)
	c := dial(t, s)
	c.exchange(`{"type":"join","room":"no1"}`, "error", "forbidden")
	c.exchange(`{"type":"join","room":"full1"}`, "error", "room_full")
	c.exchange(`{"type":"join","room":"mute1"}`, "joined", "")
	c.exchange(`{"type":"broadcast","room":"mute1","data":1}`, "error", "forbidden")
	c.exchange(`{"type":"broadcast","room":"yes","data":1}`, "error", "not_in_room")
	c.exchange(`{"type":"members","room":"mute1"}`, "members", "")
	c.exchange(`{"type":"join","room":"secret"}`, "joined", "")
	c.exchange(`{"type":"members","room":"secret"}`, "error", "forbidden")
	c.exchange(`{"type":"members","room":"nowhere"}`, "error", "not_in_room")
	other := dial(t, s)
	other.exchange(`{"type":"join","room":"open"}`, "joined", "")
	other.exchange(`{"type":"members","room":"mute1"}`, "error", "not_in_room")
	if m := c.exchange(`{"type":"members","room":"open"}`, "members", ""); m["count"] != 1.0 {
		t.Errorf("the list for a client that is no member: %v", m)
	}
	if err := s.Rooms().Join(s.Connection(c.id), "no1"); err != nil {
		t.Error("the application:", err)
	}
	c.expect("joined")
}

// A decision that comes later makes the client's later messages wait, in order, and only those.
func TestPolicyAsks(t *testing.T) {
	s, p := withPolicy(t)
	c, other := dial(t, s), dial(t, s)
	c.send(`{"type":"join","room":"ask1","ref":1}`)
	c.send(`{"type":"join","room":"yes","ref":2}`)
	c.send(`{"type":"join","room":"doubt","ref":3}`)
	c.send(`{"type":"join","room":"ask2","ref":4}`)
	c.send(`{"type":"ping","ref":5}`)
	other.exchange(`{"type":"join","room":"yes"}`, "joined", "")
	for _, want := range []struct {
		typ string
		ref float64
	}{{"joined", 1}, {"joined", 2}, {"error", 3}, {"joined", 4}, {"pong", 5}} {
		if want.ref != 2 && want.ref != 5 {
			(<-p.later)()
		}
		m := c.expect(want.typ)
		for m["type"] == "member_joined" {
			m = c.expect(want.typ)
		}
		if m["ref"] != want.ref {
			t.Errorf("got %v, wanted the answer %v", m, want.ref)
		}
	}
}

// A decision for a connection that has ended meanwhile does nothing; a second call of done does nothing; a fault in the
// policy costs the connection alone.
func TestPolicyLate(t *testing.T) {
	s, p := withPolicy(t)
	c := dial(t, s)
	c.send(`{"type":"join","room":"ask1"}`)
	decide := <-p.later
	c.conn.Close()
	eventually(t, "the connection has ended", func() bool { return s.ConnectionCount() == 0 })
	decide()
	decide()
	twice := dial(t, s)
	twice.send(`{"type":"join","room":"ask2"}`)
	decide = <-p.later
	decide()
	decide()
	twice.expect("joined")
	twice.exchange(`{"type":"ping"}`, "pong", "")
	faulty := dial(t, s)
	faulty.send(`{"type":"join","room":"fault"}`)
	if code := faulty.expectClose(); code != ws.StatusInternalServerError {
		t.Error(code)
	}
	if s.Rooms().Has("ask1", twice.server(s)) {
		t.Error("a connection is in another's room")
	}
}

func (c *client) server(s *Server) *Conn { return s.Connection(c.id) }

// A resume asks again: rooms that are not allowed any more are lost, with the code.
func TestPolicyOfAResume(t *testing.T) {
	var denied sync.Map
	s := startServer(t, nil, func(s *Server) {
		s.SetPolicy(policyFunc(func(_ *Conn, _ Act, room string, _ bool) Decision {
			if _, no := denied.Load(strings.Clone(room)); no {
				return Decision{Refuse: errors.New("no more")}
			}
			return Decision{}
		}))
	})
	for _, alive := range []bool{true, false} {
		denied.Clear()
		c := dial(t, s)
		for _, room := range []string{"a", "b", "c"} {
			c.join(room)
		}
		denied.Store("b", true)
		if !alive {
			c.conn.Close()
			eventually(t, "the connection has ended", func() bool { return s.ConnectionCount() == 0 })
		}
		heir := dial(t, s)
		heir.send(`{"type":"reconnect","token":"` + c.token + `"}`)
		m := heir.expect("reconnected")
		if fmt.Sprint(m["rooms"]) != "[a c]" || fmt.Sprint(m["lost"]) != "[map[code:forbidden room:b]]" {
			t.Errorf("alive %v: %v", alive, m)
		}
		if b, ok := s.Rooms().Stats("b"); ok {
			t.Errorf("alive %v: %d are left in b", alive, b.Connections)
		}
		heir.conn.Close()
		eventually(t, "the heir has ended", func() bool { return s.ConnectionCount() == 0 })
	}
}

type policyFunc func(c *Conn, act Act, room string, member bool) Decision

func (f policyFunc) Allow(c *Conn, act Act, room string, member bool) Decision {
	return f(c, act, room, member)
}

const tokensGrace = 10 * time.Second

// tokens is an auth handler: a token has the form user/duration/refused rooms.
func tokens(c *Conn, token string) error {
	parts := strings.Split(token, "/")
	if len(parts) != 3 || c.Principal() != "" && c.Principal() != parts[0] {
		return errors.New("a bad token")
	}
	life, err := time.ParseDuration(parts[1])
	if err != nil {
		return err
	}
	expires := c.loop().srv.time.Walltime().Add(life)
	c.SetIdentity(Identity{User: parts[0], Grant: parts[2], Expires: expires, Grace: tokensGrace})
	return nil
}

// A review takes members out of rooms, many or few. It asks again about a connection whose join waits for an answer.
func TestReview(t *testing.T) {
	s, p := withPolicy(t)
	few, many := dial(t, s), dial(t, s)
	few.join("away")
	for i := range 80 { // more than leave in one turn
		many.join(fmt.Sprint("room", i))
	}
	few.send(`{"type":"join","room":"ask"}`)
	allow := <-p.later
	s.Rooms().Review(func(_ *Conn, room string) error {
		switch room {
		case "ask":
			return ErrRoomFull
		case "away", "room7", "room70":
			return errors.New("out")
		}
		return nil
	})
	if m := few.expect("left"); m["room"] != "away" || m["code"] != "forbidden" {
		t.Error(m)
	}
	allow()
	few.expect("joined")
	if m := few.expect("left"); m["room"] != "ask" || m["code"] != "room_full" {
		t.Error(m)
	}
	for _, room := range []string{"room7", "room70"} {
		if m := many.expect("left"); m["room"] != room {
			t.Error(m)
		}
	}
	if n := len(many.server(s).Rooms()); n != 78 {
		t.Error(n, "rooms")
	}
}

// A client renews its rights: it leaves the rooms that it may not be in any more. Another user, or a bad token, changes
// nothing; the third in a row ends the connection.
func TestRenewal(t *testing.T) {
	s := startServer(t, nil, func(s *Server) {
		s.OnAuth(tokens)
		s.SetPolicy(byName{make(chan func(), 1)})
	})
	c := dialBare(t, s, ws.Dialer{})
	if m := c.expect("connected"); m["auth_required"] != true || m["user"] != nil {
		t.Error(m)
	}
	if m := c.exchange(`{"type":"auth","token":"ann/1h/-","ref":"a"}`, "authenticated", ""); m["user"] != "ann" || m["expires_in"].(float64) < 3000 || m["ref"] != "a" {
		t.Error(m)
	}
	c.expect("reconnect_token")
	for i := range 80 { // more than leave in one turn
		c.join(fmt.Sprint("room", i))
	}
	c.exchange(`{"type":"auth","token":"bob/1h/-"}`, "error", "unauthorized")
	c.exchange(`{"type":"auth","token":"nonsense"}`, "error", "unauthorized")
	c.exchange(`{"type":"auth","token":"ann/2h/room7 room70"}`, "authenticated", "")
	for _, room := range []string{"room7", "room70"} {
		if m := c.expect("left"); m["room"] != room || m["code"] != "forbidden" {
			t.Error(m)
		}
	}
	for range 2 {
		c.exchange(`{"type":"auth","token":"bob/1h/-"}`, "error", "unauthorized")
	}
	c.exchange(`{"type":"auth","token":"bob/1h/-"}`, "error", "unauthorized")
	if code := c.expectClose(); code != StatusUnauthorized {
		t.Error(code)
	}
}

// An identity that ends: a warning before, 4006 after its grace, and the session can still be resumed. A renewal in time
// keeps the connection.
func TestExpiry(t *testing.T) {
	w := newScript(t, withoutHeartbeat)
	s := w.server.Server
	s.OnAuthOptional(tokens)
	c := w.open(0) // without a token
	w.expect(c, "connected reconnect_token")
	token := w.token(c)
	w.offer(c, joinText, "joined")
	const minute = `{"type":"auth","token":"ann/1m/-"}`
	w.offer(c, minute, "authenticated")
	if text := w.comesAfter(c, 48*time.Second, "auth_expiring"); !strings.Contains(text, `"expires_in":12`) {
		t.Error("a fifth of the time is left, and it reads", text)
	}
	w.offer(c, minute, "authenticated")
	w.comesAfter(c, 48*time.Second, "auth_expiring")
	w.comesAfter(c, 12*time.Second+tokensGrace-w.late(), fmt.Sprint("close ", StatusTokenExpired))
	w.server.Gone(c)
	w.drain()
	if n := s.StatsHere().Ended["token_expired"]; n != 1 {
		t.Error("ended:", s.StatsHere().Ended)
	}
	heir := w.open(1)
	w.read(heir)
	claim := `{"type":"reconnect","token":"` + token + `"}`
	if text := w.offer(heir, claim, "error"); !strings.Contains(text, "invalid_token") {
		t.Error("it has not shown who it is, and reads", text)
	}
	w.offer(heir, minute, "authenticated")
	if text := w.offer(heir, claim, "reconnected reconnect_token"); !strings.Contains(text, `"rooms":["r"]`) {
		t.Error(text)
	}
}

// An identity that ends in an hour or in the year 9999 costs a connection neither of its rare parts until then, also where it takes the place
// of one that ends soon. The warning and the end come in time.
func TestExpiryFarAway(t *testing.T) {
	w := newScript(t, withoutHeartbeat)
	s := w.server.Server
	s.OnAuthOptional(tokens)
	c := w.open(0)
	w.expect(c, "connected reconnect_token")
	spare := func(want bool) {
		t.Helper()
		if got := c.wire.Rare == nil && c.wire.Wire().Rare == nil; got != want {
			t.Errorf("without rare parts: %t", got)
		}
	}
	later := func(d time.Duration) {
		for ; d > 0; d -= 10 * time.Minute {
			w.now += 10 * time.Minute
			w.server.Tick()
			w.drain()
		}
	}
	spare(true)
	w.offer(c, `{"type":"auth","token":"ann/5m/-"}`, "authenticated")
	spare(false)
	w.offer(c, `{"type":"auth","token":"ann/60h/-"}`, "authenticated")
	spare(true)
	later(10 * time.Minute) // a clock that has run: the sum of it and the longest duration is no time
	c.SetIdentity(Identity{User: "ann", Expires: time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)})
	w.drain()
	later(50 * time.Hour)
	spare(true)
	w.offer(c, `{"type":"auth","token":"ann/50h/-"}`, "authenticated")
	later(49*time.Hour + 50*time.Minute)
	spare(true)
	if text := w.comesAfter(c, 9*time.Minute, "auth_expiring"); !strings.Contains(text, `"expires_in":60`) {
		t.Error(text)
	}
	w.comesAfter(c, time.Minute+tokensGrace-w.late(), fmt.Sprint("close ", StatusTokenExpired))
	w.server.Gone(c)
	w.drain()
}

// offer says a message, has the pool run what it waits for, and expects an answer.
func (w *script) offer(c *Conn, text, want string) string {
	w.t.Helper()
	w.say(c, text)
	w.server.Offloaded()
	w.drain()
	return w.expect(c, want)[0]
}

// late is how long after a moment a loop may look at its timers, at most.
func (w *script) late() time.Duration { return 2 * w.server.TickEvery() }

// comesAfter expects that a client reads nothing before d is over, and then one message.
func (w *script) comesAfter(c *Conn, d time.Duration, want string) string {
	w.t.Helper()
	w.pass(d - w.late())
	w.expect(c, "")
	w.pass(2 * w.late())
	return w.expect(c, want)[0]
}

func withoutHeartbeat(c *Config) {
	c.HeartbeatInterval, c.HeartbeatTimeout = 200*time.Hour, 400*time.Hour
}

// An identity that ends too early or never: neither a warning nor an end comes at a wrong time.
func TestExpiryEdges(t *testing.T) {
	w := newScript(t, withoutHeartbeat)
	now := w.server.Server.time.Walltime
	c := w.open(0)
	w.read(c)
	c.SetIdentity(Identity{User: "ann", Expires: now().Add(time.Second)})
	w.drain()
	c.SetIdentity(Identity{User: "ann"}) // for ever
	w.drain()
	w.pass(30 * time.Minute)
	w.expect(c, "")
	c.SetIdentity(Identity{User: "ann", Expires: now().Add(-time.Hour), Grace: time.Minute})
	w.drain()
	w.pass(w.late())
	if got := kinds(w.read(c)); strings.TrimPrefix(got, "auth_expiring ") != fmt.Sprint("close ", StatusTokenExpired) {
		t.Errorf("it reads %q", got)
	}
	if cause := c.Cause(); cause != CauseExpired {
		t.Error(cause)
	}
	var none *Conn
	none.SetIdentity(Identity{User: "x"})
	if none.Identity() != (Identity{}) {
		t.Error(none.Identity())
	}
}

// A resume asks once for each room: a second answer could tell the client that it has lost a room that it is in.
func TestResumeAsksOnce(t *testing.T) {
	w, asked := newScript(t, nil), 0
	w.server.Server.SetPolicy(policyFunc(func(*Conn, Act, string, bool) Decision {
		if asked++; asked == 3 {
			return Decision{Refuse: errors.New("asked again")}
		}
		return Decision{}
	}))
	old := w.open(0)
	w.inRoom(old)
	token := w.token(old)
	heir := w.open(1)
	w.read(heir)
	w.say(heir, `{"type":"reconnect","token":"`+token+`"}`)
	w.drain()
	if texts := w.expect(heir, "reconnected reconnect_token"); asked != 2 || strings.Contains(texts[0], "lost") || len(heir.Rooms()) != 1 {
		t.Errorf("asked %d times, in %v: %s", asked, heir.Rooms(), texts[0])
	}
}
