package rooms

import (
	"sync/atomic"

	"github.com/parleyd/parley/protocol/ident"
)

// A room that has members on several workers is one room. So that a sum over all workers counts it once, the
// lowest worker that has members counts it; one without any member, which stays because it was created, is counted
// by the lowest worker of all. Each room's share changes when its first member comes or its last one goes, here or
// elsewhere: nobody walks through the rooms to count them.

// census is an index's part of the count.
type census struct {
	worker       ident.Worker
	ours, vacant atomic.Int64
}

// SetWorker says which of several workers this is. Once, before anything is known of the others.
func (x *Index) SetWorker(worker ident.Worker) { x.census.worker = worker }

// share says where a room is counted.
type share uint8

const (
	shareVacant share = iota // no members anywhere: each room begins so
	shareOurs
	shareNobodys // it is counted elsewhere, or dead
)

// Counted is the number of rooms that this worker counts; lowest says whether no other worker is lower. Any goroutine.
func (x *Index) Counted(lowest bool) int {
	n := x.census.ours.Load()
	if lowest {
		n += x.census.vacant.Load()
	}
	return int(n)
}

// recount puts the room where it belongs. Under mu.
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
		return shareNobodys
	case r.taken.Load() == 0 && r.away.Load() == 0:
		return shareVacant
	case r.taken.Load() == 0:
		return shareNobodys
	}
	for worker, o := range r.remotes {
		if worker < r.index.census.worker && o.count > 0 {
			return shareNobodys
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

// RangeFrom calls f for the rooms from a place in the index on, for as long as goOn says so when a part of them is through,
// and returns the place to go on at, 0 for the end. The first place is 0. Any goroutine.
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
