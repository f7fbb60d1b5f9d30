package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/engine/cluster/ledger"
)

// sessions is the ledger's book of sessions as the engine wants it: the errors are the engine's, and what must happen
// is tried until it has.
type sessions struct{ book *ledger.Ledger }

const (
	tryAgain = 100 * time.Millisecond
	// A claim that comes to nothing is taken back, which takes a round trip after the bus has returned; a claimant who
	// comes in between is not told that the session is gone.
	claimedWait    = 2 * time.Millisecond // then twice as long each time
	claimedWaitMax = 50 * time.Millisecond
	claimedTime    = 1500 * time.Millisecond
)

func keyOf(k engine.SessionKey) ledger.Key { return ledger.Key{Instance: k.Instance, Hash: k.Hash} }

func claimOf(c engine.SessionClaim) ledger.Claim {
	return ledger.Claim{Key: keyOf(c.Key), Nonce: c.Nonce}
}

// engineError is what the engine calls an error of the ledger.
func engineError(err error) error {
	switch {
	case errors.Is(err, ledger.ErrUnknown):
		return engine.ErrSessionUnknown
	case errors.Is(err, ledger.ErrClaimed):
		return engine.ErrSessionClaimed
	case errors.Is(err, ledger.ErrAway), errors.Is(err, ledger.ErrBusy), errors.Is(err, ledger.ErrClosed):
		return engine.ErrSessionsAway
	case errors.Is(err, ledger.ErrTooLarge):
		return fmt.Errorf("%w: %w", engine.ErrSessionTooLarge, err)
	}
	return err
}

// Why says why sessions cannot be kept at the moment; empty where they can.
func (s sessions) Why() string { return s.book.Why() }

// Save is of [engine.SessionStore].
func (s sessions) Save(key engine.SessionKey, value engine.SessionValue, done func(error)) error {
	return engineError(s.book.Sessions.Save(keyOf(key), value.Bytes(), func(err error) { done(engineError(err)) }))
}

// Park is of [engine.SessionStore]. The ledger itself goes on trying to write what was away too long.
func (s sessions) Park(key engine.SessionKey, value engine.SessionValue, ttl time.Duration, done func(error)) error {
	return engineError(s.book.Sessions.Park(keyOf(key), value.Bytes(), ttl, func(err error) { done(engineError(err)) }))
}

// Drop is of [engine.SessionStore].
func (s sessions) Drop(key engine.SessionKey, done func(error)) {
	if done == nil {
		s.book.Sessions.Drop(keyOf(key), nil)
		return
	}
	s.book.Sessions.Drop(keyOf(key), func(err error) { done(engineError(err)) })
}

// Forget is of [engine.SessionStore].
func (s sessions) Forget(key engine.SessionKey) { s.book.Sessions.Forget(keyOf(key)) }

// Claim is of [engine.SessionStore].
func (s sessions) Claim(at engine.SessionClaim, done func(engine.ClaimedSession, error)) error {
	c := &attempts{sessions: s, at: at, done: done, wait: claimedWait}
	return engineError(c.claim())
}

// attempts are those of one claim, while somebody else holds the session.
//
// Owner: the ledger's goroutine, and the timer's in between.
type attempts struct {
	sessions
	at     engine.SessionClaim
	done   func(engine.ClaimedSession, error)
	wait   time.Duration // until the next one
	waited time.Duration
}

func (c *attempts) claim() error {
	return c.book.Sessions.Claim(claimOf(c.at), func(got ledger.Claimed, err error) {
		if err != ledger.ErrClaimed || c.waited > claimedTime {
			c.done(engine.ClaimedSession{Value: got.Value, OwnerAlive: got.OwnerAlive}, engineError(err))
			return
		}
		time.AfterFunc(c.wait, func() {
			c.waited += c.wait
			c.wait = min(2*c.wait, claimedWaitMax)
			if err := c.claim(); err != nil {
				c.done(engine.ClaimedSession{}, engineError(err))
			}
		})
	})
}

// Unclaim is of [engine.SessionStore].
func (s sessions) Unclaim(at engine.SessionClaim) {
	s.seeThrough(func(done func(error)) error { return s.book.Sessions.Unclaim(claimOf(at), done) }, func(error) {})
}

// Restore is of [engine.SessionStore].
func (s sessions) Restore(at engine.SessionClaim, value engine.SessionValue, ttl time.Duration) {
	s.seeThrough(func(done func(error)) error { return s.book.Sessions.Restore(claimOf(at), value.Bytes(), ttl, done) }, func(err error) {
		if errors.Is(err, ledger.ErrTooLarge) {
			s.Unclaim(at)
		}
	})
}

// Spend is of [engine.SessionStore].
func (s sessions) Spend(at engine.SessionClaim, done func(error)) error {
	s.seeThrough(func(done func(error)) error { return s.book.Sessions.Spend(claimOf(at), done) },
		func(err error) { done(engineError(err)) })
	return nil
}

// seeThrough ends a claim, and tries again for as long as the bus is away. As long as we live nobody else changes a
// record that we have claimed: where it is not ours any more after an attempt whose outcome we were not told, that
// attempt had succeeded.
func (s sessions) seeThrough(call func(done func(error)) error, done func(error)) {
	s.attempt(call, false, done)
}

func (s sessions) attempt(call func(done func(error)) error, before bool, done func(error)) {
	told := func(err error) {
		switch {
		case err == ledger.ErrAway:
			time.AfterFunc(tryAgain, func() { s.attempt(call, true, done) })
		case before && (err == ledger.ErrUnknown || err == ledger.ErrClaimed):
			done(nil)
		default:
			done(err)
		}
	}
	switch err := call(told); {
	case err == ledger.ErrBusy:
		time.AfterFunc(tryAgain, func() { s.attempt(call, before, done) })
	case err != nil:
		done(err)
	}
}

// finish waits until what was given to the ledger is written, at most until ctx is done, and closes it.
func (s sessions) finish(ctx context.Context) {
	poll := time.NewTicker(2 * time.Millisecond)
	defer poll.Stop()
	for s.book.Pending() > 0 && ctx.Err() == nil {
		select {
		case <-poll.C:
		case <-ctx.Done():
		}
	}
	s.book.Close()
}
