package handshake

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/gobwas/ws"
)

var testLimits = Limits{Bytes: 8 << 10, Headers: 64}

const goodLines = "Host: example.com\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n" +
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"

const browser = "GET /chat?room=a%20b&x HTTP/1.1\r\n" + goodLines +
	"Origin: https://example.com\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nAccept-Encoding: gzip, deflate, br\r\n" +
	"Cookie: a=1; session=\"s3\"\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"

func request(line, lines string) string { return line + "\r\n" + lines + "\r\n" }

var clauses = []struct {
	name   string
	head   string
	status int
}{
	{"[RFC 6455 §4.2.1] a browser's request", browser, 0},
	{"[RFC 6455 §4.2.1] tokens in any case", request("GET / HTTP/1.1", strings.NewReplacer("websocket", "WebSocket", "keep-alive, Upgrade", "UPGRADE").Replace(goodLines)), 0},
	{"[RFC 9112 §3.2.2] absolute form", request("GET http://example.com/x HTTP/1.1", goodLines), 0},
	{"[RFC 6455 §4.2.1] another method", request("POST / HTTP/1.1", goodLines), 405},
	{"[RFC 6455 §4.2.1] HTTP/1.0", request("GET / HTTP/1.0", goodLines), 505},
	{"HTTP/2's preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400},
	{"the PROXY protocol", "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n\r\n", 400},
	{"the PROXY protocol, binary", "\r\n\r\n\x00\r\nQUIT\n", 400},
	{"TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400},
	{"[RFC 6455 §4.2.1] a plain page request", request("GET / HTTP/1.1", "Host: x\r\n"), 426},
	{"[RFC 6455 §4.2.1] no Connection: Upgrade", request("GET / HTTP/1.1", strings.Replace(goodLines, "keep-alive, Upgrade", "keep-alive", 1)), 426},
	{"[RFC 6455 §4.2.2] another version", request("GET / HTTP/1.1", strings.Replace(goodLines, ": 13", ": 8", 1)), 426},
	{"[RFC 6455 §4.2.1] no version", request("GET / HTTP/1.1", strings.Replace(goodLines, "Sec-WebSocket-Version: 13\r\n", "", 1)), 426},
	{"[RFC 6455 §4.2.1] no key", request("GET / HTTP/1.1", strings.Replace(goodLines, "Sec-WebSocket-Key", "X-Key", 1)), 400},
	{"[RFC 6455 §4.2.1] a short key", request("GET / HTTP/1.1", strings.Replace(goodLines, "dGhlIHNhbXBsZSBub25jZQ==", "dGhl", 1)), 400},
	{"[RFC 6455 §4.2.1] a key that is no base64", request("GET / HTTP/1.1", strings.Replace(goodLines, "dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25j*Q==", 1)), 400},
	{"[RFC 9112 §3.2] no Host", request("GET / HTTP/1.1", strings.Replace(goodLines, "Host: example.com\r\n", "", 1)), 400},
	{"[RFC 9112 §3.2] two Hosts", request("GET / HTTP/1.1", goodLines+"Host: evil\r\n"), 400},
	{"two keys", request("GET / HTTP/1.1", goodLines+"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"), 400},
	{"[RFC 9112 §5.2] a folded line", request("GET / HTTP/1.1", goodLines+"X: a\r\n b\r\n"), 400},
	{"[RFC 9112 §5.1] a space before the colon", request("GET / HTTP/1.1", goodLines+"X : a\r\n"), 400},
	{"[RFC 9110 §5.6.2] an empty field name", request("GET / HTTP/1.1", goodLines+": a\r\n"), 400},
	{"[RFC 9112 §2.2] a lone LF", "GET / HTTP/1.1\n" + strings.ReplaceAll(goodLines, "\r\n", "\n") + "\r\n\r\n", 400},
	{"a NUL in a value", request("GET / HTTP/1.1", goodLines+"X: a\x00b\r\n"), 400},
	{"a CR in a value", request("GET / HTTP/1.1", goodLines+"X: a\rb\r\n"), 400},
	{"a body", request("GET / HTTP/1.1", goodLines+"Content-Length: 5\r\n"), 400},
	{"a chunked body", request("GET / HTTP/1.1", goodLines+"Transfer-Encoding: chunked\r\n"), 400},
	{"an empty body", request("GET / HTTP/1.1", goodLines+"Content-Length: 0\r\n"), 0},
	{"[RFC 9112 §3] two spaces", request("GET  / HTTP/1.1", goodLines), 400},
	{"[RFC 9112 §3] no target", request("GET HTTP/1.1", goodLines), 400},
	{"[RFC 9112 §3.2] a target that is no path", request("GET x HTTP/1.1", goodLines), 400},
	{"[RFC 6455 §3] a fragment", request("GET /x#y HTTP/1.1", goodLines), 400},
	{"garbage", "\x00\xff\r\n\r\n", 400},
	{"[RFC 9112 §2.2] an empty line before the request", "\r\n" + browser, 0},
	{"[RFC 9112 §2.2] nothing but empty lines", "\r\n\r\n", 400},
	{"64 fields", request("GET / HTTP/1.1", goodLines+strings.Repeat("X: y\r\n", 59)), 0},
	{"65 fields", request("GET / HTTP/1.1", goodLines+strings.Repeat("X: y\r\n", 60)), 431},
	{"more than 8 KiB", request("GET / HTTP/1.1", goodLines+"X: "+strings.Repeat("y", 8<<10)+"\r\n"), 431},
}

// Parse checks all that the RFC requires of an opening handshake [RFC 6455 §4.2], and how fields are written
// [RFC 9112 §5].
func TestClauses(t *testing.T) {
	for _, c := range clauses {
		t.Run(c.name, func(t *testing.T) {
			var r Request
			got := Parse([]byte(c.head), &testLimits, &r)
			if got.Status != c.status {
				t.Fatalf("got %d %s, want %d", got.Status, got.Reason, c.status)
			}
			if c.status == 0 {
				return
			}
			response, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(AppendRefusal(nil, got))), nil)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(response.Body)
			if err != nil || response.StatusCode != c.status || len(body) < 10 || !response.Close {
				t.Fatalf("%v, %v, %q", err, response, body)
			}
		})
	}
}

// A refusal carries the header fields that tell a client how to go on [RFC 9110 §15].
func TestRefusalHeaders(t *testing.T) {
	for _, c := range []struct {
		refusal      Refusal
		header, want string
	}{
		{Refusal{Status: 405, Reason: "x"}, "Allow", "GET"},
		{Refusal{Status: 426, Reason: "x"}, "Sec-Websocket-Version", "13"},
		{Refusal{Status: 426, Reason: "x"}, "Upgrade", "websocket"},
		{Refusal{Status: 503, Reason: "x", RetryAfter: 7}, "Retry-After", "7"},
	} {
		response, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(AppendRefusal(nil, c.refusal))), nil)
		if err != nil || response.Header.Get(c.header) != c.want {
			t.Errorf("%d: %s is %q (%v)", c.refusal.Status, c.header, response.Header.Get(c.header), err)
		}
	}
}

func TestRequestFields(t *testing.T) {
	var borrowed Request
	head := []byte(browser)
	if refusal := Parse(head, &testLimits, &borrowed); refusal.Status != 0 {
		t.Fatal(refusal)
	}
	r := borrowed.Clone()
	clear(head) // a clone owns its bytes
	for got, want := range map[string]string{
		string(r.Path): "/chat", r.Query("room"): "a b", r.Query("none"): "", r.Origin(): "https://example.com",
		r.Cookie("session"): "s3", r.Cookie("a"): "1", r.Cookie("b"): "", string(r.Host): "example.com",
		r.Header("user-agent"): "Mozilla/5.0 (X11; Linux x86_64)",
		string(r.Extensions()): "permessage-deflate; client_max_window_bits",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if refusal := Parse([]byte(request("GET /?a=%zz&b=1 HTTP/1.1", goodLines+"Sec-WebSocket-Protocol: x, y\r\nSec-WebSocket-Protocol: z\r\n"+
		"Sec-WebSocket-Extensions: a\r\nSec-WebSocket-Extensions: b\r\n")), &testLimits, &borrowed); refusal.Status != 0 {
		t.Fatal(refusal)
	}
	if borrowed.Query("a") != "" || borrowed.Query("b") != "1" {
		t.Error("a query that cannot be decoded must not hide the others")
	}
	if got := SelectProtocol(borrowed.Protocols(), []string{"none", "z", "x"}); got != "z" {
		t.Errorf("protocol %q", got)
	}
	if got := string(borrowed.Extensions()); got != "a, b" {
		t.Errorf("extensions %q", got)
	}
}

// [RFC 6455 §1.3] The example of the RFC, and the whole response against gobwas/ws's own client.
func TestSwitch(t *testing.T) {
	key := []byte("dGhlIHNhbXBsZSBub25jZQ==")
	if got := AcceptKey(key); string(got[:]) != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Errorf("got %s", got)
	}
	response, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(AppendSwitch(nil, Accept{Key: key, Protocol: "p", Extensions: []byte("permessage-deflate")}))), nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"Upgrade": "websocket", "Connection": "Upgrade", "Sec-Websocket-Protocol": "p",
		"Sec-Websocket-Accept": "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "Sec-Websocket-Extensions": "permessage-deflate"} {
		if got := response.Header.Get(name); got != want || response.StatusCode != 101 {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

// End finds the same end however the head is split, and a head that cannot become one is known early.
func TestEnd(t *testing.T) {
	full := []byte(browser + "next")
	for split := range len(browser) {
		if n := End(full[:split], 0); n != 0 {
			t.Fatalf("an end at %d in %d bytes", n, split)
		}
		if n := End(full, split); n != len(browser) {
			t.Fatalf("seen %d: end at %d, want %d", split, n, len(browser))
		}
		if split > 0 && Hopeless(full[:split]) {
			t.Fatalf("hopeless after %d bytes", split)
		}
	}
	for _, bad := range []string{"\x16", "GET / HTTP/1.1\n", "\x00", "POST / ", "\r\nPOST / ", "\n", "hello world"} {
		if !Hopeless([]byte(bad)) {
			t.Errorf("%q is not hopeless", bad)
		}
	}
}

// The usual request costs no allocation.
func TestNoAllocation(t *testing.T) {
	head := []byte(browser)
	var r Request
	dst := make([]byte, 0, 512)
	if n := testing.AllocsPerRun(100, func() {
		if End(head, 0) == 0 || Parse(head, &testLimits, &r).Status != 0 {
			t.Fatal("refused")
		}
		dst = AppendSwitch(dst[:0], Accept{Key: r.Key, Extensions: r.Extensions()})
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzParse(f *testing.F) {
	for _, c := range clauses {
		f.Add([]byte(c.head))
	}
	f.Fuzz(func(t *testing.T, head []byte) {
		var r Request
		if refusal := Parse(head, &testLimits, &r); refusal.Status != 0 {
			if refusal.Status < 400 || refusal.Status > 505 || refusal.Reason == "" {
				t.Fatalf("%+v", refusal)
			}
			return
		}
		if !validKey(r.Key) || len(r.Host) == 0 && r.Header("Host") != "" {
			t.Fatalf("accepted %q", head)
		}
		own := r.Clone()
		if own.Origin() != r.Origin() || !bytes.Equal(own.Path, r.Path) {
			t.Fatal("the clone differs")
		}
		// Whatever we accept, net/http must read the same way.
		std, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(head)))
		if err != nil {
			return // it is stricter about targets and field values, which we only relay
		}
		if std.Header.Get("Sec-WebSocket-Key") != string(r.Key) {
			t.Fatalf("key %q, net/http reads %q", r.Key, std.Header.Get("Sec-WebSocket-Key"))
		}
	})
}

// BenchmarkHandshake compares with gobwas/ws's upgrader, which blocks if the head is not whole.
func BenchmarkHandshake(b *testing.B) {
	b.Run("ours", func(b *testing.B) {
		head := []byte(browser)
		var r Request
		var dst []byte
		for b.Loop() {
			End(head, 0)
			Parse(head, &testLimits, &r)
			dst = AppendSwitch(dst[:0], Accept{Key: r.Key})
		}
	})
	b.Run("gobwas", func(b *testing.B) {
		for b.Loop() {
			var rw readWriter
			rw.Reader = strings.NewReader(browser)
			if _, err := (ws.Upgrader{}).Upgrade(&rw); err != nil {
				b.Fatal(err)
			}
		}
	})
}

type readWriter struct {
	io.Reader
	bytes.Buffer
}

func (r *readWriter) Read(p []byte) (int, error) { return r.Reader.Read(p) }

// The answer to HEAD is that to GET without its body [RFC 9110 §9.3.2].
func TestHead(t *testing.T) {
	for _, line := range []string{"HEAD / HTTP/1.1", "\r\nHEAD / HTTP/1.1", "HEAD / HTTP/1.0"} {
		refusal := Parse([]byte(request(line, "Host: x\r\n")), &testLimits, new(Request))
		answer := AppendRefusal(nil, refusal)
		if refusal.Status == 0 || !bytes.HasSuffix(answer, []byte("\r\n\r\n")) || bytes.Count(answer, []byte("\r\n\r\n")) != 1 {
			t.Errorf("%q is answered with %q", line, answer)
		}
	}
}

// A refusal names Upgrade, with its connection option, to a client that speaks HTTP/1.1 with us [RFC 9110 §7.8]
// [RFC 9110 §15.5.22]. To a client behind a proxy it does not: nginx hands the field on to HTTP/2 clients, which must end
// the stream then [RFC 9113 §8.2.2].
func TestUpgradeRequired(t *testing.T) {
	for field, want := range map[string]string{"": "websocket", "X-Forwarded-For: 192.0.2.1": "", "x-real-ip: 192.0.2.1": "",
		"Via: 2.0 proxy": "", "Forwarded: for=192.0.2.1": "", "X-Forwarded-Proto: https": ""} {
		lines := "Host: x\r\n"
		if field != "" {
			lines += field + "\r\n"
		}
		answer := AppendRefusal(nil, Parse([]byte(request("GET / HTTP/1.1", lines)), &testLimits, new(Request)))
		response, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(answer)), nil)
		if err != nil || response.StatusCode != 426 || response.Header.Get("Upgrade") != want {
			t.Errorf("%s: %v, %v", field, response, err)
		}
		if named := bytes.Contains(answer, []byte("Connection: close, Upgrade\r\n")); named != (want != "") {
			t.Errorf("%s: %q", field, answer)
		}
	}
}
