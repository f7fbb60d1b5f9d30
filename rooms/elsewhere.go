package rooms

import (
	"hash/maphash"

	"github.com/parleyd/parley/protocol/ident"
)

// What is known of rooms that have members on other workers and none here.
//
// Problem: who is the first to join such a room on this worker is told how many are in it. Asking the others then would
// cost each new room a round trip; telling them only what concerns a room of theirs loses what was said before.
//
// Invariant: a count that another worker has told stands in exactly one place: in the room of that name, or, where there
// is none, in the table of its shard. It moves under the shard's lock: into a room that comes to be, back when it goes.
//
// The table holds a hash of the name in place of the name: some 30 bytes for each room and worker. The hash has a seed of
// this process, so that nobody can choose two names that share an entry. The table is bounded (elsewhereMax): of what is
// beyond, nothing is known until a room of that name comes to be here and asks.
//
// Lock order: a shard's, then a room's.

// elsewhereMax bounds the counts in the tables of an index, of all other workers together: some 30 MB.
const elsewhereMax = 1 << 20

// shares are the counts of one worker, by the hash of the room's name.
type shares map[uint64]int32

// SetAway notes how many members another worker has in a room, and returns the room, nil where there is none here. Any
// goroutine; name is not kept.
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

// Away is how many members a room has on other workers, as far as is known, whether it is here or not. Any goroutine.
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

// trim gives back the memory of a worker that has nothing in the table: a map never shrinks. Under the shard's lock.
func (h *shard) trim(worker ident.Worker) {
	if len(h.elsewhere[worker]) == 0 {
		delete(h.elsewhere, worker)
	}
}

// forgetShares drops what a worker has in the table. Under the shard's lock.
func (x *Index) forgetShares(h *shard, worker ident.Worker) {
	x.elsewhere.Add(-int64(len(h.elsewhere[worker])))
	delete(h.elsewhere, worker)
}

// takeIn moves what is known of a new room from the table, or from the dead room in whose place it is, into it. Under the
// shard's lock; nobody else knows r yet.
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

// putBack moves what a room that goes knew of the other workers into the table. Under the shard's lock.
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

// yield takes what the room knows of the other workers out of it.
func (r *Room) yield() map[ident.Worker]*remote {
	r.mu.Lock()
	defer r.mu.Unlock()
	gone := r.remotes
	r.remotes = nil
	r.away.Store(0)
	return gone
}

// Doubt forgets what another worker has said of rooms that are not here, and calls f for each that is: whoever asks that
// worker about these, and for all others, knows the truth again. f may call anything. Any goroutine.
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

// Bury forgets all that is known of a worker that is gone, and calls f for each room here in which it had members, with
// those that it had told of. f may call anything. Any goroutine.
func (x *Index) Bury(worker ident.Worker, f func(r *Room, left []Place)) {
	type grave struct {
		room *Room
		left []Place
	}
	var graves []grave
	for i := range x.shards {
		h := &x.shards[i]
		graves = graves[:0]
		h.mu.Lock()
		x.forgetShares(h, worker)
		for _, r := range h.rooms {
			if left, was := r.bury(worker); was {
				graves = append(graves, grave{r, left})
			}
		}
		h.mu.Unlock()
		for _, g := range graves {
			f(g.room, g.left)
		}
	}
}
