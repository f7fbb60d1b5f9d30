package cluster

import (
	"runtime"
	"runtime/metrics"

	"github.com/parleyd/parley/engine"
)

// busReport has the figures that the bus process reports to the supervisor.
type busReport struct {
	Process engine.ProcessStats `json:"process"`
}

func ownProcess() engine.ProcessStats {
	heap := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(heap)
	return engine.ProcessStats{Goroutines: runtime.NumGoroutine(), HeapBytes: heap[0].Value.Uint64()}
}
