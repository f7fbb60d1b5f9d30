package turn

import (
	"iter"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/protocol/deflate"
	"github.com/parleyd/parley/protocol/frame"
)

// The way out. A turn writes only at its end: frames are queued, the connection becomes dirty, and one write takes all of
// them. Answers to the connection whose input is taken are gathered in the loop's cork, which costs no frame of their own.
//
// The floors above give a connection bytes with three verbs. Answer is for the answer to a message: it comes behind all frames
// that were posted before. Queue and QueueText put a frame at the end of the queue now. Post is for any goroutine: the
// mailbox keeps the order of posting.
//
// An empty queue costs no memory: the first frame is a pointer in the connection, and the rest is a list that the loop
// lends.

// FrameList is the queue behind a connection's first frame.
type FrameList struct {
	frames []*Frame
	head   int
}

const (
	welcomeMax     = 64       // frames queued before the upgrade
	gatherBytesMax = 64 << 10 // below this copying into one buffer beats a vector of slices
	vectorMax      = 64
)

// Queue references f for c. Only live connections are given frames.
func (c *Conn) Queue(f *Frame) {
	l := c.Loop
	if c.Phase != PhaseOpen {
		if c.Phase == PhaseVerdict && len(c.Rare.welcome) < welcomeMax {
			c.Rare.welcome = append(c.Rare.welcome, f)
		}
		return
	}
	l.tally[CountSent] += uint64(1 + f.further)
	c.Sent += uint32(1 + f.further)
	if c.Has(FlagDiverted) {
		l.Owner.Diverted(c, f)
		return
	}
	c.push(f)
	if c.Blocked {
		c.checkBacklog()
	}
}

// push appends f to the queue in any phase. The caller checks the backlog.
func (c *Conn) push(f *Frame) {
	l := c.Loop
	if c.Rare != nil && c.Rare.shrinker != nil {
		f = f.taken(c.Rare.shrinker)
	}
	c.Backlog += len(f.variant(c.Bits))
	switch {
	case c.First == nil:
		c.First = f
	default:
		if c.More == nil {
			c.More = l.lendList()
		}
		c.More.frames = append(c.More.frames, f)
	}
	if !c.Blocked {
		c.MarkDirty()
	}
}

// MarkDirty puts c on the list of connections that are written to at the end of the turn.
func (c *Conn) MarkDirty() {
	if !c.Has(FlagDirty) {
		c.Flags |= FlagDirty
		c.Loop.Dirty = append(c.Loop.Dirty, c)
	}
}

// Answer gives c a text message of its own, behind all frames that it was given before. payload is borrowed.
func (c *Conn) Answer(payload []byte) { c.AnswerAs(ws.OpText, payload) }

// AnswerAs is Answer for a message of any kind. payload is borrowed.
func (c *Conn) AnswerAs(op ws.OpCode, payload []byte) {
	l := c.Loop
	if c.Phase != PhaseOpen {
		return
	}
	if c.Posted.Load() > 0 {
		f := NewFrame(op, payload)
		if !l.Mail.force(len(f.Plain)) {
			c.EndBy(CauseOverloaded)
			return
		}
		postFrame(c, f)
		return
	}
	l.tally[CountSent]++
	c.Sent++
	c.emit(op, payload)
}

// Expects reports whether letters that were posted for a connection are still to be opened for it. Once its slot is free they are
// for nobody, and Posted stays as it is.
func Expects(c *Conn) bool { return c.Posted.Load() > 0 && c.Loop.Slab.At(c.Slot) == c }

// AnswerPosted posts the answers that f gives c, so that they come behind all letters that are posted to the loop.
func (c *Conn) AnswerPosted(f func()) {
	c.Posted.Add(1)
	f()
	c.Posted.Add(-1)
}

// QueueText gives c a text message of its own, in front of frames that are posted for it. The owner's Diverted does not get
// it. payload is borrowed.
func (c *Conn) QueueText(payload []byte) {
	l := c.Loop
	if c.Phase != PhaseOpen {
		return
	}
	l.tally[CountSent]++
	c.Sent++
	c.emit(ws.OpText, payload)
}

// QueueRaw gives c frames of its own that are encoded without compression, in front of frames that are posted for it. The
// owner's Diverted does not get them. raw is borrowed; messages is the number of frames.
func QueueRaw(c *Conn, raw []byte, messages int) {
	l := c.Loop
	if c.Phase != PhaseOpen || len(raw) == 0 {
		return
	}
	l.tally[CountSent] += uint64(messages)
	c.Sent += uint32(messages)
	if l.corked == c {
		l.cork = append(l.cork, raw...)
		return
	}
	c.push(Sealed(append([]byte(nil), raw...)))
	if c.Blocked {
		c.checkBacklog()
	}
}

// emit puts one frame of any kind into the cork, or into the queue if c is not the corked connection. payload is borrowed.
func (c *Conn) emit(op ws.OpCode, payload []byte) {
	l := c.Loop
	switch {
	case l.corked != c:
		c.push(NewFrame(op, payload))
		if c.Blocked {
			c.checkBacklog()
		}
	case c.Bits != 0 && len(payload) >= deflateBytesMin && !op.IsControl():
		l.shrunk = l.shrink(c, l.shrunk[:0], payload)
		l.cork = appendCompressed(l.cork, op, l.shrunk)
	default:
		l.cork = frame.Append(l.cork, op, payload)
	}
}

func (l *Loop) shrink(c *Conn, dst, payload []byte) []byte {
	if c.Rare != nil && c.Rare.shrinker != nil {
		return c.Rare.shrinker.Shrink(dst, payload)
	}
	return deflate.Shrink(dst, payload, c.Bits)
}

// uncork ends the input of the corked connection: one write takes the queue and, behind it, the cork.
func (l *Loop) uncork(c *Conn) {
	l.corked = nil
	if len(l.cork) == 0 || c.Phase == PhaseGone {
		l.cork, l.corkRaw = l.cork[:0], 0
		return
	}
	if l.rush.holds(l, c) {
		l.rush.hold(l, c)
		return
	}
	l.flush(c, l.cork)
	l.cork, l.corkRaw = l.cork[:0], 0
	if cap(l.cork) > CorkBytesKept {
		l.cork = nil
	}
}

// CorkBytesKept is the size up to which a loop keeps a scratch buffer from turn to turn, in bytes.
const CorkBytesKept = 1 << 20

// flush writes the queue of c and then tail, in as few system calls as possible. Bytes that the kernel refuses stay queued
// until it takes bytes again. tail is borrowed.
func (l *Loop) flush(c *Conn, tail []byte) {
	if c.Has(FlagMute) {
		c.mute()
		return
	}
	whole := tail
	for !c.Blocked && (c.First != nil || len(tail) > 0) {
		n, want, err := l.write(c, tail)
		if err != nil && !l.Wires.Again(err) {
			c.Lose()
			return
		}
		tail = l.advance(c, tail, n)
		if n < want {
			block(c)
		}
	}
	if len(tail) > 0 {
		c.keepTail(whole, len(whole)-len(tail))
	}
	flushed(l, c)
}

// flushed ends a flush: the queue is empty, or the kernel has refused a part of it.
func flushed(l *Loop, c *Conn) {
	if c.Blocked {
		c.checkBacklog()
		c.backlogShrunk()
		l.Wires.Watch(c)
		return
	}
	if r := c.Rare; r != nil {
		r.softSince = 0
		c.backlogShrunk()
		if r.Reads && c.Phase == PhaseOpen {
			l.Owner.Emptied(c)
		}
	}
	if c.Phase == PhaseClosing || c.Phase == phaseRefused {
		c.closeFlushed()
	}
}

// block notes that the kernel takes no more bytes for c.
func block(c *Conn) {
	c.Blocked = true
	c.Loop.Blocked = append(c.Loop.Blocked, c)
	c.Loop.tally[CountBlocked]++
}

// keepTail queues the part of tail, which is the cork, that the kernel did not take. If the kernel took a part of a frame,
// the byte before the rest is kept too, as taken: DropQueue must see that the frame has begun to leave. The frames behind it
// can be dropped.
func (c *Conn) keepTail(tail []byte, written int) {
	l := c.Loop
	end := 0
	if written > 0 {
		end = frameEnd(tail, l.corkRaw, written)
	}
	if end > written {
		c.push(Sealed(append([]byte(nil), tail[written-1:end]...)))
		c.Taken = 1
		c.Backlog--
	}
	if end < len(tail) {
		c.push(Sealed(append([]byte(nil), tail[end:]...)))
	}
}

// write makes one system call. It returns the number of bytes that the kernel took, and the number that it was offered.
func (l *Loop) write(c *Conn, tail []byte) (n, want int, err error) {
	l.tally[CountWrites]++
	if c.First == nil {
		n, err = l.Wires.Write(int(c.Fd), tail)
		return max(n, 0), len(tail), err
	}
	if c.Backlog+len(tail) > gatherBytesMax {
		if head := c.First.variant(c.Bits)[c.Taken:]; c.More != nil || len(tail) > 0 {
			return l.writeVector(c, head, tail)
		}
	}
	l.gather = l.gather[:0]
	offer := gathered(l, c, tail)
	n, err = l.Wires.Write(int(c.Fd), offer)
	return max(n, 0), len(offer), err
}

// gathered is the queue of c and behind it tail, as one slice: that of the only frame, or a copy in the loop's gather.
func gathered(l *Loop, c *Conn, tail []byte) []byte {
	head := c.First.variant(c.Bits)[c.Taken:]
	if c.More == nil && len(tail) == 0 {
		return head
	}
	from := len(l.gather)
	buf := append(l.gather, head...)
	if c.More != nil {
		for _, f := range c.More.frames[c.More.head:] {
			buf = append(buf, f.variant(c.Bits)...)
		}
	}
	l.gather = append(buf, tail...)
	return l.gather[from:]
}

func (l *Loop) writeVector(c *Conn, head, tail []byte) (n, want int, err error) {
	vector := append(l.vector[:0], head)
	if c.More != nil {
		for _, f := range c.More.frames[c.More.head:] {
			if len(vector) == vectorMax {
				tail = nil
				break
			}
			vector = append(vector, f.variant(c.Bits))
		}
	}
	if len(tail) > 0 {
		vector = append(vector, tail)
	}
	for _, b := range vector {
		want += len(b)
	}
	n, err = l.Wires.Writev(int(c.Fd), vector)
	clear(vector)
	l.vector = vector[:0]
	return max(n, 0), want, err
}

// advance takes n written bytes off the queue, and the rest of n off tail.
func (l *Loop) advance(c *Conn, tail []byte, n int) []byte {
	l.tally[CountBytesOut] += uint64(n)
	for n > 0 && c.First != nil {
		left := len(c.First.variant(c.Bits)) - int(c.Taken)
		if n < left {
			c.Taken += uint32(n)
			c.Backlog -= n
			return tail
		}
		n -= left
		c.Backlog -= left
		c.popFrame()
	}
	return tail[n:]
}

func (c *Conn) popFrame() {
	if c.First.lent {
		c.Loop.rush.takeBack(c.First)
	}
	c.Taken = 0
	m := c.More
	if m == nil {
		c.First = nil
		return
	}
	c.First = m.frames[m.head]
	m.frames[m.head] = nil
	m.head++
	if m.head == len(m.frames) {
		c.returnList()
	}
}

// DropQueue drops the frames that have not begun to leave. A frame of which the kernel has a part stays: without its rest
// the peer could not read the frames behind it.
func (c *Conn) DropQueue() {
	if c.More != nil {
		clear(c.More.frames)
		c.returnList()
	}
	if c.Taken == 0 {
		c.First = nil
		c.Backlog = 0
		return
	}
	c.Backlog = len(c.First.variant(c.Bits)) - int(c.Taken)
}

func (l *Loop) lendList() *FrameList {
	if n := len(l.lists); n > 0 {
		m := l.lists[n-1]
		l.lists = l.lists[:n-1]
		return m
	}
	return &FrameList{frames: make([]*Frame, 0, 15)}
}

func (c *Conn) returnList() {
	l := c.Loop
	m := c.More
	c.More = nil
	if cap(m.frames) <= listFramesKept && len(l.lists) < listsKept {
		m.frames, m.head = m.frames[:0], 0
		l.lists = append(l.lists, m)
	}
}

const (
	listFramesKept = 256
	listsKept      = 4096
)

// checkBacklog ends a connection whose backlog exceeds its bound. It only marks the connection, because the caller may be
// walking through a roster.
func (c *Conn) checkBacklog() {
	l := c.Loop
	limits, waits := &l.Ground.Limits, c.Waits()
	switch {
	case c.Phase != PhaseOpen:
	case waits > limits.Hard:
		c.Doom()
	case waits <= limits.Soft:
		if c.Rare != nil {
			c.Rare.softSince = 0
		}
	case c.Extra().softSince == 0:
		c.Rare.softSince = l.Now
		l.arm(c)
	}
}

// Waits is the backlog behind the frame that is being written. That frame does not count, however long it is: a reader is
// slow only when other frames have to wait for it.
func (c *Conn) Waits() int {
	if c.First == nil {
		return 0
	}
	return c.Backlog - len(c.First.variant(c.Bits)) + int(c.Taken)
}

// Doom marks c to be ended for its backlog before the turn is over: ending it at once would change a roster during a walk.
func (c *Conn) Doom() {
	l := c.Loop
	if !c.Doomed {
		c.Doomed = true
		l.Doomed = append(l.Doomed, c)
	}
}

// writable goes on writing to c after the kernel has reported that it takes bytes again.
func (l *Loop) writable(c *Conn) {
	if !c.Blocked || c.Phase == PhaseGone {
		return
	}
	c.Blocked = false
	c.MarkDirty()
}

// Queued are the frames that wait for c. Loop only.
func Queued(c *Conn) iter.Seq[*Frame] {
	return func(yield func(*Frame) bool) {
		if c.First == nil || !yield(c.First) || c.More == nil {
			return
		}
		for _, f := range c.More.frames[c.More.head:] {
			if !yield(f) {
				return
			}
		}
	}
}

// OwnContext reports whether the frames of c are compressed for it alone.
func (c *Conn) OwnContext() bool { return c.Rare != nil && c.Rare.shrinker != nil }
