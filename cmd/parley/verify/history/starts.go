package history

import (
	"encoding/json"
	"fmt"
	"time"
)

// Where the server lets a client begin in a room with history: the table of docs/wire.md.

// Asked is where a client asks to begin, or which part of a history it asks for.
//
// Owner: the request.
type Asked struct {
	Since  *Position // nil: it names none
	Last   uint64    // the newest messages; 0: it does not ask so
	Told   bool      // Since was told by the server: it is a position of the room
	Before *Position // of a page
	Limit  int       // of a page
	At     time.Time // when it asks

	of  *chronicle
	top uint64 // the highest number of it that was known then
}

// Asks notes what is known of a room when a client asks where to begin.
func (r *Room) Asks(a Asked) *Asked {
	a.At, _ = r.book.Clock()
	if a.of = r.current; a.of != nil {
		a.top = a.of.top
	}
	return &a
}

// Append appends the member "since" or "before" of a request; nothing where none is named.
func (a *Asked) Append(text []byte) []byte {
	switch {
	case a.Last > 0:
		return fmt.Appendf(text, `,"since":{"last":%d}`, a.Last)
	case a.Since != nil:
		return a.Since.Append(append(text, `,"since":`...))
	case a.Before != nil:
		return a.Before.Append(append(text, `,"before":`...))
	}
	return text
}

// Append appends the position as JSON.
func (p *Position) Append(text []byte) []byte {
	return fmt.Appendf(text, `{"seq":%d,"epoch":%q}`, p.Seq, p.Epoch)
}

// span is a range of numbers; the zero span is none.
type span struct {
	From uint64 `json:"from"`
	To   uint64 `json:"to"`
}

func spanOf(raw json.RawMessage) (x span) {
	json.Unmarshal(raw, &x) // what is no span is none
	return x
}

// start is where the server lets a client begin in one room.
//
// Owner: the answer's reader.
type start struct {
	Position
	room      *Room
	until     uint64
	asked     time.Time
	recovered *bool // nil: the answer does not say
	gap       bool
	missing   span
}

// standIn makes the stand.
func (x *start) standIn(r *Reader) *Stand {
	h := x.room.chronicleOf(x.Epoch, r)
	h.reach(x.until)
	return &Stand{of: h, base: x.Seq, at: x.Seq, until: x.until}
}

// Placed takes a position that the server tells unasked: in a `position`, or in a `gap` with `reset`.
func (r *Reader) Placed(room *Room, m *Told) *Stand {
	x := start{Position: Position{*m.Seq, m.Epoch}, room: room, until: *m.Seq}
	return x.standIn(r)
}

// Joined takes the position that `joined` tells. a is nil if the client did not ask to join.
func (r *Reader) Joined(room *Room, a *Asked, m *Told) *Stand {
	x := start{Position: Position{*m.Seq, m.Epoch}, room: room, until: *m.Seq, recovered: m.Recovered, gap: m.Gap, missing: spanOf(m.Missing)}
	if m.Until != nil {
		x.until = *m.Until
	}
	if a == nil {
		a = &Asked{}
		a.At, _ = r.book.Clock()
	} else if (a.Since != nil || a.Last > 0) != (m.Until != nil) {
		room.found(Finding{Kind: "replay", By: r}, "joins %s with %s and is told until: %v", room.name, a.Append(nil), m.Until != nil)
	}
	r.judge(a, x)
	return x.standIn(r)
}

// judge checks where the server lets a client begin.
func (r *Reader) judge(a *Asked, x start) {
	r.book.Checked("starts")
	h := x.room.chronicleOf(x.Epoch, r)
	wrong := func(kind, format string, args ...any) {
		x.room.found(Finding{Kind: kind, By: r}, "begins in %s (it named%s): position %d, until %d, gap %v, missing %v: %s",
			x.room.name, a.Append([]byte(" ")), x.Seq, x.until, x.gap, x.missing, fmt.Sprintf(format, args...))
	}
	if x.asked = a.At; h.tooMuch(x) != "" {
		wrong("replay", "%s", h.tooMuch(x))
	}
	if r.book.Exact && a.of == h && x.until < a.top {
		wrong("replay", "a client knew of number %d when it asked", a.top)
	}
	switch {
	case a.Last > 0:
		if n := x.until - x.Seq; x.gap || n > a.Last {
			wrong("replay", "it asked for the newest messages")
		} else if n < a.Last {
			r.notKept(h, x.Seq, x.until, "is replayed less than it asked for")
		}
	case a.Since == nil:
		if x.Seq != x.until || x.gap {
			wrong("replay", "it asked for nothing, and begins elsewhere than at the newest message")
		}
	default:
		r.judgePosition(a, x, wrong)
	}
}

// tooMuch says why the server cannot replay what it says that it replays; empty if it can.
func (h *chronicle) tooMuch(x start) string {
	b := h.room.book
	switch {
	case x.Seq > x.until:
		return "the replay ends before it begins"
	case x.until-x.Seq > uint64(b.Messages):
		return fmt.Sprintf("a history has at most %d messages", b.Messages)
	case x.until > x.Seq && h.aged(x.Seq+1, x.asked):
		return fmt.Sprintf("the first message was older than %v when it asked", b.Age)
	}
	return ""
}

// judgePosition is judge of a client that names a position.
func (r *Reader) judgePosition(a *Asked, x start, wrong func(kind, format string, args ...any)) {
	at := a.Since
	if x.recovered != nil && *x.recovered == x.gap {
		wrong("gap", "it is recovered and has a gap, or neither")
	}
	switch {
	case at.Epoch != x.Epoch:
		if !x.gap || x.missing != (span{}) || x.Seq != x.until {
			wrong("gap", "its position is of another epoch: it must be told a gap of unknown extent")
		}
	case x.gap && x.missing == (span{}):
		if a.Told || x.Seq != x.until {
			wrong("gap", "it is told a gap of unknown extent, and its position is one of this epoch")
		}
	case !x.gap:
		if x.Seq != at.Seq {
			wrong("gap", "it begins elsewhere than where it asked to, and is told no gap")
		}
	case x.missing != span{at.Seq + 1, x.Seq} || at.Seq >= x.Seq:
		wrong("gap", "what is missing lies between its position and the one that it is told")
	default:
		r.notKept(x.room.chronicleOf(x.Epoch, r), x.Seq, x.until, "is told that it is missing")
	}
}

// Resumption is what a client knows of a room when it resumes a session.
//
// Owner: the caller.
type Resumption struct {
	Asked   *Asked // nil: it names no position
	Old     fmt.Stringer
	Before  *Stand // of the session's connection; nil: not known
	At      time.Time
	Gap     bool
	Repeats uint64
}

// Resumed takes the position that `reconnected` tells for a room; ok is false if it tells none.
func (r *Reader) Resumed(room *Room, q Resumption, m *Told) (s *Stand, ok bool) {
	p, ok := m.Positions[room.name]
	if !ok {
		return nil, false
	}
	var missing map[string]span
	json.Unmarshal(m.Missing, &missing) // what is no span is none
	x := start{Position: p.Position, room: room, until: p.Until, asked: q.At, gap: q.Gap, missing: missing[room.name]}
	if q.Asked != nil {
		r.judge(q.Asked, x)
	} else if r.book.Checked("starts without a position"); q.Before != nil {
		r.judgeBare(q, x)
	}
	s = x.standIn(r)
	s.bare, s.repeats = q.Asked == nil, q.Repeats
	if q.Before != nil && q.Before.of == s.of {
		s.earlier = max(q.Before.heard, q.Before.earlier)
	}
	return s, true
}

// judgeBare checks where a session goes on in a room of which its client has named no position: behind nothing that the
// client has not read.
func (r *Reader) judgeBare(q Resumption, x start) {
	before, h := q.Before, x.room.chronicleOf(x.Epoch, r)
	wrong := func(kind, format string, args ...any) {
		x.room.found(Finding{Kind: kind, By: r}, "goes on in %s at position %d, until %d, gap %v, missing %v, and %v was at %d: %s",
			x.room.name, x.Seq, x.until, x.gap, x.missing, q.Old, before.at, fmt.Sprintf(format, args...))
	}
	if what := h.tooMuch(x); what != "" {
		wrong("replay", "%s", what)
	}
	switch {
	case before.of != h:
		if !x.gap || x.missing != (span{}) {
			wrong("gap", "its numbers are of another epoch: it must be told a gap of unknown extent")
		}
	case x.gap && (x.missing.From == 0 || x.missing.To != x.Seq || x.missing.From > x.missing.To):
		wrong("gap", "the epoch is the same, and the gap is none in front of its position")
	case x.gap && x.missing.From > before.at+1, !x.gap && x.Seq > before.at:
		wrong("replay", "what lies between is not told")
	case x.gap:
		r.notKept(h, x.Seq, x.until, "is told that it is missing")
	case q.Repeats > x.until:
		wrong("replay", "`repeats` names %d", q.Repeats)
	}
}
