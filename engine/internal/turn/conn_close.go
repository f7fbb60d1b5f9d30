package turn

import (
	"time"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/protocol/frame"
)

// How a connection ends. Its logical end comes at once: it leaves its rooms, its session is parked, the event goes out. The
// wire takes several steps. The close frame is queued behind the other frames. When the queue is written, the peer's close
// frame is awaited, unless it came first or is not owed. Then our half is shut, and further input is discarded until the
// peer's half ends too. Each step has a deadline. Closing the descriptor at once would lose bytes that the kernel has not
// sent yet: unread input turns a close into a reset.

const (
	closeWait  = 2 * time.Second        // until the backlog has left and the peer's close frame has come
	lingerWait = 2 * time.Second        // until the peer's end of stream
	deadWait   = 400 * time.Millisecond // instead of both, for a peer that was silent for the heartbeat timeout
)

// patience is the time that a closing connection may take for one step.
func patience(c *Conn, wait time.Duration) int64 {
	if c.Ended() == CauseHeartbeat {
		return int64(deadWait)
	}
	return int64(wait)
}

// End ends c for a cause, and sends the peer code and reason. A second call has no effect.
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
			l.cork = l.cork[:l.corkRaw] // this turn's answers were queued behind the frames that are dropped
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

// emitClose queues a whole close frame behind all frames of c.
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

// detach ends c for its owner; the wire follows. A second call has no effect.
func (l *Loop) detach(c *Conn, cause Cause) {
	c.cause.Store(uint32(cause))
	l.Ended[cause].Add(1)
	l.Owner.Ended(c, cause)
}

// closeFlushed takes the next step of the close when the queue is written.
func (l *Loop) closeFlushed(c *Conn) {
	if !c.Has(flagCloseReceived) && !c.Has(flagNoHandshake) {
		return // the peer's close frame, or the deadline, will come
	}
	l.linger(c)
}

// settle takes the next step of the close at once if no byte is left to write.
func (l *Loop) settle(c *Conn) {
	if c.First == nil && !c.Blocked && (l.corked != c || len(l.cork) == 0) {
		l.closeFlushed(c)
	}
}

// linger shuts our half of the stream and waits for the end of the peer's.
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

// closeReceived handles the peer's close frame, whether it begins the close or answers ours.
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

// EndAs ends c by the peer's ending e, which the owner has kept until now.
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
		c.Flags |= flagNoHandshake // no frame behind this point can be read, not even a close frame
		l.settle(c)
		return
	}
	if l.Owner.Closing(c, Ending{violation: v}) {
		l.End(c, CauseProtocol, v.Code(), v.String())
	}
}

// Lose ends the writing to c after a failed write. Input that the peer sent earlier may still be unread: the reactor reads
// it, finds the end of the stream, and reports it.
func (l *Loop) Lose(c *Conn) {
	if c.Phase >= PhaseClosing {
		l.drop(c)
		return
	}
	l.mute(c)
	c.Extra().deadline = l.Now + int64(closeWait)
	l.arm(c)
}

// mute discards the frames that are queued for c, and all later ones.
func (l *Loop) mute(c *Conn) {
	c.Flags |= FlagMute
	c.Blocked = false
	c.Taken = 0
	l.DropQueue(c)
	l.backlogShrunk(c) // no flush will do it
}

// dropMute ends c without a close frame if no frame can be sent to it.
func (l *Loop) dropMute(c *Conn) bool {
	if !c.Has(FlagMute) {
		return false
	}
	c.Phase = phaseLinger
	l.drop(c)
	return true
}

// drop asks the reactor to close the descriptor at the end of the turn; Gone follows.
func (l *Loop) drop(c *Conn) {
	if !c.Has(FlagDropping) && c.Phase != PhaseGone {
		c.Flags |= FlagDropping
		l.Drops = append(l.Drops, c)
	}
}

// depart is the logical end of a connection whose transport is gone.
func (l *Loop) depart(c *Conn) {
	cause := CausePeerGone
	if c.Phase < PhaseOpen {
		cause = CauseHandshake
	}
	l.detach(c, cause)
	c.Phase = phaseLinger
}

// Gone is the last event of a connection: its descriptor is closed, by us or by the reactor. If messages wait behind a
// pending answer, the connection stays a member of its rooms until they have been carried out.
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

// release frees the slot of a connection that has ended and whose descriptor is closed.
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
		l.Wake() // the caller may be outside a turn, and no other event may follow
	}
}

// Forget frees the slot of a connection that is gone.
func (l *Loop) Forget(c *Conn) {
	l.Slab.release(c.Slot)
	l.Ground.Departed(c)
}
