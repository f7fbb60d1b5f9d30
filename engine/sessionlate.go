package engine

import (
	"bytes"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// What a client was told 50 ms ago survives its worker: that is promised. As long as the store is quick, saves that leave a
// little after the answer keep it. A store that is behind (a busy machine, a storm of newcomers) would break it without a
// word. So the time from a change to its being stored is measured, and while the store is late, a join or leave is stored
// first, then happens, and is answered; where it cannot be stored in time the client is told unavailable, and nothing has
// happened. The store stays late for a while after its last late answer, since what is slow once is soon slow again: only
// what was told in the first saveLate of such a time is at risk.

const (
	// saveLate is after how long a change should have been stored; the rest of the 50 ms is for what is not measured.
	saveLate = int64(40 * time.Millisecond)
	// lateFor is for how long a store counts as late.
	lateFor = int64(5 * time.Second)
)

// SaveSecondsBounds are the upper bounds of Stats.SessionSaves in seconds; its last element counts what took longer.
var SaveSecondsBounds = [...]float64{.005, .01, .025, .05, .1, .25, .5, 1, 2}

// saveTimes are how long changes of sessions take until they are stored.
//
// Owner: shared (atomic).
type saveTimes struct {
	counts    [len(SaveSecondsBounds) + 1]atomic.Uint64
	micros    atomic.Uint64
	lateUntil atomic.Int64
}

// stored counts a save. Any goroutine.
func (t *saveTimes) stored(took, now int64) {
	i, _ := slices.BinarySearch(SaveSecondsBounds[:], time.Duration(took).Seconds())
	t.counts[i].Add(1)
	t.micros.Add(uint64(took / int64(time.Microsecond)))
	if took > saveLate {
		t.late(now)
	}
}

func (t *saveTimes) late(now int64) { t.lateUntil.Store(now + lateFor) }

// savings are the saves of a loop that are on their way.
//
// Owner: shared (mutex: mu).
type savings struct {
	mu      sync.Mutex
	since   int64 // when the first of the changes came that the store has not been given yet; 0 for none
	batches []*saveBatch
}

// saveBatch is what was given to the store in one go.
//
// Owner: shared (atomic), at is immutable.
type saveBatch struct {
	at   int64 // of the oldest change in it
	left atomic.Int32
}

// changed notes a change. Loop only, as begin.
func (s *savings) changed(now int64) {
	s.mu.Lock()
	if s.since == 0 {
		s.since = max(now, 1)
	}
	s.mu.Unlock()
}

// begin makes a batch of n saves; rest says that others have not been given to the store yet.
func (s *savings) begin(n int, rest bool) *saveBatch {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := &saveBatch{at: s.since}
	b.left.Store(int32(n))
	s.batches = append(s.batches, b)
	if !rest {
		s.since = 0
	}
	return b
}

// oldest is when the oldest change came that is not stored; 0 for none. Any goroutine.
func (s *savings) oldest() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.batches) > 0 && s.batches[0].left.Load() <= 0 {
		s.batches = s.batches[1:]
	}
	if len(s.batches) > 0 {
		return s.batches[0].at
	}
	s.batches = nil
	return s.since
}

// saved is told what became of a save in b. Any goroutine.
func (s *Server) saved(b *saveBatch, err error) {
	if b == nil {
		return
	}
	b.left.Add(-1)
	if now := s.clock(); err == nil {
		s.saves.stored(now-b.at, now)
	} else {
		s.saves.late(now)
	}
}

// storeLate reports whether what is told now may not be stored in time.
func (l *loop) storeLate() bool {
	if l.srv.store == nil {
		return false
	}
	oldest := l.saves.oldest()
	return l.now < l.srv.saves.lateUntil.Load() || oldest != 0 && l.now-oldest > saveLate
}

// move is a join or leave that a client asks for.
//
// Owner: loop.
type move struct {
	leave, since bool
	room, ref    []byte
}

// storeFirst has a move of c stored before it happens, where the store is late; else it happens at once. m is borrowed.
func (l *loop) storeFirst(c *Conn, m move, then func(l *loop, c *Conn, m move)) {
	if c.token == noToken || !l.storeLate() {
		then(l, c, m)
		return
	}
	name := "join"
	if m.leave {
		name = "leave"
	}
	p := l.await(c, pendingSave, name, m.ref)
	m.room, m.ref = bytes.Clone(m.room), p.ref
	p.move = m
	given := l.now
	err := l.srv.store.Save(l.srv.sharedKey(c.token), l.toStore(c).encode(), func(err error) {
		now := l.srv.clock()
		if err == nil {
			l.srv.saves.stored(now-given, now)
		} else {
			l.srv.saves.late(now)
		}
		l.postCall(func(l *loop) { l.storedFirst(c, p, err, then) })
	})
	if err != nil {
		l.storedFirst(c, p, err, then)
	}
}

// storedFirst goes on once what was posted for c in the meantime has been told.
func (l *loop) storedFirst(c *Conn, p *pending, err error, then func(l *loop, c *Conn, m move)) {
	if c.posted.Load() > 0 {
		l.postCall(func(l *loop) { l.storedFirst(c, p, err, then) })
		return
	}
	stored := err == nil && !c.has(flagUnsaved) // and nothing else has changed since
	l.changed(c)                                // the store may have what does not happen
	if !l.settled(c, p) {
		return
	}
	if err == nil || isTooLarge(err) {
		then(l, c, p.move)
	} else {
		l.complain(c, errUnavailable, p.ref)
	}
	if r := l.srv.index.Find(p.move.room); stored && (r != nil && r.Has(c.place())) != p.move.leave {
		c.flags &^= flagUnsaved // to store it once more would keep a late store late
	}
	l.resume(c, p)
}

// toStore is the state of c as it is to be stored: with a join or leave that waits for that.
func (l *loop) toStore(c *Conn) *parked {
	state := l.snapshot(c)
	if c.rare == nil || c.rare.pending == nil || c.rare.pending.kind != pendingSave {
		return state
	}
	m := c.rare.pending.move
	switch i := slices.Index(state.rooms, string(m.room)); {
	case m.leave && i >= 0:
		state.rooms = slices.Delete(state.rooms, i, i+1)
	case !m.leave && i < 0:
		state.rooms = append(state.rooms, string(m.room))
	}
	return state
}
