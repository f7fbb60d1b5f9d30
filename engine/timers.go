package engine

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
	at int64  // on the server's clock
	n  uint64 // of two that are due at the same time the one that was set first runs first
	f  func()
}

// after runs f on this loop in a turn that begins d from now or later. It cannot be stopped: f looks at whether it is still
// wanted. What is set on a loop that has stopped never runs.
func (l *turnLoop) after(d time.Duration, f func()) {
	l.timersSet++
	heap.Push(&l.timers, timer{l.ground.clock() + int64(d), l.timersSet, f})
	if l.timers[0].n == l.timersSet {
		l.wires.ringIn(d)
	}
}

// postAfter is after for any goroutine.
func (l *turnLoop) postAfter(d time.Duration, f func()) {
	l.postCall(func() { l.after(d, f) })
}

// runTimers runs what is due, some of it at least: the rest waits for another turn once until has passed.
func (l *turnLoop) runTimers(until int64) {
	if len(l.timers) == 0 || l.timers[0].at > l.now {
		return
	}
	for len(l.timers) > 0 && l.timers[0].at <= l.now {
		heap.Pop(&l.timers).(timer).f()
		if l.ground.clock() > until {
			break
		}
	}
	if len(l.timers) > 0 {
		l.wires.ringIn(time.Duration(l.timers[0].at - l.ground.clock()))
	}
}

// Len is for container/heap, as the four that follow.
func (t timers) Len() int { return len(t) }

func (t timers) Less(i, j int) bool {
	return t[i].at < t[j].at || t[i].at == t[j].at && t[i].n < t[j].n
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
