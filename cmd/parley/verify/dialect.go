package verify

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/parleyd/parley/cmd/parley/verify/history"
)

// A dialect is the protocol of one kind of server, with those of Parley's promises that it makes. The checker neither uses
// nor expects a feature that the dialect does not promise.
//
// Owner: immutable.
type dialect struct {
	greets  bool // says `connected` with an id
	refs    bool // answers carry the request's ref, and every request is answered
	tokens  bool // sessions can be resumed
	beats   bool // pings silent clients
	members bool // leave, members, announcements, counts
	join    func(room string, ref []byte) []byte
	publish func(room string, data, ref []byte) []byte
	// read fills b from a text message. b may borrow from text.
	read func(text []byte, b *body) error
}

var dialects = map[string]*dialect{
	"parley": {greets: true, refs: true, tokens: true, beats: true, members: true,
		join: askJoin, publish: askPublish, read: readBody},
	// plain is common to broadcast servers: {"type":"join"} is answered by {"type":"joined"}, and the data of
	// {"type":"broadcast"} reaches the other members of the room in a message of that type. A client has one room. No
	// further promise is made.
	"plain": {join: func(room string, _ []byte) []byte { return askJoin(room, nil) },
		publish: func(room string, data, _ []byte) []byte { return askPublish(room, data, nil) }, read: readBody},
}

// understands reports whether messages of a type are checked. Messages beyond the dialect are ignored.
func (d *dialect) understands(typ string) bool {
	switch typ {
	case "connected", "goodbye":
		return d.greets
	case "reconnect_token":
		return d.tokens
	case "ping":
		return d.beats
	case "member_joined", "member_left", "announcements", "skip", "gap", "position":
		return d.members
	}
	return true
}

func withRef(b, ref []byte) []byte {
	if ref != nil {
		b = append(append(b, `,"ref":`...), ref...)
	}
	return append(b, '}')
}

// about is a request about a room.
func about(kind, room string, ref []byte) []byte {
	return withRef(fmt.Appendf(nil, `{"type":%q,"room":%q`, kind, room), ref)
}

func askJoin(room string, ref []byte) []byte { return about("join", room, ref) }

func askPublish(room string, data, ref []byte) []byte {
	return withRef(fmt.Appendf(nil, `{"type":"broadcast","room":%q,"data":%s`, room, data), ref)
}

// body is a message of the server's.
//
// Owner: the goroutine that runs the checker, until the next message.
type body struct {
	Type       string          `json:"type"`
	Room       string          `json:"room"`
	Ref        json.RawMessage `json:"ref"`
	ID         string          `json:"connection_id"`
	Previous   string          `json:"previous_connection_id"`
	From       origin          `json:"from"`
	Payload    json.RawMessage `json:"data"`
	Token      string          `json:"token"`
	TTL        float64         `json:"ttl"` // seconds
	Code       string          `json:"code"`
	Members    json.RawMessage `json:"members"` // a number, or a list of ids
	Recipients *int            `json:"recipients"`
	Count      *int            `json:"count"`
	Partial    bool            `json:"partial"`
	Next       string          `json:"next"`
	Rooms      []string        `json:"rooms"`
	Lost       []struct {
		Room string `json:"room"`
		Code string `json:"code"`
	} `json:"lost"`
	Gaps       []string `json:"gaps"`
	Gap        bool     `json:"gap"`
	On         bool     `json:"on"`
	RetryAfter int64    `json:"retry_after"` // seconds
	history.Placing
	text []byte // all of it
}

// origin is "from": the id of a publisher, or the digits of the first number of a gap or a skip.
type origin string

// UnmarshalJSON takes a string or a number.
func (o *origin) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		return json.Unmarshal(b, (*string)(o))
	}
	*o = origin(b)
	return nil
}

// count is `members` if it is a number, else -1.
func (b *body) count() int {
	n, err := strconv.Atoi(string(b.Members))
	if err != nil {
		return -1
	}
	return n
}

// ids is `members` if it is a list.
func (b *body) ids() (list []string, err error) {
	err = json.Unmarshal(b.Members, &list)
	return list, err
}

func readBody(text []byte, b *body) error {
	*b = body{}
	if readRelayed(text, b) {
		b.text = text
		return nil
	}
	*b = body{text: text}
	return json.Unmarshal(text, b)
}

var (
	relayedHead = []byte(`{"type":"broadcast","room":"`)
	fromHead    = []byte(`","from":"`)
	payloadHead = []byte(`","data":`)
	stampHead   = []byte(`,"timestamp":`)
	seqHead     = []byte(`,"seq":`)
	epochHead   = []byte(`,"epoch":"`)
)

// readRelayed reads a broadcast in its usual shape, by far the most frequent message. It returns false for any other.
func readRelayed(text []byte, b *body) bool {
	rest, ok := bytes.CutPrefix(text, relayedHead)
	if !ok {
		return false
	}
	room, rest, ok := bytes.Cut(rest, fromHead)
	if !ok || bytes.IndexByte(room, '"') >= 0 || bytes.IndexByte(room, '\\') >= 0 {
		return false
	}
	from, rest, ok := bytes.Cut(rest, payloadHead)
	if !ok || bytes.IndexByte(from, '"') >= 0 || bytes.IndexByte(from, '\\') >= 0 {
		return false
	}
	at := bytes.LastIndex(rest, stampHead)
	if at < 0 || bytes.IndexByte(rest, '}') != at-1 { // our data is one flat object
		return false
	}
	stamp, number, numbered := bytes.Cut(rest[at+len(stampHead):], seqHead)
	if numbered {
		seq, epoch, is := bytes.Cut(number, epochHead)
		n, err := strconv.ParseUint(string(seq), 10, 64)
		if epoch, is = bytes.CutSuffix(epoch, []byte(`"}`)); !is || err != nil || bytes.IndexByte(epoch, '"') >= 0 {
			return false
		}
		b.Seq, b.Epoch = &n, string(epoch)
	} else if stamp, numbered = bytes.CutSuffix(stamp, []byte{'}'}); !numbered {
		return false
	}
	for _, c := range stamp {
		if c < '0' || c > '9' {
			return false
		}
	}
	b.Type, b.Room, b.From, b.Payload = "broadcast", string(room), origin(from), rest[:at]
	return true
}

// appendPayload appends the data of a message: it contains the message's name, and is different each time. Every
// second one contains white space, which the server must keep. pad is the number of bytes behind the name.
func appendPayload(dst []byte, name messageName, pad int) []byte {
	if name.n%2 == 0 {
		dst = append(dst, `{"verify": "`...)
	} else {
		dst = append(dst, `{"verify":"`...)
	}
	dst = append(append(dst, name.run...), ':')
	dst = append(strconv.AppendInt(dst, int64(name.serial), 10), ':')
	dst = strconv.AppendInt(dst, int64(name.n), 10)
	dst = append(dst, `","pad":"`...)
	for i := range pad {
		dst = append(dst, 'a'+byte((name.n+i)%26))
	}
	return append(dst, `"}`...)
}

// messageName identifies a message by its run, its connection, and its number there.
type messageName struct {
	run       string
	serial, n int
}

const (
	padMax  = 120
	bulkPad = 48 << 10 // of messages that are to fill a slow reader's backlog
)

// payloadOf is the data of message n. It is good until the next call.
func (c *conn) payloadOf(n int) []byte {
	pad := (c.serial*7 + n*13) % padMax
	if c.sent.at(n).bulk {
		pad = bulkPad
	}
	c.k.payload = appendPayload(c.k.payload[:0], messageName{c.k.run, c.serial, n}, pad)
	return c.k.payload
}

// payloadNames reads the name in data that appendPayload wrote. ok is false for data of another run.
func payloadNames(data []byte, run string) (serial, n int, ok bool) {
	rest, ok := bytes.CutPrefix(data, []byte(`{"verify":`))
	if !ok {
		return 0, 0, false
	}
	rest = bytes.TrimPrefix(rest, []byte(" "))
	if len(rest) < len(run)+2 || rest[0] != '"' || string(rest[1:1+len(run)]) != run || rest[1+len(run)] != ':' {
		return 0, 0, false
	}
	rest = rest[len(run)+2:]
	if serial, rest, ok = digits(rest, ':'); !ok {
		return 0, 0, false
	}
	n, _, ok = digits(rest, '"')
	return serial, n, ok
}

// digits reads a number that ends with a byte.
func digits(b []byte, end byte) (n int, rest []byte, ok bool) {
	for i, c := range b {
		switch {
		case c == end:
			return n, b[i+1:], i > 0
		case c < '0' || c > '9' || i > 15:
			return 0, nil, false
		}
		n = n*10 + int(c-'0')
	}
	return 0, nil, false
}
