package session

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/engine/internal/turn"
)

// How a worker's sessions reach the store. A change (a join, a leave, an attribute, the user data) only marks its session. A
// little later all marked sessions of a loop are encoded, each once. The store gathers for a moment, too. Together with the
// way to the store this takes less than 50 ms: changes of that time are lost with a killed worker.

const (
	saveAfter   = 15 * time.Millisecond
	SaveAgain   = time.Second // after a refusal of the store
	claimEnds   = saveAfter   // after the store's answer that a session is claimed, most claims have ended; each further attempt waits twice as long
	savesMax    = 256         // in one part
	unsavedKept = 1024        // entries that a loop's list keeps
)

// PostChanged marks the session of c as changed. Any goroutine.
func (c *Conn) PostChanged() {
	if l := c.loop(); l.Sessions.apart {
		l.PostCall(func() { l.Changed(c) })
	}
}

// Changed marks the session of c as changed.
func (l *Loop) Changed(c *Conn) {
	if !l.Sessions.apart || c.token == noToken || c.Has(flagUnsaved) {
		return
	}
	c.Flags |= flagUnsaved
	l.unsaved = append(l.unsaved, c)
	l.saves.changed(l.Now)
	if len(l.unsaved) == 1 {
		l.After(saveAfter, l.SaveChanged)
	}
}

// SaveChanged gives the store the changed sessions, in parts, so that input gets its turns in between.
func (l *Loop) SaveChanged() {
	n := min(len(l.unsaved), savesMax)
	if n == 0 {
		return
	}
	batch := l.saves.begin(n, n < len(l.unsaved))
	for _, c := range l.unsaved[:n] {
		changed := c.Has(flagUnsaved)
		c.Flags &^= flagUnsaved
		if changed && c.token != noToken {
			l.save(c, batch)
		} else {
			batch.left.Add(-1)
		}
	}
	rest := copy(l.unsaved, l.unsaved[n:])
	clear(l.unsaved[rest:])
	l.unsaved = l.unsaved[:rest]
	switch {
	case rest > 0:
		l.PostCall(l.SaveChanged)
	case cap(l.unsaved) > unsavedKept:
		l.unsaved = nil
	}
}

// save gives the store the present session of c. A claimant may put the session back, so it is saved again later. A store that has
// lost its sessions has lost the claim, too: it would take the session of a connection that is about to hand over. save reports
// false if the store is too busy.
func (l *Loop) save(c *Conn, batch *saveBatch) bool {
	t := c.token
	key := l.Sessions.keyOf(t)
	again := func() { l.later(c, t, (*Loop).Changed) }
	if !l.Sessions.Memory.has(key.Hash) {
		l.Sessions.saved(batch, ErrClaimed)
		again()
		return true
	}
	err := l.Sessions.Store.Save(key, Value{l.toStore(c)}, func(err error) {
		l.Sessions.saved(batch, err)
		switch {
		case errors.Is(err, ErrClaimed):
			again()
		case errors.Is(err, ErrUnknown):
			l.PostCall(func() { l.outlived(c, t) })
		case errors.Is(err, ErrAway): // the store goes on, unless it finds the session claimed
			again()
		case err != nil: // the store's disk is full
			l.Sessions.unstored(err)
			again()
		}
	})
	if err != nil {
		l.Sessions.saved(batch, err)
		l.Sessions.unstored(err)
		if !isTooLarge(err) { // a later change may make it smaller
			again()
			return false
		}
	}
	return true
}

// SaveSessions gives the store every session of a live connection once more, after the store has lost them. done is called
// when all have been given. Any goroutine.
//
// The store has also lost which sessions were resumed on other workers. To write those again would make their tokens valid
// a second time.
func (s *Sessions) SaveSessions(done func()) {
	s.losses.Add(1)
	for _, key := range s.Memory.forgetLent() {
		s.Store.Forget(Key{s.Rooms.Link.Self, key})
	}
	if len(s.Rooms.Loops) == 0 {
		done()
		return
	}
	var left atomic.Int64
	left.Store(int64(len(s.Rooms.Loops)))
	for _, x := range s.Rooms.Loops {
		l := LoopOf(x.Base())
		l.PostCall(func() {
			l.saveAll(0, func() {
				if left.Add(-1) == 0 {
					done()
				}
			})
		})
	}
}

// saveAll saves the sessions of a loop's connections from a slot on, a part at a time. While the store is busy it waits: after done
// a session that is not in the store counts as ended.
func (l *Loop) saveAll(from uint32, done func()) {
	n, busy := 0, false
	next, more := l.Slab.From(from, func(t *turn.Conn) bool {
		c := ConnOf(t)
		if c.token != noToken {
			from, busy = t.Slot, !l.save(c, nil)
			n++
		}
		return n < savesMax && !busy
	})
	if busy {
		l.After(SaveAgain, func() { l.saveAll(from, done) })
		return
	}
	if more {
		l.PostCall(func() { l.saveAll(next, done) })
		return
	}
	done()
}

// outlived ends a connection whose session was resumed without a hand-over: its worker had not answered the heir in time.
func (l *Loop) outlived(c *Conn, t token) {
	if c.token != t {
		return
	}
	l.endSession(c, nil)
	c.EndBy(turn.CauseTakenOver)
}

// saveFirst stores a new session; its client gets the token when it is stored.
func (l *Loop) saveFirst(c *Conn) {
	t := c.token
	again := func() { l.later(c, t, (*Loop).saveFirst) }
	batch := l.saves.first(l.Now)
	err := l.Sessions.Store.Save(l.Sessions.keyOf(t), Value{l.toStore(c)}, func(err error) {
		batch.left.Add(-1)
		if now := l.Ground.Clock(); err != nil {
			l.Sessions.saves.late(now)
		} else {
			l.Sessions.saves.stored(now-batch.at, SaveGathers, now)
		}
		if err != nil {
			if !errors.Is(err, ErrAway) {
				l.Sessions.unstored(err)
			}
			again()
			return
		}
		l.PostCall(func() {
			if c.token == t && !c.Has(flagTokenKnown) {
				l.tellToken(c)
			}
		})
	})
	if err != nil {
		batch.left.Add(-1)
		l.Sessions.unstored(err)
		again()
	}
}

// later runs f in a while, if the session with token t is still that of c. Any goroutine.
func (l *Loop) later(c *Conn, t token, f func(*Loop, *Conn)) {
	l.PostAfter(SaveAgain, func() {
		if c.token == t {
			f(l, c)
		}
	})
}

// unstored logs a refused save, at most once a second.
func (s *Sessions) unstored(err error) {
	large := isTooLarge(err)
	if large {
		s.Rooms.Count[CountSessionsTooLarge].Add(1)
	}
	switch {
	case !fleet.Seldom(&s.unstoredSaid, s.Rooms.Ground.Clock()):
	case large:
		s.Rooms.Ground.Log.Warn("a session is too large to be stored, and its last stored version stays: keep less in attributes and user data, or join fewer rooms", "err", err)
	default:
		s.Rooms.Ground.Log.Warn("sessions cannot be stored now, and are stored later", "err", err)
	}
}

func isTooLarge(err error) bool { return errors.Is(err, ErrTooLarge) }

// parkStored gives a parked session to the store, unless another connection has claimed it. Any goroutine.
func (s *Sessions) parkStored(key Key, state *parked) {
	err := s.Store.Park(key, Value{state}, s.TTL, func(err error) {
		switch {
		case errors.Is(err, ErrClaimed):
			s.parkLater(key, state)
			s.Memory.lend(key.Hash)
		case errors.Is(err, ErrUnknown):
			s.Store.Forget(key)
			s.Memory.forget(key.Hash)
		case err == nil:
			s.Memory.forget(key.Hash)
		case !s.Rooms.Above.Stopped(): // after ErrAway the store goes on, unless it finds the session claimed
			if !errors.Is(err, ErrAway) {
				s.unstored(err)
			}
			s.parkLater(key, state)
		}
	})
	switch {
	case err == nil || s.Rooms.Above.Stopped():
	case errors.Is(err, ErrTooLarge):
		s.unstored(err)
		s.Memory.forget(key.Hash) // the stored state counts, until its time is over
		s.Rooms.Loops[0].PostAfter(s.TTL, func() { s.Store.Drop(key, nil) })
	default:
		s.unstored(err)
		s.parkLater(key, state)
	}
}

// parkLater is parkStored in a while, if the session's state is still here. A state whose time is over, or that was evicted, is
// dropped from the store: there the session still counts as that of a live connection, and a claim that comes to nothing would
// leave it so. Any goroutine.
func (s *Sessions) parkLater(key Key, state *parked) {
	s.Rooms.Loops[0].PostAfter(SaveAgain, func() {
		switch held, taken := s.Memory.still(key.Hash, state); {
		case held:
			s.parkStored(key, state)
		case taken:
			s.Store.Forget(key)
		default:
			s.dropStored(key, nil)
		}
	})
}
