package rooms

import (
	"sync/atomic"

	"github.com/parleyd/parley/protocol/ident"
)

// A room that has members on several workers is one room. So that a sum over all workers counts it once, the
// lowest worker that has members counts it. A created room without members is counted by the lowest worker of all.
// A room's share changes when its first member comes or its last one goes, here or elsewhere: no count walks through
// the rooms.

// census is an index's part of the count.
type census struct {
	worker       ident.Worker
	ours, vacant atomic.Int64
}

// SetWorker tells the index which worker this is. Once, before the first count of another worker.
func (x *Index) SetWorker(worker ident.Worker) { x.census.worker = worker }

// share is where a room is counted.
type share uint8

const (
	shareVacant share = iota // no members anywhere: each room begins so
	shareOurs
	shareNone // counted by another worker, or dead
)

// Counted is the number of rooms that this worker counts; lowest means that it is the lowest worker. Any goroutine.
func (x *Index) Counted(lowest bool) int {
	n := x.census.ours.Load()
	if lowest {
		n += x.census.vacant.Load()
	}
	return int(n)
}

// recount brings the room's share up to date. Under mu.
func (r *Room) recount() {
	now := r.shareNow()
	if now == r.share {
		return
	}
	r.index.census.add(r.share, -1)
	r.index.census.add(now, 1)
	r.share = now
}

func (r *Room) shareNow() share {
	switch {
	case r.dead:
		return shareNone
	case r.taken.Load() == 0 && r.away.Load() == 0:
		return shareVacant
	case r.taken.Load() == 0:
		return shareNone
	}
	for worker, o := range r.remotes {
		if worker < r.index.census.worker && o.count > 0 {
			return shareNone
		}
	}
	return shareOurs
}

func (c *census) add(s share, n int64) {
	switch s {
	case shareOurs:
		c.ours.Add(n)
	case shareVacant:
		c.vacant.Add(n)
	}
}

// RangeFrom calls f for the rooms from the shard numbered at on, and goOn before each further shard. next is the shard at
// which goOn returned false, 0 after the last one. f runs without a lock. Any goroutine.
func (x *Index) RangeFrom(at int, f func(*Room), goOn func() bool) (next int) {
	var list []*Room
	for i := max(at, 0); i < len(x.shards); i++ {
		if i > at && !goOn() {
			return i
		}
		list = list[:0]
		h := &x.shards[i]
		h.mu.RLock()
		for _, r := range h.rooms {
			list = append(list, r)
		}
		h.mu.RUnlock()
		for _, r := range list {
			f(r)
		}
	}
	return 0
}
