package engine

import (
	"errors"
	"slices"
	"time"

	"github.com/parleyd/parley/protocol/message"
)

// Resuming a session that the store keeps, which any worker may have begun:
//
//	claim      the store gives it to one of all that want it
//	hand over  where its connection may still live, its worker ends it and gives the state as it is now, and its seats
//	seats      in rooms whose limits all workers share
//	save       the session that follows is stored under a token of its own
//	spend      the claimed one is deleted, and cannot be taken a second time, whoever dies now
//	revoke     the session that the client began with is deleted, too: once he is told, its token is good for nobody
//	restore    rooms, attributes, the answer, the new token
//
// The client's later messages wait meanwhile. Whatever fails before the session is spent puts it back, so that its token
// stays good.

// handOverWait is how long an owner has to hand over; then what the store has counts. One that is frozen ends the
// connection when it comes to itself.
const handOverWait = time.Second

// succession is one such claim on its way.
//
// Owner: the claimant's loop.
type succession struct {
	conn     *Conn
	wait     *pending
	at       SessionClaim
	withLast bool
	taken    bool // the owner has handed over: the store's state is older
	h        handover
}

func (l *loop) claimKept(c *Conn, key SessionKey, e *message.Envelope) {
	x := &succession{conn: c, at: SessionClaim{Key: key}, withLast: e.Last != nil}
	l.srv.entropy(x.at.Nonce[:])
	x.wait = l.await(c, pendingClaim, "reconnect", e.Ref)
	err := l.srv.store.Claim(x.at, func(got ClaimedSession, err error) {
		l.postCall(func(l *loop) { l.claimed(x, got, err) })
	})
	if err != nil {
		l.refuseClaim(x, err)
	}
}

// waits reports whether the client still waits for the outcome.
func (x *succession) waits() bool { return x.conn.rare != nil && x.conn.rare.pending == x.wait }

// refuseClaim tells the client, if it still waits.
func (l *loop) refuseClaim(x *succession, err error) {
	if !l.settled(x.conn, x.wait) {
		return
	}
	l.count[countResumesRefused].Add(1)
	told := errUnavailable
	if coded, ok := errors.AsType[*Error](err); ok {
		told = coded
	} else if errors.Is(err, ErrSessionUnknown) || errors.Is(err, ErrSessionClaimed) {
		told = wireError(message.InvalidToken)
	}
	l.complain(x.conn, told, x.wait.ref)
	l.resume(x.conn, x.wait)
}

// claimed is the store's verdict.
func (l *loop) claimed(x *succession, got ClaimedSession, err error) {
	if err != nil {
		l.refuseClaim(x, err)
		return
	}
	if !x.waits() {
		l.putBack(x)
		return
	}
	state, err := decodeParked(got.Value)
	switch {
	case err != nil:
		l.srv.log.Error("read stored session", "err", err)
		l.putBack(x)
		l.refuseClaim(x, wireError(message.InvalidToken))
		return
	case state.principal != x.conn.Principal():
		l.putBack(x)
		l.refuseClaim(x, wireError(message.InvalidToken))
		return
	}
	state.attempts = l.attemptsSince(state)
	x.h.state = state
	switch {
	case state.attempts >= l.srv.sessions.max:
		l.exhausted(x, got.OwnerAlive)
	case got.OwnerAlive:
		l.askOwner(x)
	default:
		l.succeed(x)
	}
}

// attemptsSince is how many resumes in a row led to a session; the count starts again once a resumed connection has
// lived for heartbeat_timeout.
func (l *loop) attemptsSince(state *parked) int {
	lived := l.srv.wall(l.now).UnixMilli() - state.resumedAt
	if state.resumedAt != 0 && lived >= l.srv.tuned.Load().timeout/int64(time.Millisecond) {
		return 0
	}
	return state.attempts
}

// exhausted refuses a session that was resumed too often in a row. Where its connection lives, it stays.
func (l *loop) exhausted(x *succession, alive bool) {
	if alive {
		l.srv.store.Unclaim(x.at)
	} else if err := l.srv.store.Spend(x.at, func(error) {}); err != nil {
		l.srv.store.Unclaim(x.at)
	}
	l.refuseClaim(x, wireError(message.AttemptsExhausted))
}

// askOwner has the connection that a session belongs to hand over.
func (l *loop) askOwner(x *succession) {
	key := x.at.Key
	if key.Instance != l.srv.instance {
		question := handoverQuestion{sessionKey(key.Hash), l.srv.instance, SeatTicket(x.at.Nonce)}
		l.srv.ask(key.Instance, asking{verbHandOver, question.append(nil), handOverWait}, func(answer []byte, err error) {
			var h handover
			if err == nil {
				h, err = decodeHandover(answer)
			}
			l.postCall(func(l *loop) { l.handedOver(x, h, err) })
		})
		return
	}
	given := l.srv.sessions.release(key.Hash)
	if given.conn == nil {
		l.handedOver(x, handover{state: given.state, ended: given.revoked}, nil)
		return
	}
	heir := x.conn.place()
	given.conn.loop.postCall(func(from *loop) {
		from.afterHeld(given.conn, func(from *loop) {
			from.handOverClaimed(given.conn, key.Hash, heir, func(_ *loop, h handover) {
				l.postCall(func(l *loop) { l.handedOver(x, h, nil) })
			})
		})
	})
}

// handedOver is what the owner said, if it did.
func (l *loop) handedOver(x *succession, h handover, err error) {
	switch {
	case err != nil:
		l.srv.log.Info("an owner did not hand its session over: it is restored as it was stored",
			"worker", x.at.Key.Instance, "err", err)
	case h.ended:
		if err := l.srv.store.Spend(x.at, func(error) {}); err != nil {
			l.srv.store.Unclaim(x.at)
		}
		l.refuseClaim(x, wireError(message.InvalidToken))
		return
	case h.spent:
		l.exhausted(x, true)
		return
	case h.state != nil:
		h.state.attempts = l.attemptsSince(h.state)
		x.h, x.taken = h, true
		if h.state.principal != x.conn.Principal() { // it has changed since the session was stored
			l.putBack(x)
			l.refuseClaim(x, wireError(message.InvalidToken))
			return
		}
	}
	if !x.waits() {
		l.putBack(x)
		return
	}
	l.succeed(x)
}

// putBack gives the session to whoever shows its token next.
func (l *loop) putBack(x *succession) {
	l.giveBack(&x.h, x.conn.place())
	if x.taken {
		state := *x.h.state
		state.resumedAt = 0
		l.srv.store.Restore(x.at, state.encode(), l.srv.cfg.ReconnectionTTL)
		return
	}
	l.srv.store.Unclaim(x.at)
}

// succeed goes on, with the state that is to be restored: first with the seats that this takes.
func (l *loop) succeed(x *succession) {
	limits := l.scarceRooms(x.conn, x.h.state.rooms)
	if len(limits) == 0 {
		l.saveNext(x)
		return
	}
	var ticket SeatTicket
	if x.taken {
		ticket = SeatTicket(x.at.Nonce)
	}
	x.h.seats = l.gatherSeats(limits, ticket, func(l *loop) {
		if why := x.h.seats.unknown(); why != nil {
			l.putBack(x)
			l.refuseClaim(x, why)
			return
		}
		if !x.waits() {
			l.putBack(x)
			return
		}
		l.saveNext(x)
	})
}

// saveNext stores the session that follows.
func (l *loop) saveNext(x *succession) {
	l.srv.entropy(x.h.next[:])
	next := *x.h.state
	next.previous, next.instance = x.conn.place(), l.srv.instance
	next.rooms = slices.DeleteFunc(slices.Clone(next.rooms), func(room string) bool { return x.h.seats[room] != nil })
	next.attempts++
	next.resumedAt = l.srv.wall(l.now).UnixMilli()
	err := l.srv.store.Save(l.srv.sharedKey(x.h.next), next.encode(), func(err error) {
		l.postCall(func(l *loop) { l.succeeded(x, err) })
	})
	if err != nil {
		l.putBack(x)
		l.refuseClaim(x, err)
	}
}

// succeeded spends the claimed session, now that the next one is stored.
func (l *loop) succeeded(x *succession, err error) {
	if err == nil && x.waits() {
		if err = l.srv.store.Spend(x.at, func(err error) {
			l.postCall(func(l *loop) { l.spent(x, err) })
		}); err == nil {
			return
		}
	}
	l.srv.store.Drop(l.srv.sharedKey(x.h.next), nil)
	l.putBack(x)
	l.refuseClaim(x, err)
}

// spent ends the session that the client had until now.
func (l *loop) spent(x *succession, err error) {
	if err != nil || !x.waits() {
		l.forgone(x, err)
		return
	}
	if !l.endSession(x.conn, func(error) { l.postCall(func(l *loop) { l.revoked(x) }) }) {
		l.revoked(x)
	}
}

// revoked makes the client the heir.
func (l *loop) revoked(x *succession) {
	if !l.settled(x.conn, x.wait) {
		l.forgone(x, nil)
		return
	}
	l.restoreSeated(x.conn, x.h, claimant(x.wait.ref, x.withLast))
	l.resume(x.conn, x.wait)
}

// forgone is the end of a session that could not be spent, because somebody else has it, or whose client has gone.
func (l *loop) forgone(x *succession, err error) {
	l.srv.store.Drop(l.srv.sharedKey(x.h.next), nil)
	l.giveBack(&x.h, x.conn.place())
	l.refuseClaim(x, err)
}
