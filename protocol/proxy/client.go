package proxy

import (
	"bytes"
	"net/netip"
	"strings"
)

// FieldNames are the header fields in which proxies name clients.
var FieldNames = []string{"x-forwarded-for", "x-real-ip", "forwarded"}

// Fields are the values of the header fields in which proxies name clients, in their order for each name. Borrowed.
type Fields struct {
	ForwardedFor [][]byte // X-Forwarded-For
	RealIP       [][]byte // X-Real-IP
	Forwarded    [][]byte // Forwarded
}

// Client finds the client of a trusted peer. Each field is a chain of addresses to which every proxy appends the address
// that it saw. Read from the right, the first address that is not trusted is the client; if all are trusted, the
// left-most is. Text further to the left was sent by the client, and may be false.
//
// The server cannot see which of the fields the peer sets, and which it passes on as the client sent them. So all fields
// must agree: if two name different clients, neither is believed. The result is zero then, and also if no field names a
// client. The port is 0 if no field tells it.
//
// ignored counts the fields that were not believed: malformed, or in contradiction. With a zero client, ignored above 0
// means that the peer spoke for a client that is not known: the caller must not take the peer for the client.
func (t *Trust) Client(f *Fields) (client netip.AddrPort, ignored int) {
	outcomes := [...]outcome{
		t.walk(f.ForwardedFor, parseNode),
		t.walk(f.RealIP, parseNode),
		t.walk(f.Forwarded, parseForwarded),
	}
	for _, o := range outcomes {
		if o.malformed {
			ignored++
		}
		switch {
		case !o.found.IsValid():
		case !client.IsValid(), t.Includes(client.Addr()) && !t.Includes(o.found.Addr()):
			client = o.found // one field ends at a trusted proxy, and another reaches further
		case !t.Includes(o.found.Addr()) && o.found.Addr() != client.Addr():
			return netip.AddrPort{}, ignored + 2
		}
	}
	return client, ignored
}

// outcome is the result of a walk.
type outcome struct {
	found     netip.AddrPort
	malformed bool
}

// walk goes through the elements of a field from the right. An element that is no address ends the walk, and the field
// names no client: the trusted proxies to the right of it are not the client. An empty field names no client, either: a
// proxy sends one when it copies a field that the client has left out.
func (t *Trust) walk(values [][]byte, parse func([]byte) (netip.AddrPort, bool)) (o outcome) {
	for i := len(values) - 1; i >= 0; i-- {
		for rest, more := values[i], true; more; {
			var element []byte
			element, rest, more = cutLast(rest)
			element = bytes.Trim(element, " \t")
			if len(element) == 0 {
				continue // lists may hold empty elements [RFC 9110 §5.6.1]
			}
			node, ok := parse(element)
			if !ok {
				return outcome{malformed: true}
			}
			o.found = node
			if !t.Includes(node.Addr()) {
				return o
			}
		}
	}
	o.malformed = len(values) > 0 && !o.found.IsValid()
	return o
}

// cutLast takes the last element off a list. A comma within quotes does not separate; quotes that are not closed make
// the whole list one element, which is malformed.
func cutLast(list []byte) (last, rest []byte, more bool) {
	quoted := false
	for i := len(list) - 1; i >= 0; i-- {
		switch {
		case list[i] == '"' && !escaped(list, i):
			quoted = !quoted
		case list[i] == ',' && !quoted:
			return list[i+1:], list[:i], true
		}
	}
	return list, nil, false
}

// escaped reports whether an odd number of backslashes stands before list[i].
func escaped(list []byte, i int) bool {
	n := 0
	for n < i && list[i-1-n] == '\\' {
		n++
	}
	return n%2 == 1
}

// parseNode reads an address with or without a port: 192.0.2.1, 192.0.2.1:80, 2001:db8::1, [2001:db8::1],
// [2001:db8::1]:80 [RFC 7239 §6].
func parseNode(text []byte) (netip.AddrPort, bool) {
	if len(text) > nodeBytesMax {
		return netip.AddrPort{}, false
	}
	host, port := text, []byte(nil)
	if text[0] == '[' {
		end := bytes.IndexByte(text, ']')
		if end < 0 {
			return netip.AddrPort{}, false
		}
		host, port = text[1:end], text[end+1:]
		if bytes.IndexByte(host, ':') < 0 {
			return netip.AddrPort{}, false
		}
		if len(port) > 0 && port[0] != ':' {
			return netip.AddrPort{}, false
		}
	} else if i := bytes.IndexByte(text, ':'); i >= 0 && bytes.IndexByte(text[i+1:], ':') < 0 {
		host, port = text[:i], text[i:]
	}
	a, err := netip.ParseAddr(string(host))
	if err != nil || a.Zone() != "" {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(a.Unmap(), nodePort(port)), true
}

const nodeBytesMax = len("[0000:0000:0000:0000:0000:0000:255.255.255.255]:_") + 64 // a port may be a word

// nodePort reads the number behind a colon. A port may also be a word [RFC 7239 §6.3], which gives 0.
func nodePort(text []byte) uint16 {
	if len(text) < 2 {
		return 0
	}
	port, ok := parsePort(text[1:])
	if !ok {
		return 0
	}
	return port
}

// parseForwarded reads the node of one element of Forwarded: for=192.0.2.1;proto=http [RFC 7239 §4]. An element without
// for is malformed here.
func parseForwarded(element []byte) (node netip.AddrPort, ok bool) {
	for more := true; more; {
		var pair []byte
		pair, element, more = cutQuoted(element, ';')
		name, value, found := bytes.Cut(bytes.Trim(pair, " \t"), []byte("="))
		if !found || !strings.EqualFold(string(name), "for") {
			continue
		}
		if node.IsValid() {
			return netip.AddrPort{}, false // twice
		}
		if value, ok = unquote(value); !ok || len(value) == 0 {
			return netip.AddrPort{}, false
		}
		if node, ok = parseNode(value); !ok {
			return netip.AddrPort{}, false
		}
	}
	return node, node.IsValid()
}

// cutQuoted is bytes.Cut at a separator that does not lie within quotes.
func cutQuoted(b []byte, separator byte) (before, after []byte, found bool) {
	quoted := false
	for i := range b {
		switch {
		case b[i] == '"' && !escaped(b, i):
			quoted = !quoted
		case b[i] == separator && !quoted:
			return b[:i], b[i+1:], true
		}
	}
	return b, nil, false
}

// unquote takes the quotes off a value. It decodes no escapes: no address needs any.
func unquote(value []byte) ([]byte, bool) {
	if len(value) == 0 || value[0] != '"' {
		return value, true
	}
	if len(value) < 2 || value[len(value)-1] != '"' {
		return nil, false
	}
	return value[1 : len(value)-1], true
}
