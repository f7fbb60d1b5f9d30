package engine

import (
	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/handshake"
)

// While an answer of the application (or of another loop) is awaited for a connection, its later
// messages wait in order, built-in ones and its close frame too. What waits is bounded in bytes; the
// answer has a deadline. A late answer finds that its pending is no longer the connection's and is
// forgotten.
//
// What waits is carried out, too, when the peer has ended its stream meanwhile, or reset it: until then the connection
// stays in its rooms, without a transport, for offload_timeout at the most.

type pendingKind uint8

const (
	pendingVerdict pendingKind = iota // connect handlers
	pendingAuth                       // the auth handler
	pendingHandler                    // an offloaded handler
	pendingClaim                      // the loop of a session's previous connection
	pendingLetters                    // what is posted for the connection
	pendingMembers                    // other workers, for a room's members
	pendingSeat                       // seats that all workers share
	pendingRooms                      // the rooms of a session that is resumed
	pendingSave                       // the store, for a join or leave that is stored before it happens
	pendingTurn                       // no answer: a later turn, since this one has enough
)

// pending is an awaited answer.
//
// Owner: loop.
type pending struct {
	kind     pendingKind
	name     string // of the handler, for the log
	ref      []byte
	move     move   // of a pendingSave, and of a pendingSeat where it is stored; else zero
	along    []move // moves behind it that are stored with it
	covered  int    // how many of held are among them, once err says what became of the save
	err      error
	deadline int64
	held     []heldItem
	bytes    int
}

// heldItem is a message that waits, or how the peer's frames end.
//
// Owner: loop.
type heldItem struct {
	payload []byte
	binary  bool
	closing bool
	ending  turn.Ending // where it is closing
}

// heldItemBytes is what an item costs besides its payload.
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

// hold keeps a message until the answer is there. payload is kept, not copied. What follows a close frame, or a frame that
// is wrong, is thrown away [RFC 6455 §5.5.1].
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

// behind runs f once what is posted for c has been opened. Until then its later messages wait. ref is borrowed.
func (l *loop) behind(c *Conn, name string, ref []byte, f func(ref []byte)) {
	p := l.await(c, pendingLetters, name, ref)
	l.postCall(func(l *loop) {
		if l.settled(c, p) {
			f(p.ref)
			l.goOnAfter(c, p)
		}
	})
}

// settled takes p off c, and reports false where c no longer waits for it.
func (l *loop) settled(c *Conn, p *pending) bool {
	if c.rare == nil || c.rare.pending != p {
		return false
	}
	c.rare.pending = nil
	return true
}

// goOnAfter works through what waited for p, until there is something new to wait for.
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

// outlives reports whether messages of c wait that came before its stream ended: they are carried out, as they would
// have been had the answer been quicker.
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

// conclude lets those go on who waited until nothing is pending for c any more.
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

// takeHeirs returns those who wait to claim the session of c: they must be called.
func (c *Conn) takeHeirs() []func(*loop) {
	if c.rare == nil {
		return nil
	}
	heirs := c.rare.heirs
	c.rare.heirs = nil
	return heirs
}

// afterHeld runs f, for somebody who has claimed the session of c: at once, or when the messages that wait have been
// carried out, which may take half of what a claimant on another worker waits for. Two that wait for each other's
// session do not wait.
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

// dropPending forgets what c waits for.
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

// askApplication runs the connect handlers on their pool. Where the connection has gone before its turn comes, they are not
// asked: those who wait behind it are.
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

// verdict is what the connect handlers said.
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

// runOffloaded runs a handler on the messages' pool. The message is cloned: its bytes are gone after this turn. It is handled
// although its connection may have gone meanwhile: it was sent.
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
