package handshake

import (
	"bytes"
	"net/url"
	"strings"
)

// Field is a header field.
type Field struct{ Name, Value []byte }

// Is reports whether the field's name is name, without regard to case.
func (f Field) Is(name string) bool { return equalFold(f.Name, name) }

// Request is an opening handshake. Its slices are borrowed from the head that was parsed; Clone gives one
// that owns its bytes.
//
// Owner: the caller of Parse; a clone is immutable.
type Request struct {
	Path     []byte
	RawQuery []byte
	Host     []byte
	Key      []byte // Sec-WebSocket-Key

	fields []Field
	head   []byte
}

// Fields returns the header fields in their order.
func (r *Request) Fields() []Field { return r.fields }

// Header returns the first value of a header field, without surrounding spaces; "" if there is none.
func (r *Request) Header(name string) string { return string(r.first(name)) }

func (r *Request) first(name string) []byte {
	for i := range r.fields {
		if equalFold(r.fields[i].Name, name) {
			return r.fields[i].Value
		}
	}
	return nil
}

// HeaderValues returns all values of a header field, in their order.
func (r *Request) HeaderValues(name string) []string {
	var list []string
	for _, f := range r.Fields() {
		if equalFold(f.Name, name) {
			list = append(list, string(f.Value))
		}
	}
	return list
}

// Query returns the first value of a key of the query, decoded; "" if there is none, or if it cannot be decoded.
func (r *Request) Query(key string) string {
	for part := range strings.SplitSeq(string(r.RawQuery), "&") {
		name, value, _ := strings.Cut(part, "=")
		if name, err := url.QueryUnescape(name); err != nil || name != key {
			continue
		}
		if value, err := url.QueryUnescape(value); err == nil {
			return value
		}
		return ""
	}
	return ""
}

// Cookie returns the value of a cookie, without quotes; "" if there is none.
func (r *Request) Cookie(name string) string {
	for _, line := range r.HeaderValues("Cookie") {
		for pair := range strings.SplitSeq(line, ";") {
			key, value, ok := strings.Cut(strings.TrimSpace(pair), "=")
			if ok && key == name {
				if n := len(value); n > 1 && value[0] == '"' && value[n-1] == '"' {
					value = value[1 : n-1]
				}
				return value
			}
		}
	}
	return ""
}

// Origin is the origin of the page that connects, as the client claims; "" if the client is not a browser.
func (r *Request) Origin() string { return r.Header("Origin") }

// Protocols lists the subprotocols that the client offers, its favourite first.
func (r *Request) Protocols() []string {
	if r.first("Sec-WebSocket-Protocol") == nil {
		return nil
	}
	var list []string
	for _, line := range r.HeaderValues("Sec-WebSocket-Protocol") {
		for token := range strings.SplitSeq(line, ",") {
			if token = strings.TrimSpace(token); token != "" {
				list = append(list, token)
			}
		}
	}
	return list
}

// Extensions returns the offers of all Sec-WebSocket-Extensions fields in their order. Borrowed if there is one
// field.
func (r *Request) Extensions() []byte {
	var all []byte
	n := 0
	for _, f := range r.Fields() {
		if !equalFold(f.Name, "Sec-WebSocket-Extensions") {
			continue
		}
		if n++; n == 1 {
			all = f.Value
		} else {
			all = append(append(append([]byte(nil), all...), ", "...), f.Value...)
		}
	}
	return all
}

// Clone returns a Request that owns its bytes.
func (r *Request) Clone() *Request {
	own := &Request{fields: make([]Field, 0, len(r.fields))}
	Parse(bytes.Clone(r.head), &Limits{Bytes: len(r.head), Headers: len(r.fields)}, own)
	return own
}

// proxied reports whether a header field shows that a proxy has passed the request on.
func (r *Request) proxied() bool {
	for _, f := range r.fields {
		for _, name := range [...]string{"X-Forwarded-For", "X-Forwarded-Proto", "X-Real-IP", "Forwarded", "Via"} {
			if equalFold(f.Name, name) {
				return true
			}
		}
	}
	return false
}

// equalFold compares ASCII without regard to case.
func equalFold(b []byte, s string) bool {
	if len(b) != len(s) {
		return false
	}
	for i := range b {
		if b[i] != s[i] && lower(b[i]) != lower(s[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}
