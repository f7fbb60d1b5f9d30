package engine

import (
	"github.com/gobwas/ws"

	"github.com/parleyd/parley/protocol/deflate"
	"github.com/parleyd/parley/protocol/frame"
)

// The way out. Nothing is written in the middle of a turn: frames are queued, the connection becomes
// dirty, and one write at the end takes all of them along. Answers to the connection whose input is
// being worked through are gathered in the loop's cork instead, which costs no frame of their own.
//
// The queue is empty most of the time, so an idle connection holds none: the first frame is a pointer
// in the connection, the rest a list that the loop lends.

// frameList is the queue behind a connection's first frame.
type frameList struct {
	frames []*outFrame
	head   int
}

const (
	welcomeMax     = 64       // frames that a connect handler may send
	gatherBytesMax = 64 << 10 // below this copying into one buffer beats a vector of slices
	vectorMax      = 64
)

// queue references f for c. Only live connections are given anything.
func (l *turnLoop) queue(c *turnConn, f *outFrame) {
	if c.phase != phaseOpen {
		if c.phase == phaseVerdict && len(c.rare.welcome) < welcomeMax {
			c.rare.welcome = append(c.rare.welcome, f)
		}
		return
	}
	l.tally[countSent] += uint64(1 + f.further)
	if c.has(flagDiverted) {
		l.owner.diverted(c, f)
		return
	}
	l.push(c, f)
	if c.blocked {
		l.judge(c)
	}
}

// push appends f to the queue whatever the phase. The caller judges the backlog.
func (l *turnLoop) push(c *turnConn, f *outFrame) {
	if c.rare != nil && c.rare.shrinker != nil {
		f = f.taken(c.rare.shrinker)
	}
	c.backlog += len(f.variant(c.bits))
	switch {
	case c.first == nil:
		c.first = f
	default:
		if c.more == nil {
			c.more = l.lendList()
		}
		c.more.frames = append(c.more.frames, f)
	}
	if !c.blocked {
		l.soil(c)
	}
}

// soil puts c on the list of those that are written to at the end of the turn.
func (l *turnLoop) soil(c *turnConn) {
	if !c.has(flagDirty) {
		c.flags |= flagDirty
		l.dirty = append(l.dirty, c)
	}
}

// answer gives c a text message of its own, behind everything that it was given before.
func (l *turnLoop) answer(c *turnConn, payload []byte) { l.answerAs(c, ws.OpText, payload) }

func (l *turnLoop) answerAs(c *turnConn, op ws.OpCode, payload []byte) {
	if c.phase != phaseOpen {
		return
	}
	if c.posted.Load() > 0 {
		f := newOutFrame(op, payload)
		if !l.mail.force(len(f.plain)) {
			l.endBy(c, CauseOverloaded)
			return
		}
		c.posted.Add(1)
		l.post(letter{kind: letterDirect, conn: c, frame: f})
		return
	}
	l.tally[countSent]++
	l.emit(c, op, payload)
}

// answerNow gives c a text message without regard to what is posted for it.
func (l *turnLoop) answerNow(c *turnConn, payload []byte) {
	if c.phase != phaseOpen {
		return
	}
	l.tally[countSent]++
	l.emit(c, ws.OpText, payload)
}

// emit puts one frame of any kind into the cork, or into the queue when c is not the connection whose
// input is being worked through. payload is borrowed.
func (l *turnLoop) emit(c *turnConn, op ws.OpCode, payload []byte) {
	switch {
	case l.corked != c:
		l.push(c, newOutFrame(op, payload))
		if c.blocked {
			l.judge(c)
		}
	case c.bits != 0 && len(payload) >= deflateBytesMin && !op.IsControl():
		l.shrunk = l.shrink(c, l.shrunk[:0], payload)
		l.cork = appendCompressed(l.cork, op, l.shrunk)
	default:
		l.cork = frame.Append(l.cork, op, payload)
	}
}

func (l *turnLoop) shrink(c *turnConn, dst, payload []byte) []byte {
	if c.rare != nil && c.rare.shrinker != nil {
		return c.rare.shrinker.Shrink(dst, payload)
	}
	return deflate.Shrink(dst, payload, c.bits)
}

// uncork ends the input of the corked connection: what was gathered leaves in one write, behind what
// was queued before.
func (l *turnLoop) uncork(c *turnConn) {
	l.corked = nil
	if len(l.cork) == 0 || c.phase == phaseGone {
		l.cork, l.corkRaw = l.cork[:0], 0
		return
	}
	l.flush(c, l.cork)
	l.cork, l.corkRaw = l.cork[:0], 0
	if cap(l.cork) > corkBytesKept {
		l.cork = nil
	}
}

const corkBytesKept = 1 << 20

// flush writes what is queued for c and then tail, in as few system calls as it takes. What the kernel
// refuses stays queued until it takes bytes again. tail is borrowed.
func (l *turnLoop) flush(c *turnConn, tail []byte) {
	if c.has(flagMute) {
		l.mute(c)
		return
	}
	whole := tail
	for !c.blocked && (c.first != nil || len(tail) > 0) {
		n, want, err := l.write(c, tail)
		if err != nil && !l.wires.again(err) {
			l.lose(c)
			return
		}
		tail = l.advance(c, tail, n)
		if n < want {
			c.blocked = true
			l.tally[countBlocked]++
		}
	}
	if len(tail) > 0 {
		l.keepTail(c, whole, len(whole)-len(tail))
	}
	if c.blocked {
		l.judge(c)
		l.roomMade(c)
		l.wires.watch(c)
		return
	}
	if r := c.rare; r != nil {
		r.softSince = 0
		l.roomMade(c)
	}
	if c.phase == phaseClosing || c.phase == phaseRefused {
		l.closeFlushed(c)
	}
}

// keepTail queues what the kernel did not take of tail, which is the cork. Where it took a part of a frame, the byte
// before the rest is kept too, as taken: whoever drops the queue must see that a frame has begun to leave. What is
// behind that frame can be dropped.
func (l *turnLoop) keepTail(c *turnConn, tail []byte, written int) {
	end := 0
	if written > 0 {
		end = frameEnd(tail, l.corkRaw, written)
	}
	if end > written {
		l.pushRaw(c, sealed(append([]byte(nil), tail[written-1:end]...)))
		c.taken = 1
		c.backlog--
	}
	if end < len(tail) {
		l.pushRaw(c, sealed(append([]byte(nil), tail[end:]...)))
	}
}

// pushRaw appends bytes that are already as the wire wants them.
func (l *turnLoop) pushRaw(c *turnConn, f *outFrame) {
	c.backlog += len(f.plain)
	if c.first == nil {
		c.first = f
		return
	}
	if c.more == nil {
		c.more = l.lendList()
	}
	c.more.frames = append(c.more.frames, f)
}

// write makes one system call and returns how much it took of how much it was given.
func (l *turnLoop) write(c *turnConn, tail []byte) (n, want int, err error) {
	l.tally[countWrites]++
	if c.first == nil {
		n, err = l.wires.write(c.fd, tail)
		return max(n, 0), len(tail), err
	}
	head := c.first.variant(c.bits)[c.taken:]
	if c.more == nil && len(tail) == 0 {
		n, err = l.wires.write(c.fd, head)
		return max(n, 0), len(head), err
	}
	if c.backlog+len(tail) <= gatherBytesMax {
		buf := append(l.gather[:0], head...)
		if c.more != nil {
			for _, f := range c.more.frames[c.more.head:] {
				buf = append(buf, f.variant(c.bits)...)
			}
		}
		l.gather = append(buf, tail...)
		n, err = l.wires.write(c.fd, l.gather)
		return max(n, 0), len(l.gather), err
	}
	return l.writeVector(c, head, tail)
}

func (l *turnLoop) writeVector(c *turnConn, head, tail []byte) (n, want int, err error) {
	vector := append(l.vector[:0], head)
	if c.more != nil {
		for _, f := range c.more.frames[c.more.head:] {
			if len(vector) == vectorMax {
				tail = nil
				break
			}
			vector = append(vector, f.variant(c.bits))
		}
	}
	if len(tail) > 0 {
		vector = append(vector, tail)
	}
	for _, b := range vector {
		want += len(b)
	}
	n, err = l.wires.writev(c.fd, vector)
	clear(vector)
	l.vector = vector[:0]
	return max(n, 0), want, err
}

// advance takes n written bytes off the queue, and the rest of n off tail.
func (l *turnLoop) advance(c *turnConn, tail []byte, n int) []byte {
	l.tally[countBytesOut] += uint64(n)
	for n > 0 && c.first != nil {
		left := len(c.first.variant(c.bits)) - c.taken
		if n < left {
			c.taken += n
			c.backlog -= n
			return tail
		}
		n -= left
		c.backlog -= left
		l.popFrame(c)
	}
	return tail[n:]
}

func (l *turnLoop) popFrame(c *turnConn) {
	c.taken = 0
	m := c.more
	if m == nil {
		c.first = nil
		return
	}
	c.first = m.frames[m.head]
	m.frames[m.head] = nil
	m.head++
	if m.head == len(m.frames) {
		l.returnList(c)
	}
}

// dropQueue forgets what has not begun to leave. A frame of which the kernel has a part stays: without
// its rest the peer could not read what follows.
func (l *turnLoop) dropQueue(c *turnConn) {
	if c.more != nil {
		clear(c.more.frames)
		l.returnList(c)
	}
	if c.taken == 0 {
		c.first = nil
		c.backlog = 0
		return
	}
	c.backlog = len(c.first.variant(c.bits)) - c.taken
}

func (l *turnLoop) lendList() *frameList {
	if n := len(l.lists); n > 0 {
		m := l.lists[n-1]
		l.lists = l.lists[:n-1]
		return m
	}
	return &frameList{frames: make([]*outFrame, 0, 15)}
}

func (l *turnLoop) returnList(c *turnConn) {
	m := c.more
	c.more = nil
	if cap(m.frames) <= listFramesKept && len(l.lists) < listsKept {
		m.frames, m.head = m.frames[:0], 0
		l.lists = append(l.lists, m)
	}
}

const (
	listFramesKept = 256
	listsKept      = 4096
)

// judge ends a connection whose backlog is over its bound. It only marks: the caller may be walking
// through a roster.
func (l *turnLoop) judge(c *turnConn) {
	limits, waits := &l.ground.limits, c.waits()
	switch {
	case c.phase != phaseOpen:
	case waits > limits.hard:
		l.doom(c)
	case waits <= limits.soft:
		if c.rare != nil {
			c.rare.softSince = 0
		}
	case c.extra().softSince == 0:
		c.rare.softSince = l.now
		l.arm(c)
	}
}

// waits is the backlog behind the frame that is being written. That frame counts for nothing: however long it is, a
// reader is slow only when others have to wait for it.
func (c *turnConn) waits() int {
	if c.first == nil {
		return 0
	}
	return c.backlog - len(c.first.variant(c.bits)) + c.taken
}

func (l *turnLoop) doom(c *turnConn) {
	if !c.doomed {
		c.doomed = true
		l.doomed = append(l.doomed, c)
	}
}

// writable says that the kernel takes bytes for c again.
func (l *turnLoop) writable(c *turnConn) {
	if !c.blocked || c.phase == phaseGone {
		return
	}
	c.blocked = false
	l.soil(c)
}

// ownContext reports whether the frames of c are compressed for it alone.
func (c *turnConn) ownContext() bool { return c.rare != nil && c.rare.shrinker != nil }
