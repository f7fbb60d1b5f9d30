package engine

import (
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/protocol/message"
	"github.com/parleyd/parley/rooms"
)

// A resume: a connection shows the token of an earlier one and becomes its heir. The steps are the same wherever sessions
// are kept:
//
// claim: the store gives the session to one of all claimants
//
// hand over: if the session's connection may still live, its loop ends it, and gives its present state and its seats
//
// seats: in rooms whose limits all workers share
//
// save: the following session is stored under a token of its own
//
// spend: the claimed session is deleted, and cannot be taken a second time, whichever worker dies now
//
// revoke: the session that the client began with is deleted, too: once the client is told, that token is void
//
// restore: rooms, attributes, the answer, the new token
//
// A store in memory answers before its methods return: then all steps are one turn. If a step takes longer, the client's
// later messages wait. A step that fails before the session is spent puts it back, so that its token stays valid.

// Session is the state that a resumed connection inherits, as the reconnect event shows it.
type Session struct {
	PreviousConnectionID string
	Rooms                []string
	Attempts             int // resumes in a row, this one included
}

// resumeAsk is the part of a reconnect message that later steps need.
type resumeAsk struct {
	ref  []byte // borrowed until the client waits
	last bool   // the client names the last messages that it has of its rooms
}

// succession is a connection on its way to become the heir of a session.
//
// Owner: the heir's loop.
type succession struct {
	conn  *Conn
	asked resumeAsk
	wait  *pending // nil while all steps have happened in one turn
	at    SessionClaim
	state *parked // nil while only the session's connection knows it
	given bool    // that connection has handed the state over: the stored one is older
	held  []*rooms.Room
	seats seatVerdicts
	next  token // token of the session that follows
}

func (l *loop) onReconnect(c *Conn, e *message.Envelope) {
	if e.Token == nil {
		l.complain(c, wireError(message.InvalidToken), e.Ref)
		return
	}
	owner, ok := l.srv.ownerOf(e.Token)
	key := SessionKey{owner, hashToken(e.Token)}
	switch {
	case !ok:
		l.Count[countResumesRefused].Add(1)
		l.complain(c, wireError(message.InvalidToken), e.Ref)
		return
	case c.has(flagResumed):
		l.complain(c, wireError(message.AlreadyResumed), e.Ref)
		return
	case key == l.srv.keyOf(c.token):
		l.complain(c, &Error{Code: message.InvalidToken.String(),
			Message: "this is the connection's own token; show it on the next connection"}, e.Ref)
		return
	case c.wire.Posted.Load() > 0:
		// The restored rooms' messages must come behind the answer, and the answer behind the letters that are posted.
		last := e.Last != nil
		l.behind(c, "reconnect", e.Ref, func(ref []byte) { l.claim(c, key, resumeAsk{ref, last}) })
		return
	}
	l.claim(c, key, resumeAsk{e.Ref, e.Last != nil})
}

// claim asks the store for a session.
func (l *loop) claim(c *Conn, key SessionKey, asked resumeAsk) {
	x := &succession{conn: c, asked: asked, at: SessionClaim{Key: key, Principal: c.Principal()}}
	l.srv.entropy(x.at.Nonce[:])
	var got ClaimedSession
	l.step(x, func(done func(error)) error {
		return l.srv.store.Claim(x.at, func(claimed ClaimedSession, err error) {
			got = claimed
			done(err)
		})
	}, func(l *loop, x *succession, err error) { l.claimed(x, got, err) })
}

// step calls the store and runs then with its answer: in the same turn, if the answer is there when call returns.
func (l *loop) step(x *succession, call func(done func(error)) error, then func(*loop, *succession, error)) {
	var one atomic.Bool // set by the first of two: the answer, and the return of call. The second goes on
	var answer error
	err := call(func(err error) {
		answer = err
		if one.Swap(true) {
			l.postCall(func(l *loop) { then(l, x, err) })
		}
	})
	switch {
	case err != nil:
		then(l, x, err)
	case one.Swap(true):
		then(l, x, answer)
	default:
		x.await(l)
	}
}

// await makes the client's later messages wait for the outcome.
func (x *succession) await(l *loop) {
	if x.wait == nil {
		x.wait = l.await(x.conn, pendingClaim, "reconnect", x.asked.ref)
		x.asked.ref = x.wait.ref
	}
}

// waits reports whether the client still waits for the outcome.
func (x *succession) waits() bool {
	return x.wait == nil || x.conn.rare != nil && x.conn.rare.pending == x.wait
}

// settled ends the wait, and reports false where the client no longer waits.
func (x *succession) settled(l *loop) bool { return x.wait == nil || l.settled(x.conn, x.wait) }

// refuseClaim tells the client why its resume failed, if it still waits.
func (l *loop) refuseClaim(x *succession, err error) {
	if !x.settled(l) {
		return
	}
	l.Count[countResumesRefused].Add(1)
	told := errUnavailable
	if coded, ok := errors.AsType[*Error](err); ok {
		told = coded
	} else if errors.Is(err, ErrSessionUnknown) {
		told = wireError(message.InvalidToken)
	}
	l.complain(x.conn, told, x.asked.ref)
	if x.wait != nil {
		l.goOnAfter(x.conn, x.wait)
	}
}

// claimed carries on with the store's answer to the claim.
func (l *loop) claimed(x *succession, got ClaimedSession, err error) {
	if err != nil {
		l.refuseClaim(x, err)
		return
	}
	if x.state, err = got.state(); err != nil {
		l.srv.log.Error("read stored session", "err", err)
	}
	if err != nil || x.state != nil && x.state.principal != x.conn.Principal() {
		l.fail(x, wireError(message.InvalidToken))
		return
	}
	if x.state != nil {
		x.state.attempts = l.attemptsSince(x.state)
	}
	switch {
	case !x.waits():
		l.putBack(x)
	case x.state != nil && x.state.attempts >= l.srv.sessions.max:
		l.exhausted(x, got.OwnerAlive)
	case got.OwnerAlive:
		l.askOwner(x)
	default:
		l.takeSeats(x)
	}
}

// attemptsSince is the number of resumes in a row up to a session. The count starts again once a resumed connection has
// lived for heartbeat_timeout.
func (l *loop) attemptsSince(state *parked) int {
	lived := l.srv.wall(l.Now).UnixMilli() - state.resumedAtMillis
	if state.resumedAtMillis != 0 && lived >= l.Ground.Beats.Load().Timeout/int64(time.Millisecond) {
		return 0
	}
	return state.attempts
}

// exhausted refuses a session that was resumed too often in a row. If its connection lives, it stays.
func (l *loop) exhausted(x *succession, alive bool) {
	if !alive {
		l.discard(x, message.AttemptsExhausted)
		return
	}
	l.srv.store.Unclaim(x.at)
	l.refuseClaim(x, wireError(message.AttemptsExhausted))
}

// discard ends a claimed session that is not to be restored.
func (l *loop) discard(x *succession, why message.Code) {
	if err := l.srv.store.Spend(x.at, func(error) {}); err != nil {
		l.srv.store.Unclaim(x.at)
	}
	l.refuseClaim(x, wireError(why))
}

// askOwner asks the session's connection, on any worker, to hand over.
func (l *loop) askOwner(x *succession) {
	key := x.at.Key
	if key.Instance != l.srv.instance {
		x.await(l)
		question := handoverQuestion{tokenHash(key.Hash), l.srv.instance, SeatTicket(x.at.Nonce)}
		l.srv.ask(key.Instance, asking{fleet.HandOver, question.append(nil), handOverWait}, func(answer []byte, err error) {
			var h handover
			if err == nil {
				h, err = decodeHandover(answer)
			}
			l.postCall(func(l *loop) { l.handedOver(x, h, err) })
		})
		return
	}
	left := l.srv.sessions.release(key.Hash)
	if left.conn == nil {
		l.handedOver(x, left.handover(), nil)
		return
	}
	x.await(l)
	left.conn.postHandOver(key.Hash, x.conn.place(), func(h handover) {
		l.postCall(func(l *loop) { l.handedOver(x, h, nil) })
	})
}

// handedOver carries on with the owner's answer, or without one.
func (l *loop) handedOver(x *succession, h handover, err error) {
	if err != nil {
		l.srv.log.Info("the worker of a session's old connection did not answer: the session is restored as it was stored",
			"worker", x.at.Key.Instance, "err", err)
	}
	switch {
	case h.kind == handoverEnded, h.kind == handoverNothing && x.state == nil:
		l.discard(x, message.InvalidToken)
		return
	case h.kind == handoverSpent:
		l.exhausted(x, true)
		return
	case h.kind == handoverState:
		x.state, x.held, x.given = h.state, h.held, true
	}
	switch {
	case x.state.principal != x.conn.Principal(): // it has changed since the claim
		l.fail(x, wireError(message.InvalidToken))
	case !x.waits():
		l.putBack(x)
	default:
		l.takeSeats(x)
	}
}

// putBack makes the session claimable again by its token.
func (l *loop) putBack(x *succession) {
	l.giveBack(x)
	if x.given {
		l.parkAgain(x)
		return
	}
	l.srv.store.Unclaim(x.at)
}

// fail puts the session back and tells the client why, if it still waits.
func (l *loop) fail(x *succession, why error) {
	l.putBack(x)
	l.refuseClaim(x, why)
}

// giveBack frees the seats that are held for the heir.
func (l *loop) giveBack(x *succession) {
	for _, r := range x.held {
		l.srv.freeHeld(r, x.conn.place())
	}
	l.giveBackSeats(x.seats)
}

// freeHeld frees a seat that is held for p and counted.
func (s *Server) freeHeld(r *rooms.Room, p place) {
	s.index.Release(r, p)
	s.counted(r)
}

// parkAgain parks the session in the state that was handed over.
func (l *loop) parkAgain(x *succession) {
	state := *x.state
	state.resumedAtMillis = 0
	l.srv.store.Restore(x.at, SessionValue{&state}, l.srv.cfg.ReconnectionTTL)
}

// takeSeats acquires the seats in the session's limited rooms.
func (l *loop) takeSeats(x *succession) {
	limits := l.scarceRooms(x.conn, x.state.rooms)
	if len(limits) == 0 {
		l.saveNext(x)
		return
	}
	var ticket SeatTicket
	if x.given {
		ticket = SeatTicket(x.at.Nonce)
	}
	x.await(l)
	x.seats = l.gatherSeats(limits, ticket, func(l *loop) {
		switch why := x.seats.unknown(); {
		case why != nil:
			l.fail(x, why)
		case !x.waits():
			l.putBack(x)
		default:
			l.saveNext(x)
		}
	})
}

// saveNext stores the following session.
func (l *loop) saveNext(x *succession) {
	if own := x.conn.token; own != noToken && !l.srv.sessions.has(l.srv.hashOf(own)) {
		// Another connection has claimed this one's own session: its take-over is on its way.
		l.fail(x, errUnavailable)
		return
	}
	l.srv.entropy(x.next[:])
	next := *x.state
	next.previous, next.instance = x.conn.place(), l.srv.instance
	next.rooms = slices.DeleteFunc(slices.Clone(next.rooms), func(room string) bool { return x.seats[room] != nil })
	for _, room := range roomNames(x.conn.rooms) { // it may be in some rooms already
		if !slices.Contains(next.rooms, room) {
			next.rooms = append(next.rooms, room)
		}
	}
	next.attempts++
	next.resumedAtMillis = l.srv.wall(l.Now).UnixMilli()
	l.step(x, func(done func(error)) error {
		return l.srv.store.Save(l.srv.keyOf(x.next), SessionValue{&next}, done)
	}, (*loop).nextSaved)
}

// nextSaved spends the claimed session, now that the following one is stored.
func (l *loop) nextSaved(x *succession, err error) {
	if err != nil || !x.waits() {
		l.srv.store.Drop(l.srv.keyOf(x.next), nil)
		l.fail(x, err)
		return
	}
	l.step(x, func(done func(error)) error { return l.srv.store.Spend(x.at, done) }, (*loop).spent)
}

// spent ends the session that the client had before.
func (l *loop) spent(x *succession, err error) {
	if err != nil || !x.waits() {
		l.forgo(x)
		l.refuseClaim(x, err)
		return
	}
	l.step(x, func(done func(error)) error {
		if !l.endSession(x.conn, done) {
			done(nil)
		}
		return nil
	}, (*loop).revoked)
}

// revoked restores the claimed session on the connection that asked for it. Letters that were posted for the connection
// while it waited go out before the answer.
func (l *loop) revoked(x *succession, _ error) {
	if x.wait != nil && x.conn.wire.Posted.Load() > 0 {
		l.postCall(func(l *loop) { l.restore(x) })
		return
	}
	l.restore(x)
}

// forgo is for an heir that has gone or found the session spent: the following session is dropped. The store gets the
// claimed one back, in case it can still restore it.
func (l *loop) forgo(x *succession) {
	l.srv.store.Drop(l.srv.keyOf(x.next), nil)
	l.giveBack(x)
	l.parkAgain(x)
}

// restore gives the heir the session's state, and answers.
func (l *loop) restore(x *succession) {
	if !x.settled(l) {
		l.forgo(x)
		return
	}
	c := x.conn
	c.wire.Flags |= flagResumed
	c.extra().attempts = x.state.attempts + 1
	c.rare.resumedAt = l.Now
	if n := c.inheritAttributes(x.state); n > 0 {
		l.srv.log.Warn("some attributes of a session do not fit beside those of the new connection and are dropped; raise attributes_bytes_max", "conn", c.ID(), "dropped", n)
	}
	l.revive(&revival{succession: x, answer: message.Reconnected{
		ID:       []byte(c.ID()),
		Previous: ident.ID{Worker: x.state.instance, Place: x.state.previous}.Append(nil),
		Ref:      x.asked.ref,
	}})
	if x.wait != nil {
		l.goOnAfter(c, x.wait)
	}
}
