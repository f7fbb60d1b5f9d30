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
func (c *Conn) End(cause Cause, code ws.StatusCode, reason string) {
	l := c.Loop
	switch c.Phase {
	case phasePreface, phaseHead, PhaseVerdict:
		c.Refuse(refusalFor(cause))
		return
	case PhaseClosing, phaseRefused, phaseLinger, PhaseGone:
		return
	}
	if greeted := c.ConnectedAt != 0; greeted && cause != CausePeerClosed {
		l.Owner.Parting(c, code)
	}
	c.detach(cause)
	if c.dropMute() {
		return
	}
	c.Phase = PhaseClosing
	if cause == CauseSlow {
		c.DropQueue()
		if l.corked == c {
			l.cork = l.cork[:l.corkRaw] // this turn's answers were queued behind the frames that are dropped
		}
	}
	if cause == CauseProtocol || cause == CauseTakenOver {
		c.Flags |= flagNoHandshake
	}
	l.Text = frame.AppendClose(l.Text[:0], code, reason)
	c.emitClose(l.Text)
	c.Extra().deadline = l.Now + patience(c, closeWait)
	if c.Rare.rest != nil {
		c.putOff() // the peer's close frame may be in it
	}
	l.arm(c)
}

// EndBy ends c with the code and text of its cause.
func (c *Conn) EndBy(cause Cause) {
	row := &causeTable[cause]
	c.End(cause, row.code, row.text)
}

// emitClose queues a whole close frame behind all frames of c.
func (c *Conn) emitClose(framed []byte) {
	l := c.Loop
	if l.corked == c {
		l.cork = append(l.cork, framed...)
		return
	}
	c.push(Sealed(append([]byte(nil), framed...)))
}

// detach ends c for its owner; the wire follows. A second call has no effect.
func (c *Conn) detach(cause Cause) {
	l := c.Loop
	c.cause.Store(uint32(cause))
	l.Ended[cause].Add(1)
	l.Owner.Ended(c, cause)
}

// closeFlushed takes the next step of the close when the queue is written.
func (c *Conn) closeFlushed() {
	if !c.Has(flagCloseReceived) && !c.Has(flagNoHandshake) {
		return // the peer's close frame, or the deadline, will come
	}
	c.linger()
}

// settle takes the next step of the close at once if no byte is left to write.
func (c *Conn) settle() {
	l := c.Loop
	if c.First == nil && !c.Blocked && (l.corked != c || len(l.cork) == 0) {
		c.closeFlushed()
	}
}

// linger shuts our half of the stream and waits for the end of the peer's.
func (c *Conn) linger() {
	l := c.Loop
	if c.Phase >= phaseLinger {
		return
	}
	c.Phase = phaseLinger
	c.freeInput()
	c.Extra().rest = nil
	l.Wires.Shutdown(int(c.Fd))
	c.Extra().deadline = l.Now + patience(c, lingerWait)
	l.arm(c)
}

// closeReceived handles the peer's close frame, whether it begins the close or answers ours.
func (c *Conn) closeReceived(payload []byte) {
	l := c.Loop
	code, _, violation := frame.ParseClose(payload)
	if violation != 0 {
		c.violate(violation)
		return
	}
	c.Flags |= flagCloseReceived
	switch {
	case c.Phase == PhaseClosing:
		c.settle()
	case l.Owner.Closing(c, Ending{code: code}):
		c.endByPeer(code)
	}
}

// EndAs ends c by the peer's ending e, which the owner has kept until now.
func (c *Conn) EndAs(e Ending) {
	if e.violation != frame.Fine {
		c.violate(e.violation)
		return
	}
	c.endByPeer(e.code)
}

// endByPeer answers the peer's close frame with its own code [RFC 6455 §5.5.1].
func (c *Conn) endByPeer(code ws.StatusCode) {
	if code == ws.StatusNoStatusRcvd {
		c.End(CausePeerClosed, 0, "")
		return
	}
	c.End(CausePeerClosed, code, "")
}

// violate fails the connection: the code says how the peer broke the protocol [RFC 6455 §7.1.7].
func (c *Conn) violate(v frame.Violation) {
	l := c.Loop
	if c.Phase == PhaseClosing {
		c.Flags |= flagNoHandshake // no frame behind this point can be read, not even a close frame
		c.settle()
		return
	}
	if l.Owner.Closing(c, Ending{violation: v}) {
		c.End(CauseProtocol, v.Code(), v.String())
	}
}

// Lose ends the writing to c after a failed write. Input that the peer sent earlier may still be unread: the reactor reads
// it, finds the end of the stream, and reports it.
func (c *Conn) Lose() {
	l := c.Loop
	if c.Phase >= PhaseClosing {
		c.drop()
		return
	}
	c.mute()
	c.Extra().deadline = l.Now + int64(closeWait)
	l.arm(c)
}

// mute discards the frames that are queued for c, and all later ones.
func (c *Conn) mute() {
	c.Flags |= FlagMute
	c.Blocked = false
	c.Taken = 0
	c.DropQueue()
	c.backlogShrunk() // no flush will do it
}

// dropMute ends c without a close frame if no frame can be sent to it.
func (c *Conn) dropMute() bool {
	if !c.Has(FlagMute) {
		return false
	}
	c.Phase = phaseLinger
	c.drop()
	return true
}

// drop asks the reactor to close the descriptor at the end of the turn; Gone follows.
func (c *Conn) drop() {
	l := c.Loop
	if !c.Has(FlagDropping) && c.Phase != PhaseGone {
		c.Flags |= FlagDropping
		l.Drops = append(l.Drops, c)
	}
}

// depart is the logical end of a connection whose transport is gone.
func (c *Conn) depart() {
	cause := CausePeerGone
	if c.Phase < PhaseOpen {
		cause = CauseHandshake
	}
	c.detach(cause)
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
		c.mute()
		c.nextBeat = 0
		c.Extra().deadline = l.Now + int64(l.Ground.Limits.Owner)
		l.arm(c)
		return
	}
	if c.Phase < PhaseClosing {
		c.depart()
	}
	c.release()
}

// release frees the slot of a connection that has ended and whose descriptor is closed.
func (c *Conn) release() {
	l := c.Loop
	c.Phase = PhaseGone
	c.freeInput()
	if c.Rare != nil {
		c.Rare.rest = nil
	}
	c.Taken = 0
	c.DropQueue()
	l.Wheel.Clear(c.Slot)
	l.Far.Clear(c.Slot)
	if !c.Has(FlagKept) {
		c.Forget()
	}
	if l.Owes.Writes || l.Owes.Flush {
		l.Wake() // the caller may be outside a turn, and no other event may follow
	}
}

// Forget frees the slot of a connection that is gone.
func (c *Conn) Forget() {
	l := c.Loop
	l.Slab.release(c.Slot)
	l.Ground.Departed(c)
}
