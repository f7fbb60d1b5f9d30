package admin_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/engine/admin"
	"github.com/parleyd/parley/engine/canary"
)

// patient is how long a test waits for a condition.
const patient = 30 * time.Second

// world is a running server with its admin listener.
type world struct {
	t    *testing.T
	srv  *engine.Server
	page *admin.Admin
	http *http.Client
}

func start(t *testing.T, prepare func(*engine.Server)) *world {
	t.Helper()
	cfg := engine.DefaultConfig()
	cfg.Port = -1
	cfg.Loops = 2
	log := slog.New(slog.DiscardHandler)
	srv, err := engine.New(cfg, engine.WithLogger(log))
	if err != nil {
		t.Fatal(err)
	}
	if prepare != nil {
		prepare(srv)
	}
	page, err := admin.New(srv, admin.Options{Host: "127.0.0.1", Port: -1, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { page.Close() })
	if err := srv.Start(); err != nil {
		t.Fatal(err)
	}
	w := &world{t, srv, page, &http.Client{Timeout: patient}}
	t.Cleanup(w.shutdown)
	return w
}

func (w *world) shutdown() {
	ctx, cancel := context.WithTimeout(context.Background(), patient)
	defer cancel()
	if err := w.srv.Shutdown(ctx); err != nil {
		w.t.Error(err)
	}
}

func (w *world) do(method, path string) (*http.Response, string) {
	w.t.Helper()
	r, err := http.NewRequest(method, "http://"+w.page.Addr().String()+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.send(r)
}

func (w *world) send(r *http.Request) (*http.Response, string) {
	w.t.Helper()
	resp, err := w.http.Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return resp, string(body)
}

// fetch gets a path that must be there.
func (w *world) fetch(path string) (*http.Response, string) {
	w.t.Helper()
	resp, body := w.do(http.MethodGet, path)
	if resp.StatusCode != http.StatusOK {
		w.t.Fatalf("%s: %s: %s", path, resp.Status, body)
	}
	return resp, body
}

// peer is a WebSocket client.
type peer struct {
	t    *testing.T
	conn net.Conn
	in   io.Reader
}

func (p *peer) Read(b []byte) (int, error)  { return p.in.Read(b) }
func (p *peer) Write(b []byte) (int, error) { return p.conn.Write(b) }

// dial connects and reads the greeting.
func (w *world) dial() *peer {
	w.t.Helper()
	conn, br, _, err := ws.Dialer{Timeout: patient}.Dial(w.t.Context(), "ws://"+w.srv.Addr().String()+"/")
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { conn.Close() })
	p := &peer{w.t, conn, conn}
	if br != nil {
		p.in = br
	}
	p.expect("connected")
	p.expect("reconnect_token")
	return p
}

func (p *peer) say(format string, args ...any) {
	p.t.Helper()
	if err := wsutil.WriteClientText(p.conn, fmt.Appendf(nil, format, args...)); err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) expect(typ string) {
	p.t.Helper()
	p.conn.SetReadDeadline(time.Now().Add(patient))
	raw, _, err := wsutil.ReadServerData(p)
	if err != nil {
		p.t.Fatal(err)
	}
	var m struct{ Type string }
	if err := json.Unmarshal(raw, &m); err != nil || m.Type != typ {
		p.t.Fatalf("got %s (%v), want a message of type %q", raw, err, typ)
	}
}

// eventually polls for a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	if !canary.Wait(patient, ok) {
		t.Fatalf("never: %s", what)
	}
}

// Health is 200 while the server runs, and 503 for good once it has left.
func TestHealth(t *testing.T) {
	w := start(t, nil)
	if resp, body := w.do(http.MethodGet, "/healthz"); resp.StatusCode != http.StatusOK || body != "ok\n" {
		t.Errorf("%s: %q", resp.Status, body)
	}
	w.shutdown()
	if resp, body := w.do(http.MethodGet, "/healthz"); resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(body, "not running") {
		t.Errorf("after the shutdown: %s: %q", resp.Status, body)
	}
	if resp, _ := w.do(http.MethodGet, "/stats"); resp.StatusCode != http.StatusOK {
		t.Errorf("stats after the shutdown: %s", resp.Status)
	}
}

// talk has two peers join a room and one broadcast: 3 messages in, 9 out.
func talk(w *world) {
	ann, bob := w.dial(), w.dial()
	ann.say(`{"type":"join","room":"lobby"}`)
	ann.expect("joined")
	bob.say(`{"type":"join","room":"lobby"}`)
	bob.expect("joined")
	ann.expect("member_joined")
	ann.say(`{"type":"broadcast","room":"lobby","data":"hi"}`)
	ann.expect("broadcast_sent")
	bob.expect("broadcast")
}

const (
	talkReceived = 3
	talkSent     = 9 // 2 greetings of 2, 2 joined, 1 member_joined, 1 broadcast_sent, 1 broadcast
)

// All keys of the original document are in /stats, with the right values.
func TestStats(t *testing.T) {
	w := start(t, nil)
	talk(w)
	seed := []string{"connections", "rooms", "messages_sent", "messages_received", "uptime", "memory_usage"}
	var figures map[string]float64
	read := func() {
		t.Helper()
		resp, body := w.fetch("/stats")
		if kind := resp.Header.Get("Content-Type"); kind != "application/json" {
			t.Fatalf("stats are %q", kind)
		}
		var all map[string]json.RawMessage
		if err := json.Unmarshal([]byte(body), &all); err != nil {
			t.Fatal(err)
		}
		figures = map[string]float64{}
		for _, key := range seed {
			var n float64
			if err := json.Unmarshal(all[key], &n); err != nil {
				t.Fatalf("%s: %v", key, err)
			}
			figures[key] = n
		}
	}
	eventually(t, "the counts are published", func() bool {
		read()
		return figures["messages_received"] >= talkReceived && figures["messages_sent"] >= talkSent
	})
	if figures["connections"] != 2 || figures["rooms"] != 1 || figures["messages_received"] != talkReceived || figures["messages_sent"] != talkSent {
		t.Errorf("%v", figures)
	}
	if figures["uptime"] < 0 || figures["uptime"] > 3600 || figures["memory_usage"] < 1<<20 {
		t.Errorf("%v", figures)
	}
}

// metrics reads /metrics with Prometheus's own parser.
func (w *world) metrics() map[string]*dto.MetricFamily {
	w.t.Helper()
	resp, body := w.fetch("/metrics")
	if kind := resp.Header.Get("Content-Type"); !strings.HasPrefix(kind, "text/plain; version=0.0.4") {
		w.t.Fatalf("metrics are %q", kind)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	return families
}

// sum adds a family up over its labels.
func sum(f *dto.MetricFamily) (total float64) {
	for _, m := range f.GetMetric() {
		total += m.GetGauge().GetValue() + m.GetCounter().GetValue()
	}
	return total
}

// Metrics parse, are described, are of the kind in their names, and grow with the traffic.
func TestMetrics(t *testing.T) {
	w := start(t, nil)
	before := w.metrics()
	ours := 0
	for name, f := range before {
		if !strings.HasPrefix(name, "parley_") {
			continue
		}
		ours++
		if strings.HasSuffix(name, "_total") != (f.GetType() == dto.MetricType_COUNTER) || !strings.HasSuffix(f.GetHelp(), ".") ||
			len(strings.Fields(f.GetHelp())) < 3 {
			t.Errorf("%s is a %v, %q", name, f.GetType(), f.GetHelp())
		}
	}
	if ours < 25 || before["go_goroutines"] == nil {
		t.Errorf("%d metrics of the server's; all: %v", ours, slices.Sorted(maps.Keys(before)))
	}
	talk(w)
	want := map[string]float64{
		"parley_messages_received_total": talkReceived, "parley_loop_messages_received_total": talkReceived,
		"parley_messages_sent_total": talkSent, "parley_loop_messages_sent_total": talkSent,
		"parley_connections_accepted_total": 2, "parley_connections": 2, "parley_loop_connections": 2, "parley_rooms": 1,
		"parley_connections_ended_total": 0, "parley_error_replies_total": 0,
	}
	moved := func(want map[string]float64) (wrong string) {
		now := w.metrics()
		for name, n := range want {
			if now[name] == nil || sum(now[name])-sum(before[name]) != n {
				wrong += fmt.Sprintf(" %s: %v, want %v more than %v", name, now[name], n, before[name])
			}
		}
		return wrong
	}
	var wrong string
	defer func() {
		if t.Failed() {
			t.Log(wrong)
		}
	}()
	eventually(t, "the metrics are what the traffic was", func() bool { wrong = moved(want); return wrong == "" })
	p := w.dial()
	p.say(`{"type":"nobody's"}`)
	p.expect("error")
	p.conn.Close()
	eventually(t, "the end and the error are counted", func() bool {
		wrong = moved(map[string]float64{"parley_connections_ended_total": 1, "parley_error_replies_total": 1, "parley_connections": 2})
		return wrong == ""
	})
}

// Unknown paths are 404, other methods 405, and nothing outside the page can be asked for.
func TestRefusals(t *testing.T) {
	w := start(t, nil)
	for _, c := range []struct {
		method, path string
		status       int
	}{
		{"GET", "/nothing", 404},
		{"GET", "/healthz/", 404},
		{"GET", "/page/index.html", 404},
		{"GET", "/debug/pprof/", 404},
		{"GET", "/..%2fadmin.go", 404},
		{"POST", "/", 405},
		{"POST", "/healthz", 405},
		{"PUT", "/stats", 405},
		{"DELETE", "/metrics", 405},
		{"OPTIONS", "/server.json", 405},
		{"HEAD", "/healthz", 200},
	} {
		resp, _ := w.do(c.method, c.path)
		if resp.StatusCode != c.status {
			t.Errorf("%s %s: %s, want %d", c.method, c.path, resp.Status, c.status)
		}
		if allow := resp.Header.Get("Allow"); c.status == 405 && allow != "GET, HEAD" {
			t.Errorf("%s %s: Allow %q", c.method, c.path, allow)
		}
	}
}

// On loopback, a name that another site had resolved to this address is not served: its pages could read
// the answers.
func TestHostNames(t *testing.T) {
	w := start(t, nil)
	for host, status := range map[string]int{
		"localhost": 200, "localhost:9091": 200, "127.0.0.1:1": 200, "[::1]:9091": 200, "[::1]": 200,
		"LOCALHOST:9091": 200, "localhost.:9091": 200, "Localhost.": 200, "127.0.0.1.": 200,
		"localhost..": 421, ".localhost": 421, "xlocalhost": 421,
		"evil.example": 421, "evil.example:9091": 421, "localhost.evil.example": 421, "127.0.0.1.evil.example": 421, "[::1].evil.example": 421,
	} {
		r, err := http.NewRequest(http.MethodGet, "http://"+w.page.Addr().String()+"/stats", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = host
		if resp, body := w.send(r); resp.StatusCode != status || status == 421 && strings.Contains(body, "connections") {
			t.Errorf("Host %s: %s %q, want %d", host, resp.Status, body, status)
		}
	}
}

// Monitors on the same machine send HTTP/1.0 without a name, or an empty one.
func TestNoHost(t *testing.T) {
	w := start(t, nil)
	for _, request := range []string{"GET /healthz HTTP/1.0\r\n\r\n", "GET /healthz HTTP/1.0\r\nHost:\r\n\r\n", "GET /healthz HTTP/1.1\r\nHost: \r\nConnection: close\r\n\r\n"} {
		conn, err := net.Dial("tcp", w.page.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(patient))
		io.WriteString(conn, request)
		if answer, _ := io.ReadAll(conn); !strings.Contains(string(answer), " 200 OK\r\n") || !strings.HasSuffix(string(answer), "ok\n") {
			t.Errorf("%q is answered with %q", request, answer)
		}
	}
}

// Garbage and oversized headers are refused, and the listener lives.
func TestBadInput(t *testing.T) {
	w := start(t, nil)
	for name, c := range map[string]struct{ input, want string }{
		"garbage":       {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "HTTP/1.1 400 "},
		"no HTTP":       {"hello\r\n\r\n", "HTTP/1.1 400 "},
		"no host":       {"GET /stats HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "},
		"huge header":   {"GET /stats HTTP/1.1\r\nHost: localhost\r\nX: " + strings.Repeat("x", 2<<20) + "\r\n\r\n", "HTTP/1.1 431 "},
		"larger header": {"GET /stats HTTP/1.1\r\nHost: localhost\r\nX: " + strings.Repeat("x", 64<<10) + "\r\n\r\n", "HTTP/1.1 431 "},
		"huge line":     {"GET /" + strings.Repeat("x", 2<<20) + " HTTP/1.1\r\nHost: localhost\r\n\r\n", "HTTP/1.1 431 "},
	} {
		conn, err := net.Dial("tcp", w.page.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(patient))
		go io.WriteString(conn, c.input) // the answer may come before all is written, and end the writing
		answer := make([]byte, len(c.want))
		if _, err := io.ReadFull(conn, answer); err != nil || string(answer) != c.want {
			t.Errorf("%s: %q %v, want %q", name, answer, err, c.want)
		}
		conn.Close()
		if resp, _ := w.do(http.MethodGet, "/healthz"); resp.StatusCode != http.StatusOK {
			t.Errorf("after %s: %s", name, resp.Status)
		}
	}
}

// Port 0 is no listener; an address that is taken is an error that says what to do; after Close the address refuses dials.
func TestListener(t *testing.T) {
	w := start(t, nil)
	off, err := admin.New(w.srv, admin.Options{Host: "127.0.0.1"})
	if err != nil || off.Addr() != nil || off.Close() != nil {
		t.Errorf("off: %v %v", off, err)
	}
	taken := w.page.Addr().(*net.TCPAddr).Port
	if _, err := admin.New(w.srv, admin.Options{Host: "127.0.0.1", Port: taken}); err == nil || !strings.Contains(err.Error(), "admin_port") {
		t.Errorf("a taken port: %v", err)
	}
	silent, err := admin.New(w.srv, admin.Options{Host: "127.0.0.1", Port: -1}) // without a log
	if err != nil {
		t.Fatal(err)
	}
	address := silent.Addr().String()
	if err := silent.Close(); err != nil {
		t.Error(err)
	}
	// Another process may have the port by now: whoever answers must not be this server.
	if r, err := http.Get("http://" + address + "/server.json"); err == nil {
		defer r.Body.Close()
		if r.StatusCode == http.StatusOK {
			t.Error("a closed listener still answers")
		}
	}
}
