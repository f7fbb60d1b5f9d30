package cluster

import (
	"runtime"
	"runtime/metrics"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/engine/internal/figures"
)

// busReport has the figures that the bus process reports to the supervisor.
type busReport struct {
	Process engine.ProcessStats     `json:"process"`
	Order   *figures.SequencerStats `json:"order,omitempty"` // nil until it reaches the bus
}

func ownProcess() engine.ProcessStats {
	heap := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(heap)
	return engine.ProcessStats{Goroutines: runtime.NumGoroutine(), HeapBytes: heap[0].Value.Uint64()}
}
