package turn

import (
	"container/heap"
	"slices"
	"sync/atomic"
	"time"
)

// The timers of a loop are for waits that are no connection's deadline, such as a save or a retry. They run in the loop's
// turns. The loop's wires ring for the earliest, so they are as exact as the clock and do not wait for a tick.

// timers are the timers of a loop, the earliest first.
type timers []timer

// timer runs f once on its loop at its time.
//
// Owner: loop.
type timer struct {
	At int64  // on the server's clock
	n  uint64 // the order in which timers of the same time were set, and run
	f  func()
}

// After runs f on this loop in a turn that begins d from now or later. A timer cannot be stopped: f checks whether it is
// still wanted. Timers of a loop that has stopped never run.
func (l *Loop) After(d time.Duration, f func()) {
	l.timersSet++
	heap.Push(&l.Timers, timer{l.Ground.Clock() + int64(d), l.timersSet, f})
	if l.Timers[0].n == l.timersSet {
		l.Wires.RingIn(d)
	}
}

// PostAfter is After for any goroutine.
func (l *Loop) PostAfter(d time.Duration, f func()) {
	l.PostCall(func() { l.After(d, f) })
}

// runTimers runs the timers that are due, at least one. The rest waits for another turn once until has passed.
func (l *Loop) runTimers(until int64) {
	if len(l.Timers) == 0 || l.Timers[0].At > l.Now {
		return
	}
	for len(l.Timers) > 0 && l.Timers[0].At <= l.Now {
		heap.Pop(&l.Timers).(timer).f()
		if l.Ground.Clock() > until {
			break
		}
	}
	if len(l.Timers) > 0 {
		l.Wires.RingIn(time.Duration(l.Timers[0].At - l.Ground.Clock()))
	}
}

// Len is for container/heap, as are the four methods that follow.
func (t timers) Len() int { return len(t) }

func (t timers) Less(i, j int) bool {
	return t[i].At < t[j].At || t[i].At == t[j].At && t[i].n < t[j].n
}

func (t timers) Swap(i, j int) { t[i], t[j] = t[j], t[i] }

// Push appends x.
func (t *timers) Push(x any) { *t = append(*t, x.(timer)) }

// Pop removes the last timer.
func (t *timers) Pop() any {
	last := (*t)[len(*t)-1]
	(*t)[len(*t)-1] = timer{}
	*t = (*t)[:len(*t)-1]
	return last
}

// Time is a server's clock, and its relation to the wall clock, which may be set at any time.
//
// Owner: immutable once the server runs, except base.
type Time struct {
	Now      func() int64 // nanoseconds since the start
	Walltime func() time.Time
	base     atomic.Int64 // nanoseconds since the epoch at clock 0
}

// Resync reads the wall clock again: it may have been set.
func (t *Time) Resync() { t.base.Store(t.Walltime().UnixNano() - t.Now()) }

// Seconds turns a time on the server's clock into seconds since the epoch.
func (t *Time) Seconds(at int64) int64 { return (t.base.Load() + at) / int64(time.Second) }

// Wall turns a time on the server's clock into one on the wall clock.
func (t *Time) Wall(at int64) time.Time { return time.Unix(0, t.base.Load()+at) }

// TickFor is the interval at which loops look at timers for some timeouts: short enough for the shortest of them.
func TickFor(timeouts ...time.Duration) time.Duration {
	return min(max(slices.Min(timeouts)/8, 5*time.Millisecond), 100*time.Millisecond)
}
