package engine

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/parleyd/parley/engine/internal/turn"
)

// How a worker's sessions reach the store. A change (a join, a leave, an attribute, the user data) only marks its session. A
// little later all marked sessions of a loop are encoded, each once. The store gathers for a moment, too. Together with the
// way to the store this takes less than 50 ms: changes of that time are lost with a killed worker.

const (
	saveAfter   = 15 * time.Millisecond
	saveAgain   = time.Second // after a refusal of the store
	savesMax    = 256         // in one part
	unsavedKept = 1024        // entries that a loop's list keeps
)

// postChanged marks the session of c as changed. Any goroutine.
func (c *Conn) postChanged() {
	if c.loop().srv.storeApart {
		c.loop().postCall(func(l *loop) { l.changed(c) })
	}
}

// changed marks the session of c as changed.
func (l *loop) changed(c *Conn) {
	if !l.srv.storeApart || c.token == noToken || c.has(flagUnsaved) {
		return
	}
	c.wire.Flags |= flagUnsaved
	l.unsaved = append(l.unsaved, c)
	l.saves.changed(l.Now)
	if len(l.unsaved) == 1 {
		l.after(saveAfter, (*loop).saveChanged)
	}
}

// saveChanged gives the store the changed sessions, in parts, so that input gets its turns in between.
func (l *loop) saveChanged() {
	n := min(len(l.unsaved), savesMax)
	if n == 0 {
		return
	}
	batch := l.saves.begin(n, n < len(l.unsaved))
	for _, c := range l.unsaved[:n] {
		changed := c.has(flagUnsaved)
		c.wire.Flags &^= flagUnsaved
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
		l.postCall((*loop).saveChanged)
	case cap(l.unsaved) > unsavedKept:
		l.unsaved = nil
	}
}

// save gives the store the present session of c. A claimant may put the session back, so it is saved again later.
func (l *loop) save(c *Conn, batch *saveBatch) {
	t := c.token
	again := func() { l.later(c, t, (*loop).changed) }
	err := l.srv.store.Save(l.srv.keyOf(t), SessionValue{l.toStore(c)}, func(err error) {
		l.srv.saved(batch, err)
		switch {
		case errors.Is(err, ErrSessionClaimed):
			again()
		case errors.Is(err, ErrSessionUnknown):
			l.postCall(func(l *loop) { l.outlived(c, t) })
		case errors.Is(err, ErrSessionsAway): // the store goes on, unless it finds the session claimed
			again()
		case err != nil: // the store's disk is full
			l.srv.unstored(err)
			again()
		}
	})
	if err != nil {
		l.srv.saved(batch, err)
		l.srv.unstored(err)
		if !isTooLarge(err) { // a later change may make it smaller
			again()
		}
	}
}

// SaveSessions gives the store every session of a live connection once more, after the store has lost them. done is called
// when all have been given. Any goroutine.
//
// The store has also lost which sessions were resumed on other workers. To write those again would make their tokens valid
// a second time.
func (s *Server) SaveSessions(done func()) {
	for _, key := range s.sessions.forgetLent() {
		s.store.Forget(SessionKey{s.instance, key})
	}
	if len(s.loops) == 0 {
		done()
		return
	}
	var left atomic.Int64
	left.Store(int64(len(s.loops)))
	for _, l := range s.loops {
		l.postCall(func(l *loop) {
			l.saveAll(0, func() {
				if left.Add(-1) == 0 {
					done()
				}
			})
		})
	}
}

// saveAll saves the sessions of a loop's connections from a slot on, a part at a time.
func (l *loop) saveAll(from uint32, done func()) {
	n := 0
	next, more := l.Slab.From(from, func(t *turn.Conn) bool {
		c := connOf(t)
		if c.token != noToken {
			l.save(c, nil)
			n++
		}
		return n < savesMax
	})
	if more {
		l.postCall(func(l *loop) { l.saveAll(next, done) })
		return
	}
	done()
}

// outlived ends a connection whose session was resumed without a hand-over: its worker had not answered the heir in time.
func (l *loop) outlived(c *Conn, t token) {
	if c.token != t {
		return
	}
	l.endSession(c, nil)
	l.endBy(c, CauseTakenOver)
}

// saveFirst stores a new session; its client gets the token when it is stored.
func (l *loop) saveFirst(c *Conn) {
	t := c.token
	again := func() { l.later(c, t, (*loop).saveFirst) }
	batch := l.saves.first(l.Now)
	err := l.srv.store.Save(l.srv.keyOf(t), SessionValue{l.toStore(c)}, func(err error) {
		batch.left.Add(-1)
		if now := l.srv.clock(); err != nil {
			l.srv.saves.late(now)
		} else {
			l.srv.saves.stored(now-batch.at, saveGathers, now)
		}
		if err != nil {
			if !errors.Is(err, ErrSessionsAway) {
				l.srv.unstored(err)
			}
			again()
			return
		}
		l.postCall(func(l *loop) {
			if c.token == t && !c.has(flagTold) {
				l.tellToken(c)
			}
		})
	})
	if err != nil {
		batch.left.Add(-1)
		l.srv.unstored(err)
		again()
	}
}

// later runs f in a while, if the session with token t is still that of c. Any goroutine.
func (l *loop) later(c *Conn, t token, f func(*loop, *Conn)) {
	l.postAfter(saveAgain, func(l *loop) {
		if c.token == t {
			f(l, c)
		}
	})
}

// unstored logs a refused save, at most once a second.
func (s *Server) unstored(err error) {
	large := isTooLarge(err)
	if large {
		s.count[countSessionsTooLarge].Add(1)
	}
	switch {
	case !s.seldom(&s.unstoredSaid):
	case large:
		s.log.Warn("a session is too large to be stored, and its last stored version stays: keep less in attributes and user data, or join fewer rooms", "err", err)
	default:
		s.log.Warn("sessions are not stored yet", "err", err)
	}
}

func isTooLarge(err error) bool { return errors.Is(err, ErrSessionTooLarge) }

// seldom reports true at most once a second; said is the last time.
func (s *Server) seldom(said *atomic.Int64) bool {
	now, last := s.clock(), said.Load()
	return (last == 0 || now-last >= int64(time.Second)) && said.CompareAndSwap(last, now)
}

// parkStored gives a parked session to the store, unless another connection has claimed it. Any goroutine.
func (s *Server) parkStored(key SessionKey, state *parked) {
	err := s.store.Park(key, SessionValue{state}, s.cfg.ReconnectionTTL, func(err error) {
		switch {
		case errors.Is(err, ErrSessionClaimed):
			s.parkLater(key, state)
		case errors.Is(err, ErrSessionUnknown):
			s.store.Forget(key)
			s.sessions.forget(key.Hash)
		case err == nil:
			s.sessions.forget(key.Hash)
		case s.state.Load() != stateStopped: // after ErrSessionsAway the store goes on, unless it finds the session claimed
			if !errors.Is(err, ErrSessionsAway) {
				s.unstored(err)
			}
			s.parkLater(key, state)
		}
	})
	switch {
	case err == nil || s.state.Load() == stateStopped:
	case errors.Is(err, ErrSessionTooLarge):
		s.unstored(err)
		s.sessions.forget(key.Hash) // the stored state counts, until its time is over
		s.loops[0].postAfter(s.cfg.ReconnectionTTL, func(*loop) { s.store.Drop(key, nil) })
	default:
		s.unstored(err)
		s.parkLater(key, state)
	}
}

// parkLater is parkStored in a while, if the session's state is still here. Any goroutine.
func (s *Server) parkLater(key SessionKey, state *parked) {
	s.loops[0].postAfter(saveAgain, func(*loop) {
		if s.sessions.holds(key.Hash) {
			s.parkStored(key, state)
		} else {
			s.store.Forget(key) // the claimant has it
		}
	})
}
