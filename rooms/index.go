package rooms

import (
	"cmp"
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/parleyd/parley/protocol/ident"
)

// Index finds rooms by name. Names are spread over shards by xxhash, so that loops seldom wait for each
// other.
//
// Owner: shared (mutex: each shard's).
type Index struct {
	shards [shardCount]shard
	loops  int
	limit  int32
	seats  Seats // nil: not shared with other processes
	ids    atomic.Uint64
	size   atomic.Int64
	census census

	histories histories
	historyOf func(name string) *HistoryOptions
	newEpoch  func() string
	linger    time.Duration
	follows   *FollowOptions // nil: rooms are numbered here

	seed, keySeed maphash.Seed
	elsewhere     atomic.Int64 // counts in the tables of all shards
	elsewhereMax  int64
}

const shardCount = 256

// shard holds the rooms whose names fall to it, and the other workers' counts of rooms that are not here.
//
// Owner: shared (mutex: mu).
type shard struct {
	mu        sync.RWMutex
	rooms     map[string]*Room
	elsewhere map[ident.Worker]shares // of rooms that are not here, by worker; nil for none
	_         [24]byte                // a cache line each
}

// Options are the defaults of every room.
//
// Owner: immutable.
type Options struct {
	MaxMembers int // of rooms that are not created with a limit of their own; 0 means no limit
	// History is the history of a room that is not created with one of its own; nil: none has one. It runs under a lock.
	History func(name string) *HistoryOptions
	Epoch   func() string // a new epoch, 1 to 22 characters of A-Z, a-z, 0-9, _ and -
	Linger  time.Duration // for which a room with history outlives its last use, or for the age of its messages, if that is longer
}

// CreateOptions are the properties of one created room.
//
// Owner: immutable.
type CreateOptions struct {
	MaxMembers int             // 0 means the index's limit
	Metadata   []byte          // kept, not copied
	CreatedAt  int64           // seconds since the epoch
	History    *HistoryOptions // nil: the index's; Messages of 0 or less: none
	// Begun is called if a room that has members begins to number its messages. It runs under the room's lock: what it posts
	// comes in front of the first of them.
	Begun func(r *Room, at Position)
}

// NewIndex makes an index for rooms with members on a number of loops.
func NewIndex(loops int, o Options) *Index {
	x := &Index{loops: loops, limit: int32(o.MaxMembers), seed: maphash.MakeSeed(), keySeed: maphash.MakeSeed(), elsewhereMax: elsewhereMax,
		historyOf: o.History, newEpoch: o.Epoch, linger: o.Linger}
	for i := range x.shards {
		x.shards[i].rooms = make(map[string]*Room)
	}
	x.histories.any.Store(o.History != nil)
	return x
}

func (x *Index) shard(name []byte) *shard { return &x.shards[xxhash.Sum64(name)%shardCount] }

func (x *Index) shardOf(name string) *shard { return &x.shards[xxhash.Sum64String(name)%shardCount] }

// Len is the number of rooms. Any goroutine.
func (x *Index) Len() int { return int(x.size.Load()) }

// Find returns a room, nil if there is none. Any goroutine; name is not kept.
func (x *Index) Find(name []byte) *Room {
	h := x.shard(name)
	h.mu.RLock()
	r := h.rooms[string(name)]
	h.mu.RUnlock()
	return r
}

// FindString is Find for a string.
func (x *Index) FindString(name string) *Room {
	h := x.shardOf(name)
	h.mu.RLock()
	r := h.rooms[name]
	h.mu.RUnlock()
	return r
}

// findOrCreate returns the room of that name; if there is none, or only the stale one, it makes a new one.
func (x *Index) findOrCreate(name []byte, stale *Room, now int64) *Room {
	h := x.shard(name)
	h.mu.Lock()
	defer h.mu.Unlock()
	old := h.rooms[string(name)]
	if old != nil && old != stale {
		return old
	} else if old == nil {
		x.size.Add(1)
	}
	r := &Room{name: string(name), id: x.ids.Add(1), index: x, createdAt: now, limit: x.limit, rosters: make([]atomic.Pointer[roster], x.loops)}
	x.census.add(r.share, 1)
	switch {
	case x.historyOf == nil:
	case x.follows != nil:
		bound(r, x.historyOf(r.name), false)
	default:
		r.begin(x.historyOf(r.name))
	}
	x.takeIn(h, r, old)
	h.rooms[r.name] = r
	return r
}

// Make finds a room, or makes one. Any goroutine.
func (x *Index) Make(name string, now int64) *Room {
	r := x.lockLiving([]byte(name), now)
	r.mu.Unlock()
	return r
}

// lockLiving finds a room that is not dead, or makes one, and locks it.
func (x *Index) lockLiving(name []byte, now int64) *Room {
	r := x.Find(name)
	if r == nil {
		r = x.findOrCreate(name, nil, now)
	}
	for {
		r.mu.Lock()
		if !r.dead {
			return r
		}
		r.mu.Unlock()
		r = x.findOrCreate(name, r, now)
	}
}

// Create makes a room that stays when it is empty. A room that its members made becomes that room: they stay,
// even if they are more than the limit. [ErrExists]: the room was created before. Any goroutine.
func (x *Index) Create(name string, o CreateOptions) (*Room, error) {
	r := x.lockLiving([]byte(name), o.CreatedAt)
	defer r.mu.Unlock()
	if r.explicit {
		return nil, ErrExists
	}
	r.explicit, r.metadata = true, o.Metadata
	if r.begin(o.History) && r.entered() > 0 {
		o.Begun(r, Position{Epoch: r.history.Load().epoch})
	}
	if o.MaxMembers > 0 {
		r.limit = int32(o.MaxMembers)
	}
	return r, nil
}

// UpdateOptions change a created room.
//
// Owner: immutable.
type UpdateOptions struct {
	MaxMembers *int   // nil: as it is; 0 means the index's limit
	Metadata   []byte // kept, not copied; nil: as it is
	History    *HistoryOptions
	Begun      func(r *Room, at Position) // as of [CreateOptions]
}

// Update changes a created room. Members stay, even if they are more than the limit. [ErrUnknown]: no room of this name was
// created. Any goroutine.
func (x *Index) Update(name string, o UpdateOptions) error {
	r := x.FindString(name)
	if r == nil {
		return ErrUnknown
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dead || !r.explicit {
		return ErrUnknown
	}
	if o.Metadata != nil {
		r.metadata = o.Metadata
	}
	if r.begin(o.History) && r.entered() > 0 {
		o.Begun(r, Position{Epoch: r.history.Load().epoch})
	}
	if o.MaxMembers != nil && *o.MaxMembers > 0 {
		r.setLimit(int32(*o.MaxMembers))
	} else if o.MaxMembers != nil {
		r.setLimit(x.limit)
	}
	return nil
}

// Delete takes a room out of the index. Its members are still on its rosters: their loops must let them leave.
// A later join to that name enters a new room. Any goroutine.
func (x *Index) Delete(name string) (*Room, bool) { return x.remove(name, true) }

// Vacate is [Index.Delete], but a created room stays. Any goroutine.
func (x *Index) Vacate(name string) (*Room, bool) { return x.remove(name, false) }

func (x *Index) remove(name string, created bool) (*Room, bool) {
	r := x.FindString(name)
	if r == nil {
		return nil, false
	}
	r.mu.Lock()
	if r.explicit && !created {
		r.mu.Unlock()
		return nil, false
	}
	was := r.dead
	kill(r)
	r.mu.Unlock()
	x.drop(r)
	return r, !was
}

// kill marks a room as dead, and forgets its history. Under mu.
func kill(r *Room) {
	if r.end(); !r.dead && r.history.Load() != nil {
		r.index.histories.rooms.Add(-1)
	}
	r.dead = true
}

// drop takes a dead room out of its shard.
func (x *Index) drop(r *Room) {
	r.mu.Lock()
	r.recount()
	r.mu.Unlock()
	h := x.shardOf(r.name)
	h.mu.Lock()
	if h.rooms[r.name] == r {
		delete(h.rooms, r.name)
		x.size.Add(-1)
		x.putBack(h, r)
	}
	h.mu.Unlock()
}

// Range calls f for each room until f returns false. f runs without a lock. Any goroutine.
func (x *Index) Range(f func(*Room) bool) {
	var list []*Room
	for i := range x.shards {
		h := &x.shards[i]
		list = list[:0]
		h.mu.RLock()
		for _, r := range h.rooms {
			list = append(list, r)
		}
		h.mu.RUnlock()
		for _, r := range list {
			if !f(r) {
				return
			}
		}
	}
}

// Enter makes p a member, and makes the room if there is none. [ErrFull]: all seats are taken, and p is not a
// member already. [ErrSeat]: a shared seat must be acquired first. Only p's loop may call it; name is not kept.
func (x *Index) Enter(name []byte, p Place, now int64) (Entry, error) {
	for r := x.Find(name); ; {
		if r != nil {
			if e, alive, err := r.enter(p); alive {
				return e, err
			}
		}
		if x.seats != nil && x.limit > 0 {
			return Entry{Limit: int(x.limit)}, ErrSeat // the member may yet be refused: no room is made for it
		}
		r = x.findOrCreate(name, r, now)
	}
}

// Held is the outcome of [Index.Hold].
type Held struct {
	Room    *Room
	Already bool // the place is a member or holds a seat: no second one was taken
}

// Hold keeps a seat for p until [Room.EnterHeld] or [Index.Release]. [ErrFull]: all seats are taken; [ErrSeat]: a shared
// seat must be acquired first. Any goroutine; name is not kept.
func (x *Index) Hold(name []byte, p Place, now int64) (Held, error) {
	if x.Scarce(name, p) > 0 {
		return Held{}, ErrSeat // the member may yet be refused: no room is made for it
	}
	r := x.lockLiving(name, now)
	defer r.mu.Unlock()
	switch {
	case r.contains(p):
		return Held{Room: r, Already: true}, nil
	case r.shared():
		return Held{}, ErrSeat
	case r.full():
		return Held{}, ErrFull
	}
	r.taken.Add(1)
	r.hold(p)
	return Held{Room: r}, nil
}

// Release gives a held seat back. Any goroutine.
func (x *Index) Release(r *Room, p Place) {
	r.mu.Lock()
	if _, was := r.unhold(p); was {
		r.unseat()
	}
	gone := r.vanish()
	r.mu.Unlock()
	if gone {
		x.drop(r)
	}
}

// vanish marks an empty room as dead, unless it was created. Under mu.
func (r *Room) vanish() bool {
	if r.dead || r.explicit || r.taken.Load() > 0 || r.history.Load() != nil { // a sweep forgets an unused history
		r.recount()
		return false
	}
	r.dead = true
	return true
}

// Leave takes p out; a room without members goes, too, unless it was created. seq is the leave's place in the room's
// order. left is false if p is no member: a late leave cannot undo a newer join, which has another generation. Only p's
// loop may call it.
func (x *Index) Leave(r *Room, p Place) (left bool, seq uint64) {
	left, seq, _ = x.leave(r, p, false)
	return left, seq
}

// leave frees p's seat; with keep, the caller gets a shared seat instead.
func (x *Index) leave(r *Room, p Place, keep bool) (left bool, seq uint64, kept bool) {
	r.mu.Lock()
	s := r.rosters[p.Loop].Load()
	at := -1
	if s != nil {
		at = s.find(p)
	}
	if at < 0 {
		r.mu.Unlock()
		return false, 0, false
	}
	s.remove(at)
	if kept = keep && r.shared(); kept {
		r.taken.Add(-1)
	} else {
		r.unseat()
	}
	r.seq++
	seq = r.seq
	gone := r.vanish()
	r.mu.Unlock()
	if gone {
		x.drop(r)
	}
	return true, seq, kept
}

// Handover takes p out and holds its seat for another place, never freeing it in between; seq is the leave's
// place in the room's order. left is false if p is no member. Only p's loop may call it.
func (x *Index) Handover(r *Room, p, to Place) (left bool, seq uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.rosters[p.Loop].Load()
	if s == nil {
		return false, 0
	}
	at := s.find(p)
	if at < 0 {
		return false, 0
	}
	s.remove(at)
	r.seq++
	seq = r.seq
	if r.contains(to) {
		r.unseat()
	} else {
		r.hold(to)
	}
	return true, seq
}

// PublishAll numbers a message in several rooms at once and posts it to every loop that has members or held seats
// of any, one letter each. seqs, of the same length as list, gets the numbers. [ErrOverloaded]: nothing was posted.
// PublishAll sorts list, which must hold no room twice. Any goroutine.
func PublishAll(list []*Room, seqs []uint64, p Poster) error {
	slices.SortFunc(list, func(a, b *Room) int { return cmp.Compare(a.id, b.id) })
	var loops [4]uint64
	for _, r := range list {
		r.mu.Lock()
		defer r.mu.Unlock()
		for i := range r.rosters {
			if r.rosters[i].Load().present() {
				loops[i/64] |= 1 << (i % 64)
			}
		}
	}
	has := func(i int) bool { return loops[i/64]&(1<<(i%64)) != 0 }
	for i := range 256 {
		if has(i) && !p.Reserve(uint8(i)) {
			for j := range i {
				if has(j) {
					p.Cancel(uint8(j))
				}
			}
			return ErrOverloaded
		}
	}
	for i, r := range list {
		r.seq++
		seqs[i] = r.seq
	}
	for i := range 256 {
		if has(i) {
			p.Post(uint8(i), 0)
		}
	}
	return nil
}
