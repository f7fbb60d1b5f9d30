package engine

import (
	"net"
	"sync/atomic"
	"testing"

	"github.com/gobwas/ws"
)

// dialWithout connects and sends bytes, without a client's manners.
func dialWithout(t testing.TB, address, sent string) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	conn.Write([]byte(sent))
	return conn.(*net.TCPConn)
}

const wholeHead = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"

// Connect handlers are not asked for connections that have gone while they waited: who comes behind them does not wait for
// them.
func TestConnectHandlersPassOverTheGone(t *testing.T) {
	const resets = 50
	var runs atomic.Int64
	asked, gate := make(chan bool, 2), make(chan bool)
	s := startServer(t, func(c *Config) { c.OffloadWorkers = 1 }, func(s *Server) {
		s.OnConnect(func(*Conn, *Request) error {
			runs.Add(1)
			asked <- true
			<-gate
			return nil
		})
	})
	first := dialWithout(t, s.Addr().String(), wholeHead)
	<-asked
	for i := range resets {
		conn := dialWithout(t, s.Addr().String(), wholeHead)
		eventually(t, "its request waits for the handler", func() bool {
			return s.pools.Connect.Waits() > i
		})
		conn.SetLinger(0)
		conn.Close()
	}
	eventually(t, "all but the first have gone", func() bool { return s.reactor.Held() == 1 })
	close(gate)
	dial(t, s)
	if n := runs.Load(); n > 2 {
		t.Errorf("the handler was asked %d times: for the first, the last, and %d that had gone", n, n-2)
	}
	first.Close()
}

// Connect handlers that wait leave those alone who are connected: their messages' handlers and their authentication.
func TestKindsOfHandlersDoNotWaitForEachOther(t *testing.T) {
	gate, held := make(chan bool), make(chan bool, 1)
	s := startServer(t, func(c *Config) { c.OffloadWorkers = 1 }, func(s *Server) {
		s.OnConnect(func(_ *Conn, r *Request) error {
			if r.Query("wait") != "" {
				held <- true
				<-gate
			}
			return nil
		})
		s.OnAuth(func(*Conn, string) error { return nil })
		s.On("work", func(*Conn, *Message, *Server) (any, error) { return M{"type": "done"}, nil }, Offload())
	})
	c := dialURL(t, "ws://"+s.Addr().String()+"/", ws.Dialer{})
	c.expect("connected")
	waiting := dialWithout(t, s.Addr().String(), "GET /?wait=1"+wholeHead[len("GET /"):])
	defer waiting.Close()
	defer close(gate)
	<-held
	c.send(`{"type":"auth","token":"t"}`)
	c.expect("authenticated")
	c.expect("reconnect_token")
	c.send(`{"type":"work"}`)
	c.expect("done")
}
