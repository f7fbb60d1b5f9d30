package main

import (
	"os"
	"runtime"

	"github.com/parleyd/parley/engine"
)

// cores is how many Go may use, before it is told of one more.
var cores = runtime.GOMAXPROCS(0)

// spareProcessor gives Go's scheduler one processor more than there are event loops. A loop that waits for its
// sockets keeps its processor as long as another one is idle; where there is none, the scheduler takes it away
// after 20 us, hands it to a thread that finds nothing to do, and keeps looking every 20 us. At a moderate load
// that costs as much again as the work (docs/performance.md).
func spareProcessor(cfg *engine.Config) {
	if cfg.Loops == 0 {
		cfg.Loops = cores
	}
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(max(cores, cfg.Loops+1))
	}
}
