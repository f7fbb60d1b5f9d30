package turn

import (
	"time"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/protocol/deflate"
	"github.com/parleyd/parley/protocol/handshake"
	"github.com/parleyd/parley/protocol/ident"
)

// The opening handshake. The head arrives, perhaps in pieces. The owner decides on it, perhaps after a wait. Then the
// connection is upgraded, or refused with an HTTP status.

// acceptance is the handshake's agreement.
//
// Owner: loop.
type acceptance struct {
	key        []byte
	protocol   string
	params     deflate.Params
	compressed bool
}

// Refusals of the opening handshake.
var (
	refusalTooSlow = handshake.Refusal{Status: 408, Reason: "the opening handshake took too long"}
	refusalFull    = handshake.Refusal{Status: 503, Reason: "the server has as many connections as it takes; try again later", RetryAfter: 5}
	RefusalLeaving = handshake.Refusal{Status: 503, Reason: "the server is going away; try again later", RetryAfter: 1}
	RefusalBusy    = handshake.Refusal{Status: 503, Reason: "too many connections wait for their authentication; try again later", RetryAfter: 2}
	RefusalFailed  = handshake.Refusal{Status: 500, Reason: "the server failed to look at this request"}
)

// refusalWait is how long a new connection that will be refused has for its request.
const refusalWait = time.Second

// refusalFor is the HTTP answer for a connection that is ended before its upgrade.
func refusalFor(cause Cause) handshake.Refusal {
	if cause == CauseShutdown || cause == CauseDrain {
		return RefusalLeaving
	}
	return RefusalFailed
}

// Begin starts the life of a connection whose descriptor is on the loop. It reports false if the loop has no free slot.
func (l *Loop) Begin(c *Conn) bool {
	l.Now = l.Ground.Clock()
	if l.nextTick == 0 {
		l.nextTick = l.Now + int64(l.Ground.Tick) // otherwise a stall before the first tick would go unseen
	}
	c.Gen = l.rand.Uint64()&ident.GenMax | 1
	c.LastActive.Store(l.Now)
	if !l.Slab.take(c) {
		c.Phase = PhaseGone
		l.Ground.Departed(c)
		return false
	}
	wait := l.Ground.Limits.Handshake
	if c.Has(FlagRefusal | FlagCrowded) {
		wait = min(wait, refusalWait)
	}
	c.Extra().deadline = l.Now + int64(wait)
	l.arm(c)
	if l.Ground.Limits.Preface {
		c.Phase = phasePreface
	}
	return true
}

// head takes bytes of the opening handshake and returns what follows it.
func (l *Loop) head(c *Conn, chunk []byte) []byte {
	head, rest := chunk, []byte(nil)
	if c.Buf != nil {
		c.Buf = append(c.Buf, chunk...)
		head = c.Buf
	}
	n := handshake.End(head, c.Extra().scanned)
	switch {
	case n == 0 && len(head) > l.Ground.Limits.Head.Bytes:
		n = len(head) // Parse reports that the head is too long
	case n == 0 && handshake.Hopeless(head):
		n = len(head)
	case n == 0:
		if c.Buf == nil {
			c.Buf = l.gatherInput(nil, chunk)
		}
		c.Rare.scanned = len(head)
		return nil
	}
	rest = head[n:]
	if refusal := handshake.Parse(head[:n], &l.Ground.Limits.Head, &l.request); refusal.Status != 0 {
		c.Refuse(refusal)
		return nil
	}
	l.consider(c, rest)
	return nil
}

// consider asks the owner to decide on a well-formed request. rest is the input behind the request.
func (l *Loop) consider(c *Conn, rest []byte) {
	r := &l.request
	switch {
	case c.Has(FlagCrowded):
		c.Refuse(RefusalCrowded)
		return
	case c.Has(FlagRefusal):
		c.Refuse(refusalFull)
		return
	}
	said := l.Owner.Opening(c, r)
	if said.Refusal.Status != 0 {
		c.Refuse(said.Refusal)
		return
	}
	limits := &l.Ground.Limits
	a := acceptance{key: r.Key, protocol: handshake.SelectProtocol(r.Protocols(), limits.Subprotocols)}
	if limits.Compression {
		a.params, a.compressed = deflate.Negotiate(r.Extensions(), limits.Deflate)
	}
	c.Rare.deadline = 0
	if said.Ask == nil {
		early := c.Buf // rest may be a part of it
		c.Buf = nil
		l.upgrade(c, &a)
		l.input(c, rest)
		if early != nil && len(l.buffers) < inputsKept && cap(early) <= inputBytesKept {
			l.buffers = append(l.buffers, early[:0])
		}
		return
	}
	a.key = append([]byte(nil), a.key...)
	c.Rare.accepted = &a
	c.Phase = PhaseVerdict
	early := append([]byte(nil), rest...)
	c.freeInput()
	if len(early) > 0 {
		c.Buf = early
	}
	said.Ask()
}

// holdEarly keeps frames that a client sends before our answer to its request.
func (c *Conn) holdEarly(chunk []byte) {
	l := c.Loop
	if len(c.Buf)+len(chunk) > l.Ground.Limits.Early {
		c.Refuse(RefusalBusy)
		return
	}
	c.Buf = append(c.Buf, chunk...)
}

// Admit upgrades a connection on which its owner has decided, and takes the input that has come meanwhile.
func (c *Conn) Admit() {
	l := c.Loop
	early := c.Buf
	c.Buf = nil
	l.upgrade(c, c.Rare.accepted)
	l.input(c, early)
}

// UpgradeToClose upgrades a connection only in order to close it with a code.
func (c *Conn) UpgradeToClose(cause Cause, code ws.StatusCode, reason string) {
	l := c.Loop
	a := c.Rare.accepted
	c.push(Sealed(handshake.AppendSwitch(nil, handshake.Accept{Key: a.key, Protocol: a.protocol})))
	c.decoder.Reset(&l.Ground.Limits.Frame, false)
	c.Rare.accepted = nil
	early := c.Buf
	c.Buf = nil
	c.Phase = PhaseOpen
	c.End(cause, code, reason)
	l.input(c, early)
}

// upgrade switches protocols and calls the owner's Opened.
func (l *Loop) upgrade(c *Conn, a *acceptance) {
	accept := handshake.Accept{Key: a.key, Protocol: a.protocol}
	if a.compressed {
		l.Text = a.params.Append(l.Text[:0])
		accept.Extensions = l.Text
	}
	l.cork = handshake.AppendSwitch(l.cork, accept)
	l.corkRaw = len(l.cork)
	if l.corked != c {
		c.push(Sealed(append([]byte(nil), l.cork...)))
		l.cork, l.corkRaw = l.cork[:0], 0
	}
	c.decoder.Reset(&l.Ground.Limits.Frame, a.compressed)
	if a.compressed {
		c.startCompression(a.params)
	}
	c.ConnectedAt = uint32(l.Ground.Seconds(l.Now))
	c.LastActive.Store(l.Now) // the wait for the verdict is no silence of the peer
	c.nextBeat = l.Now + l.Ground.Beats.Load().Interval
	l.Count[CountAccepted].Add(1)
	c.Phase = PhaseOpen
	l.Owner.Opened(c)
	if r := c.Rare; r != nil {
		welcome := r.welcome
		r.welcome = nil
		for _, f := range welcome {
			c.Queue(f)
		}
	}
	c.Trim()
	l.arm(c)
}

func (c *Conn) startCompression(p deflate.Params) {
	c.Bits = p.ServerBits
	if !p.ServerNoContext {
		c.Extra().shrinker = new(deflate.Shrinker)
	}
	if !p.ClientNoContext {
		c.Extra().window = deflate.NewWindow(p.ClientBits)
	}
}

// Trim frees the rare part of a connection that no longer needs it, after the handshake.
func (c *Conn) Trim() {
	if r := c.Rare; r != nil {
		r.accepted, r.scanned = nil, 0
		if r.idle() {
			c.Rare = nil
		}
	}
}

// Refuse answers the handshake with an HTTP error and closes the connection.
func (c *Conn) Refuse(r handshake.Refusal) {
	l := c.Loop
	if c.Phase >= PhaseClosing {
		return
	}
	l.Count[CountRefused].Add(1)
	c.detach(CauseHandshake)
	if c.dropMute() {
		return
	}
	c.Phase = phaseRefused
	c.Flags |= flagNoHandshake
	c.freeInput()
	l.Text = handshake.AppendRefusal(l.Text[:0], r)
	c.emitClose(l.Text)
	if l.corked == c {
		l.corkRaw = len(l.cork)
	}
	c.Extra().deadline = l.Now + int64(closeWait)
	l.arm(c)
}
