package sim

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/parleyd/parley/engine"
)

// placing are the members of the server's messages that are about positions.
//
// Owner: the simulation.
type placing struct {
	Seq       *uint64         `json:"seq"`
	Epoch     string          `json:"epoch"`
	Until     *uint64         `json:"until"`
	Recovered *bool           `json:"recovered"`
	Gap       bool            `json:"gap"`
	Reset     bool            `json:"reset"`
	Missing   json.RawMessage `json:"missing"`
	Positions map[string]struct {
		engine.Position
		Until uint64 `json:"until"`
	} `json:"positions"`
	Repeats   map[string]uint64 `json:"repeats"`
	Gaps      []string          `json:"gaps"`
	Duplicate *engine.Position  `json:"duplicate"`
	Why       string            `json:"why"`
	Low       uint64            `json:"low"`
	Top       uint64            `json:"top"`
	Messages  []json.RawMessage `json:"messages"`
	More      bool              `json:"more"`
}

// place is for the trace.
func (b *body) place() string {
	if b.Seq == nil {
		return ""
	}
	return fmt.Sprintf(" %s%d %s", b.Why, *b.Seq, b.Epoch)
}

// span is a range of numbers.
type span struct{ From, To uint64 }

// since is the place that a join names.
type since struct {
	last  uint64
	named bool
	at    engine.Position
}

// start is where the server lets a client begin, in one room.
//
// Owner: the simulation.
type start struct {
	engine.Position
	h         *chronicle
	asked     *since // nil: the client named no place
	recovered *bool  // nil where the answer does not tell it
	until     uint64
	gap       bool
	missing   span
}

// turnOf is the place of the request that an answer may be for: the oldest one, but for broadcasts to rooms with history, whose
// answers stand in the order of the room. -1: there is none.
func (k *client) turnOf(ref int) int {
	for i, q := range k.asked {
		if q.ref == ref {
			return i
		}
		if q.published == nil || q.published.number == 0 || q.published.duplicate {
			return -1
		}
	}
	return -1
}

// placed takes a joined: the position that it tells is the client's.
func (k *client) placed(b *body) {
	t := k.w.truth
	h := t.epochs[b.Epoch]
	switch {
	case b.Seq == nil && k.w.mayNumber(b.Room):
		k.w.complain("positions", "%s joins %s and is told no position", k.name, b.Room)
		return
	case b.Seq == nil:
		return
	case h == nil || h.room != b.Room:
		k.w.complain("positions", "%s joins %s and is told the epoch %s", k.name, b.Room, b.Epoch)
		return
	}
	s := start{Position: engine.Position{Seq: *b.Seq, Epoch: b.Epoch}, h: h, recovered: b.Recovered, until: *b.Seq, gap: b.Gap}
	if b.Until != nil {
		s.until = *b.Until
	}
	json.Unmarshal(b.Missing, &s.missing)
	k.stands[b.Room] = &stand{h: h, base: s.Seq, at: s.Seq, until: s.until}
	if q := k.request(b.Ref); q != nil && b.Ref != 0 && q.typ == "join" {
		s.asked = q.since
		k.judge(q, s)
	} else if s.until != s.Seq || s.gap {
		k.w.complain("starts", "%s was taken into %s and is told %+v", k.name, b.Room, s)
	}
}

// judge checks where the server lets a client begin that names a place, or none.
func (k *client) judge(q *request, s start) {
	h, asked := s.h, s.asked
	then, now := q.then[h.room], h.extent()
	if then.epoch != h.epoch {
		then = extent{1, 0, h.epoch}
	}
	wrong := func(what string) {
		k.w.complain("starts", "%s %v: %s: it named %+v and is told %+v; the history was %+v and is %+v", k.name, q, what, asked, s, then, now)
	}
	if s.until < then.top || s.until > now.top || s.Seq > s.until {
		wrong("no such numbers")
	}
	if s.Seq+1 < then.low && asked != nil {
		wrong("what is replayed is kept no more")
	}
	switch {
	case asked == nil:
		if s.Seq != s.until || s.gap {
			wrong("it begins elsewhere than at the top")
		}
	case asked.last > 0:
		if n := s.until - s.Seq; s.gap || n > asked.last || n < asked.last && s.Seq+1 > now.low {
			wrong("other than the last messages")
		}
	default:
		judgePosition(s, then, wrong)
	}
}

// judgePosition is judge of a position.
func judgePosition(s start, then extent, wrong func(what string)) {
	h, now := s.h, s.h.extent()
	switch at := s.asked.at; {
	case s.recovered != nil && *s.recovered == s.gap:
		wrong("it is recovered and has a gap, or neither")
	case at.Epoch != h.epoch || at.Seq > now.top:
		if !s.gap || s.missing != (span{}) || s.Seq != s.until {
			wrong("nothing is known of its position")
		}
	case at.Seq > then.top && s.gap && s.missing == span{}: // it was ahead then
	case !s.gap:
		if s.Seq != at.Seq {
			wrong("it begins elsewhere")
		}
	case s.missing != span{at.Seq + 1, s.Seq} || at.Seq >= s.Seq:
		wrong("the gap is not what it missed")
	case s.Seq >= now.low:
		wrong("it is told a gap of messages that are kept")
	}
}

// restarted checks where a session goes on in its rooms.
func (k *client) restarted(q *request, b *body, old *conn) {
	var missing map[string]span
	k.truth.heirOf = k.truth.earlier
	json.Unmarshal(b.Missing, &missing)
	for _, room := range b.Rooms {
		p, told := b.Positions[room]
		if told != k.w.mayNumber(room) {
			k.w.complain("positions", "%s resumes in %s and is told a position: %v", k.name, room, told)
		}
		h := k.w.truth.epochs[p.Epoch]
		if !told || h == nil || h.room != room {
			if told {
				k.w.complain("positions", "%s resumes in %s and is told the epoch %s", k.name, room, p.Epoch)
			}
			continue
		}
		before := old.client.stands[room]
		st := &stand{h: h, base: p.Seq, at: p.Seq, until: p.Until, repeats: b.Repeats[room]}
		k.stands[room] = st
		s := start{Position: p.Position, h: h, until: p.Until, gap: slices.Contains(b.Gaps, room), missing: missing[room]}
		at, named := q.last[room]
		sure := before != nil && !old.unsure && !old.client.rebases(room)
		switch {
		case named:
			st.repeats = p.Until
			s.asked = &since{named: true, at: at}
			k.judge(q, s)
		case sure:
			s.asked = &since{named: true, at: engine.Position{Seq: before.known(s), Epoch: before.h.epoch}}
			k.judge(q, s)
			fallthrough
		default:
			if before != nil && before.h == h {
				st.heard = before.heard
			}
		}
	}
}

// rebases reports whether the client's position in a room may have been told anew, on its way to it.
func (k *client) rebases(room string) bool {
	return slices.ContainsFunc(k.asked, func(q *request) bool {
		return q.typ == "reconnect" || q.room == room && (q.typ == "join" || q.typ == "leave")
	})
}

// sent checks the answer to a broadcast.
func (k *client) sent(q *request, b *body) {
	p := q.published
	told := engine.Position{Epoch: b.Epoch}
	if b.Seq != nil {
		told.Seq = *b.Seq
	}
	if b.Duplicate != nil {
		told = *b.Duplicate
	}
	switch {
	case p.refused:
		k.w.complain("answers", "%s: %v should be refused", k.name, q)
	case told != engine.Position{Seq: p.number, Epoch: p.epoch} || (b.Duplicate != nil) != p.duplicate:
		k.w.complain("keys", "%s publishes %d with key %q and is told %+v; it has %d %s, duplicate: %v", k.name, p.m, p.idempotencyKey, told, p.number, p.epoch, p.duplicate)
	}
}

// refusedMessage checks that a refused broadcast took no number.
func (k *client) refusedMessage(q *request, b *body) {
	if q.published != nil && q.published.number > 0 {
		k.w.complain("answers", "%s: %v has number %d, and is refused: %s", k.name, q, q.published.number, b.Code)
	}
}

// paged checks a part of a history.
func (k *client) paged(q *request, b *body) {
	h := k.w.truth.epochs[b.Epoch]
	if h == nil || h.room != q.room {
		k.w.complain("positions", "%s reads a history of %s, epoch %s", k.name, q.room, b.Epoch)
		return
	}
	then, now := q.then[q.room], h.extent()
	if b.Low < then.low || b.Low > now.low || b.Top < then.top || b.Top > now.top {
		k.w.complain("bounds", "%s is told that %s has %d to %d; it had %+v, and has %+v", k.name, q.room, b.Low, b.Top, then, now)
	}
	before := uint64(0)
	for _, text := range b.Messages {
		n := *decode(text).Seq
		if n < b.Low || n > b.Top || before > 0 && n != before+1 || string(text) != h.text(n) {
			k.w.complain("bytes", "%s asks for the history of %s and reads %.200s behind %d, and should %.200s", k.name, q.room, text, before, h.text(n))
		}
		before = n
	}
}

// atTop checks at rest that a member is at the newest message.
func (t *truth) atTop(c *conn, room string) {
	h := t.chronicle(room)
	if h == nil {
		return
	}
	if st := c.client.stands[room]; st == nil || st.h != h || st.at != uint64(len(h.log)) {
		t.w.complain("gap", "%s is at %+v of %s, which is at %d", c.id, st, room, len(h.log))
	}
}

// What the worlds of one worker and of several share of rooms with history: who has published a message, and who reads.

// scene is a world, as its checkers see it.
type scene interface {
	complain(checker, format string, args ...any)
	tracef(format string, args ...any)
	Now() time.Duration
}

// speaker is a connection as one that publishes and reads messages with numbers, and the earlier connections of its session.
//
// Owner: the simulation.
type speaker struct {
	id      string
	ended   bool
	earlier []*speaker // of its session, whose messages are its own, the newest last
	heirOf  []*speaker // those, once its client knows of them
	began   *speaker   // the first one of its session
}

// follow makes c the heir of the session of old.
func (c *speaker) follow(old *speaker) {
	c.began = old.began
	c.earlier = append(slices.Clone(old.earlier), old)
	c.earlier = c.earlier[max(0, len(c.earlier)-7):]
}

// isOwn reports whether a connection is c or one of the last of its session.
func (c *speaker) isOwn(other *speaker) bool { return other == c || slices.Contains(c.heirOf, other) }

// mayBeOwn is isOwn where the client need not know yet that it is the heir.
func (c *speaker) mayBeOwn(other *speaker) bool {
	return c.isOwn(other) || slices.Contains(c.earlier, other)
}

// mayBeOut reports whether a message need not be for c; isOut, whether it must not be. again: it is replayed.
func (c *speaker) mayBeOut(r *record) bool { return slices.ContainsFunc(r.out, c.mayBeOwn) }

func (c *speaker) isOut(r *record, again bool) bool {
	return slices.Contains(r.out, c) || again && slices.ContainsFunc(r.was, c.isOwn)
}

// mustNotHear reports whether a message of a connection is not for c. One of an earlier connection of the session may get its
// number when c is a member already: c is told that it is its own, or gets it.
func (c *speaker) mustNotHear(other *speaker, again bool) bool {
	return other == c || again && c.isOwn(other)
}

// reader is a client's place in the rooms with history.
//
// Owner: the simulation.
type reader struct {
	scene  scene
	name   string
	as     *speaker // nil: it is not admitted yet
	epochs map[string]*chronicle
	stands map[string]*stand
}

// stand is a client's position in a room.
//
// Owner: the simulation.
type stand struct {
	h     *chronicle
	base  uint64 // that it was told last
	at    uint64
	proof uint64 // at, when the client answered a PING last
	until uint64 // of the replay
	heard uint64 // the highest number of a message that the client, or an earlier one of its session, has had
	// repeats is what the server says of the repeated messages; read only where the client named no position.
	repeats uint64
}

// known is the position from which the server begins for a client that names none, if s may come of it: what the client was told
// last, or what a PONG has proved. The PONG may be lost, and proves what was queued when the PING was.
func (st *stand) known(s start) uint64 {
	from := s.Seq
	if s.gap && s.missing.From > 0 {
		from = s.missing.From - 1
	}
	if st.base <= from && from <= st.proof {
		return from
	}
	return st.base
}

// pong notes that the client answers a PING.
func (k *reader) pong() {
	for _, st := range k.stands {
		st.proof = st.at
	}
}

// numbered checks a message with a number: each number comes once, in order, and is what it should be.
func (k *reader) numbered(b *body, text []byte, compressed bool) {
	w := k.scene
	h := k.epochs[b.Epoch]
	if h == nil || b.Room != "" && h.room != b.Room {
		w.complain("positions", "%s reads %s, whose epoch is of no room", k.name, text)
		return
	}
	st := k.stands[h.room]
	if b.Type == "broadcast_sent" && (st == nil || st.h != h || *b.Seq <= st.base) {
		return // it has left the room since
	}
	if st == nil || st.h != h {
		w.complain("delivery", "%s reads number %d of %s, epoch %s, where it is not", k.name, *b.Seq, h.room, b.Epoch)
		return
	}
	from := *b.Seq
	if first, err := strconv.ParseUint(string(b.From), 10, 64); err == nil {
		from = first
	}
	switch {
	case from <= st.at || from > *b.Seq:
		w.complain("order", "%s is at %d of %s and reads %d to %d", k.name, st.at, h.room, from, *b.Seq)
		return
	case from > st.at+1:
		w.complain("gap", "%s is at %d of %s and reads %d to %d", k.name, st.at, h.room, from, *b.Seq)
		return
	case *b.Seq > uint64(len(h.log)):
		w.complain("numbers", "%s reads number %d of %s, which has %d", k.name, *b.Seq, h.room, len(h.log))
		return
	}
	st.at = *b.Seq
	for n := from; n <= *b.Seq; n++ {
		k.one(&reading{b, text, compressed}, st, n)
	}
}

// reading is a message with a number, as it arrived.
type reading struct {
	*body
	text       []byte
	compressed bool
}

// one checks what the client gets for a number.
func (k *reader) one(b *reading, st *stand, n uint64) {
	w, h, c := k.scene, st.h, k.as
	r := &h.log[n-1]
	switch {
	case b.Type == "broadcast_sent":
		if r.by != c {
			w.complain("delivery", "%s is told that it has sent message %d of %s", k.name, n, h.room)
		}
	case b.Type == "gap":
		if n >= h.oldest() && !h.over {
			w.complain("false gap", "%s is told that message %d of %s is gone, and it is kept", k.name, n, h.room)
		}
		if !h.policies[engine.SlowDrop] && !h.policies[engine.SlowConflate] {
			w.complain("false gap", "%s is told of a gap in %s instead of being sent away", k.name, h.room)
		}
	case b.Type == "skip" && b.Why == "own" && c.mayBeOwn(r.by):
	case b.Type == "skip" && b.Why == "excluded" && c.mayBeOut(r):
	case b.Type == "skip" && b.Why == "conflated" && h.policies[engine.SlowConflate] && h.conflatable(n):
	case b.Type == "skip":
		w.complain("skips", "%s is told %s of message %d of %s", k.name, b.Why, n, h.room)
	case string(b.text) != h.text(n):
		w.complain("bytes", "%s reads %.200s, and message %d of %s is %.200s", k.name, b.text, n, h.room, h.text(n))
	case c.isOut(r, n <= st.until), r.by != nil && c.mustNotHear(r.by, n <= st.until):
		w.complain("delivery", "%s reads message %d of %s, which is not for it", k.name, n, h.room)
	case n <= st.until && b.compressed:
		w.complain("bytes", "%s reads message %d of %s again, compressed", k.name, n, h.room)
	case n <= st.heard && n > st.repeats:
		w.complain("repeats", "%s reads message %d of %s again; the server says %d", k.name, n, h.room, st.repeats)
	default:
		st.heard = max(st.heard, n)
	}
}
