package engine

import (
	"fmt"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/protocol/deflate"
	"github.com/parleyd/parley/protocol/handshake"
	"github.com/parleyd/parley/protocol/message"
)

// The opening handshake: the head arrives, perhaps in pieces; the server looks at it; the application's
// connect handlers look at it on the pool; then the connection is switched, or refused with an HTTP status.

// acceptance is what the handshake agreed on.
//
// Owner: loop.
type acceptance struct {
	key        []byte
	protocol   string
	extensions []byte
	params     deflate.Params
	compressed bool
}

var (
	refusalTooSlow = handshake.Refusal{Status: 408, Reason: "the opening handshake took too long"}
	refusalOrigin  = handshake.Refusal{Status: 403, Reason: "pages of this origin may not connect; the server's origins list names those that may"}
	refusalFull    = handshake.Refusal{Status: 503, Reason: "the server has as many connections as it takes; try again later", RetryAfter: 5}
	refusalLeaving = handshake.Refusal{Status: 503, Reason: "the server is going away; try again later", RetryAfter: 1}
	refusalBusy    = handshake.Refusal{Status: 503, Reason: "too many connections wait for their authentication; try again later", RetryAfter: 2}
	refusalSlow    = handshake.Refusal{Status: 503, Reason: "the authentication took too long; try again later", RetryAfter: 2}
	refusalFailed  = handshake.Refusal{Status: 500, Reason: "the server failed to look at this request"}
)

// refusalFor is what a connection that is ended before its upgrade is told.
func refusalFor(cause Cause) handshake.Refusal {
	if cause == CauseShutdown {
		return refusalLeaving
	}
	return refusalFailed
}

// begin starts the life of a connection whose descriptor is on the loop. It reports false where the
// loop has no slot left.
func (l *loop) begin(c *Conn) bool {
	l.now = l.srv.clock()
	if l.nextTick == 0 {
		l.nextTick = l.now + int64(l.srv.tick) // or a stall before the first tick would not be seen
	}
	c.gen = l.rand.Uint64()&generationMask | 1
	c.lastActive.Store(l.now)
	if !l.slab.take(c) {
		c.phase = phaseGone
		l.srv.departed(c)
		return false
	}
	wait := l.srv.cfg.HandshakeTimeout
	if c.has(flagRefusal) {
		wait = min(wait, refusalWait)
	}
	c.extra().deadline = l.now + int64(wait)
	l.arm(c)
	if l.srv.cfg.ProxyProtocol {
		c.phase = phasePreface
	}
	return true
}

// head takes bytes of the opening handshake and returns what follows it.
func (l *loop) head(c *Conn, chunk []byte) []byte {
	head, rest := chunk, []byte(nil)
	if c.buf != nil {
		c.buf = append(c.buf, chunk...)
		head = c.buf
	}
	n := handshake.End(head, c.extra().scanned)
	switch {
	case n == 0 && len(head) > l.srv.headLimits.Bytes:
		n = len(head) // Parse says that it is too long
	case n == 0 && handshake.Hopeless(head):
		n = len(head)
	case n == 0:
		if c.buf == nil {
			c.buf = l.gatherInput(nil, chunk)
		}
		c.rare.scanned = len(head)
		return nil
	}
	rest = head[n:]
	if refusal := handshake.Parse(head[:n], &l.srv.headLimits, &l.request); refusal.Status != 0 {
		l.refuse(c, refusal)
		return nil
	}
	l.consider(c, rest)
	return nil
}

// consider decides on a well-formed request, or has the application decide. rest is what came behind it.
func (l *loop) consider(c *Conn, rest []byte) {
	srv, r := l.srv, &l.request
	switch {
	case c.has(flagRefusal):
		l.refuse(c, refusalFull)
		return
	case srv.leaving.Load():
		l.refuse(c, refusalLeaving)
		return
	case !srv.tuned.Load().origins.Allow(r.Origin()):
		l.count.originRefused.Add(1)
		l.refuse(c, refusalOrigin)
		return
	}
	if srv.trust != nil && !l.traceClient(c) {
		l.refuse(c, refusalForwarded)
		return
	}
	a := acceptance{key: r.Key, protocol: handshake.SelectProtocol(r.Protocols(), srv.cfg.Subprotocols)}
	if srv.cfg.Compression {
		a.params, a.compressed = deflate.Negotiate(r.Extensions(),
			deflate.Options{ContextTakeover: srv.cfg.CompressionContextTakeover})
	}
	c.rare.deadline = 0
	handlers := srv.connectHandlers.Load()
	if handlers == nil {
		early := c.buf // rest may lie in it
		c.buf = nil
		l.upgrade(c, &a)
		l.input(c, rest)
		if early != nil && len(l.buffers) < inputsKept && cap(early) <= inputBytesKept {
			l.buffers = append(l.buffers, early[:0])
		}
		return
	}
	a.key = append([]byte(nil), a.key...)
	c.rare.accepted = &a
	c.phase = phaseVerdict
	request := r.Clone()
	early := append([]byte(nil), rest...)
	l.freeInput(c)
	if len(early) > 0 {
		c.buf = early
	}
	l.askApplication(c, *handlers, request)
}

// holdEarly keeps frames that a client sent without waiting for our answer.
func (l *loop) holdEarly(c *Conn, chunk []byte) {
	if len(c.buf)+len(chunk) > l.srv.pendingBytesMax {
		l.refuse(c, refusalBusy)
		return
	}
	c.buf = append(c.buf, chunk...)
}

// upgrade switches protocols and greets.
func (l *loop) upgrade(c *Conn, a *acceptance) {
	accept := handshake.Accept{Key: a.key, Protocol: a.protocol}
	if a.compressed {
		l.text = a.params.Append(l.text[:0])
		accept.Extensions = l.text
	}
	l.cork = handshake.AppendSwitch(l.cork, accept)
	l.corkRaw = len(l.cork)
	if l.corked != c {
		l.pushRaw(c, sealed(append([]byte(nil), l.cork...)))
		l.cork, l.corkRaw = l.cork[:0], 0
		l.soil(c)
	}
	c.decoder.Reset(&l.srv.frameLimits, a.compressed)
	if a.compressed {
		l.startCompression(c, a.params)
	}
	c.connectedAt = uint32(l.srv.seconds(l.now))
	c.lastActive.Store(l.now) // while it waited for the verdict there was nothing for it to say
	c.nextBeat = l.now + l.srv.tuned.Load().interval
	l.count.accepted.Add(1)
	c.phase = phaseOpen
	if l.srv.cfg.Bare {
		c.admitted.Store(true)
		l.srv.live.Add(1)
	} else {
		l.greet(c)
	}
	if r := c.rare; r != nil {
		welcome := r.welcome
		r.welcome = nil
		for _, f := range welcome {
			l.queue(c, f)
		}
	}
	l.trimRare(c)
	l.arm(c)
}

func (l *loop) startCompression(c *Conn, p deflate.Params) {
	c.bits = p.ServerBits
	if !p.ServerNoContext {
		c.extra().shrinker = new(deflate.Shrinker)
	}
	if !p.ClientNoContext {
		c.extra().window = deflate.NewWindow(p.ClientBits)
	}
}

// greet tells a client its id and, once it is authenticated, the token of its session.
func (l *loop) greet(c *Conn) {
	var id [idSize]byte
	l.text = message.AppendConnected(l.text[:0], c.appendID(id[:0]), int64(c.connectedAt))
	l.answer(c, l.text)
	if l.srv.authHandler.Load() != nil && c.principal.Load() == nil {
		c.phase = phaseAuth
		c.extra().deadline = l.now + int64(l.srv.cfg.AuthTimeout)
		return
	}
	l.admit(c)
}

// admit begins the session of an authenticated connection.
func (l *loop) admit(c *Conn) {
	c.admitted.Store(true)
	l.srv.live.Add(1)
	l.issueToken(c)
	l.srv.emit(Event{Kind: EventConnect, Conn: c})
}

// trimRare drops the rare part of a connection that needs it no longer.
func (l *loop) trimRare(c *Conn) {
	if r := c.rare; r != nil {
		r.accepted, r.scanned = nil, 0
		if r.idle() {
			c.rare = nil
		}
	}
}

// refuse answers the handshake with an HTTP error and closes.
func (l *loop) refuse(c *Conn, r handshake.Refusal) {
	if c.phase >= phaseClosing {
		return
	}
	l.count.refused(r.Status)
	l.detach(c, CauseHandshake)
	if l.dropMute(c) {
		return
	}
	c.phase = phaseRefused
	c.flags |= flagNoHandshake
	l.freeInput(c)
	l.text = handshake.AppendRefusal(l.text[:0], r)
	l.emitClose(c, l.text)
	if l.corked == c {
		l.corkRaw = len(l.cork)
	}
	c.extra().deadline = l.now + int64(closeWait)
	l.arm(c)
}

// A Refusal is the error with which a connect handler turns a request away: before the upgrade with an
// HTTP status, or after it with a close code that the page can read.
type Refusal struct {
	Status int           // an HTTP status, 400 to 599
	Code   ws.StatusCode // or a close code
	Reason string        // for the body, or the close frame (at most 123 bytes)
}

func (r *Refusal) Error() string {
	if r == nil {
		return "not refused" // a nil pointer in a chain of errors
	}
	return fmt.Sprintf("refused (%d): %s", max(r.Status, int(r.Code)), r.Reason)
}

// RefuseStatus turns a request away before the upgrade, with an HTTP status of 400 to 599.
func RefuseStatus(status int, reason string) error { return &Refusal{Status: status, Reason: reason} }

// Refuse lets the upgrade take place and closes at once, so that the close code arrives: browsers do not
// show an HTTP status to the page. Codes and reasons as of [Conn.CloseWith].
func Refuse(code ws.StatusCode, reason string) error { return &Refusal{Code: code, Reason: reason} }
