package sim

import (
	"errors"
	"slices"
	"time"

	sessions "github.com/parleyd/parley/engine/internal/session"
)

// The stores can lose all of their records at once, as when the bus comes back with an empty disk. A worker learns of that
// with its next call, or within a second, and writes anew what it knows: the sessions of its live connections, its seats, the
// created rooms. Sessions without a connection are lost, and seats that were given and not taken yet.

// losses are the losses of the stores.
//
// Owner: the simulation.
type losses struct {
	turn    int                            // how many there were
	lostAt  []time.Duration                // when
	changes int                            // of created rooms, before the latest
	deleted map[sessions.Key]time.Duration // when each was last deleted, since the latest loss
	marks   map[*worker]int                // the turn in which a worker has written all of its sessions anew
}

// markerTime is for how long the store knows that a record was deleted.
const markerTime = time.Second

// remove deletes a session's record.
func (b *sessionBook) remove(key sessions.Key) {
	delete(b.records, key)
	b.deleted[key] = b.f.now
}

var errUnwritten = errors.New("the session's owner has not written its sessions anew")

// lose wipes the stores.
func (f *Fleet) lose() {
	f.tracef("the stores lose all records")
	s := f.store
	s.turn, s.lostAt, s.changes = s.turn+1, append(s.lostAt, f.now), len(f.created.changes)
	clear(s.records)
	clear(s.deleted)
	clear(f.created.rooms)
	for _, r := range f.seats.rooms {
		r.gifts = nil
		for w := range r.used {
			if w.dead {
				delete(r.used, w)
			}
		}
	}
	for _, w := range f.slots {
		if w != nil {
			f.later(f.span(0, time.Second), w.notice)
		}
	}
}

// notice makes a worker look at the stores.
func (w *worker) notice() {
	switch {
	case w.dead:
	case !w.reached() || !w.serving:
		w.f.later(20*time.Millisecond, w.notice)
	default:
		w.shelves.learn()
	}
}

// learn makes a worker write its records anew, if the stores have lost them.
func (s *shelves) learn() {
	if s.turn == s.book.turn {
		return
	}
	s.turn = s.book.turn
	f := s.w.f
	f.tracef("worker %d writes its records anew", s.w.instance)
	for key, known := range s.known {
		if known {
			s.lost[key], s.late[key.Hash] = true, f.now
		}
	}
	clear(s.known)
	f.created.rewrite(s.w)
	turn := s.turn
	s.w.server.Server.Worker().Sessions.SaveSessions(func() { s.rewritten(turn) })
}

// rewritten sets the worker's mark once its sessions are in the store.
func (s *shelves) rewritten(turn int) {
	if s.w.dead || s.turn != turn {
		return
	}
	for key := range s.lost {
		if slices.ContainsFunc(s.under[key], func(x *storing) bool { return x.write }) {
			s.w.f.later(20*time.Millisecond, func() { s.rewritten(turn) })
			return
		}
		s.late[key.Hash] = s.w.f.now
	}
	clear(s.lost)
	s.book.marks[s.w] = turn
	s.w.f.tracef("worker %d has written its records anew", s.w.instance)
}

// unwritten reports whether a live worker has not yet written all of its sessions anew.
func (b *sessionBook) unwritten(owner *worker) bool {
	return owner != nil && !owner.dead && owner.serving && b.marks[owner] != b.turn
}

// written reports whether all workers have written their seats anew.
func (f *Fleet) written() bool {
	for _, w := range f.slots {
		if w != nil && w.serving && w.shelves.turn != f.store.turn {
			return false
		}
	}
	return true
}

// mayBeLost reports whether the stores may have lost a session for good: its connection had ended before, or its worker was killed
// before it had written its sessions anew. A worker counts as having done so although the busy store has refused a session without a
// connection, which it tries to park again a second later.
func (t *fleetTruth) mayBeLost(s *fleetSession) bool {
	c, w := s.of, s.of.client.w
	for i, at := range t.f.store.lostAt {
		refused, busy := w.shelves.refused[s.hash]
		if c.ended != 0 && (c.endedAt <= at || busy && refused >= at) || w.dead && w.died >= at && t.f.store.marks[w] <= i {
			return true
		}
	}
	return false
}
