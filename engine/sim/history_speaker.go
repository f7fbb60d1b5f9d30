package sim

import (
	"slices"
	"strconv"
	"time"

	"github.com/parleyd/parley/engine"
)

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
	until uint64 // of the replay
	heard uint64 // the highest number of a message that the client, or an earlier one of its session, has had
	// repeats is what the server says of the repeated messages; read only where the client named no position.
	repeats uint64
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
		if n >= h.oldest() {
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
