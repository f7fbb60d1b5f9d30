package engine

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/parleyd/parley/engine/canary"
)

// patient is how long a test waits for what must come, on a machine that idles.
const patient = 10 * time.Second

// startServer serves on a port of the kernel's choice until the test ends.
func startServer(t testing.TB, change func(*Config), prepare func(*Server)) *Server {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Port = -1
	cfg.Loops = 2
	cfg.Sends = os.Getenv("TEST_SENDS") // of .ci/test
	if change != nil {
		change(&cfg)
	}
	s, err := New(cfg, WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	if prepare != nil {
		prepare(s)
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), canary.Stretch(patient))
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	})
	return s
}

// client is a client of the tests, over gobwas/ws's own client.
type client struct {
	t     testing.TB
	conn  net.Conn
	id    string
	token string
}

// dial connects and reads the greeting.
func dial(t testing.TB, s *Server) *client {
	t.Helper()
	c := dialBare(t, s, ws.Dialer{})
	c.id = c.expect("connected")["connection_id"].(string)
	c.token = c.expect("reconnect_token")["token"].(string)
	return c
}

func dialBare(t testing.TB, s *Server, d ws.Dialer) *client {
	t.Helper()
	return dialURL(t, "ws://"+s.Addr().String()+"/", d)
}

func dialURL(t testing.TB, url string, d ws.Dialer) *client {
	t.Helper()
	conn, br, _, err := d.Dial(context.Background(), url)
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	t.Cleanup(func() { conn.Close() })
	if br != nil {
		conn = &buffered{conn, br}
	}
	return &client{t: t, conn: conn}
}

// buffered reads first what the dialer has read too far.
type buffered struct {
	net.Conn
	r interface{ Read([]byte) (int, error) }
}

func (b *buffered) Read(p []byte) (int, error) { return b.r.Read(p) }

func (c *client) send(text string) {
	c.t.Helper()
	if err := wsutil.WriteClientText(c.conn, []byte(text)); err != nil {
		c.t.Fatalf("send: %v", err)
	}
}

// next returns the next text message, answering pings on the way.
func (c *client) next() map[string]any {
	c.t.Helper()
	c.conn.SetReadDeadline(time.Now().Add(canary.Stretch(patient)))
	raw, _, err := wsutil.ReadServerData(c.conn)
	if err != nil {
		c.t.Fatalf("read: %v", err)
	}
	var m map[string]any
	if err := json.Unmarshal(raw, &m); err != nil {
		c.t.Fatalf("%s: %v", raw, err)
	}
	return m
}

// expect returns the next message, which must be of a type.
func (c *client) expect(typ string) map[string]any {
	c.t.Helper()
	m := c.next()
	if m["type"] != typ {
		c.t.Fatalf("got %v, want a message of type %q", m, typ)
	}
	return m
}

// expectClose reads up to the close frame and returns its code. gobwas's own reader knows fewer codes.
func (c *client) expectClose() ws.StatusCode {
	c.t.Helper()
	c.conn.SetReadDeadline(time.Now().Add(canary.Stretch(patient)))
	for {
		f, err := ws.ReadFrame(c.conn)
		if err != nil {
			c.t.Fatalf("read: %v", err)
		}
		if f.Header.OpCode == ws.OpClose {
			code, _ := ws.ParseCloseFrameData(f.Payload)
			return code
		}
	}
}

// eventually polls for a condition.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	if !canary.Wait(patient, ok) {
		t.Fatalf("never: %s", what)
	}
}

// inChild runs a test in a process of its own, where it finds its name in TEST_CHILD.
func inChild(t *testing.T) (out string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), "TEST_CHILD="+t.Name())
	raw, err := cmd.CombinedOutput()
	return string(raw), err
}
