package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/parleyd/parley/engine"
)

// must is post for a request that is carried out.
func (b *backend) must(path, format string, args ...any) (answer string) {
	b.t.Helper()
	status, answer := b.post(path, fmt.Sprintf(format, args...))
	if status != http.StatusOK {
		b.t.Fatalf("%s: %d %s", path, status, answer)
	}
	return answer
}

// Over three workers a publish is counted exactly, and a member of two rooms gets the one frame once.
func TestPublishOverWorkers(t *testing.T) {
	r, b, _ := serveAPI(t, "3")
	var members []*bufio.Reader
	for i := range 12 {
		members = append(members, r.member([]string{"a", "b"}[i%2]))
	}
	for to, want := range map[string]int{`"room":"a"`: 6, `"rooms":["a","b"]`: 12, `"rooms":["nowhere","b"]`: 6, `"everybody":true`: 12, `"user":"7"`: 0, `"connection":"x"`: 0} {
		if got := b.must("/v1/publish", `{%s,"message":{"type":"x"},"count":true}`, to); got != fmt.Sprintf(`{"recipients":%d}`, want) {
			t.Errorf("%s: %s, want %d", to, got, want)
		}
	}
	b.must("/v1/publish", `{"rooms":["a","b"],"data":"both"}`)
	b.must("/v1/publish", `{"everybody":true,"message":{"type":"end"}}`)
	for i, m := range members {
		if got := await(t, m, `"both"`); !strings.Contains(got, `"room":"a"`) {
			t.Errorf("member %d: %s", i, got)
		}
		if got, err := m.ReadString('\n'); err != nil || got != "{\"type\":\"end\"}\n" {
			t.Errorf("member %d: %s", i, got)
		}
	}
	r.stops()
}

// A worker that does not answer a count is named. While the bus does not answer, a publish is answered as delayed, and so is
// its place in a batch; when the supervisor has replaced the bus, all members get it.
func TestPublishWithoutAnswers(t *testing.T) {
	r, b, _ := serveAPI(t, "2")
	var members []*bufio.Reader
	for range 6 {
		members = append(members, r.member("a"))
	}
	r.signalRole("worker", syscall.SIGSTOP)
	got := b.must("/v1/publish", `{"room":"a","data":"counted","count":true}`)
	r.signalRole("worker", syscall.SIGCONT)
	if !strings.HasPrefix(got, `{"recipients":`) || strings.HasPrefix(got, `{"recipients":6`) || !regexp.MustCompile(`"partial":\[\{"worker":[01],"instance":\d+\}\]`).MatchString(got) {
		t.Error(got)
	}
	r.signalRole("bus", syscall.SIGSTOP)
	if got := b.must("/v1/publish", `{"room":"a","data":"late 1"}`); got != `{"delayed":true}` {
		t.Error(got)
	}
	if got := b.must("/v1/batch", `{"operations":[{"do":"publish","room":"a","data":"late 2"},{"do":"publish","rooms":[],"data":1}]}`); got != `{"results":[{"delayed":true},{}]}` {
		t.Error(got)
	}
	for _, m := range members {
		await(t, m, `"late 1"`)
		await(t, m, `"late 2"`)
	}
	r.eventually("publishes are not delayed any more", func() bool { return b.must("/v1/publish", `{"room":"a","data":1}`) == "{}" })
	r.stops()
}

// lines reads a stream.
func (b *backend) lines(path string) []string {
	b.t.Helper()
	status, text := b.request(http.MethodGet, path, "Accept", "application/x-ndjson", "")
	if status != http.StatusOK {
		b.t.Fatal(status, text)
	}
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}

// Lists and actions are those of all three workers: the api process has no connections of its own.
func TestManageOverWorkers(t *testing.T) {
	r, b, _ := serveAPI(t, "3")
	var members []*bufio.Reader
	for i := range 9 {
		members = append(members, r.member([]string{"a", "b"}[i%2]))
	}
	for path, want := range map[string]int{"/v1/connections": 9, "/v1/members?room=a": 5, "/v1/rooms": 2, "/v1/connections?room=b": 4, "/v1/connections?sort=age&limit=3": 3, "/v1/users": 0} {
		if lines := b.lines(path); len(lines) != want+1 || lines[want] != fmt.Sprintf(`{"end":true,"count":%d}`, want) {
			t.Errorf("%s: %q", path, lines)
		}
	}
	if status, answer := b.post("/v1/rooms/create", `{"room":"kept","history":{"messages":2}}`); status != http.StatusCreated {
		t.Error(status, answer)
	}
	for n := range 3 {
		if got := b.must("/v1/publish", `{"room":"kept","data":%d}`, n); !strings.HasPrefix(got, fmt.Sprintf(`{"seq":%d,"epoch":"`, n+1)) {
			t.Error(got)
		}
	}
	if got := b.lines("/v1/history?room=kept")[0]; !strings.Contains(got, `"low":2,"top":3,`) {
		t.Error(got)
	}
	if status, answer := b.post("/v1/publish", `{"room":"a","data":1,"idempotency_key":"k"}`); status != http.StatusConflict || !strings.Contains(answer, `"no_history"`) {
		t.Error(status, answer)
	}
	if status, answer := b.post("/v1/rooms/create", `{"room":"made","metadata":1}`); status != http.StatusCreated {
		t.Error(status, answer)
	}
	if got := b.lines("/v1/room?room=made")[0]; !strings.Contains(got, `"members":0,`) || !strings.Contains(got, `"metadata":1`) {
		t.Error(got)
	}
	for path, rows := range map[string][][2]string{"/v1/rooms/delete": {{`{"room":"b"}`, `{"left":4}`}, {`{"room":"made"}`, `{"left":0}`}, {`{"room":"kept"}`, `{"left":0}`}}, "/v1/disconnect": {{`{"room":"a"}`, `{"closed":5}`}}} {
		for _, row := range rows {
			if got := b.must(path, "%s", row[0]); got != row[1] {
				t.Errorf("%s %s: %s", path, row[0], got)
			}
		}
	}
	for _, m := range members[1:2] {
		await(t, m, `"left"`)
	}
	if lines := b.lines("/v1/connections"); len(lines) != 5 {
		t.Errorf("%q", lines)
	}
	r.stops()
}

// What a backend publishes on a socket without waiting for answers arrives in its order at the members on all workers.
func TestSocketOverWorkers(t *testing.T) {
	const n = 2000
	r, b, _ := serveAPI(t, "3")
	var members []*bufio.Reader
	for range 6 {
		members = append(members, r.member("a"))
	}
	dialer := ws.Dialer{Header: ws.HandshakeHeaderHTTP{"Authorization": {"Bearer " + b.key}}}
	conn, in, _, err := dialer.Dial(t.Context(), "ws"+strings.TrimPrefix(b.url, "http")+"/v1/socket")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if in == nil {
		in = bufio.NewReader(conn)
	}
	conn.SetDeadline(time.Now().Add(patient))
	wrote := make(chan error, 1)
	go func() {
		out := bufio.NewWriter(conn)
		for i := range n {
			if err := wsutil.WriteClientText(out, fmt.Appendf(nil, `{"do":"publish","ref":%d,"room":"a","message":{"type":"n","n":%d}}`, i, i)); err != nil {
				wrote <- err
				return
			}
		}
		wrote <- out.Flush()
	}()
	for i := range n {
		f, err := ws.ReadFrame(in)
		if want := fmt.Sprintf(`{"ref":%d,"result":{}}`, i); err != nil || string(f.Payload) != want {
			t.Fatalf("%s %v, want %s", f.Payload, err, want)
		}
	}
	if err := <-wrote; err != nil {
		t.Fatal(err)
	}
	for m, member := range members {
		for i := range n {
			if got := await(t, member, `"type":"n"`); got != fmt.Sprintf("{\"type\":\"n\",\"n\":%d}\n", i) {
				t.Fatalf("member %d: message %d is %s", m, i, got)
			}
		}
	}
	r.stops()
}

// The process of the API accepts no clients, and so it is no room for more.
func TestRoomForClients(t *testing.T) {
	r, b, _ := serveAPI(t, "2", "--max-connections", "100")
	const clients = 12
	for range clients {
		go io.Copy(io.Discard, r.member("a"))
	}
	var stats engine.Stats
	r.eventually("both workers are asked", func() bool {
		_, answer := b.request(http.MethodGet, "/v1/stats", "Accept", "application/json", "")
		return json.Unmarshal([]byte(answer), &stats) == nil && stats.Connections == clients
	})
	if stats.MaxConnections != 200 {
		t.Error(stats.MaxConnections)
	}
	r.stops()
}
