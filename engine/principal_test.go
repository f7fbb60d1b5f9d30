package engine

import (
	"strings"
	"testing"
)

// resumes has a client show a token, and returns what it is answered first.
func (w *script) resumes(c *Conn, token string) string {
	w.t.Helper()
	w.say(c, `{"type":"reconnect","token":"`+token+`"}`)
	w.drain()
	return strings.Join(w.read(c), "\n")
}

// What a connect handler sets says who is there now: a resume does not overwrite it, whosever token is shown. It
// restores the rest, and wins over what was set later.
func TestResumeKeepsWhoIsThere(t *testing.T) {
	who := ""
	w := newScript(t, nil)
	s := w.server.Server
	s.OnConnect(func(c *Conn, _ *Request) error {
		c.SetUserData(who)
		return c.SetAttribute("user_id", who)
	})
	s.Emitter().On(EventConnect, func(ev Event) { ev.Conn.SetAttribute("score", 0) })
	s.On("changes", func(c *Conn, _ *Message, _ *Server) (any, error) {
		return nil, c.SetAttribute("user_id", who+" II")
	})
	for _, state := range []string{"alive", "parked"} {
		who = "ann"
		ann := w.open(0)
		ann.SetAttribute("score", 42)
		token := w.token(ann)
		if state == "parked" {
			w.server.Gone(ann)
		}
		who = "bob"
		bob := w.open(1)
		w.say(bob, `{"type":"changes"}`)
		w.read(bob)
		if got := w.resumes(bob, token); !strings.Contains(got, "reconnected") {
			t.Fatal(state, got)
		}
		id, _ := Attribute[string](bob, "user_id")
		score, _ := Attribute[int](bob, "score")
		data, _ := UserData[string](bob)
		if id != "bob II" || score != 42 || data != "bob" {
			t.Errorf("%s: bob has user_id %q, score %d, user data %q", state, id, score, data)
		}
	}
}

// What does not fit beside an heir's own attributes is left out of what it inherits.
func TestInheritedAttributesAreBounded(t *testing.T) {
	long := strings.Repeat("x", 600)
	w := newScript(t, func(c *Config) { c.AttributesBytesMax = 1000 })
	w.server.Server.OnConnect(func(c *Conn, _ *Request) error { return c.SetAttribute("early", long) })
	ann := w.open(0)
	ann.SetAttribute("early", nil)
	ann.SetAttribute("long", long)
	ann.SetAttribute("short", 1)
	token := w.token(ann)
	w.server.Gone(ann)
	heir := w.open(0)
	w.read(heir)
	if got := w.resumes(heir, token); !strings.Contains(got, "reconnected") {
		t.Fatal(got)
	}
	if heir.Attribute("early") == nil || heir.Attribute("long") != nil || heir.Attribute("short") == nil || heir.attrs.Load().bytes > 1000 {
		t.Error(heir.Attributes())
	}
}

// shows has a client of who show the token of owner's session, which is alive, parked, in the store, or handed over by an
// owner whose principal has changed since it was stored. It returns what the client is answered.
func shows(t *testing.T, owner, who, state string) string {
	w, _ := newPeer(t, nil)
	s := w.server.Server
	now := owner
	s.OnConnect(func(c *Conn, _ *Request) error {
		if now != "" {
			c.SetPrincipal(now)
		}
		return nil
	})
	store := &counter{value: (&parked{previous: place{Gen: 1}, instance: 3, principal: owner}).encode()}
	var token string
	switch state {
	case "stored", "handed over":
		w.keep(store)
		token = s.tokenText([16]byte{1})
	default:
		c := w.open(0)
		token = s.tokenText(c.token)
		if state == "parked" {
			w.server.Gone(c)
		}
	}
	now = who
	heir := w.open(1)
	w.drain()
	w.read(heir)
	if state == "handed over" {
		heir.loop().postCall(func(l *loop) {
			next := &succession{conn: heir, wait: l.await(heir, pendingClaim, "reconnect", nil)}
			l.handedOver(next, handover{kind: handoverState, state: &parked{principal: owner}}, nil)
		})
	} else {
		w.say(heir, `{"type":"reconnect","token":"`+token+`"}`)
	}
	w.drain()
	for _, done := range store.drops {
		done(nil)
	}
	w.drain()
	return strings.Join(w.read(heir), "\n")
}

// A session goes to a connection of the same principal: one of somebody not to one without any, nor the other way round.
func TestPrincipalsAndNone(t *testing.T) {
	for _, state := range []string{"alive", "parked", "stored", "handed over"} {
		for _, owner := range []string{"ann", ""} {
			for _, who := range []string{"ann", "bob", ""} {
				want := map[bool]string{true: `"reconnected"`, false: `"invalid_token"`}[owner == who]
				if got := shows(t, owner, who, state); !strings.Contains(got, want) {
					t.Errorf("a session of %q (%s) shown by %q: %s", owner, state, who, got)
				}
			}
		}
	}
}
