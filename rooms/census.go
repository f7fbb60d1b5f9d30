package rooms

import "sync/atomic"

// A room that has members on several workers is one room. So that a sum over all workers counts it once, the worker of
// the lowest instance that has members counts it; one without any member, which stays because it was created, is counted
// by the lowest worker of all. Each room's share changes when its first member comes or its last one goes, here or
// elsewhere: nobody walks through the rooms to count them.

// census is an index's part of the count.
type census struct {
	instance     uint16
	ours, vacant atomic.Int64
}

// SetInstance says which of several workers this is. Once, before anything is known of the others.
func (x *Index) SetInstance(instance uint16) { x.census.instance = instance }

// share says where a room is counted.
type share uint8

const (
	shareElsewhere share = iota // or nowhere: it is dead
	shareOurs
	shareVacant // no members anywhere
)

// Counted is the number of rooms that this worker counts; lowest says whether no other has a lower instance. Any
// goroutine.
func (x *Index) Counted(lowest bool) int {
	n := x.census.ours.Load()
	if lowest {
		n += x.census.vacant.Load()
	}
	return int(n)
}

// recount puts a room where it belongs. Under the room's mu.
func (x *Index) recount(r *Room) {
	now := x.shareOf(r)
	if now == r.share {
		return
	}
	x.census.add(r.share, -1)
	x.census.add(now, 1)
	r.share = now
}

func (x *Index) shareOf(r *Room) share {
	switch {
	case r.dead:
		return shareElsewhere
	case r.taken.Load() == 0 && r.away.Load() == 0:
		return shareVacant
	case r.taken.Load() == 0:
		return shareElsewhere
	}
	for instance, o := range r.remotes {
		if instance < x.census.instance && o.count > 0 {
			return shareElsewhere
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
