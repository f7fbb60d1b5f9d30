package turn

import (
	"encoding/binary"

	"github.com/parleyd/parley/engine/internal/invariant"
)

// How much of a connection's input one turn takes.
//
// Problem: an answer may be a thousand times as long as its question, and take as long to make. A chunk full of
// questions, or of messages that waited together for an answer of the application, must neither hold the loop nor
// become megabytes that the peer has not asked to be spared.
//
// Invariant: a turn takes no more of a connection's input once the answers and the backlog exceed answersBytesMax, once
// a page of members was made, or once the turn's time is over. The rest is kept, in front of what comes later. Its size
// is bounded as the backlog's is.
//
// Steps: input keeps the rest and puts the connection on the loop's list of those behindhand. A drain goes on with
// each of these in turn, a slice at a time; one whose backlog is too long waits for the flush that shortens it.
//
// What lost: reading no more from the socket (the reactor has no way to), and ending the connection (a client that
// sends ahead is in its right).

const (
	// AnswersLettersMax bounds the frames for one connection that wait in the mailbox.
	AnswersLettersMax = 64
	// LookEvery is how many messages are taken between two looks at the clock.
	LookEvery = 16
	// freshBytes is the cork of which none is too long: answersBytesMax is more.
	freshBytes = 4 << 10
	// longInput is the kept input above which a turn takes more time for it: the peer sends faster than we go on.
	longInput = 64 << 10
	// longBudget is that time.
	longBudget = 8 * DrainBudget
)

// fresh reports whether sated need not be asked yet: nothing of c waits but a short cork. It is inlined, for it is asked
// between any two messages of a chunk.
func (l *Loop) fresh(c *Conn) bool {
	return l.SinceLook < LookEvery-1 && len(l.cork) < freshBytes && l.corked == c && c.First == nil && !l.Paged && c.Posted.Load() == 0
}

// Sated reports whether the turn takes no more of c's input.
func (l *Loop) Sated(c *Conn) bool {
	switch {
	case c.Phase >= PhaseClosing:
		return false // nothing is answered any more
	case l.Paged || !l.hasRoom(c):
		return true
	}
	if l.SinceLook++; l.SinceLook < LookEvery {
		return false
	}
	l.SinceLook = 0
	return l.Ground.Clock() > l.until
}

// hasRoom reports whether c can be given further answers.
func (l *Loop) hasRoom(c *Conn) bool {
	if c.Has(FlagMute) {
		return true // they are thrown away
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

// keepInput keeps what a turn does not take of c's input. It is borrowed, unless it was kept before.
func (l *Loop) keepInput(c *Conn, chunk []byte) {
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
		l.EndBy(c, cause)
		r.rest = nil
		c.Flags |= flagNoHandshake // its close frame would come behind what is thrown away
		return
	}
	l.putOff(c)
}

// putOff has a later turn go on with the input of c.
func (l *Loop) putOff(c *Conn) {
	if r := c.Extra(); !r.Listed {
		r.Listed = true
		l.Late = append(l.Late, c)
		l.Wake()
	}
}

// PutOffMessages has a later turn go on with messages that the owner keeps.
func (l *Loop) PutOffMessages(c *Conn) {
	c.Flags |= FlagMore
	l.putOff(c)
}

// goOnBehind goes on with the input that was put off: a slice of one connection's at least.
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
	if c.Phase == PhaseGone || c.Phase < PhaseClosing && !l.hasRoom(c) {
		return // the flush that makes room for answers puts c on the list again
	}
	l.Paged, l.corked = false, c
	defer l.rescueTurn(c)
	l.takeKept(c)
	l.uncork(c)
	if !c.Behindhand() {
		l.Owner.CaughtUp(c)
	}
}

// takeKept takes what was kept of c's input, until the turn is sated again.
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

// roomMade is told that a flush has shortened the backlog of c.
func (l *Loop) roomMade(c *Conn) {
	if c.Behindhand() && l.hasRoom(c) {
		l.putOff(c)
	}
}

// frameEnd is where the frame of ours ends that holds byte at of the cork. What is in front of raw is no frame.
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

// ForgetRest throws away input that was put off.
func (l *Loop) ForgetRest(c *Conn) {
	if c.Rare != nil {
		c.Rare.rest = nil
	}
}
