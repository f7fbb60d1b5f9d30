package api

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/parleyd/parley/engine"
)

// A backend takes a connection into a room and out of it; the client is told.
func TestJoinAndLeave(t *testing.T) {
	w := start(t)
	c := w.dial()
	for range 2 { // being in already is no error, and the client is told once
		if got := w.post("/v1/join", `{"connection":%q,"room":"a"}`, c.id); got != `{"joined":1}` {
			t.Error(got)
		}
	}
	w.post("/v1/publish", `{"room":"a","message":{"type":"x"}}`)
	w.expect(c, `{"type":"joined","room":"a","members":1}`, `{"type":"x"}`)
	for range 2 {
		if got := w.post("/v1/leave", `{"connection":%q,"room":"a"}`, c.id); got != `{"left":1}` {
			t.Error(got)
		}
	}
	w.expect(c, `{"type":"left","room":"a"}`)
	if log := w.log.String(); strings.Count(log, "do=/v1/join key=all") != 2 || strings.Count(log, "do=/v1/leave key=all") != 2 {
		t.Error("the actions are not in the log:", log)
	}
}

// A join that is impossible is refused with the engine's reason.
func TestJoinIsRefused(t *testing.T) {
	w := start(t)
	a, b := w.dial(), w.dial()
	if err := w.srv.Rooms().Create("small", engine.RoomOptions{MaxMembers: 1}); err != nil {
		t.Fatal(err)
	}
	w.post("/v1/join", `{"connection":%q,"room":"small"}`, a.id)
	ask := func(id, room string) *http.Request {
		return w.request(http.MethodPost, "/v1/join", fmt.Sprintf(`{"connection":%q,"room":%q}`, id, room))
	}
	w.refused(ask(b.id, "small"), roomFull)
	w.refused(ask(exampleID, "a"), notFound)
	w.refused(ask("nonsense", "a"), notFound)
	w.refused(w.request(http.MethodPost, "/v1/leave", `{"connection":"nonsense","room":"a"}`), notFound)
	for i := range w.srv.Config().MaxRoomsPerConnection {
		w.post("/v1/join", `{"connection":%q,"room":"r%d"}`, b.id, i)
	}
	w.refused(ask(b.id, "one more"), tooManyRooms)
}

// A disconnect closes with the code and the reason that the backend gives, and says whether there was a connection.
func TestDisconnect(t *testing.T) {
	w := start(t)
	for body, want := range map[string]wsutil.ClosedError{
		``:                                     {Code: 4007},
		`,"code":4100,"reason":"come back"`:    {Code: 4100, Reason: "come back"},
		`,"code":1000,"reason":"\u00e9\u0021"`: {Code: 1000, Reason: "é!"},
	} {
		c := w.dial("a")
		if got := w.post("/v1/disconnect", `{"connection":%q%s}`, c.id, body); got != `{"closed":1}` {
			t.Error(got)
		}
		var closed wsutil.ClosedError
		for {
			if _, err := wsutil.ReadServerText(c); err != nil {
				if !errors.As(err, &closed) || closed != want {
					t.Errorf("%s: %v, want %v", body, err, want)
				}
				break
			}
		}
		eventually(t, "the connection is gone", func() bool {
			return w.post("/v1/disconnect", `{"connection":%q}`, c.id) == `{"closed":0}`
		})
	}
}

// A batch publishes and then disconnects: the client gets the message before the close frame.
func TestDisconnectInBatch(t *testing.T) {
	w := start(t)
	c := w.dial("a")
	got := w.post("/v1/batch", `{"operations":[{"do":"join","connection":%q,"room":"b"},{"do":"publish","room":"b","message":{"type":"bye"},"count":true},{"do":"disconnect","connection":%q},{"do":"leave","connection":"x","room":"b"}]}`, c.id, c.id)
	if !strings.HasPrefix(got, `{"results":[{"joined":1},{"recipients":1},{"closed":1},{"type":"urn:parley:not_found"`) {
		t.Error(got)
	}
	for _, want := range []string{`{"type":"joined","room":"b","members":1}`, `{"type":"bye"}`} {
		if got := c.next(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if _, err := wsutil.ReadServerText(c); !errors.As(err, new(wsutil.ClosedError)) {
		t.Error(err)
	}
}

// Bad input of the requests about connections is refused with the field, and changes nothing.
func TestBadManagement(t *testing.T) {
	text, entry := makeKey(t, "shop", "manage")
	entry.Rooms = []string{"shop:**"}
	publisher, publisherEntry := makeKey(t, "publisher", "publish", "read")
	w := start(t, entry, publisherEntry)
	c := w.dial()
	for _, row := range []struct {
		path, body, pointer, says string
		code                      code
	}{
		{"join", `{}`, "", "exactly one of connection and user", invalidRequest},
		{"join", `{"room":"a"}`, "", "exactly one of connection and user", invalidRequest},
		{"join", `{"room":"a","connection":""}`, "/connection", "name the connection", invalidRequest},
		{"join", `{"room":"a","connection":"ID","user":"7"}`, "/user", "give connection or user, not both", invalidRequest},
		{"join", `{"connection":"ID"}`, "/room", "1 to 255", invalidRoom},
		{"join", `{"connection":"ID","room":"\n"}`, "/room", "1 to 255", invalidRoom},
		{"leave", `{"connection":"ID","room":""}`, "/room", "1 to 255", invalidRoom},
		{"join", `{"connection":1,"room":"a"}`, "/connection", "give a string", invalidRequest},
		{"join", `{"user":"","room":"a"}`, "/user", "one byte", invalidRequest},
		{"leave", `{"connection":"ID","rooms":["a"]}`, "/rooms", `did you mean "room"?`, invalidRequest},
		{"disconnect", `{}`, "", "connection, user, room and where", invalidRequest},
		{"disconnect", `{"user":"7","room":"a"}`, "/room", "give user or room, not both", invalidRequest},
		{"disconnect", `{"room":""}`, "/room", "1 to 255", invalidRoom},
		{"disconnect", `{"where":{"attribute":"a"}}`, "/where", "value", invalidRequest},
		{"disconnect", `{"everybody":true}`, "/everybody", "no such field", invalidRequest},
		{"disconnect", `{"connection":"ID","resume":0}`, "/resume", "true or false", invalidRequest},
		{"disconnect", `{"connection":"ID","except":"x"}`, "/except", "a list", invalidRequest},
		{"attributes", `{}`, "/connection", "name the connection", invalidRequest},
		{"attributes", `{"connection":"ID","set":[]}`, "/set", "an object", invalidRequest},
		{"attributes", `{"connection":"ID","set":{"a":1,"a":2}}`, "/set", "stands twice", invalidRequest},
		{"attributes", `{"connection":"ID","remove":"a"}`, "/remove", "a list", invalidRequest},
		{"rooms/create", `{}`, "/room", "1 to 255", invalidRoom},
		{"rooms/create", `{"room":"x","max_members":0}`, "/max_members", "from 1", invalidRequest},
		{"rooms/create", `{"room":"x","max_members":9007199254740993}`, "/max_members", "from 1", invalidRequest},
		{"rooms/delete", `{"room":"x","max_members":1}`, "/max_members", "no such field", invalidRequest},
		{"sessions/end", `{}`, "", "connection and user", invalidRequest},
		{"sessions/end", `{"room":"a"}`, "/room", "no such field", invalidRequest},
		{"disconnect", `{"connection":"ID","code":1006}`, "/code", "close code", invalidRequest},
		{"disconnect", `{"connection":"ID","code":1002}`, "/code", "close code", invalidRequest},
		{"disconnect", `{"connection":"ID","code":70000}`, "/code", "close code", invalidRequest},
		{"disconnect", `{"connection":"ID","code":-1}`, "/code", "close code", invalidRequest},
		{"disconnect", `{"connection":"ID","code":4e3}`, "/code", "close code", invalidRequest},
		{"disconnect", `{"connection":"ID","code":"4000"}`, "/code", "close code", invalidRequest},
		{"disconnect", `{"connection":"ID","reason":"` + strings.Repeat("é", 62) + `"}`, "/reason", "123 bytes", invalidRequest},
		{"disconnect", `{"connection":"ID","reason":null}`, "/reason", "give a string", invalidRequest},
	} {
		body := strings.ReplaceAll(row.body, "ID", c.id)
		p := w.refused(w.request(http.MethodPost, "/v1/"+row.path, body), row.code)
		if len(p.Errors) != 1 || p.Errors[0].Pointer != row.pointer || !strings.Contains(p.Errors[0].Detail, row.says) {
			t.Errorf("%s %s: %+v, want %s: %s", row.path, body, p.Errors, row.pointer, row.says)
		}
	}
	for path, body := range map[string]string{"join": `{"connection":"ID","room":"shop:1"}`, "leave": `{"connection":"ID","room":"shop:1"}`, "disconnect": `{"connection":"ID"}`,
		"sessions/end": `{"connection":"ID"}`, "attributes": `{"connection":"ID"}`} {
		for key, says := range map[string]string{text: "some rooms only", publisher: "lacks the scope manage"} {
			r := w.request(http.MethodPost, "/v1/"+path, strings.ReplaceAll(body, "ID", c.id))
			r.Header.Set("Authorization", "Bearer "+key)
			if p := w.refused(r, forbidden); !strings.Contains(p.Detail, says) {
				t.Errorf("%s: %s", path, p.Detail)
			}
		}
	}
	large := w.request(http.MethodPost, "/v1/join", `{"connection":"`+strings.Repeat("x", envelopeBytes)+`"}`)
	if p := w.refused(large, tooLarge); !strings.Contains(p.Detail, "64 KiB") {
		t.Error(p.Detail)
	}
	w.expect(c)
}

// closes wants the server to close the connection with a code.
func (c *client) closes(want ws.StatusCode) {
	c.t.Helper()
	for {
		c.conn.SetReadDeadline(time.Now().Add(patient))
		_, err := wsutil.ReadServerText(c)
		var closed wsutil.ClosedError
		switch {
		case err == nil:
		case errors.As(err, &closed) && closed.Code == want:
			return
		default:
			c.t.Fatalf("%v, want %d", err, want)
		}
	}
}

// Actions on a user, a room or an attribute's value are about exactly these connections, and are counted.
func TestActionsOnMany(t *testing.T) {
	w := start(t)
	a, b, c := w.dialAs("ann", "7"), w.dialAs("ann", "8"), w.dialAs("bob", "7", "r")
	for _, row := range []struct{ path, body, want string }{
		{"join", `{"user":"ann","room":"r"}`, `{"joined":2}`},
		{"join", `{"user":"nobody","room":"r"}`, `{"joined":0}`},
		{"leave", `{"user":"ann","room":"elsewhere"}`, `{"left":0}`},
		{"leave", `{"user":"ann","room":"r"}`, `{"left":2}`},
		{"disconnect", `{"user":"nobody"}`, `{"closed":0}`},
		{"disconnect", `{"room":"nowhere"}`, `{"closed":0}`},
		{"sessions/end", `{"user":"nobody"}`, `{"ended":0}`},
		{"disconnect", `{"where":{"attribute":"team","value":7},"except":["` + c.id + `"],"code":4100}`, `{"closed":1}`},
		{"disconnect", `{"user":"ann","resume":false}`, `{"closed":1}`},
		{"disconnect", `{"room":"r"}`, `{"closed":1}`},
	} {
		if got := w.post("/v1/"+row.path, "%s", row.body); got != row.want {
			t.Errorf("%s %s: %s", row.path, row.body, got)
		}
	}
	a.closes(4100)
	b.closes(4007)
	c.closes(4007)
	if err := w.srv.Rooms().Create("one", engine.RoomOptions{MaxMembers: 1}); err != nil {
		t.Fatal(err)
	}
	d := w.dialAs("dan", "1")
	w.dialAs("dan", "2")
	if got := w.post("/v1/join", `{"user":"dan","room":"one"}`); got != `{"joined":1}` {
		t.Error(got)
	}
	w.dialAs("eve", "")
	w.refused(w.request(http.MethodPost, "/v1/join", `{"user":"eve","room":"one"}`), roomFull)
	if got := w.post("/v1/sessions/end", `{"user":"dan"}`); got != `{"ended":2}` {
		t.Error(got)
	}
	d.closes(4001)
}

// Attributes are set and removed in one step; what does not fit changes nothing.
func TestAttributes(t *testing.T) {
	w := start(t)
	c := w.dialAs("", "7")
	if got := w.post("/v1/attributes", `{"connection":%q,"set":{"a\"b":9007199254740993,"n":null},"remove":["team","nothing"]}`, c.id); got != `{"attributes":{"a\"b":9007199254740993,"n":null}}` {
		t.Error(got)
	}
	large := fmt.Sprintf(`{"connection":%q,"set":{"x":%q},"remove":["n"]}`, c.id, strings.Repeat("x", w.srv.Config().AttributesBytesMax+1))
	if len(large) < envelopeBytes {
		if p := w.refused(w.request(http.MethodPost, "/v1/attributes", large), tooLarge); !strings.Contains(p.Detail, "attributes_bytes_max") {
			t.Error(p)
		}
	}
	if got := w.post("/v1/attributes", `{"connection":%q}`, c.id); !strings.Contains(got, `"n":null`) {
		t.Error(got)
	}
	w.refused(w.request(http.MethodPost, "/v1/attributes", `{"connection":"nonsense","set":{"a":1}}`), notFound)
}

// Rooms are created once, and deleted with their members, whether they were created or came to be by themselves.
func TestRooms(t *testing.T) {
	shop, entry := makeKey(t, "shop", "manage")
	entry.Rooms = []string{"shop:*"}
	w := start(t, entry)
	create := func(key, body string) *http.Request {
		r := w.request(http.MethodPost, "/v1/rooms/create", body)
		r.Header.Set("Authorization", "Bearer "+key)
		return r
	}
	if resp, got := w.send(create(shop, `{"room":"shop:1","max_members":2,"metadata":{"a":[1]}}`)); resp.StatusCode != http.StatusCreated || got != "{}" {
		t.Error(resp.StatusCode, got)
	}
	w.refused(create(shop, `{"room":"shop:1"}`), roomExists)
	w.refused(create(shop, `{"room":"chat:1"}`), forbidden)
	if got := w.get("/v1/room", "room", "shop:1"); !strings.Contains(got, `"max_members":2,"metadata":{"a":[1]}`) {
		t.Error(got)
	}
	c := w.dial("shop:1", "plain")
	for _, room := range []string{"shop:1", "plain"} {
		if got := w.post("/v1/rooms/delete", `{"room":%q}`, room); got != `{"left":1}` {
			t.Error(room, got)
		}
		w.refused(w.request(http.MethodPost, "/v1/rooms/delete", fmt.Sprintf(`{"room":%q}`, room)), notFound)
	}
	w.expect(c, `{"type":"left","room":"shop:1"}`, `{"type":"left","room":"plain"}`)
}

// A created room is changed in what the request names; its members stay, even if they are more than the new limit.
func TestUpdateRoom(t *testing.T) {
	shop, entry := makeKey(t, "shop", "manage")
	entry.Rooms = []string{"shop:*"}
	w := start(t, entry)
	if _, got := w.send(w.request(http.MethodPost, "/v1/rooms/create", `{"room":"chat:1","max_members":3,"metadata":{"a":1}}`)); got != "{}" {
		t.Fatal(got)
	}
	a, b := w.dial("chat:1"), w.dial("chat:1")
	for _, row := range [][2]string{
		{`{"room":"chat:1","max_members":1}`, `"max_members":1,"metadata":{"a":1}`},
		{`{"room":"chat:1","metadata":null}`, `"max_members":1,"metadata":null`},
		{`{"room":"chat:1","max_members":null,"metadata":[9007199254740993]}`, `"max_members":0,"metadata":[9007199254740993]`},
		{`{"room":"chat:1","max_members":2}`, `"max_members":2,"metadata":[9007199254740993]`},
	} {
		if got := w.post("/v1/rooms/update", "%s", row[0]); got != "{}" {
			t.Error(row[0], got)
		}
		if got := w.get("/v1/room", "room", "chat:1"); !strings.Contains(got, row[1]) || !strings.Contains(got, `"members":2,`) {
			t.Errorf("%s: %s", row[0], got)
		}
	}
	w.refused(w.request(http.MethodPost, "/v1/join", fmt.Sprintf(`{"connection":%q,"room":"chat:1"}`, w.dial().id)), roomFull)
	w.expect(a)
	w.expect(b)
	w.dial("plain")
	for body, want := range map[string]code{`{"room":"plain","max_members":1}`: notFound, `{"room":"nowhere","metadata":1}`: notFound, `{"room":"chat:1"}`: invalidRequest,
		`{"room":"chat:1","max_members":0}`: invalidRequest, `{"room":"chat:1","max_members":"7"}`: invalidRequest, `{"max_members":7}`: invalidRoom} {
		w.refused(w.request(http.MethodPost, "/v1/rooms/update", body), want)
	}
	r := w.request(http.MethodPost, "/v1/rooms/update", `{"room":"chat:1","metadata":1}`)
	r.Header.Set("Authorization", "Bearer "+shop)
	w.refused(r, forbidden)
}

// All actions may stand in a batch.
func TestActionsInBatch(t *testing.T) {
	w := start(t)
	c := w.dialAs("ann", "7")
	got := w.post("/v1/batch", `{"stop":true,"operations":[{"do":"rooms/create","room":"r"},{"do":"join","user":"ann","room":"r"},{"do":"attributes","connection":%q,"set":{"team":8}},{"do":"rooms/delete","room":"r"},{"do":"sessions/end","user":"ann"},{"do":"rooms/delete","room":"r"},{"do":"join","user":"ann","room":"r"}]}`, c.id)
	if !strings.HasPrefix(got, `{"results":[{},{"joined":1},{"attributes":{"team":8}},{"left":1},{"ended":1},{"type":"urn:parley:not_found"`) || !strings.HasSuffix(got, `,{"skipped":true}]}`) {
		t.Error(got)
	}
	c.closes(4001)
}

// The close codes that a backend may choose are those that the document has.
func TestCloseCodes(t *testing.T) {
	for n := range 6000 {
		err := theContract().hold(fmt.Appendf(nil, `{"connection":"x","code":%d}`, n), "components", "schemas", "Disconnect")
		if mayEnd(ws.StatusCode(n)) != (err == nil) {
			t.Errorf("%d: the document says %v", n, err)
		}
	}
}
