package api

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/engine/canary"
)

// get sends a GET with the key for everything, which must give 200.
func (w *world) get(path string, query ...string) string {
	w.t.Helper()
	resp, got := w.send(w.ask(w.all, path, query...))
	if resp.StatusCode != 200 {
		w.t.Fatalf("%s %q: %d %s", path, query, resp.StatusCode, got)
	}
	return got
}

// ask makes a GET with a key and a query of names and values.
func (w *world) ask(key, path string, query ...string) *http.Request {
	w.t.Helper()
	values := url.Values{}
	for i := 0; i < len(query); i += 2 {
		values.Add(query[i], query[i+1])
	}
	if len(values) > 0 {
		path += "?" + values.Encode()
	}
	r := w.request(http.MethodGet, path, "")
	r.Header.Set("Authorization", "Bearer "+key)
	return r
}

// names follows the pages of a list, and returns the values of a field of all rows.
func (w *world) names(key, path, list, field string, query ...string) (names []string) {
	w.t.Helper()
	for after, pages := "", 0; pages == 0 || after != ""; pages++ {
		all := query
		if after != "" {
			all = append(all[:len(all):len(all)], "after", after)
		}
		resp, got := w.send(w.ask(key, path, all...))
		var answer map[string]json.RawMessage
		var rows []map[string]any
		if resp.StatusCode != 200 || json.Unmarshal([]byte(got), &answer) != nil || json.Unmarshal(answer[list], &rows) != nil {
			w.t.Fatalf("%s %q: %d %s", path, all, resp.StatusCode, got)
		}
		after = ""
		json.Unmarshal(answer["next"], &after)
		for _, row := range rows {
			names = append(names, row[field].(string))
		}
	}
	return names
}

// odd are names that need escaping in a query, in JSON or in both.
var odd = []string{`a"b`, `a\b`, `ä:é`, "a&b=c", "a b", "a+b", "a%20b", "<script>", "日本", "a/b?c#d", "null", "[1]"}

// sameNames wants each name exactly once, in any order.
func sameNames(t *testing.T, what string, got, want []string) {
	t.Helper()
	left := map[string]int{}
	for _, name := range want {
		left[name]++
	}
	for _, name := range got {
		left[name]--
	}
	for name, n := range left {
		if n != 0 {
			t.Errorf("%s: %q is missing (or there too often): %d", what, name, n)
		}
	}
}

// Rooms, their members and users are listed in pages of any size, each once, whatever their names are.
func TestLists(t *testing.T) {
	w := start(t)
	for _, name := range odd {
		w.dialAs(strings.ToUpper(url.QueryEscape(name)), "", odd...)
	}
	var users, ids []string
	for _, name := range odd {
		users = append(users, strings.ToUpper(url.QueryEscape(name)))
	}
	for _, limit := range []string{"1", "5", "1000"} {
		sameNames(t, "rooms", w.names(w.all, "/v1/rooms", "rooms", "room", "limit", limit), odd)
		sameNames(t, "users", w.names(w.all, "/v1/users", "users", "user", "limit", limit), users)
		for _, name := range odd {
			ids = w.names(w.all, "/v1/members", "members", "id", "limit", limit, "room", name)
			if len(ids) != len(odd) {
				t.Errorf("%q has %d members", name, len(ids))
			}
			sameNames(t, "members", w.names(w.all, "/v1/members", "members", "user", "limit", limit, "room", name), users)
		}
	}
	sameNames(t, "a pattern", w.names(w.all, "/v1/rooms", "rooms", "room", "match", "a*", "limit", "2"), []string{`a"b`, `a\b`, "a&b=c", "a b", "a+b", "a%20b", "a/b?c#d"})
	sameNames(t, "a star", w.names(w.all, "/v1/rooms", "rooms", "room", "match", "*"), slices.DeleteFunc(slices.Clone(odd), func(name string) bool { return strings.Contains(name, ":") }))
}

// A room is described with what it was created with. One that is not there is not found.
func TestRoom(t *testing.T) {
	w := start(t)
	w.dial("plain")
	if err := w.srv.Rooms().Create("made", engine.RoomOptions{MaxMembers: 7, Metadata: json.RawMessage(`{"big":9007199254740993}`)}); err != nil {
		t.Fatal(err)
	}
	var made, plain struct {
		Room, CreatedAt string
		Members, Max    int
	}
	got := w.get("/v1/room", "room", "made")
	if err := json.Unmarshal([]byte(got), &made); err != nil || made.Room != "made" || !strings.Contains(got, `"members":0,`) || !strings.Contains(got, `"max_members":7`) || !strings.Contains(got, `"metadata":{"big":9007199254740993}`) || !strings.Contains(got, `"created_at":"20`) {
		t.Errorf("%s %v", got, err)
	}
	if got := w.get("/v1/room", "room", "plain"); json.Unmarshal([]byte(got), &plain) != nil || plain.Members != 1 || strings.Contains(got, "metadata") {
		t.Error(got)
	}
	w.refused(w.ask(w.all, "/v1/room", "room", "nowhere"), notFound)
	if got := w.get("/v1/members", "room", "nowhere"); got != `{"members":[],"count":0}` {
		t.Error(got)
	}
	if got := w.get("/v1/users", "user", "x", "user", `"`); got != `{"users":[{"user":"x","connections":0},{"user":"\"","connections":0}]}` {
		t.Error(got)
	}
	if got := w.get("/v1/stats"); !strings.Contains(got, `"connections":1,`) || !strings.Contains(got, `"rooms":2,`) {
		t.Error(got)
	}
}

// Bad queries are refused with the parameter.
func TestBadReads(t *testing.T) {
	w := start(t)
	w.dial("a")
	type row struct{ query, pointer, says string }
	rows := map[string][]row{
		"/v1/rooms": {
			{"limit=0", "/limit", "1 to 1000"}, {"limit=1001", "/limit", "1 to 1000"}, {"limit=-1", "/limit", "1 to 1000"}, {"limit=1e2", "/limit", "1 to 1000"},
			{"limit=", "/limit", "1 to 1000"}, {"limit=99999999999999999999", "/limit", "1 to 1000"}, {"limit=9007199254740993", "/limit", "1 to 1000"}, {"limit=1&limit=2", "/limit", "twice"},
			{"match=***", "/match", "stars"}, {"match=", "/match", ""}, {"match=a*b*c*d*e*", "/match", "stars"}, {"after=x", "/after", "cursor"}, {"after=cg", "/after", "cursor"},
			{"after=dQA0Mg", "/after", "cursor"}, {"after=" + strings.Repeat("A", 5000), "/after", "cursor"}, {"after=%22%5C", "/after", "cursor"},
			{"lmit=1", "/lmit", `did you mean "limit"?`}, {"require=all", "/require", "complete"}, {"user=7", "/user", "no such field"},
		},
		"/v1/users":      {{"user=", "/user", "one byte"}, {"user=7&limit=1", "/user", "neither"}, {strings.Repeat("user=7&", 201), "/user", "at most 200"}, {"after=cgBh", "/after", "cursor"}},
		"/v1/members":    {{"", "/room", "1 to 255"}, {"room=", "/room", "1 to 255"}, {"room=%0a", "/room", "1 to 255"}, {"room=a&room=b", "/room", "twice"}, {"room=a&after=!", "/after", "cursor"}, {"room=a&after=bQ", "/after", "cursor"}},
		"/v1/room":       {{"", "/room", "1 to 255"}, {"room=" + strings.Repeat("x", 256), "/room", "1 to 255"}, {"room=a&limit=1", "/limit", "no such field"}},
		"/v1/connection": {{"", "/id", "name the connection"}},
		"/v1/connections": {
			{"user=a&user=b", "/user", "one user"}, {"address=127.0.0.1:80", "/address", "without a port"}, {"attribute=team", "/attribute", "JSON"}, {"attribute=team:x", "/attribute", "JSON"}, {"attribute=:1", "/attribute", "JSON"},
			{"sort=size", "/sort", "backlog"}, {"sort=age&user=a", "/sort", "no filter"}, {"sort=age&after=YwAAAA", "/sort", "no filter"}, {"after=bQAAAA", "/after", "cursor"}, {"after=YwAAAAAA", "/after", "cursor"},
		},
		"/v1/stats": {{"room=a", "/room", "no such field"}},
	}
	for path, list := range rows {
		for _, one := range list {
			code := invalidRequest
			if one.pointer == "/room" && one.says == "1 to 255" {
				code = invalidRoom
			}
			p := w.refused(w.request(http.MethodGet, path+"?"+one.query, ""), code)
			if len(p.Errors) != 1 || p.Errors[0].Pointer != one.pointer || !strings.Contains(p.Errors[0].Detail, one.says) {
				t.Errorf("%s?%s: %+v", path, clip([]byte(one.query)), p)
			}
		}
	}
	if p := w.refused(w.request(http.MethodGet, "/v1/rooms?match=%ff", ""), invalidRequest); !strings.Contains(p.Detail, "UTF-8") {
		t.Error(p)
	}
	if resp, got := w.send(w.request(http.MethodHead, "/v1/rooms", "")); resp.StatusCode != 200 || got != "" || resp.ContentLength < 10 {
		t.Errorf("%d %s", resp.StatusCode, got)
	}
}

// Connections are chosen by each filter and by all together, and described.
func TestConnections(t *testing.T) {
	shop, entry := makeKey(t, "shop", "read")
	entry.Rooms = []string{"shop:*"}
	w := start(t, entry)
	a, b, c := w.dialAs("ann", "7", "r", "shop:1"), w.dialAs("ann", `"7"`, "r"), w.dialAs("", "9007199254740993")
	for _, row := range []struct {
		query []string
		want  []string
	}{
		{nil, []string{a.id, b.id, c.id}},
		{[]string{"user", "ann"}, []string{a.id, b.id}},
		{[]string{"user", "nobody"}, nil},
		{[]string{"room", "shop:1"}, []string{a.id}},
		{[]string{"attribute", "team:7"}, []string{a.id}},
		{[]string{"attribute", `team:"7"`}, []string{b.id}},
		{[]string{"attribute", "team:9007199254740993"}, []string{c.id}},
		{[]string{"attribute", "team:9007199254740992"}, nil},
		{[]string{"address", "127.0.0.1"}, []string{a.id, b.id, c.id}},
		{[]string{"address", "::ffff:127.0.0.1", "user", "ann", "room", "r", "attribute", "team: 7"}, []string{a.id}},
		{[]string{"address", "192.0.2.1"}, nil},
		{[]string{"sort", "age"}, []string{a.id, b.id, c.id}},
		{[]string{"sort", "idle", "limit", "1000"}, []string{a.id, b.id, c.id}},
	} {
		sameNames(t, fmt.Sprint(row.query), w.names(w.all, "/v1/connections", "connections", "id", row.query...), row.want)
	}
	sameNames(t, "pages of one", w.names(w.all, "/v1/connections", "connections", "id", "limit", "1"), []string{a.id, b.id, c.id})
	sameNames(t, "the key's", w.names(shop, "/v1/connections", "connections", "id", "limit", "1"), []string{a.id})
	if rows := w.names(w.all, "/v1/connections", "connections", "id", "sort", "backlog", "limit", "2"); len(rows) != 2 {
		t.Error(rows)
	}
	if _, got := w.send(w.lines("/v1/connections", "sort", "age", "limit", "2")); strings.Count(got, "\n") != 3 {
		t.Error(got)
	}
	got := w.get("/v1/connection", "id", a.id)
	if !strings.Contains(got, `"user":"ann","address":"127.0.0.1",`) || !strings.Contains(got, `"attributes":{"team":7}`) || !strings.Contains(got, `"shop:1"`) || !strings.Contains(got, `"r"`) {
		t.Error(got)
	}
	if resp, got := w.send(w.ask(shop, "/v1/connection", "id", a.id)); resp.StatusCode != 200 || !strings.Contains(got, `"rooms":["shop:1"]`) {
		t.Error(got)
	}
	w.refused(w.ask(shop, "/v1/connection", "id", b.id), notFound)
	w.refused(w.ask(w.all, "/v1/connection", "id", exampleID), notFound)
	w.refused(w.ask(shop, "/v1/connections", "room", "r"), forbidden)
	w.refused(w.ask(shop, "/v1/connections", "sort", "age"), forbidden)
}

// A key with rooms reads these rooms and nothing else; a key without the scope reads nothing.
func TestKeysThatRead(t *testing.T) {
	shop, entry := makeKey(t, "shop", "read")
	entry.Rooms = []string{"shop:*"}
	publisher, publisherEntry := makeKey(t, "publisher", "publish", "manage")
	w := start(t, entry, publisherEntry)
	w.dialAs("ann", "", "shop:1", "shop:2", "chat:1", "shop:1:x")
	for _, limit := range []string{"1", "1000"} {
		sameNames(t, "rooms", w.names(shop, "/v1/rooms", "rooms", "room", "limit", limit), []string{"shop:1", "shop:2"})
	}
	sameNames(t, "matching rooms", w.names(shop, "/v1/rooms", "rooms", "room", "match", "**:1"), []string{"shop:1"})
	sameNames(t, "members", w.names(shop, "/v1/members", "members", "user", "room", "shop:1"), []string{"ann"})
	for _, r := range []*http.Request{
		w.ask(shop, "/v1/room", "room", "chat:1"), w.ask(shop, "/v1/members", "room", "chat:1"), w.ask(shop, "/v1/room", "room", "nowhere"), w.ask(shop, "/v1/users"), w.ask(shop, "/v1/users", "user", "ann"),
		w.ask(shop, "/v1/stats"), w.ask(publisher, "/v1/rooms"), w.ask(publisher, "/v1/stats"),
	} {
		w.refused(r, forbidden)
	}
}

// lines asks for a stream.
func (w *world) lines(path string, query ...string) *http.Request {
	r := w.ask(w.all, path, query...)
	r.Header.Set("Accept", "text/html, application/x-ndjson; q=0.9")
	return r
}

// makeRooms makes n rooms with metadata of some size.
func (w *world) makeRooms(n, size int) {
	w.t.Helper()
	for i := range n {
		if err := w.srv.Rooms().Create(fmt.Sprint("room:", i), engine.RoomOptions{Metadata: strings.Repeat("x", size)}); err != nil {
			w.t.Fatal(err)
		}
	}
}

// A stream has all rows, over several pages, and a last line with their number.
func TestStreams(t *testing.T) {
	w := start(t)
	w.makeRooms(2500, 1)
	w.dialAs("ann", "", "room:7")
	for path, want := range map[string]int{"/v1/rooms": 2500, "/v1/rooms?match=room:1*": 1111, "/v1/users": 1, "/v1/members?room=room:7": 1, "/v1/users?user=ann&user=bob": 2, "/v1/members?room=nowhere": 0} {
		r := w.lines(path)
		resp, got := w.send(r)
		lines := strings.Split(strings.TrimSuffix(got, "\n"), "\n")
		if resp.Header.Get("Content-Type") != linesType || len(lines) != want+1 || lines[want] != fmt.Sprintf(`{"end":true,"count":%d}`, want) {
			t.Errorf("%s: %d lines, the last %s", path, len(lines), lines[len(lines)-1])
		}
		seen := map[string]bool{}
		for _, line := range lines {
			if seen[line] {
				t.Errorf("%s: %s stands twice", path, line)
			}
			seen[line] = true
		}
	}
	for accept, lines := range map[string]bool{"application/x-ndjson;q=0": false, "*/*": false, "application/json": false, "application/x-ndjson": true} {
		r := w.request(http.MethodGet, "/v1/users", "")
		r.Header.Set("Accept", accept)
		if resp, _ := w.send(r); (resp.Header.Get("Content-Type") == linesType) != lines {
			t.Errorf("%s: %s", accept, resp.Header.Get("Content-Type"))
		}
	}
	w.refused(w.lines("/v1/rooms", "limit", "7"), invalidRequest)
	w.refused(w.lines("/v1/rooms", "after", "x"), invalidRequest)
	head := w.lines("/v1/rooms")
	head.Method = http.MethodHead
	if resp, got := w.send(head); resp.StatusCode != 200 || got != "" || len(w.api.streams) != 0 {
		t.Errorf("%d %q, %d streams are open", resp.StatusCode, got, len(w.api.streams))
	}
}

// slowReader asks for a stream on a connection of its own, and does not read.
func (w *world) slowReader(path string, buffer int) net.Conn {
	w.t.Helper()
	conn, err := net.Dial("tcp", w.addr)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { conn.Close() })
	if err := conn.(*net.TCPConn).SetReadBuffer(buffer); err != nil {
		w.t.Fatal(err)
	}
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nAccept: application/x-ndjson\r\n\r\n", path, w.all)
	return conn
}

// A client that does not read its stream is cut after the time for one chunk; meanwhile it holds no place of those that ask
// workers, and others are answered. Streams are bounded, too.
func TestSlowStreams(t *testing.T) {
	w := startWith(t, func(s *Server) {
		s.lineTimeout = 300 * time.Millisecond
		s.streams = make(chan struct{}, 3)
	})
	w.makeRooms(6000, 2000)
	var slow []net.Conn
	for range 3 {
		slow = append(slow, w.slowReader("/v1/rooms", 256<<10))
	}
	eventually(t, "the streams hold no place among those that ask", func() bool { return len(w.api.streams) == 3 && len(w.api.asks) == 0 })
	if p := w.refused(w.lines("/v1/rooms"), overloaded); !strings.Contains(p.Detail, "streams") {
		t.Error(p)
	}
	w.get("/v1/rooms", "limit", "10")
	eventually(t, "the streams are cut", func() bool { return len(w.api.streams) == 0 })
	for _, conn := range slow {
		conn.SetReadDeadline(time.Now().Add(patient))
		if text, _ := io.ReadAll(conn); strings.Contains(string(text), `"end":true`) {
			t.Error("a stream that was cut has an end")
		}
	}
}

// A client that begins to read after the usual time for an answer gets the whole list: each chunk has its own time.
func TestLateReader(t *testing.T) {
	w := startWith(t, func(s *Server) { s.http.WriteTimeout = 200 * time.Millisecond })
	w.makeRooms(6000, 2000)
	begin := time.Now()
	conn := w.slowReader("/v1/rooms", 1<<20)
	eventually(t, "the usual time is over", func() bool { return len(w.api.streams) == 1 && time.Since(begin) > 2*w.api.http.WriteTimeout })
	in, last := bufio.NewReaderSize(conn, 64<<10), ""
	for !strings.Contains(last, `"end"`) {
		conn.SetReadDeadline(time.Now().Add(patient))
		var err error
		if last, err = in.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	if !strings.Contains(last, `"count":6000}`) {
		t.Error(last)
	}
}

// While 256 requests ask workers, others are told to try again; those under way are answered.
func TestManyQuestions(t *testing.T) {
	w := start(t)
	for range asksMax {
		w.api.asks <- struct{}{}
	}
	for _, r := range []*http.Request{w.ask(w.all, "/v1/rooms"), w.lines("/v1/users"), w.ask(w.all, "/v1/room", "room", "a"), w.request(http.MethodPost, "/v1/publish", `{"room":"a","data":1,"count":true}`)} {
		if p := w.refused(r, overloaded); !strings.Contains(p.Detail, "256 requests") {
			t.Error(p)
		}
	}
	if len(w.api.streams) != 0 {
		t.Error("a refused stream keeps its place")
	}
	w.post("/v1/publish", `{"room":"a","data":1}`)
	for range asksMax {
		<-w.api.asks
	}
	w.get("/v1/rooms")
}

// The processes are listed; the only process cannot drain.
func TestWorkers(t *testing.T) {
	reader, readerEntry := makeKey(t, "reader", "all")
	readerEntry.Rooms = []string{"a"}
	manager, managerEntry := makeKey(t, "manager", "publish", "manage", "tokens")
	w := start(t, readerEntry, managerEntry)
	w.dial("a")
	var all engine.Processes
	if err := json.Unmarshal([]byte(w.get("/v1/workers")), &all); err != nil || len(all.Workers) != 1 || all.Workers[0].PID != os.Getpid() || all.Workers[0].Connections != 1 || all.Workers[0].State != "ready" {
		t.Error(all, err)
	}
	since := all.Workers[0].StartedAt
	if canary.Wait(1100*time.Millisecond, func() bool { // over the change of a second
		now, err := w.api.operator.Processes(t.Context())
		return err != nil || now.Workers[0].StartedAt != since
	}) {
		t.Error("the process was started at two times")
	}
	for _, key := range []string{reader, manager} {
		for _, r := range []*http.Request{w.request(http.MethodGet, "/v1/workers", ""), w.request(http.MethodPost, "/v1/drain", `{"worker":0}`)} {
			r.Header.Set("Authorization", "Bearer "+key)
			w.refused(r, forbidden)
		}
	}
	drain := func(body string) *http.Request { return w.request(http.MethodPost, "/v1/drain", body) }
	if p := w.refused(drain(`{"worker":0,"within":"1s"}`), notFound); !strings.Contains(p.Detail, "one process") {
		t.Error(p)
	}
	for body, pointer := range map[string]string{`{}`: "/worker", `{"worker":-1}`: "/worker", `{"worker":"0"}`: "/worker", `{"worker":0.5}`: "/worker",
		`{"worker":99999999999}`: "/worker", `{"worker":0,"within":30}`: "/within", `{"worker":0,"within":"-1s"}`: "/within",
		`{"worker":0,"within":"2h"}`: "/within", `{"worker":0,"within":"soon"}`: "/within", `{"worker":0,"force":true}`: "/force"} {
		if p := w.refused(drain(body), invalidRequest); len(p.Errors) == 0 || p.Errors[0].Pointer != pointer {
			t.Errorf("%s: %+v", body, p)
		}
	}
}
