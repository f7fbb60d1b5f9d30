package session

import (
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
// again soon: only changes of the first SaveLate of such a time are at risk.

const (
	// SaveLate is the time in which a change should be stored; the rest of the 50 ms is for delays that are not measured.
	SaveLate = int64(40 * time.Millisecond)
	// LateFor is how long a store counts as late.
	LateFor = int64(5 * time.Second)
	// SaveGathers is the time that a change waits for others, here and in the store. A save that leaves at once skips this
	// wait, so it shows by as much earlier that the store is late.
	SaveGathers = int64(saveAfter + 10*time.Millisecond)
)

// SaveSecondsBounds are the upper bounds of [Sessions.SaveCounts] in seconds; its last element counts longer times.
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
	if took+gathered > SaveLate {
		t.late(now)
	}
}

func (t *saveTimes) late(now int64) { t.lateUntil.Store(now + LateFor) }

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
func (s *Sessions) saved(b *saveBatch, err error) {
	if b == nil {
		return
	}
	b.left.Add(-1)
	if now := s.Rooms.Ground.Clock(); err == nil {
		s.saves.stored(now-b.at, 0, now)
	} else {
		s.saves.late(now)
	}
}

// storeLate reports whether a change that is answered now may miss its time.
func (l *Loop) storeLate() bool {
	if l.Now < l.Sessions.saves.lateUntil.Load() {
		return true
	}
	oldest, first := l.saves.oldest(), l.saves.oldestFirst()
	return oldest != 0 && l.Now-oldest > SaveLate || first != 0 && l.Now-first > SaveLate-SaveGathers
}

// SaveCounts are the saves so far, by SaveSecondsBounds, and the sum of their times in microseconds. Any goroutine.
func (s *Sessions) SaveCounts() (counts [len(SaveSecondsBounds) + 1]uint64, micros uint64) {
	for i := range counts {
		counts[i] = s.saves.counts[i].Load()
	}
	return counts, s.saves.micros.Load()
}

// UnsavedMillis is the age of the oldest change of a session that is not stored yet, rounded up; 0 where all are. Any
// goroutine.
func (s *Sessions) UnsavedMillis() (millis uint64) {
	for _, x := range s.Rooms.Loops {
		if oldest := LoopOf(x.Base()).saves.oldest(); oldest != 0 {
			millis = max(millis, uint64((s.Rooms.Ground.Clock()-oldest)/1e6+1))
		}
	}
	return millis
}

// Late notes that the store is late. Any goroutine.
func (s *Sessions) Late(now int64) { s.saves.late(now) }
