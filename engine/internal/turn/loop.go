package turn

import (
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/parleyd/parley/engine/internal/invariant"
	"github.com/parleyd/parley/protocol/handshake"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/protocol/proxy"
)

// wires are the loop's calls into the outer world. The reactor implements them over gnet and the kernel, the simulation over
// scripts. A struct of functions would cost one more indirection for each write.
type wires interface {
	Write(fd int, p []byte) (int, error)
	Writev(fd int, ps [][]byte) (int, error)
	Send(list []Send)     // carry out writes to several connections, and set their results
	Again(err error) bool // the kernel is full: try when it is writable
	Shutdown(fd int)      // our half of the stream
	Drop(c *Conn)         // close the descriptor; Gone follows, perhaps before Drop returns
	Watch(c *Conn)        // post LetterWritable once the kernel takes bytes for c
	Ring()                // wake the loop; any goroutine
	RingIn(time.Duration) // wake the loop after this time; replaces the earlier request
}

// Loop is one event loop: a goroutine of the reactor, the connections that live on it, and its mailbox. A loop has two kinds
// of turn: Serve takes one connection's input, Drain opens letters. Both end with the writes.
//
// Owner: loop, except Mail, Slab, Load, Together, Count and Ended.
type Loop struct {
	Ground *Ground
	Owner  Owner
	Floor  Floor
	Owes   owes
	Index  uint8
	Wires  wires
	Mail   Mailbox
	Slab   slab
	Wheel  wheel
	Far    wheel // timers of the floors above, minutes to years away; a connection that ends has none
	rand   *rand.ChaCha8

	Now                    int64 // nanoseconds on the server's clock, read once a turn
	nextTick               int64
	stallBegan, stallEnded int64   // the latest; 0: there was none
	cpu                    cpuTime // of the loop's thread, noted at cpuAt
	cpuAt                  int64
	slots                  []uint32

	Letters []Letter // taken from the mailbox; those before Opened are opened
	Opened  int

	Dirty       []*Conn // to be written to, from dirtyAt on
	dirtyAt     int
	GroupMax    int // FlushGroup, or FlushGroupTogether; set by the reactor, within a turn
	walkLetters int // letters opened since the dirty list was last empty
	walkBytes   int
	Doomed      []*Conn
	Drops       []*Conn
	Served      *Conn // the connection whose input this turn takes
	corked      *Conn // the connection whose answers go to the cork

	Jobs      []job
	Late      []*Conn // behindhand connections: a later turn takes the rest of their input
	until     int64   // when the time of this turn is over
	SinceLook int     // messages taken since the last look at the clock
	Paged     bool    // this turn has made a page of members
	goingOn   bool    // this turn takes input that was kept

	cork, gather, shrunk, Text, inflated []byte
	corkRaw                              int // bytes of the cork in front of its first frame
	vector                               [][]byte
	group                                group
	rush                                 rush
	lists                                []*FrameList

	Timers    timers
	timersSet uint64 // timers ever set

	request   handshake.Request
	forwarded proxy.Fields // the proxy's fields of the request

	buffers [][]byte

	// The connections that may hold memory, for the budget: tidied by what looks at them. Some stand there twice.
	Blocked  []*Conn
	Partial  []*Conn      // with a part of a message
	Load     atomic.Int32 // descriptors on this loop or on their way to it
	CheckAt  uint32       // the slot that was checked last
	tally    tally
	Together atomic.Bool // writes to several connections leave together
	Count    Counters
	Ended    [Causes]atomic.Uint64
}

const (
	DrainBudget     = 1500 * time.Microsecond // time for letters and writes before input gets its turn
	DrainBytesMax   = 256 << 10               // frame bytes that are opened before the queues of all members are written
	drainLettersMax = 4096

	// FlushGroup is the number of connections that are written to between two looks at the clock.
	FlushGroup = 16
	// FlushGroupTogether is the same where one system call writes to all of them: the more of them, the less each costs.
	FlushGroupTogether = 256
)

// Init prepares a loop for its first turn. seed is for the generations of connections' ids.
func (l *Loop) Init(g *Ground, index uint8, seed [32]byte) {
	l.Ground, l.Index, l.rand, l.Wheel = g, index, rand.NewChaCha8(seed), NewWheel(g.Tick)
	l.Far = NewWheel(farTick)
	l.GroupMax = FlushGroup
}

// Serve is the turn of one connection's input. chunk is borrowed and always consumed whole.
func (l *Loop) Serve(c *Conn, chunk []byte) {
	l.Now = l.Ground.Clock()
	if c.Phase == PhaseGone {
		return
	}
	l.rush.note(l.Now)
	l.Served, l.corked = c, c
	l.until, l.Paged = l.Now+int64(DrainBudget), false
	l.tally[CountBytesIn] += uint64(len(chunk))
	c.LastActive.Store(l.Now)
	l.converse(c, chunk)
	invariant.Scribble(chunk)
	l.finish()
	l.Served = nil
}

// converse takes the input and writes the answers.
func (l *Loop) converse(c *Conn, chunk []byte) {
	defer l.rescueTurn(c)
	l.input(c, chunk)
	if r := c.Rare; r != nil && len(r.rest) > longInput && l.answersFit(c) {
		l.until = l.Now + int64(longBudget)
		l.takeKept(c)
	}
	l.uncork(c)
}

// Drain is the turn of letters and of the clock. The doorbell asks for it. Work that exceeds the budget goes on after the
// waiting input.
func (l *Loop) Drain() {
	l.Mail.Rung.Store(false) // this drain answers the ring
	l.Now = l.Ground.Clock()
	until := l.Now + int64(DrainBudget)
	l.until = until
	if l.Now >= l.nextTick {
		l.catchUp(l.nextTick)
		l.nextTick = l.Now + int64(l.Ground.Tick)
		l.onTick()
	}
	l.runTimers(l.Now + int64(DrainBudget/2))
	l.goOnBehind(l.Now + int64(DrainBudget/2))
	l.workOn(l.Now + int64(DrainBudget/2))
	l.beforeWrites()
	for more := true; more; {
		more = l.openLetters()
		// Letters that queue no frame take time, too.
		if !l.flushDirty(until) || more && l.Ground.Clock() > until {
			l.Wake()
			break
		}
	}
	l.finish()
	l.rush.released(l)
}

// openLetters opens some letters and reports whether there may be more. During a walk through the dirty connections that
// takes several turns, new letters are opened in between: a connection late in the walk gets their frames in the same write.
// One walk carries a bounded number of letters, or the queues would grow faster than they are written.
func (l *Loop) openLetters() bool {
	if l.walkLetters >= drainLettersMax || l.walkBytes >= DrainBytesMax {
		return true
	}
	if l.Opened == len(l.Letters) {
		clear(l.Letters)
		l.Letters, l.Opened = l.Mail.Take(l.Letters), 0
		if cap(l.Letters) > drainLettersMax && len(l.Letters) < drainLettersMax/4 {
			l.Letters = append(make([]Letter, 0, drainLettersMax), l.Letters...)
		}
		l.beforeWrites()
	}
	before := l.Opened
	for l.Opened < len(l.Letters) && l.walkLetters < drainLettersMax && l.walkBytes < DrainBytesMax {
		x := l.Letters[l.Opened:]
		n, bytes := l.open(x), 0
		for i := range x[:n] {
			if f := x[i].Frame; f != nil {
				bytes += len(f.Plain)
			}
		}
		l.walkBytes += bytes
		l.Opened += n
		l.walkLetters += n
	}
	l.endDoomed()
	return l.Opened > before
}

// open carries out the first letters and returns their number: one, or as many as the floor delivers at once.
func (l *Loop) open(letters []Letter) int {
	switch x := &letters[0]; x.Kind {
	case LetterDirect:
		l.Mail.Cancel(1, len(x.Frame.Plain))
		x.Conn.Posted.Add(-1)
		x.Conn.Queue(x.Frame)
	case LetterWritable:
		l.writable(x.Conn)
	case letterCall:
		x.call()
	default:
		return l.Floor.Deliver(letters, min(gatherBytesMax, DrainBytesMax-l.walkBytes))
	}
	return 1
}

// beforeWrites lets the floor queue its frames before the connections are written to.
func (l *Loop) beforeWrites() {
	if l.Owes.Writes {
		l.Owes.Writes = false
		l.Floor.BeforeWrites()
	}
}

// flushDirty writes to the dirty connections until the budget is spent, and reports whether it reached the end. It looks at
// a group of connections before it writes to the first: with thousands of members each look is a cache miss, and the
// processor waits for the misses of a group together (docs/performance.md). The writes of a group may leave in one system call.
func (l *Loop) flushDirty(until int64) bool {
	for l.dirtyAt < len(l.Dirty) {
		to := &l.group
		to.conns = to.conns[:0]
		for len(to.conns) < l.GroupMax && l.dirtyAt < len(l.Dirty) {
			c := l.Dirty[l.dirtyAt]
			l.dirtyAt++
			c.Flags &^= FlagDirty
			if c.Phase != PhaseGone {
				to.conns = append(to.conns, c)
			}
		}
		to.flush(l)
		if l.Ground.Clock() > until {
			break
		}
	}
	if l.dirtyAt < len(l.Dirty) {
		return false
	}
	clear(l.Dirty)
	l.Dirty, l.dirtyAt = l.Dirty[:0], 0
	l.walkLetters, l.walkBytes = 0, 0
	return true
}

// endDoomed ends the connections that deliver and flush could only mark.
func (l *Loop) endDoomed() {
	for len(l.Doomed) > 0 {
		c := l.Doomed[len(l.Doomed)-1]
		l.Doomed = l.Doomed[:len(l.Doomed)-1]
		c.Doomed = false
		c.EndBy(CauseSlow)
	}
}

// finish ends a turn of either kind.
func (l *Loop) finish() {
	l.endDoomed()
	for len(l.Drops) > 0 {
		c := l.Drops[len(l.Drops)-1]
		l.Drops = l.Drops[:len(l.Drops)-1]
		switch {
		case c.Phase == PhaseGone:
		case c.Fd < 0:
			c.release()
		default:
			l.Wires.Drop(c)
		}
	}
	if l.Owes.Writes || l.dirtyAt < len(l.Dirty) {
		l.Wake()
	}
	if l.Owes.Flush {
		l.Owes.Flush = false
		l.Floor.AfterTurn()
	}
	if cap(l.Text) > CorkBytesKept {
		l.Text = nil
	}
	if cap(l.shrunk) > CorkBytesKept {
		l.shrunk = nil
	}
	l.Count.publish(&l.tally)
	if invariant.On {
		l.Check()
	}
}

// Wake makes sure that a drain follows.
func (l *Loop) Wake() {
	if !l.Mail.Rung.Swap(true) {
		l.Wires.Ring()
	}
}

// Post puts a letter into the mailbox. Any goroutine.
func (l *Loop) Post(x Letter) {
	if l.Mail.Post(x) {
		l.Wires.Ring()
	}
}

// PostCall runs f on the loop, after the letters that were posted before. It is never refused. Any goroutine.
func (l *Loop) PostCall(f func()) { l.Post(Letter{Kind: letterCall, call: f}) }

// Post queues a frame for c, behind all frames that were posted before. It reports false if the mailbox is full, whose bounds
// are higher for a foreign frame, one of another worker. Any goroutine.
func (c *Conn) Post(f *Frame, foreign bool) bool {
	mail, n := &c.Loop.Mail, len(f.Plain)
	if foreign && !mail.ReserveForeign(n) || !foreign && !mail.Reserve(n) {
		return false
	}
	postFrame(c, f)
	return true
}

// postFrame posts a frame for which the mailbox has a place. Any goroutine.
func postFrame(c *Conn, f *Frame) {
	c.Posted.Add(1)
	c.Loop.Post(Letter{Kind: LetterDirect, Conn: c, Frame: f})
}

// onTick runs the timers of the wheel that are due, and measures a stall.
func (l *Loop) onTick() {
	l.slots = l.Wheel.Due(l.Now, l.slots[:0])
	for _, slot := range l.slots {
		if c := l.Slab.At(slot); c != nil {
			l.timeout(c)
		}
	}
	l.Floor.Tick()
}

// farTick makes the visits to far timers rare: one in 1,024 s.
const farTick = time.Second

// ConnAt finds the connection at p; nil if it no longer exists.
func (l *Loop) ConnAt(p ident.Place) *Conn {
	if c := l.Slab.At(p.Slot); c != nil && c.Gen == p.Gen {
		return c
	}
	return nil
}

// Rescue is deferred around work for a connection outside its own turn.
func (l *Loop) Rescue(c *Conn) {
	if v := recover(); v != nil {
		l.giveUp(c, v, false)
	}
}

// rescueTurn is deferred around the turn that takes a connection's input, with its answers in the cork. Once the cork has
// been handed to the write, an answer may have left in part.
func (l *Loop) rescueTurn(c *Conn) {
	if v := recover(); v != nil {
		l.giveUp(c, v, l.corked != c)
		l.uncork(c)
	}
}

// giveUp ends a connection whose work has panicked. If the panic came while its answers were written, one may have left in
// part: then no close frame can follow, nor on a connection that is closing already. A second panic is not caught.
func (l *Loop) giveUp(c *Conn, v any, writing bool) {
	l.Ground.Survive("the turn of a connection", c, v)
	l.goingOn = false
	if c.Rare != nil {
		c.Rare.rest = nil // the panic may have come from it, and would come again
	}
	if !writing && c.Phase < PhaseClosing {
		c.EndBy(CausePanic)
		c.Flags |= flagNoHandshake // its input is discarded from now on
		return
	}
	if c.Phase < PhaseClosing {
		c.detach(CausePanic)
		c.Phase = PhaseClosing
	}
	if writing {
		l.cork = l.cork[:0]
	}
	c.drop()
}
