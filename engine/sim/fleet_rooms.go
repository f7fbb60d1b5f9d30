package sim

import (
	"maps"
	"slices"
	"time"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/engine/internal/fanout"
)

// roomBook has the simulated created rooms. All workers learn of each change in the same order, some sooner than others; the
// asking worker learns of it before its answer.
//
// Owner: the simulation.
type roomBook struct {
	f       *Fleet
	rooms   map[string]*createdRoom
	changes []roomChange // all changes of the run
	made    int          // how many rooms were created
}

// createdRoom is a created room; a later one of its name has another id.
type createdRoom struct {
	room fanout.CreatedRoom
	id   int
}

// roomChange is one change of the created rooms.
type roomChange struct {
	createdRoom
	how change
}

type change string

const (
	created change = "created"
	updated change = "updated"
	deleted change = "deleted"
)

// read tells a new worker all created rooms.
func (b *roomBook) read(w *worker) {
	w.learned = len(b.changes)
	for _, name := range slices.Sorted(maps.Keys(b.rooms)) {
		w.take(roomChange{*b.rooms[name], created})
	}
}

// rewrite writes the rooms that a worker knows anew, after all were lost. A room that another worker has written before stays.
func (b *roomBook) rewrite(w *worker) {
	w.learned = max(w.learned, w.f.store.changes) // the changes that it has not learned are lost
	for _, name := range slices.Sorted(maps.Keys(w.rooms)) {
		if x := b.rooms[name]; x != nil {
			w.take(roomChange{*x, created})
			continue
		}
		x := w.rooms[name]
		b.rooms[name] = &x
		b.changes = append(b.changes, roomChange{x, created})
	}
}

// learn tells a worker of the next change.
func (w *worker) learn() {
	x := w.f.created.changes[w.learned]
	w.learned++
	w.take(x)
}

// take is a worker's knowledge of a change: one that it has already is none.
func (w *worker) take(x roomChange) {
	w.f.tracef("worker %d learns of %s: %s", w.instance, x.room.Name, x.how)
	known := w.server.Server.Worker().Rooms
	was, had := w.rooms[x.room.Name]
	w.rooms[x.room.Name] = x.createdRoom
	switch {
	case x.how == deleted:
		delete(w.rooms, x.room.Name)
		if had {
			known.RoomDeleted(x.room.Name)
		}
	case !had || was.id != x.id:
		known.RoomCreated(x.room)
	case was.room.MaxMembers != x.room.MaxMembers || string(was.room.Metadata) != string(x.room.Metadata):
		known.RoomUpdated(x.room)
	}
}

// change adds a change, and tells it to the asking worker at once.
func (b *roomBook) change(w *worker, x roomChange) {
	b.changes = append(b.changes, x)
	for w.learned < len(b.changes) {
		w.learn()
	}
}

// roomsOf are the created rooms as one worker uses them.
type roomsOf struct{ w *worker }

// Create is of [fanout.Created].
func (r roomsOf) Create(room fanout.CreatedRoom, done func(error)) {
	b := r.w.f.created
	r.decide(done, func() error {
		if b.rooms[room.Name] != nil {
			return engine.ErrRoomExists
		}
		room.CreatedAt = int64(r.w.f.now / time.Second)
		room.Metadata = append([]byte{}, room.Metadata...) // as the ledger decodes it: never nil
		b.made++
		b.rooms[room.Name] = &createdRoom{room, b.made}
		b.change(r.w, roomChange{*b.rooms[room.Name], created})
		return nil
	})
}

// Update is of [fanout.Created].
func (r roomsOf) Update(name string, u fanout.RoomUpdate, done func(error)) {
	b := r.w.f.created
	r.decide(done, func() error {
		x := b.rooms[name]
		if x == nil {
			return engine.ErrRoomUnknown
		}
		if u.MaxMembers != nil {
			x.room.MaxMembers = *u.MaxMembers
		}
		if u.Metadata != nil {
			x.room.Metadata = u.Metadata
		}
		b.change(r.w, roomChange{*x, updated})
		return nil
	})
}

// Delete is of [fanout.Created].
func (r roomsOf) Delete(name string, done func(error)) {
	b := r.w.f.created
	r.decide(done, func() error {
		x := b.rooms[name]
		if x == nil {
			return engine.ErrRoomUnknown
		}
		delete(b.rooms, name)
		b.change(r.w, roomChange{*x, deleted})
		return nil
	})
}

// decide runs do on the bus. After ErrUnavailable it may still run.
func (r roomsOf) decide(done func(error), do func() error) {
	told := false
	r.w.f.later(awayTime, func() {
		if !told && !r.w.dead {
			told = true
			done(engine.ErrUnavailable)
		}
	})
	r.w.atBook(func() {
		err := do()
		r.w.answer(func() {
			if !told {
				told = true
				done(err)
			}
		})

	})
}

// agreed checks that all workers have the same rooms when all rooms are empty: the created ones.
func (b *roomBook) agreed() {
	for _, w := range b.f.slots {
		if w == nil {
			continue
		}
		there := 0
		for _, r := range w.server.Server.Rooms().List() {
			x := b.rooms[r.Name]
			if x == nil {
				b.f.complain("created", "worker %d has %s, which was deleted", w.instance, r.Name)
				continue
			}
			there++
			if x.room.MaxMembers != 0 && r.MaxMembers != x.room.MaxMembers || string(r.Metadata) != string(x.room.Metadata) {
				b.f.complain("created", "worker %d lets %d into %s, it was created for %d", w.instance, r.MaxMembers, r.Name, x.room.MaxMembers)
			}
		}
		if there != len(b.rooms) {
			b.f.complain("created", "worker %d has %d of the %d rooms that were created", w.instance, there, len(b.rooms))
		}
	}
}

// hadToLeave checks that a member stays in its room unless something takes it out.
func (t *fleetTruth) hadToLeave(c *fleetConn, s *fleetStay) {
	at, deleted := t.deleted[s.room]
	claimed := slices.ContainsFunc(c.sessions, func(x *fleetSession) bool {
		return slices.ContainsFunc(x.asks, func(a *asking) bool { return a.settled == 0 })
	})
	if !s.asked && !claimed && !t.forbids(c, s.room) && c.conn.Cause() == engine.CauseNone && !(deleted && t.f.now-at < deletedWithin) {
		t.f.complain("created", "%s is taken out of %s, and nothing was to do that", c.id, s.room)
	}
}

// deletedWithin is the time in which all workers learn that a room was deleted.
const deletedWithin = 10 * time.Second
