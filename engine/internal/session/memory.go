package session

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

// Memory is a worker's memory of its sessions: the connections of live sessions, and the parked states that a store
// apart does not have yet or, without such a store, all parked states.
//
// Owner: shared (mutex: each shard's).
type Memory struct {
	shards  [sessionShards]shard
	ttl     int64
	lag     atomic.Int64 // time that does not count for sessions: see engine/internal/turn/stall.go
	max     int          // resumes in a row
	evicted atomic.Uint64
}

// shard is one part of it.
//
// Owner: shared (mutex: mu).
type shard struct {
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

func newMemory(ttl time.Duration, attempts int) *Memory {
	s := &Memory{ttl: int64(ttl), max: attempts}
	for i := range s.shards {
		s.shards[i].live = make(map[tokenHash]*Conn)
		s.shards[i].parked = make(map[tokenHash]*parked)
	}
	return s
}

// lock returns the shard of a session, locked.
func (s *Memory) lock(key tokenHash) *shard {
	h := &s.shards[binary.LittleEndian.Uint64(key[:])%sessionShards]
	h.mu.Lock()
	return h
}

// begin makes c the owner of a new session.
func (s *Memory) begin(key tokenHash, c *Conn) {
	h := s.lock(key)
	h.live[key] = c
	h.mu.Unlock()
}

// revoke ends a session whose connection lives. It reports false if a claim came first.
func (s *Memory) revoke(key tokenHash) bool {
	h := s.lock(key)
	defer h.mu.Unlock()
	_, was := h.live[key]
	delete(h.live, key)
	return was
}

// remember notes that a session was revoked: the store learns of it later, and may give the session to a claimant until
// then.
func (s *Memory) remember(key tokenHash, now int64) {
	h := s.lock(key)
	defer h.mu.Unlock()
	if h.ended == nil {
		h.ended = make(map[tokenHash]struct{})
	}
	h.ended[key] = struct{}{}
	h.past = append(h.past, expiry{key, s.until(now)})
}

// Ended reports whether a session is known to be revoked.
func (s *Memory) Ended(key tokenHash) bool {
	h := s.lock(key)
	defer h.mu.Unlock()
	_, was := h.ended[key]
	return was
}

// park keeps the state of a session whose connection ended. It reports false if a claim came first: then the state belongs
// to the claimant.
func (s *Memory) park(key tokenHash, state *parked) bool {
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
func (s *Memory) parkAgain(key tokenHash, state *parked) {
	h := s.lock(key)
	defer h.mu.Unlock()
	if _, ended := h.ended[key]; !ended { // while it was claimed
		s.evicted.Add(h.keep(key, state))
	}
}

// parkLent is parkAgain for a state that another worker was told: the store may have given the session away.
func (s *Memory) parkLent(key tokenHash, state *parked) {
	h := s.lock(key)
	s.evicted.Add(h.keep(key, state))
	state.lent = true
	h.mu.Unlock()
}

// keep parks a session, and returns how many others it evicted. Under mu.
func (h *shard) keep(key tokenHash, state *parked) (evicted uint64) {
	h.drop(key)
	state.taken = false
	h.parked[key] = state
	h.bytes += state.size()
	own := 0
	if len(state.rooms) > 0 || state.attrs != nil || state.userData != nil {
		own = 1
	}
	h.queues[own] = append(h.queues[own], expiry{key, state.expiresAt})
	for len(h.parked) > sessionsParkedMax/sessionShards || h.bytes > sessionShardBytes && len(h.parked) > 1 {
		if h.dropOldest() {
			evicted++
		}
	}
	if h.queued() > 2*len(h.parked)+sessionQueueSlack {
		for i := range h.queues {
			h.queues[i] = slices.DeleteFunc(h.queues[i], func(x expiry) bool { return h.parked[x.key] == nil })
		}
	}
	return evicted
}

// Bytes is about what the parked sessions cost. Any goroutine.
func (s *Memory) Bytes() (n int64) {
	for i := range s.shards {
		h := &s.shards[i]
		h.mu.Lock()
		n += int64(h.bytes)
		h.mu.Unlock()
	}
	return n
}

// Evict drops parked sessions that cost about n bytes, the oldest of each part first, and returns what it freed. Any goroutine.
func (s *Memory) Evict(n int64) (freed int64) {
	for i := range s.shards {
		h := &s.shards[i]
		h.mu.Lock()
		before := h.bytes
		for target := max(before-int(n/int64(len(s.shards)))-1, 0); h.bytes > target && h.queued() > 0; {
			if h.dropOldest() {
				s.evicted.Add(1)
			}
		}
		freed += int64(before - h.bytes)
		h.mu.Unlock()
	}
	return freed
}

// dropOldest drops the session at the head of a queue, and reports whether it was there. Under mu.
func (h *shard) dropOldest() bool {
	from := &h.queues[0]
	if len(*from) == 0 {
		from = &h.queues[1]
	}
	was := h.drop((*from)[0].key)
	*from = (*from)[1:]
	return was
}

// queued is the length of both queues. Under mu.
func (h *shard) queued() int { return len(h.queues[0]) + len(h.queues[1]) }

// drop removes a parked session, and reports whether it was there. Under mu.
func (h *shard) drop(key tokenHash) bool {
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
func (s *Memory) until(now int64) int64 { return now - s.lag.Load() + s.ttl }

// Expire drops the sessions that no client has resumed in time.
func (s *Memory) Expire(now int64) {
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
func (h *shard) expire(queue []expiry, now int64) []expiry {
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

// Parked is the number of sessions without a connection. Any goroutine.
func (s *Memory) Parked() (n int) {
	for i := range s.shards {
		h := &s.shards[i]
		h.mu.Lock()
		n += len(h.parked)
		h.mu.Unlock()
	}
	return n
}

// forget drops the state of a parked session: the store has it.
func (s *Memory) forget(key tokenHash) {
	h := s.lock(key)
	h.drop(key)
	h.mu.Unlock()
}

// lend notes that the store has given a parked session to another worker, which may put it back.
func (s *Memory) lend(key tokenHash) {
	h := s.lock(key)
	if p := h.parked[key]; p != nil {
		p.lent = true
	}
	h.mu.Unlock()
}

// forgetLent drops the states of sessions that other workers may have restored, and returns their keys.
func (s *Memory) forgetLent() (keys []tokenHash) {
	for i := range s.shards {
		h := &s.shards[i]
		h.mu.Lock()
		for key, p := range h.parked {
			if p.lent {
				p.taken = true
				keys = append(keys, key)
				h.drop(key)
			}
		}
		h.mu.Unlock()
	}
	return keys
}

// still reports whether the state of a parked session is here, and, if it is not, whether a claimant may have it.
func (s *Memory) still(key tokenHash, state *parked) (held, taken bool) {
	h := s.lock(key)
	defer h.mu.Unlock()
	return h.parked[key] != nil, state.taken
}

// has reports whether the session of a live connection is still its own: no other connection has claimed it.
func (s *Memory) has(key tokenHash) bool {
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

// Release gives up a session that the store has given away.
func (s *Memory) Release(key tokenHash) released {
	h := s.lock(key)
	defer h.mu.Unlock()
	_, revoked := h.ended[key]
	left := released{state: h.parked[key], conn: h.live[key], revoked: revoked}
	if left.state != nil {
		left.state.taken = true
	}
	h.drop(key)
	delete(h.live, key)
	return left
}

// Stalled notes a time in which no client could come: it does not count for sessions. Any goroutine.
func (s *Memory) Stalled(late int64) { s.lag.Add(late) }

// Evicted is the number of parked sessions that later ones have evicted. Any goroutine.
func (s *Memory) Evicted() uint64 { return s.evicted.Load() }

// Kept are the numbers of entries that the memory keeps, by their kind.
//
// Owner: the caller.
type Kept struct{ Live, Parked, Claims, Queued int }

// Kept counts the entries of the memory. Any goroutine.
func (s *Memory) Kept() (n Kept) {
	for i := range s.shards {
		h := &s.shards[i]
		h.mu.Lock()
		n.Live, n.Parked, n.Claims, n.Queued = n.Live+len(h.live), n.Parked+len(h.parked), n.Claims+len(h.claims), n.Queued+h.queued()
		h.mu.Unlock()
	}
	return n
}
