package engine

import (
	"fmt"
	"time"
	"unsafe"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/handshake"
	"github.com/parleyd/parley/protocol/message"
)

// The room server's side of a loop and its connections.

// loop is a loop of a room server: the transport's loop and the room server's state.
//
// Owner: loop, except saves.
type loop struct {
	turn.Loop
	srv      *Server
	notices  []notice
	stamps   []uint32 // of deliverSpread: the last stamp that reached a slot
	stamp    uint32
	unsaved  []*Conn // connections whose sessions have changed
	saves    savings // saves that are on their way
	envelope message.Envelope
	ahead    ahead
	outgoing publication
}

func newLoop(srv *Server, index uint8, seed [32]byte) *loop {
	l := &loop{srv: srv}
	l.Init(&srv.ground, index, seed)
	l.Owner, l.Floor = srv.ownerFor(l), roomsFloor{l}
	return l
}

// loopOf is the room server's loop whose first field is l.
func loopOf(l *turn.Loop) *loop { return (*loop)(unsafe.Pointer(l)) }

// postCall runs f on the loop, after the letters that were posted before. It is never refused. Any goroutine.
func (l *loop) postCall(f func(*loop)) { l.Loop.PostCall(func() { f(l) }) }

// after runs f in a turn that begins d from now or later.
func (l *loop) after(d time.Duration, f func(*loop)) { l.Loop.After(d, func() { f(l) }) }

// postAfter is after for any goroutine.
func (l *loop) postAfter(d time.Duration, f func(*loop)) { l.Loop.PostAfter(d, func() { f(l) }) }

// connAt finds the connection at p; nil if it no longer exists.
func (l *loop) connAt(p place) *Conn { return connOf(l.Loop.ConnAt(p)) }

// each calls f for every connection of the loop. Any goroutine. A connection that comes or goes meanwhile may be seen or
// missed.
func (l *loop) each(f func(*Conn) bool) bool {
	return l.Slab.Each(func(c *turn.Conn) bool { return f(connOf(c)) })
}

// newConn makes a connection for a loop, off the loop. Its life begins with [turn.Loop.Begin].
func newConn(l *turn.Loop) *turn.Conn {
	c := new(Conn)
	c.wire.Loop = l
	return &c.wire
}

// roomsOwner owns the connections of a room server.
//
// Owner: loop.
type roomsOwner struct{ *loop }

// ownerFor is the owner of the connections of l.
func (s *Server) ownerFor(l *loop) turn.Owner {
	if s.cfg.Bare {
		return bareOwner{roomsOwner{l}}
	}
	return roomsOwner{l}
}

var (
	refusalOrigin = handshake.Refusal{Status: 403, Reason: "pages of this origin may not connect; the server's origins list names those that may"}
	refusalSlow   = handshake.Refusal{Status: 503, Reason: "the authentication took too long; try again later", RetryAfter: 2}
)

// Opening checks the origin of a request, and asks the application, on the pool.
func (o roomsOwner) Opening(t *turn.Conn, r *handshake.Request) turn.Verdict {
	c := connOf(t)
	srv := o.srv
	switch {
	case srv.leaving.Load():
		return turn.Verdict{Refusal: turn.RefusalLeaving}
	case !srv.tuned.Load().origins.Allow(r.Origin()):
		o.Count[countOriginsRefused].Add(1)
		return turn.Verdict{Refusal: refusalOrigin}
	case srv.ground.Trust != nil && !o.TraceClient(t):
		return turn.Verdict{Refusal: turn.RefusalForwarded}
	}
	handlers := srv.connectHandlers.Load()
	if handlers == nil {
		return turn.Verdict{}
	}
	request := r.Clone()
	return turn.Verdict{Ask: func() { o.askApplication(c, *handlers, request) }}
}

func (o roomsOwner) Opened(t *turn.Conn) {
	c := connOf(t)
	if r := c.rare; r != nil && r.idle() {
		c.rare = nil
		o.SetAlarm(t, 0) // which was set for the verdict
	}
	o.greet(c)
}

// greet sends a client its id and, once it is authenticated, the token of its session.
func (l *loop) greet(c *Conn) {
	var id [idSize]byte
	l.Text = message.AppendConnected(l.Text[:0], c.appendID(id[:0]), int64(c.wire.ConnectedAt))
	l.answer(c, l.Text)
	if l.srv.authHandler.Load() != nil && c.principal.Load() == nil {
		c.wire.Flags |= flagAuth
		c.extra().answerBy = l.Now + int64(l.srv.cfg.AuthTimeout)
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

// Message passes a message to its handler, or holds it while an answer is awaited.
func (o roomsOwner) Message(t *turn.Conn, binary bool, payload []byte) {
	c := connOf(t)
	if c.rare != nil && c.rare.pending != nil {
		o.hold(c, heldItem{binary: binary, payload: append([]byte(nil), payload...)})
		return
	}
	o.dispatch(c, binary, payload)
}

func (o roomsOwner) Closing(t *turn.Conn, e turn.Ending) (now bool) {
	c := connOf(t)
	if c.rare == nil || c.rare.pending == nil {
		return true
	}
	o.hold(c, heldItem{closing: true, ending: e})
	return false
}

// resetAlarm sets the timer to the earliest deadline of c.
func (l *loop) resetAlarm(c *Conn) {
	at := int64(0)
	if r := c.rare; r != nil {
		at = r.answerBy
		if r.pending != nil {
			at = turn.Earlier(at, r.pending.deadline)
		}
	}
	l.SetAlarm(&c.wire, at)
}

func (o roomsOwner) Alarm(t *turn.Conn) {
	c := connOf(t)
	r := c.rare
	if r == nil {
		return
	}
	if r.answerBy != 0 && r.answerBy <= o.Now {
		r.answerBy = 0
		o.waitedEnough(c)
	}
	if p := r.pending; p != nil && p.deadline != 0 && p.deadline <= o.Now {
		o.pendingOverdue(c)
	}
	if c.wire.Phase != turn.PhaseGone {
		o.resetAlarm(c)
	}
}

// waitedEnough ends the wait for the authentication of c, or a claimant's wait for its session.
func (l *loop) waitedEnough(c *Conn) {
	switch {
	case c.wire.Phase != turn.PhaseOpen:
	case c.has(flagAuth):
		l.endBy(c, CauseUnauthorized)
	default:
		l.dropPending(c)
		l.ForgetRest(&c.wire)
		l.conclude(c)
	}
}

func (o roomsOwner) Excuse(t *turn.Conn, stall int64) {
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

func (o roomsOwner) More(t *turn.Conn) {
	c := connOf(t)
	p := c.rare.pending
	c.rare.pending = nil
	o.goOnAfter(c, p)
}

func (o roomsOwner) CaughtUp(t *turn.Conn) { o.conclude(connOf(t)) }

func (o roomsOwner) Outlives(t *turn.Conn) bool { return o.loop.outlives(connOf(t)) }

func (o roomsOwner) Diverted(t *turn.Conn, f *turn.Frame) { connOf(t).rare.revival.keep(o.loop, f) }

// Ended takes c out of its rooms and parks its session.
func (o roomsOwner) Ended(t *turn.Conn, cause Cause) {
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

// bareOwner owns the connections of a server without the envelope: the raw handler takes every message.
//
// Owner: loop.
type bareOwner struct{ roomsOwner }

func (o bareOwner) Opened(t *turn.Conn) {
	c := connOf(t)
	c.admitted.Store(true)
	o.srv.live.Add(1)
}

func (o bareOwner) Message(t *turn.Conn, binary bool, payload []byte) {
	c := connOf(t)
	switch raw := o.srv.rawHandler.Load(); {
	case raw != nil:
		o.raw(c, *raw, binary, payload)
	case binary:
		o.endBy(connOf(t), CauseUnsupported)
	}
}

// roomsFloor is the part of a room server on a loop that belongs to no single connection.
//
// Owner: loop.
type roomsFloor struct{ *loop }

func (f roomsFloor) BeforeWrites() { f.announce() }

func (f roomsFloor) AfterTurn() { f.srv.peers.Bus.Flush() }

func (f roomsFloor) Tick() {
	f.srv.resyncWall()
	if f.Index != 0 {
		return
	}
	f.srv.sessions.expire(f.Now)
	if f.srv.peers != nil {
		f.reportCounts()
		f.reportFigures()
		f.srv.expireAsks(f.Now)
	}
}

func (f roomsFloor) Stalled(late int64) {
	if f.Index == 0 {
		f.srv.sessions.lag.Add(late)
	}
}

// A Refusal is the error with which a connect handler refuses a request: before the upgrade with an HTTP status, or after it
// with a close code that the page can read.
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

// RefuseStatus refuses a request before the upgrade, with an HTTP status of 400 to 599.
func RefuseStatus(status int, reason string) error { return &Refusal{Status: status, Reason: reason} }

// Refuse lets the upgrade take place and closes at once, so that the close code arrives: browsers do not show an HTTP status
// to the page. Codes and reasons are as for [Conn.CloseWith].
func Refuse(code ws.StatusCode, reason string) error { return &Refusal{Code: code, Reason: reason} }
