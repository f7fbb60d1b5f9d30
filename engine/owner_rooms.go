package engine

import (
	"fmt"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/protocol/handshake"
	"github.com/parleyd/parley/protocol/message"
)

// What a room server does with the connections of a loop.

// roomsOwner owns the connections of a room server.
//
// Owner: loop.
type roomsOwner struct{ *loop }

// ownerFor is what the connections of l belong to.
func (s *Server) ownerFor(l *loop) owner {
	if s.cfg.Bare {
		return bareOwner{roomsOwner{l}}
	}
	return roomsOwner{l}
}

var (
	refusalOrigin = handshake.Refusal{Status: 403, Reason: "pages of this origin may not connect; the server's origins list names those that may"}
	refusalSlow   = handshake.Refusal{Status: 503, Reason: "the authentication took too long; try again later", RetryAfter: 2}
)

// opening looks at where a request comes from, and has the application look at it, on the pool.
func (o roomsOwner) opening(c *Conn, r *handshake.Request) verdict {
	srv := o.srv
	switch {
	case srv.leaving.Load():
		return verdict{refusal: refusalLeaving}
	case !srv.tuned.Load().origins.Allow(r.Origin()):
		o.count[countOriginsRefused].Add(1)
		return verdict{refusal: refusalOrigin}
	case srv.ground.trust != nil && !o.traceClient(c):
		return verdict{refusal: refusalForwarded}
	}
	handlers := srv.connectHandlers.Load()
	if handlers == nil {
		return verdict{}
	}
	request := r.Clone()
	return verdict{ask: func() { o.askApplication(c, *handlers, request) }}
}

func (o roomsOwner) opened(c *Conn) { o.greet(c) }

// greet tells a client its id and, once it is authenticated, the token of its session.
func (l *loop) greet(c *Conn) {
	var id [idSize]byte
	l.text = message.AppendConnected(l.text[:0], c.appendID(id[:0]), int64(c.connectedAt))
	l.answer(c, l.text)
	if l.srv.authHandler.Load() != nil && c.principal.Load() == nil {
		c.flags |= flagAuth
		c.extra().answerBy = l.now + int64(l.srv.cfg.AuthTimeout)
		l.resetAlarm(c)
		return
	}
	l.begun(c)
}

// begun begins the session of an authenticated connection.
func (l *loop) begun(c *Conn) {
	c.admitted.Store(true)
	l.srv.live.Add(1)
	l.issueToken(c)
	l.srv.emit(Event{Kind: EventConnect, Conn: c})
}

// message takes a message to its handler, or keeps it while an answer is awaited.
func (o roomsOwner) message(c *Conn, binary bool, payload []byte) {
	if c.rare != nil && c.rare.pending != nil {
		o.hold(c, heldItem{binary: binary, payload: append([]byte(nil), payload...)})
		return
	}
	o.dispatch(c, binary, payload)
}

func (o roomsOwner) closing(c *Conn, e ending) (now bool) {
	if c.rare == nil || c.rare.pending == nil {
		return true
	}
	o.hold(c, heldItem{closing: true, ending: e})
	return false
}

// resetAlarm sets the timer to what c waits for first.
func (l *loop) resetAlarm(c *Conn) {
	at := int64(0)
	if r := c.rare; r != nil {
		at = r.answerBy
		if r.pending != nil {
			at = earlier(at, r.pending.deadline)
		}
	}
	l.setAlarm(c, at)
}

func (o roomsOwner) alarm(c *Conn) {
	if r := c.rare; r.answerBy != 0 && r.answerBy <= o.now {
		r.answerBy = 0
		o.waitedEnough(c)
	}
	if p := c.rare.pending; p != nil && p.deadline != 0 && p.deadline <= o.now {
		o.pendingOverdue(c)
	}
	if c.phase != phaseGone && c.rare != nil {
		o.resetAlarm(c)
	}
}

// waitedEnough ends the wait for the authentication of c, or that of another connection for its session.
func (l *loop) waitedEnough(c *Conn) {
	switch {
	case c.phase != phaseOpen:
	case c.has(flagAuth):
		l.endBy(c, CauseUnauthorized)
	default:
		l.dropPending(c)
		c.rare.rest = nil
		l.conclude(c)
	}
}

func (o roomsOwner) excuse(c *Conn, stall int64) {
	r := c.rare
	if r.answerBy != 0 {
		r.answerBy += stall
	}
	if p := r.pending; p != nil && p.deadline != 0 {
		p.deadline += stall
	}
	o.resetAlarm(c)
}

func (o roomsOwner) more(c *Conn) {
	p := c.rare.pending
	c.rare.pending = nil
	o.goOnAfter(c, p)
}

func (o roomsOwner) caughtUp(c *Conn) { o.conclude(c) }

func (o roomsOwner) outlives(c *Conn) bool { return o.loop.outlives(c) }

func (o roomsOwner) diverted(c *Conn, f *outFrame) { c.rare.revival.keep(o.loop, f) }

// ended takes c out of its rooms and parks its session.
func (o roomsOwner) ended(c *Conn, cause Cause) {
	opened := c.admitted.Load()
	if opened {
		o.srv.live.Add(-1)
	}
	o.dropPending(c)
	o.leaveAll(c, cause, opened)
	for _, f := range c.takeHeirs() {
		o.postCall(f) // when it has ended
	}
}

// bareOwner owns the connections of a server without the envelope: whatever arrives is the raw handler's.
//
// Owner: loop.
type bareOwner struct{ roomsOwner }

func (o bareOwner) opened(c *Conn) {
	c.admitted.Store(true)
	o.srv.live.Add(1)
}

func (o bareOwner) message(c *Conn, binary bool, payload []byte) {
	switch raw := o.srv.rawHandler.Load(); {
	case raw != nil:
		o.raw(c, *raw, binary, payload)
	case binary:
		o.endBy(c, CauseUnsupported)
	}
}

// roomsFloor is what a room server has on a loop besides its connections.
//
// Owner: loop.
type roomsFloor struct{ *loop }

func (f roomsFloor) beforeWrites() { f.announce() }

func (f roomsFloor) afterTurn() { f.srv.peers.Bus.Flush() }

func (f roomsFloor) tick() {
	f.srv.resyncWall()
	if f.index != 0 {
		return
	}
	f.srv.sessions.expire(f.now)
	if f.srv.peers != nil {
		f.reportCounts()
		f.reportFigures()
		f.srv.expireAsks(f.now)
	}
}

func (f roomsFloor) stalled(late int64) {
	if f.index == 0 {
		f.srv.sessions.lag.Add(late)
	}
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
