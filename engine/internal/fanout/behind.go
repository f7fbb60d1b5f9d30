package fanout

import (
	"slices"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/frame"
	"github.com/parleyd/parley/protocol/message"
	"github.com/parleyd/parley/rooms"
)

// Members that are behind read the history of their room.
//
// Problem: a member that cannot keep up must cost only itself, and lose nothing in silence; and a member that comes back gets
// what it missed before anything live.
//
// Invariant: for a member that is behind, nothing of that room is queued, and the lag has its next number. It reads when its
// queue is empty, one piece a turn, so that at most one piece waits for it. The room makes it live again in the step that
// reads the newest message (rooms/history.go).
//
// Steps: a member is behind from the delivery that it cannot take, or from its start, if messages are replayed. The first piece
// of a replay is read at once. Every write that empties the queue puts the connection on the loop's list of readers, and a job
// gives each of them a piece.
//
// What lost: a copy of the unread messages for each member (500 slow members of 5,000 cost as much memory as all others), and
// reading in the walk through the dirty connections (a fast reader of a long history would hold the loop).

const (
	pieceBytes = 64 << 10 // of one reading
	behindAt   = 64 << 10 // the backlog that a blocked connection may have and not be behind
	owedMax    = 256      // answers that a connection that is behind may wait for, in one room
)

// lag is a room in which a connection is behind.
//
// Owner: the connection's loop.
type lag struct {
	room     *rooms.Room
	next     uint64
	conflate uint64 // from this number on, messages are conflated
	asked    uint64 // the number that a receipt covers, which was asked for
	given    uint64 // an earlier connection of the session may have got the numbers up to this one
	owed     []owed // by number
	last     bool   // the connection is about to leave, and waits for nothing that is posted for it
}

// owed is an answer that waits for its number.
type owed struct {
	rooms.Position
	frame *turn.Frame
}

// owe notes an answer. One whose letter was on its way comes behind answers to later messages.
func (g *lag) owe(p rooms.Position, f *turn.Frame) {
	at := len(g.owed)
	for at > 0 && g.owed[at-1].Seq > p.Seq {
		at--
	}
	g.owed = slices.Insert(g.owed, at, owed{p, f})
}

// fullAt is the backlog that a blocked member of a room may have; with more it is behind. What has a number never takes a
// connection beyond the bounds of its backlog.
func fullAt(l *Loop, h *rooms.History) int {
	if h.Policy() == rooms.SlowConflate {
		return 0
	}
	return min(behindAt, l.Ground.Limits.Soft)
}

// fallBehind makes a member, which cannot take a message now, read it from the history later. It changes no roster entry but
// the member's stand.
func (l *Loop) fallBehind(c *Conn, n *numbered, at int) {
	n.room.History().SetBehind(l.Index, at)
	l.Receipts.Forget(c)
	l.Count[CountBehind].Add(1)
	l.addLag(c, &lag{room: n.room, next: n.number, conflate: n.number})
}

func (l *Loop) addLag(c *Conn, g *lag) {
	r := c.withRare()
	r.lags = append(r.lags, g)
	c.Extra().Reads = true
	l.Rooms.Behind.Add(1)
}

// lagIn is the lag of a connection in a room; nil if it is not behind there.
func (l *Loop) lagIn(c *Conn, r *rooms.Room) *lag {
	if c.rare() == nil {
		return nil
	}
	for _, g := range c.rare().lags {
		if g.room == r {
			return g
		}
	}
	return nil
}

// Given is the highest number that the session of a connection that is behind in a room may have got there.
func (l *Loop) Given(c *Conn, r *rooms.Room) (number uint64, behind bool) {
	if g := l.lagIn(c, r); g != nil {
		return max(g.given, g.next-1), true
	}
	return 0, false
}

// SetGiven notes that an earlier connection of the session of c may have got the numbers up to one.
func SetGiven(l *Loop, c *Conn, r *rooms.Room, number uint64) {
	if g := l.lagIn(c, r); g != nil {
		g.given = number
	}
}

// settle reads on for c, which is about to leave a room or to begin anew in it, until it has the answers that it is owed there.
func (l *Loop) settle(c *Conn, r *rooms.Room) {
	for g := l.lagIn(c, r); g != nil && len(g.owed) > 0 && c.Phase == turn.PhaseOpen && l.lagIn(c, r) == g; {
		g.last = true
		if l.read(c, g, pieceBytes) > 0 {
			continue
		}
		if !c.Doomed { // it is no member any more; else it is too slow, and ends without the messages in front of its answers
			for _, x := range g.owed {
				c.Queue(x.frame)
			}
		}
		g.owed = nil
	}
	if g := l.lagIn(c, r); g != nil {
		l.dropLag(c, g)
	}
}

func (l *Loop) dropLag(c *Conn, g *lag) {
	x := c.rare()
	if x == nil || !slices.Contains(x.lags, g) {
		return // it has left the room meanwhile
	}
	x.lags = slices.DeleteFunc(x.lags, func(other *lag) bool { return other == g })
	l.Rooms.Behind.Add(-1)
	if len(x.lags) == 0 {
		x.lags = nil
		c.Extra().Reads = false
	}
}

// Start lets a member begin at a place. The caller tells it the answer, and then calls [Loop.Replay]. ok is false in a room
// without history.
func (l *Loop) Start(c *Conn, r *rooms.Room, since rooms.Since) (s message.Start, ok bool) {
	h := r.History()
	if h == nil {
		return s, false
	}
	l.settle(c, r)
	l.Receipts.Forget(c)
	s, ok = h.Start(c.Place(), since, l.Now)
	if ok && s.Seq < s.Until {
		l.addLag(c, &lag{room: r, next: s.Seq + 1, conflate: s.Until + 1})
	}
	if since.Named {
		countRecovery(l, s)
	}
	return s, ok
}

func countRecovery(l *Loop, s message.Start) {
	switch {
	case s.Recovered:
		l.Count[CountRecovered].Add(1)
	case s.MissingFrom > 0:
		l.Count[CountRecoveredGap].Add(1)
		l.Count[CountGapsExpired].Add(1)
	default:
		l.Count[CountRecoveredEpoch].Add(1)
		l.Count[CountGapsEpoch].Add(1)
	}
}

// Replay gives c the beginning of what is to be replayed to it, of all rooms together one piece at most, and at least one
// message.
func (l *Loop) Replay(c *Conn) {
	if c.rare() == nil {
		return
	}
	for left, list := pieceBytes, slices.Clone(c.rare().lags); left > 0 && len(list) > 0; list = list[1:] {
		left -= l.read(c, list[0], left)
	}
}

// Emptied puts a connection that has more to read on the list of readers.
func (l *Loop) Emptied(c *Conn) {
	l.readers = append(l.readers, c)
	if !l.reading {
		l.reading = true
		l.Work(l.readOn)
	}
}

// readOn gives each of the readers a piece.
func (l *Loop) readOn(until int64) (done bool) {
	for len(l.readers) > 0 {
		c := l.readers[0]
		l.readers[0] = nil
		l.readers = l.readers[1:]
		// If its queue is not empty any more, the next write that empties it comes here again.
		if c.Phase == turn.PhaseOpen && c.First == nil && c.rare() != nil {
			for _, g := range slices.Clone(c.rare().lags) {
				if l.read(c, g, pieceBytes) > 0 {
					break
				}
			}
		}
		if l.Ground.Clock() > until {
			break
		}
	}
	if len(l.readers) > 0 {
		return false
	}
	l.readers, l.reading = nil, false
	return true
}

// read gives c a piece of a history, and returns its bytes.
func (l *Loop) read(c *Conn, g *lag, bytesMax int) int {
	p := piece{l: l, c: c, g: g, raw: l.piece[:0], Read: rooms.Read{Next: g.next, BytesMax: bytesMax, ConflateFrom: g.conflate}}
	history := g.room.History()
	if history == nil || !history.Read(c.Place(), &p.Read, l.Now, p.take) {
		l.dropLag(c, g) // it has left the room
		return 0
	}
	p.tell()
	l.Count[CountReplayed].Add(uint64(p.replayed))
	l.Count[CountReplayedBytes].Add(uint64(len(p.raw)))
	g.next = p.Next
	if p.Live {
		l.dropLag(c, g)
		l.Receipts.Forget(c)
	}
	n := len(p.raw)
	if p.tooSlow {
		c.Doom() // the caller may be in the middle of a resume
	}
	turn.QueueRaw(c.Wire(), p.raw, p.messages)
	if cap(p.raw) <= turn.CorkBytesKept {
		l.piece = p.raw[:0]
	}
	return n
}

// piece is a part of a history in the words that one connection gets.
//
// Owner: loop.
type piece struct {
	rooms.Read
	l        *Loop
	c        *Conn
	g        *lag
	raw      []byte
	messages int
	replayed int
	tooSlow  bool // the connection is to end

	// Numbers that wait to be told together.
	from, to uint64 // to is 0 where none wait
	why      string // of a skip; "" for a gap
}

// take is called for each number, or for several that are gone. It returns false where the connection is too slow, and at a
// message of the connection itself while answers are still on their way to it: that to this message may be among them, and the
// others come in front.
func (p *piece) take(from, to uint64, s *rooms.Stored, kind rooms.Kind) (goOn bool) {
	switch {
	case !p.g.last && p.c.Posted.Load() > 0 && (kind == rooms.KindGone || s.By() == rooms.Who(p.c.ID())):
		return false
	case kind == rooms.KindGone && p.g.room.History().Policy() == rooms.SlowDisconnect:
		p.l.Count[CountGapsSlow].Add(1)
		p.tooSlow = true
		return false
	case kind == rooms.KindGone:
		p.takeGap(from, to)
	case len(p.g.owed) > 0 && p.g.owed[0].Seq == to:
		p.pay()
	case kind == rooms.KindConflated:
		p.wait(from, to, message.WhyConflated)
		p.l.Count[CountConflated].Add(1)
	case p.c.isOwn(s.By()):
		p.wait(from, to, message.WhyOwn)
	case slices.ContainsFunc(s.Out(), p.c.isOwn):
		p.wait(from, to, message.WhyExcluded)
	default:
		p.tell()
		p.add(s.Frame())
		p.replayed++
	}
	return true
}

// takeGap is take for numbers that are gone. The answers to the connection's own messages among them come all the same.
func (p *piece) takeGap(from, to uint64) {
	gone := to - from + 1
	for len(p.g.owed) > 0 && p.g.owed[0].Seq <= to {
		at := p.g.owed[0].Seq
		if from < at {
			p.wait(from, at-1, "")
		}
		p.pay()
		gone--
		from = at + 1
	}
	if from <= to {
		p.wait(from, to, "")
	}
	if gone > 0 {
		p.l.Count[CountGapsSlow].Add(1)
	}
}

// pay gives the next answer that is owed.
func (p *piece) pay() {
	p.tell()
	p.add(p.g.owed[0].frame.Plain)
	p.g.owed = p.g.owed[1:]
}

func (p *piece) add(raw []byte) {
	p.raw = append(p.raw, raw...)
	p.messages++
}

// wait notes numbers that are told together with those in front of them, if the reason is the same.
func (p *piece) wait(from, to uint64, why string) {
	if p.to > 0 && p.to+1 == from && p.why == why {
		p.to = to
		return
	}
	p.tell()
	p.from, p.to, p.why = from, to, why
}

// tell tells the numbers that wait.
func (p *piece) tell() {
	if p.to == 0 {
		return
	}
	at, name := rooms.Position{Seq: p.to, Epoch: p.Epoch}, p.g.room.Name()
	text := p.l.Text[:0]
	if p.why == "" {
		text = message.AppendGap(text, name, p.from, at)
	} else {
		text = message.AppendSkip(text, name, message.Skip{From: p.from, Position: at, Why: p.why})
	}
	p.l.Text = text
	p.raw = frame.Append(p.raw, ws.OpText, text)
	p.messages++
	p.to = 0
}

// isOwn reports whether a connection, by [rooms.Who], is c or one of the earlier ones of its session.
func (c *Conn) isOwn(who uint64) bool {
	return who != 0 && (who == rooms.Who(c.ID()) || c.rare() != nil && slices.Contains(c.rare().Earlier, who))
}

// hasEarlier reports whether the session of c has had earlier connections.
func (c *Conn) hasEarlier() bool { return c.rare() != nil && c.rare().Earlier != nil }
