package sim

import (
	"slices"
	"time"

	"github.com/parleyd/parley/engine"
)

// roomBook has the simulated created rooms. All workers learn of each change in the same order, some sooner than others; the
// asking worker learns of it before its answer.
//
// Owner: the simulation.
type roomBook struct {
	f       *Fleet
	rooms   map[string]*createdRoom
	changes []roomChange // all changes of the run
}

type createdRoom struct{ room engine.CreatedRoom }

// roomChange is one change of the created rooms.
type roomChange struct {
	room    engine.CreatedRoom
	deleted bool
}

// read tells a new worker all created rooms.
func (b *roomBook) read(w *worker) {
	w.learned = len(b.changes)
	names := make([]string, 0, len(b.rooms))
	for name := range b.rooms {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		w.server.Server.RoomCreated(b.rooms[name].room)
	}
}

// learn tells a worker of the next change.
func (w *worker) learn() {
	x := w.f.created.changes[w.learned]
	w.learned++
	w.f.tracef("worker %d learns of %s: deleted %v", w.instance, x.room.Name, x.deleted)
	if x.deleted {
		w.server.Server.RoomDeleted(x.room.Name)
	} else {
		w.server.Server.RoomCreated(x.room)
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

// Create is of [engine.Created].
func (r roomsOf) Create(room engine.CreatedRoom, done func(error)) {
	b := r.w.f.created
	r.decide(done, func() error {
		if b.rooms[room.Name] != nil {
			return engine.ErrRoomExists
		}
		room.CreatedAt = int64(r.w.f.now / time.Second)
		b.rooms[room.Name] = &createdRoom{room}
		b.change(r.w, roomChange{room: room})
		return nil
	})
}

// Delete is of [engine.Created].
func (r roomsOf) Delete(name string, done func(error)) {
	b := r.w.f.created
	r.decide(done, func() error {
		x := b.rooms[name]
		if x == nil {
			return engine.ErrRoomUnknown
		}
		delete(b.rooms, name)
		b.change(r.w, roomChange{x.room, true})
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
			if x.room.MaxMembers != 0 && r.MaxMembers != x.room.MaxMembers {
				b.f.complain("created", "worker %d lets %d into %s, it was created for %d", w.instance, r.MaxMembers, r.Name, x.room.MaxMembers)
			}
		}
		if there != len(b.rooms) {
			b.f.complain("created", "worker %d has %d of the %d rooms that were created", w.instance, there, len(b.rooms))
		}
	}
}
