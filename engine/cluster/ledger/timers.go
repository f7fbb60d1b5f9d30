package ledger

import (
	"container/heap"
	"time"
)

// timers is a heap of functions for the ledger's goroutine, the earliest first.
type timers []*timer

// timer runs f once at its time, unless it is stopped before.
//
// Owner: the ledger's goroutine.
type timer struct {
	at    time.Time
	f     func()
	index int  // in the heap; -1 once it has run or was stopped
	owed  bool // a callback depends on it: if the ledger ends before its time, it runs then
}

func (t timers) Len() int           { return len(t) }
func (t timers) Less(i, j int) bool { return t[i].at.Before(t[j].at) }

func (t timers) Swap(i, j int) {
	t[i], t[j] = t[j], t[i]
	t[i].index, t[j].index = i, j
}

// Push is for container/heap.
func (t *timers) Push(x any) {
	x.(*timer).index = len(*t)
	*t = append(*t, x.(*timer))
}

// Pop is for container/heap.
func (t *timers) Pop() any {
	old := *t
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*t = old[:len(old)-1]
	last.index = -1
	return last
}

func (t *timers) start(at time.Time, f func()) *timer {
	x := &timer{at: at, f: f}
	heap.Push(t, x)
	return x
}

// stop is safe on a timer that has run, and on nil.
func (t *timers) stop(x *timer) {
	if x != nil && x.index >= 0 {
		heap.Remove(t, x.index)
	}
}

// due takes the first timer whose time has come; nil if there is none.
func (t *timers) due(now time.Time) *timer {
	if len(*t) == 0 || (*t)[0].at.After(now) {
		return nil
	}
	return heap.Pop(t).(*timer)
}
