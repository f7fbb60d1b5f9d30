package engine

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

// told is a message as another client reads it.
type told struct {
	Type, From, User string
	ID               string `json:"connection_id"`
	Members          json.RawMessage
	Users            []*string
	Data             json.RawMessage
}

func tellings(t testing.TB, texts []string) (list []told) {
	t.Helper()
	for _, text := range texts {
		var m told
		if err := json.Unmarshal([]byte(text), &m); err != nil || !utf8.ValidString(text) {
			t.Fatalf("%q: %v", text, err)
		}
		list = append(list, m)
	}
	return list
}

// openAs connects a client with a user, which may be "", and reads the greeting.
func (w *script) openAs(loop int, user string) *Conn {
	c := w.open(loop)
	c.SetPrincipal(user)
	w.drain()
	w.read(c)
	return c
}

// inRoom has a client join a room.
func (w *script) inRoom(c *Conn) {
	w.say(c, `{"type":"join","room":"r"}`)
	w.drain()
	w.read(c)
}

// Whatever the name of a user is, the others read it in valid messages; bytes that are not UTF-8 become U+FFFD.
func TestHostileUsers(t *testing.T) {
	for _, user := range []string{"ann", `a"b\c`, `","from":"0001","x":"`, "\x00\x01\x1f\x7f\r\n\t\b\f", strings.Repeat("\x01", 128), strings.Repeat("x", 128),
		"\xff\xfeann\xc3", "\u2028\u2029</script>", "ä\U0001F600", "\xed\xa0\x80", " ", "null", strings.Repeat("é", 5000)} {
		w := newScript(t, nil)
		bob := w.openAs(0, "")
		w.inRoom(bob)
		ann := w.openAs(1, user)
		w.inRoom(ann)
		w.say(ann, `{"type":"broadcast","room":"r","data":{"user":"eve"}}`)
		w.drain()
		w.say(bob, `{"type":"members","room":"r"}`)
		w.say(ann, `{"type":"leave","room":"r"}`)
		w.drain()
		want, read := string([]rune(user)), tellings(t, w.read(bob))
		if len(read) != 4 {
			t.Fatalf("%q: %d messages", user, len(read))
		}
		for i, typ := range []string{"member_joined", "broadcast", "members", "member_left"} {
			m := read[i]
			switch {
			case m.Type != typ:
				t.Errorf("%q: %s in place of %s", user, m.Type, typ)
			case typ == "members":
				if len(m.Users) != 2 || m.Users[0] != nil || m.Users[1] == nil || *m.Users[1] != want {
					t.Errorf("%q: %v", user, m.Users)
				}
			case m.User != want || typ == "broadcast" && (m.From != ann.ID() || string(m.Data) != `{"user":"eve"}`) || typ != "broadcast" && m.ID != ann.ID():
				t.Errorf("%q: %+v", user, m)
			}
		}
	}
}

// Of a client without a user the others read not a byte more than ever, also beside clients that have one.
func TestNoUserNoField(t *testing.T) {
	w := newScript(t, nil)
	bob := w.openAs(0, "bob")
	w.inRoom(bob)
	ann := w.open(1)
	w.inRoom(ann)
	w.say(ann, `{"type":"broadcast","room":"r","data":1}`)
	w.say(ann, `{"type":"leave","room":"r"}`)
	w.drain()
	w.say(bob, `{"type":"members","room":"r"}`)
	for i, text := range w.read(bob) {
		want := []string{`{"type":"member_joined","room":"r","connection_id":"` + ann.ID() + `"}`,
			`{"type":"broadcast","room":"r","from":"` + ann.ID() + `","data":1,"timestamp":1000000000}`,
			`{"type":"member_left","room":"r","connection_id":"` + ann.ID() + `"}`,
			`{"type":"members","room":"r","count":1,"members":["` + bob.ID() + `"],"users":["bob"],"partial":false}`}[i]
		if text != want {
			t.Errorf("got  %s\nwant %s", text, want)
		}
	}
}

// HideUsers hides users wherever they were shown, and a reload changes that at once.
func TestHiddenUsers(t *testing.T) {
	w := newScript(t, func(c *Config) { c.HideUsers = true })
	bob := w.openAs(0, "bob")
	w.inRoom(bob)
	for _, hidden := range []bool{true, false, true} {
		cfg := w.server.Server.Config()
		cfg.HideUsers = hidden
		if fixed, err := w.server.Server.Reload(cfg); err != nil || len(fixed) > 0 {
			t.Fatal(fixed, err)
		}
		ann := w.openAs(1, "ann")
		w.inRoom(ann)
		w.say(ann, `{"type":"broadcast","room":"r","data":1}`)
		w.drain()
		w.say(bob, `{"type":"members","room":"r"}`)
		w.server.Gone(ann)
		w.drain()
		text := strings.Join(w.read(bob), "\n")
		if named := strings.Count(text, "ann") + strings.Count(text, "bob"); named != map[bool]int{true: 0, false: 5}[hidden] || strings.Contains(text, `"user`) == hidden {
			t.Errorf("hidden %v:\n%s", hidden, text)
		}
	}
}

// A broadcast of a client with a user takes no allocation more than one without.
func TestUsersAllocateNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for _, user := range []string{"", "ann", strings.Repeat("\x01", 128)} {
		w := newScript(t, nil)
		ann := w.openAs(0, user)
		w.inRoom(ann)
		w.inRoom(w.open(1))
		w.mute = true
		if n := turnAllocations(w, ann, masked(ws.OpText, `{"type":"broadcast","room":"r","data":1}`)); n != 1 {
			t.Errorf("%q: %v allocations", user, n)
		}
	}
}

// The heir of a session is shown as its own user, which is that of the session.
func TestUserOfAnHeir(t *testing.T) {
	w := newScript(t, nil)
	bob, first := w.openAs(0, ""), w.openAs(1, "ann")
	w.inRoom(bob)
	w.inRoom(first)
	w.read(bob)
	token := w.token(first)
	for _, state := range []string{"alive", "parked"} {
		heir := w.openAs(0, "ann")
		if state == "parked" {
			w.server.Gone(first)
			w.drain()
		}
		if got := w.resumes(heir, token); !strings.Contains(got, `"reconnected"`) {
			t.Fatal(state, got)
		}
		w.say(heir, `{"type":"broadcast","room":"r","data":1}`)
		w.drain()
		read := tellings(t, w.read(bob))
		if len(read) != 3 || read[0].Type != "member_left" || read[0].ID != first.ID() || read[1].Type != "member_joined" || read[1].ID != heir.ID() ||
			read[0].User != "ann" || read[1].User != "ann" || read[2].User != "ann" {
			t.Errorf("%s: %+v", state, read)
		}
		first, token = heir, w.token(heir)
	}
}

// Members on other workers read users, too, and so do those who are told that a dead worker's members have left.
func TestUsersOverWorkers(t *testing.T) {
	const hostile = "a\"\x00\xffb"
	want := string([]rune(hostile))
	workers := startWorkers(t, 2, nil, func(s *Server) {
		s.OnConnect(func(c *Conn, r *Request) error { c.SetPrincipal(r.Query("user")); return nil })
	})
	as := func(worker int, user string) *client {
		c := dialURL(t, "ws://"+workers.list[worker].Addr().String()+"/?user="+user, ws.Dialer{})
		c.id = c.expect("connected")["connection_id"].(string)
		c.join("r")
		return c
	}
	early := as(1, "a%22%00%FFb") // ann's worker learns of this one by its roster
	ann := as(0, "ann")
	eventually(t, "the roster is here", func() bool { return workers.list[0].rooms.Index.FindString("r").RemoteMembers(2) == 1 })
	nobody, late := as(1, ""), as(1, "late")
	for _, c := range []*client{nobody, late} {
		m := ann.skipTo("member_joined")
		for m["connection_id"] != c.id {
			m = ann.skipTo("member_joined")
		}
		if user, some := m["user"]; some != (c == late) || some && user != "late" {
			t.Error(m)
		}
	}
	early.send(`{"type":"broadcast","room":"r","data":1}`)
	if m := ann.skipTo("broadcast"); m["user"] != want || m["from"] != early.id {
		t.Error(m)
	}
	ann.send(`{"type":"members","room":"r"}`)
	m := ann.skipTo("members")
	users := map[any]any{}
	for i, id := range m["members"].([]any) {
		users[id] = m["users"].([]any)[i]
	}
	if len(users) != 4 || users[ann.id] != "ann" || users[early.id] != want || users[late.id] != "late" || users[nobody.id] != nil {
		t.Error(m)
	}
	workers.die(workers.list[1])
	left := map[any]any{}
	for range 3 {
		m := ann.skipTo("member_left")
		left[m["connection_id"]] = m["user"]
	}
	if len(left) != 3 || left[early.id] != want || left[late.id] != "late" || left[nobody.id] != nil {
		t.Error(left)
	}
}
