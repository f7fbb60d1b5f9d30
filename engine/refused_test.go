package engine

import (
	"bytes"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/engine/internal/turn"
)

const (
	wholeRequest = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
	halfRequest = "GET / HTTP/1.1\r\nHost: x\r\n"
)

// unwanted is a way to be turned away before the upgrade.
type unwanted struct {
	name    string
	change  func(*Config)
	handler ConnectHandler // nil: none
	peer    bool           // the connection comes from a trusted proxy
	request string
	then    func(w *script, c *Conn)
	status  string
}

func later(d time.Duration) func(*script, *Conn) {
	return func(w *script, _ *Conn) {
		w.pass(d)
	}
}

func refuseWith(status int) ConnectHandler {
	return func(*Conn, *Request) error { return RefuseStatus(status, "no") }
}

func admit(*Conn, *Request) error { return nil }

func offload(w *script, _ *Conn) { w.server.Offloaded() }

var prefaced = func(c *Config) { c.TrustedProxies, c.ProxyProtocol = []string{"10.0.0.0/8"}, true }

var waysToBeUnwanted = []unwanted{
	{"half a request", nil, nil, false, halfRequest, later(5200 * time.Millisecond), "408"},
	{"no request", nil, nil, false, "", later(5200 * time.Millisecond), "408"},
	{"no request of many", func(c *Config) { c.MaxConnections = 1 }, nil, false, "", later(5200 * time.Millisecond), "408"},
	{"no preface", prefaced, nil, true, "", later(5200 * time.Millisecond), "408"},
	{"half a preface", prefaced, nil, true, "PROXY TCP4 192", later(5200 * time.Millisecond), "408"},
	{"a wrong preface", prefaced, nil, true, "PROXY TCP9 1\r\n" + wholeRequest, nil, "400"},
	{"a preface of somebody else", prefaced, nil, false, "PROXY UNKNOWN\r\n" + wholeRequest, nil, "403"},
	{"half a request behind a preface", prefaced, nil, true, "PROXY UNKNOWN\r\n" + halfRequest, later(5200 * time.Millisecond), "408"},
	{"no request at all", nil, nil, false, "\x16\x03\x01\x00\x00hello there", nil, "400"},
	{"a head that is too long", nil, nil, false, wholeRequest[:len(wholeRequest)-2] + "X: " + strings.Repeat("x", 200<<10), nil, "431"},
	{"refused by a handler", nil, refuseWith(401), false, wholeRequest, offload, "401"},
	{"forbidden by a handler", nil, refuseWith(403), false, wholeRequest, offload, "403"},
	{"a handler that panics", nil, func(*Conn, *Request) error { panic("oh") }, false, wholeRequest, offload, "500"},
	{"a verdict that does not come", nil, admit, false, wholeRequest, later(30200 * time.Millisecond), "503"},
	{"a full pool", nil, admit, false, wholeRequest, nil, "503"},
	{"too much before the verdict", nil, admit, false, wholeRequest, func(w *script, c *Conn) {
		w.server.Serve(c, make([]byte, 1<<20))
	}, "503"},
	{"an origin that is not listed", func(c *Config) { c.Origins = []string{"https://a.example"} }, nil, false,
		strings.Replace(wholeRequest, "\r\n\r\n", "\r\nOrigin: https://b.example\r\n\r\n", 1), nil, "403"},
	{"a full server", nil, nil, false, wholeRequest, nil, "503"},
	{"shutdown in the head", nil, nil, false, halfRequest, func(w *script, _ *Conn) { w.server.SendAway() }, "503"},
	{"shutdown before the verdict", nil, admit, false, wholeRequest, func(w *script, _ *Conn) { w.server.SendAway() }, "503"},
	{"shutdown before the request", nil, nil, false, wholeRequest, nil, "503"},
}

// Input of a client that was refused is thrown away, whatever it is and whenever it comes: the decoder
// of frames was never made ready for it.
func TestInputAfterARefusal(t *testing.T) {
	// A mask drawn at random may hold an end of line, which is one of the PROXY header.
	frame := string(ws.MustCompileFrame(ws.MaskFrameInPlaceWith(ws.NewTextFrame([]byte(`{"type":"ping"}`)), [4]byte{1, 2, 3, 4})))
	for _, way := range waysToBeUnwanted {
		t.Run(way.name, func(t *testing.T) {
			w := newScript(t, way.change)
			s := w.server.Server
			if way.handler != nil {
				s.OnConnect(way.handler)
			}
			wire := len(w.out)
			w.out[wire], w.takes[wire] = new(bytes.Buffer), 0 // what it is told cannot leave yet
			c := w.server.Open(0, wire)
			if way.peer {
				c.wire.SetRemote(proxyAddress)
			}
			switch way.name {
			case "a full pool":
				s.pools.Connect.Close()
			case "a full server":
				c.wire.Flags |= turn.FlagRefusal
			case "shutdown before the request":
				s.leaving.Store(true)
			}
			if way.request != "" {
				w.server.Serve(c, []byte(way.request+frame))
			}
			if way.then != nil {
				way.then(w, c)
			}
			w.drain()
			if c.Cause() != CauseHandshake {
				t.Fatal("it is not refused:", c.Cause())
			}
			for _, more := range []string{frame, frame[:3], frame[3:], frame + frame, wholeRequest, "\x00", strings.Repeat("\xff", 300),
				string(masked(ws.OpBinary, "x")), string(masked(ws.OpClose, "\x03\xe8")), string(masked(ws.OpPing, ""))} {
				w.server.Serve(c, []byte(more))
			}
			delete(w.takes, wire)
			w.server.Writable(c)
			w.drain()
			w.server.Serve(c, []byte(frame)) // while it lingers
			answer := w.out[wire].String()
			if !strings.HasPrefix(answer, "HTTP/1.1 "+way.status+" ") || strings.Count(answer, "HTTP/1.1") != 1 {
				t.Errorf("it reads %q, want one answer of status %s", answer, way.status)
			}
			w.server.Gone(c)
			w.drain()
			if n := s.ConnectionCount(); n != 0 || c.wire.Buf != nil {
				t.Errorf("%d connections are counted, its buffer has %d bytes", n, len(c.wire.Buf))
			}
		})
	}
}

// Clients that go on sending while a handler refuses all of them at once cost themselves only.
func TestFramesAroundARefusal(t *testing.T) {
	const n = 200
	asked, decide := make(chan struct{}, n), make(chan struct{})
	s := startServer(t, func(c *Config) { c.OffloadWorkers = n }, func(s *Server) {
		s.OnConnect(func(_ *Conn, r *Request) error {
			if r.Header("Sec-WebSocket-Protocol") != "" {
				return nil
			}
			asked <- struct{}{}
			<-decide
			return RefuseStatus(401, "no")
		})
	})
	frame := masked(ws.OpText, `{"type":"ping"}`)
	var all sync.WaitGroup
	for range n {
		conn, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		conn.Write([]byte(wholeRequest))
		all.Go(func() {
			defer conn.Close()
			<-decide
			for range 1000 { // until the server has closed it
				if _, err := conn.Write(frame); err != nil {
					return
				}
			}
		})
	}
	for range n {
		<-asked
	}
	close(decide)
	all.Wait()
	eventually(t, "all are refused", func() bool { return s.Stats().Ended[CauseHandshake.String()] == n })
	dialBare(t, s, ws.Dialer{Protocols: []string{"in"}}).expect("connected")
}
