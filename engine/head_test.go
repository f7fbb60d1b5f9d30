package engine

import (
	"bytes"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
)

// Cookies of a single sign-on fit into the handshake; how much fits, in bytes and fields, is a setting.
func TestHandshakeLimits(t *testing.T) {
	cookie := func(n int) string { return "Cookie: " + strings.Repeat("x", n) + "\r\n" }
	fields := func(n int) string { return strings.Repeat("X: y\r\n", n) }
	for _, row := range []struct {
		name, lines string
		change      func(*Config)
		status      int
	}{
		{"12 KiB", cookie(12 << 10), nil, 101},
		{"15 KiB", cookie(15 << 10), nil, 101},
		{"more than 16 KiB", cookie(16 << 10), nil, 431},
		{"100 fields", fields(95), nil, 101},
		{"101 fields", fields(96), nil, 431},
		{"40 KiB where they are allowed", cookie(40 << 10), func(c *Config) { c.HandshakeBytesMax = 64 << 10 }, 101},
		{"300 fields where they are allowed", fields(295), func(c *Config) { c.HandshakeFieldsMax = 300 }, 101},
		{"20 fields where 16 are allowed", fields(15), func(c *Config) { c.HandshakeFieldsMax = 16 }, 431},
		{"2 KiB where 1 is allowed", cookie(2 << 10), func(c *Config) { c.HandshakeBytesMax = 1 << 10 }, 431},
	} {
		t.Run(row.name, func(t *testing.T) {
			var cookie atomic.Value // as the handler sees it
			s := startServer(t, row.change, func(s *Server) {
				s.OnConnect(func(_ *Conn, r *Request) error { cookie.Store(r.Header("Cookie")); return nil })
			})
			if r := get(t, s, "/", row.lines); r.StatusCode != row.status {
				t.Errorf("answered with %d, want %d", r.StatusCode, row.status)
			}
			seen, _ := cookie.Load().(string)
			if want, ok := strings.CutPrefix(strings.TrimSpace(row.lines), "Cookie: "); ok && row.status == http.StatusSwitchingProtocols && seen != want {
				t.Errorf("the handler sees %d bytes of %d", len(seen), len(want))
			}
		})
	}
}

// A request that lies unread when the time for it is over is answered: a server that was slow to read refuses no client for it.
// A request that has not come whole then is refused with the next tick.
func TestUnreadRequestIsNotTooLate(t *testing.T) {
	for name, c := range map[string]struct {
		before, unread, status string
		change                 func(*Config)
	}{
		"a whole request":        {"", wholeHead, "101", nil},
		"the rest of a request":  {wholeHead[:30], wholeHead[30:], "101", nil},
		"a part of a request":    {"", wholeHead[:30], "408", nil},
		"nothing":                {"", "", "408", nil},
		"a preface and the rest": {"", "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + wholeHead, "101", func(c *Config) { c.TrustedProxies, c.ProxyProtocol = []string{"127.0.0.1"}, true }},
	} {
		t.Run(name, func(t *testing.T) {
			w := newScript(t, c.change)
			wire := len(w.out)
			w.out[wire] = new(bytes.Buffer)
			conn := w.server.Open(0, wire)
			conn.wire.SetRemote(netip.MustParseAddrPort("127.0.0.1:1"))
			if c.before != "" {
				w.server.Serve(conn, []byte(c.before))
			}
			w.pass(w.server.Server.cfg.HandshakeTimeout)
			if c.unread != "" {
				w.server.Serve(conn, []byte(c.unread))
			}
			w.now += w.server.TickEvery()
			w.server.Tick()
			w.drain()
			if got := w.out[wire].String(); !strings.HasPrefix(got, "HTTP/1.1 "+c.status+" ") {
				t.Errorf("answered with %q, want %s", got, c.status)
			}
		})
	}
}

// An empty line before the request is passed over, in one piece with it or before it [RFC 9112 §2.2].
func TestEmptyLineBeforeTheRequest(t *testing.T) {
	for _, pieces := range [][]string{{"\r\n" + wholeHead}, {"\r\n", wholeHead}, {"\r", "\n" + wholeHead}} {
		w := newScript(t, nil)
		wire := len(w.out)
		w.out[wire] = new(bytes.Buffer)
		c := w.server.Open(0, wire)
		for _, piece := range pieces {
			w.server.Serve(c, []byte(piece))
		}
		if got := w.out[wire].String(); !strings.HasPrefix(got, "HTTP/1.1 101 ") {
			t.Errorf("%q is answered with %q", pieces, got)
		}
	}
}
