package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/parleyd/parley/engine/cluster/ledger"
	"github.com/parleyd/parley/engine/internal/session"
)

// sessions implements [session.Store] over the ledger: it translates errors, and repeats writes that must happen.
type sessions struct{ ledger *ledger.Ledger }

const (
	tryAgain = 100 * time.Millisecond
	// Undoing a failed claim takes a round trip after the bus has returned. A second claim in that time is repeated, so
	// that its client is not told that the session is gone.
	claimedWait    = 2 * time.Millisecond // then twice as long each time
	claimedWaitMax = 50 * time.Millisecond
	claimedTime    = 1500 * time.Millisecond
)

func keyOf(k session.Key) ledger.Key { return ledger.Key{Instance: k.Instance, Hash: k.Hash} }

func claimOf(c session.Claim) ledger.Claim {
	return ledger.Claim{Key: keyOf(c.Key), Nonce: c.Nonce}
}

// sessionError translates an error of the ledger about sessions into the engine's.
func sessionError(err error) error {
	switch {
	case errors.Is(err, ledger.ErrUnknown):
		return session.ErrUnknown
	case errors.Is(err, ledger.ErrClaimed):
		return session.ErrClaimed
	case errors.Is(err, ledger.ErrAway), errors.Is(err, ledger.ErrBusy), errors.Is(err, ledger.ErrClosed):
		return session.ErrAway
	case errors.Is(err, ledger.ErrTooLarge):
		return fmt.Errorf("%w: %w", session.ErrTooLarge, err)
	}
	return err
}

// Why is the reason why sessions cannot be kept at the moment; empty if they can.
func (s sessions) Why() string { return s.ledger.Why() }

// Save implements [session.Store].
func (s sessions) Save(key session.Key, value session.Value, done func(error)) error {
	return sessionError(s.ledger.Sessions.Save(keyOf(key), value.Bytes(), func(err error) { done(sessionError(err)) }))
}

// Park implements [session.Store]. The ledger goes on trying to write after ErrSessionsAway.
func (s sessions) Park(key session.Key, value session.Value, ttl time.Duration, done func(error)) error {
	return sessionError(s.ledger.Sessions.Park(keyOf(key), value.Bytes(), ttl, func(err error) { done(sessionError(err)) }))
}

// Drop implements [session.Store].
func (s sessions) Drop(key session.Key, done func(error)) {
	if done == nil {
		s.ledger.Sessions.Drop(keyOf(key), nil)
		return
	}
	s.ledger.Sessions.Drop(keyOf(key), func(err error) { done(sessionError(err)) })
}

// Forget implements [session.Store].
func (s sessions) Forget(key session.Key) { s.ledger.Sessions.Forget(keyOf(key)) }

// Claim implements [session.Store].
func (s sessions) Claim(at session.Claim, done func(session.Claimed, error)) error {
	c := &attempts{sessions: s, at: at, done: done, wait: claimedWait}
	return sessionError(c.claim())
}

// attempts repeats one claim while another claim holds the session.
//
// Owner: the ledger's goroutine, and the timer's between two attempts.
type attempts struct {
	sessions
	at     session.Claim
	done   func(session.Claimed, error)
	wait   time.Duration // until the next attempt
	waited time.Duration
}

func (c *attempts) claim() error {
	return c.ledger.Sessions.Claim(claimOf(c.at), func(got ledger.Claimed, err error) {
		if err != ledger.ErrClaimed || c.waited > claimedTime {
			c.done(session.Claimed{Value: got.Value, OwnerAlive: got.OwnerAlive}, sessionError(err))
			return
		}
		time.AfterFunc(c.wait, func() {
			c.waited += c.wait
			c.wait = min(2*c.wait, claimedWaitMax)
			if err := c.claim(); err != nil {
				c.done(session.Claimed{}, sessionError(err))
			}
		})
	})
}

// Unclaim implements [session.Store].
func (s sessions) Unclaim(at session.Claim) {
	s.endClaim(func(done func(error)) error { return s.ledger.Sessions.Unclaim(claimOf(at), done) }, func(error) {})
}

// Restore implements [session.Store].
func (s sessions) Restore(at session.Claim, value session.Value, ttl time.Duration) {
	s.endClaim(func(done func(error)) error { return s.ledger.Sessions.Restore(claimOf(at), value.Bytes(), ttl, done) }, func(err error) {
		if errors.Is(err, ledger.ErrTooLarge) {
			s.Unclaim(at)
		}
	})
}

// Spend implements [session.Store].
func (s sessions) Spend(at session.Claim, done func(error)) error {
	s.endClaim(func(done func(error)) error { return s.ledger.Sessions.Spend(claimOf(at), done) },
		func(err error) { done(sessionError(err)) })
	return nil
}

// Void implements [session.Voider].
func (s sessions) Void(match func(value []byte) bool, done func(error)) error {
	return sessionError(s.ledger.Sessions.Void(match, func(err error) { done(sessionError(err)) }))
}

// endClaim ends a claim, and tries again for as long as the bus is away. While this process lives, no other changes a
// record that it has claimed: if an attempt had no answer, and the next finds the record changed, the first succeeded.
func (s sessions) endClaim(call func(done func(error)) error, done func(error)) {
	s.attempt(call, false, done)
}

// attempt calls once, and again after tryAgain where that is needed. unsure says that an earlier attempt had no answer.
func (s sessions) attempt(call func(done func(error)) error, unsure bool, done func(error)) {
	answer := func(err error) {
		switch {
		case err == ledger.ErrAway:
			time.AfterFunc(tryAgain, func() { s.attempt(call, true, done) })
		case unsure && (err == ledger.ErrUnknown || err == ledger.ErrClaimed):
			done(nil)
		default:
			done(err)
		}
	}
	switch err := call(answer); {
	case err == ledger.ErrBusy:
		time.AfterFunc(tryAgain, func() { s.attempt(call, unsure, done) })
	case err != nil:
		done(err)
	}
}

// finish waits until the ledger has written all pending records, at most until ctx is done, and closes it.
func (s sessions) finish(ctx context.Context) {
	poll := time.NewTicker(2 * time.Millisecond)
	defer poll.Stop()
	for s.ledger.Pending() > 0 && ctx.Err() == nil {
		select {
		case <-poll.C:
		case <-ctx.Done():
		}
	}
	s.ledger.Close()
}
