package rooms

import (
	"hash/maphash"

	"github.com/parleyd/parley/protocol/ident"
)

// The counts of rooms that have members on other workers and none here.
//
// Problem: the first member to join such a room on this worker is told the number of members. Asking the other workers
// then would cost each new room a round trip; keeping counts only of rooms that are here would lose the earlier ones.
//
// Invariant: a count that another worker has told stands in exactly one place: in the room of that name, or, if there
// is none here, in the table of its shard. It moves under the shard's lock: into a new room, and back when the room goes.
//
// The table holds a hash of the name in place of the name: some 30 bytes for each room and worker. The hash has a seed of
// this process, so that no client can choose two names that share an entry. The table is bounded (elsewhereMax): a count
// beyond the bound is dropped, and a new room here asks the other workers.
//
// Lock order: a shard's, then a room's.

// elsewhereMax bounds the number of counts in the tables of an index, of all other workers together: some 30 MB.
const elsewhereMax = 1 << 20

// shares are the counts of one worker, by the hash of the room's name.
type shares map[uint64]int32

// SetAway notes the number of members that another worker has in a room, and returns the room, nil if it is not here.
// Any goroutine; name is not kept.
func (x *Index) SetAway(name []byte, worker ident.Worker, n int32) *Room {
	h := x.shard(name)
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.rooms[string(name)]
	if r != nil {
		r.SetAway(worker, n)
		return r
	}
	x.keepShare(h, worker, maphash.Bytes(x.seed, name), n)
	return nil
}

// Known is the number of members of a room: those here, with held seats, and [Index.Away]. Any goroutine.
func (x *Index) Known(name string) int {
	n := x.Away(name)
	if r := x.FindString(name); r != nil {
		n += r.Len()
	}
	return n
}

// Away is the number of members of a room on other workers, as those told last. The room need not be here. Any
// goroutine.
func (x *Index) Away(name string) (n int) {
	h := x.shardOf(name)
	h.mu.RLock()
	defer h.mu.RUnlock()
	if r := h.rooms[name]; r != nil {
		return r.Away()
	}
	if len(h.elsewhere) > 0 {
		key := maphash.String(x.seed, name)
		for _, kept := range h.elsewhere {
			n += int(kept[key])
		}
	}
	return n
}

// keepShare writes a count into the table. Under the shard's lock.
func (x *Index) keepShare(h *shard, worker ident.Worker, key uint64, n int32) {
	kept := h.elsewhere[worker]
	_, known := kept[key]
	switch {
	case n <= 0 && known:
		delete(kept, key)
		x.elsewhere.Add(-1)
		h.trim(worker)
		return
	case n <= 0, !known && x.elsewhere.Load() >= x.elsewhereMax:
		return
	case kept == nil:
		kept = shares{}
		if h.elsewhere == nil {
			h.elsewhere = map[ident.Worker]shares{}
		}
		h.elsewhere[worker] = kept
	}
	if !known {
		x.elsewhere.Add(1)
	}
	kept[key] = n
}

// trim drops a worker's table once it is empty: a map never shrinks. Under the shard's lock.
func (h *shard) trim(worker ident.Worker) {
	if len(h.elsewhere[worker]) == 0 {
		delete(h.elsewhere, worker)
	}
}

// forgetShares drops a worker's counts from the table. Under the shard's lock.
func (x *Index) forgetShares(h *shard, worker ident.Worker) {
	x.elsewhere.Add(-int64(len(h.elsewhere[worker])))
	delete(h.elsewhere, worker)
}

// takeIn moves the counts of a new room into it: from the table, or from the dead room that it replaces. Under the
// shard's lock; no other goroutine has r yet.
func (x *Index) takeIn(h *shard, r, dead *Room) {
	if dead != nil {
		for worker, o := range dead.yield() {
			r.setShare(worker, o.count)
		}
	} else if len(h.elsewhere) > 0 {
		key := maphash.String(x.seed, r.name)
		for worker, kept := range h.elsewhere {
			if n, known := kept[key]; known {
				r.setShare(worker, n)
				x.keepShare(h, worker, key, 0)
			}
		}
	}
	r.recount()
}

// putBack moves the other workers' counts of a room that goes into the table. Under the shard's lock.
func (x *Index) putBack(h *shard, r *Room) {
	gone := r.yield()
	if len(gone) == 0 {
		return
	}
	key := maphash.String(x.seed, r.name)
	for worker, o := range gone {
		x.keepShare(h, worker, key, o.count)
	}
}

// yield takes the other workers' shares out of the room.
func (r *Room) yield() map[ident.Worker]*remote {
	r.mu.Lock()
	defer r.mu.Unlock()
	gone := r.remotes
	r.remotes = nil
	r.away.Store(0)
	return gone
}

// Doubt forgets another worker's counts of rooms that are not here, and calls f for each room that is: the caller asks
// that worker about these, and for its counts of all others. f runs without a lock. Any goroutine.
func (x *Index) Doubt(worker ident.Worker, f func(*Room)) {
	var list []*Room
	for i := range x.shards {
		h := &x.shards[i]
		list = list[:0]
		h.mu.Lock()
		x.forgetShares(h, worker)
		for _, r := range h.rooms {
			list = append(list, r)
		}
		h.mu.Unlock()
		for _, r := range list {
			f(r)
		}
	}
}

// Bury forgets the counts of a worker that is gone, and calls f for each room here in which it had a share, with its
// members that are known by place. f runs without a lock. Any goroutine.
func (x *Index) Bury(worker ident.Worker, f func(r *Room, left Lost)) {
	type loss struct {
		room *Room
		left Lost
	}
	var losses []loss
	for i := range x.shards {
		h := &x.shards[i]
		losses = losses[:0]
		h.mu.Lock()
		x.forgetShares(h, worker)
		for _, r := range h.rooms {
			if left, was := r.bury(worker); was {
				losses = append(losses, loss{r, left})
			}
		}
		h.mu.Unlock()
		for _, o := range losses {
			f(o.room, o.left)
		}
	}
}
