package verify

import (
	"fmt"
	"time"
)

// The ends of connections, and their causes. Heartbeats are checked here, too: a silent client must be closed with 4002,
// neither early nor late, and a client that answers must not.

const (
	codeNormal       = 1000
	codeGoingAway    = 1001
	codeRestart      = 1012
	codeTryLater     = 1013
	codeUnauthorized = 4001
	codeHeartbeat    = 4002
	codeSlow         = 4003
	codeTakenOver    = 4004
)

// closed checks the server's close frame.
func (c *conn) closed() {
	k := c.k
	k.report.Checked["closes"]++
	k.report.Done[fmt.Sprintf("closed %d", c.code)]++
	why := ""
	switch {
	case c.goodbye && c.code != codeGoingAway && c.code != codeRestart && c.code != codeTryLater:
		why = "after a goodbye, which announces 1001, 1012 or 1013"
	case c.code == codeHeartbeat:
		c.timedOut()
	case c.code == codeSlow && k.remembers(): // a room may send members away that miss a few messages: slow:disconnect
	case c.code == codeSlow && c.stalls == 0 && c.mode != frozen && k.late(lagMemory) == 0:
		why = "though it has always read at once"
	case c.code == codeSlow, c.code == codeTryLater:
	case c.dismissed != 0 && c.code == c.dismissed:
	case c.code == codeTakenOver && c.session != nil && c.session.spoiled: // a claim that was told "unavailable" may have won
	case c.code == codeTakenOver && !c.claimed:
		why = "although no client has shown its token"
	case c.code == codeTakenOver:
	case (c.code == codeGoingAway || c.code == codeRestart) && k.disturbed():
	case c.wire.closing && c.code == codeNormal:
	default:
		why = "for no reason that is known"
	}
	if why != "" {
		k.found("ended", nil, []*conn{c}, fmt.Sprintf("%v (%s) is closed with %d %s", c, modeNames[c.mode], c.code, why))
	}
}

const (
	lagMemory = 5 * time.Second        // for so long after its own lateness, the checker accepts closes with 4003
	lagMax    = 500 * time.Millisecond // the most by which a silence may be misjudged
)

// end is the end of the stream, without a close frame.
func (c *conn) end(err error) {
	k := c.k
	c.note(step{what: "reads the end of the stream", n: -1})
	switch {
	case c.phase == dialing || c.phase == shaking:
		k.refused(c, fmt.Errorf("the connection ended before the answer to the handshake: %v", err))
		return
	case k.disturbed() && k.cuts:
		k.report.Done["cut by a kill"]++
		c.doubtLatest()
	case c.mode != lively || c.claimed || c.cut || c.unsure:
		// A client that does not read gets no close frame; one that we closed at the same time needs none.
	default:
		k.found("ended", nil, []*conn{c}, fmt.Sprintf("%v is cut off without a close frame (%v)", c, err))
	}
	c.finish()
}

// doubtLatest makes a connection's latest messages uncertain: its worker was killed before the other workers had to have
// them.
func (c *conn) doubtLatest() {
	for i := range c.sent.log {
		if r := &c.sent.log[i]; r.fate == accepted && r.acked > c.k.beforeKill {
			r.fate = uncertain
		}
	}
}

// beatSlack is the most by which a server may be late in closing a silent client.
const beatSlack = 1500 * time.Millisecond

// timedOut checks a close with 4002.
func (c *conn) timedOut() {
	k := c.k
	silence, timeout := k.now.Sub(c.quietFrom), k.opt.HeartbeatTimeout
	k.report.Checked["heartbeats"]++
	switch {
	case c.mode == lively && k.late(timeout+time.Second) > (timeout-k.opt.HeartbeatInterval)/4:
	case c.mode == lively && !c.unsure && (timeout == 0 || silence < timeout-lagMax):
		k.found("heartbeat", nil, []*conn{c}, fmt.Sprintf("%v is closed with 4002 though it answers: its last word was %v ago", c, silence.Round(time.Millisecond)))
	case timeout == 0 || c.mode != muted:
	case silence < timeout-lagMax/10:
		k.found("heartbeat", nil, []*conn{c}, fmt.Sprintf("%v is closed with 4002 after %v of silence, %v are allowed", c, silence.Round(time.Millisecond), timeout))
	case c.pings < c.pingsDue() && k.late(timeout) < lagMax:
		k.found("heartbeat", nil, []*conn{c}, fmt.Sprintf("%v is closed with 4002 after %d pings, %d were due", c, c.pings, c.pingsDue()))
	}
}

// pingsDue is the least number of pings to a silent client before it is closed.
func (c *conn) pingsDue() int {
	o := c.k.opt
	if o.HeartbeatInterval == 0 {
		return 0
	}
	due := int((o.HeartbeatTimeout - 1) / o.HeartbeatInterval)
	return max(due-1, min(due, 1))
}

// mute makes a client that reads and sends nothing. The server must close it in time, also while it sends to the client.
func (c *conn) mute() {
	k := c.k
	c.note(step{what: "falls silent", n: -1})
	c.mode = muted
	c.reckon()
	limit := k.opt.HeartbeatTimeout + beatSlack
	if k.opt.HeartbeatTimeout == 0 {
		limit = time.Second
	}
	k.within(limit-k.now.Sub(c.quietFrom), func() {
		if c.phase == ended {
			return
		}
		if k.opt.HeartbeatTimeout != 0 && !c.claimed && !k.disturbed() && k.late(limit) < lagMax {
			k.found("heartbeat", nil, []*conn{c}, fmt.Sprintf("%v has said nothing for %v and is not closed, though %v are allowed",
				c, k.now.Sub(c.quietFrom).Round(time.Millisecond), k.opt.HeartbeatTimeout))
		}
		c.hang()
	})
}

// freeze makes a half-open connection: nothing is read or written. When its time is over, the bytes that the server has
// sent meanwhile must end with the close frame.
func (c *conn) freeze() {
	k := c.k
	c.note(step{what: "freezes", n: -1})
	c.mode = frozen
	c.stalls++
	c.watch()
	c.reckon()
	limit := k.opt.HeartbeatTimeout + beatSlack
	if k.opt.HeartbeatTimeout == 0 {
		limit = time.Second
	}
	k.within(limit-k.now.Sub(c.quietFrom), func() { c.thaw() })
}

// thaw reads the bytes that a frozen client was sent, up to the close frame.
func (c *conn) thaw() {
	if c.phase == ended {
		return
	}
	k := c.k
	for range thawReads {
		if c.readAll(readsPerTurn); c.phase == ended {
			return
		}
	}
	if k.opt.HeartbeatTimeout != 0 && !c.claimed && !k.disturbed() && k.late(k.opt.HeartbeatTimeout+beatSlack) < lagMax {
		k.found("heartbeat", nil, []*conn{c}, fmt.Sprintf("%v was frozen for %v and is not closed, though %v are allowed",
			c, k.now.Sub(c.quietFrom).Round(time.Millisecond), k.opt.HeartbeatTimeout))
	}
	c.hang()
}

// thawReads bounds the reads for the bytes that a frozen client was sent.
const thawReads = 200

// stall makes a client that does not read for a while.
func (c *conn) stall(d time.Duration) {
	c.note(step{what: "stops reading", n: -1})
	c.mode = stalled
	c.stalls++
	c.watch()
	c.reckon()
	c.k.in(d, c.wake)
}

// wake lets a stalled client read again. The server may have ended it: it is unsure until an answer comes.
func (c *conn) wake() {
	if c.phase == ended || c.mode != stalled {
		return
	}
	c.note(step{what: "reads again", n: -1})
	c.mode, c.unsure = lively, c.k.speaks.refs // a dialect without answers has no proof
	c.watch()
	c.ping()
	c.say([]byte("pong")) // the pings that it has missed
}
