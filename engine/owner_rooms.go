package engine

import (
	"fmt"
	"time"
	"unsafe"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/protocol/handshake"
	"github.com/parleyd/parley/protocol/message"
)

// What a room server does with the connections of a loop.

// loop is a loop of a room server: what it needs besides what every loop has.
//
// Owner: loop, except saves.
type loop struct {
	turnLoop
	srv      *Server
	notices  []notice
	stamps   []uint32 // spread: the last one that reached a slot
	stamp    uint32
	unsaved  []*Conn // whose sessions have changed
	saves    savings // on their way
	envelope message.Envelope
	ahead    ahead
	outgoing publication
}

func newLoop(srv *Server, index uint8, seed [32]byte) *loop {
	l := &loop{srv: srv}
	l.init(&srv.ground, index, seed)
	l.owner, l.floor = srv.ownerFor(l), roomsFloor{l}
	return l
}

// loopOf is the loop of a room server that l is the first part of.
func loopOf(l *turnLoop) *loop { return (*loop)(unsafe.Pointer(l)) }

// postCall runs f on the loop, after what was posted before. Never refused. Any goroutine.
func (l *loop) postCall(f func(*loop)) { l.turnLoop.postCall(func() { f(l) }) }

// after runs f in a turn that begins d from now or later.
func (l *loop) after(d time.Duration, f func(*loop)) { l.turnLoop.after(d, func() { f(l) }) }

// postAfter is after for any goroutine.
func (l *loop) postAfter(d time.Duration, f func(*loop)) { l.turnLoop.postAfter(d, func() { f(l) }) }

// connAt finds the connection at p, nil if it is no longer there.
func (l *loop) connAt(p place) *Conn { return connOf(l.turnLoop.connAt(p)) }

// each calls f for every connection of the loop. Any goroutine; what comes or goes meanwhile may be seen or not.
func (l *loop) each(f func(*Conn) bool) bool {
	return l.slab.each(func(c *turnConn) bool { return f(connOf(c)) })
}

// newConn makes a connection for a loop, off the loop. It lives from [turnLoop.begin] on.
func newConn(l *turnLoop) *turnConn {
	c := new(Conn)
	c.turnConn.loop = l
	return &c.turnConn
}

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
func (o roomsOwner) opening(t *turnConn, r *handshake.Request) verdict {
	c := connOf(t)
	srv := o.srv
	switch {
	case srv.leaving.Load():
		return verdict{refusal: refusalLeaving}
	case !srv.tuned.Load().origins.Allow(r.Origin()):
		o.count[countOriginsRefused].Add(1)
		return verdict{refusal: refusalOrigin}
	case srv.ground.trust != nil && !o.traceClient(t):
		return verdict{refusal: refusalForwarded}
	}
	handlers := srv.connectHandlers.Load()
	if handlers == nil {
		return verdict{}
	}
	request := r.Clone()
	return verdict{ask: func() { o.askApplication(c, *handlers, request) }}
}

func (o roomsOwner) opened(t *turnConn) {
	c := connOf(t)
	if r := c.rare; r != nil && r.idle() {
		c.rare = nil
		o.setAlarm(t, 0) // of the wait for the verdict
	}
	o.greet(c)
}

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
func (o roomsOwner) message(t *turnConn, binary bool, payload []byte) {
	c := connOf(t)
	if c.rare != nil && c.rare.pending != nil {
		o.hold(c, heldItem{binary: binary, payload: append([]byte(nil), payload...)})
		return
	}
	o.dispatch(c, binary, payload)
}

func (o roomsOwner) closing(t *turnConn, e ending) (now bool) {
	c := connOf(t)
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
	l.setAlarm(&c.turnConn, at)
}

func (o roomsOwner) alarm(t *turnConn) {
	c := connOf(t)
	r := c.rare
	if r == nil {
		return
	}
	if r.answerBy != 0 && r.answerBy <= o.now {
		r.answerBy = 0
		o.waitedEnough(c)
	}
	if p := r.pending; p != nil && p.deadline != 0 && p.deadline <= o.now {
		o.pendingOverdue(c)
	}
	if c.phase != phaseGone {
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
		l.forgetRest(&c.turnConn)
		l.conclude(c)
	}
}

func (o roomsOwner) excuse(t *turnConn, stall int64) {
	c := connOf(t)
	r := c.rare
	if r == nil {
		return
	}
	if r.answerBy != 0 {
		r.answerBy += stall
	}
	if p := r.pending; p != nil && p.deadline != 0 {
		p.deadline += stall
	}
	o.resetAlarm(c)
}

func (o roomsOwner) more(t *turnConn) {
	c := connOf(t)
	p := c.rare.pending
	c.rare.pending = nil
	o.goOnAfter(c, p)
}

func (o roomsOwner) caughtUp(t *turnConn) { o.conclude(connOf(t)) }

func (o roomsOwner) outlives(t *turnConn) bool { return o.loop.outlives(connOf(t)) }

func (o roomsOwner) diverted(t *turnConn, f *outFrame) { connOf(t).rare.revival.keep(o.loop, f) }

// ended takes c out of its rooms and parks its session.
func (o roomsOwner) ended(t *turnConn, cause Cause) {
	c := connOf(t)
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

func (o bareOwner) opened(t *turnConn) {
	c := connOf(t)
	c.admitted.Store(true)
	o.srv.live.Add(1)
}

func (o bareOwner) message(t *turnConn, binary bool, payload []byte) {
	c := connOf(t)
	switch raw := o.srv.rawHandler.Load(); {
	case raw != nil:
		o.raw(c, *raw, binary, payload)
	case binary:
		o.endBy(connOf(t), CauseUnsupported)
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
