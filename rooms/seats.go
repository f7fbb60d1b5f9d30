package rooms

import "errors"

// Seats that several processes share.
//
// Problem: the limit of a room holds for its members in all processes together, each of which has an index of its own.
//
// Invariant: a room with a limit holds as many of the shared seats as it has members and held seats of its own: taken.
// A seat is acquired before taken rises, and given back under the room's lock in the step that lowers taken: no other
// goroutine sees these steps in the wrong order. A room without a limit holds none; the step that sets a limit counts
// its members.

// Seats are shared with other processes. The methods are called under a room's lock: they must not wait, nor call the
// room.
type Seats interface {
	// Release gives a seat back.
	Release(room string)
	// Force takes n seats even beyond the limit: their holders are members already.
	Force(room string, limit, n int)
}

// ErrSeat means that the caller must acquire a shared seat, and then call [Index.EnterSeated].
var ErrSeat = errors.New("a shared seat must be acquired first")

// ShareSeats makes limits hold for several processes together. Once, before any room has members.
func (x *Index) ShareSeats(s Seats) { x.seats = s }

// shared reports whether the room's seats are shared with other processes. Under mu.
func (r *Room) shared() bool { return r.limit > 0 && r.index.seats != nil }

// unseat counts one member or held seat less. Under mu.
func (r *Room) unseat() {
	r.taken.Add(-1)
	if r.shared() {
		r.index.seats.Release(r.name)
	}
}

// Scarce is the limit of a room, or of the room that would be made. It is 0 if p needs no shared seat: the seats are
// not shared, or p is a member or holds a seat. Any goroutine.
func (x *Index) Scarce(name []byte, p Place) int {
	if x.seats == nil {
		return 0
	}
	r := x.Find(name)
	if r == nil {
		return int(x.limit)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.dead:
		return int(x.limit)
	case !r.shared() || r.contains(p):
		return 0
	}
	return int(r.limit)
}

// EnterSeated makes p, for which a seat was acquired, a member. spare reports that the caller must give the seat back:
// p was a member or held a seat before, or the room has no limit any more. Only p's loop may call it; name is not kept.
func (x *Index) EnterSeated(name []byte, p Place, now int64) (e Entry, spare bool) {
	r := x.lockLiving(name, now)
	defer r.mu.Unlock()
	if r.Has(p) {
		return Entry{Room: r, Members: r.entered(), JoinSeq: r.seq, Already: true}, true
	}
	since, held := r.unhold(p)
	if !held {
		r.taken.Add(1)
		since = r.seq + 1
	}
	return r.add(p, since), held || r.limit == 0
}

// Withdraw is [Index.Leave], but keeps a shared seat: kept reports that the caller must give it back. Only p's loop may
// call it.
func (x *Index) Withdraw(r *Room, p Place) (left bool, seq uint64, kept bool) {
	return x.leave(r, p, true)
}

// Adopt creates the room here that another worker has created. A room that its members made keeps them, even if they are
// more than the limit. A room of that name that was created before has been deleted since: Adopt marks it dead and
// returns it as replaced, and the caller must let its members leave. Any goroutine.
func (x *Index) Adopt(name string, o CreateOptions) (r, replaced *Room) {
	r = x.lockLiving([]byte(name), o.CreatedAt)
	for r.explicit {
		replaced = r
		kill(r)
		r.mu.Unlock()
		x.drop(r)
		r = x.lockLiving([]byte(name), o.CreatedAt)
	}
	defer r.mu.Unlock()
	r.explicit, r.metadata, r.createdAt = true, o.Metadata, o.CreatedAt
	r.begin(o.History)
	if o.MaxMembers > 0 {
		r.setLimit(int32(o.MaxMembers))
	}
	return r, replaced
}

// setLimit changes the limit. If the room has a limit now and had none, or the other way round, its members take shared seats,
// or give them back. Under mu.
func (r *Room) setLimit(limit int32) {
	before := r.shared()
	r.limit = limit
	n := int(r.taken.Load())
	switch now := r.shared(); {
	case now && !before && n > 0:
		r.index.seats.Force(r.name, int(limit), n)
	case before && !now:
		for range n {
			r.index.seats.Release(r.name)
		}
	}
}
