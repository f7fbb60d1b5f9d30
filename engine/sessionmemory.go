package engine

import "time"

// memoryStore is the store of a server that is alone: what the worker remembers of its sessions is all there is. It answers
// before its methods return. A live connection is its own record, so Save has nothing to keep; parked sessions are in the
// worker's memory already.
type memoryStore struct{ sessions *sessionStore }

// claimed is a session that was claimed, until the claim comes to something.
type claimed struct {
	nonce [16]byte
	state *parked // nil where its connection lives
}

// Save is of [SessionStore].
func (memoryStore) Save(_ SessionKey, _ SessionValue, done func(error)) error {
	done(nil)
	return nil
}

// Park is of [SessionStore].
func (memoryStore) Park(SessionKey, SessionValue, time.Duration, func(error)) error { return nil }

// Drop is of [SessionStore].
func (memoryStore) Drop(_ SessionKey, done func(error)) {
	if done != nil {
		done(nil)
	}
}

// Forget is of [SessionStore].
func (memoryStore) Forget(SessionKey) {}

// Claim is of [SessionStore]. Only expire says whose time is over: after a stall a claim may come first.
func (m memoryStore) Claim(at SessionClaim, done func(ClaimedSession, error)) error {
	state, alive, ok := m.sessions.claim(at)
	if !ok {
		return ErrSessionUnknown
	}
	done(ClaimedSession{kept: state, OwnerAlive: alive}, nil)
	return nil
}

// claim takes a session from all others that want it, unless it is another principal's.
func (s *sessionStore) claim(at SessionClaim) (state *parked, alive, ok bool) {
	h := s.shard(at.Key.Hash)
	h.mu.Lock()
	defer h.mu.Unlock()
	c, state := h.live[at.Key.Hash], h.parked[at.Key.Hash]
	if _, taken := h.claims[at.Key.Hash]; taken {
		return nil, false, false
	}
	switch {
	case c != nil && c.Principal() == at.Principal, state != nil && state.principal == at.Principal:
	default:
		return nil, false, false
	}
	if h.claims == nil {
		h.claims = make(map[sessionKey]claimed)
	}
	h.claims[at.Key.Hash] = claimed{at.Nonce, state}
	h.drop(at.Key.Hash)
	return state, c != nil, true
}

// unclaim ends a claim, and returns the state that was claimed; ok is false where there is no such claim.
func (s *sessionStore) unclaim(at SessionClaim) (state *parked, ok bool) {
	h := s.shard(at.Key.Hash)
	h.mu.Lock()
	defer h.mu.Unlock()
	x, ok := h.claims[at.Key.Hash]
	if !ok || x.nonce != at.Nonce {
		return nil, false
	}
	delete(h.claims, at.Key.Hash)
	return x.state, true
}

// Unclaim is of [SessionStore].
func (m memoryStore) Unclaim(at SessionClaim) {
	if state, ok := m.sessions.unclaim(at); ok && state != nil {
		m.sessions.parkAgain(at.Key.Hash, state)
	}
}

// Restore is of [SessionStore].
func (m memoryStore) Restore(at SessionClaim, value SessionValue, _ time.Duration) {
	m.sessions.unclaim(at)
	m.sessions.parkAgain(at.Key.Hash, value.state)
}

// Spend is of [SessionStore].
func (m memoryStore) Spend(at SessionClaim, done func(error)) error {
	if _, ok := m.sessions.unclaim(at); !ok {
		return ErrSessionUnknown
	}
	done(nil)
	return nil
}
