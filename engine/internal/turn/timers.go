package turn

import (
	"container/heap"
	"time"
)

// The timers of a loop are for waits that belong to no connection's slot of the wheel: to save what has changed, to try
// again. They run in the loop's turns, and the loop's wires ring for the earliest, so that they are as exact as the clock
// and not as the tick.

// timers are those of a loop, the earliest first.
type timers []timer

// timer runs f once on its loop, when its time has come.
//
// Owner: loop.
type timer struct {
	At int64  // on the server's clock
	n  uint64 // of two that are due at the same time the one that was set first runs first
	f  func()
}

// After runs f on this loop in a turn that begins d from now or later. It cannot be stopped: f looks at whether it is still
// wanted. What is set on a loop that has stopped never runs.
func (l *Loop) After(d time.Duration, f func()) {
	l.timersSet++
	heap.Push(&l.Timers, timer{l.Ground.Clock() + int64(d), l.timersSet, f})
	if l.Timers[0].n == l.timersSet {
		l.Wires.RingIn(d)
	}
}

// PostAfter is after for any goroutine.
func (l *Loop) PostAfter(d time.Duration, f func()) {
	l.PostCall(func() { l.After(d, f) })
}

// runTimers runs what is due, some of it at least: the rest waits for another turn once until has passed.
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

// Len is for container/heap, as the four that follow.
func (t timers) Len() int { return len(t) }

func (t timers) Less(i, j int) bool {
	return t[i].At < t[j].At || t[i].At == t[j].At && t[i].n < t[j].n
}

func (t timers) Swap(i, j int) { t[i], t[j] = t[j], t[i] }

// Push adds x as the last one.
func (t *timers) Push(x any) { *t = append(*t, x.(timer)) }

// Pop takes the last one away.
func (t *timers) Pop() any {
	last := (*t)[len(*t)-1]
	(*t)[len(*t)-1] = timer{}
	*t = (*t)[:len(*t)-1]
	return last
}
