package turn

import (
	"encoding/binary"

	"github.com/parleyd/parley/engine/internal/invariant"
)

// How much of a connection's input one turn takes.
//
// Problem: an answer may be a thousand times as long as its question, and take as long to make. A chunk full of questions,
// or of messages that waited together for an answer of the application, must neither hold the loop nor become megabytes that
// the peer does not read.
//
// Invariant: a turn stops taking a connection's input when the answers and the backlog exceed Limits.Answers, when a page of
// members was made, or when the turn's time is over. The rest is kept in front of later input. Its size is bounded as the
// backlog's is.
//
// Steps: input keeps the rest and puts the connection on the loop's list of behindhand connections. A drain goes on with
// each of them, a slice at a time. A connection whose backlog is too long waits for the flush that shortens it.
//
// What lost: to stop reading from the socket (the reactor cannot), and to end the connection (a client may send ahead).

const (
	// AnswersLettersMax bounds the frames for one connection that wait in the mailbox.
	AnswersLettersMax = 64
	// LookEvery is how many messages are taken between two looks at the clock.
	LookEvery = 16
	// freshBytes is the cork length below which Sated is not called, whatever Limits.Answers is.
	freshBytes = 4 << 10
	// longInput is the length of kept input above which a turn takes more time for it: the peer sends faster than the loop
	// takes.
	longInput = 64 << 10
	// longBudget is that time.
	longBudget = 8 * DrainBudget
)

// fresh reports whether Sated need not be called yet: c has no backlog and only a short cork. It is small enough to be
// inlined, because it runs between any two messages of a chunk.
func (l *Loop) fresh(c *Conn) bool {
	return l.SinceLook < LookEvery-1 && len(l.cork) < freshBytes && l.corked == c && c.First == nil && !l.Paged && c.Posted.Load() == 0
}

// Sated reports whether the turn takes no more of the input of c.
func (c *Conn) Sated() bool {
	l := c.Loop
	switch {
	case c.Phase >= PhaseClosing:
		return false // no further message is answered
	case l.Paged || !l.answersFit(c):
		return true
	}
	if l.SinceLook++; l.SinceLook < LookEvery {
		return false
	}
	l.SinceLook = 0
	return l.Ground.Clock() > l.until
}

// answersFit reports whether the answers and the backlog of c are short enough for further answers.
func (l *Loop) answersFit(c *Conn) bool {
	if c.Has(FlagMute) {
		return true // its frames are discarded
	}
	n := c.Waits()
	if l.corked == c {
		n += len(l.cork)
	}
	return n <= l.Ground.Limits.Answers && c.Posted.Load() <= AnswersLettersMax
}

// Behindhand reports whether input of c waits for a turn.
func (c *Conn) Behindhand() bool {
	return c.Has(FlagMore) || c.Rare != nil && c.Rare.rest != nil
}

// WaitingInput is the memory, in bytes, that input of c takes which waits for a turn. Loop only.
func WaitingInput(c *Conn) int64 {
	if c.Rare == nil {
		return 0
	}
	return int64(cap(c.Rare.rest))
}

// keepInput keeps the part of the input of c that the turn does not take. chunk is borrowed, unless it was kept before.
func (c *Conn) keepInput(chunk []byte) {
	l := c.Loop
	r := c.Extra()
	switch {
	case l.goingOn && r.rest == nil:
		r.rest = chunk
	case len(r.rest)+len(chunk) <= l.Ground.Limits.Hard:
		r.rest = append(r.rest, chunk...)
	default:
		cause := CauseOverloaded
		if c.Blocked {
			cause = CauseSlow
		}
		c.EndBy(cause)
		r.rest = nil
		c.Flags |= flagNoHandshake // its close frame would lie behind the input that is discarded
		return
	}
	c.putOff()
}

// putOff leaves the input of c to a later turn.
func (c *Conn) putOff() {
	l := c.Loop
	if r := c.Extra(); !r.Listed {
		r.Listed = true
		l.Late = append(l.Late, c)
		l.Wake()
	}
}

// PutOffMessages leaves messages that the owner keeps to a later turn.
func (c *Conn) PutOffMessages() {
	c.Flags |= FlagMore
	c.putOff()
}

// goOnBehind takes input that was put off, at least a slice of one connection's.
func (l *Loop) goOnBehind(until int64) {
	for n := len(l.Late); n > 0; n-- {
		c := l.Late[0]
		l.Late[0] = nil
		l.Late = l.Late[1:]
		l.goOn(c)
		if l.Ground.Clock() > until {
			break
		}
	}
	if len(l.Late) > 0 {
		l.Wake()
		return
	}
	l.Late = nil
}

// goOn takes a slice of the input of c that was put off.
func (l *Loop) goOn(c *Conn) {
	r := c.Rare
	r.Listed = false
	if c.Phase == PhaseGone || c.Phase < PhaseClosing && !l.answersFit(c) {
		return // the flush that shortens the backlog puts c on the list again
	}
	l.Paged, l.corked = false, c
	defer l.rescueTurn(c)
	l.takeKept(c)
	l.uncork(c)
	if !c.Behindhand() {
		l.Owner.CaughtUp(c)
	}
}

// takeKept takes the kept input of c, until the turn is sated again.
func (l *Loop) takeKept(c *Conn) {
	r := c.Rare
	if c.Has(FlagMore) {
		c.Flags &^= FlagMore
		l.Owner.More(c)
		if c.Has(FlagMore) {
			return
		}
	}
	if chunk := r.rest; chunk != nil {
		r.rest, l.goingOn = nil, true
		l.input(c, chunk)
		l.goingOn = false
		invariant.Scribble(chunk[:len(chunk)-len(r.rest)])
	}
}

// backlogShrunk puts c on the list again after a flush has shortened its backlog.
func (c *Conn) backlogShrunk() {
	l := c.Loop
	if c.Behindhand() && l.answersFit(c) {
		c.putOff()
	}
}

// frameEnd is the end of our frame that holds byte at of the cork. The first raw bytes of the cork are no frame.
func frameEnd(cork []byte, raw, at int) int {
	end := raw
	for end < at {
		n := int(cork[end+1])
		switch n {
		case 126:
			n = 2 + int(binary.BigEndian.Uint16(cork[end+2:]))
		case 127:
			n = 8 + int(binary.BigEndian.Uint64(cork[end+2:]))
		}
		end += 2 + n
	}
	return end
}

// ForgetRest discards input that was put off.
func (c *Conn) ForgetRest() {
	if c.Rare != nil {
		c.Rare.rest = nil
	}
}
