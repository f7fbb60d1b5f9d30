package engine

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
	// answersLettersMax bounds the frames for one connection that wait in the mailbox.
	answersLettersMax = 64
	// lookEvery is how many messages are taken between two looks at the clock.
	lookEvery = 16
	// freshBytes is the cork of which none is too long: answersBytesMax is more.
	freshBytes = 4 << 10
	// longInput is the kept input above which a turn takes more time for it: the peer sends faster than we go on.
	longInput = 64 << 10
	// longBudget is that time.
	longBudget = 8 * drainBudget
)

// fresh reports whether sated need not be asked yet: nothing of c waits but a short cork. It is inlined, for it is asked
// between any two messages of a chunk.
func (l *turnLoop) fresh(c *turnConn) bool {
	return l.sinceLook < lookEvery-1 && len(l.cork) < freshBytes && l.corked == c && c.first == nil && !l.paged && c.posted.Load() == 0
}

// sated reports whether the turn takes no more of c's input.
func (l *turnLoop) sated(c *turnConn) bool {
	switch {
	case c.phase >= phaseClosing:
		return false // nothing is answered any more
	case l.paged || !l.hasRoom(c):
		return true
	}
	if l.sinceLook++; l.sinceLook < lookEvery {
		return false
	}
	l.sinceLook = 0
	return l.ground.clock() > l.until
}

// hasRoom reports whether c can be given further answers.
func (l *turnLoop) hasRoom(c *turnConn) bool {
	if c.has(flagMute) {
		return true // they are thrown away
	}
	n := c.waits()
	if l.corked == c {
		n += len(l.cork)
	}
	return n <= l.ground.limits.answers && c.posted.Load() <= answersLettersMax
}

// behindhand reports whether input of c waits for a turn.
func (c *turnConn) behindhand() bool {
	return c.has(flagMore) || c.rare != nil && c.rare.rest != nil
}

// keepInput keeps what a turn does not take of c's input. It is borrowed, unless it was kept before.
func (l *turnLoop) keepInput(c *turnConn, chunk []byte) {
	r := c.extra()
	switch {
	case l.goingOn && r.rest == nil:
		r.rest = chunk
	case len(r.rest)+len(chunk) <= l.ground.limits.hard:
		r.rest = append(r.rest, chunk...)
	default:
		cause := CauseOverloaded
		if c.blocked {
			cause = CauseSlow
		}
		l.endBy(c, cause)
		r.rest = nil
		c.flags |= flagNoHandshake // its close frame would come behind what is thrown away
		return
	}
	l.putOff(c)
}

// putOff has a later turn go on with the input of c.
func (l *turnLoop) putOff(c *turnConn) {
	if r := c.extra(); !r.listed {
		r.listed = true
		l.late = append(l.late, c)
		l.wake()
	}
}

// putOffMessages has a later turn go on with messages that the owner keeps.
func (l *turnLoop) putOffMessages(c *turnConn) {
	c.flags |= flagMore
	l.putOff(c)
}

// goOnBehind goes on with the input that was put off: a slice of one connection's at least.
func (l *turnLoop) goOnBehind(until int64) {
	for n := len(l.late); n > 0; n-- {
		c := l.late[0]
		l.late[0] = nil
		l.late = l.late[1:]
		l.goOn(c)
		if l.ground.clock() > until {
			break
		}
	}
	if len(l.late) > 0 {
		l.wake()
		return
	}
	l.late = nil
}

// goOn takes a slice of the input of c that was put off.
func (l *turnLoop) goOn(c *turnConn) {
	r := c.rare
	r.listed = false
	if c.phase == phaseGone || c.phase < phaseClosing && !l.hasRoom(c) {
		return // the flush that makes room for answers puts c on the list again
	}
	l.paged, l.corked = false, c
	defer l.rescueTurn(c)
	l.takeKept(c)
	l.uncork(c)
	if !c.behindhand() {
		l.owner.caughtUp(c)
	}
}

// takeKept takes what was kept of c's input, until the turn is sated again.
func (l *turnLoop) takeKept(c *turnConn) {
	r := c.rare
	if c.has(flagMore) {
		c.flags &^= flagMore
		l.owner.more(c)
		if c.has(flagMore) {
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
func (l *turnLoop) roomMade(c *turnConn) {
	if c.behindhand() && l.hasRoom(c) {
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

// forgetRest throws away input that was put off.
func (l *turnLoop) forgetRest(c *turnConn) {
	if c.rare != nil {
		c.rare.rest = nil
	}
}
