package engine

import (
	"time"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/protocol/frame"
)

// How a connection ends. Logically at once: it leaves its rooms, its session is parked, the event goes
// out. On the wire in steps: the close frame goes behind what is queued; when all has left, the peer's
// close frame is awaited unless it came first or is not owed; then our half is shut, and what still
// arrives is thrown away until the peer's half ends too. Closing at once would lose what the kernel has
// not sent yet: unread input turns a close into a reset. Each step has a deadline.

const (
	closeWait  = 2 * time.Second        // for the backlog to leave and the peer's close frame to come
	lingerWait = 2 * time.Second        // for the peer's end of stream
	deadWait   = 400 * time.Millisecond // both, for a peer that was silent for the heartbeat timeout
)

// patience is how long a closing connection may take for one step.
func patience(c *turnConn, wait time.Duration) int64 {
	if c.ended() == CauseHeartbeat {
		return int64(deadWait)
	}
	return int64(wait)
}

// end ends c for a cause, telling the peer code and reason. Ending twice is nothing.
func (l *turnLoop) end(c *turnConn, cause Cause, code ws.StatusCode, reason string) {
	switch c.phase {
	case phasePreface, phaseHead, phaseVerdict:
		l.refuse(c, refusalFor(cause))
		return
	case phaseClosing, phaseRefused, phaseLinger, phaseGone:
		return
	}
	l.detach(c, cause)
	if l.dropMute(c) {
		return
	}
	c.phase = phaseClosing
	if cause == CauseSlow {
		l.dropQueue(c)
		if l.corked == c {
			l.cork = l.cork[:l.corkRaw] // the answers of this turn stand behind those that are dropped
		}
	}
	if cause == CauseProtocol || cause == CauseTakenOver {
		c.flags |= flagNoHandshake
	}
	l.text = frame.AppendClose(l.text[:0], code, reason)
	l.emitClose(c, l.text)
	c.extra().deadline = l.now + patience(c, closeWait)
	if c.rare.rest != nil {
		l.putOff(c) // the peer's close frame may be in it
	}
	l.arm(c)
}

// endBy ends c with the code and text of its cause.
func (l *turnLoop) endBy(c *turnConn, cause Cause) {
	row := &causeTable[cause]
	l.end(c, cause, row.code, row.text)
}

// emitClose puts a whole close frame behind everything that c was given.
func (l *turnLoop) emitClose(c *turnConn, framed []byte) {
	if l.corked == c {
		l.cork = append(l.cork, framed...)
		return
	}
	l.pushRaw(c, sealed(append([]byte(nil), framed...)))
	if !c.blocked {
		l.soil(c)
	}
}

// detach takes c out of everything but the wire. It happens once.
func (l *turnLoop) detach(c *turnConn, cause Cause) {
	c.cause.Store(uint32(cause))
	l.ended[cause].Add(1)
	l.owner.ended(c, cause)
}

// closeFlushed goes on when all that was queued has left.
func (l *turnLoop) closeFlushed(c *turnConn) {
	if !c.has(flagCloseReceived) && !c.has(flagNoHandshake) {
		return // the peer's close frame, or the deadline, will come
	}
	l.linger(c)
}

// settle goes on at once where nothing is left to be written.
func (l *turnLoop) settle(c *turnConn) {
	if c.first == nil && !c.blocked && (l.corked != c || len(l.cork) == 0) {
		l.closeFlushed(c)
	}
}

// linger shuts our half and waits for the peer's.
func (l *turnLoop) linger(c *turnConn) {
	if c.phase >= phaseLinger {
		return
	}
	c.phase = phaseLinger
	l.freeInput(c)
	c.extra().rest = nil
	l.wires.shutdown(c.fd)
	c.extra().deadline = l.now + patience(c, lingerWait)
	l.arm(c)
}

// closeReceived handles the peer's close frame, whether it asks or answers.
func (l *turnLoop) closeReceived(c *turnConn, payload []byte) {
	code, _, violation := frame.ParseClose(payload)
	if violation != 0 {
		l.violate(c, violation)
		return
	}
	c.flags |= flagCloseReceived
	switch {
	case c.phase == phaseClosing:
		l.settle(c)
	case l.owner.closing(c, ending{code: code}):
		l.endByPeer(c, code)
	}
}

// endAs ends c as its peer has said, which its owner has kept until now.
func (l *turnLoop) endAs(c *turnConn, e ending) {
	if e.violation != frame.Fine {
		l.violate(c, e.violation)
		return
	}
	l.endByPeer(c, e.code)
}

// endByPeer answers the peer's close frame with its own code [RFC 6455 §5.5.1].
func (l *turnLoop) endByPeer(c *turnConn, code ws.StatusCode) {
	if code == ws.StatusNoStatusRcvd {
		l.end(c, CausePeerClosed, 0, "")
		return
	}
	l.end(c, CausePeerClosed, code, "")
}

// violate fails the connection: the code says how the peer broke the protocol [RFC 6455 §7.1.7].
func (l *turnLoop) violate(c *turnConn, v frame.Violation) {
	if c.phase == phaseClosing {
		c.flags |= flagNoHandshake // what follows cannot be read any more, a close frame neither
		l.settle(c)
		return
	}
	if l.owner.closing(c, ending{violation: v}) {
		l.end(c, CauseProtocol, v.Code(), v.String())
	}
}

// lose is told that a write failed. What the peer sent before it went may lie unread still: the reactor reads it, finds
// the end, and says so.
func (l *turnLoop) lose(c *turnConn) {
	if c.phase >= phaseClosing {
		l.drop(c)
		return
	}
	l.mute(c)
	c.extra().deadline = l.now + int64(closeWait)
	l.arm(c)
}

// mute throws away what is queued for c, now and from now on.
func (l *turnLoop) mute(c *turnConn) {
	c.flags |= flagMute
	c.blocked = false
	c.taken = 0
	l.dropQueue(c)
	l.roomMade(c) // no flush will say so
}

// dropMute ends c without a word if it cannot be told anything.
func (l *turnLoop) dropMute(c *turnConn) bool {
	if !c.has(flagMute) {
		return false
	}
	c.phase = phaseLinger
	l.drop(c)
	return true
}

// drop has the descriptor closed at the end of the turn; gone follows.
func (l *turnLoop) drop(c *turnConn) {
	if !c.has(flagDropping) && c.phase != phaseGone {
		c.flags |= flagDropping
		l.drops = append(l.drops, c)
	}
}

// depart is the logical end of a connection whose transport is no more.
func (l *turnLoop) depart(c *turnConn) {
	cause := CausePeerGone
	if c.phase < phaseOpen {
		cause = CauseHandshake
	}
	l.detach(c, cause)
	c.phase = phaseLinger
}

// gone is the last that is heard of a connection: its descriptor is closed, by whomever. Where messages of it wait for an
// answer that is pending, it stays a member of its rooms until they have been carried out.
func (l *turnLoop) gone(c *turnConn) {
	if c.phase == phaseGone || c.fd < 0 {
		return
	}
	l.now = l.ground.clock()
	c.handle, c.fd = nil, -1
	c.flags &^= flagDropping
	if c.phase < phaseClosing && l.owner.outlives(c) {
		l.mute(c)
		c.nextBeat = 0
		c.extra().deadline = l.now + int64(l.ground.limits.owner)
		l.arm(c)
		return
	}
	if c.phase < phaseClosing {
		l.depart(c)
	}
	l.release(c)
}

// release gives back the slot of a connection that has ended and whose descriptor is closed.
func (l *turnLoop) release(c *turnConn) {
	c.phase = phaseGone
	l.freeInput(c)
	if c.rare != nil {
		c.rare.rest = nil
	}
	c.taken = 0
	l.dropQueue(c)
	l.wheel.clear(c.slot)
	if !c.has(flagKept) {
		l.forget(c)
	}
	if l.owes.writes || l.owes.flush {
		l.wake() // this may be no turn, and nothing else may come
	}
}

// forget gives up the slot of a connection that is gone.
func (l *turnLoop) forget(c *turnConn) {
	l.slab.release(c.slot)
	l.ground.departed(c)
}
