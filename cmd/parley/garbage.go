package main

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	thriftyPercent = 25       // GOGC, while connections are the load
	spareBytes     = 16 << 20 // garbage that may lie around while requests make it quickly
	percentMost    = 400      // what a heap of 4 MB needs for it; the collector counts a smaller one as 4 MB
	hastyCycles    = 5        // collections between two looks
	calmLooks      = 8        // without any
)

// garbage is the collector's setting while backends send requests. Connections make no garbage, so that thriftyPercent costs
// nothing there. A request does, and a small heap is then collected for each megabyte, that is for each thousand publishes or
// so. So the collector waits for spareBytes while it runs all the time.
type garbage struct {
	percent int
	cycles  uint64
	calm    int // looks in a row
}

// follow sets the percentage for the next time.
func (g *garbage) follow(cycles, liveBytes uint64) {
	made := cycles - g.cycles
	g.cycles = cycles
	if g.calm++; made > 0 {
		g.calm = 0
	}
	switch {
	case g.percent == thriftyPercent && made >= hastyCycles:
		g.percent = int(max(thriftyPercent, min(percentMost, spareBytes*100/max(1, liveBytes))))
	case g.calm >= calmLooks, liveBytes*uint64(g.percent)/100 > 2*spareBytes: // the heap has grown meanwhile
		g.percent = thriftyPercent
	}
}

// followGarbage adapts the collector until ctx is done.
func followGarbage(ctx context.Context) {
	if os.Getenv("GOGC") != "" {
		return
	}
	g := garbage{percent: thriftyPercent}
	at := []metrics.Sample{{Name: "/gc/cycles/total:gc-cycles"}, {Name: "/gc/heap/live:bytes"}}
	ticks := time.NewTicker(lookEvery)
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
		}
		metrics.Read(at)
		before := g.percent
		g.follow(at[0].Value.Uint64(), at[1].Value.Uint64())
		if g.percent != before {
			debug.SetGCPercent(g.percent)
			if g.calm >= calmLooks {
				debug.FreeOSMemory()
			}
		}
	}
}
