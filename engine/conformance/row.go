package conformance

import (
	"fmt"
	"strings"
)

// kind is the kind of a message or control frame from the server.
type kind uint8

const (
	text kind = iota
	binaryMessage
	ping
	pong
)

func (k kind) String() string { return [...]string{"text", "binary", "ping", "pong"}[k] }

// event is a message or control frame that the server must send.
type event struct {
	kind    kind
	payload blob
}

func (e event) String() string { return e.kind.String() + " " + e.payload.short() }

// frame is a frame to send. The zero value of more is a final frame.
//
// Owner: immutable after the tables are built.
type frame struct {
	op      byte
	more    bool // FIN is 0
	rsv     byte // three bits, RSV1 the highest
	payload blob
}

func (f frame) append(dst []byte) []byte {
	first := f.op | f.rsv<<4
	if !f.more {
		first |= 0x80
	}
	return appendFrame(dst, first, f.payload.bytes())
}

func (f frame) String() string {
	name := map[byte]string{0: "continuation", 1: "text", 2: "binary", 8: "close", 9: "ping", 10: "pong"}[f.op]
	if name == "" {
		name = fmt.Sprintf("opcode %d", f.op)
	}
	if f.more {
		name += " FIN=0"
	}
	if f.rsv != 0 {
		name += fmt.Sprintf(" RSV=%d", f.rsv)
	}
	return name + " " + f.payload.short()
}

func fr(op byte, payload string) frame    { return frame{op: op, payload: lit(payload)} }
func more(op byte, payload string) frame  { return frame{op: op, payload: lit(payload), more: true} }
func rsv(bits, op byte, pay string) frame { return frame{op: op, payload: lit(pay), rsv: bits} }
func closing(code int, text string) frame { return fr(opClose, closeBody(code, text)) }
func echoText(payload string) event       { return event{text, lit(payload)} }
func echoPong(payload string) event       { return event{pong, lit(payload)} }

// Chops other than a number of octets.
const (
	joined   = 0  // in one write with its neighbours
	perFrame = -1 // every frame in a write of its own
)

// step is one thing to do. Exactly one of frames, raw, message, awaits and quiet is set.
//
// Owner: immutable after the tables are built.
type step struct {
	frames  []frame
	raw     []byte
	message *fragmented
	awaits  int  // wait until this many events have been heard in all
	quiet   bool // wait for quietFor: the server must not send
	chop    int  // octets a write, or joined, or perFrame
}

// fragmented is a message sent in frames of size octets. It is expanded as it is sent.
type fragmented struct {
	op      byte
	payload blob
	size    int
}

func (m fragmented) append(dst []byte) []byte {
	whole, op := m.payload.bytes(), m.op
	for len(whole) > m.size {
		dst = appendFrame(dst, op, whole[:m.size])
		whole, op = whole[m.size:], opContinuation
	}
	return appendFrame(dst, 0x80|op, whole)
}

func send(frames ...frame) step              { return step{frames: frames} }
func chopped(chop int, frames ...frame) step { return step{frames: frames, chop: chop} }
func raw(octets ...byte) step                { return step{raw: octets} }
func await(events int) step                  { return step{awaits: events} }
func pieces(op byte, b blob, size int) step  { return step{message: &fragmented{op, b, size}} }

// octets appends what the step puts on the wire.
func (s step) octets(dst []byte) []byte {
	for _, f := range s.frames {
		dst = f.append(dst)
	}
	if s.message != nil {
		dst = s.message.append(dst)
	}
	return append(dst, s.raw...)
}

// size is about how many octets the step sends; it decides on chunking and on Short only.
func (s step) size() int {
	n := len(s.raw)
	for _, f := range s.frames {
		n += f.payload.length + 6
	}
	if s.message != nil {
		n += s.message.payload.length + 6*(1+s.message.payload.length/s.message.size)
	}
	return n
}

func (s step) String() string {
	switch {
	case s.quiet:
		return "(listen for a moment)"
	case s.awaits > 0:
		return fmt.Sprintf("(wait for event %d)", s.awaits)
	case s.message != nil:
		return fmt.Sprintf("opcode %d in frames of %d: %s", s.message.op, s.message.size, s.message.payload.short())
	case s.raw != nil:
		return "raw " + shorten(s.raw, len(s.raw))
	}
	var names []string
	for _, f := range s.frames {
		names = append(names, f.String())
	}
	if s.chop != joined {
		names = append(names, fmt.Sprintf("(chop %d)", s.chop))
	}
	return strings.Join(names, ", ")
}

// ending is how the connection must end: the server sends a close frame with one of codes, and then ends the stream.
type ending struct {
	byUs  bool  // we send close 1000 once all wanted events have been heard
	codes []int // the codes that the server's close frame may have
	bare  bool  // it may also have none
}

func (e ending) String() string {
	s := fmt.Sprintf("close %v", e.codes)
	if e.bare {
		s += " or a close without a code"
	}
	if e.byUs {
		s = "after our close 1000: " + s
	}
	return s + ", then the server ends the stream"
}

// rounds is a conversation in lockstep: send one message, wait for its echo, send the next.
//
// Owner: immutable after the tables are built.
type rounds struct {
	count    int // as the public suite has it; see Options.Full
	size     int // octets, or code points if the corpus is text
	corpus   *corpus
	fragment int // octets of (compressed) payload a frame; 0 is one frame
}

// row is one case.
//
// Owner: immutable after the tables are built.
type row struct {
	number  string // the public suite's number; X.* are ours
	clause  string // the clause that decides: "5.4" of RFC 6455, or "7692 7.2.1"
	title   string
	steps   []step
	want    []event // must be heard, in this order
	lenient []event // these alone are NON-STRICT for the public suite, and a failure here
	end     ending
	rounds  *rounds // unless nil, in place of steps
	offer   string  // Sec-WebSocket-Extensions to offer
	decline bool    // the server must decline the offer
	shrinks bool    // the server must compress its messages
	context bool    // refers back across messages; moot under client_no_context_takeover
}

// name is the subtest's name.
func (r row) name() string { return "§" + r.clause + " case " + r.number + " " + r.title }

// family is the part of the number before the first dot.
func (r row) family() string { return r.number[:strings.IndexByte(r.number, '.')] }

// size is about how many octets are sent in all, without compression.
func (r row) size() int {
	n := 0
	for _, s := range r.steps {
		n += s.size()
	}
	if r.rounds != nil {
		n += r.rounds.count * (r.rounds.size + 8)
	}
	return n
}

// echoes is a row that ends with our close, after all wanted events.
func echoes(number, clause, title string, steps []step) row {
	return row{number: number, clause: clause, title: title, steps: steps, end: ending{byUs: true, codes: []int{1000}}}
}

// fails is a row in which the server must fail the connection with code 1002.
func fails(number, clause, title string, steps []step) row {
	return row{number: number, clause: clause, title: title, steps: steps, end: ending{codes: []int{1002}}}
}

func (r row) wants(events ...event) row   { r.want = events; return r }
func (r row) lax(events ...event) row     { r.lenient = append([]event{}, events...); return r }
func (r row) codes(codes ...int) row      { r.end.codes = codes; return r }
func (r row) refersBack() row             { r.context = true; return r }
func (r row) offers(extension string) row { r.offer = extension; return r }

// rows are all cases: those of the public suite in its order, then ours.
func rows() []row {
	var all []row
	for _, table := range []func() []row{
		framingRows, pingRows, reservedRows, opcodeRows, fragmentRows, utf8Rows, utf8SequenceRows,
		closeRows, limitRows, roundTripRows, compressionRows, negotiationRows,
		ownFramingRows, ownDeflateRows,
	} {
		all = append(all, table()...)
	}
	return all
}

// shownBytesMax is how much of a payload a failure shows.
const shownBytesMax = 24

// shorten shows the head of a payload of length octets in hex and as text.
func shorten(head []byte, length int) string {
	if length == 0 {
		return "(empty)"
	}
	dots := ""
	if len(head) > shownBytesMax {
		head = head[:shownBytesMax]
	}
	if len(head) < length {
		dots = "…"
	}
	return fmt.Sprintf("%d octets %x%s %q%s", length, head, dots, head, dots)
}
