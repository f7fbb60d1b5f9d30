package main

import (
	"context"
	"os"
	"runtime"
	"time"

	"github.com/parleyd/parley/engine"
)

// cores is how many processors Go has before anything is changed.
var cores = runtime.GOMAXPROCS(0)

const (
	processorsEvery = 250 * time.Millisecond
	idleWrites      = 1_000 // a second and loop
	wakeWrites      = 2_000
	calmWrites      = 15_000
	busyWrites      = 25_000
)

// spareProcessor gives Go's scheduler one processor more than there are event loops for as long as these are calm, and not idle.
//
// A loop that waits for its sockets is in a system call. Where no processor is idle, the scheduler takes the loop's
// away after 20 us, hands it to a thread that finds nothing to do, and keeps looking every 20 us: at a moderate load
// that doubles what the server costs. Where one is idle, it is woken each time that a loop runs out of events: at
// a high load, when loops seldom wait for so long, that costs a fifth. An idle server has none to spare either: a loop
// whose processor is gone lets the scheduler sleep, which is half of what 15,000 heartbeats cost (docs/performance.md).
func spareProcessor(ctx context.Context, srv *engine.Server) {
	if os.Getenv("GOMAXPROCS") != "" {
		return
	}
	loops := srv.Config().Loops
	busy, calm := max(cores, loops), max(cores, loops+1)
	go func() {
		ticks := time.NewTicker(processorsEvery)
		defer ticks.Stop()
		writes, now := srv.Stats().Writes, cores
		for {
			before := writes
			writes = srv.Stats().Writes
			rate := float64(writes-before) / processorsEvery.Seconds() / float64(loops)
			want := now
			switch {
			case rate < idleWrites || rate > busyWrites:
				want = busy
			case rate > wakeWrites && rate < calmWrites:
				want = calm
			}
			if want != now {
				runtime.GOMAXPROCS(want) // stops the world for some 20 us
				now = want
			}
			select {
			case <-ctx.Done():
				return
			case <-ticks.C:
			}
		}
	}()
}
