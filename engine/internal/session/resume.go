package session

import (
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/parleyd/parley/engine/internal/fanout"
	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/engine/internal/pending"
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

// resumeAsk is the part of a reconnect message that later steps need.
type resumeAsk struct {
	ref   []byte                      // borrowed until the client waits
	last  []byte                      // the positions that the client has in its rooms, JSON; nil for none. Borrowed until the client waits
	known map[string]message.Position // those in last, of the rooms that have history
}

// succession is a connection on its way to become the heir of a session.
//
// Owner: the heir's loop.
type succession struct {
	conn  *Conn
	asked resumeAsk
	wait  *pending.Pending // nil while all steps have happened in one turn
	at    Claim
	state *parked // nil while only the session's connection knows it
	given bool    // that connection has handed the state over: the stored one is older
	held  []*rooms.Room
	seats fanout.SeatVerdicts
	next  token // token of the session that follows
	// losses is how often the store had lost its sessions when that one was stored: no connection has it yet, so it is not among
	// those that are saved again.
	losses uint64
}

// Reconnect begins the resume that a reconnect message asks for. e is borrowed.
func (l *Loop) Reconnect(c *Conn, e *message.Envelope) {
	if e.Token == nil {
		c.Complain(message.ErrorOf(message.InvalidToken), e.Ref)
		return
	}
	owner, ok := l.Sessions.ownerOf(e.Token)
	key := Key{owner, hashToken(e.Token)}
	switch {
	case !ok:
		l.Count[CountResumesRefused].Add(1)
		c.Complain(message.ErrorOf(message.InvalidToken), e.Ref)
		return
	case c.Has(flagResumed):
		c.Complain(message.ErrorOf(message.AlreadyResumed), e.Ref)
		return
	case key == l.Sessions.keyOf(c.token):
		c.Complain(&message.Error{Code: message.InvalidToken.String(),
			Message: "this is the connection's own token; show it on the next connection"}, e.Ref)
		return
	case c.Posted.Load() > 0:
		// The restored rooms' messages must come behind the answer, and the answer behind the letters that are posted.
		last := slices.Clone(e.Last)
		c.Behind("reconnect", e.Ref, func(ref []byte) { l.claim(c, key, resumeAsk{ref: ref, last: last}) })
		return
	}
	l.claim(c, key, resumeAsk{ref: e.Ref, last: e.Last})
}

// claim asks the store for a session.
func (l *Loop) claim(c *Conn, key Key, asked resumeAsk) {
	x := &succession{conn: c, asked: asked, at: Claim{Key: key, Principal: c.User()}}
	l.Sessions.Entropy(x.at.Nonce[:])
	var got Claimed
	l.step(x, func(done func(error)) error {
		return l.Sessions.Store.Claim(x.at, func(claimed Claimed, err error) {
			got = claimed
			done(err)
		})
	}, func(l *Loop, x *succession, err error) { l.claimed(x, got, err) })
}

// step calls the store and runs then with its answer: in the same turn, if the answer is there when call returns.
func (l *Loop) step(x *succession, call func(done func(error)) error, then func(*Loop, *succession, error)) {
	var one atomic.Bool // set by the first of two: the answer, and the return of call. The second goes on
	var answer error
	err := call(func(err error) {
		answer = err
		if one.Swap(true) {
			l.PostCall(func() { then(l, x, err) })
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
func (x *succession) await(l *Loop) {
	if x.wait == nil {
		x.wait = x.conn.Await(pending.Claim, "reconnect", x.asked.ref)
		x.asked.ref, x.asked.last = x.wait.Ref, slices.Clone(x.asked.last)
	}
}

// waits reports whether the client still waits for the outcome.
func (x *succession) waits() bool {
	return x.wait == nil || x.conn.rare() != nil && x.conn.Rare.Pending == x.wait
}

// settled ends the wait, and reports false where the client no longer waits.
func (x *succession) settled(l *Loop) bool { return x.wait == nil || x.conn.Settled(x.wait) }

// refuseClaim tells the client why its resume failed, if it still waits.
func (l *Loop) refuseClaim(x *succession, err error) {
	if !x.settled(l) {
		return
	}
	l.Count[CountResumesRefused].Add(1)
	refusal := message.ErrUnavailable
	if coded, ok := errors.AsType[*message.Error](err); ok {
		refusal = coded
	} else if errors.Is(err, ErrUnknown) {
		refusal = message.ErrorOf(message.InvalidToken)
	}
	x.conn.Complain(refusal, x.asked.ref)
	if x.wait != nil {
		x.conn.GoOnAfter(x.wait)
	}
}

// claimed carries on with the store's answer to the claim.
func (l *Loop) claimed(x *succession, got Claimed, err error) {
	if err != nil {
		l.refuseClaim(x, err)
		return
	}
	if x.state, err = got.state(); err != nil {
		l.Ground.Log.Error("a stored session cannot be read, and its client begins a new one", "err", err)
	}
	if err != nil || x.state != nil && x.state.principal != x.conn.User() {
		l.fail(x, message.ErrorOf(message.InvalidToken))
		return
	}
	if x.state != nil {
		x.state.attempts = l.attemptsSince(x.state)
	}
	switch {
	case !x.waits():
		l.putBack(x)
	case x.state != nil && x.state.attempts >= l.Sessions.Memory.max:
		l.exhausted(x, got.OwnerAlive)
	case got.OwnerAlive:
		l.askOwner(x)
	default:
		l.takeSeats(x)
	}
}

// attemptsSince is the number of resumes in a row up to a session. The count starts again once a resumed connection has
// lived for heartbeat_timeout.
func (l *Loop) attemptsSince(state *parked) int {
	lived := l.Sessions.Wall(l.Now).UnixMilli() - state.resumedAtMillis
	if state.resumedAtMillis != 0 && lived >= l.Ground.Beats.Load().Timeout/int64(time.Millisecond) {
		return 0
	}
	return state.attempts
}

// exhausted refuses a session that was resumed too often in a row. If its connection lives, it stays.
func (l *Loop) exhausted(x *succession, alive bool) {
	if !alive {
		l.discard(x, message.AttemptsExhausted)
		return
	}
	l.Sessions.Store.Unclaim(x.at)
	l.refuseClaim(x, message.ErrorOf(message.AttemptsExhausted))
}

// discard ends a claimed session that is not to be restored.
func (l *Loop) discard(x *succession, why message.Code) {
	if err := l.Sessions.Store.Spend(x.at, func(error) {}); err != nil {
		l.Sessions.Store.Unclaim(x.at)
	}
	l.refuseClaim(x, message.ErrorOf(why))
}

// askOwner asks the session's connection, on any worker, to hand over.
func (l *Loop) askOwner(x *succession) {
	key := x.at.Key
	if key.Instance != l.Link.Self {
		x.await(l)
		question := fleet.HandOverQuestion{Key: key.Hash, Heir: l.Link.Self, Ticket: x.at.Nonce}
		l.Link.Ask(key.Instance, fleet.Question{Verb: fleet.HandOver, Payload: question.AppendTo(nil), Wait: handOverWait}, func(answer []byte, err error) {
			var h handover
			if err == nil {
				h, err = decodeHandover(answer)
			}
			l.PostCall(func() { l.handedOver(x, h, err) })
		})
		return
	}
	left := l.Sessions.Memory.Release(key.Hash)
	if left.conn == nil {
		l.handedOver(x, left.handover(), nil)
		return
	}
	x.await(l)
	left.conn.postHandOver(key.Hash, x.conn.Place(), func(h handover) {
		l.PostCall(func() { l.handedOver(x, h, nil) })
	})
}

// handedOver carries on with the owner's answer, or without one.
func (l *Loop) handedOver(x *succession, h handover, err error) {
	if err != nil {
		l.Ground.Log.Info("the worker of a session's old connection did not answer: the session is restored as it was stored",
			"worker", x.at.Key.Instance, "err", err)
	}
	switch {
	case h.kind == fleet.HandedOverEnded, h.kind == fleet.HandedOverNothing && x.state == nil:
		l.discard(x, message.InvalidToken)
		return
	case h.kind == fleet.HandedOverSpent:
		l.exhausted(x, true)
		return
	case h.kind == fleet.HandedOverState:
		x.state, x.held, x.given = h.state, h.held, true
	}
	switch {
	case x.state.principal != x.conn.User(): // it has changed since the claim
		l.fail(x, message.ErrorOf(message.InvalidToken))
	case !x.waits():
		l.putBack(x)
	default:
		l.takeSeats(x)
	}
}

// putBack makes the session claimable again by its token.
func (l *Loop) putBack(x *succession) {
	l.giveBack(x)
	if x.given {
		l.parkAgain(x)
		return
	}
	l.Sessions.Store.Unclaim(x.at)
}

// fail puts the session back and tells the client why, if it still waits.
func (l *Loop) fail(x *succession, why error) {
	l.putBack(x)
	l.refuseClaim(x, why)
}

// giveBack frees the seats that are held for the heir.
func (l *Loop) giveBack(x *succession) {
	for _, r := range x.held {
		l.Rooms.FreeHeld(r, x.conn.Place())
	}
	l.GiveBackSeats(x.seats)
}

// parkAgain parks the session in the state that was handed over.
func (l *Loop) parkAgain(x *succession) {
	state := *x.state
	state.resumedAtMillis = 0
	l.Sessions.Store.Restore(x.at, Value{&state}, l.Sessions.TTL)
}

// takeSeats acquires what the session's rooms need before the connection may enter them.
func (l *Loop) takeSeats(x *succession) {
	if !x.readLast(l) {
		l.fail(x, message.ErrorOf(message.InvalidMessage))
		return
	}
	if l.Rooms.Order == nil {
		x.takeSharedSeats(l)
		return
	}
	x.followPlaces(l)
}

// followPlaces waits until the session's rooms with history are here, with what the client is to get of them.
func (x *succession) followPlaces(l *Loop) {
	var list []fanout.Followed
	for _, room := range x.state.rooms {
		at, named := x.asked.known[room]
		if !named {
			at = x.state.place(room).base
		}
		if l.Rooms.Index.Keeps([]byte(room)) {
			list = append(list, fanout.Followed{Room: []byte(room), Since: rooms.Since{Named: true, Position: at}})
		}
	}
	if len(list) == 0 {
		x.takeSharedSeats(l)
		return
	}
	x.await(l)
	l.Rooms.Order.AllFollowed(&l.Loop, list, func(errs []error) {
		for _, err := range errs {
			if errors.Is(err, message.ErrUnavailable) {
				l.fail(x, message.ErrUnavailable)
				return
			}
		}
		if !x.waits() {
			l.putBack(x)
			return
		}
		x.takeSharedSeats(l)
	})
}

// takeSharedSeats acquires the seats in the session's limited rooms.
func (x *succession) takeSharedSeats(l *Loop) {
	limits := l.ScarceRooms(&x.conn.Conn, x.state.rooms)
	if len(limits) == 0 {
		l.saveNext(x)
		return
	}
	var ticket fanout.SeatTicket
	if x.given {
		ticket = fanout.SeatTicket(x.at.Nonce)
	}
	x.await(l)
	x.seats = l.GatherSeats(limits, ticket, func() {
		switch why := x.seats.Unknown(); {
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
func (l *Loop) saveNext(x *succession) {
	if own := x.conn.token; own != noToken && !l.Sessions.Memory.has(l.Sessions.hashOf(own)) {
		// Another connection has claimed this one's own session: its take-over is on its way.
		l.fail(x, message.ErrUnavailable)
		return
	}
	l.Sessions.Entropy(x.next[:])
	x.losses = l.Sessions.losses.Load()
	next := *x.state
	next.previous, next.instance, next.line = x.conn.Place(), l.Link.Self, x.state.next()
	next.rooms = slices.DeleteFunc(slices.Clone(next.rooms), func(room string) bool { return x.seats[room] != nil })
	for _, room := range roomNames(x.conn.Rooms) { // it may be in some rooms already
		if !slices.Contains(next.rooms, room) {
			next.rooms = append(next.rooms, room)
		}
	}
	next.places = slices.Clone(next.places)
	next.forgetGiven()
	next.attempts++
	if l.Rooms.Index.AnyHistory() {
		next.earlier = x.state.succeed()
	}
	next.resumedAtMillis = l.Sessions.Wall(l.Now).UnixMilli()
	l.step(x, func(done func(error)) error {
		return l.Sessions.Store.Save(l.Sessions.keyOf(x.next), Value{&next}, done)
	}, (*Loop).nextSaved)
}

// nextSaved spends the claimed session, now that the following one is stored.
func (l *Loop) nextSaved(x *succession, err error) {
	if err != nil || !x.waits() {
		l.Sessions.Store.Drop(l.Sessions.keyOf(x.next), nil)
		l.fail(x, err)
		return
	}
	l.step(x, func(done func(error)) error { return l.Sessions.Store.Spend(x.at, done) }, (*Loop).spent)
}

// spent ends the session that the client had before.
func (l *Loop) spent(x *succession, err error) {
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
	}, (*Loop).revoked)
}

// revoked restores the claimed session on the connection that asked for it. Letters that were posted for the connection
// while it waited go out before the answer.
func (l *Loop) revoked(x *succession, _ error) {
	if x.wait != nil && x.conn.Posted.Load() > 0 {
		l.PostCall(func() { l.restore(x) })
		return
	}
	l.restore(x)
}

// forgo is for an heir that has gone or found the session spent: the following session is dropped. The store gets the
// claimed one back, in case it can still restore it.
func (l *Loop) forgo(x *succession) {
	l.Sessions.Store.Drop(l.Sessions.keyOf(x.next), nil)
	l.giveBack(x)
	l.parkAgain(x)
}

// restore gives the heir the session's state, and answers.
func (l *Loop) restore(x *succession) {
	if !x.settled(l) {
		l.forgo(x)
		return
	}
	c := x.conn
	c.Flags |= flagResumed
	c.withRare().attempts = x.state.attempts + 1
	c.rare().resumedAt, c.rare().line = l.Now, x.state.next()
	if l.Rooms.Index.AnyHistory() {
		c.rare().Earlier = x.state.succeed()
	}
	if n := c.inheritAttributes(x.state); n > 0 {
		l.Ground.Log.Warn("some attributes of a session do not fit beside those of the new connection and are dropped; raise attributes_bytes_max", "conn", c.ID().String(), "dropped", n)
	}
	l.revive(&revival{succession: x, answer: message.Reconnected{
		ID:       c.ID().Append(nil),
		Previous: ident.ID{Worker: x.state.instance, Place: x.state.previous}.Append(nil),
		Ref:      x.asked.ref,
	}})
	if x.wait != nil {
		c.GoOnAfter(x.wait)
	}
}
