package history

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
)

// Position is a place in the messages of a room with history.
type Position struct {
	Seq   uint64 `json:"seq"`
	Epoch string `json:"epoch"`
}

// Placing are the members of the server's messages that are about positions.
//
// Owner: the reader of the message.
type Placing struct {
	Seq       *uint64         `json:"seq"`
	Epoch     string          `json:"epoch"`
	Until     *uint64         `json:"until"`
	Recovered *bool           `json:"recovered"`
	Missing   json.RawMessage `json:"missing"` // a span, or one for each room
	Reset     bool            `json:"reset"`
	Why       string          `json:"why"`
	Positions map[string]struct {
		Position
		Until uint64 `json:"until"`
	} `json:"positions"`
	Repeats   map[string]uint64 `json:"repeats"`
	Duplicate *Position         `json:"duplicate"`
	Low       uint64            `json:"low"`
	Top       uint64            `json:"top"`
	Messages  []json.RawMessage `json:"messages"`
	More      bool              `json:"more"`
}

// Told is a message of the server's.
//
// Owner: the caller. Its slices are borrowed.
type Told struct {
	Placing
	Type, Room, From string
	Gap              bool
	Recipients       *int
	Payload          []byte
	Text             []byte // all of it
}

// A Stand is a connection's position in a room.
//
// Owner: the connection.
type Stand struct {
	of      *chronicle
	base    uint64 // that the server told
	at      uint64
	until   uint64 // the end of the replay
	heard   uint64 // the highest number of a message that the client, or an earlier one of its session, has read
	bare    bool   // it resumed without naming a position
	earlier uint64 // heard, by the earlier ones
	repeats uint64 // up to here, the server says, messages may have come before
}

// At is the position.
func (s *Stand) At() Position { return Position{s.at, s.of.epoch} }

// Behind reports whether some client knows of a newer number, or of a newer epoch, and says so.
func (s *Stand) Behind() (what string, is bool) {
	now := s.of.room.current
	if s.of == now && s.at >= now.top {
		return "", false
	}
	return fmt.Sprintf("is at %d of epoch %s of %s, which is at %d of %s", s.at, s.of.epoch, now.room.name, now.top, now.epoch), true
}

// earlierMax is the number of earlier connections whose messages are the session's own.
const earlierMax = 7

// A Reader is a connection, as far as rooms with history are concerned.
//
// Owner: the connection.
type Reader struct {
	fmt.Stringer // names it in findings
	book         *Book
	serial       int
	earlier      []int // connections of its session, the latest last
}

// Reader makes the reader of a connection with a serial number.
func (b *Book) Reader(by fmt.Stringer, serial int) *Reader {
	return &Reader{Stringer: by, book: b, serial: serial}
}

// owns reports whether a connection, by its serial number, is this one or an earlier one of its session.
func (r *Reader) owns(serial int) bool {
	return r.serial == serial || slices.Contains(r.earlier, serial)
}

// Follow makes r the heir of a connection.
func (r *Reader) Follow(old *Reader) {
	r.earlier = append(slices.Clone(old.earlier), old.serial)
	r.earlier = r.earlier[max(0, len(r.earlier)-earlierMax):]
}

// Read takes something that has a number: a message, an answer, a skip or a gap. Each number comes once and in order. of is the
// name of a message that is as it should be, else zero.
func (r *Reader) Read(s *Stand, m *Told) (of Name) {
	b, h, from := r.book, s.of, *m.Seq
	if first, err := strconv.ParseUint(m.From, 10, 64); err == nil && (m.Type == "gap" || m.Type == "skip") {
		from = first
	}
	wrong := func(format string, args ...any) {
		h.room.found(Finding{Kind: "number", By: r}, "reads %s %d of %s, epoch %s, from %d on, %s", m.Type, *m.Seq, h.room.name, m.Epoch, from, fmt.Sprintf(format, args...))
	}
	switch {
	case m.Type == "broadcast_sent" && (h.epoch != m.Epoch || *m.Seq <= s.base): // the client begins anew behind it
		return of
	case h.epoch != m.Epoch:
		wrong("and its position is in epoch %s", h.epoch)
		return of
	case from <= s.at || from > *m.Seq:
		wrong("and is at %d: it comes again, or out of order", s.at)
		s.at = max(s.at, *m.Seq)
		return of
	case from > s.at+1:
		wrong("and is at %d: the numbers between are left out", s.at)
	}
	s.at = *m.Seq
	h.reach(*m.Seq)
	switch m.Type {
	case "broadcast", "verify":
		return r.message(s, m)
	case "gap":
		b.Checked("gaps")
		r.claims(claim{kind: claimGone, of: h, from: from, to: *m.Seq, what: "is told a gap"})
	case "skip":
		b.Checked("skips")
		r.skipped(s, m, from)
	}
	return of
}

// skipped checks the reason of a skip.
func (r *Reader) skipped(s *Stand, m *Told, from uint64) {
	x := claim{of: s.of, from: from, to: *m.Seq}
	switch m.Why {
	case "own":
		x.kind = claimOwn
	case "conflated":
		x.kind = claimConflated
	case "excluded":
		x.kind = claimExcluded
	default:
		s.of.room.found(Finding{Kind: "number", By: r}, "is told that numbers %d to %d of %s are not for it (%q), and no reason is known", from, *m.Seq, s.of.room.name, m.Why)
		return
	}
	r.claims(x)
}

// message checks a message with a number, live or replayed.
func (r *Reader) message(s *Stand, m *Told) Name {
	b, h, n := r.book, s.of, *m.Seq
	b.Checked("deliveries")
	if n <= s.until {
		b.Checked("replayed")
	}
	of, ok := r.compare(h, n, m)
	if !ok {
		return of
	}
	wrong := func(kind, format string, args ...any) {
		h.room.found(Finding{Kind: kind, By: r, Others: []int{of.Serial}}, "reads number %d of %s, message %d of connection %d, %s", n, h.room.name, of.N, of.Serial, fmt.Sprintf(format, args...))
	}
	e := h.at(n)
	switch {
	case e != nil && e.of.Known && e.of.Except == r.serial:
		wrong("leak", "from which it was excepted")
	case r.owns(of.Serial):
		wrong("own", "which is its own")
	case s.bare && n <= s.earlier && n > s.repeats:
		wrong("replay", "which its session has had; `repeats` names %d", s.repeats)
	}
	s.heard = max(s.heard, n)
	return of
}

// compare compares a message with what others have read under its number, and returns its name. The first one to read it has it
// compared with what was published.
func (r *Reader) compare(h *chronicle, n uint64, m *Told) (of Name, ok bool) {
	b := r.book
	if of, ok = b.Name(m.Payload); !ok {
		h.room.found(Finding{Kind: "altered", By: r}, "reads number %d of %s: data that no client sent: %.100q", n, h.room.name, m.Payload)
		return of, false
	}
	e := h.at(n)
	if e == nil {
		return of, true
	}
	h.is(r, n, of)
	switch {
	case e.Name != of:
	case e.text == "":
		e.text, e.bytes = string(m.Text), frameBytes(len(m.Text))
		if end := fmt.Appendf(nil, `,"seq":%d,"epoch":%q}`, n, h.epoch); !bytes.HasSuffix(m.Text, end) || m.Room != h.room.name {
			h.room.found(Finding{Kind: "altered", By: r, Others: []int{of.Serial}}, "reads number %d of %s, and its room is another or its end is not %s: %.200q", n, h.room.name, end, m.Text)
		}
		b.First(r, m, of)
	case e.text != string(m.Text):
		h.room.found(Finding{Kind: "altered", By: r, Others: []int{of.Serial}}, "reads number %d of %s as %.200q, and another client has read %.200q", n, h.room.name, m.Text, e.text)
	}
	return of, true
}

// frameBytes is the size of the frame with a text.
func frameBytes(text int) int {
	switch {
	case text < 126:
		return text + 2
	case text < 1<<16:
		return text + 4
	}
	return text + 10
}

// Sent checks the answer to a message that was to take a number; again: the client has sent it before. duplicate reports that
// the server has published nothing.
func (r *Reader) Sent(room *Room, of Name, again bool, m *Told) (duplicate bool) {
	b, at := r.book, m.Duplicate
	wrong := func(kind, format string, args ...any) {
		room.found(Finding{Kind: kind, By: r, Others: []int{of.Serial}}, "publishes message %d of connection %d in %s and is told %s", of.N, of.Serial, room.name, fmt.Sprintf(format, args...))
	}
	switch {
	case at == nil && m.Seq == nil:
		wrong("number", "no number")
		return false
	case at == nil:
		at = &Position{Seq: *m.Seq, Epoch: m.Epoch}
	case !again:
		wrong("number", "that it had published it as number %d", at.Seq)
	case m.Recipients != nil && *m.Recipients != 0:
		wrong("count", "that a duplicate had %d recipients", *m.Recipients)
	}
	if m.Duplicate != nil {
		b.Checked("duplicates")
	}
	room.Numbers(r, *at, of)
	return m.Duplicate != nil
}
