package main

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/parleyd/parley/engine"
)

// cores is GOMAXPROCS as the process found it.
var cores = runtime.GOMAXPROCS(0)

const (
	lookEvery  = 250 * time.Millisecond
	idleWrites = 1_000 // a second and loop
	wakeWrites = 2_000
	calmWrites = 15_000
	busyWrites = 25_000

	releaseAfter = 4     // idle looks in a row
	releaseWorth = 1_000 // connections and messages since the last release
	byOperator   = -1    // GOMAXPROCS is set in the environment: it stays
)

// workload is the work of all loops since the start.
type workload struct {
	accepted, sent, writes uint64
}

func workloadOf(srv *engine.Server) workload {
	s := srv.StatsHere()
	return workload{accepted: s.Accepted, sent: s.MessagesSent, writes: s.Writes}
}

// followLoad adapts Go's runtime to the load of the loops, until ctx is done.
func followLoad(ctx context.Context, srv *engine.Server) {
	loops := srv.Config().Loops
	spare := processors{now: cores, busy: max(cores, loops), calm: max(cores, loops+1)}
	if os.Getenv("GOMAXPROCS") != "" {
		spare.now = byOperator
	}
	var heap release
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

// processors gives Go's scheduler one processor more than there are event loops while their load is moderate.
//
// A loop that waits for its sockets is in a system call. If no processor is idle, the scheduler takes the loop's
// processor away after 20 us, hands it to a thread without work, and looks again every 20 us: at a moderate load this
// doubles the server's CPU time. If a processor is idle, the scheduler wakes it each time that a loop runs out of events:
// at a high load, when loops seldom wait for so long, this costs a fifth. An idle server gets no extra processor, either:
// a loop whose processor is gone lets the scheduler sleep, which halves the cost of 15,000 heartbeats
// (docs/performance.md).
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

// release gives memory back to the system once the loops have become idle. Connecting leaves garbage behind, a fifth
// of the resident memory of idle connections; Go's runtime would keep it for minutes (docs/performance.md).
type release struct {
	idle int // looks in a row
	last workload
}

func (r *release) follow(idle bool, now workload) {
	if !idle {
		r.idle = 0
		return
	}
	r.idle++
	if r.idle == releaseAfter && now.accepted+now.sent-r.last.accepted-r.last.sent > releaseWorth {
		r.last = now
		debug.FreeOSMemory()
	}
}
