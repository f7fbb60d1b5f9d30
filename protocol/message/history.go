package message

import (
	"bytes"
	"strconv"
)

// The messages about positions in rooms with history [wire protocol, history].

// Position is a place in the messages of a room: behind the message with the number Seq. Its epoch needs no escapes in JSON.
//
// Owner: immutable.
type Position struct {
	Seq   uint64 `json:"seq"`
	Epoch string `json:"epoch"`
}

// SeqMax is the highest number of a message: the highest integer of which every JSON reader knows all digits.
const SeqMax = 1<<53 - 1

// epochBytesMax is the longest epoch.
const epochBytesMax = 22

func unsigned(dst []byte, n uint64) []byte { return strconv.AppendUint(dst, n, 10) }

// appendPlace appends the members seq and epoch.
func appendPlace(dst []byte, p Position) []byte {
	dst = unsigned(append(dst, `"seq":`...), p.Seq)
	return append(append(append(dst, `,"epoch":"`...), p.Epoch...), '"')
}

// AppendNumber completes a message that takes a number. body is the message without its last brace.
func AppendNumber(dst, body []byte, p Position) []byte {
	dst = append(dst, body...)
	if last := body[len(body)-1]; last != '{' {
		dst = append(dst, ',')
	}
	return append(appendPlace(dst, p), '}')
}

// NumberedBytes is the length of the message that AppendNumber makes.
func NumberedBytes(body []byte, p Position) int {
	n := len(body) + len(`"seq":,"epoch":""}`) + len(p.Epoch)
	if body[len(body)-1] != '{' {
		n++
	}
	for seq := p.Seq; ; seq /= 10 {
		if n++; seq < 10 {
			return n
		}
	}
}

// Numberable returns the part of a text that AppendNumber takes: the text up to its last brace. ok is false if it is no JSON
// object, or has a member seq or epoch at its top. The text must be valid UTF-8. body is borrowed.
func Numberable(text []byte) (body []byte, ok bool) {
	if EachMember(text, func(name, _ []byte) bool { return string(name) != "seq" && string(name) != "epoch" }) != OK {
		return nil, false
	}
	return Body(text), true
}

// Readdressed is a broadcast to one room as one to another. Any other text, and one without the room's name in the place where
// [AppendBroadcast] puts it, is returned as it is.
func Readdressed(text []byte, from, to string) []byte {
	head := []byte(`{"type":"broadcast","room":`)
	rest, ok := bytes.CutPrefix(text, AppendString(head, from))
	if from == to || !ok {
		return text
	}
	return append(AppendString(head, to), rest...)
}

// Body is an object without its last brace and the spaces around it. It is borrowed.
func Body(object []byte) []byte {
	end := len(object)
	for object[end-1] != '}' {
		end--
	}
	for end--; object[end-1] == ' ' || object[end-1] == '\n' || object[end-1] == '\r' || object[end-1] == '\t'; {
		end--
	}
	return object[:end]
}

// Start is where a member begins in a room with history. The zero Start is that of a room without.
//
// Owner: the caller.
type Start struct {
	Position           // that is told
	Until       uint64 // the number with which the replay ends
	Replays     bool   // Until is told
	Judged      bool   // the client named a position: Recovered is told
	Recovered   bool
	Gap         bool
	MissingFrom uint64 // 0: it is not known what is missing
	MissingTo   uint64
}

// appendStart appends the members of joined that say where the member begins.
func appendStart(dst []byte, s *Start) []byte {
	if s.Epoch != "" {
		dst = appendPlace(append(dst, ','), s.Position)
	}
	if s.Replays {
		dst = unsigned(append(dst, `,"until":`...), s.Until)
	}
	if s.Judged {
		dst = strconv.AppendBool(append(dst, `,"recovered":`...), s.Recovered)
	}
	if s.Gap {
		dst = append(dst, `,"gap":true`...)
	}
	if s.MissingFrom > 0 {
		dst = appendMissing(append(dst, `,"missing":`...), s)
	}
	return dst
}

func appendMissing(dst []byte, s *Start) []byte {
	dst = unsigned(append(dst, `{"from":`...), s.MissingFrom)
	return append(unsigned(append(dst, `,"to":`...), s.MissingTo), '}')
}

// Restart is where a resumed session begins in a room with history.
//
// Owner: the caller.
type Restart struct {
	Room string
	Start
	Repeats uint64 // of what is replayed, numbers up to this may have arrived before; 0 for none
}

// appendRestarts appends the members of reconnected that say where the session begins in its rooms.
func appendRestarts(dst []byte, list []Restart) []byte {
	if len(list) == 0 {
		return dst
	}
	each := func(name string, told func(*Restart) bool, value func([]byte, *Restart) []byte) {
		from := len(dst)
		for i := range list {
			if r := &list[i]; told(r) {
				if len(dst) == from {
					dst = append(append(append(dst, `,"`...), name...), `":{`...)
				} else {
					dst = append(dst, ',')
				}
				dst = value(append(AppendString(dst, r.Room), ':'), r)
			}
		}
		if len(dst) > from {
			dst = append(dst, '}')
		}
	}
	each("positions", func(*Restart) bool { return true }, func(dst []byte, r *Restart) []byte {
		dst = appendPlace(append(dst, '{'), r.Position)
		return append(unsigned(append(dst, `,"until":`...), r.Until), '}')
	})
	each("missing", func(r *Restart) bool { return r.MissingFrom > 0 }, func(dst []byte, r *Restart) []byte { return appendMissing(dst, &r.Start) })
	each("repeats", func(r *Restart) bool { return r.Repeats > 0 }, func(dst []byte, r *Restart) []byte { return unsigned(dst, r.Repeats) })
	return dst
}

// Whys of skipped numbers.
const (
	WhyOwn       = "own"       // published by this session
	WhyExcluded  = "excluded"  // not for this connection
	WhyConflated = "conflated" // a later message with the same key is unread, too
)

// Skip names numbers that are not for a connection: those from From to the position's.
//
// Owner: the caller.
type Skip struct {
	From uint64
	Position
	Why string
}

// AppendSkip tells which numbers are not for the connection.
func AppendSkip(dst []byte, room string, m Skip) []byte {
	dst = AppendString(append(dst, `{"type":"skip","room":`...), room)
	if m.From < m.Seq {
		dst = unsigned(append(dst, `,"from":`...), m.From)
	}
	dst = appendPlace(append(dst, ','), m.Position)
	return append(append(append(dst, `,"why":"`...), m.Why...), `"}`...)
}

// AppendGap tells that the numbers from one to p.Seq will not come on the connection.
func AppendGap(dst []byte, room string, from uint64, p Position) []byte {
	dst = AppendString(append(dst, `{"type":"gap","room":`...), room)
	dst = unsigned(append(dst, `,"from":`...), from)
	return append(appendPlace(append(dst, ','), p), '}')
}

// AppendReset tells that the room has a new epoch, and the connection's position in it.
func AppendReset(dst []byte, room string, p Position) []byte {
	dst = AppendString(append(dst, `{"type":"gap","room":`...), room)
	return append(appendPlace(append(dst, ','), p), `,"reset":true}`...)
}

// AppendPosition tells a connection its position in a room that the application took it into.
func AppendPosition(dst []byte, room string, p Position) []byte {
	dst = AppendString(append(dst, `{"type":"position","room":`...), room)
	return append(appendPlace(append(dst, ','), p), '}')
}

// History is the answer to a question for messages of a room.
//
// Owner: the caller.
type History struct {
	Room     []byte
	Low, Top uint64
	Messages [][]byte // JSON, as they were sent
	More     bool
	Start    // its epoch, its gap and what is missing
	Ref      []byte
}

// AppendHistory answers a question for messages.
func AppendHistory(dst []byte, m History) []byte {
	dst = AppendString(append(dst, `{"type":"history","room":`...), m.Room)
	dst = append(append(append(dst, `,"epoch":"`...), m.Epoch...), '"')
	dst = unsigned(append(dst, `,"low":`...), m.Low)
	dst = unsigned(append(dst, `,"top":`...), m.Top)
	dst = append(dst, `,"messages":[`...)
	for i, message := range m.Messages {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, message...)
	}
	dst = strconv.AppendBool(append(dst, `],"more":`...), m.More)
	s := Start{Gap: m.Gap, MissingFrom: m.MissingFrom, MissingTo: m.MissingTo}
	return end(appendStart(dst, &s), m.Ref)
}

// Since is where a client wants to start: the zero Since, with what is published from now on; Last, with that many of the
// newest messages; Named, behind the position.
//
// Owner: immutable.
type Since struct {
	Last     uint64
	Named    bool
	Position Position
}

// ParsePosition reads a position; other members than seq and epoch are ignored. ok is false for any other value, and where one
// of the two is named twice. value is valid JSON.
func ParsePosition(value []byte) (p Position, ok bool) {
	s, ok := ParseSince(value)
	return s.Position, ok && s.Named
}

// ParseSince reads where a client wants to start: a position, or {"last":M}. ok is false for any other value. value is valid
// JSON.
func ParseSince(value []byte) (s Since, ok bool) {
	var seq, epoch, last int
	code := EachMember(value, func(name, value []byte) bool {
		switch string(name) {
		case "seq":
			seq++
			s.Position.Seq, ok = parseNumber(value)
			return ok && seq == 1
		case "epoch":
			epoch++
			s.Position.Epoch, ok = Text(value)
			return ok && epoch == 1 && ValidEpoch(s.Position.Epoch)
		case "last":
			last++
			s.Last, ok = parseNumber(value)
			return ok && last == 1 && s.Last > 0
		}
		return true
	})
	s.Named = seq == 1
	return s, code == OK && seq == epoch && seq+last == 1
}

// parseNumber reads an integer from 0 to SeqMax. value is valid JSON.
func parseNumber(value []byte) (n uint64, ok bool) {
	for _, c := range value {
		if c < '0' || c > '9' || n > SeqMax {
			return 0, false
		}
		n = 10*n + uint64(c-'0')
	}
	return n, n <= SeqMax
}

// ValidEpoch reports whether a text may be an epoch.
func ValidEpoch(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '_', c == '-':
		default:
			return false
		}
	}
	return s != "" && len(s) <= epochBytesMax
}

// ParseLast reads the positions of a reconnect message, by room. ok is false if last is no object of positions, or names a room
// twice; wanted says which rooms are looked at. last is valid JSON.
func ParseLast(last []byte, wanted func(room []byte) bool) (positions map[string]Position, ok bool) {
	code := EachMember(last, func(name, value []byte) bool {
		if !wanted(name) {
			return true
		}
		p, ok := ParsePosition(value)
		if _, twice := positions[string(name)]; twice || !ok {
			return false
		}
		if positions == nil {
			positions = map[string]Position{}
		}
		positions[string(name)] = p
		return true
	})
	return positions, code == OK
}

// Options are the members of a broadcast or history message that only rooms with history know.
//
// Owner: the caller.
type Options struct {
	IdempotencyKey string // "" for none
	Key            string // for conflation; "" for none
	Ephemeral      bool   // history is false
	Before         *Position
	Limit          int // 0 for none
}

// KeyBytesMax is the longest key of a message, in bytes.
const KeyBytesMax = 64

// HistoryLimitMax is the most messages that a client may ask for at once.
const HistoryLimitMax = 100

// Options reads the options of a message. ok is false if one of them is malformed, or named twice.
func (e *Envelope) Options() (o Options, ok bool) {
	if e.seen&keyOption == 0 {
		return o, true
	}
	seen := map[string]bool{}
	code := EachMember(e.payload, func(name, value []byte) bool {
		if keyOf(name) != keyOption {
			return true
		}
		if seen[string(name)] {
			return false
		}
		seen[string(name)] = true
		return o.take(string(name), value)
	})
	return o, code == OK
}

// take notes an option, and reports whether it is well formed.
func (o *Options) take(name string, value []byte) (ok bool) {
	switch name {
	case "idempotency_key":
		o.IdempotencyKey, ok = Text(value)
		return ok && o.IdempotencyKey != "" && len(o.IdempotencyKey) <= KeyBytesMax
	case "key":
		o.Key, ok = Text(value)
		return ok && o.Key != "" && len(o.Key) <= KeyBytesMax
	case "history":
		o.Ephemeral = string(value) == "false"
		return o.Ephemeral || string(value) == "true"
	case "before":
		p, ok := ParsePosition(value)
		o.Before = &p
		return ok
	}
	n, ok := parseNumber(value)
	o.Limit = int(n)
	return ok && n >= 1 && n <= HistoryLimitMax
}
