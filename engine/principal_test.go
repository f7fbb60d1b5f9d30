package engine

import (
	"strings"
	"testing"

	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/protocol/ident"
)

// resumes has a client show a token, and returns what it is answered first.
func (w *script) resumes(c *Conn, token string) string {
	w.t.Helper()
	w.say(c, `{"type":"reconnect","token":"`+token+`"}`)
	w.drain()
	return strings.Join(w.read(c), "\n")
}

// A resume does not overwrite attributes that a connect handler set: they describe this connection, whatever token it shows.
// The resume restores the others, and wins over values that were set later.
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

// An heir does not inherit attributes that do not fit beside its own.
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
	if heir.Attribute("early") == nil || heir.Attribute("long") != nil || heir.Attribute("short") == nil || attributeBytes(heir) > 1000 {
		t.Error(heir.Attributes())
	}
}

// shows has a client of who show the token of owner's session, which is alive, parked, in the store, or handed over by an
// owner whose principal has changed since it was stored. It returns what the client is answered.
func shows(t *testing.T, owner, who, state string) string {
	w, b := newPeer(t, nil)
	s := w.server.Server
	now := owner
	s.OnConnect(func(c *Conn, _ *Request) error {
		if now != "" {
			c.SetPrincipal(now)
		}
		return nil
	})
	store := &counter{value: storedSession(3, owner)}
	var token string
	switch state {
	case "stored", "handed over":
		w.keep(store)
		token = tokenOf(3)
	default:
		c := w.open(0)
		token = c.wire.Token()
		if state == "parked" {
			w.server.Gone(c)
		}
	}
	now = who
	heir := w.open(1)
	w.drain()
	w.read(heir)
	if state == "handed over" {
		store.value, store.alive = nil, true
		s.link.Peers([]ident.Worker{3})
	}
	w.say(heir, `{"type":"reconnect","token":"`+token+`"}`)
	for _, entry := range b.of(fleet.Request) {
		e, err := fleet.Decode(entry, 3)
		if err != nil {
			t.Fatal(err)
		}
		s.worker.Receive(3, fleet.Append(nil, &fleet.Entry{Kind: fleet.Answer, Target: s.link.Self, Body: fleet.Body{
			Number: e.Number, Payload: append([]byte{byte(fleet.HandedOverState)}, storedSession(3, owner)...)}}))
	}
	w.drain()
	for _, done := range store.drops {
		done(nil)
	}
	w.drain()
	return strings.Join(w.read(heir), "\n")
}

// A session goes only to a connection of the same principal, and one without a principal to a connection without one.
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

// attributeBytes is the size of all attributes of a connection, keys and values together.
func attributeBytes(c *Conn) (n int) {
	for key, value := range c.Attributes() {
		n += len(key) + len(value)
	}
	return n
}
