package rooms

import "errors"

// Seats that several processes share.
//
// Problem: the limit of a room holds for its members in all processes together, each of which has an index of its own.
//
// Invariant: a room with a limit holds as many of the shared seats as it has members and held places: taken. A seat is
// acquired before it is taken, and given back under the room's lock in the same step that lowers taken, so that no two
// of these steps are seen in the wrong order. A room without a limit holds none; where it gets one, its members are
// counted in the step that sets it.

// Seats are shared with other processes. The methods are called under a room's lock: they must not wait, nor call the
// room.
type Seats interface {
	// Release gives a seat back.
	Release(room string)
	// Force takes n seats, whether there are as many or not: their holders are in already.
	Force(room string, limit, n int)
}

// ErrSeat says that a seat must be acquired from the shared ones, for [Index.EnterSeated].
var ErrSeat = errors.New("a shared seat must be acquired first")

// ShareSeats has limits hold for several processes together. Once, before anybody enters.
func (x *Index) ShareSeats(s Seats) { x.seats = s }

// shared reports whether the room's seats are. Under mu.
func (r *Room) shared() bool { return r.limit > 0 && r.index.seats != nil }

// unseat counts one member or held place less. Under mu.
func (r *Room) unseat() {
	r.taken.Add(-1)
	if r.shared() {
		r.index.seats.Release(r.name)
	}
}

// Scarce is the limit of a room, or of one that would be made, where its seats are shared; 0 where p needs none of them,
// being in or having a place already, and where they are not shared. Any goroutine.
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

// EnterSeated makes p, for which a seat was acquired, a member. spare reports that the seat is not needed and must be
// given back: p was in already, or had a place, or the room has no limit any more. Only p's loop may call it; name is
// not kept.
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

// Withdraw is [Index.Leave], but does not give the seat back where it is shared: kept says that the caller must see to it.
// Only p's loop may call it.
func (x *Index) Withdraw(r *Room, p Place) (left bool, seq uint64, kept bool) {
	return x.leave(r, p, true)
}

// Adopt makes a room that was created elsewhere the same here. One that came to be by itself keeps its members, even if
// they are more than the limit. One that was created before has been deleted since: it is dead now, and returned, so
// that its members can be let out. Any goroutine.
func (x *Index) Adopt(name string, o CreateOptions) (r, replaced *Room) {
	r = x.lockLiving([]byte(name), o.CreatedAt)
	for r.explicit {
		replaced = r
		r.dead = true
		r.mu.Unlock()
		x.drop(r)
		r = x.lockLiving([]byte(name), o.CreatedAt)
	}
	defer r.mu.Unlock()
	r.explicit, r.metadata, r.createdAt = true, o.Metadata, o.CreatedAt
	free := r.limit == 0
	if o.MaxMembers > 0 {
		r.limit = int32(o.MaxMembers)
	}
	if n := int(r.taken.Load()); free && r.shared() && n > 0 {
		x.seats.Force(name, int(r.limit), n)
	}
	return r, replaced
}
