package engine

import (
	"encoding/binary"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	sessionShards = 64
	// sessionsParkedMax and sessionsBytesMax bound the sessions of clients that never come back. The oldest go first.
	sessionsParkedMax = 1 << 20
	sessionsBytesMax  = 512 << 20
	// sessionShardBytes is the size that one shard may always keep, whatever the others hold.
	sessionShardBytes = sessionsBytesMax / sessionShards
)

// sessionMemory is a worker's memory of its sessions: the connections of live sessions, and the parked states that a store
// apart does not have yet or, without such a store, all parked states.
//
// Owner: shared (mutex: each shard's).
type sessionMemory struct {
	shards  [sessionShards]sessionShard
	ttl     int64
	lag     atomic.Int64 // time that does not count for sessions: see engine/internal/turn/stall.go
	max     int          // resumes in a row
	evicted atomic.Uint64
}

// sessionShard is one part of it.
//
// Owner: shared (mutex: mu).
type sessionShard struct {
	mu     sync.Mutex
	live   map[tokenHash]*Conn
	parked map[tokenHash]*parked
	claims map[tokenHash]claimed  // of a memoryStore, until they are spent or put back; nil for none
	ended  map[tokenHash]struct{} // revoked a while ago; nil for none
	past   []expiry               // the revoked ones, the oldest first
	bytes  int                    // of parked sessions
	// queues are the parked sessions, the oldest first; claimed ones stay in them for a while. The first queue has sessions
	// without state: they are evicted before all others, so that a client that connects again and again evicts its own.
	queues [2][]expiry
}

type expiry struct {
	key tokenHash
	at  int64
}

func newSessionMemory(ttl time.Duration, attempts int) *sessionMemory {
	s := &sessionMemory{ttl: int64(ttl), max: attempts}
	for i := range s.shards {
		s.shards[i].live = make(map[tokenHash]*Conn)
		s.shards[i].parked = make(map[tokenHash]*parked)
	}
	return s
}

// lock returns the shard of a session, locked.
func (s *sessionMemory) lock(key tokenHash) *sessionShard {
	h := &s.shards[binary.LittleEndian.Uint64(key[:])%sessionShards]
	h.mu.Lock()
	return h
}

// begin makes c the owner of a new session.
func (s *sessionMemory) begin(key tokenHash, c *Conn) {
	h := s.lock(key)
	h.live[key] = c
	h.mu.Unlock()
}

// revoke ends a session whose connection lives. It reports false if a claim came first.
func (s *sessionMemory) revoke(key tokenHash) bool {
	h := s.lock(key)
	defer h.mu.Unlock()
	_, was := h.live[key]
	delete(h.live, key)
	return was
}

// remember notes that a session was revoked: the store learns of it later, and may give the session to a claimant until
// then.
func (s *sessionMemory) remember(key tokenHash, now int64) {
	h := s.lock(key)
	defer h.mu.Unlock()
	if h.ended == nil {
		h.ended = make(map[tokenHash]struct{})
	}
	h.ended[key] = struct{}{}
	h.past = append(h.past, expiry{key, s.until(now)})
}

// ended reports whether a session is known to be revoked.
func (s *sessionMemory) ended(key tokenHash) bool {
	h := s.lock(key)
	defer h.mu.Unlock()
	_, was := h.ended[key]
	return was
}

// park keeps the state of a session whose connection ended. It reports false if a claim came first: then the state belongs
// to the claimant.
func (s *sessionMemory) park(key tokenHash, state *parked) bool {
	h := s.lock(key)
	defer h.mu.Unlock()
	if _, was := h.live[key]; !was {
		return false
	}
	delete(h.live, key)
	s.evicted.Add(h.keep(key, state))
	return true
}

// parkAgain puts a claimed session back, for a claimant that ended before it could use it.
func (s *sessionMemory) parkAgain(key tokenHash, state *parked) {
	h := s.lock(key)
	s.evicted.Add(h.keep(key, state))
	h.mu.Unlock()
}

// keep parks a session, and returns how many others it evicted. Under mu.
func (h *sessionShard) keep(key tokenHash, state *parked) (evicted uint64) {
	h.drop(key)
	h.parked[key] = state
	h.bytes += state.size()
	own := 0
	if len(state.rooms) > 0 || state.attrs != nil || state.userData != nil {
		own = 1
	}
	h.queues[own] = append(h.queues[own], expiry{key, state.expiresAt})
	for len(h.parked) > sessionsParkedMax/sessionShards || h.bytes > sessionShardBytes && len(h.parked) > 1 {
		from := &h.queues[0]
		if len(*from) == 0 {
			from = &h.queues[1]
		}
		if h.drop((*from)[0].key) {
			evicted++
		}
		*from = (*from)[1:]
	}
	if h.queued() > 2*len(h.parked)+sessionQueueSlack {
		for i := range h.queues {
			h.queues[i] = slices.DeleteFunc(h.queues[i], func(x expiry) bool { return h.parked[x.key] == nil })
		}
	}
	return evicted
}

// queued is the length of both queues. Under mu.
func (h *sessionShard) queued() int { return len(h.queues[0]) + len(h.queues[1]) }

// drop removes a parked session, and reports whether it was there. Under mu.
func (h *sessionShard) drop(key tokenHash) bool {
	p := h.parked[key]
	if p == nil {
		return false
	}
	h.bytes -= p.size()
	delete(h.parked, key)
	return true
}

// size is about what a parked session costs, in bytes.
func (p *parked) size() int {
	n := parkedBytes + len(p.principal) + len(p.rooms)*roomNameBytes
	for _, name := range p.rooms {
		n += len(name)
	}
	if p.attrs != nil {
		n += p.attrs.bytes + len(p.attrs.list)*roomNameBytes
	}
	if p.userData != nil {
		n += len(p.userData.raw)
	}
	return n
}

const (
	parkedBytes   = 384 // of a session without rooms and attributes, its places in the map and the queue included
	roomNameBytes = 32  // of a name besides its text
)

// sessionQueueSlack is the number of claimed sessions in a shard's queue above which the queue is tidied.
const sessionQueueSlack = 64

// until is the end of a session that is parked now, on the memory's own clock, which stands still while no client could
// come.
func (s *sessionMemory) until(now int64) int64 { return now - s.lag.Load() + s.ttl }

// expire drops the sessions that no client has resumed in time.
func (s *sessionMemory) expire(now int64) {
	now -= s.lag.Load()
	for i := range s.shards {
		h := &s.shards[i]
		h.mu.Lock()
		for j := range h.queues {
			h.queues[j] = h.expire(h.queues[j], now)
		}
		for len(h.past) > 0 && h.past[0].at <= now {
			delete(h.ended, h.past[0].key)
			h.past = h.past[1:]
		}
		h.mu.Unlock()
	}
}

// expire drops the sessions of a queue whose time is over, and returns the rest of it. Under mu.
func (h *sessionShard) expire(queue []expiry, now int64) []expiry {
	for len(queue) > 0 && queue[0].at <= now {
		if p := h.parked[queue[0].key]; p != nil && p.expiresAt <= now {
			h.drop(queue[0].key)
		}
		queue = queue[1:]
	}
	if len(queue) == 0 {
		return nil
	}
	return queue
}

// parkedLen is the number of sessions without a connection. Any goroutine.
func (s *sessionMemory) parkedLen() (n int) {
	for i := range s.shards {
		h := &s.shards[i]
		h.mu.Lock()
		n += len(h.parked)
		h.mu.Unlock()
	}
	return n
}

// forget drops the state of a parked session: the store has it.
func (s *sessionMemory) forget(key tokenHash) {
	h := s.lock(key)
	h.drop(key)
	h.mu.Unlock()
}

// forgetLent drops the states of sessions that were handed over to other workers, and returns their keys.
func (s *sessionMemory) forgetLent() (keys []tokenHash) {
	for i := range s.shards {
		h := &s.shards[i]
		h.mu.Lock()
		for key, p := range h.parked {
			if p.lent {
				keys = append(keys, key)
				h.drop(key)
			}
		}
		h.mu.Unlock()
	}
	return keys
}

// holds reports whether the state of a parked session is here.
func (s *sessionMemory) holds(key tokenHash) bool {
	h := s.lock(key)
	defer h.mu.Unlock()
	return h.parked[key] != nil
}

// has reports whether the session of a live connection is still its own: no other connection has claimed it.
func (s *sessionMemory) has(key tokenHash) bool {
	h := s.lock(key)
	defer h.mu.Unlock()
	return h.live[key] != nil
}

// released is the rest of a session here: the connection that must hand over, or the parked state.
type released struct {
	state   *parked
	conn    *Conn
	revoked bool // it was ended, and has no state any more
}

// release gives up a session that the store has given away.
func (s *sessionMemory) release(key tokenHash) released {
	h := s.lock(key)
	defer h.mu.Unlock()
	_, revoked := h.ended[key]
	left := released{state: h.parked[key], conn: h.live[key], revoked: revoked}
	h.drop(key)
	delete(h.live, key)
	return left
}

// memoryStore is the store of a server that is alone: the worker's memory has all sessions. It answers before its methods
// return. A live connection is its own record, so Save has nothing to keep; parked sessions are in the worker's memory
// already.
type memoryStore struct{ sessions *sessionMemory }

// claimed is a session that was claimed, until it is spent or put back.
type claimed struct {
	nonce [16]byte
	state *parked // nil if its connection lives
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

// Claim is of [SessionStore]. A session whose time is over can be claimed until expire has dropped it: after a stall a
// claim may come first.
func (m memoryStore) Claim(at SessionClaim, done func(ClaimedSession, error)) error {
	state, alive, ok := m.sessions.claim(at)
	if !ok {
		return ErrSessionUnknown
	}
	done(ClaimedSession{kept: state, OwnerAlive: alive}, nil)
	return nil
}

// claim takes a session for one claimant, unless it belongs to another principal.
func (s *sessionMemory) claim(at SessionClaim) (state *parked, alive, ok bool) {
	h := s.lock(at.Key.Hash)
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
		h.claims = make(map[tokenHash]claimed)
	}
	h.claims[at.Key.Hash] = claimed{at.Nonce, state}
	h.drop(at.Key.Hash)
	return state, c != nil, true
}

// unclaim ends a claim, and returns the claimed state; ok is false if there is no such claim.
func (s *sessionMemory) unclaim(at SessionClaim) (state *parked, ok bool) {
	h := s.lock(at.Key.Hash)
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
