package message

import (
	"unicode/utf8"
)

// Envelope has the parts of a message. Its slices are borrowed from the payload, or from the envelope itself if a
// string had to be unescaped; both are valid until the next Route.
//
// Owner: one goroutine.
type Envelope struct {
	Type  []byte // unescaped, as are Room, Token and After; nil if absent or no string
	Room  []byte
	Token []byte
	After []byte
	Ref   []byte // JSON as it was sent, checked for use in a reply; nil if absent
	Data  []byte // JSON as it was sent, as are Last and Since; nil if absent
	Last  []byte
	Since []byte

	RoomWrong bool // there is a room, but it is no string

	payload []byte
	scratch []byte
	seen    uint16
}

const (
	depthMax = 64 // of nesting, the message itself included
	refMax   = 64 // bytes of a ref that is a string
)

// The keys of the envelope.
const (
	keyType uint16 = 1 << iota
	keyRoom
	keyData
	keyRef
	keyToken
	keyTo // no message of the server's own has it; one that has it twice is refused all the same
	keyLast
	keySince
	keyAfter
	keyOption // of a message to a room with history: see Options; elsewhere each may be named twice, as any unknown key
)

func keyOf(name []byte) uint16 {
	switch string(name) {
	case "type":
		return keyType
	case "room":
		return keyRoom
	case "data":
		return keyData
	case "ref":
		return keyRef
	case "token":
		return keyToken
	case "to":
		return keyTo
	case "last":
		return keyLast
	case "since":
		return keySince
	case "after":
		return keyAfter
	case "idempotency_key", "key", "history", "before", "limit":
		return keyOption
	}
	return 0
}

// BeforeAuth reports whether a message of this type is taken from a connection that has not authenticated [wire protocol,
// authentication]. No other message of it reaches a handler, with a type or without.
func (e *Envelope) BeforeAuth() bool {
	switch string(e.Type) {
	case "auth", "ping", "pong":
		return true
	}
	return false
}

// Route finds the envelope of a message, which must be valid UTF-8. InvalidJSON: it is no object; InvalidMessage:
// the object is broken, too deep, has a key of the envelope twice, or no type. Ref is set also with InvalidMessage
// if a valid ref can be found, so that the refusal can carry it. payload is borrowed.
func Route(payload []byte, e *Envelope) Code {
	code := e.route(payload)
	if code == InvalidMessage && e.seen&keyRef == 0 {
		e.findRef(payload)
	}
	return code
}

func (e *Envelope) route(payload []byte) Code {
	*e = Envelope{payload: payload, scratch: e.scratch[:0]}
	i := skipSpace(payload, 0)
	if i == len(payload) || payload[i] != '{' {
		return InvalidJSON
	}
	i = skipSpace(payload, i+1)
	if i < len(payload) && payload[i] == '}' {
		return InvalidMessage
	}
	for {
		if i >= len(payload) || payload[i] != '"' {
			return InvalidMessage
		}
		end, escaped := scanString(payload, i+1)
		if end < 0 {
			return InvalidMessage
		}
		name := payload[i+1 : end-1]
		if escaped {
			name = e.unescape(name)
		}
		i = skipSpace(payload, end)
		if i >= len(payload) || payload[i] != ':' {
			return InvalidMessage
		}
		i = skipSpace(payload, i+1)
		if end = skipValue(payload, i); end < 0 {
			return InvalidMessage
		}
		if key := keyOf(name); key != 0 && !e.take(key, payload[i:end]) {
			return InvalidMessage
		}
		i = skipSpace(payload, end)
		if i >= len(payload) {
			return InvalidMessage
		}
		if payload[i] == '}' {
			break
		}
		if payload[i] != ',' {
			return InvalidMessage
		}
		i = skipSpace(payload, i+1)
	}
	if skipSpace(payload, i+1) != len(payload) || e.Type == nil {
		return InvalidMessage
	}
	return OK
}

// Clone is an envelope that borrows nothing.
func (e *Envelope) Clone() *Envelope {
	own := new(Envelope)
	Route(append([]byte(nil), e.payload...), own)
	return own
}

// take notes the value of a key of the envelope, and reports whether it is valid.
func (e *Envelope) take(key uint16, value []byte) bool {
	if e.seen&key != 0 && key != keyOption {
		return false
	}
	e.seen |= key
	switch key {
	case keyType:
		e.Type = e.text(value)
		return e.Type != nil
	case keyRoom:
		e.Room = e.text(value)
		e.RoomWrong = e.Room == nil
	case keyToken:
		e.Token = e.text(value)
	case keyAfter:
		e.After = e.text(value)
	case keyData:
		e.Data = value
	case keyLast:
		e.Last = value
	case keySince:
		e.Since = value
	case keyRef:
		if !e.refValid(value) {
			return false
		}
		e.Ref = value
	}
	return true
}

// text returns the content of a value that is a string, nil for any other value.
func (e *Envelope) text(value []byte) []byte {
	if value[0] != '"' {
		return nil
	}
	inner := value[1 : len(value)-1]
	for _, c := range inner {
		if c == '\\' {
			return e.unescape(inner)
		}
	}
	return inner
}

func (e *Envelope) refValid(value []byte) bool {
	if value[0] == '"' {
		text := e.text(value)
		return text != nil && len(text) <= refMax
	}
	if value[0] != '-' && (value[0] < '0' || value[0] > '9') || len(value) > 20 {
		return false
	}
	for _, c := range value[1:] {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// unescape decodes the inside of a string that scanString has accepted.
func (e *Envelope) unescape(s []byte) []byte {
	at := len(e.scratch)
	out := e.scratch
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			out = append(out, s[i])
			continue
		}
		i++
		switch c := s[i]; c {
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r := hex4(s[i+1:])
			i += 4
			if r >= 0xd800 && r < 0xe000 { // the second half follows
				r = (r-0xd800)<<10 | (hex4(s[i+3:]) - 0xdc00) + 0x10000
				i += 6
			}
			out = utf8.AppendRune(out, r)
		default: // a quote, a backslash, a slash
			out = append(out, c)
		}
	}
	e.scratch = out
	return out[at:len(out):len(out)]
}

func hex4(b []byte) rune {
	var r rune
	for _, c := range b[:4] {
		r = r<<4 | rune(hexTable[c]-1)
	}
	return r
}

// IsBarePong reports whether a text is the pong without JSON that some clients of the seed send.
func IsBarePong(payload []byte) bool {
	b := payload[skipSpace(payload, 0):]
	return len(b) >= 4 && string(b[:4]) == "pong" && skipSpace(b, 4) == len(b)
}

// roomMax is the longest name of a room, in bytes.
const roomMax = 255

// ValidRoom returns OK if name can be a room's: 1 to 255 bytes of UTF-8 without control characters.
func ValidRoom(name []byte) Code {
	if len(name) == 0 {
		return RoomRequired
	}
	if len(name) > roomMax {
		return InvalidRoom
	}
	for i := 0; i < len(name); {
		if c := name[i]; c < utf8.RuneSelf {
			if c < ' ' || c == 0x7f {
				return InvalidRoom
			}
			i++
			continue
		}
		r, n := utf8.DecodeRune(name[i:])
		if r == utf8.RuneError && n == 1 || r <= 0x9f {
			return InvalidRoom
		}
		i += n
	}
	return OK
}
