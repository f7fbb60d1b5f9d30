package session

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"time"

	"github.com/parleyd/parley/protocol/ident"
)

// The store decides which claimant gets a session, and has the state that it restores; the worker's memory (memory.go)
// knows which connection a session belongs to. A server that is alone has both in memory (memory.go). If several
// workers are one server, or sessions must outlive the process, the store is apart from the process. No loop waits for it.

// Store keeps sessions for all workers. Its methods are for any goroutine and never wait. A method that returns
// an error has done nothing and does not call done; otherwise done runs once, on any goroutine, perhaps before the method
// returns, and must not block. The values passed in belong to the store.
//
// Save and Park answer [ErrClaimed] while another connection holds a claim, and [ErrUnknown] when the session
// no longer belongs to the worker. Save, Park and Claim answer [ErrAway] when the store is not reached in time; the
// other calls are repeated until they succeed, however long that takes. Save and Park return [ErrTooLarge] for a
// value above the store's limit; Restore then puts the session back as it was.
type Store interface {
	// Save stores the session of a live connection; of several values in quick succession only the last is stored.
	Save(key Key, value Value, done func(error)) error
	// Park stores a session whose connection has ended, for ttl. The worker's memory keeps it, too, until done is called
	// with nil: never, where that memory is the store.
	Park(key Key, value Value, ttl time.Duration, done func(error)) error
	// Drop deletes a session, unless another connection has claimed it. done, which may be nil, gets the result, or
	// [ErrAway], after which the store goes on trying.
	Drop(key Key, done func(error))
	// Forget says that the session belongs to another connection now: the worker will not write it any more.
	Forget(key Key)
	// Claim takes a session, exactly once over all workers.
	Claim(at Claim, done func(Claimed, error)) error
	// Unclaim puts a claimed session back as it was.
	Unclaim(at Claim)
	// Restore parks a claimed session with another value, for ttl; a spent one, too, if the store can.
	Restore(at Claim, value Value, ttl time.Duration)
	// Spend ends a claimed session: the following one has taken its place.
	Spend(at Claim, done func(error)) error
}

// Key names a session: the worker that began it, and a hash of its token.
type Key struct {
	Instance ident.Worker
	Hash     [16]byte
}

// Value is the state that a session restores.
type Value struct{ state *parked }

// Bytes encodes the value: for a store that is apart from the process.
func (v Value) Bytes() []byte { return v.state.encode() }

// Claim is one attempt to take a session; the nonce tells it from all others. A store that knows principals gives a
// session only to a connection of the same principal, and leaves it untouched otherwise.
type Claim struct {
	Key       Key
	Nonce     [16]byte
	Principal string
}

// Claimed is what a claim gives: the value as [Value.Bytes] gave it. OwnerAlive says that the session's
// connection may still live, on the worker that the key names.
type Claimed struct {
	Value      []byte
	OwnerAlive bool
	kept       *parked // of a memoryStore, in the place of Value
}

// state is the session's state, nil if only its live connection knows it.
func (x Claimed) state() (*parked, error) {
	if x.kept != nil || x.Value == nil && x.OwnerAlive {
		return x.kept, nil
	}
	return decodeParked(x.Value)
}

// Errors of a Store.
var (
	// ErrUnknown: there is no such session, or it is over, or another connection has taken it.
	ErrUnknown = errors.New("there is no such session")
	// ErrClaimed: another connection has claimed it, and may put it back.
	ErrClaimed = errors.New("the session is claimed")
	// ErrTooLarge: it is larger than the store takes; nothing was stored.
	ErrTooLarge = errors.New("the session is too large for the store")
	// ErrAway: the store is not reached, or has too much to do. Try again.
	ErrAway = errors.New("the store of sessions is away")
)

// Degraded says in a sentence that the server serves but cannot keep sessions. It is empty if it can. Any goroutine.
func (s *Sessions) Degraded() string {
	if kept, ok := s.Store.(interface{ Why() string }); ok {
		if why := kept.Why(); why != "" {
			return "sessions cannot be kept: " + why
		}
	}
	return ""
}

// Apart reports whether the store is apart from the process.
func (s *Sessions) Apart() bool { return s.apart }

// KeepSessions sets a store that is apart from the process. It is called once, before Start.
func (s *Sessions) KeepSessions(store Store) {
	s.Store, s.apart, s.ownerBytes = store, true, ownerBytes
}

// Instance names this worker in the ids of its connections; never 0.
func (s *Sessions) Instance() ident.Worker { return s.Rooms.Link.Self }

// ownerBytes is the size of the name of the worker that began the session, in front of a token of a store apart.
const ownerBytes = 2

// tokenText is a token of this worker as clients know it.
func (s *Sessions) tokenText(t token) string {
	var raw [ownerBytes + len(noToken)]byte
	binary.BigEndian.PutUint16(raw[:], s.Rooms.Link.Self.Instance())
	copy(raw[ownerBytes:], t[:])
	return base64.RawURLEncoding.EncodeToString(raw[ownerBytes-s.ownerBytes:])
}

func (s *Sessions) hashOf(t token) tokenHash { return hashToken([]byte(s.tokenText(t))) }

// keyOf is the store's key of a token of this worker.
func (s *Sessions) keyOf(t token) Key { return Key{s.Rooms.Link.Self, s.hashOf(t)} }

// ownerOf is the worker that a token names, this one if tokens name none; ok is false for text that is no token.
func (s *Sessions) ownerOf(text []byte) (worker ident.Worker, ok bool) {
	var raw [ownerBytes + len(noToken)]byte
	binary.BigEndian.PutUint16(raw[:], s.Rooms.Link.Self.Instance())
	to := raw[ownerBytes-s.ownerBytes:]
	if len(text) != base64.RawURLEncoding.EncodedLen(len(to)) {
		return 0, false
	}
	n, err := base64.RawURLEncoding.Decode(to, text)
	return ident.On(0, binary.BigEndian.Uint16(raw[:])), err == nil && n == len(to)
}
