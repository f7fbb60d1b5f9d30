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
	// saveGathers is what a change waits for others, here and in the store. A save that leaves at once took the rest only: it
	// tells that the store is late by so much sooner.
	saveGathers = int64(saveAfter + 10*time.Millisecond)
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

// stored counts a save; gathered is how much of the time a change would have waited besides. Any goroutine.
func (t *saveTimes) stored(took, gathered, now int64) {
	i, _ := slices.BinarySearch(SaveSecondsBounds[:], time.Duration(took).Seconds())
	t.counts[i].Add(1)
	t.micros.Add(uint64(took / int64(time.Microsecond)))
	if took+gathered > saveLate {
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
	firsts  []*saveBatch // of sessions that have just begun
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

// first notes the first save of a session: those of a turn share a batch.
func (s *savings) first(now int64) *saveBatch {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.firsts); n > 0 && s.firsts[n-1].at == now {
		s.firsts[n-1].left.Add(1)
		return s.firsts[n-1]
	}
	b := &saveBatch{at: now}
	b.left.Store(1)
	s.firsts = append(unfinished(s.firsts), b)
	return b
}

// unfinished leaves out the batches at the head that are stored.
func unfinished(batches []*saveBatch) []*saveBatch {
	for len(batches) > 0 && batches[0].left.Load() <= 0 {
		batches = batches[1:]
	}
	if len(batches) == 0 {
		return nil
	}
	return batches
}

// oldest is when the oldest change came that is not stored; 0 for none. Any goroutine.
func (s *savings) oldest() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.batches = unfinished(s.batches); len(s.batches) > 0 {
		return s.batches[0].at
	}
	return s.since
}

// oldestFirst is when the oldest session began that is not stored; 0 for none. Any goroutine.
func (s *savings) oldestFirst() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.firsts = unfinished(s.firsts); len(s.firsts) > 0 {
		return s.firsts[0].at
	}
	return 0
}

// saved is told what became of a save in b. Any goroutine.
func (s *Server) saved(b *saveBatch, err error) {
	if b == nil {
		return
	}
	b.left.Add(-1)
	if now := s.clock(); err == nil {
		s.saves.stored(now-b.at, 0, now)
	} else {
		s.saves.late(now)
	}
}

// storeLate reports whether what is told now may not be stored in time.
func (l *loop) storeLate() bool {
	if !l.srv.storeApart {
		return false
	}
	if l.Now < l.srv.saves.lateUntil.Load() {
		return true
	}
	oldest, first := l.saves.oldest(), l.saves.oldestFirst()
	return oldest != 0 && l.Now-oldest > saveLate || first != 0 && l.Now-first > saveLate-saveGathers
}

// move is a join or leave that a client asks for.
//
// Owner: loop.
type move struct {
	leave, since bool
	stored       bool // before it happens
	seated       bool // c counts as in already, and has a seat in the room
	room, ref    []byte
}

// storeFirst has a move of c stored before it happens, where the store is late; else it happens at once. m is borrowed.
func (l *loop) storeFirst(c *Conn, m move, then func(l *loop, c *Conn, m move)) {
	if c.token == noToken || !l.storeLate() {
		then(l, c, m)
		return
	}
	if l.ahead.c == c && l.ahead.covered > 0 && !m.seated {
		if m.stored = l.ahead.err == nil; !m.stored && !isTooLarge(l.ahead.err) {
			l.complain(c, errUnavailable, m.ref)
			return
		}
		then(l, c, m)
		return
	}
	name := "join"
	if m.leave {
		name = "leave"
	}
	p := l.await(c, pendingSave, name, m.ref)
	m.room, m.ref = bytes.Clone(m.room), p.ref
	p.move, p.along = m, l.lookAhead(c)
	given := l.Now
	err := l.srv.store.Save(l.srv.keyOf(c.token), SessionValue{l.toStore(c)}, func(err error) {
		now := l.srv.clock()
		if err == nil {
			l.srv.saves.stored(now-given, int64(saveAfter), now)
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
	if c.wire.Posted.Load() > 0 {
		l.postCall(func(l *loop) { l.storedFirst(c, p, err, then) })
		return
	}
	stored := err == nil && !c.has(flagUnsaved) // and nothing else has changed since
	l.changed(c)                                // the store may have what does not happen
	waits := l.settled(c, p)
	happens := waits && (err == nil || isTooLarge(err))
	if !happens && p.move.seated {
		c.seats.Add(-1)
		l.srv.peers.Seats.Release(string(p.move.room))
	}
	switch {
	case happens:
		p.move.stored = err == nil
		then(l, c, p.move)
	case waits:
		l.complain(c, errUnavailable, p.ref)
	default:
		return
	}
	p.covered, p.err = len(p.along), err
	if r := l.srv.index.Find(p.move.room); stored && p.covered == 0 && (r != nil && r.Has(c.place())) != p.move.leave {
		c.wire.Flags &^= flagUnsaved // to store it once more would keep a late store late
	}
	l.goOnAfter(c, p)
}

// toStore is the state of c as it is to be stored: with a join or leave that waits for that, or that waits for a seat and is
// stored already.
func (l *loop) toStore(c *Conn) *parked {
	state := l.snapshot(c)
	if c.rare == nil || c.rare.pending == nil || c.rare.pending.move.room == nil {
		return state
	}
	state.rooms = c.rare.pending.move.in(state.rooms)
	for _, m := range c.rare.pending.along {
		state.rooms = m.in(state.rooms)
	}
	return state
}

// in is a list of rooms after m.
func (m move) in(list []string) []string {
	switch i := slices.Index(list, string(m.room)); {
	case m.leave && i >= 0:
		return slices.Delete(list, i, i+1)
	case !m.leave && i < 0:
		return append(list, string(m.room))
	}
	return list
}
