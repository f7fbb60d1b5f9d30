package engine

import (
	"github.com/parleyd/parley/engine/internal/guard"
	"github.com/parleyd/parley/engine/internal/pending"
	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/handshake"
	"github.com/parleyd/parley/protocol/message"
)

// The code of the application that may block runs on a pool. The connection waits for the outcome meanwhile.

// askApplication runs the connect handlers on their pool. If the connection has gone before its turn comes, the handlers are
// not called, so that the next in the queue does not wait.
func (l *loop) askApplication(c *Conn, handlers []ConnectHandler, r *Request) {
	p := c.wire.Await(pending.Verdict, "connect", nil)
	ok := l.srv.pools.Connect.Submit(func() {
		if c.Cause() != CauseNone {
			return
		}
		refusal := refusalPanicked // unless it returns
		defer func() { l.PostCall(func() { l.verdict(c, p, refusal) }) }()
		refusal = l.srv.runConnect(c, handlers, r)
	})
	if !ok {
		c.wire.Rare.Pending = nil
		c.wire.Refuse(turn.RefusalBusy)
	}
}

// verdict carries out the connect handlers' decision.
func (l *loop) verdict(c *Conn, p *pending.Pending, r *Refusal) {
	defer l.Rescue(c.wire.Wire())
	if !c.wire.Settled(p) {
		return
	}
	closing := c.wire.Rare.Closing
	if r != nil && closing == nil {
		if r.Code == 0 {
			c.wire.Refuse(handshake.Refusal{Status: r.Status, Reason: r.Reason})
			return
		}
		closing = c.wire.CloseCallOf(r.Code, r.Reason)
	}
	if closing != nil {
		c.wire.Rare.Closing = nil
		c.wire.UpgradeToClose(closing.Cause, closing.Code, closing.Reason)
		return
	}
	c.wire.Admit()
	c.wire.Conclude()
}

// authenticate runs the auth handler on its pool, as askApplication does.
func (l *loop) authenticate(c *Conn, handler AuthHandler, token string, ref []byte) {
	first, kind := c.wire.Has(flagAuth), pending.Handler
	if first {
		c.wire.Rare.AnswerBy, kind = 0, pending.Auth
	}
	p := c.wire.Await(kind, "auth", ref)
	ok := l.srv.pools.Auth.Submit(func() {
		if c.Cause() != CauseNone {
			return
		}
		out := guard.Outcome{Panicked: true} // unless it returns
		defer func() { l.PostCall(func() { l.authenticated(c, p, out) }) }()
		out = l.srv.guard.Auth(c.pending(), func() error { return handler(c, token) })
	})
	if !ok && c.wire.Settled(p) {
		c.wire.Complain(message.ErrOverloaded, ref)
		if first {
			c.wire.Rare.AnswerBy = l.Now + int64(l.srv.cfg.AuthTimeout)
			c.wire.ResetAlarm()
		}
	}
}

// runOffloaded runs a handler on the messages' pool. The message is cloned: its bytes are valid only in this turn. It is
// handled even if its connection goes meanwhile.
func (l *loop) runOffloaded(c *Conn, r *route, m *Message) {
	own := m.clone()
	p := c.wire.Await(pending.Handler, r.name, own.ref)
	ok := l.srv.pools.Messages.Submit(func() {
		out := guard.Outcome{Panicked: true} // unless it returns
		defer func() {
			l.PostCall(func() {
				if c.wire.Settled(p) {
					l.reply(c, r.name, p.Ref, out)
					c.wire.GoOnAfter(p)
				}
			})
		}()
		out = l.srv.run(c, r, own)
	})
	if !ok && c.wire.Settled(p) {
		c.wire.Complain(message.ErrOverloaded, own.ref)
	}
}

// onAuth starts the authentication of a connection, also of one that has authenticated before and renews its rights.
func (l *loop) onAuth(c *Conn, e *message.Envelope) {
	handler := l.srv.authHandler.Load()
	switch {
	case handler == nil:
		c.wire.Complain(&Error{Code: message.UnknownType.String(), Message: "this server asks for no auth message"}, e.Ref)
	case e.Token != nil:
		l.authenticate(c, *handler, string(e.Token), e.Ref)
	case c.wire.Has(flagAuth):
		c.wire.Complain(&Error{Code: message.InvalidMessage.String(), Message: `auth needs a "token" that is a string`}, e.Ref)
	default: // it has nothing to renew
		l.tellAuthenticated(c, e.Ref)
	}
}

func (l *loop) tellAuthenticated(c *Conn, ref []byte) {
	user, expiresIn := l.TokenOf(&c.wire)
	l.Text = message.AppendAuthenticatedAs(l.Text[:0], user, expiresIn, ref)
	c.wire.Answer(l.Text)
}

// refusalsMax is the number of bad tokens in a row, after a good one, that ends a connection.
const refusalsMax = 3

// authenticated is what the auth handler said.
func (l *loop) authenticated(c *Conn, p *pending.Pending, out guard.Outcome) {
	if !c.wire.Settled(p) {
		return
	}
	switch {
	case out.Panicked:
		c.wire.EndBy(CausePanic)
		return
	case out.Refusal != nil:
		c.wire.Complain(out.Refusal, p.Ref)
		token := &c.wire.WithRare().Token
		token.Refusals++
		switch code := out.Refusal.Code; {
		case code == message.Unavailable.String() || code == message.Overloaded.String(): // it says nothing about the token
			if token.Refusals--; c.wire.Has(flagAuth) {
				c.wire.End(CauseOverloaded, turn.StatusTryAgain, "tokens cannot be verified now, try again later")
				return
			}
		case c.wire.Has(flagAuth) && code == message.TokenExpired.String():
			c.wire.EndBy(CauseExpired) // as with the token of a handshake
			return
		case c.wire.Has(flagAuth) || token.Refusals >= refusalsMax:
			c.wire.EndBy(CauseUnauthorized)
			return
		}
		c.wire.GoOnAfter(p)
		return
	}
	first := c.wire.Has(flagAuth)
	c.wire.Flags &^= flagAuth
	l.tellAuthenticated(c, p.Ref)
	if first {
		l.begun(c)
	}
	l.reviewRooms(c)
	c.wire.GoOnAfter(p)
	c.wire.TokenTaken()
}
