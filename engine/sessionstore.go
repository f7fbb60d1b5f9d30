package engine

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"time"

	"github.com/parleyd/parley/protocol/ident"
)

// The store decides which claimant gets a session, and has the state that it restores; the worker's memory (session.go)
// knows which connection a session belongs to. A server that is alone has both in memory (sessionmemory.go). If several
// workers are one server, or sessions must outlive the process, the store is apart from the process. No loop waits for it.

// SessionStore keeps sessions for all workers. Its methods are for any goroutine and never wait. A method that returns
// an error has done nothing and does not call done; otherwise done runs once, on any goroutine, perhaps before the method
// returns, and must not block. The values passed in belong to the store.
//
// Save and Park answer [ErrSessionClaimed] while another connection holds a claim, and [ErrSessionUnknown] when the session
// no longer belongs to the worker. Save, Park and Claim answer [ErrSessionsAway] when the store is not reached in time; the
// other calls are repeated until they succeed, however long that takes. Save and Park return [ErrSessionTooLarge] for a
// value above the store's limit; Restore then puts the session back as it was.
type SessionStore interface {
	// Save stores the session of a live connection; of several values in quick succession only the last is stored.
	Save(key SessionKey, value SessionValue, done func(error)) error
	// Park stores a session whose connection has ended, for ttl. The worker's memory keeps it, too, until done is called
	// with nil: never, where that memory is the store.
	Park(key SessionKey, value SessionValue, ttl time.Duration, done func(error)) error
	// Drop deletes a session, unless another connection has claimed it. done, which may be nil, gets the result, or
	// [ErrSessionsAway], after which the store goes on trying.
	Drop(key SessionKey, done func(error))
	// Forget says that the session belongs to another connection now: the worker will not write it any more.
	Forget(key SessionKey)
	// Claim takes a session, exactly once over all workers.
	Claim(at SessionClaim, done func(ClaimedSession, error)) error
	// Unclaim puts a claimed session back as it was.
	Unclaim(at SessionClaim)
	// Restore parks a claimed session with another value, for ttl; a spent one, too, if the store can.
	Restore(at SessionClaim, value SessionValue, ttl time.Duration)
	// Spend ends a claimed session: the following one has taken its place.
	Spend(at SessionClaim, done func(error)) error
}

// SessionKey names a session: the worker that began it, and a hash of its token.
type SessionKey struct {
	Instance ident.Worker
	Hash     [16]byte
}

// SessionValue is the state that a session restores.
type SessionValue struct{ state *parked }

// Bytes encodes the value: for a store that is apart from the process.
func (v SessionValue) Bytes() []byte { return v.state.encode() }

// SessionClaim is one attempt to take a session; the nonce tells it from all others. A store that knows principals gives a
// session only to a connection of the same principal, and leaves it untouched otherwise.
type SessionClaim struct {
	Key       SessionKey
	Nonce     [16]byte
	Principal string
}

// ClaimedSession is what a claim gives: the value as [SessionValue.Bytes] gave it. OwnerAlive says that the session's
// connection may still live, on the worker that the key names.
type ClaimedSession struct {
	Value      []byte
	OwnerAlive bool
	kept       *parked // of a memoryStore, in the place of Value
}

// state is the session's state, nil if only its live connection knows it.
func (x ClaimedSession) state() (*parked, error) {
	if x.kept != nil || x.Value == nil && x.OwnerAlive {
		return x.kept, nil
	}
	return decodeParked(x.Value)
}

// Errors of a SessionStore.
var (
	// ErrSessionUnknown: there is no such session, or it is over, or another connection has taken it.
	ErrSessionUnknown = errors.New("there is no such session")
	// ErrSessionClaimed: another connection has claimed it, and may put it back.
	ErrSessionClaimed = errors.New("the session is claimed")
	// ErrSessionTooLarge: it is larger than the store takes; nothing was stored.
	ErrSessionTooLarge = errors.New("the session is too large for the store")
	// ErrSessionsAway: the store is not reached, or has too much to do. Try again.
	ErrSessionsAway = errors.New("the store of sessions is away")
)

// Degraded says in a sentence that the server serves but cannot keep sessions. It is empty if it can. Any goroutine.
//
// Scope: this worker.
func (s *Server) Degraded() string {
	if kept, ok := s.store.(interface{ Why() string }); ok {
		if why := kept.Why(); why != "" {
			return "sessions cannot be kept: " + why
		}
	}
	return ""
}

// KeepSessions sets a store that is apart from the process. It is called once, before Start.
func (s *Server) KeepSessions(store SessionStore) { s.store, s.storeApart = store, true }

// Instance names this worker in the ids of its connections; never 0.
func (s *Server) Instance() ident.Worker { return s.instance }

// sharedTokenBytes is the size of a token that names the worker that began the session.
const sharedTokenBytes = 2 + len(noToken)

// tokenText is a token of this worker as clients know it.
func (s *Server) tokenText(t token) string {
	if !s.storeApart {
		return t.String()
	}
	var raw [sharedTokenBytes]byte
	binary.BigEndian.PutUint16(raw[:], s.instance.Instance())
	copy(raw[2:], t[:])
	return base64.RawURLEncoding.EncodeToString(raw[:])
}

func (s *Server) hashOf(t token) tokenHash { return hashToken([]byte(s.tokenText(t))) }

// keyOf is the store's key of a token of this worker.
func (s *Server) keyOf(t token) SessionKey { return SessionKey{s.instance, s.hashOf(t)} }

// ownerOf is the worker that a token names; ok is false for text that is no token.
func (s *Server) ownerOf(text []byte) (worker ident.Worker, ok bool) {
	if !s.storeApart {
		return s.instance, true
	}
	var raw [sharedTokenBytes]byte
	if len(text) != base64.RawURLEncoding.EncodedLen(sharedTokenBytes) {
		return 0, false
	}
	n, err := base64.RawURLEncoding.Decode(raw[:], text)
	return ident.On(0, binary.BigEndian.Uint16(raw[:])), err == nil && n == sharedTokenBytes
}
