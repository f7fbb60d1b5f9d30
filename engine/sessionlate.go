package engine

import (
	"bytes"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A change that a client learned of 50 ms ago survives the death of its worker: that is promised. While the store is quick,
// saves that leave a little after the answer keep the promise. A store that is behind (a busy machine, many new connections
// at once) would break it silently. So the time from a change to its storing is measured. While the store is late, a join or
// leave is stored first, then happens, and is answered. If it cannot be stored in time, the client gets unavailable, and
// nothing has happened. The store counts as late for a while after its last late answer, since a slow store is often slow
// again soon: only changes of the first saveLate of such a time are at risk.

const (
	// saveLate is the time in which a change should be stored; the rest of the 50 ms is for delays that are not measured.
	saveLate = int64(40 * time.Millisecond)
	// lateFor is how long a store counts as late.
	lateFor = int64(5 * time.Second)
	// saveGathers is the time that a change waits for others, here and in the store. A save that leaves at once skips this
	// wait, so it shows by as much earlier that the store is late.
	saveGathers = int64(saveAfter + 10*time.Millisecond)
)

// SaveSecondsBounds are the upper bounds of Stats.SessionSaves in seconds; its last element counts longer times.
var SaveSecondsBounds = [...]float64{.005, .01, .025, .05, .1, .25, .5, 1, 2}

// saveTimes are the times from changes of sessions to their storing.
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
	since   int64 // when the first change came that was not given to the store yet; 0 for none
	batches []*saveBatch
	firsts  []*saveBatch // first saves of new sessions
}

// saveBatch is a group of saves that were given to the store together.
//
// Owner: shared (atomic), at is immutable.
type saveBatch struct {
	at   int64 // of the oldest change in it
	left atomic.Int32
}

// changed notes a change. Loop only, as is begin.
func (s *savings) changed(now int64) {
	s.mu.Lock()
	if s.since == 0 {
		s.since = max(now, 1)
	}
	s.mu.Unlock()
}

// begin makes a batch of n saves; rest says that more changes wait.
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

// first notes the first save of a session. Those of one turn share a batch.
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

// unfinished skips the stored batches at the head.
func unfinished(batches []*saveBatch) []*saveBatch {
	for len(batches) > 0 && batches[0].left.Load() <= 0 {
		batches = batches[1:]
	}
	if len(batches) == 0 {
		return nil
	}
	return batches
}

// oldest is the time of the oldest change that is not stored; 0 for none. Any goroutine.
func (s *savings) oldest() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.batches = unfinished(s.batches); len(s.batches) > 0 {
		return s.batches[0].at
	}
	return s.since
}

// oldestFirst is the beginning of the oldest session that is not stored; 0 for none. Any goroutine.
func (s *savings) oldestFirst() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.firsts = unfinished(s.firsts); len(s.firsts) > 0 {
		return s.firsts[0].at
	}
	return 0
}

// saved notes the result of a save in b. Any goroutine.
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

// storeLate reports whether a change that is answered now may miss its time.
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
	stored       bool  // before it happens
	seated       bool  // has waited for a shared seat
	verdict      error // why there is none
	room, ref    []byte
}

// admission is how a join of c enters.
func (m *move) admission(c *Conn) admission {
	if m.seated {
		return admission{how: waySeated, conn: c, room: m.room, verdict: m.verdict}
	}
	return admission{how: wayJoin, conn: c, room: m.room}
}

// storeFirst stores a move of c before it happens, if the store is late; else the move happens at once. m is borrowed.
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

// storedFirst carries on once the letters that were posted for c meanwhile are opened.
func (l *loop) storedFirst(c *Conn, p *pending, err error, then func(l *loop, c *Conn, m move)) {
	if c.wire.Posted.Load() > 0 {
		l.postCall(func(l *loop) { l.storedFirst(c, p, err, then) })
		return
	}
	stored := err == nil && !c.has(flagUnsaved) // and no other change came since
	l.changed(c)                                // the store may have a move that does not happen
	waits := l.settled(c, p)
	happens := waits && (err == nil || isTooLarge(err))
	if !happens && p.move.seated {
		a := p.move.admission(c)
		l.giveUp(&a)
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

// toStore is the state of c that is to be stored: with a join or leave that waits for its save, or that waits for a seat and
// is already stored.
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
