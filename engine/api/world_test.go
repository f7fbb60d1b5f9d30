package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/engine/access"
	"github.com/parleyd/parley/engine/canary"
	"github.com/parleyd/parley/engine/cluster"
)

// patient is how long a test waits for a condition.
const patient = 30 * time.Second

// world is a running engine with its API.
type world struct {
	t    testing.TB
	srv  *engine.Server
	api  *Server
	addr string
	all  string // a key with all scopes
	http *http.Client
	log  *journal
}

// journal keeps what is logged.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// start serves with a key for everything, and the further ones.
func start(t testing.TB, further ...KeyEntry) *world {
	t.Helper()
	return startWith(t, func(*Server) {}, further...)
}

// startWith lets the test change the server before it serves.
func startWith(t testing.TB, change func(*Server), further ...KeyEntry) *world {
	t.Helper()
	return startConfigured(t, nil, change, further...)
}

// startHistoric serves with rooms that have history by the setting.
func startHistoric(t testing.TB, history string, further ...KeyEntry) *world {
	t.Helper()
	return startConfigured(t, []string{history}, func(*Server) {}, further...)
}

func startConfigured(t testing.TB, history []string, change func(*Server), further ...KeyEntry) *world {
	t.Helper()
	cfg := engine.DefaultConfig()
	cfg.Port = -1
	cfg.Loops = 2
	cfg.History = history
	w := &world{t: t, log: &journal{}}
	log := slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	srv, err := engine.New(cfg, engine.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	srv.OnConnect(func(c *engine.Conn, r *engine.Request) error {
		c.SetPrincipal(r.Header("User"))
		if team := r.Header("Team"); team != "" {
			return c.SetAttribute("team", json.RawMessage(team))
		}
		return nil
	})
	guard := openGuard(t)
	guard.Install(srv) // behind the handler above: the user of a token counts
	if err := srv.Start(); err != nil {
		t.Fatal(err)
	}
	var entry KeyEntry
	w.all, entry = makeKey(t, "all", "all")
	w.srv, w.api = srv, New(srv, Options{Keys: compile(t, append(further, entry)...), Tokens: guard, Operator: cluster.Alone(srv), Settings: func() any { return map[string]any{"settings": map[string]any{"port": 0}} }, Log: log})
	change(w.api)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- w.api.Serve(listener) }()
	w.addr = listener.Addr().String()
	transport := &http.Transport{}
	w.http = &http.Client{Timeout: patient, Transport: held{t, transport}}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patient)
		defer cancel()
		transport.CloseIdleConnections()
		if err := w.api.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
		if err := srv.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	})
	return w
}

// tokenSecret signs the tokens of the clients.
var tokenSecret = []byte(strings.Repeat("0123456789", 4))

// openGuard takes tokens, and lets clients without one do everything.
func openGuard(t testing.TB) *access.Guard {
	t.Helper()
	v, err := access.NewVerifier(access.Options{Secret: tokenSecret})
	if err != nil {
		t.Fatal(err)
	}
	guard, err := access.NewGuard(access.GuardOptions{Auth: access.Optional, Verifier: v, Log: slog.New(slog.DiscardHandler),
		Rules: []access.Entry{{Match: "**", Join: []string{"anyone"}, Publish: []string{"members"}}}})
	if err != nil {
		t.Fatal(err)
	}
	return guard
}

// request makes a request with the key for everything.
func (w *world) request(method, path, body string) *http.Request {
	w.t.Helper()
	r, err := http.NewRequest(method, "http://"+w.addr+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	if method == http.MethodGet {
		r.Body, r.ContentLength, r.GetBody = nil, 0, nil
	}
	r.Header.Set("Authorization", "Bearer "+w.all)
	r.Header.Set("Content-Type", "application/json")
	return r
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

// post sends a body with the key for everything, which must give 200.
func (w *world) post(path, format string, args ...any) string {
	w.t.Helper()
	body := fmt.Sprintf(format, args...)
	resp, got := w.send(w.request(http.MethodPost, path, body))
	if resp.StatusCode != 200 {
		w.t.Fatalf("%s %s: %d %s", path, body, resp.StatusCode, got)
	}
	return got
}

// told is a problem document.
type told struct {
	Status       int
	Code, Detail string
	Request      string
	Errors       []struct{ Pointer, Detail string }
}

// refused sends a request that must be refused with a code.
func (w *world) refused(r *http.Request, want code) told {
	w.t.Helper()
	resp, got := w.send(r)
	var p told
	if err := json.Unmarshal([]byte(got), &p); err != nil || p.Code != want.String() || p.Status != resp.StatusCode || p.Status != problems[want].status {
		w.t.Errorf("%s %s: %d %s, want %v", r.Method, r.URL.Path, resp.StatusCode, got, want)
	}
	if p.Request != resp.Header.Get("Parley-Request") && resp.Header.Get("Idempotent-Replay") == "" {
		w.t.Errorf("the request is %s in the header and %s in the body", resp.Header.Get("Parley-Request"), p.Request)
	}
	return p
}

// client is a WebSocket client.
type client struct {
	t    testing.TB
	conn net.Conn
	in   io.Reader
	id   string
}

func (c *client) Read(b []byte) (int, error)  { return c.in.Read(b) }
func (c *client) Write(b []byte) (int, error) { return c.conn.Write(b) }

// dial connects, reads the greeting and joins rooms.
func (w *world) dial(rooms ...string) *client { w.t.Helper(); return w.dialAs("", "", rooms...) }

// dialAs is dial for a user, with a team as an attribute, in JSON.
func (w *world) dialAs(user, team string, rooms ...string) *client {
	w.t.Helper()
	return w.dialWith(http.Header{"User": {user}, "Team": {team}}, rooms...)
}

// dialWith is dial with header fields.
func (w *world) dialWith(header http.Header, rooms ...string) *client {
	w.t.Helper()
	conn, br, _, err := ws.Dialer{Timeout: patient, Header: ws.HandshakeHeaderHTTP(header)}.Dial(w.t.Context(), "ws://"+w.srv.Addr().String()+"/")
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { conn.Close() })
	c := &client{t: w.t, conn: conn, in: conn}
	if br != nil {
		c.in = br
	}
	var greeting struct {
		Type string
		ID   string `json:"connection_id"`
	}
	if err := json.Unmarshal([]byte(c.next()), &greeting); err != nil || greeting.Type != "connected" {
		w.t.Fatalf("%+v %v", greeting, err)
	}
	c.id = greeting.ID
	for _, room := range rooms {
		name, _ := json.Marshal(room)
		if err := wsutil.WriteClientText(conn, fmt.Appendf(nil, `{"type":"join","room":%s}`, name)); err != nil {
			w.t.Fatal(err)
		}
		for !strings.HasPrefix(c.next(), `{"type":"joined"`) {
		}
	}
	return c
}

// next is the next message that is no bookkeeping.
func (c *client) next() string {
	c.t.Helper()
	for {
		c.conn.SetReadDeadline(time.Now().Add(patient))
		raw, err := wsutil.ReadServerText(c)
		if err != nil {
			c.t.Fatal(err)
		}
		text := string(raw)
		if !strings.HasPrefix(text, `{"type":"reconnect_token"`) && !strings.HasPrefix(text, `{"type":"member_`) {
			return text
		}
	}
}

// expect wants exactly these messages, and then the end that the test publishes to everybody.
func (w *world) expect(c *client, want ...string) {
	w.t.Helper()
	for _, text := range want {
		if got := c.next(); got != text {
			w.t.Errorf("got %s, want %s", got, text)
		}
	}
	w.post("/v1/publish", `{"connection":%q,"message":{"type":"end"}}`, c.id)
	if got := c.next(); got != `{"type":"end"}` {
		w.t.Errorf("got %s, want no more", got)
	}
}

// eventually polls for a condition.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	if !canary.Wait(patient, ok) {
		t.Fatalf("never: %s", what)
	}
}
