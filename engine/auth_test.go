package engine

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// get makes a handshake by hand and returns the response, whatever it is.
func get(t testing.TB, s *Server, target, lines string) *http.Response {
	t.Helper()
	conn, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n%s\r\n", target, lines)
	conn.SetReadDeadline(time.Now().Add(patient))
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	return response
}

// A connect handler reads header, query and cookie, and refuses before the upgrade or after it.
func TestConnectHandler(t *testing.T) {
	s := startServer(t, nil, func(s *Server) {
		s.OnConnect(func(c *Conn, r *Request) error {
			switch r.Query("as") {
			case "header":
				c.SetPrincipal(r.Header("X-User"))
			case "cookie":
				c.SetPrincipal(r.Cookie("user"))
			case "teapot":
				return RefuseStatus(418, "short and stout")
			case "plain":
				return errors.New("no")
			case "panic":
				panic("oh")
			case "code":
				return Refuse(4001, "Unauthorized")
			case "close":
				c.CloseWith(4009, "closed by the handler")
			case "welcome":
				c.Send(M{"type": "welcome"})
			}
			return nil
		})
	})
	for target, want := range map[string]int{"/?as=teapot": 418, "/?as=plain": 401, "/?as=panic": 500, "/?as=code": 101, "/?as=close": 101, "/": 101} {
		if got := get(t, s, target, "").StatusCode; got != want {
			t.Errorf("%s: %d, want %d", target, got, want)
		}
	}
	for target, want := range map[string]ws.StatusCode{"/?as=code": 4001, "/?as=close": 4009} {
		conn, br, _, err := ws.Dialer{}.Dial(t.Context(), "ws://"+s.Addr().String()+target)
		if err != nil {
			t.Fatal(err)
		}
		if br != nil {
			conn = &buffered{conn, br}
		}
		if got := (&client{t: t, conn: conn}).expectClose(); got != want {
			t.Errorf("%s: closed with %d", target, got)
		}
		conn.Close()
	}
	get(t, s, "/?as=header", "X-User: ann\r\n")
	get(t, s, "/?as=cookie", "Cookie: user=bob\r\n")
	for _, who := range []string{"ann", "bob"} {
		eventually(t, who+" is in", func() bool {
			return len(s.FindConnections(func(c *Conn) bool { return c.Principal() == who })) == 1
		})
	}
}

// The messages that a connect handler sends come behind the greeting.
func TestWelcomeFromConnectHandler(t *testing.T) {
	s := startServer(t, nil, func(s *Server) {
		s.OnConnect(func(c *Conn, _ *Request) error { return c.Send(M{"type": "welcome"}) })
	})
	dial(t, s).expect("welcome")
}

// A session belongs to its principal: another one cannot claim it, and it stays good for the right one.
func TestSessionBelongsToPrincipal(t *testing.T) {
	s := startServer(t, nil, func(s *Server) {
		s.OnConnect(func(c *Conn, r *Request) error { c.SetPrincipal(r.Header("X-User")); return nil })
	})
	as := func(user string) *client {
		c := dialBare(t, s, ws.Dialer{Header: ws.HandshakeHeaderString("X-User: " + user + "\r\n")})
		c.id = c.expect("connected")["connection_id"].(string)
		c.token = c.expect("reconnect_token")["token"].(string)
		return c
	}
	ann := as("ann")
	for _, state := range []string{"alive", "parked"} {
		mallory := as("mallory")
		mallory.send(`{"type":"reconnect","token":"` + ann.token + `"}`)
		if m := mallory.expect("error"); m["code"] != "invalid_token" {
			t.Errorf("%s: %v", state, m)
		}
		if state == "alive" {
			ann.conn.Close()
			eventually(t, "parked", func() bool { return s.Stats().Sessions == 1 })
		}
	}
	again := as("ann")
	again.send(`{"type":"reconnect","token":"` + ann.token + `"}`)
	again.expect("reconnected")
}

// Authentication by the first message.
func TestAuthMessage(t *testing.T) {
	var connects atomic.Int32
	s := startServer(t, nil, func(s *Server) {
		s.OnAuth(func(c *Conn, token string) error {
			if token != "good" {
				return errors.New("unknown token")
			}
			c.SetPrincipal("ann")
			return nil
		})
		s.Emitter().On(EventConnect, func(Event) { connects.Add(1) })
	})
	c := dialBare(t, s, ws.Dialer{})
	c.expect("connected")
	c.send(`{"type":"join","room":"r","ref":1}`)
	if m := c.expect("error"); m["code"] != "auth_required" || m["ref"] != 1.0 {
		t.Error(m)
	}
	c.send(`{"type":"ping"}`)
	c.expect("pong")
	if connects.Load() != 0 {
		t.Error("a connect event before the authentication")
	}
	s.BroadcastAll(M{"type": "not for strangers"})
	c.send(`{"type":"auth","token":"good","ref":2}`)
	if m := c.expect("authenticated"); m["ref"] != 2.0 {
		t.Error(m)
	}
	c.expect("reconnect_token")
	if connects.Load() != 1 {
		t.Error("no connect event")
	}
	bad := dialBare(t, s, ws.Dialer{})
	bad.expect("connected")
	bad.send(`{"type":"auth","token":"bad"}`)
	if m := bad.expect("error"); m["code"] != "unauthorized" {
		t.Error(m)
	}
	if code := bad.expectClose(); code != StatusUnauthorized {
		t.Error(code)
	}
}

// A client that does not authenticate in time is closed, whatever else it sends.
func TestAuthTimeout(t *testing.T) {
	w := newScript(t, func(c *Config) { c.AuthTimeout = 5 * time.Second })
	w.server.Server.OnAuth(func(*Conn, string) error { return nil })
	c := w.open(0)
	w.expect(c, "connected")
	for w.now < 4500*time.Millisecond {
		w.say(c, `{"type":"ping"}`)
		w.pass(500 * time.Millisecond)
		w.expect(c, "pong")
	}
	w.pass(time.Second)
	w.expect(c, fmt.Sprint("close ", StatusUnauthorized))
}

// Slow authentication blocks no loop: while hundreds wait for theirs, others are answered at once, and the
// goroutines are bounded.
func TestSlowAuthenticationBlocksNobody(t *testing.T) {
	gate := make(chan struct{})
	s := startServer(t, func(c *Config) { c.OffloadWorkers = 16 }, func(s *Server) {
		s.OnConnect(func(_ *Conn, r *Request) error {
			if r.Query("slow") != "" {
				<-gate
			}
			return nil
		})
	})
	fast := dial(t, s)
	var all sync.WaitGroup
	for range 200 {
		all.Add(1)
		go func() {
			defer all.Done()
			conn, err := net.Dial("tcp", s.Addr().String())
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			fmt.Fprint(conn, strings.ReplaceAll("GET /?slow=1 HTTP/1.1\nHost: x\nUpgrade: websocket\nConnection: Upgrade\n"+
				"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\nSec-WebSocket-Version: 13\n\n", "\n", "\r\n"))
			conn.SetReadDeadline(time.Now().Add(patient))
			response, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil || response.StatusCode != 101 {
				t.Error(err, response)
			}
		}()
	}
	eventually(t, "the pool is full", func() bool {
		return s.pools.Connect.Running() == 16 && s.pools.Connect.Waits() > 100
	})
	for range 20 {
		fast.send(`{"type":"ping"}`)
		fast.expect("pong")
	}
	close(gate)
	all.Wait()
}

// Origins, subprotocols, methods: what the handshake refuses by itself.
func TestHandshakeRefusals(t *testing.T) {
	s := startServer(t, func(c *Config) {
		c.Origins, c.Subprotocols = []string{"https://good.example"}, []string{"parley.v1", "other"}
	}, nil)
	if got := get(t, s, "/", "Origin: https://evil.example\r\n").StatusCode; got != 403 {
		t.Error(got)
	}
	r := get(t, s, "/", "Origin: https://good.example\r\nSec-WebSocket-Protocol: other, parley.v1\r\n")
	if r.StatusCode != 101 || r.Header.Get("Sec-WebSocket-Protocol") != "parley.v1" {
		t.Error(r.StatusCode, r.Header)
	}
	if r := get(t, s, "/", "Content-Length: 3\r\n"); r.StatusCode != 400 {
		t.Error(r.StatusCode)
	}
}

// A handshake that comes byte by byte works, with its first message behind it.
func TestSlowHandshake(t *testing.T) {
	s := startServer(t, nil, nil)
	slow, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	head := "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
	frame := ws.MustCompileFrame(ws.MaskFrame(ws.NewTextFrame([]byte(`{"type":"ping"}`))))
	for _, b := range append([]byte(head), frame...) {
		if _, err := slow.Write([]byte{b}); err != nil {
			t.Fatal(err)
		}
	}
	slow.SetReadDeadline(time.Now().Add(patient))
	br := bufio.NewReader(slow)
	if response, err := http.ReadResponse(br, nil); err != nil || response.StatusCode != 101 {
		t.Fatal(err, response)
	}
	c := &client{t: t, conn: &buffered{slow, br}}
	c.expect("connected")
	c.expect("reconnect_token")
	c.expect("pong")
}

// Of a connection that has not authenticated, nothing reaches a handler but what may.
func TestNothingPassesBeforeAuthentication(t *testing.T) {
	for _, withRaw := range []bool{false, true} {
		w := newScript(t, nil)
		s, reached := w.server.Server, ""
		s.OnAuth(func(*Conn, string) error { return nil })
		s.On("work", func(*Conn, *Message, *Server) (any, error) { reached += " work"; return nil, nil })
		s.On("slow", func(*Conn, *Message, *Server) (any, error) { reached += " slow"; return nil, nil }, Offload())
		if withRaw {
			s.OnRaw(func(*Conn, []byte, bool) []byte { reached += " raw"; return []byte("x") })
		}
		c := w.open(0)
		w.read(c)
		for text, code := range map[string]string{
			"hello": "invalid_json", "[1]": "invalid_json", "": "invalid_json", `{"type":5}`: "invalid_message", `{"a":1}`: "invalid_message",
			`{"type":"work"}`: "auth_required", `{"type":"slow"}`: "auth_required", `{"type":"join","room":"r"}`: "auth_required",
			`{"type":"reconnect","token":"x"}`: "auth_required", `{"type":"no such"}`: "auth_required", "pong": "", `{"type":"pong"}`: "",
		} {
			if withRaw && code == "invalid_json" {
				code = "auth_required"
			}
			w.say(c, text)
			w.server.Offloaded()
			w.drain()
			texts := w.read(c)
			if reached != "" || code == "" && len(texts) > 0 || code != "" && (len(texts) != 1 || !strings.Contains(texts[0], `"code":"`+code+`"`)) {
				t.Errorf("%s: it reaches%s, and the client reads %v, want %q", text, reached, texts, code)
			}
		}
		w.server.Serve(c, masked(ws.OpBinary, "binary"))
		texts := strings.Join(w.read(c), " ")
		if want := map[bool]string{true: "auth_required", false: "close 1003"}[withRaw]; reached != "" || !strings.Contains(texts, want) {
			t.Errorf("binary reaches%s, and the client reads %q, want %s", reached, texts, want)
		}
	}
}
