package session

import "time"

// memoryStore is the store of a server that is alone: the worker's memory has all sessions. It answers before its methods
// return. A live connection is its own record, so Save has nothing to keep; parked sessions are in the worker's memory
// already.
type memoryStore struct{ sessions *Memory }

// claimed is a session that was claimed, until it is spent or put back.
type claimed struct {
	nonce [16]byte
	state *parked // nil if its connection lives
}

// Save is of [Store].
func (memoryStore) Save(_ Key, _ Value, done func(error)) error {
	done(nil)
	return nil
}

// Park is of [Store].
func (memoryStore) Park(Key, Value, time.Duration, func(error)) error { return nil }

// Drop is of [Store].
func (memoryStore) Drop(_ Key, done func(error)) {
	if done != nil {
		done(nil)
	}
}

// Forget is of [Store].
func (memoryStore) Forget(Key) {}

// Claim is of [Store]. A session whose time is over can be claimed until expire has dropped it: after a stall a
// claim may come first.
func (m memoryStore) Claim(at Claim, done func(Claimed, error)) error {
	state, alive, ok := m.sessions.claim(at)
	if !ok {
		return ErrUnknown
	}
	done(Claimed{kept: state, OwnerAlive: alive}, nil)
	return nil
}

// claim takes a session for one claimant, unless it belongs to another principal.
func (s *Memory) claim(at Claim) (state *parked, alive, ok bool) {
	h := s.lock(at.Key.Hash)
	defer h.mu.Unlock()
	c, state := h.live[at.Key.Hash], h.parked[at.Key.Hash]
	if _, taken := h.claims[at.Key.Hash]; taken {
		return nil, false, false
	}
	switch {
	case c != nil && c.User() == at.Principal, state != nil && state.principal == at.Principal:
	default:
		return nil, false, false
	}
	if h.claims == nil {
		h.claims = make(map[tokenHash]claimed)
	}
	h.claims[at.Key.Hash] = claimed{at.Nonce, state}
	h.drop(at.Key.Hash)
	return state, c != nil, true
}

// unclaim ends a claim, and returns the claimed state; ok is false if there is no such claim.
func (s *Memory) unclaim(at Claim) (state *parked, ok bool) {
	h := s.lock(at.Key.Hash)
	defer h.mu.Unlock()
	x, ok := h.claims[at.Key.Hash]
	if !ok || x.nonce != at.Nonce {
		return nil, false
	}
	delete(h.claims, at.Key.Hash)
	return x.state, true
}

// Unclaim is of [Store].
func (m memoryStore) Unclaim(at Claim) {
	if state, ok := m.sessions.unclaim(at); ok && state != nil {
		m.sessions.parkAgain(at.Key.Hash, state)
	}
}

// Restore is of [Store].
func (m memoryStore) Restore(at Claim, value Value, _ time.Duration) {
	m.sessions.unclaim(at)
	m.sessions.parkAgain(at.Key.Hash, value.state)
}

// Spend is of [Store].
func (m memoryStore) Spend(at Claim, done func(error)) error {
	if _, ok := m.sessions.unclaim(at); !ok {
		return ErrUnknown
	}
	done(nil)
	return nil
}
