package engine

import (
	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/handshake"
)

// While a connection waits for an answer of the application (or of another loop), its later messages wait in order, built-in
// ones and its close frame too. The waiting messages are bounded in bytes, and the answer has a deadline. A late answer no
// longer finds its pending on the connection and is dropped.
//
// If the peer ends or resets its stream meanwhile, the waiting messages are still carried out: until then the connection
// stays in its rooms, without a transport, for offload_timeout at the most.

type pendingKind uint8

const (
	pendingVerdict pendingKind = iota // connect handlers
	pendingAuth                       // the auth handler
	pendingHandler                    // an offloaded handler
	pendingClaim                      // the store or the owner of a session that is claimed
	pendingLetters                    // the letters that are posted for the connection
	pendingMembers                    // other workers, for a room's members
	pendingSeat                       // seats that all workers share
	pendingRooms                      // the rooms of a session that is resumed
	pendingSave                       // the store, for a join or leave that is stored before it happens
	pendingTurn                       // a later turn, because this one has taken enough
)

// pending is an awaited answer.
//
// Owner: loop.
type pending struct {
	kind     pendingKind
	name     string // of the handler, for the log
	ref      []byte
	move     move   // of a pendingSave, and of a pendingSeat where it is stored; else zero
	along    []move // held moves that are stored with it
	covered  int    // how many held items are among them, once err is the result of the save
	err      error
	deadline int64
	held     []heldItem
	bytes    int
}

// heldItem is a message that waits, or the ending of the peer's frames.
//
// Owner: loop.
type heldItem struct {
	payload []byte
	binary  bool
	closing bool
	ending  turn.Ending // if it is an ending
}

// heldItemBytes is the cost of an item besides its payload.
const heldItemBytes = 64

// await makes c wait for an answer.
func (l *loop) await(c *Conn, kind pendingKind, name string, ref []byte) *pending {
	p := &pending{kind: kind, name: name, deadline: l.Now + int64(l.srv.cfg.OffloadTimeout)}
	if len(ref) > 0 {
		p.ref = append([]byte(nil), ref...)
	}
	c.extra().pending = p
	l.resetAlarm(c)
	return p
}

// hold keeps a message until the answer is there. payload is kept, not copied. Input behind a close frame, or behind a frame
// that is wrong, is discarded [RFC 6455 §5.5.1].
func (l *loop) hold(c *Conn, item heldItem) {
	p := c.rare.pending
	if n := len(p.held); n > 0 && p.held[n-1].closing {
		return // the connection ends there
	}
	p.bytes += len(item.payload) + heldItemBytes
	if p.bytes > l.srv.pendingBytesMax && !item.closing {
		l.endBy(c, CauseOverloaded)
		return
	}
	p.held = append(p.held, item)
}

// behind runs f once the letters that are posted for c have been opened. Until then its later messages wait. ref is
// borrowed.
func (l *loop) behind(c *Conn, name string, ref []byte, f func(ref []byte)) {
	p := l.await(c, pendingLetters, name, ref)
	l.postCall(func(l *loop) {
		if l.settled(c, p) {
			f(p.ref)
			l.goOnAfter(c, p)
		}
	})
}

// settled takes p off c, and reports false if c no longer waits for it.
func (l *loop) settled(c *Conn, p *pending) bool {
	if c.rare == nil || c.rare.pending != p {
		return false
	}
	c.rare.pending = nil
	return true
}

// goOnAfter carries out the messages that waited for p, until one of them has to wait again.
func (l *loop) goOnAfter(c *Conn, p *pending) {
	defer l.Rescue(&c.wire)
	for i, item := range p.held {
		if c.wire.Phase != turn.PhaseOpen {
			return
		}
		if r := c.rare; r != nil && r.pending != nil {
			for _, later := range p.held[i:] {
				l.hold(c, later)
			}
			return
		}
		if i > 0 && l.Sated(&c.wire) {
			c.extra().pending = &pending{kind: pendingTurn, held: p.held[i:], bytes: p.bytes}
			l.PutOffMessages(&c.wire)
			break
		}
		if item.closing {
			l.EndAs(&c.wire, item.ending)
			return
		}
		p.bytes -= len(item.payload) + heldItemBytes
		p.held[i] = heldItem{}
		l.dispatchNext(c, p, item, p.held[i+1:])
	}
	l.resetAlarm(c)
	l.conclude(c)
}

// outlives reports whether messages wait that c sent before its stream ended: they are carried out, as they would have been
// with a quicker answer.
func (l *loop) outlives(c *Conn) bool {
	switch r := c.rare; {
	case c.wire.Behindhand():
		return true
	case r == nil || r.pending == nil:
		return false
	case c.wire.Phase == turn.PhaseVerdict:
		return len(c.wire.Buf) > 0
	default:
		return len(r.pending.held) > 0 && !r.pending.held[0].closing
	}
}

// conclude calls the claimants that waited until nothing is pending for c.
func (l *loop) conclude(c *Conn) {
	if c.wire.Phase >= turn.PhaseClosing || c.rare != nil && c.rare.pending != nil || c.wire.Behindhand() {
		return
	}
	for _, f := range c.takeHeirs() {
		f(l)
	}
	if c.wire.Fd < 0 {
		l.endBy(c, CausePeerGone)
	}
}

// takeHeirs returns the claimants of the session of c; the caller must call them.
func (c *Conn) takeHeirs() []func(*loop) {
	if c.rare == nil {
		return nil
	}
	heirs := c.rare.heirs
	c.rare.heirs = nil
	return heirs
}

// afterHeld runs f for a claimant of the session of c: at once, or when the held messages have been carried out, for at most
// half of the time that a claimant on another worker waits. Two connections that claim each other's session do not wait.
func (l *loop) afterHeld(c *Conn, f func(*loop)) {
	if c.wire.Phase != turn.PhaseOpen || !l.outlives(c) {
		f(l)
		return
	}
	r := c.extra()
	if r.pending != nil && r.pending.kind == pendingClaim {
		f(l)
		return
	}
	r.heirs = append(r.heirs, f)
	r.answerBy = turn.Earlier(r.answerBy, l.Now+int64(handOverWait/2))
	l.resetAlarm(c)
}

// dropPending discards the pending answer of c and the held messages.
func (l *loop) dropPending(c *Conn) {
	if c.rare != nil {
		c.rare.pending = nil
	}
	c.wire.Flags &^= turn.FlagMore
}

// pendingOverdue answers in place of an application that took too long.
func (l *loop) pendingOverdue(c *Conn) {
	p := c.rare.pending
	l.Count[countOverdue].Add(1)
	l.srv.log.Warn("an answer took too long", "handler", p.name, "conn", c.ID(), "timeout", l.srv.cfg.OffloadTimeout)
	switch p.kind {
	case pendingVerdict:
		c.rare.pending = nil
		l.refuse(c, refusalSlow)
	case pendingAuth:
		l.endBy(c, CauseOverloaded)
	default:
		if l.settled(c, p) {
			l.complain(c, errUnavailable, p.ref)
			l.goOnAfter(c, p)
		}
	}
}

// askApplication runs the connect handlers on their pool. If the connection has gone before its turn comes, the handlers are
// not called, so that the next in the queue does not wait.
func (l *loop) askApplication(c *Conn, handlers []ConnectHandler, r *Request) {
	p := l.await(c, pendingVerdict, "connect", nil)
	ok := l.srv.pools.connect.submit(func() {
		if c.Cause() != CauseNone {
			return
		}
		refusal := refusalPanicked // unless it returns
		defer func() { l.postCall(func(l *loop) { l.verdict(c, p, refusal) }) }()
		refusal = l.srv.runConnect(c, handlers, r)
	})
	if !ok {
		c.rare.pending = nil
		l.refuse(c, turn.RefusalBusy)
	}
}

// verdict carries out the connect handlers' decision.
func (l *loop) verdict(c *Conn, p *pending, r *Refusal) {
	defer l.Rescue(&c.wire)
	if !l.settled(c, p) {
		return
	}
	closing := c.rare.closing
	if r != nil && closing == nil {
		if r.Code == 0 {
			l.refuse(c, handshake.Refusal{Status: r.Status, Reason: r.Reason})
			return
		}
		cause := CauseApplication
		if r.Code == StatusUnauthorized {
			cause = CauseUnauthorized
		}
		code, reason := c.farewell(r.Code, r.Reason)
		closing = &closeCall{cause, code, reason}
	}
	if closing != nil {
		c.rare.closing = nil
		l.UpgradeToClose(&c.wire, closing.cause, closing.code, closing.reason)
		return
	}
	l.Admit(&c.wire)
	l.conclude(c)
}

// authenticate runs the auth handler on its pool, as askApplication does.
func (l *loop) authenticate(c *Conn, handler AuthHandler, token string, ref []byte) {
	c.rare.answerBy = 0
	p := l.await(c, pendingAuth, "auth", ref)
	ok := l.srv.pools.auth.submit(func() {
		if c.Cause() != CauseNone {
			return
		}
		out := outcome{panicked: true} // unless it returns
		defer func() { l.postCall(func(l *loop) { l.authenticated(c, p, out) }) }()
		out = l.srv.runAuth(c, handler, token)
	})
	if !ok && l.settled(c, p) {
		l.complain(c, errOverloaded, ref)
		c.rare.answerBy = l.Now + int64(l.srv.cfg.AuthTimeout)
		l.resetAlarm(c)
	}
}

// runOffloaded runs a handler on the messages' pool. The message is cloned: its bytes are valid only in this turn. It is
// handled even if its connection goes meanwhile.
func (l *loop) runOffloaded(c *Conn, r *route, m *Message) {
	own := m.clone()
	p := l.await(c, pendingHandler, r.name, own.ref)
	ok := l.srv.pools.messages.submit(func() {
		out := outcome{panicked: true} // unless it returns
		defer func() {
			l.postCall(func(l *loop) {
				if l.settled(c, p) {
					l.reply(c, r.name, p.ref, out)
					l.goOnAfter(c, p)
				}
			})
		}()
		out = l.srv.run(c, r, own)
	})
	if !ok && l.settled(c, p) {
		l.complain(c, errOverloaded, own.ref)
	}
}
