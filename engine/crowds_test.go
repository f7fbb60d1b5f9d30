package engine

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/engine/canary"
)

// dialFrom connects from an address of this machine, sends some bytes and returns the answer's head, nil if there was none.
func dialFrom(t testing.TB, s *Server, from, sent string) (net.Conn, *http.Response) {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	conn, err := d.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Skipf("no connection from %s: %v", from, err) // macOS has one loopback address
	}
	t.Cleanup(func() { conn.Close() })
	io.WriteString(conn, sent)
	conn.SetDeadline(time.Now().Add(canary.Stretch(patient)))
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return conn, nil
	}
	return conn, response
}

// leaveNothing wants no address to be counted any more.
func leaveNothing(t testing.TB, s *Server) {
	t.Helper()
	eventually(t, "no address has a connection", func() bool { return s.ground.Crowds.Addresses() == 0 })
}

// An address has as many connections as it may have; the next gets 503, until one ends. Other addresses have their own.
func TestAddressLimit(t *testing.T) {
	s := startServer(t, func(c *Config) { c.ConnectionsPerAddressMax = 2 }, nil)
	var open []net.Conn
	for _, from := range []string{"127.0.0.1", "127.0.0.1", "127.0.0.2"} {
		conn, r := dialFrom(t, s, from, upgradeWith(""))
		if r == nil || r.StatusCode != http.StatusSwitchingProtocols {
			t.Fatalf("from %s: %v", from, r)
		}
		open = append(open, conn)
	}
	_, r := dialFrom(t, s, "127.0.0.1", upgradeWith(""))
	if r == nil || r.StatusCode != http.StatusServiceUnavailable || r.Header.Get("Retry-After") == "" {
		t.Fatalf("the third connection: %+v", r)
	}
	if body, _ := io.ReadAll(r.Body); !strings.Contains(string(body), "connections_per_address_max") {
		t.Errorf("it is told %q", body)
	}
	if n := s.Stats().Crowded; n != 1 {
		t.Errorf("%d refusals are counted", n)
	}
	open[0].Close()
	eventually(t, "there is a place again", func() bool {
		_, r := dialFrom(t, s, "127.0.0.1", upgradeWith(""))
		return r != nil && r.StatusCode == http.StatusSwitchingProtocols
	})
}

// Behind a proxy it is the client that is counted, as the proxy tells it, and a proxy that names no client is not counted.
func TestAddressLimitBehindProxies(t *testing.T) {
	for _, row := range []struct {
		name     string
		protocol bool
		peer     netip.AddrPort
		first    string // the first bytes of two connections; one is allowed
		second   string
		status   string // of the second
	}{
		{"one client of a proxy", false, proxyAddress, upgradeWith("X-Real-IP: 192.0.2.1\r\n"), upgradeWith("X-Real-IP: 192.0.2.1\r\n"), "503"},
		{"two clients of a proxy", false, proxyAddress, upgradeWith("X-Real-IP: 192.0.2.1\r\n"), upgradeWith("X-Real-IP: 192.0.2.2\r\n"), "101"},
		{"one subscriber with two addresses", false, proxyAddress, upgradeWith("X-Real-IP: 2001:db8::1\r\n"), upgradeWith("X-Real-IP: 2001:db8::2:1\r\n"), "503"},
		{"the proxy itself", false, proxyAddress, upgradeWith(""), upgradeWith(""), "101"},
		{"a client that names others", false, otherAddress, upgradeWith("X-Real-IP: 192.0.2.1\r\n"), upgradeWith("X-Real-IP: 192.0.2.2\r\n"), "503"},
		{"one client of a PROXY header", true, proxyAddress, textPreface + upgradeWith(""), binaryPreface + upgradeWith(""), "503"},
		{"a health check of the proxy", true, proxyAddress, localPreface + upgradeWith(""), localPreface + upgradeWith(""), "101"},
		{"a PROXY header that names a proxy", true, proxyAddress, "PROXY TCP4 10.0.0.7 10.0.0.1 1 2\r\n" + upgradeWith("X-Real-IP: 192.0.2.1\r\n"), textPreface + upgradeWith(""), "503"},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := newScript(t, func(c *Config) {
				c.TrustedProxies, c.ProxyProtocol, c.ConnectionsPerAddressMax = []string{"10.0.0.0/8"}, row.protocol, 1
			})
			a, out := w.arrive(row.peer, row.first, 0)
			if !strings.HasPrefix(out, "HTTP/1.1 101") {
				t.Fatalf("the first: %q", out)
			}
			b, out := w.arrive(row.peer, row.second, ^uint64(0))
			if !strings.HasPrefix(out, "HTTP/1.1 "+row.status) || (row.status == "503") != strings.Contains(out, "Retry-After: ") {
				t.Errorf("the second: %q", out)
			}
			w.server.Gone(a)
			w.server.Gone(b)
			if n := w.server.Server.ground.Crowds.Addresses(); n != 0 {
				t.Errorf("%d addresses are left", n)
			}
		})
	}
}

// The limit comes before the authentication: connections that wait for it are counted.
func TestAddressLimitBeforeAuthentication(t *testing.T) {
	begun, release := make(chan struct{}, 2), make(chan struct{})
	s := startServer(t, func(c *Config) { c.ConnectionsPerAddressMax = 1 }, func(s *Server) {
		s.OnConnect(func(*Conn, *Request) error {
			begun <- struct{}{}
			<-release
			return RefuseStatus(401, "no")
		})
	})
	var first sync.WaitGroup
	first.Go(func() {
		if _, r := dialFrom(t, s, "127.0.0.1", upgradeWith("")); r == nil || r.StatusCode != 401 {
			t.Errorf("the first: %+v", r)
		}
	})
	<-begun
	if _, r := dialFrom(t, s, "127.0.0.1", upgradeWith("")); r == nil || r.StatusCode != 503 {
		t.Errorf("the second: %+v", r)
	}
	close(release)
	first.Wait()
}

// However connections come and go, also before their upgrade, by resets and take-overs, no address is counted in the end.
func TestCrowdsLeaveNothing(t *testing.T) {
	s := startServer(t, func(c *Config) {
		c.ConnectionsPerAddressMax, c.Origins, c.HandshakeTimeout = 6, []string{"https://a.example"}, 200*time.Millisecond
		c.MessageBytesMax = 256
	}, func(s *Server) {
		s.OnConnect(func(_ *Conn, r *Request) error {
			if r.Query("refuse") != "" {
				return RefuseStatus(401, "no")
			}
			return nil
		})
	})
	acts := []func(seed uint64){
		func(uint64) { reset(t, s.Addr().String(), "") },
		func(uint64) { reset(t, s.Addr().String(), halfRequest) },
		func(uint64) { reset(t, s.Addr().String(), upgradeWith("")) },
		func(uint64) { dialFrom(t, s, "127.0.0.1", "no HTTP at all\r\n\r\n") },
		func(uint64) { dialFrom(t, s, "127.0.0.1", upgradeWith("Origin: https://b.example\r\n")) },
		func(uint64) {
			dialFrom(t, s, "127.0.0.1", strings.Replace(upgradeWith(""), "GET /", "GET /?refuse=1", 1))
		},
		func(uint64) { dialFrom(t, s, "127.0.0.1", halfRequest) }, // until it is too slow
		func(uint64) {
			conn, _ := dialFrom(t, s, "127.0.0.1", upgradeWith(""))
			conn.Write(masked(ws.OpText, strings.Repeat("x", 300)))
			io.Copy(io.Discard, conn) // until the server ends it
		},
		func(uint64) {
			conn, r := dialFrom(t, s, "127.0.0.1", upgradeWith(""))
			if r == nil || r.StatusCode != http.StatusSwitchingProtocols {
				return
			}
			conn.Write(masked(ws.OpText, `{"type":"join","room":"r"}`))
			conn.(*net.TCPConn).SetLinger(0)
			conn.Close()
		},
	}
	var all sync.WaitGroup
	for seed := range uint64(4) {
		all.Go(func() {
			r := rand.New(rand.NewPCG(seed, 3))
			for range 40 {
				acts[r.IntN(len(acts))](seed)
			}
		})
	}
	all.Wait()
	leaveNothing(t, s)
	old, new := dial(t, s), dial(t, s)
	new.send(`{"type":"reconnect","token":"` + old.token + `"}`)
	new.expect("reconnected")
	if code := old.expectClose(); code != StatusTakenOver {
		t.Errorf("closed with %d", code)
	}
	old.conn.Close()
	eventually(t, "the taken-over one is counted no more", func() bool { return s.ConnectionCount() == 1 })
	new.conn.Close()
	leaveNothing(t, s)
	if s.Stats().Crowded == 0 {
		t.Error("no connection was refused: the limit was never met")
	}
}

// A server that shuts down counts no address in the end, also if it cuts connections off.
func TestCrowdsAfterShutdown(t *testing.T) {
	s := startServer(t, func(c *Config) { c.ConnectionsPerAddressMax = 5 }, nil)
	for range 3 {
		dial(t, s) // it will not answer the close frame
	}
	dialFrom(t, s, "127.0.0.2", upgradeWith(""))
	if n := s.ground.Crowds.Addresses(); n != 2 {
		t.Fatalf("%d addresses", n)
	}
	now, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Shutdown(now); err == nil {
		t.Error("no connection was cut off")
	}
	leaveNothing(t, s)
}

// Ten thousand dials of one address, which ask or are silent, get ten connections, and cost other addresses nothing.
func TestHostileAddress(t *testing.T) {
	const most, dials = 10, 10_000
	s := startServer(t, func(c *Config) { c.ConnectionsPerAddressMax, c.MaxConnections = most, 1000 }, nil)
	var refused, dropped atomic.Int64
	var open sync.Map
	var attack sync.WaitGroup
	for i := range 4 {
		attack.Go(func() {
			for j := range dials / 4 {
				conn, err := net.Dial("tcp", s.Addr().String())
				if err != nil {
					t.Error(err)
					return
				}
				conn.(*net.TCPConn).SetLinger(0) // no port waits for its end
				if (i+j)%8 == 0 {
					open.Store(conn, true) // it asks for nothing
					continue
				}
				io.WriteString(conn, upgradeWith(""))
				conn.SetDeadline(time.Now().Add(canary.Stretch(patient)))
				answer := make([]byte, 12)
				switch n, _ := io.ReadFull(conn, answer); {
				case n == 0:
					dropped.Add(1)
				case string(answer) == "HTTP/1.1 101":
					open.Store(conn, true)
					continue
				case string(answer) == "HTTP/1.1 503":
					refused.Add(1)
				default:
					t.Errorf("%q", answer)
				}
				conn.Close()
			}
		})
	}
	for i := range 20 {
		if _, r := dialFrom(t, s, fmt.Sprint("127.0.0.", i+2), upgradeWith("")); r == nil || r.StatusCode != http.StatusSwitchingProtocols {
			t.Errorf("another address: %+v", r)
		}
		if n := len(s.FindConnections(func(c *Conn) bool { return c.Facts().RemoteAddress == "127.0.0.1" })); n > most {
			t.Errorf("%d connections of the address", n)
		}
	}
	attack.Wait()
	if refused.Load() == 0 || s.Stats().Crowded < dials/2 {
		t.Errorf("%d got 503, %d were dropped, %d are counted", refused.Load(), dropped.Load(), s.Stats().Crowded)
	}
	open.Range(func(conn, _ any) bool { conn.(net.Conn).Close(); return true })
	eventually(t, "the address is gone", func() bool {
		_, r := dialFrom(t, s, "127.0.0.1", upgradeWith(""))
		return r != nil && r.StatusCode == http.StatusSwitchingProtocols
	})
	t.Logf("%d got 503, %d were dropped", refused.Load(), dropped.Load())
}

// A peer that resets while it waits in the queue is not counted.
func TestResetInTheQueueIsNotCounted(t *testing.T) {
	listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	gone := make(chan struct{})
	s := startServer(t, func(c *Config) { c.ConnectionsPerAddressMax = 1 }, func(s *Server) {
		s.worker.Listener = &handing{TCPListener: listener, t: t, ready: func() { <-gone }}
	})
	for range 20 {
		reset(t, listener.Addr().String(), "")
	}
	close(gone)
	eventually(t, "there is a place", func() bool {
		_, r := dialFrom(t, s, "127.0.0.1", upgradeWith(""))
		return r != nil && r.StatusCode == http.StatusSwitchingProtocols
	})
}

// A limit that is reloaded holds for the connections from then on; those that came without one are not counted.
func TestAddressLimitIsReloaded(t *testing.T) {
	s := startServer(t, nil, nil)
	limit := func(most int) {
		cfg := s.Config()
		cfg.ConnectionsPerAddressMax = most
		if fixed, err := s.Reload(cfg); err != nil || len(fixed) > 0 {
			t.Fatal(fixed, err)
		}
	}
	before := dial(t, s)
	limit(1)
	counted := dial(t, s)
	if _, r := dialFrom(t, s, "127.0.0.1", upgradeWith("")); r == nil || r.StatusCode != 503 {
		t.Errorf("the second: %+v", r)
	}
	before.conn.Close()
	limit(0)
	dial(t, s).conn.Close()
	counted.conn.Close()
	leaveNothing(t, s)
}
