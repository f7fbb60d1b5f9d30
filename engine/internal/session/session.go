package session

import (
	"crypto/sha256"
	"errors"
	"time"

	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/protocol/message"
	"github.com/parleyd/parley/rooms"
)

// A session is the state that a token restores. While its connection lives, the worker remembers only the connection's
// place; when the connection ends, its state is parked until a connection claims it or its time is over.
//
// Tokens are stored hashed: a token cannot be read out of the server's memory, or of a dump of it.

// tokenHash is the first half of a token's SHA-256.
type tokenHash [16]byte

// token is 128 random bits [wire protocol, sessions]; the zero token is none.
type token [16]byte

var noToken token

// hashToken hashes a token as the client sent it.
func hashToken(text []byte) (key tokenHash) {
	sum := sha256.Sum256(text)
	copy(key[:], sum[:])
	return key
}

// parked is the state of a session without a connection.
//
// Owner: immutable once in the store, except lent and taken (mutex: the shard's).
type parked struct {
	previous        ident.Place
	line            lineage
	instance        ident.Worker // the worker of that connection
	principal       string
	rooms           []string
	places          []savedPlace // in those rooms that have history
	earlier         []uint64     // the session's connections, by [rooms.Who], the newest last
	attrs           *attributes
	userData        *userData
	attempts        int
	resumedAtMillis int64 // since 1970; 0 unless the connection lives and attempts counts
	expiresAt       int64 // on the server's clock, less its stalls
	lent            bool  // given to another worker, and kept until the store knows whose the session is
	taken           bool  // a claimant has it, or may have it: it did not go because its time was over
}

// IssueToken begins a session for c and tells the client its token: at once, or when the store has the session.
func (l *Loop) IssueToken(c *Conn) {
	l.Sessions.Entropy(c.token[:])
	l.Sessions.Memory.begin(l.Sessions.hashOf(c.token), c)
	c.Flags &^= flagTokenKnown
	if l.Sessions.apart {
		l.saveFirst(c)
		return
	}
	l.tellToken(c)
}

// tellToken sends the client the token of its session.
func (l *Loop) tellToken(c *Conn) {
	c.Flags |= flagTokenKnown
	l.Text = message.AppendReconnectToken(l.Text[:0], l.Sessions.tokenText(c.token), int64(l.Sessions.TTL.Seconds()))
	c.Answer(l.Text)
}

// follow gives c, which has just resumed, the following session, which was stored after losses losses of the store.
func (l *Loop) follow(c *Conn, next token, losses uint64) {
	c.token = next
	l.Sessions.Memory.begin(l.Sessions.hashOf(next), c)
	if l.Sessions.losses.Load() != losses {
		c.Flags &^= flagTokenKnown
		l.saveFirst(c)
		return
	}
	l.tellToken(c)
	l.Changed(c) // the stored value is the claimed one; the restored state may differ
}

// endSession ends the session of c, unless another connection has claimed it: then it returns false, and done does not run.
// Otherwise done, which may be nil, runs when the store has dropped it, or is away.
func (l *Loop) endSession(c *Conn, done func(error)) bool {
	t := c.token
	if t == noToken {
		return false
	}
	c.token = noToken
	key := l.Sessions.keyOf(t)
	if !l.Sessions.Memory.revoke(key.Hash) {
		return false
	}
	l.dropSession(key, done)
	return true
}

// dropSession makes the store drop a session that was revoked. A store apart drops it later: if it has given the session to
// another connection meanwhile, that connection's worker asks here, and learns of the revocation.
func (l *Loop) dropSession(key Key, done func(error)) {
	if l.Sessions.apart {
		l.Sessions.Memory.remember(key.Hash, l.Now)
	}
	l.Sessions.dropStored(key, done)
}

// dropStored makes the store drop a session for good. A claimant may put it back, so it is dropped until the claim has
// ended. done, which may be nil, gets the result of the first attempt. Any goroutine.
func (s *Sessions) dropStored(key Key, done func(error)) { s.dropClaimed(key, claimEnds, done) }

// dropClaimed is dropStored, which tries again after wait where the session is claimed. What this worker knows, that the session has
// ended, must not die with it.
func (s *Sessions) dropClaimed(key Key, wait time.Duration, done func(error)) {
	s.Store.Drop(key, func(err error) {
		switch {
		case errors.Is(err, ErrClaimed):
			s.Rooms.Loops[0].PostAfter(wait, func() { s.dropClaimed(key, min(2*wait, SaveAgain), nil) })
		case errors.Is(err, ErrAway):
			s.Rooms.Loops[0].PostAfter(SaveAgain, func() { s.dropStored(key, nil) })
		}
		if done != nil {
			done(err)
		}
	})
}

// park keeps the session of an ending connection, and returns the token that restores it, "" for none. state is kept; nil:
// the present state of c. Until the store has the state it stays here, too: another connection may have claimed the session
// meanwhile, and ask for it.
func (l *Loop) park(c *Conn, cause turn.Cause, state *parked) string {
	t := c.token
	if t == noToken {
		return ""
	}
	c.token = noToken
	key := l.Sessions.keyOf(t)
	if cause == turn.CauseUnauthorized || !c.Has(flagTokenKnown) {
		l.Sessions.Memory.revoke(key.Hash)
		l.dropSession(key, nil)
		return ""
	}
	if state == nil {
		state = l.snapshot(c)
	}
	state.resumedAtMillis = 0
	if l.Sessions.Memory.park(key.Hash, state) {
		l.Sessions.parkStored(key, state)
	} else {
		c.withRare().leftover = state
	}
	return l.Sessions.tokenText(t)
}

// snapshot is the state of c, for the heir of its session.
func (l *Loop) snapshot(c *Conn) *parked {
	state := l.snapshotAlone(c)
	state.rooms = roomNames(c.Rooms)
	for _, r := range c.Rooms {
		state.savePlace(l, c, r)
	}
	return state
}

// roomNames are the names of the rooms that are not deleted: members of a deleted one are about to be told.
func roomNames(list []*rooms.Room) (names []string) {
	for _, r := range list {
		if !r.Dead() {
			names = append(names, r.Name())
		}
	}
	return names
}

// snapshotAlone is snapshot without the rooms.
func (l *Loop) snapshotAlone(c *Conn) *parked {
	state := &parked{
		previous:  c.Place(),
		instance:  l.Link.Self,
		principal: c.User(),
		attrs:     c.attrs.Load().lasting(),
		userData:  c.userData.Load(),
		expiresAt: l.Sessions.Memory.until(l.Now),
	}
	r := c.rare()
	if r != nil {
		state.line = r.line
		state.earlier = r.Earlier
	}
	if r != nil && r.attempts > 0 && l.Now-r.resumedAt < l.Ground.Beats.Load().Timeout {
		state.attempts, state.resumedAtMillis = r.attempts, l.Sessions.Wall(r.resumedAt).UnixMilli()
	}
	return state
}
