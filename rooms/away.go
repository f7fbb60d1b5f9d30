package rooms

import (
	"maps"
	"slices"

	"github.com/parleyd/parley/protocol/ident"
)

// A room keeps, of each other worker, the count that it told last, and the places of its members if
// the room announces joins and leaves. The places are for one case: a worker that has died tells no leaves.

// remote is one other worker's share of a room.
type remote struct {
	count   int32
	members []Place
	users   map[Place]string // of the members that have one; nil if none has
}

// note keeps the user of a member; "" for none.
func (o *remote) note(p Place, user string) {
	if user == "" {
		return
	}
	if o.users == nil {
		o.users = map[Place]string{}
	}
	o.users[p] = user
}

// Away is the number of members on other workers, as those told last. Any goroutine.
func (r *Room) Away() int { return int(r.away.Load()) }

// AwayOf is the number of members on one other worker. Any goroutine.
func (r *Room) AwayOf(worker ident.Worker) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if o := r.remotes[worker]; o != nil {
		return int(o.count)
	}
	return 0
}

// SetAway notes how many members another worker has. Any goroutine.
func (r *Room) SetAway(worker ident.Worker, n int32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.setShare(worker, n)
	r.recount()
}

// setShare is SetAway. Under mu.
func (r *Room) setShare(worker ident.Worker, n int32) {
	o := r.remotes[worker]
	if o == nil {
		if n == 0 {
			return
		}
		o = r.remote(worker)
	}
	r.away.Add(n - o.count)
	o.count = n
	if n == 0 {
		r.drop(worker)
	}
}

// remote returns another worker's share, making it on first use. Under mu.
func (r *Room) remote(worker ident.Worker) *remote {
	if r.remotes == nil {
		r.remotes = make(map[ident.Worker]*remote, 1)
	}
	o := r.remotes[worker]
	if o == nil {
		o = new(remote)
		r.remotes[worker] = o
	}
	return o
}

// drop forgets another worker's share. Under mu.
func (r *Room) drop(worker ident.Worker) {
	delete(r.remotes, worker)
	if len(r.remotes) == 0 {
		r.remotes = nil
	}
}

// Lost are the members of a worker that is gone, as far as they were known by place.
type Lost struct {
	Places []Place
	users  map[Place]string
}

// User is the user of one of them; "" for none.
func (l Lost) User(p Place) string { return l.users[p] }

// Bury forgets the share of a worker that is gone. Any goroutine.
func (r *Room) Bury(worker ident.Worker) Lost {
	left, _ := r.bury(worker)
	return left
}

// bury is Bury; was reports whether the worker had a share.
func (r *Room) bury(worker ident.Worker) (left Lost, was bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := r.remotes[worker]
	if o == nil {
		return left, false
	}
	r.away.Add(-o.count)
	r.drop(worker)
	r.recount()
	return Lost{o.members, o.users}, true
}

// RemoteJoined notes a member of another worker, and its user, "" for none. It must not be noted yet. Any goroutine.
func (r *Room) RemoteJoined(worker ident.Worker, p Place, user string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := r.remote(worker)
	o.members = append(o.members, p)
	o.note(p, user)
}

// RemoteLeft forgets a member of another worker. Any goroutine.
func (r *Room) RemoteLeft(worker ident.Worker, p Place) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := r.remotes[worker]
	if o == nil {
		return
	}
	if i := slices.Index(o.members, p); i >= 0 {
		last := len(o.members) - 1
		o.members[i] = o.members[last]
		o.members = o.members[:last]
		delete(o.users, p)
	}
	r.tidy(worker, o)
}

// RemoteRoster replaces the noted members of one loop of another worker. users are those of the members, in the same order;
// fewer: the others have none. Any goroutine.
func (r *Room) RemoteRoster(worker ident.Worker, loop uint8, all []Place, users []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := r.remote(worker)
	o.members = append(slices.DeleteFunc(o.members, func(p Place) bool { return p.Loop == loop }), all...)
	maps.DeleteFunc(o.users, func(p Place, _ string) bool { return p.Loop == loop })
	for i := range min(len(all), len(users)) {
		o.note(all[i], users[i])
	}
	r.tidy(worker, o)
}

// RemoteUnknown forgets the places of another worker's members, which that worker tells no more, and keeps their count.
// Any goroutine.
func (r *Room) RemoteUnknown(worker ident.Worker) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if o := r.remotes[worker]; o != nil {
		o.members, o.users = nil, nil
		r.tidy(worker, o)
	}
}

// tidy drops an empty share. Under mu.
func (r *Room) tidy(worker ident.Worker, o *remote) {
	if len(o.members) > 0 {
		return
	}
	o.members, o.users = nil, nil
	if o.count == 0 {
		r.drop(worker)
	}
}

// SetCounted notes whether this worker tells the room's count to others, and reports whether this call changed it. Any
// goroutine.
func (r *Room) SetCounted(counted bool) bool { return r.counted.CompareAndSwap(!counted, counted) }

// Introduce returns true on its first call only: then the room is new to other workers. Any goroutine.
func (r *Room) Introduce() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	was := r.introduced
	r.introduced = true
	return !was
}

// RemoteMembers is the number of another worker's members that are known by place. Any goroutine.
func (r *Room) RemoteMembers(worker ident.Worker) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if o := r.remotes[worker]; o != nil {
		return len(o.members)
	}
	return 0
}
