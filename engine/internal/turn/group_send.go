package turn

// Writes to several connections at once. The kernel takes them one by one or, where the reactor has a ring, all in one system
// call.

// Send is a write to one connection.
//
// Owner: loop.
type Send struct {
	Fd    int
	Bytes []byte // borrowed
	N     int    // bytes that the kernel took
	Err   error

	conn *Conn
}

// group are the connections that are written to together.
//
// Owner: loop.
type group struct {
	conns []*Conn
	sends []Send
}

// gatherGroupMax is the size of the loop's gather, in bytes, beyond which a group is written in parts.
const gatherGroupMax = 256 << 10

// flush is the flush of all connections of the group.
func (g *group) flush(l *Loop) {
	l.gather = l.gather[:0]
	for _, c := range g.conns {
		if c.First == nil || c.Blocked || c.Has(FlagMute) || c.Backlog > gatherBytesMax && c.More != nil {
			g.send(l) // a flush gathers, too, over what is gathered here
			l.flush(c, nil)
			continue
		}
		if len(l.gather) > gatherGroupMax {
			g.send(l)
		}
		g.sends = append(g.sends, Send{Fd: int(c.Fd), Bytes: gathered(l, c, nil), conn: c})
	}
	g.send(l)
}

// send carries out the gathered writes. Their results are noted on all connections before the first of them tells its owner,
// which may queue frames for the others.
func (g *group) send(l *Loop) {
	if len(g.sends) == 0 {
		return
	}
	l.Wires.Send(g.sends)
	l.tally[CountWrites] += uint64(len(g.sends))
	for i := range g.sends {
		s := &g.sends[i]
		if s.Err != nil && !l.Wires.Again(s.Err) {
			continue
		}
		l.advance(s.conn, nil, s.N)
		if s.N < len(s.Bytes) {
			block(s.conn)
		}
	}
	for i := range g.sends {
		switch s := &g.sends[i]; {
		case s.conn.Phase == PhaseGone:
		case s.Err != nil && !l.Wires.Again(s.Err):
			s.conn.Lose()
		default:
			flushed(l, s.conn)
		}
	}
	clear(g.sends) // the frames must not outlive their delivery
	g.sends, l.gather = g.sends[:0], l.gather[:0]
}

// Answers of several turns may leave together, too. Where input of many connections is there at once, the answers to each wait for
// the drain that the first of them asks for. The doorbell is rung then: the reactor answers it behind the input that was there
// before, so that no answer waits for input that comes later.
//
// Where input comes now and then, nothing waits: an answer is held only in a rush, which is many turns in a row without a pause
// between them, and only while that pays.
//
// Owner: loop.
type rush struct {
	began int64 // when the last turn began; or when the last drain ended
	turns int   // in a row, without a pause; below 0: to be waited for
	held  int   // answers that wait
	lent  []*Frame
}

const (
	rushPause    = 12_000 // nanoseconds from the beginning of a turn to that of the next, as long as it may take in a rush
	rushTurns    = 16     // turns from which on it is a rush
	heldLeast    = 8      // answers that must leave together, or holding them costs more than it saves
	heldAgain    = -256   // turns until holding is tried again
	heldMost     = 4096
	heldBytesMax = 2 << 10 // of the answers of one turn
	lentKept     = 512
)

// note notes the beginning of a turn of input.
func (r *rush) note(now int64) {
	if now-r.began < rushPause || r.turns < 0 {
		r.turns++
	} else {
		r.turns = 0
	}
	r.began = now
}

// released notes the end of a drain, which has written what was held.
func (r *rush) released(l *Loop) {
	if l.GroupMax < FlushGroupTogether {
		return
	}
	if r.held > 0 && r.held < heldLeast {
		r.turns = heldAgain
	}
	r.held, r.began = 0, l.Ground.Clock()
}

// holds reports whether the answers in the cork, which are for c, wait for those of other turns. They do not wait behind a walk through
// the members of a room.
func (r *rush) holds(l *Loop, c *Conn) bool {
	return r.turns >= rushTurns && l.GroupMax >= FlushGroupTogether && l.dirtyAt == 0 && l.walkLetters == 0 && r.held < heldMost &&
		len(l.cork) <= heldBytesMax && l.corkRaw == 0 && c.Phase == PhaseOpen && !c.Blocked && !c.Has(FlagMute)
}

// hold queues the cork.
func (r *rush) hold(l *Loop, c *Conn) {
	var f *Frame
	if n := len(r.lent); n > 0 {
		f = r.lent[n-1]
		r.lent = r.lent[:n-1]
	} else {
		f = &Frame{lent: true}
	}
	f.Plain = append(f.Plain[:0], l.cork...)
	f.Payload = int32(len(f.Plain))
	l.cork = l.cork[:0]
	r.held++
	c.push(f)
}

// takeBack takes a lent frame back.
func (r *rush) takeBack(f *Frame) {
	if len(r.lent) < lentKept {
		r.lent = append(r.lent, f)
	}
}
