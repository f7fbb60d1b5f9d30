package api

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/gobwas/ws/wsutil"

	"github.com/parleyd/parley/engine"
)

// Each kind of receivers gets the message, once, and no other client does.
func TestPublishReaches(t *testing.T) {
	w := start(t)
	a := w.dialAs("ann", `7`, "a", "both")
	b := w.dialAs("bob", `"7"`, "b", "both")
	c := w.dial()
	everyone := map[string]*client{"a": a, "b": b, "c": c}
	for _, row := range []struct{ to, who string }{
		{`"room":"a"`, "a"},
		{`"room":"\u0061"`, "a"},
		{`"room":"nowhere"`, ""},
		{`"rooms":["a","b","both","a"]`, "a b"},
		{`"rooms":["nowhere"]`, ""},
		{`"rooms":[]`, ""},
		{`"connection":"` + c.id + `"`, "c"},
		{`"connection":"nonsense"`, ""},
		{`"connections":["` + c.id + `","` + a.id + `","` + c.id + `","8fc1000100000a3c5be7d1a2"]`, "a c"},
		{`"where":{"attribute":"team","value":7}`, "a"},
		{`"where":{"attribute":"team","value": "7" }`, "b"},
		{`"where":{"attribute":"other","value":7}`, ""},
		{`"everybody":true`, "a b c"},
		{`"room":"both","except":["` + a.id + `"]`, "b"},
		{`"rooms":["a","both"],"except":["` + a.id + `","nonsense"]`, "b"},
		{`"everybody":true,"except":["` + a.id + `","` + b.id + `"]`, "c"},
		{`"where":{"attribute":"team","value":7},"except":["` + a.id + `"]`, ""},
		{`"connections":["` + c.id + `","` + a.id + `"],"except":["` + a.id + `"]`, "c"},
		{`"room":"a","history":false,"count":false`, "a"},
		{`"user":"ann"`, "a"},
		{`"user":"nowhere"`, ""},
		{`"users":["bob","ann","bob"]`, "a b"},
		{`"users":[]`, ""},
		{`"users":["ann","bob"],"except_user":"ann"`, "b"},
		{`"rooms":["a","b"],"except_user":"bob"`, "a"},
		{`"everybody":true,"except":["` + a.id + `"],"except_user":"bob"`, "c"},
		{`"everybody":true,"except_user":"nowhere"`, "a b c"},
	} {
		text := fmt.Sprintf(`{"type":"x","to":%q}`, row.to)
		if got := w.post("/v1/publish", `{%s,"message":%s}`, row.to, text); got != "{}" {
			t.Errorf("%s: %s", row.to, got)
		}
		for name, one := range everyone {
			if strings.Contains(row.who, name) {
				w.expect(one, text)
			} else {
				w.expect(one)
			}
		}
	}
}

// Data comes in a broadcast that names the room. A member of several rooms gets it once; the room is the first that was named.
func TestPublishData(t *testing.T) {
	w := start(t)
	members := []*client{w.dial(`a"b`), w.dial("c", `a"b`), w.dial("c")}
	for to, got := range map[string][]*client{`"room":"a\"b"`: members[:2], `"rooms":["a\"b"]`: members[:2], `"rooms":["a\"b","c","c"]`: members} {
		if said := w.post("/v1/publish", `{%s,"data":{"n":1},"count":true}`, to); said != fmt.Sprintf(`{"recipients":%d}`, len(got)) {
			t.Errorf("%s: %s", to, said)
		}
		for _, member := range got {
			var got struct {
				Type, Room string
				From       *string
				Data       json.RawMessage
				Timestamp  int64
			}
			text := member.next()
			if err := json.Unmarshal([]byte(text), &got); err != nil || got.Type != "broadcast" || got.Room != `a"b` || string(got.Data) != `{"n":1}` || got.Timestamp < 1e9 || got.From != nil {
				t.Errorf("%s: %v", text, err)
			}
		}
	}
	for _, member := range members {
		w.expect(member)
	}
}

// Numbers in messages, in data and in values of attributes are compared and passed on digit by digit.
func TestLargeNumbers(t *testing.T) {
	w := start(t)
	a, b := w.dialAs("", `9007199254740993`, "a"), w.dialAs("", `9007199254740992`, "a")
	const text = `{"type":"x","n":9007199254740993,"m":1e400,"o":-0.0}`
	w.post("/v1/publish", `{"where":{"attribute":"team","value":9007199254740993},"message":%s}`, text)
	w.expect(a, text)
	w.expect(b)
	w.post("/v1/publish", `{"room":"a","data":123456789012345678901234567890.10}`)
	if got := b.next(); !strings.Contains(got, `"data":123456789012345678901234567890.10,`) {
		t.Error(got)
	}
}

// count says for how many connections the message was queued.
func TestPublishCounts(t *testing.T) {
	w := start(t)
	a, b := w.dialAs("ann", "7", "a", "b"), w.dialAs("ann", "8", "a")
	for to, want := range map[string]int{
		`"room":"a"`: 2, `"room":"nowhere"`: 0, `"connection":"` + a.id + `"`: 1, `"connection":"nonsense"`: 0, `"connections":[]`: 0,
		`"rooms":["a","b"]`: 2, `"rooms":[]`: 0, `"user":"ann"`: 2, `"users":["ann","nobody"]`: 2, `"users":["nobody"]`: 0, `"everybody":true`: 2, `"where":{"attribute":"team","value":7}`: 1,
		`"room":"a","except":["` + a.id + `"]`: 1, `"everybody":true,"except_user":"ann"`: 0, `"everybody":true,"except":["nonsense","` + b.id + `"]`: 1,
		`"room":"a","except":["` + a.id + `","` + a.id + `","` + madeUp(a.id) + `"]`:              1,
		`"connections":["` + a.id + `","` + b.id + `","` + a.id + `","8fc1000100000a3c5be7d1a2"]`: 2, `"connections":["` + a.id + `","` + b.id + `"],"except":["` + a.id + `"]`: 1,
	} {
		if got := w.post("/v1/publish", `{%s,"message":{"type":"x"},"count":true}`, to); got != fmt.Sprintf(`{"recipients":%d}`, want) {
			t.Errorf("%s: %s, want %d", to, got, want)
		}
	}
	a.conn.Close()
	eventually(t, "the client that left is counted no more", func() bool {
		return w.post("/v1/publish", `{"room":"a","data":1,"count":true}`) == `{"recipients":1}`
	})
}

// A count with exceptions reads the rosters of rooms whose members come and go: the race detector watches.
func TestCountWhileMembersMove(t *testing.T) {
	w := start(t)
	a, b := w.dial("a"), w.dial("a")
	moved := make(chan error, 1)
	go func() {
		for range 100 {
			for _, kind := range []string{"leave", "join"} {
				if err := wsutil.WriteClientText(b.conn, []byte(`{"type":"`+kind+`","room":"a"}`)); err != nil {
					moved <- err
					return
				}
			}
		}
		moved <- nil
	}()
	for done := false; !done; {
		got := w.post("/v1/publish", `{"room":"a","message":{"type":"x"},"except":[%q,%q],"count":true}`, a.id, b.id)
		if got != `{"recipients":0}` && got != `{"recipients":1}` { // b may come or go between the publish and the look at its exceptions
			t.Fatal(got)
		}
		select {
		case err := <-moved:
			if done = true; err != nil {
				t.Fatal(err)
			}
		default:
		}
	}
}

// While a loop cannot take more, publishes to it are refused with 503 and a time to wait; later they are taken.
func TestOverload(t *testing.T) {
	held, release := make(chan bool), make(chan bool)
	w := start(t)
	w.srv.On("hold", func(*engine.Conn, *engine.Message, *engine.Server) (any, error) {
		held <- true
		<-release
		return nil, nil
	})
	member := w.dial("a")
	if err := wsutil.WriteClientText(member.conn, []byte(`{"type":"hold"}`)); err != nil {
		t.Fatal(err)
	}
	<-held
	text := strings.Repeat("x", int(w.api.publishMax.bytes)-200)
	for _, to := range []string{`"room":"a"`, `"connection":"` + member.id + `"`, `"room":"a","count":true`, `"everybody":true`} {
		status := 200
		for tries := 0; status == 200 && tries < 20_000; tries++ {
			resp, got := w.send(w.request(http.MethodPost, "/v1/publish", fmt.Sprintf(`{%s,"message":{"type":"x","text":%q}}`, to, text)))
			if status = resp.StatusCode; status != 200 && (status != 503 || !strings.Contains(got, `"code":"overloaded"`) || resp.Header.Get("Retry-After") != "1") {
				t.Errorf("%s: %d %s", to, status, got)
			}
		}
		if status != 503 {
			t.Errorf("%s: never refused", to)
		}
	}
	got := w.post("/v1/publish", `{"connections":["nowhere",%q],"message":{"type":"x"}}`, "x")
	if got != "{}" {
		t.Error(got)
	}
	close(release)
	other := w.dial("b")
	eventually(t, "publishes are taken again", func() bool {
		resp, _ := w.send(w.request(http.MethodPost, "/v1/publish", `{"room":"b","message":{"type":"y"}}`))
		return resp.StatusCode == 200
	})
	if got := other.next(); got != `{"type":"y"}` {
		t.Error(got)
	}
}

// A publish whose fields contradict each other, or need what the server has not got, is refused with the field.
func TestBadPublishes(t *testing.T) {
	w := start(t)
	member := w.dial("a")
	for _, row := range []struct {
		body, pointer, says string
		code                code
	}{
		{`{"data":1}`, "", "by exactly one of room", invalidRequest},
		{`{"room":"a"}`, "", "exactly one of data and message", invalidRequest},
		{`{"room":"a","data":1,"message":{"type":"x"}}`, "/message", "give data or message, not both", invalidRequest},
		{`{"room":"a","everybody":true,"data":1}`, "/everybody", "give only one of room and everybody", invalidRequest},
		{`{"room":"a","rooms":["a"],"data":1}`, "/rooms", "give only one of room and rooms", invalidRequest},
		{`{"everybody":false,"message":{"type":"x"}}`, "/everybody", "give true", invalidRequest},
		{`{"everybody":true,"data":1}`, "/data", "data is for rooms", invalidRequest},
		{`{"connection":"x","data":1}`, "/data", "data is for rooms", invalidRequest},
		{`{"room":"a","message":1}`, "/message", "a string as its type", invalidRequest},
		{`{"room":"a","message":{}}`, "/message", "a string as its type", invalidRequest},
		{`{"room":"a","message":{"type":1}}`, "/message", "a string as its type", invalidRequest},
		{`{"room":"a","message":{"type":"x","type":"y"}}`, "/message", "a string as its type", invalidRequest},
		{`{"room":"a","message":"{\"type\":\"x\"}"}`, "/message", "a string as its type", invalidRequest},
		{`{"where":1,"message":{"type":"x"}}`, "/where", "one JSON object", invalidRequest},
		{`{"where":{},"message":{"type":"x"}}`, "/where", "attribute", invalidRequest},
		{`{"where":{"attribute":"a"},"message":{"type":"x"}}`, "/where", "value", invalidRequest},
		{`{"where":{"attribute":"","value":1},"message":{"type":"x"}}`, "/where", "a name", invalidRequest},
		{`{"where":{"attribute":"a","value":1,"valeu":1},"message":{"type":"x"}}`, "/where/valeu", `did you mean "value"?`, invalidRequest},
		{`{"where":{"attribute":1,"value":1},"message":{"type":"x"}}`, "/where/attribute", "give a string", invalidRequest},
		{`{"user":"7","data":1}`, "/data", "data is for rooms", invalidRequest},
		{`{"user":"","message":{"type":"x"}}`, "/user", "one byte", invalidRequest},
		{`{"user":7,"message":{"type":"x"}}`, "/user", "give a string", invalidRequest},
		{`{"users":["7",""],"message":{"type":"x"}}`, "/users", "one byte", invalidRequest},
		{`{"users":[7],"message":{"type":"x"}}`, "/users", "element 0", invalidRequest},
		{`{"users":["7"],"user":"7","message":{"type":"x"}}`, "/user", "give only one of users and user", invalidRequest},
		{`{"room":"a","data":1,"except_user":["7"]}`, "/except_user", "give a string", invalidRequest},
		{`{"room":"a","data":1,"except_user":""}`, "/except_user", "one byte", invalidRequest},
		{`{"room":"a","data":1,"idempotency_key":""}`, "/idempotency_key", "1 to 64", invalidRequest},
		{`{"room":"a","data":1,"idempotency_key":"` + strings.Repeat("k", 65) + `"}`, "/idempotency_key", "1 to 64", invalidRequest},
		{`{"room":"a","data":1,"idempotency_key":"k"}`, "", "", noHistory},
		{`{"room":"","data":1}`, "/room", "1 to 255", invalidRoom},
		{`{"room":"a\u0000","data":1}`, "/room", "1 to 255", invalidRoom},
		{`{"room":"` + strings.Repeat("é", 128) + `","data":1}`, "/room", "1 to 255", invalidRoom},
		{`{"rooms":["a","\u007f"],"message":{"type":"x"}}`, "/rooms/1", "1 to 255", invalidRoom},
	} {
		p := w.refused(w.request(http.MethodPost, "/v1/publish", row.body), row.code)
		if row.code == noHistory {
			continue
		}
		if len(p.Errors) != 1 || p.Errors[0].Pointer != row.pointer || !strings.Contains(p.Errors[0].Detail, row.says) {
			t.Errorf("%s: %+v, want %s: %s", row.body, p.Errors, row.pointer, row.says)
		}
	}
	w.expect(member)
}

// A key with rooms publishes to these, and to nothing else.
func TestKeysOfRooms(t *testing.T) {
	text, entry := makeKey(t, "shop", "publish")
	entry.Rooms = []string{"shop:**"}
	w := start(t, entry)
	member := w.dial("shop:1", "chat:1")
	as := func(body string) *http.Request {
		r := w.request(http.MethodPost, "/v1/publish", body)
		r.Header.Set("Authorization", "Bearer "+text)
		return r
	}
	if resp, got := w.send(as(`{"rooms":["shop:1","shop:2"],"message":{"type":"x"}}`)); resp.StatusCode != 200 {
		t.Errorf("%d %s", resp.StatusCode, got)
	}
	for body, says := range map[string]string{
		`{"room":"chat:1","data":1}`:                                                `not for the room \"chat:1\"`,
		`{"rooms":["shop:1","chat:1"],"message":{"type":"y"}}`:                      `not for the room \"chat:1\"`,
		`{"everybody":true,"message":{"type":"y"}}`:                                 "not everybody",
		`{"where":{"attribute":"a","value":1},"message":{"type":"y"}}`:              "not where",
		`{"connection":"` + member.id + `","message":{"type":"y"}}`:                 "not connection",
		`{"user":"7","message":{"type":"y"}}`:                                       "not user",
		`{"connections":["` + member.id + `"],"message":{"type":"y"},"count":true}`: "not connections",
		`{"room":"chat:1","data":1,"count":true}`:                                   `not for the room`,
		`{"room":"chat:1","message":{"type":"y"},"idempotency_key":"k","key":"k"}`:  `not for the room`,
	} {
		if p := w.refused(as(body), forbidden); !strings.Contains(fmt.Sprintf("%q", p.Detail), says) {
			t.Errorf("%s: %s", body, p.Detail)
		}
	}
	w.expect(member, `{"type":"x"}`)
}

// numbered reads n messages and wants their numbers in order.
func (c *client) numbered(n int) {
	c.t.Helper()
	for i := range n {
		if got, want := c.next(), fmt.Sprintf(`{"type":"x","n":%d}`, i); got != want {
			c.t.Fatalf("got %s, want %s", got, want)
		}
	}
}

// What the requests of one connection publish arrives in its order at every member, to rooms, connections and everybody, also
// where the requests are sent without waiting for answers.
func TestOrderOfOneConnection(t *testing.T) {
	const n = 300
	w := start(t)
	members := []*client{w.dial("a", "b"), w.dial("a", "b"), w.dial("b", "a")}
	to := func(i int) string {
		ids, _ := json.Marshal([]string{members[0].id, members[1].id, members[2].id})
		return []string{`"room":"a"`, `"everybody":true`, `"connections":` + string(ids), `"rooms":["b","a"]`, `"connections":` + string(ids) + `,"count":true`}[i%5]
	}
	conn, in := w.raw()
	var sent strings.Builder
	for i := range n {
		body := fmt.Sprintf(`{%s,"message":{"type":"x","n":%d}}`, to(i), i)
		sent.WriteString(w.head(len(body)) + body)
	}
	wrote := make(chan error, 1)
	go func() { _, err := io.WriteString(conn, sent.String()); wrote <- err }()
	for range n {
		if resp, got := w.readAnswer(in, `{"everybody":true,"message":{"type":"x"}}`); resp.StatusCode != 200 {
			t.Fatalf("%d %s", resp.StatusCode, got)
		}
	}
	if err := <-wrote; err != nil {
		t.Fatal(err)
	}
	for _, m := range members {
		m.numbered(n)
	}
}

// A request that begins after another was answered publishes behind it, whichever connection it comes on.
func TestOrderOfAnsweredRequests(t *testing.T) {
	const n = 200
	w := start(t)
	member := w.dial("a")
	var clients []*http.Client
	for range 4 {
		transport := &http.Transport{}
		defer transport.CloseIdleConnections()
		clients = append(clients, &http.Client{Transport: held{t, transport}, Timeout: patient})
	}
	for i := range n {
		resp, err := clients[i%len(clients)].Do(w.request(http.MethodPost, "/v1/publish", fmt.Sprintf(`{"room":"a","message":{"type":"x","n":%d}}`, i)))
		if err != nil || resp.StatusCode != 200 {
			t.Fatal(resp, err)
		}
		resp.Body.Close()
	}
	member.numbered(n)
}

// A batch is carried out in its order; the place of an operation that failed has its problem.
func TestBatch(t *testing.T) {
	w := start(t)
	member := w.dial("a")
	var operations []string
	for i := range batchOperationsMax {
		operations = append(operations, fmt.Sprintf(`{"do":"publish","room":"a","message":{"type":"x","n":%d}}`, i))
	}
	want := `{"results":[` + strings.Repeat(`{},`, batchOperationsMax-1) + `{}]}`
	if got := w.post("/v1/batch", `{"operations":[%s]}`, strings.Join(operations, ",")); got != want {
		t.Error(got)
	}
	member.numbered(batchOperationsMax)
	w.refused(w.request(http.MethodPost, "/v1/batch", `{"operations":[`+strings.Join(append(operations, operations[0]), ",")+`]}`), tooLarge)
	if got := w.post("/v1/batch", `{"operations":[]}`); got != `{"results":[]}` {
		t.Error(got)
	}
	const three = `{"do":"publish","room":"a","message":{"type":"1"}},{"do":"publish","room":"","data":1},{"do":"publish","room":"a","message":{"type":"3"},"count":true}`
	for stop, last := range map[string]string{"false": `{"recipients":1}`, "true": `{"skipped":true}`} {
		got := w.post("/v1/batch", `{"stop":%s,"operations":[%s]}`, stop, three)
		var answer struct{ Results []json.RawMessage }
		if err := json.Unmarshal([]byte(got), &answer); err != nil || len(answer.Results) != 3 || string(answer.Results[0]) != "{}" ||
			!strings.Contains(string(answer.Results[1]), `"code":"invalid_room"`) || !strings.Contains(string(answer.Results[1]), `"/operations/1/room"`) || string(answer.Results[2]) != last {
			t.Errorf("stop %s: %s %v", stop, got, err)
		}
		if stop == "true" {
			w.expect(member, `{"type":"1"}`)
		} else {
			w.expect(member, `{"type":"1"}`, `{"type":"3"}`)
		}
	}
}

// A batch that is none is refused; an operation that is none is a problem in its place.
func TestBadBatches(t *testing.T) {
	w := start(t)
	for body, pointer := range map[string]string{
		`{}`: "/operations", `{"operations":{}}`: "/operations", `{"operations":null}`: "/operations", `{"operations":[],"stop":1}`: "/stop",
		`{"operations":[],"operations":[]}`: "/operations", `{"operation":[]}`: "/operation", `{"operations":[{}`: "", `{"operations":[1,]}`: "",
	} {
		if p := w.refused(w.request(http.MethodPost, "/v1/batch", body), invalidRequest); len(p.Errors) != 1 || p.Errors[0].Pointer != pointer {
			t.Errorf("%s: %+v", body, p.Errors)
		}
	}
	for operation, says := range map[string]string{
		`1`: `give one JSON object, not a number`, `[]`: `not an array`, `{}`: `name the operation: one of publish, join, leave, disconnect`, `{"do":1}`: `give a string`,
		`{"do":"publsh"}`: `there is no operation`, `{"do":"batch","operations":[]}`: `there is no operation`, `{"do":"health"}`: `there is no operation`,
		`{"do":"publish","do":"publish","room":"a","data":1}`: `stands twice`, `{"do":"publish","rom":"a","data":1}`: `did you mean`, `{"do":""}`: `there is no operation`,
	} {
		got := w.post("/v1/batch", `{"operations":[%s]}`, operation)
		if !strings.Contains(got, `"code":"invalid_request"`) || !strings.Contains(got, says) || !strings.Contains(got, `"pointer":"/operations/0`) {
			t.Errorf("%s: %s", operation, got)
		}
	}
}

// Each operation of a batch needs its own scope.
func TestScopesInBatches(t *testing.T) {
	text, entry := makeKey(t, "reader", "read")
	w := start(t, entry)
	member := w.dial("a")
	for path, body := range map[string]string{"/v1/publish": `{"room":"a","data":1}`, "/v1/batch": `{"operations":[{"do":"publish","room":"a","data":1}]}`} {
		r := w.request(http.MethodPost, path, body)
		r.Header.Set("Authorization", "Bearer "+text)
		if _, got := w.send(r); !strings.Contains(got, `"code":"forbidden"`) || !strings.Contains(got, "lacks the scope publish") {
			t.Errorf("%s: %s", path, got)
		}
	}
	w.expect(member)
}

func BenchmarkPublish(b *testing.B) {
	w := start(b)
	w.dial("a")
	body := []byte(`{"room":"b","data":"` + strings.Repeat("x", 128) + `"}`)
	c := call{object: object{raw: body}, ctx: b.Context(), now: noon, route: w.api.routes["/v1/publish"], key: &key{scopes: scopeAll}}
	b.ReportAllocs()
	for b.Loop() {
		if _, wrong := w.api.carryOut(&c); wrong != nil {
			b.Fatal(wrong)
		}
	}
}
