package engine

import (
	"context"
	"errors"

	"github.com/parleyd/parley/engine/internal/figures"
)

// Stats are the seed's figures, and further ones. Counts run from the server's start.
type Stats = figures.Stats

// LoopStats are the figures of one loop.
type LoopStats = figures.LoopStats

// WorkerStats are the figures of one process of several: a worker, or the bus between them.
type WorkerStats = figures.WorkerStats

// Processes are the processes of a server at one moment.
type Processes = figures.Processes

// ErrWorkerUnknown is the error for an index that no worker has.
var ErrWorkerUnknown = errors.New("there is no such worker")

// ProcessStats are figures of a process that other processes cannot see.
type ProcessStats = figures.ProcessStats

// BusStats are the figures of a worker's link to the others, since the worker's start.
type BusStats = figures.BusStats

// FigureKind says how a figure changes, and so how the figures of several workers are combined.
type FigureKind = figures.Kind

// The kinds of figures.
const (
	FigureCounter   = figures.Counter   // only grows; the sum keeps the counts of workers that are gone
	FigureHistogram = figures.Histogram // counters, one for each range of durations
	FigureGauge     = figures.Gauge     // the present value; the sum over the live workers
	FigureHighest   = figures.Highest   // a gauge; the highest value of all workers, not the sum
)

// Figure describes one number that a server counts or measures and keeps in an S. /stats, /metrics, the sums over workers
// and docs/metrics.md are made from tables of figures.
type Figure[S any] = figures.Figure[S]

// ServerFigures are the figures of a server, or of all workers together. The caller must not change them.
func ServerFigures() []Figure[Stats] { return figures.Server }

// LoopFigures are the figures of one event loop. The caller must not change them.
func LoopFigures() []Figure[LoopStats] { return figures.Loop }

// WorkerFigures are the figures of one process of several. The caller must not change them.
func WorkerFigures() []Figure[WorkerStats] { return figures.Worker }

// Stats returns the server's figures: the seed's getStats. With several workers the seed's own figures (connections, rooms,
// messages, uptime, memory) are sums over the live workers, at most a second old; the others are this worker's, and
// [Everywhere.Stats] has their sums. Any goroutine.
//
// Scope: all workers.
func (s *Server) Stats() Stats {
	out := s.StatsHere()
	if !s.link.Alone() {
		out.AddAway(s.link)
	}
	return out
}

// StatsHere returns the figures of this worker alone. With one process they are the server's. Any goroutine.
//
// Scope: this worker.
func (s *Server) StatsHere() Stats { return s.figures.Read() }

// Keys are keys from elsewhere that newcomers are verified with: package access has those of tokens.
type Keys = figures.Keys

// SetKeys makes newcomers depend on keys: without them the server is not ready. Before the start.
//
// Scope: this worker.
func (s *Server) SetKeys(k Keys) { s.figures.Keys = k }

// Ready returns why newcomers would be refused: the error of Healthy, or the lack of keys; nil if they would not. Any
// goroutine.
//
// Scope: this worker.
func (s *Server) Ready(ctx context.Context) error {
	if err := s.Healthy(ctx); err != nil {
		return err
	}
	if why := s.figures.Unready(); why != "" {
		return errors.New(why)
	}
	return nil
}
