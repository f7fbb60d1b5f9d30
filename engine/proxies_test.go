package engine

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/protocol/proxy"
)

// upgradeWith is a request with more header lines.
func upgradeWith(lines string) string {
	return "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n" + lines + "\r\n"
}

var (
	textPreface   = "PROXY TCP4 192.0.2.1 192.0.2.2 8080 443\r\n"
	binaryPreface = "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0f\xc0\x00\x02\x01\xc0\x00\x02\x02\x1f\x90\x01\xbb\x04\x00\x00"
	localPreface  = "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"
	proxyAddress  = netip.MustParseAddrPort("10.0.0.1:5000")
	otherAddress  = netip.MustParseAddrPort("203.0.113.9:5000")
)

// behindProxy is a script whose proxies are those of 10.0.0.0/8.
func behindProxy(t testing.TB, protocol bool) *script {
	return newScript(t, func(c *Config) { c.TrustedProxies, c.ProxyProtocol = []string{"10.0.0.0/8"}, protocol })
}

// arrive lets a peer send what it sends, cut behind byte i where bit i%64 of cuts is set.
func (w *script) arrive(peer netip.AddrPort, input string, cuts uint64) (*Conn, string) {
	wire := len(w.out)
	w.out[wire] = new(bytes.Buffer)
	c := w.server.Open(0, wire)
	c.wire.SetRemote(peer)
	for begin, i := 0, 0; i < len(input); i++ {
		if cuts&(1<<(i%64)) != 0 || i == len(input)-1 {
			w.server.Serve(c, []byte(input[begin:i+1]))
			begin = i + 1
		}
	}
	w.drain()
	return c, w.out[wire].String()
}

// The client is the kernel's peer, unless a trusted proxy names another, in however many pieces its header comes.
func TestRemoteAddr(t *testing.T) {
	peer, told := proxyAddress, "X-Forwarded-For: 6.6.6.6, 192.0.2.1\r\n"
	for _, row := range []struct {
		name     string
		protocol bool
		peer     netip.AddrPort
		preface  string
		lines    string
		want     string // an address, or the status of the refusal
	}{
		{"nothing told", false, peer, "", "", "10.0.0.1:5000"},
		{"a client without a proxy", false, otherAddress, "", told, "203.0.113.9:5000"},
		{"X-Forwarded-For", false, peer, "", told, "192.0.2.1:0"},
		{"X-Real-IP", false, peer, "", "X-Real-IP: 192.0.2.1\r\n", "192.0.2.1:0"},
		{"Forwarded", false, peer, "", "Forwarded: for=\"[2001:db8::1]:80\"\r\n", "[2001:db8::1]:80"},
		{"several fields in lower case", false, peer, "", "x-forwarded-for: 6.6.6.6\r\nx-forwarded-for: 192.0.2.1\r\n", "192.0.2.1:0"},
		{"malformed", false, peer, "", "X-Forwarded-For: ?\r\n", "400"},
		{"malformed behind a proxy", false, peer, "", "X-Forwarded-For: ?, 10.0.0.7\r\n", "400"},
		{"malformed beside one that is not", false, peer, "", "X-Forwarded-For: ?\r\nX-Real-IP: 192.0.2.1\r\n", "192.0.2.1:0"},
		{"two clients", false, peer, "", "X-Forwarded-For: 6.6.6.6\r\nX-Real-IP: 192.0.2.1\r\n", "400"},
		{"two clients, the other way round", false, peer, "", "X-Real-IP: 192.0.2.1\r\nForwarded: for=6.6.6.6\r\n", "400"},
		{"a client that names a proxy", false, peer, "", "X-Forwarded-For: 10.0.0.1\r\nX-Real-IP: 192.0.2.1\r\n", "192.0.2.1:0"},
		{"two clients of somebody who is not trusted", false, otherAddress, "", "X-Forwarded-For: 6.6.6.6\r\nX-Real-IP: 192.0.2.1\r\n", "203.0.113.9:5000"},
		{"v1", true, peer, textPreface, "", "192.0.2.1:8080"},
		{"v2", true, peer, binaryPreface, "", "192.0.2.1:8080"},
		{"LOCAL", true, peer, localPreface, "", "10.0.0.1:5000"},
		{"UNKNOWN", true, peer, "PROXY UNKNOWN\r\n", "", "10.0.0.1:5000"},
		{"the client of a header is not believed", true, peer, textPreface, "X-Forwarded-For: 6.6.6.6\r\n", "192.0.2.1:8080"},
		{"a header that names a proxy", true, peer, "PROXY TCP4 10.0.0.7 10.0.0.1 1 2\r\n", told, "192.0.2.1:0"},
		{"no header", true, peer, "", "", "400"},
		{"malformed header", true, peer, "PROXY TCP4 ? ? 1 2\r\n", "", "400"},
		{"two headers", true, peer, textPreface + textPreface, "", "400"},
		{"a header from a client", true, otherAddress, textPreface, "", "403"},
		{"a client without a header", true, otherAddress, "", "", "403"},
		{"a header where none is wanted", false, peer, textPreface, "", "400"},
	} {
		for _, cuts := range []uint64{0, 1 << 20, 0x5555_5555_5555_5555, ^uint64(0)} {
			t.Run(fmt.Sprintf("%s/%x", row.name, cuts), func(t *testing.T) {
				w := behindProxy(t, row.protocol)
				c, out := w.arrive(row.peer, row.preface+upgradeWith(row.lines)+string(masked(ws.OpText, `{"type":"ping","ref":7}`)), cuts)
				if len(row.want) == 3 {
					if !strings.HasPrefix(out, "HTTP/1.1 "+row.want) || c.RemoteAddr() != row.peer && row.preface == "" {
						t.Fatalf("%q, from %v", out, c.RemoteAddr())
					}
				} else if !strings.HasPrefix(out, "HTTP/1.1 101") || c.RemoteAddr() != netip.MustParseAddrPort(row.want) || !strings.Contains(out, `"ref":7`) {
					t.Fatalf("%v: %q", c.RemoteAddr(), out)
				}
				if c.wire.Buf != nil {
					t.Errorf("%d bytes are held", cap(c.wire.Buf))
				}
			})
		}
	}
}

// The field that the operator names is the only one that is looked at.
func TestProxyHeader(t *testing.T) {
	all := "X-Forwarded-For: 192.0.2.1\r\nX-Real-IP: 192.0.2.2\r\nForwarded: for=192.0.2.3\r\n"
	for name, want := range map[string]string{"x-forwarded-for": "192.0.2.1:0", "X-Real-IP": "192.0.2.2:0", "forwarded": "192.0.2.3:0"} {
		w := newScript(t, func(c *Config) { c.TrustedProxies, c.ProxyHeader = []string{"10.0.0.0/8"}, name })
		if c, out := w.arrive(proxyAddress, upgradeWith(all), 0); c.RemoteAddr().String() != want || !strings.HasPrefix(out, "HTTP/1.1 101") {
			t.Errorf("%s: %v %q", name, c.RemoteAddr(), out)
		}
		if c, _ := w.arrive(proxyAddress, upgradeWith(""), 0); c.RemoteAddr() != proxyAddress {
			t.Errorf("%s: a proxy that speaks for nobody is %v", name, c.RemoteAddr())
		}
	}
	for _, c := range []Config{{ProxyHeader: "x-real-ip"}, {TrustedProxies: []string{"loopback"}, ProxyHeader: "x-forward-for"}} {
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), "proxy_header") {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// Refused and ignored headers are counted.
func TestProxiesAreCounted(t *testing.T) {
	w := behindProxy(t, true)
	w.arrive(otherAddress, textPreface, 0)
	w.arrive(proxyAddress, "GET", 0)
	w.arrive(proxyAddress, localPreface+upgradeWith("X-Forwarded-For: ?\r\n"), 0)
	w.arrive(proxyAddress, localPreface+upgradeWith("X-Forwarded-For: 192.0.2.1\r\nX-Real-IP: 6.6.6.6\r\n"), 0)
	if s := w.server.Server.Stats(); s.PrefacesRefused != 2 || s.ForwardedIgnored != 3 || s.Accepted != 0 || s.Refused != 4 {
		t.Errorf("%+v", s)
	}
}

// A connect handler is told the client's address, and the request as it came.
func TestProxiesAndHandler(t *testing.T) {
	w := behindProxy(t, false)
	var address, field string
	w.server.Server.OnConnect(func(c *Conn, r *Request) error {
		address, field = c.Facts().RemoteAddress, r.Header("X-Forwarded-For")
		return nil
	})
	w.arrive(proxyAddress, upgradeWith("X-Forwarded-For: 6.6.6.6,192.0.2.1\r\n"), 0)
	for w.server.Offloaded() {
		w.drain()
	}
	if address != "192.0.2.1" || field != "6.6.6.6,192.0.2.1" {
		t.Error(address, field)
	}
}

// A peer without an address, of a Unix socket, is trusted where the configuration says so.
func TestUnixPeer(t *testing.T) {
	for _, list := range [][]string{{"unix"}, {"loopback"}} {
		w := newScript(t, func(c *Config) { c.TrustedProxies = list })
		c, _ := w.arrive(netip.AddrPort{}, upgradeWith("X-Real-IP: 192.0.2.1\r\n"), 0)
		want := map[string]string{"unix": "192.0.2.1", "loopback": ""}[list[0]]
		if got := c.Facts().RemoteAddress; got != want {
			t.Errorf("%v: %q, want %q", list, got, want)
		}
	}
}

// A header that does not come, or does not end, costs its connection, when the time for the handshake is over, and
// holds no more than the bound.
func TestSlowPreface(t *testing.T) {
	for _, input := range []string{"PROXY TCP4 192.0.2.1", "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x0f\xf0" + strings.Repeat("x", 4000)} {
		w := behindProxy(t, true)
		c, out := w.arrive(proxyAddress, input, ^uint64(0))
		if out != "" || len(c.wire.Buf) != len(input) || cap(c.wire.Buf) > 2*proxy.HeaderBytesMax {
			t.Fatalf("%q, %d of %d bytes held", out, len(c.wire.Buf), cap(c.wire.Buf))
		}
		w.pass(w.server.Server.cfg.HandshakeTimeout + w.server.TickEvery())
		if out := w.out[0].String(); !strings.HasPrefix(out, "HTTP/1.1 408") {
			t.Errorf("%q", out)
		}
		w.server.Gone(c)
		w.drain()
		if left := w.server.Leftovers(); len(left) > 0 {
			t.Error("left behind:", left)
		}
	}
}

// FuzzPreface: a trusted proxy's first bytes, whatever they are, are answered alike in any pieces.
func FuzzPreface(f *testing.F) {
	for _, preface := range []string{textPreface, binaryPreface, localPreface, "PROXY UNKNOWN\r\n", ""} {
		f.Add([]byte(preface+upgradeWith("X-Real-IP: 6.6.6.6\r\n")), uint64(0x5555))
	}
	f.Fuzz(func(t *testing.T, input []byte, cuts uint64) {
		whole, pieces := behindProxy(t, true), behindProxy(t, true)
		a, outA := whole.arrive(proxyAddress, string(input), 0)
		b, outB := pieces.arrive(proxyAddress, string(input), cuts)
		if strings.HasPrefix(outA, "HTTP/1.1 4") { // at the first sign, with what is wrong there
			outA, outB = outA[:len("HTTP/1.1 4")], outB[:min(len(outB), len("HTTP/1.1 4"))]
		}
		if outA != outB || a.RemoteAddr() != b.RemoteAddr() {
			t.Fatalf("whole: %v %q; in pieces: %v %q", a.RemoteAddr(), outA, b.RemoteAddr(), outB)
		}
		if cap(b.wire.Buf) > 4*(proxy.HeaderBytesMax+DefaultConfig().HandshakeBytesMax) {
			t.Fatalf("%d bytes are held", cap(b.wire.Buf))
		}
	})
}

// Over real sockets: a proxy on 127.0.0.1 is believed, a client on 127.0.0.2 is not.
func TestProxiesOverLoopback(t *testing.T) {
	fields := startServer(t, func(c *Config) { c.TrustedProxies = []string{"127.0.0.1"} }, nil)
	protocol := startServer(t, func(c *Config) { c.TrustedProxies, c.ProxyProtocol = []string{"127.0.0.1"}, true }, nil)
	told := upgradeWith("X-Forwarded-For: 6.6.6.6, 192.0.2.1\r\n")
	for _, row := range []struct {
		s     *Server
		from  string
		input string
		want  string
	}{
		{fields, "127.0.0.1", told, "192.0.2.1"},
		{fields, "127.0.0.2", told, "127.0.0.2"},
		{protocol, "127.0.0.1", textPreface + upgradeWith(""), "192.0.2.1"},
		{protocol, "127.0.0.1", binaryPreface + upgradeWith(""), "192.0.2.1"},
		{protocol, "127.0.0.1", upgradeWith(""), "400"},
		{protocol, "127.0.0.2", textPreface + upgradeWith(""), "403"},
	} {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(row.from)}}
		conn, err := d.Dial("tcp", row.s.Addr().String())
		if err != nil {
			t.Skipf("no connection from %s: %v", row.from, err) // macOS has one loopback address
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(patient))
		if _, err := conn.Write([]byte(row.input)); err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, 12)
		if _, err := conn.Read(answer); err != nil {
			t.Fatal(err)
		}
		if len(row.want) == 3 {
			if !strings.HasSuffix(string(answer), row.want) {
				t.Errorf("from %s: %q, want %s", row.from, answer, row.want)
			}
			continue
		}
		eventually(t, row.want+" is there", func() bool {
			return len(row.s.FindConnections(func(c *Conn) bool { return c.Facts().RemoteAddress == row.want })) > 0
		})
		conn.Close()
		eventually(t, "it is gone", func() bool { return row.s.ConnectionCount() == 0 })
	}
}

// The way from accept to upgrade behind a proxy allocates little more than without.
func TestAllocationsBehindProxy(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	count := func(w *script, peer netip.AddrPort, input string) float64 {
		w.mute = true
		chunk := make([]byte, len(input))
		return testing.AllocsPerRun(100, func() {
			c := w.server.Open(0, 0)
			c.wire.SetRemote(peer)
			copy(chunk, input)
			w.server.Serve(c, chunk)
			w.drain()
			w.server.Gone(c)
		})
	}
	off := count(newScript(t, nil), proxyAddress, upgradeWith(""))
	for name, on := range map[string]float64{
		"a client without a proxy": count(behindProxy(t, false), otherAddress, upgradeWith("X-Real-IP: 192.0.2.1\r\n")) - off,
		"version 2":                count(behindProxy(t, true), proxyAddress, binaryPreface+upgradeWith("")) - off,
		"X-Forwarded-For":          count(behindProxy(t, false), proxyAddress, upgradeWith("X-Forwarded-For: 192.0.2.1\r\n")) - off,
	} {
		if most := map[string]float64{"X-Forwarded-For": 1}[name]; on > most {
			t.Errorf("%s: %v allocations more than without, %v are promised", name, on, most)
		}
	}
}
