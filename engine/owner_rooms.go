package engine

import (
	"unsafe"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/engine/internal/figures"
	"github.com/parleyd/parley/engine/internal/pending"
	"github.com/parleyd/parley/engine/internal/rate"
	"github.com/parleyd/parley/engine/internal/session"
	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/handshake"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/protocol/message"
)

// The room server's side of a loop and its connections.

// loop is a loop of a room server: the floors below, and the application's part.
//
// Owner: loop.
type loop struct {
	session.Loop
	srv      *Server
	envelope message.Envelope
}

func newLoop(srv *Server, index uint8, seed [32]byte) *loop {
	l := &loop{srv: srv}
	base := l.Base()
	base.Init(&srv.ground, index, seed)
	base.Owner, base.Floor = ownerFor(l), roomsFloor{l}
	l.Link, l.Above, l.Rooms, l.Sessions = srv.link, &srv.waits, srv.rooms, srv.sessions
	return l
}

// loopOf is the room server's loop whose first field is l.
func loopOf(l *turn.Loop) *loop { return (*loop)(unsafe.Pointer(l)) }

// newConn makes a connection for a loop, off the loop. Its life begins with [turn.Loop.Begin].
func newConn(l *turn.Loop) *turn.Conn {
	c := new(Conn)
	t := c.wire.Wire()
	t.Loop = l
	return t
}

// roomsOwner owns the connections of a room server.
//
// Owner: loop.
type roomsOwner struct{ *loop }

// ownerFor is the owner of the connections of l.
func ownerFor(l *loop) turn.Owner {
	if l.srv.cfg.Bare {
		return bareOwner{roomsOwner{l}}
	}
	return roomsOwner{l}
}

var (
	refusalMemory = handshake.Refusal{Status: 503, Reason: "the server has no memory left; try again later", RetryAfter: 5}
	refusalOrigin = handshake.Refusal{Status: 403, Reason: "pages of this origin may not connect; the server's origins list names those that may"}
)

// Opening checks the origin of a request, and asks the application, on the pool.
func (o roomsOwner) Opening(t *turn.Conn, r *handshake.Request) turn.Verdict {
	c := connOf(t)
	srv := o.srv
	switch {
	case srv.leaving.Load():
		return turn.Verdict{Refusal: turn.RefusalLeaving}
	case srv.budget.Refuses():
		return turn.Verdict{Refusal: refusalMemory}
	case !srv.tuned.Load().origins.Allow(r.Origin()):
		o.Count[figures.CountOriginsRefused].Add(1)
		return turn.Verdict{Refusal: refusalOrigin}
	case srv.ground.Trust != nil && !t.TraceClient():
		return turn.Verdict{Refusal: turn.RefusalForwarded}
	case srv.ground.Crowded(t):
		return turn.Verdict{Refusal: turn.RefusalCrowded}
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
	if c.wire.TrimRare() {
		t.SetAlarm(0) // which was set for the verdict
	}
	o.greet(c)
}

// greet sends a client its id and, once it is authenticated, the token of its session.
func (l *loop) greet(c *Conn) {
	var id [ident.TextBytes]byte
	waits := l.srv.authHandler.Load() != nil && c.wire.Identity() == nil && !l.srv.authOptional.Load()
	user, expiresIn := l.TokenOf(&c.wire)
	l.Text = message.AppendGreeting(l.Text[:0], message.Greeting{ID: c.appendID(id[:0]), Timestamp: int64(c.wire.ConnectedAt),
		AuthRequired: waits, User: user, ExpiresIn: expiresIn})
	c.wire.Answer(l.Text)
	if waits {
		c.wire.Flags |= flagAuth
		c.wire.WithRare().AnswerBy = l.Now + int64(l.srv.cfg.AuthTimeout)
		c.wire.ResetAlarm()
		return
	}
	l.begun(c)
}

// begun begins the session of an authenticated connection.
func (l *loop) begun(c *Conn) {
	c.wire.Enlist()
	l.IssueToken(&c.wire)
	l.srv.emit(Event{Kind: EventConnect, Conn: c})
}

// Message passes a message to its handler, or holds it while an answer is awaited.
func (o roomsOwner) Message(t *turn.Conn, binary bool, payload []byte) {
	c := connOf(t)
	if v := o.Weigh(t); v != rate.Passes {
		c.wire.RefuseMessage(binary, payload, v == rate.Struck)
		return
	}
	if c.wire.Awaits() {
		c.wire.Hold(pending.Item{Binary: binary, Payload: append([]byte(nil), payload...)})
		return
	}
	o.dispatch(c, binary, payload)
}

func (o roomsOwner) Pong(t *turn.Conn, payload []byte) {
	o.Receipts.Pong(&o.Loop.Loop, &connOf(t).wire.Conn, payload)
}

func (o roomsOwner) Closing(t *turn.Conn, e turn.Ending) (now bool) {
	c := connOf(t)
	if !c.wire.Awaits() && !c.wire.AwaitNumbers() {
		return true
	}
	c.wire.Hold(pending.Item{Closing: true, Ending: e})
	return false
}

func (o roomsOwner) Alarm(t *turn.Conn) {
	c := connOf(t)
	c.wire.Expire(func() { o.waitedEnough(c) }, func() { o.WarnOfEnd(&c.wire) })
}

// waitedEnough ends the wait for the authentication of c, or a claimant's wait for its session.
func (l *loop) waitedEnough(c *Conn) {
	switch {
	case c.wire.Phase != turn.PhaseOpen:
	case c.wire.Has(flagAuth):
		c.wire.EndBy(CauseUnauthorized)
	default:
		c.wire.DropPending()
		c.wire.ForgetRest()
		c.wire.Conclude()
	}
}

func (o roomsOwner) Excuse(t *turn.Conn, stall int64) { connOf(t).wire.Excuse(stall) }

func (o roomsOwner) More(t *turn.Conn) { connOf(t).wire.GoOn() }

func (o roomsOwner) CaughtUp(t *turn.Conn) { connOf(t).wire.Conclude() }

func (o roomsOwner) Outlives(t *turn.Conn) bool { return connOf(t).wire.Outlives() }

func (o roomsOwner) Emptied(t *turn.Conn) { o.loop.Emptied(&connOf(t).wire.Conn) }

func (o roomsOwner) Diverted(t *turn.Conn, f *turn.Frame) {
	o.loop.Diverted(&connOf(t).wire, f)
}

// Ended takes c out of its rooms and parks its session.
func (o roomsOwner) Ended(t *turn.Conn, cause Cause) {
	c := connOf(t)
	opened := c.wire.Delist()
	o.Receipts.Forget(&c.wire.Conn)
	c.wire.DropPending()
	o.LeaveAll(&c.wire, cause, opened)
	for _, f := range c.wire.TakeHeirs() {
		o.PostCall(f) // when it has ended
	}
}

// bareOwner owns the connections of a server without the envelope: the raw handler takes every message.
//
// Owner: loop.
type bareOwner struct{ roomsOwner }

func (o bareOwner) Opened(t *turn.Conn) {
	c := connOf(t)
	c.wire.Enlist()
}

// Parting is empty: clients of a bare server understand no messages of ours.
func (o bareOwner) Parting(*turn.Conn, ws.StatusCode) {}

func (o bareOwner) Message(t *turn.Conn, binary bool, payload []byte) {
	c := connOf(t)
	switch raw, v := o.srv.rawHandler.Load(), o.Weigh(t); {
	case v == rate.Struck:
		t.EndBy(CauseRateLimited)
	case v == rate.Refused: // there is no answer without the envelope
	case raw != nil:
		o.raw(c, *raw, binary, payload)
	case binary:
		connOf(t).wire.EndBy(CauseUnsupported)
	}
}

// roomsFloor is the part of a room server on a loop that belongs to no single connection.
//
// Owner: loop.
type roomsFloor struct{ *loop }

func (f roomsFloor) BeforeWrites() { f.Announce() }

func (f roomsFloor) AfterTurn() { f.Link.Bus.Flush() }

func (f roomsFloor) Check(c *turn.Conn) { f.CheckConn(c) }

func (f roomsFloor) Tick() {
	f.srv.time.Resync()
	if !f.srv.cfg.NoReceipts {
		f.Receipts.Look(&f.Loop.Loop, int64(f.srv.cfg.ReceiptInterval))
	}
	f.srv.budget.Look(&f.Loop.Loop)
	f.srv.sessions.WatchTokens(&f.Loop)
	if f.Index != 0 {
		return
	}
	f.srv.sessions.Memory.Expire(f.Now)
	f.srv.rooms.Index.SweepHistories(f.Now, historiesAtOnce)
	if !f.srv.link.Alone() {
		f.ReportCounts()
		f.Owes.Flush = f.srv.figures.Report(f.Now) || f.Owes.Flush
		f.srv.link.ExpireAsks(f.Now)
	}
}

func (f roomsFloor) Stalled(late int64) {
	if f.Index == 0 {
		f.srv.sessions.Memory.Stalled(late)
	}
}

// historiesAtOnce is the rooms with history that one tick visits.
const historiesAtOnce = 256
