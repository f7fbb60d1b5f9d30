package engine

import (
	"time"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/protocol/deflate"
	"github.com/parleyd/parley/protocol/handshake"
	"github.com/parleyd/parley/protocol/ident"
)

// The opening handshake: the head arrives, perhaps in pieces; the owner looks at it, and may take a while; then the
// connection is switched, or refused with an HTTP status.

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
	refusalFull    = handshake.Refusal{Status: 503, Reason: "the server has as many connections as it takes; try again later", RetryAfter: 5}
	refusalLeaving = handshake.Refusal{Status: 503, Reason: "the server is going away; try again later", RetryAfter: 1}
	refusalBusy    = handshake.Refusal{Status: 503, Reason: "too many connections wait for their authentication; try again later", RetryAfter: 2}
	refusalFailed  = handshake.Refusal{Status: 500, Reason: "the server failed to look at this request"}
)

// refusalWait is how long a newcomer has for its request, when it will be refused anyway.
const refusalWait = time.Second

// refusalFor is what a connection that is ended before its upgrade is told.
func refusalFor(cause Cause) handshake.Refusal {
	if cause == CauseShutdown {
		return refusalLeaving
	}
	return refusalFailed
}

// begin starts the life of a connection whose descriptor is on the loop. It reports false where the
// loop has no slot left.
func (l *turnLoop) begin(c *turnConn) bool {
	l.now = l.ground.clock()
	if l.nextTick == 0 {
		l.nextTick = l.now + int64(l.ground.tick) // or a stall before the first tick would not be seen
	}
	c.gen = l.rand.Uint64()&ident.GenMax | 1
	c.lastActive.Store(l.now)
	if !l.slab.take(c) {
		c.phase = phaseGone
		l.ground.departed(c)
		return false
	}
	wait := l.ground.limits.handshake
	if c.has(flagRefusal) {
		wait = min(wait, refusalWait)
	}
	c.extra().deadline = l.now + int64(wait)
	l.arm(c)
	if l.ground.limits.preface {
		c.phase = phasePreface
	}
	return true
}

// head takes bytes of the opening handshake and returns what follows it.
func (l *turnLoop) head(c *turnConn, chunk []byte) []byte {
	head, rest := chunk, []byte(nil)
	if c.buf != nil {
		c.buf = append(c.buf, chunk...)
		head = c.buf
	}
	n := handshake.End(head, c.extra().scanned)
	switch {
	case n == 0 && len(head) > l.ground.limits.head.Bytes:
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
	if refusal := handshake.Parse(head[:n], &l.ground.limits.head, &l.request); refusal.Status != 0 {
		l.refuse(c, refusal)
		return nil
	}
	l.consider(c, rest)
	return nil
}

// consider has the owner decide on a well-formed request. rest is what came behind it.
func (l *turnLoop) consider(c *turnConn, rest []byte) {
	r := &l.request
	if c.has(flagRefusal) {
		l.refuse(c, refusalFull)
		return
	}
	said := l.owner.opening(c, r)
	if said.refusal.Status != 0 {
		l.refuse(c, said.refusal)
		return
	}
	limits := &l.ground.limits
	a := acceptance{key: r.Key, protocol: handshake.SelectProtocol(r.Protocols(), limits.subprotocols)}
	if limits.compression {
		a.params, a.compressed = deflate.Negotiate(r.Extensions(), limits.deflate)
	}
	c.rare.deadline = 0
	if said.ask == nil {
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
	early := append([]byte(nil), rest...)
	l.freeInput(c)
	if len(early) > 0 {
		c.buf = early
	}
	said.ask()
}

// holdEarly keeps frames that a client sent without waiting for our answer.
func (l *turnLoop) holdEarly(c *turnConn, chunk []byte) {
	if len(c.buf)+len(chunk) > l.ground.limits.early {
		l.refuse(c, refusalBusy)
		return
	}
	c.buf = append(c.buf, chunk...)
}

// admit upgrades a connection about which its owner was asked, and goes on with what it has sent since.
func (l *turnLoop) admit(c *turnConn) {
	early := c.buf
	c.buf = nil
	l.upgrade(c, c.rare.accepted)
	l.input(c, early)
}

// upgradeToClose switches protocols for no other reason than to close with a code.
func (l *turnLoop) upgradeToClose(c *turnConn, cause Cause, code ws.StatusCode, reason string) {
	a := c.rare.accepted
	l.pushRaw(c, sealed(handshake.AppendSwitch(nil, handshake.Accept{Key: a.key, Protocol: a.protocol})))
	c.decoder.Reset(&l.ground.limits.frame, false)
	c.rare.accepted = nil
	early := c.buf
	c.buf = nil
	c.phase = phaseOpen
	l.end(c, cause, code, reason)
	l.input(c, early)
}

// upgrade switches protocols and has the owner greet.
func (l *turnLoop) upgrade(c *turnConn, a *acceptance) {
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
	c.decoder.Reset(&l.ground.limits.frame, a.compressed)
	if a.compressed {
		l.startCompression(c, a.params)
	}
	c.connectedAt = uint32(l.ground.seconds(l.now))
	c.lastActive.Store(l.now) // while it waited for the verdict there was nothing for it to say
	c.nextBeat = l.now + l.ground.beats.Load().interval
	l.count[countAccepted].Add(1)
	c.phase = phaseOpen
	l.owner.opened(c)
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

func (l *turnLoop) startCompression(c *turnConn, p deflate.Params) {
	c.bits = p.ServerBits
	if !p.ServerNoContext {
		c.extra().shrinker = new(deflate.Shrinker)
	}
	if !p.ClientNoContext {
		c.extra().window = deflate.NewWindow(p.ClientBits)
	}
}

// trimRare drops the rare part of a connection that needs it no longer.
func (l *turnLoop) trimRare(c *turnConn) {
	if r := c.rare; r != nil {
		r.accepted, r.scanned = nil, 0
		if r.idle() {
			c.rare = nil
		}
	}
}

// refuse answers the handshake with an HTTP error and closes.
func (l *turnLoop) refuse(c *turnConn, r handshake.Refusal) {
	if c.phase >= phaseClosing {
		return
	}
	l.count[countRefused].Add(1)
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
