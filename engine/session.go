package engine

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/parleyd/parley/protocol/ident"
)

// A session is what a token restores. While its connection lives, the store knows no more than where that
// is; when the connection ends, its state is parked until somebody claims it or its time is over. A claim
// takes the session out of the store, under the shard's lock: two claims of one token cannot both succeed.
//
// Tokens are stored hashed: who reads the memory of the server, or a dump of it, cannot resume.

// sessionKey is the first half of a token's SHA-256.
type sessionKey [16]byte

// token is 128 random bits [wire protocol, sessions]; the zero token is none.
type token [16]byte

var noToken token

// keyOf hashes a token as the client sent it.
func keyOf(text []byte) (key sessionKey) {
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
	previous  place
	instance  ident.Worker // of the worker where that was
	principal string
	rooms     []string
	attrs     *attributes
	userData  *userData
	attempts  int
	resumedAt int64 // of a live connection, where attempts count: in milliseconds since 1970
	expires   int64 // on the store's clock
}

const (
	sessionShards = 64
	// sessionsParkedMax and sessionsBytesMax bound what clients that never come back may hold. The oldest go first.
	sessionsParkedMax = 1 << 20
	sessionsBytesMax  = 512 << 20
	// sessionShardBytes is how much one shard keeps for certain, whatever the others hold.
	sessionShardBytes = sessionsBytesMax / sessionShards
)

// sessionStore holds the sessions of one process.
//
// Owner: shared (mutex: each shard's).
type sessionStore struct {
	shards  [sessionShards]sessionShard
	ttl     int64
	lag     atomic.Int64 // time that counts for no session: see stall.go
	max     int          // resumes in a row
	evicted atomic.Uint64
}

// sessionShard is one part of the store.
//
// Owner: shared (mutex: mu).
type sessionShard struct {
	mu     sync.Mutex
	live   map[sessionKey]*Conn
	parked map[sessionKey]*parked
	claims map[sessionKey]claimed  // of a memoryStore, until they come to something; nil for none
	ended  map[sessionKey]struct{} // revoked a while ago; nil for none
	past   []expiry                // of those, the oldest first
	bytes  int                     // of parked sessions
	// queues are of parked sessions, the oldest first; those claimed since are still in them. The first is of those that
	// restore nothing: they go before all others, so that who connects again and again pushes out itself.
	queues [2][]expiry
}

type expiry struct {
	key sessionKey
	at  int64
}

func newSessionStore(ttl time.Duration, attempts int) *sessionStore {
	s := &sessionStore{ttl: int64(ttl), max: attempts}
	for i := range s.shards {
		s.shards[i].live = make(map[sessionKey]*Conn)
		s.shards[i].parked = make(map[sessionKey]*parked)
	}
	return s
}

func (s *sessionStore) shard(key sessionKey) *sessionShard {
	return &s.shards[binary.LittleEndian.Uint64(key[:])%sessionShards]
}

// begin makes c the owner of a new session.
func (s *sessionStore) begin(key sessionKey, c *Conn) {
	h := s.shard(key)
	h.mu.Lock()
	h.live[key] = c
	h.mu.Unlock()
}

// revoke ends a session whose connection lives. It reports false where a claim came first.
func (s *sessionStore) revoke(key sessionKey) bool {
	h := s.shard(key)
	h.mu.Lock()
	defer h.mu.Unlock()
	_, was := h.live[key]
	delete(h.live, key)
	return was
}

// remember notes that a session was revoked: the store hears of it later, and may give it to somebody until then.
func (s *sessionStore) remember(key sessionKey, now int64) {
	h := s.shard(key)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ended == nil {
		h.ended = make(map[sessionKey]struct{})
	}
	h.ended[key] = struct{}{}
	h.past = append(h.past, expiry{key, s.until(now)})
}

// ended reports whether a session was revoked, as far as that is remembered.
func (s *sessionStore) ended(key sessionKey) bool {
	h := s.shard(key)
	h.mu.Lock()
	defer h.mu.Unlock()
	_, was := h.ended[key]
	return was
}

// park keeps the state of a session whose connection ended. It reports false where a claim came first:
// then the state belongs to the claimant.
func (s *sessionStore) park(key sessionKey, state *parked) bool {
	h := s.shard(key)
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, was := h.live[key]; !was {
		return false
	}
	delete(h.live, key)
	s.evicted.Add(h.keep(key, state))
	return true
}

// parkAgain puts a claimed session back, for a claimant that ended before it could use it.
func (s *sessionStore) parkAgain(key sessionKey, state *parked) {
	h := s.shard(key)
	h.mu.Lock()
	s.evicted.Add(h.keep(key, state))
	h.mu.Unlock()
}

// keep parks a session, and says how many others it pushed out. Under mu.
func (h *sessionShard) keep(key sessionKey, state *parked) (evicted uint64) {
	h.drop(key)
	h.parked[key] = state
	h.bytes += state.size()
	own := 0
	if len(state.rooms) > 0 || state.attrs != nil || state.userData != nil {
		own = 1
	}
	h.queues[own] = append(h.queues[own], expiry{key, state.expires})
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

// drop takes a session out of the parked ones, and reports whether it was there. Under mu.
func (h *sessionShard) drop(key sessionKey) bool {
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

// sessionQueueSlack is how many claimed sessions a shard's queue may hold before it is worth tidying.
const sessionQueueSlack = 64

// until is when a session that is parked now ends, on the store's own clock, which stands still while nobody could come.
func (s *sessionStore) until(now int64) int64 { return now - s.lag.Load() + s.ttl }

// expire forgets what nobody came back for.
func (s *sessionStore) expire(now int64) {
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
		if p := h.parked[queue[0].key]; p != nil && p.expires <= now {
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
func (s *sessionStore) parkedLen() (n int) {
	for i := range s.shards {
		h := &s.shards[i]
		h.mu.Lock()
		n += len(h.parked)
		h.mu.Unlock()
	}
	return n
}

// forget drops the state of a parked session: the store has it.
func (s *sessionStore) forget(key sessionKey) {
	h := s.shard(key)
	h.mu.Lock()
	h.drop(key)
	h.mu.Unlock()
}

// holds reports whether the state of a parked session is here.
func (s *sessionStore) holds(key sessionKey) bool {
	h := s.shard(key)
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.parked[key] != nil
}

// has reports whether a session of a live connection is its own: nobody has claimed it.
func (s *sessionStore) has(key sessionKey) bool {
	h := s.shard(key)
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.live[key] != nil
}

// released is what a session left: the connection that must hand over, or the state that is parked here.
type released struct {
	state   *parked
	conn    *Conn
	revoked bool // it was ended, and nothing is left of it
}

// release gives up a session that the store has given away.
func (s *sessionStore) release(key sessionKey) released {
	h := s.shard(key)
	h.mu.Lock()
	defer h.mu.Unlock()
	_, revoked := h.ended[key]
	left := released{state: h.parked[key], conn: h.live[key], revoked: revoked}
	h.drop(key)
	delete(h.live, key)
	return left
}
