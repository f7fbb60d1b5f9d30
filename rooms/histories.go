package rooms

import (
	"cmp"
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// The histories of all rooms together: what they count, and their end.
//
// A room with history outlives its last member and its last message, so that a client that comes back finds the numbering as
// it was. Sweep visits some of these rooms with each call, one after the other: it forgets messages that are too old, and
// rooms that were not used for long enough.

// Dropped is why a message left a history.
type Dropped uint8

// The causes.
const (
	DroppedMessages Dropped = iota
	DroppedBytes
	DroppedAge
	DroppedSize   // larger than all that the history may keep
	DroppedMemory // for the budget of the process
	droppedCauses
)

// DroppedCauses are the names of the causes, in their order.
var DroppedCauses = [droppedCauses]string{"messages", "bytes", "age", "size", "memory"}

// histories are the rooms with history of an index.
//
// Owner: shared (mutex: mu), except the counts, which are atomic.
type histories struct {
	mu   sync.Mutex
	list []*Room
	next int

	any             atomic.Bool // there are rooms with history, or some may come to be
	messages, bytes atomic.Int64
	keys, rooms     atomic.Int64 // idempotency keys, and living rooms
	dropped         [droppedCauses]atomic.Uint64
	duplicates      atomic.Uint64
}

func (x *histories) add(r *Room) {
	x.any.Store(true)
	x.rooms.Add(1)
	x.mu.Lock()
	x.list = append(x.list, r)
	x.mu.Unlock()
}

// part is the next rooms to visit.
func (x *histories) part(most int) []*Room {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.next >= len(x.list) {
		x.next = 0
	}
	end := min(x.next+most, len(x.list))
	part := append([]*Room(nil), x.list[x.next:end]...)
	x.next = end
	return part
}

// remove forgets rooms that are dead.
func (x *histories) remove(gone map[*Room]bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	kept := x.list[:0]
	for _, r := range x.list {
		if !gone[r] {
			kept = append(kept, r)
		}
	}
	clear(x.list[len(kept):])
	x.list = kept
}

// SweepHistories visits up to most rooms with history, the next ones with each call. Any goroutine.
func (x *Index) SweepHistories(now int64, most int) {
	var gone map[*Room]bool
	for _, r := range x.histories.part(most) {
		if r.sweep(now) {
			if gone == nil {
				gone = map[*Room]bool{}
			}
			gone[r] = true
		}
	}
	if gone != nil {
		x.histories.remove(gone)
	}
}

// sweep reports whether the room is dead.
func (r *Room) sweep(now int64) (dead bool) {
	if r.index.follows != nil {
		return unfollow(r, now)
	}
	r.mu.Lock()
	h := r.history.Load()
	if h == nil || r.dead {
		r.mu.Unlock()
		return true
	}
	h.trim(r.index, now)
	h.keys.trim(r.index, now)
	switch {
	case r.explicit || r.taken.Load() > 0 || h.uses > 0:
		h.idle = 0
	case h.idle == 0:
		h.idle = max(now, 1)
	case now-h.idle >= int64(max(h.Age, r.index.linger)):
		dead = true
		kill(r)
	}
	r.mu.Unlock()
	if dead {
		r.index.drop(r)
	}
	return dead
}

// AnyHistory reports whether there may be rooms with history. Any goroutine.
func (x *Index) AnyHistory() bool { return x.histories.any.Load() }

// Keeps reports whether a room of this name has history, or would have it if it were made now. Any goroutine; name is not kept.
func (x *Index) Keeps(name []byte) bool {
	if r := x.Find(name); r != nil {
		return r.History() != nil || r.bounds.Load() != nil
	}
	return x.historyOf != nil && x.historyOf(string(name)) != nil
}

// What the parts of a history cost, in bytes, about: a room with its name, a message besides its frame, an idempotency key.
const (
	roomBytes   = 768
	storedBytes = 64
	keyBytes    = 64
)

// HistoryBytes is about what all rooms with history cost, with their messages and keys. Any goroutine.
func (x *Index) HistoryBytes() int64 {
	h := &x.histories
	return h.bytes.Load() + storedBytes*h.messages.Load() + keyBytes*h.keys.Load() + roomBytes*h.rooms.Load()
}

// DropUnused forgets about n bytes of rooms without members, the longest unused first: their messages, and then the rooms
// themselves, which begin a new epoch when they are used again. It returns the bytes. Any goroutine. Cost: a walk through the
// rooms with history.
func (x *Index) DropUnused(n int64) int64 {
	unused := func(r *Room, h *History) (order int64, ok bool) {
		return h.last, h.n > 0 && r.taken.Load() == 0 && h.uses == 0
	}
	freed := x.relieve(n, unused, func(r *Room, h *History) { h.keep(x, 0) })
	if freed >= n || x.follows != nil { // the sweep forgets a room that is followed
		return freed
	}
	gone := map[*Room]bool{}
	idle := func(r *Room, h *History) (order int64, ok bool) {
		return h.last, r.taken.Load() == 0 && h.uses == 0 && !r.explicit && !r.dead
	}
	freed += x.relieve(n-freed, idle, func(r *Room, h *History) {
		if r.taken.Load() == 0 && h.uses == 0 && !r.explicit && !r.dead {
			kill(r)
			gone[r] = true
		}
	})
	for r := range gone {
		x.drop(r)
	}
	x.histories.remove(gone)
	return freed
}

// DropHalves forgets the older half of histories, the largest first, until about n bytes are free. It returns the bytes. Any
// goroutine. Cost: a walk through the rooms with history.
func (x *Index) DropHalves(n int64) int64 {
	largest := func(_ *Room, h *History) (order int64, ok bool) { return -int64(h.bytes), h.n > 0 }
	return x.relieve(n, largest, func(_ *Room, h *History) { h.keep(x, h.n/2) })
}

// keep forgets all messages but the newest n, for the budget.
func (h *History) keep(x *Index, n int) {
	for h.n > n {
		h.drop(x, DroppedMemory)
	}
}

// relieve forgets a part of some rooms, those with the lowest order first, until n bytes are free. which and forget run under
// the room's lock.
func (x *Index) relieve(n int64, which func(*Room, *History) (order int64, ok bool), forget func(*Room, *History)) (freed int64) {
	type candidate struct {
		room  *Room
		order int64
	}
	var list []candidate
	x.histories.mu.Lock()
	all := slices.Clone(x.histories.list)
	x.histories.mu.Unlock()
	for _, r := range all {
		r.mu.Lock()
		if h := r.history.Load(); h != nil {
			if order, ok := which(r, h); ok {
				list = append(list, candidate{r, order})
			}
		}
		r.mu.Unlock()
	}
	slices.SortFunc(list, func(a, b candidate) int { return cmp.Compare(a.order, b.order) })
	before := x.HistoryBytes()
	for _, c := range list {
		if freed = before - x.HistoryBytes(); freed >= n {
			break
		}
		c.room.mu.Lock()
		if h := c.room.history.Load(); h != nil {
			forget(c.room, h)
		}
		c.room.mu.Unlock()
	}
	return before - x.HistoryBytes()
}

// HistoryCounts are the figures of all histories of an index.
//
// Owner: the caller.
type HistoryCounts struct {
	Rooms, Messages, Bytes int64
	Dropped                [droppedCauses]uint64
	Duplicates             uint64
}

// HistoryCounts reads the figures. Any goroutine.
func (x *Index) HistoryCounts() (c HistoryCounts) {
	h := &x.histories
	h.mu.Lock()
	c.Rooms = int64(len(h.list))
	h.mu.Unlock()
	c.Messages, c.Bytes, c.Duplicates = h.messages.Load(), h.bytes.Load(), h.duplicates.Load()
	for i := range c.Dropped {
		c.Dropped[i] = h.dropped[i].Load()
	}
	return c
}

// Bounds of the idempotency keys of a room.
const (
	keysMax = 4096
	keysFor = int64(5 * time.Minute)
)

// recentKeys are the idempotency keys of a room that count, with the numbers of their messages.
//
// Owner: shared (mutex: the room's).
type recentKeys struct {
	numbers map[Key]uint64
	order   []keyed // by age
}

type keyed struct {
	key Key
	at  int64
}

// find is the number of a key's message, 0 if the key does not count.
func (k *recentKeys) find(x *Index, key Key, now int64) uint64 {
	k.trim(x, now)
	return k.numbers[key]
}

func (k *recentKeys) add(x *Index, y keyed, number uint64) {
	if k.numbers == nil {
		k.numbers = map[Key]uint64{}
	}
	if len(k.order) == keysMax {
		k.forget(x)
	}
	k.numbers[y.key] = number
	k.order = append(k.order, y)
	x.histories.keys.Add(1)
}

// forget forgets the oldest key.
func (k *recentKeys) forget(x *Index) {
	x.histories.keys.Add(-1)
	delete(k.numbers, k.order[0].key)
	k.order = k.order[1:]
	if len(k.order) == 0 {
		*k = recentKeys{}
	}
}

func (k *recentKeys) trim(x *Index, now int64) {
	for len(k.order) > 0 && now-k.order[0].at >= keysFor {
		k.forget(x)
	}
}

// Key names an idempotency key and its scope.
type Key [2]uint64

// Key makes a Key of a scope and a client's key. Any goroutine.
func (x *Index) Key(scope, key string) Key {
	var k Key
	for i, seed := range [...]maphash.Seed{x.seed, x.keySeed} {
		var h maphash.Hash
		h.SetSeed(seed)
		_, _ = h.WriteString(scope)
		_ = h.WriteByte(0)
		_, _ = h.WriteString(key)
		k[i] = h.Sum64() | 1
	}
	return k
}

// Hash is a hash of a key for conflation, never 0. It has a seed of this process, so that no client can choose two keys that
// count as one. Any goroutine.
func (x *Index) Hash(key string) uint64 { return maphash.String(x.seed, key) | 1 }
