// Package canary measures how much processor time a machine grants, so that deadlines can stretch with it: a slow machine
// makes a test or a check slower, but does not make it fail.
//
// Problem: where thirty programs want two cores, "no answer for 5 s" blames a server for the machine. The waiting goroutine
// does not notice by itself: its sleep ends in time even there, while the server gets a fifteenth of a core.
//
// What lost: a probe that keeps a core busy (it slows the measured programs), CPU time of the process under test (it is not
// always ours), and longer deadlines (each is too long on an idle machine, and too short on some other).
//
// Steps: fifty times a second the canary asks the kernel how many threads want to run, and measures how late it is itself.
// Threads for each core, smoothed over a fifth of a second, are the factor by which everything takes longer. Granted time
// is the time on the clock divided by that factor.
//
// Start reading at [Now]. It refuses to measure the speed of anything.
package canary

import (
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

const (
	every     = 20 * time.Millisecond
	smoothing = 0.1 // weight of one look: a fifth of a second
	// factorMax bounds the factor: beyond it no program can be expected to answer.
	factorMax = 50
	// lateMax bounds how much time between two looks counts as granted; the rest was a standstill.
	lateMax = 5 * every
	// memory is how long [Factor] remembers the worst factor.
	memory = 5 * time.Second
)

// bird is the canary of this process.
var bird = sync.OnceValue(func() *canary {
	c := &canary{smooth: 1}
	c.factor.Store(math.Float64bits(1))
	last := time.Now()
	c.look(last, every)
	go func() {
		for tick := time.NewTicker(every); ; <-tick.C {
			now := time.Now()
			c.look(now, now.Sub(last))
			last = now
		}
	}()
	return c
})

// canary has the measurements.
//
// Owner: the goroutine of bird, except granted and factor, which any goroutine may read.
type canary struct {
	granted atomic.Int64  // nanoseconds so far
	factor  atomic.Uint64 // the worst in memory, as bits of a float64
	smooth  float64
	peaks   [16]float64 // a ring: the worst factor in each part of memory
	part    int64       // which of them is being filled
	wanted  func() int  // how many threads want to run; nil: as the kernel says
}

// look takes a measurement at now; since is the time since the previous one.
func (c *canary) look(now time.Time, since time.Duration) {
	count := runnable
	if c.wanted != nil {
		count = c.wanted
	}
	load := max(float64(count())/float64(runtime.NumCPU()), 1)
	c.smooth += smoothing * (load - c.smooth)
	f := min(max(c.smooth, float64(since)/float64(lateMax)), factorMax)
	c.granted.Add(int64(float64(min(since, lateMax)) / max(c.smooth, 1)))

	if part := now.UnixNano() / int64(memory/time.Duration(len(c.peaks)-1)); part != c.part {
		for range min(part-c.part, int64(len(c.peaks))) {
			c.part++
			c.peaks[uint64(c.part)%uint64(len(c.peaks))] = 1
		}
		c.part = part
	}
	at := &c.peaks[uint64(c.part)%uint64(len(c.peaks))]
	*at = max(*at, f)
	worst := 1.0
	for _, p := range c.peaks {
		worst = max(worst, p)
	}
	c.factor.Store(math.Float64bits(worst))
}

// Now is the time that the machine has granted since the first call of this package: on an idle machine it runs like a
// clock, on a busy one slower. Any goroutine.
func Now() time.Duration { return time.Duration(bird().granted.Load()) }

// Factor is by how much longer everything took in the last five seconds, at worst: 1 on an idle machine, 50 at most. Any
// goroutine.
func Factor() float64 { return math.Float64frombits(bird().factor.Load()) }

// Stretch is the deadline for work that takes d on an idle machine: for libraries that keep deadlines by the clock. Any
// goroutine.
func Stretch(d time.Duration) time.Duration { return time.Duration(float64(d) * Factor()) }

// Wait calls f every few milliseconds until it returns true, or the machine has granted limit, and reports whether it did.
// f runs on the caller's goroutine. Any goroutine.
func Wait(limit time.Duration, f func() bool) bool {
	begun := Now()
	tick := time.NewTicker(waitTick)
	defer tick.Stop()
	for !f() {
		if Now()-begun > limit {
			return false
		}
		<-tick.C
	}
	return true
}

const waitTick = 3 * time.Millisecond
