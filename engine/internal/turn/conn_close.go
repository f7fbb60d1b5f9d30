package turn

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
func patience(c *Conn, wait time.Duration) int64 {
	if c.Ended() == CauseHeartbeat {
		return int64(deadWait)
	}
	return int64(wait)
}

// End ends c for a cause, telling the peer code and reason. Ending twice is nothing.
func (l *Loop) End(c *Conn, cause Cause, code ws.StatusCode, reason string) {
	switch c.Phase {
	case phasePreface, phaseHead, PhaseVerdict:
		l.Refuse(c, refusalFor(cause))
		return
	case PhaseClosing, phaseRefused, phaseLinger, PhaseGone:
		return
	}
	l.detach(c, cause)
	if l.dropMute(c) {
		return
	}
	c.Phase = PhaseClosing
	if cause == CauseSlow {
		l.DropQueue(c)
		if l.corked == c {
			l.cork = l.cork[:l.corkRaw] // the answers of this turn stand behind those that are dropped
		}
	}
	if cause == CauseProtocol || cause == CauseTakenOver {
		c.Flags |= flagNoHandshake
	}
	l.Text = frame.AppendClose(l.Text[:0], code, reason)
	l.emitClose(c, l.Text)
	c.Extra().deadline = l.Now + patience(c, closeWait)
	if c.Rare.rest != nil {
		l.putOff(c) // the peer's close frame may be in it
	}
	l.arm(c)
}

// EndBy ends c with the code and text of its cause.
func (l *Loop) EndBy(c *Conn, cause Cause) {
	row := &causeTable[cause]
	l.End(c, cause, row.code, row.text)
}

// emitClose puts a whole close frame behind everything that c was given.
func (l *Loop) emitClose(c *Conn, framed []byte) {
	if l.corked == c {
		l.cork = append(l.cork, framed...)
		return
	}
	l.pushRaw(c, Sealed(append([]byte(nil), framed...)))
	if !c.Blocked {
		l.Soil(c)
	}
}

// detach takes c out of everything but the wire. It happens once.
func (l *Loop) detach(c *Conn, cause Cause) {
	c.cause.Store(uint32(cause))
	l.Ended[cause].Add(1)
	l.Owner.Ended(c, cause)
}

// closeFlushed goes on when all that was queued has left.
func (l *Loop) closeFlushed(c *Conn) {
	if !c.Has(flagCloseReceived) && !c.Has(flagNoHandshake) {
		return // the peer's close frame, or the deadline, will come
	}
	l.linger(c)
}

// settle goes on at once where nothing is left to be written.
func (l *Loop) settle(c *Conn) {
	if c.First == nil && !c.Blocked && (l.corked != c || len(l.cork) == 0) {
		l.closeFlushed(c)
	}
}

// linger shuts our half and waits for the peer's.
func (l *Loop) linger(c *Conn) {
	if c.Phase >= phaseLinger {
		return
	}
	c.Phase = phaseLinger
	l.freeInput(c)
	c.Extra().rest = nil
	l.Wires.Shutdown(c.Fd)
	c.Extra().deadline = l.Now + patience(c, lingerWait)
	l.arm(c)
}

// closeReceived handles the peer's close frame, whether it asks or answers.
func (l *Loop) closeReceived(c *Conn, payload []byte) {
	code, _, violation := frame.ParseClose(payload)
	if violation != 0 {
		l.violate(c, violation)
		return
	}
	c.Flags |= flagCloseReceived
	switch {
	case c.Phase == PhaseClosing:
		l.settle(c)
	case l.Owner.Closing(c, Ending{code: code}):
		l.endByPeer(c, code)
	}
}

// EndAs ends c as its peer has said, which its owner has kept until now.
func (l *Loop) EndAs(c *Conn, e Ending) {
	if e.violation != frame.Fine {
		l.violate(c, e.violation)
		return
	}
	l.endByPeer(c, e.code)
}

// endByPeer answers the peer's close frame with its own code [RFC 6455 §5.5.1].
func (l *Loop) endByPeer(c *Conn, code ws.StatusCode) {
	if code == ws.StatusNoStatusRcvd {
		l.End(c, CausePeerClosed, 0, "")
		return
	}
	l.End(c, CausePeerClosed, code, "")
}

// violate fails the connection: the code says how the peer broke the protocol [RFC 6455 §7.1.7].
func (l *Loop) violate(c *Conn, v frame.Violation) {
	if c.Phase == PhaseClosing {
		c.Flags |= flagNoHandshake // what follows cannot be read any more, a close frame neither
		l.settle(c)
		return
	}
	if l.Owner.Closing(c, Ending{violation: v}) {
		l.End(c, CauseProtocol, v.Code(), v.String())
	}
}

// Lose is told that a write failed. What the peer sent before it went may lie unread still: the reactor reads it, finds
// the end, and says so.
func (l *Loop) Lose(c *Conn) {
	if c.Phase >= PhaseClosing {
		l.drop(c)
		return
	}
	l.mute(c)
	c.Extra().deadline = l.Now + int64(closeWait)
	l.arm(c)
}

// mute throws away what is queued for c, now and from now on.
func (l *Loop) mute(c *Conn) {
	c.Flags |= FlagMute
	c.Blocked = false
	c.Taken = 0
	l.DropQueue(c)
	l.roomMade(c) // no flush will say so
}

// dropMute ends c without a word if it cannot be told anything.
func (l *Loop) dropMute(c *Conn) bool {
	if !c.Has(FlagMute) {
		return false
	}
	c.Phase = phaseLinger
	l.drop(c)
	return true
}

// drop has the descriptor closed at the end of the turn; gone follows.
func (l *Loop) drop(c *Conn) {
	if !c.Has(FlagDropping) && c.Phase != PhaseGone {
		c.Flags |= FlagDropping
		l.Drops = append(l.Drops, c)
	}
}

// depart is the logical end of a connection whose transport is no more.
func (l *Loop) depart(c *Conn) {
	cause := CausePeerGone
	if c.Phase < PhaseOpen {
		cause = CauseHandshake
	}
	l.detach(c, cause)
	c.Phase = phaseLinger
}

// Gone is the last that is heard of a connection: its descriptor is closed, by whomever. Where messages of it wait for an
// answer that is pending, it stays a member of its rooms until they have been carried out.
func (l *Loop) Gone(c *Conn) {
	if c.Phase == PhaseGone || c.Fd < 0 {
		return
	}
	l.Now = l.Ground.Clock()
	c.Handle, c.Fd = nil, -1
	c.Flags &^= FlagDropping
	if c.Phase < PhaseClosing && l.Owner.Outlives(c) {
		l.mute(c)
		c.nextBeat = 0
		c.Extra().deadline = l.Now + int64(l.Ground.Limits.Owner)
		l.arm(c)
		return
	}
	if c.Phase < PhaseClosing {
		l.depart(c)
	}
	l.release(c)
}

// release gives back the slot of a connection that has ended and whose descriptor is closed.
func (l *Loop) release(c *Conn) {
	c.Phase = PhaseGone
	l.freeInput(c)
	if c.Rare != nil {
		c.Rare.rest = nil
	}
	c.Taken = 0
	l.DropQueue(c)
	l.Wheel.Clear(c.Slot)
	if !c.Has(FlagKept) {
		l.Forget(c)
	}
	if l.Owes.Writes || l.Owes.Flush {
		l.Wake() // this may be no turn, and nothing else may come
	}
}

// Forget gives up the slot of a connection that is gone.
func (l *Loop) Forget(c *Conn) {
	l.Slab.release(c.Slot)
	l.Ground.Departed(c)
}
