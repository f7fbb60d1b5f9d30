package main

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/parleyd/parley/engine"
)

// cores is how many processors Go has before anything is changed.
var cores = runtime.GOMAXPROCS(0)

const (
	lookEvery  = 250 * time.Millisecond
	idleWrites = 1_000 // a second and loop
	wakeWrites = 2_000
	calmWrites = 15_000
	busyWrites = 25_000

	tidyAfter  = 4     // idle looks in a row
	tidyWorth  = 1_000 // connections and messages since the last time
	byOperator = -1    // GOMAXPROCS is set in the environment: it stays
)

// workload is how busy the loops have been since the last look.
type workload struct {
	accepted, sent, writes uint64
}

func workloadOf(srv *engine.Server) workload {
	s := srv.StatsHere()
	return workload{accepted: s.Accepted, sent: s.MessagesSent, writes: s.Writes}
}

// followLoad suits Go's runtime to what the loops have to do, until ctx is done.
func followLoad(ctx context.Context, srv *engine.Server) {
	loops := srv.Config().Loops
	spare := processors{now: cores, busy: max(cores, loops), calm: max(cores, loops+1)}
	if os.Getenv("GOMAXPROCS") != "" {
		spare.now = byOperator
	}
	var heap tidying
	go func() {
		ticks := time.NewTicker(lookEvery)
		defer ticks.Stop()
		for before := workloadOf(srv); ; {
			select {
			case <-ctx.Done():
				return
			case <-ticks.C:
			}
			after := workloadOf(srv)
			rate := float64(after.writes-before.writes) / lookEvery.Seconds() / float64(loops)
			spare.follow(rate)
			heap.follow(rate < idleWrites && after.accepted == before.accepted, after)
			before = after
		}
	}()
}

// processors gives Go's scheduler one processor more than there are event loops for as long as these are calm, and not idle.
//
// A loop that waits for its sockets is in a system call. Where no processor is idle, the scheduler takes the loop's
// away after 20 us, hands it to a thread that finds nothing to do, and keeps looking every 20 us: at a moderate load
// that doubles what the server costs. Where one is idle, it is woken each time that a loop runs out of events: at
// a high load, when loops seldom wait for so long, that costs a fifth. An idle server has none to spare either: a loop
// whose processor is gone lets the scheduler sleep, which is half of what 15,000 heartbeats cost (docs/performance.md).
type processors struct{ now, busy, calm int }

func (p *processors) follow(rate float64) {
	want := p.now
	switch {
	case p.now == byOperator:
	case rate < idleWrites || rate > busyWrites:
		want = p.busy
	case rate > wakeWrites && rate < calmWrites:
		want = p.calm
	}
	if want != p.now {
		runtime.GOMAXPROCS(want) // stops the world for some 20 us
		p.now = want
	}
}

// tidying gives memory back to the system once the loops have become idle. Connecting leaves garbage behind, a fifth
// of what idle connections keep resident; left alone, Go's runtime keeps it for minutes (docs/performance.md).
type tidying struct {
	idle int // looks in a row
	last workload
}

func (t *tidying) follow(idle bool, now workload) {
	if !idle {
		t.idle = 0
		return
	}
	t.idle++
	if t.idle == tidyAfter && now.accepted+now.sent-t.last.accepted-t.last.sent > tidyWorth {
		t.last = now
		debug.FreeOSMemory()
	}
}
