package fanout

import (
	"math"
	"slices"

	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/rooms"
)

// Deliver takes the letters with frames for rooms and for chosen connections.
func (l *Loop) Deliver(letters []turn.Letter, bytesMax int) int {
	n, x := runLength(letters, bytesMax), &letters[0]
	switch {
	case n > 1:
		l.openRun(letters[:n])
	case x.Kind == letterPublish:
		l.Mail.Cancel(1, len(x.Frame.Plain))
		if to, ok := x.To.(*numbered); ok {
			l.fanOutNumbered(x, to)
			break
		}
		l.fanOut(x)
	default:
		l.Mail.Cancel(1, len(x.Frame.Plain))
		l.deliverSpread(x)
	}
	return n
}

// fanOut fans a published frame out to the room's members on this loop. It neither writes nor ends a connection: the roster
// must not change during the walk.
func (l *Loop) fanOut(x *turn.Letter) {
	room, plain := x.To.(*rooms.Room)
	var except []ident.Place
	if !plain {
		many := x.To.(*spread)
		room, except = many.room, many.except
	}
	roster := room.Roster(l.Index)
	for i := range roster {
		m := &roster[i]
		if x.Seq <= m.JoinSeq || isExcepted(x, m) {
			continue
		}
		c := l.Slab.At(m.Slot)
		if except != nil && slices.Contains(except, c.Place()) {
			continue
		}
		c.Queue(x.Frame)
	}
}

// runLength is the number of first letters that are consecutive messages to one room, with at most bytesMax bytes together.
func runLength(letters []turn.Letter, bytesMax int) int {
	n, bytes := 0, 0
	first := roomOf(&letters[0])
	for first != nil && n < len(letters) && n < runMax {
		x := &letters[n]
		if roomOf(x) != first || bytes+len(x.Frame.Plain) > bytesMax {
			break
		}
		bytes += len(x.Frame.Plain)
		n++
	}
	return max(n, 1)
}

// roomOf is the room of a letter that can be delivered in a run; nil if it cannot.
func roomOf(x *turn.Letter) *rooms.Room {
	switch to := x.To.(type) {
	case *rooms.Room:
		return to
	case *numbered:
		if to.except == nil && !to.unplaced && to.room.History() != nil && to.generation == to.room.History().Generation() {
			return to.room
		}
	}
	return nil
}

// runMax bounds the letters of a run: each member is compared with the publishers of all of them.
const runMax = 64

// openRun delivers several messages to one room at once: it walks through the members once instead of once a message, and
// each member gets one joined frame. Members that must not get all of them get theirs one by one: the publishers, members
// that joined in between, and members that are behind.
func (l *Loop) openRun(letters []turn.Letter) {
	r := run{room: roomOf(&letters[0]), letters: letters, seq: math.MaxUint64, number: math.MaxUint64}
	frames := make([]*turn.Frame, len(letters))
	for i := range letters {
		x := &letters[i]
		frames[i] = x.Frame
		l.Mail.Cancel(1, len(x.Frame.Plain))
		if to, ok := x.To.(*numbered); ok {
			r.number, r.numbers = min(r.number, to.number), true
			r.ordered = r.ordered || to.by != 0 || to.outs != nil
			r.room.History().Given(l.Index, to.number)
		} else {
			r.seq = min(r.seq, x.Seq) // a notice has the number of its join or leave
		}
	}
	var stands []rooms.Stand
	if r.numbers {
		stands, r.full = r.room.History().Stands(l.Index), fullAt(l, r.room.History())
	}
	all := turn.Join(frames)
	roster := r.room.Roster(l.Index)
	for i := range roster {
		m := &roster[i]
		c := l.Slab.At(m.Slot)
		if r.seq > m.JoinSeq && (!r.numbers || r.number > stands[i].From && !c.Blocked) && !excepts(letters, m) && !c.OwnContext() &&
			!(r.ordered && ConnOf(c).hasEarlier()) {
			c.Queue(all)
			continue
		}
		l.deliverRun(&r, m, i)
	}
	for i := range letters {
		if to, ok := letters[i].To.(*numbered); ok {
			l.answerPublisher(&letters[i], to)
		}
	}
}

// run is what openRun delivers.
//
// Owner: loop.
type run struct {
	room    *rooms.Room
	letters []turn.Letter
	seq     uint64 // the least of the letters without a number of their own
	number  uint64 // the least of the others
	numbers bool   // there are others
	ordered bool   // some of them came from a sequencer, and are not for their publishers or others
	full    int    // the backlog that a blocked member may have
}

// deliverRun gives a member the messages of a run one by one.
func (l *Loop) deliverRun(r *run, m *rooms.Member, at int) {
	for i := range r.letters {
		x := &r.letters[i]
		if to, ok := x.To.(*numbered); ok {
			if to.number > r.room.History().Stands(l.Index)[at].From {
				l.deliverNumbered(x, m, at, r.full)
			}
		} else if x.Seq > m.JoinSeq && !isExcepted(x, m) {
			l.Slab.At(m.Slot).Queue(x.Frame)
		}
	}
}

// isExcepted reports whether m is the letter's exception.
func isExcepted(x *turn.Letter, m *rooms.Member) bool {
	return m.Slot == x.Except.Slot && m.Gen == x.Except.Gen
}

// excepts reports whether m is the exception of one of the letters.
func excepts(letters []turn.Letter, m *rooms.Member) bool {
	for i := range letters {
		if isExcepted(&letters[i], m) {
			return true
		}
	}
	return false
}

// deliverSpread fans a frame out to the receivers of a spread, once to each.
func (l *Loop) deliverSpread(x *turn.Letter) {
	s := x.To.(*spread)
	switch {
	case s.conns != nil:
		for _, c := range s.conns {
			c.Queue(x.Frame)
		}
	case s.rooms != nil:
		l.stamp++
		if n := int(l.Slab.Size); len(l.stamps) < n {
			l.stamps = append(l.stamps, make([]uint32, n-len(l.stamps))...)
		}
		for i, r := range s.rooms {
			for _, m := range r.Roster(l.Index) {
				if l.stamps[m.Slot] != l.stamp && s.seqs[i] > m.JoinSeq {
					l.stamps[m.Slot] = l.stamp
					l.deliverUnless(l.Slab.At(m.Slot), x)
				}
			}
		}
	default:
		l.Slab.Each(func(c *turn.Conn) bool {
			l.deliverUnless(c, x)
			return true
		})
	}
}

func (l *Loop) deliverUnless(c *turn.Conn, x *turn.Letter) {
	if ConnOf(c).Admitted.Load() && c.Phase == turn.PhaseOpen && !slices.Contains(x.To.(*spread).except, c.Place()) {
		c.Queue(x.Frame)
	}
}
