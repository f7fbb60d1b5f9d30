package engine

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"

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

// String is the token as clients know it.
func (t token) String() string { return base64.RawURLEncoding.EncodeToString(t[:]) }

// parked is the state of a session without a connection.
//
// Owner: immutable once in the store.
type parked struct {
	previous        place
	instance        ident.Worker // the worker of that connection
	principal       string
	rooms           []string
	attrs           *attributes
	userData        *userData
	attempts        int
	resumedAtMillis int64 // since 1970; 0 unless the connection lives and attempts counts
	expiresAt       int64 // on the server's clock, less its stalls
	lent            bool  // handed over to another worker, and kept until the store knows whose the session is
}

// issueToken begins a session for c and tells the client its token: at once, or when the store has the session.
func (l *loop) issueToken(c *Conn) {
	l.srv.entropy(c.token[:])
	l.srv.sessions.begin(l.srv.hashOf(c.token), c)
	c.wire.Flags &^= flagTold
	if l.srv.storeApart {
		l.saveFirst(c)
		return
	}
	l.tellToken(c)
}

// tellToken sends the client the token of its session.
func (l *loop) tellToken(c *Conn) {
	c.wire.Flags |= flagTold
	l.Text = message.AppendReconnectToken(l.Text[:0], l.srv.tokenText(c.token), int64(l.srv.cfg.ReconnectionTTL.Seconds()))
	l.answer(c, l.Text)
}

// follow gives c, which has just resumed, the following session.
func (l *loop) follow(c *Conn, next token) {
	c.token = next
	l.srv.sessions.begin(l.srv.hashOf(next), c)
	l.tellToken(c)
	l.changed(c) // the stored value is the claimed one; the restored state may differ
}

// endSession ends the session of c, unless another connection has claimed it: then it returns false, and told does not run.
// Otherwise told, which may be nil, runs when the store has dropped it, or is away.
func (l *loop) endSession(c *Conn, told func(error)) bool {
	t := c.token
	if t == noToken {
		return false
	}
	c.token = noToken
	key := l.srv.keyOf(t)
	if !l.srv.sessions.revoke(key.Hash) {
		return false
	}
	l.dropSession(key, told)
	return true
}

// dropSession makes the store drop a session that was revoked. A store apart drops it later: if it has given the session to
// another connection meanwhile, that connection's worker asks here, and learns of the revocation.
func (l *loop) dropSession(key SessionKey, told func(error)) {
	if l.srv.storeApart {
		l.srv.sessions.remember(key.Hash, l.Now)
	}
	l.srv.dropStored(key, told)
}

// dropStored makes the store drop a session for good. A claimant may put it back, so it is dropped until the claim has
// ended. told, which may be nil, gets the result of the first attempt. Any goroutine.
func (s *Server) dropStored(key SessionKey, told func(error)) {
	s.store.Drop(key, func(err error) {
		if errors.Is(err, ErrSessionClaimed) || errors.Is(err, ErrSessionsAway) {
			s.loops[0].postAfter(saveAgain, func(*loop) { s.dropStored(key, nil) })
		}
		if told != nil {
			told(err)
		}
	})
}

// park keeps the session of an ending connection, and returns the token that restores it, "" for none. state is kept; nil:
// the present state of c. Until the store has the state it stays here, too: another connection may have claimed the session
// meanwhile, and ask for it.
func (l *loop) park(c *Conn, cause Cause, state *parked) string {
	t := c.token
	if t == noToken {
		return ""
	}
	c.token = noToken
	key := l.srv.keyOf(t)
	if cause == CauseUnauthorized || !c.has(flagTold) {
		l.srv.sessions.revoke(key.Hash)
		l.dropSession(key, nil)
		return ""
	}
	if state == nil {
		state = l.snapshot(c)
	}
	state.resumedAtMillis = 0
	if l.srv.sessions.park(key.Hash, state) {
		l.srv.parkStored(key, state)
	} else {
		c.extra().leftover = state
	}
	return l.srv.tokenText(t)
}

// snapshot is the state of c, for the heir of its session.
func (l *loop) snapshot(c *Conn) *parked {
	state := l.snapshotAlone(c)
	state.rooms = roomNames(c.rooms)
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
func (l *loop) snapshotAlone(c *Conn) *parked {
	state := &parked{
		previous:  c.place(),
		instance:  l.srv.instance,
		principal: c.Principal(),
		attrs:     c.attrs.Load(),
		userData:  c.userData.Load(),
		expiresAt: l.srv.sessions.until(l.Now),
	}
	if r := c.rare; r != nil && r.attempts > 0 && l.Now-r.resumedAt < l.Ground.Beats.Load().Timeout {
		state.attempts, state.resumedAtMillis = r.attempts, l.srv.wall(r.resumedAt).UnixMilli()
	}
	return state
}
