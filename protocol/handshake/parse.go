package handshake

import (
	"bytes"
	"fmt"
)

// Limits bound a request's head.
type Limits struct {
	Bytes   int
	Headers int
}

var headEnd = []byte("\r\n\r\n")

// End returns the length of the head that b starts with, its blank line included, 0 if it has not arrived whole.
// from is the number of bytes that earlier calls have searched, so that a head that comes byte by byte is searched
// once.
func End(b []byte, from int) int {
	from = max(0, from-len(headEnd)+1)
	if i := bytes.Index(b[from:], headEnd); i >= 0 {
		return from + i + len(headEnd)
	}
	return 0
}

// Hopeless reports whether b cannot become a head that Parse accepts, so that waiting for the rest is useless: it
// is no HTTP GET, or its lines end in a lone LF.
func Hopeless(b []byte) bool {
	if b = pastEmptyLine(b); len(b) == 0 || string(b) == "\r" {
		return false
	}
	const get = "GET "
	if n := min(len(b), len(get)); string(b[:n]) != get[:n] {
		return b[0] == tlsHandshake || len(b) > methodMax || bytes.IndexByte(b, ' ') > 0 || !isToken(b)
	}
	i := bytes.IndexByte(b, '\n')
	return i == 0 || i > 0 && b[i-1] != '\r'
}

// pastEmptyLine takes one empty line off the front of a request [RFC 9112 §2.2].
func pastEmptyLine(b []byte) []byte {
	if len(b) > 1 && b[0] == '\r' && b[1] == '\n' {
		return b[2:]
	}
	return b
}

const (
	tlsHandshake = 0x16 // the first byte of a TLS connection
	methodMax    = 32
)

var proxyStart = []byte("PROXY ")

func malformed(format string, args ...any) Refusal {
	return Refusal{Status: 400, Reason: "malformed request: " + fmt.Sprintf(format, args...)}
}

// Parse reads a head into r, whose slices then borrow from it. The Refusal is zero if the request is for an
// upgrade to WebSocket version 13 [RFC 6455 §4.2.1].
func Parse(head []byte, l *Limits, r *Request) Refusal {
	refusal := r.parse(head, l)
	if refusal.Status != 0 {
		refusal.Bodiless = bytes.HasPrefix(pastEmptyLine(head), []byte("HEAD "))
		refusal.Proxied = r.proxied()
	}
	return refusal
}

func (r *Request) parse(head []byte, l *Limits) Refusal {
	r.fields, r.head = r.fields[:0], head
	r.Path, r.RawQuery, r.Host, r.Key = nil, nil, nil, nil
	if len(head) > 0 && head[0] == tlsHandshake {
		return malformed("this port speaks plain HTTP; TLS ends at the proxy")
	}
	if head = pastEmptyLine(head); len(head) > 0 && head[0] == '\r' || bytes.HasPrefix(head, proxyStart) {
		return malformed("this is no HTTP; if it is a header of the PROXY protocol, turn proxy_protocol on and name the proxy in trusted_proxies")
	}
	if len(head) > l.Bytes {
		return Refusal{Status: 431, Reason: fmt.Sprintf("the request's head is longer than %d bytes (handshake_bytes_max); large cookies make it so", l.Bytes)}
	}
	line, rest, ok := cutLine(head)
	if !ok {
		return malformed("lines must end in CR LF")
	}
	if refusal := r.parseLine(line); refusal.Status != 0 {
		return refusal
	}
	for {
		if line, rest, ok = cutLine(rest); !ok {
			return malformed("lines must end in CR LF")
		}
		if len(line) == 0 {
			break
		}
		if len(r.fields) == l.Headers {
			return Refusal{Status: 431, Reason: fmt.Sprintf("the request has more than %d header fields (handshake_fields_max)", l.Headers)}
		}
		if refusal := r.parseField(line); refusal.Status != 0 {
			return refusal
		}
	}
	return r.check()
}

// cutLine takes a line that ends in CR LF off b.
func cutLine(b []byte) (line, rest []byte, ok bool) {
	i := bytes.IndexByte(b, '\n')
	if i < 1 || b[i-1] != '\r' {
		return nil, nil, false
	}
	return b[:i-1], b[i+1:], true
}

// parseLine reads the request line [RFC 9112 §3].
func (r *Request) parseLine(line []byte) Refusal {
	method, rest, ok := bytes.Cut(line, []byte(" "))
	if !ok || !isToken(method) {
		return malformed("the first line is no HTTP request line")
	}
	target, version, ok := bytes.Cut(rest, []byte(" "))
	if !ok || len(target) == 0 || !isVisible(target) {
		return malformed("the first line is no HTTP request line")
	}
	if string(method) == "PRI" {
		return malformed("this port speaks HTTP/1.1, not HTTP/2")
	}
	if len(version) != 8 || string(version[:5]) != "HTTP/" {
		return malformed("the first line names no HTTP version")
	}
	if string(method) != "GET" {
		return Refusal{Status: 405, Reason: "a WebSocket begins with GET"}
	}
	if string(version) != "HTTP/1.1" {
		return Refusal{Status: 505, Reason: "a WebSocket needs HTTP/1.1"}
	}
	r.Path = target
	if i := bytes.Index(target, []byte("://")); i > 0 && target[0] != '/' { // absolute form [RFC 9112 §3.2.2]
		r.Path = target[i+3:]
		if slash := bytes.IndexByte(r.Path, '/'); slash >= 0 {
			r.Path = r.Path[slash:]
		} else {
			r.Path = []byte("/")
		}
	} else if target[0] != '/' {
		return malformed("the request's target must be a path")
	}
	if bytes.IndexByte(r.Path, '#') >= 0 {
		return malformed("the request's target has a fragment")
	}
	r.Path, r.RawQuery, _ = bytes.Cut(r.Path, []byte("?"))
	return Refusal{}
}

// parseField reads a header field [RFC 9112 §5]. It refuses folded lines and spaces before the colon: proxies
// disagree on them.
func (r *Request) parseField(line []byte) Refusal {
	name, value, ok := bytes.Cut(line, []byte(":"))
	if !ok || !isToken(name) {
		return malformed("a header line is no field")
	}
	value = trim(value)
	for _, c := range value {
		if c < ' ' && c != '\t' || c == 0x7f {
			return malformed("the header field %s holds a control character", name)
		}
	}
	r.fields = append(r.fields, Field{name, value})
	return Refusal{}
}

// once lists the fields that must not occur twice.
var once = [...]string{"Host", "Sec-WebSocket-Key", "Sec-WebSocket-Version"}

// check holds the request against RFC 6455.
func (r *Request) check() Refusal {
	var seen [len(once)]bool
	var upgrade, connection bool
	var version []byte
	for _, f := range r.fields {
		for i, name := range once {
			if equalFold(f.Name, name) {
				if seen[i] {
					return malformed("the header field %s occurs twice", name)
				}
				seen[i] = true
			}
		}
		switch {
		case equalFold(f.Name, "Host"):
			r.Host = f.Value
		case equalFold(f.Name, "Sec-WebSocket-Key"):
			r.Key = f.Value
		case equalFold(f.Name, "Sec-WebSocket-Version"):
			version = f.Value
		case equalFold(f.Name, "Upgrade"):
			upgrade = upgrade || hasToken(f.Value, "websocket")
		case equalFold(f.Name, "Connection"):
			connection = connection || hasToken(f.Value, "upgrade")
		case equalFold(f.Name, "Transfer-Encoding"),
			equalFold(f.Name, "Content-Length") && string(f.Value) != "0":
			return malformed("a WebSocket's request has no body")
		}
	}
	switch {
	case !seen[0]:
		return malformed("there is no Host field") // [RFC 9112 §3.2]
	case !upgrade || !connection:
		return Refusal{Status: 426, Reason: "this is a WebSocket server: connect with new WebSocket(\"ws://...\"). " +
			"The request asks for no upgrade (Upgrade: websocket, Connection: Upgrade); behind a proxy, let it pass both fields"}
	case string(version) != "13":
		return Refusal{Status: 426, Reason: "the only version spoken here is Sec-WebSocket-Version: 13"}
	case !validKey(r.Key):
		return malformed("Sec-WebSocket-Key must be 16 bytes in base64")
	}
	return Refusal{}
}

// validKey reports whether key is 16 bytes in base64 [RFC 6455 §4.2.1].
func validKey(key []byte) bool {
	if len(key) != keySize || key[22] != '=' || key[23] != '=' {
		return false
	}
	for _, c := range key[:22] {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '+' || c == '/') {
			return false
		}
	}
	return true
}

const keySize = 24

// hasToken reports whether a comma-separated list holds a token, without regard to case.
func hasToken(list []byte, token string) bool {
	for len(list) > 0 {
		var one []byte
		one, list, _ = bytes.Cut(list, []byte(","))
		if equalFold(trim(one), token) {
			return true
		}
	}
	return false
}

func trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// tokenTable marks the characters of a token [RFC 9110 §5.6.2].
var tokenTable = func() (t [256]bool) {
	for _, c := range []byte("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") {
		t[c] = true
	}
	return t
}()

// IsToken reports whether a text is a token, such as the name of a subprotocol [RFC 9110 §5.6.2].
func IsToken(text string) bool { return isToken([]byte(text)) }

func isToken(b []byte) bool {
	for _, c := range b {
		if !tokenTable[c] {
			return false
		}
	}
	return len(b) > 0
}

func isVisible(b []byte) bool {
	for _, c := range b {
		if c <= ' ' || c >= 0x7f {
			return false
		}
	}
	return true
}
