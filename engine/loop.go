package engine

import (
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/parleyd/parley/engine/internal/invariant"
	"github.com/parleyd/parley/protocol/handshake"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/protocol/proxy"
)

// wires is what a loop knows of the outer world: a struct of functions would cost an indirection more
// per write. The reactor implements it over gnet and the kernel, the simulation over scripts.
type wires interface {
	write(fd int, p []byte) (int, error)
	writev(fd int, ps [][]byte) (int, error)
	again(err error) bool // the kernel is full: try when it is writable
	shutdown(fd int)      // our half of the stream
	drop(c *turnConn)     // close the descriptor; gone follows, perhaps before drop returns
	watch(c *turnConn)    // post letterWritable once the kernel takes bytes for c
	ring()                // wake the loop; any goroutine
	ringIn(time.Duration) // wake the loop after this time, instead of what was asked for before
}

// turnLoop is one event loop: a goroutine of the reactor, the connections that live on it, and its mailbox.
// Everything that happens on it happens in one of two kinds of turn: serve takes one connection's input,
// drain opens letters. Both end with the writes.
//
// Owner: loop, except mail, slab.at, slab.each, count and ended.
type turnLoop struct {
	ground *ground
	owner  owner
	floor  floor
	owes   owes
	index  uint8
	wires  wires
	mail   mailbox
	slab   slab
	wheel  wheel
	rand   *rand.ChaCha8

	now      int64 // nanoseconds on the server's clock, read once a turn
	nextTick int64
	cpu      cpuTime // of the loop's thread, noted at cpuAt
	cpuAt    int64
	slots    []uint32

	letters []letter // taken, and opened up to opened
	opened  int

	dirty       []*turnConn // to be written to, from dirtyAt on
	dirtyAt     int
	walkLetters int // opened since the last time that nobody was dirty
	walkBytes   int
	doomed      []*turnConn
	drops       []*turnConn
	served      *turnConn // whose input this turn takes
	corked      *turnConn // whose answers go to the cork

	jobs      []job
	late      []*turnConn // whose input goes on in a later turn
	until     int64       // when the time of this turn is over
	sinceLook int         // messages taken since the last look at the clock
	paged     bool        // a page of members was made
	goingOn   bool        // the input that is taken was kept

	cork, gather, shrunk, text, inflated []byte
	corkRaw                              int // bytes of the cork in front of its first frame
	vector                               [][]byte
	lists                                []*frameList

	timers    timers
	timersSet uint64 // ever

	request handshake.Request
	told    proxy.Fields // of that request

	buffers [][]byte
	load    atomic.Int32 // descriptors, those on their way too
	checkAt uint32       // the slot that was checked last
	tally   tally
	count   counters
	ended   [causes]atomic.Uint64
}

const (
	drainBudget     = 1500 * time.Microsecond // of letters and writes before input gets its turn
	drainBytesMax   = 256 << 10               // frame bytes opened before everybody has them
	drainLettersMax = 4096
	flushGroup      = 16 // connections written to between two looks at the clock
)

func (l *turnLoop) init(g *ground, index uint8, seed [32]byte) {
	l.ground, l.index, l.rand, l.wheel = g, index, rand.NewChaCha8(seed), newWheel(g.tick)
}

// serve is the turn of one connection's input. chunk is borrowed and always consumed whole.
func (l *turnLoop) serve(c *turnConn, chunk []byte) {
	l.now = l.ground.clock()
	if c.phase == phaseGone {
		return
	}
	l.served, l.corked = c, c
	l.until, l.paged = l.now+int64(drainBudget), false
	l.tally[countBytesIn] += uint64(len(chunk))
	c.lastActive.Store(l.now)
	l.converse(c, chunk)
	invariant.Scribble(chunk)
	l.finish()
	l.served = nil
}

// converse takes the input and writes the answers.
func (l *turnLoop) converse(c *turnConn, chunk []byte) {
	defer l.rescueTurn(c)
	l.input(c, chunk)
	if r := c.rare; r != nil && len(r.rest) > longInput && l.hasRoom(c) {
		l.until = l.now + int64(longBudget)
		l.takeKept(c)
	}
	l.uncork(c)
}

// drain is the turn of letters and of the clock. It is asked for by the doorbell. What it does not
// finish within its budget it goes on with after the input that waits.
func (l *turnLoop) drain() {
	l.mail.rung.Store(false) // this is what it was rung for
	l.now = l.ground.clock()
	until := l.now + int64(drainBudget)
	l.until = until
	if l.now >= l.nextTick {
		l.catchUp(l.nextTick)
		l.nextTick = l.now + int64(l.ground.tick)
		l.onTick()
	}
	l.runTimers(l.now + int64(drainBudget/2))
	l.goOnBehind(l.now + int64(drainBudget/2))
	l.workOn(l.now + int64(drainBudget/2))
	l.beforeWrites()
	for more := true; more; {
		more = l.openLetters()
		// Letters that give nobody anything take time, too.
		if !l.flushDirty(until) || more && l.ground.clock() > until {
			l.wake()
			break
		}
	}
	l.finish()
}

// openLetters opens some letters and reports whether there may be more. A walk through the dirty connections that
// takes several turns lets new letters in between, so that those who come late in it get them in the same write: as
// many as one walk may carry, and no more, or the queues would grow faster than they are written.
func (l *turnLoop) openLetters() bool {
	if l.walkLetters >= drainLettersMax || l.walkBytes >= drainBytesMax {
		return true
	}
	if l.opened == len(l.letters) {
		clear(l.letters)
		l.letters, l.opened = l.mail.take(l.letters), 0
		if cap(l.letters) > drainLettersMax && len(l.letters) < drainLettersMax/4 {
			l.letters = append(make([]letter, 0, drainLettersMax), l.letters...)
		}
		l.beforeWrites()
	}
	before := l.opened
	for l.opened < len(l.letters) && l.walkLetters < drainLettersMax && l.walkBytes < drainBytesMax {
		x := l.letters[l.opened:]
		n, bytes := l.open(x), 0
		for i := range x[:n] {
			if f := x[i].frame; f != nil {
				bytes += len(f.plain)
			}
		}
		l.walkBytes += bytes
		l.opened += n
		l.walkLetters += n
	}
	l.endDoomed()
	return l.opened > before
}

// open does what the first letters say, and returns how many those are: one, or those that the floor takes at once.
func (l *turnLoop) open(letters []letter) int {
	switch x := &letters[0]; x.kind {
	case letterDirect:
		l.mail.cancel(1, len(x.frame.plain))
		x.conn.posted.Add(-1)
		l.queue(x.conn, x.frame)
	case letterWritable:
		l.writable(x.conn)
	case letterCall:
		x.call()
	default:
		return l.floor.deliver(letters, min(gatherBytesMax, drainBytesMax-l.walkBytes))
	}
	return 1
}

// beforeWrites lets the floor say what it has to say before the connections are written to.
func (l *turnLoop) beforeWrites() {
	if l.owes.writes {
		l.owes.writes = false
		l.floor.beforeWrites()
	}
}

// flushDirty writes to the dirty connections until the budget is spent, and reports whether it got to
// the end. It looks at a group of them before it writes to the first: with thousands of members each look is a cache
// miss, and those of a group are waited for together (docs/performance.md).
func (l *turnLoop) flushDirty(until int64) bool {
	var group [flushGroup]*turnConn
	for l.dirtyAt < len(l.dirty) {
		n := 0
		for n < len(group) && l.dirtyAt < len(l.dirty) {
			c := l.dirty[l.dirtyAt]
			l.dirtyAt++
			c.flags &^= flagDirty
			if c.phase != phaseGone {
				group[n] = c
				n++
			}
		}
		for _, c := range group[:n] {
			l.flush(c, nil)
		}
		if l.ground.clock() > until {
			break
		}
	}
	if l.dirtyAt < len(l.dirty) {
		return false
	}
	clear(l.dirty)
	l.dirty, l.dirtyAt = l.dirty[:0], 0
	l.walkLetters, l.walkBytes = 0, 0
	return true
}

// endDoomed ends those that deliver and flush could only mark.
func (l *turnLoop) endDoomed() {
	for len(l.doomed) > 0 {
		c := l.doomed[len(l.doomed)-1]
		l.doomed = l.doomed[:len(l.doomed)-1]
		c.doomed = false
		l.endBy(c, CauseSlow)
	}
}

// finish ends a turn of either kind.
func (l *turnLoop) finish() {
	l.endDoomed()
	for len(l.drops) > 0 {
		c := l.drops[len(l.drops)-1]
		l.drops = l.drops[:len(l.drops)-1]
		switch {
		case c.phase == phaseGone:
		case c.fd < 0:
			l.release(c)
		default:
			l.wires.drop(c)
		}
	}
	if l.owes.writes || l.dirtyAt < len(l.dirty) {
		l.wake()
	}
	if l.owes.flush {
		l.owes.flush = false
		l.floor.afterTurn()
	}
	if cap(l.text) > corkBytesKept {
		l.text = nil
	}
	if cap(l.shrunk) > corkBytesKept {
		l.shrunk = nil
	}
	l.count.publish(&l.tally)
	if invariant.On {
		l.check()
	}
}

// wake makes sure that a drain follows.
func (l *turnLoop) wake() {
	if !l.mail.rung.Swap(true) {
		l.wires.ring()
	}
}

// post puts a letter into the mailbox. Any goroutine.
func (l *turnLoop) post(x letter) {
	if l.mail.post(x) {
		l.wires.ring()
	}
}

// postCall runs f on the loop, after what was posted before. Never refused. Any goroutine.
func (l *turnLoop) postCall(f func()) { l.post(letter{kind: letterCall, call: f}) }

// postDirect queues a frame for c, behind everything that was posted before. It reports false where the mailbox is full.
// Any goroutine.
func (l *turnLoop) postDirect(c *turnConn, f *outFrame) bool {
	if !l.mail.reserve(len(f.plain)) {
		return false
	}
	c.posted.Add(1)
	l.post(letter{kind: letterDirect, conn: c, frame: f})
	return true
}

// onTick looks at the timers that are due, and at the time.
func (l *turnLoop) onTick() {
	l.slots = l.wheel.due(l.now, l.slots[:0])
	for _, slot := range l.slots {
		if c := l.slab.at(slot); c != nil {
			l.timeout(c)
		}
	}
	l.floor.tick()
}

// connAt finds the connection at p, nil if it is no longer there.
func (l *turnLoop) connAt(p ident.Place) *turnConn {
	if c := l.slab.at(p.Slot); c != nil && c.gen == p.Gen {
		return c
	}
	return nil
}
