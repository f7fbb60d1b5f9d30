package admin

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/parleyd/parley/engine"
)

// workerFigure is one metric for each process of a server that has several. The bus's process has the label "bus".
type workerFigure struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	of   func(*engine.WorkerStats) (value float64, known bool)
}

func workerFigures(prefix string) (list []workerFigure) {
	add := func(name, help string, kind prometheus.ValueType, of func(*engine.WorkerStats) (float64, bool)) {
		list = append(list, workerFigure{prometheus.NewDesc(prefix+name, help, []string{"worker"}, nil), kind, of})
	}
	always := func(of func(*engine.WorkerStats) float64) func(*engine.WorkerStats) (float64, bool) {
		return func(w *engine.WorkerStats) (float64, bool) { return of(w), true }
	}
	linked := func(of func(*engine.BusStats) float64) func(*engine.WorkerStats) (float64, bool) {
		return func(w *engine.WorkerStats) (float64, bool) {
			if w.Bus == nil {
				return 0, false
			}
			return of(w.Bus), true
		}
	}
	add("worker_up", "Whether the process is ready.", prometheus.GaugeValue, always(func(w *engine.WorkerStats) float64 { return flag(w.State == "ready") }))
	add("worker_restarts_total", "Times that the process was started again.", prometheus.CounterValue, always(func(w *engine.WorkerStats) float64 { return float64(w.Restarts) }))
	add("worker_start_time_seconds", "When the process was started, since the epoch.", prometheus.GaugeValue, always(func(w *engine.WorkerStats) float64 { return float64(w.StartedAt) }))
	add("worker_connections", "Open connections of the worker.", prometheus.GaugeValue, serving(func(w *engine.WorkerStats) float64 { return float64(w.Connections) }))
	add("bus_up", "Whether the worker's link to the others is up.", prometheus.GaugeValue, linked(func(b *engine.BusStats) float64 { return flag(b.Up) }))
	counter := func(name, help string, of func(*engine.BusStats) uint64) {
		add("bus_"+name+"_total", help, prometheus.CounterValue, linked(func(b *engine.BusStats) float64 { return float64(of(b)) }))
	}
	counter("entries_sent", "What the worker has said to the others.", func(b *engine.BusStats) uint64 { return b.EntriesOut })
	counter("entries_received", "What the others have said to the worker.", func(b *engine.BusStats) uint64 { return b.EntriesIn })
	counter("sent_bytes", "The same in bytes.", func(b *engine.BusStats) uint64 { return b.BytesOut })
	counter("received_bytes", "The same in bytes.", func(b *engine.BusStats) uint64 { return b.BytesIn })
	counter("gaps", "Times that something of another worker was found missing.", func(b *engine.BusStats) uint64 { return b.Gaps })
	counter("repaired", "Batches that came when they were asked for.", func(b *engine.BusStats) uint64 { return b.Repaired })
	counter("lost", "Batches of other workers that nobody had any more.", func(b *engine.BusStats) uint64 { return b.Lost })
	counter("overrun", "Own batches that were given up before the bus came back.", func(b *engine.BusStats) uint64 { return b.Overrun })
	counter("reconnects", "Times that the link came back.", func(b *engine.BusStats) uint64 { return b.Reconnects })
	add("bus_unsent_bytes", "Bytes that wait for a bus that is away.", prometheus.GaugeValue, linked(func(b *engine.BusStats) float64 { return float64(b.Unsent) }))
	return list
}

// serving leaves the bus's process out.
func serving(of func(*engine.WorkerStats) float64) func(*engine.WorkerStats) (float64, bool) {
	return func(w *engine.WorkerStats) (float64, bool) { return of(w), w.Instance != 0 }
}

func flag(on bool) float64 {
	if on {
		return 1
	}
	return 0
}

func collectWorkers(s *engine.Stats, figures []workerFigure, out chan<- prometheus.Metric) {
	collect := func(w *engine.WorkerStats, label string) {
		for _, f := range figures {
			if v, known := f.of(w); known {
				out <- prometheus.MustNewConstMetric(f.desc, f.kind, v, label)
			}
		}
	}
	for i := range s.Workers {
		collect(&s.Workers[i], strconv.Itoa(s.Workers[i].Index))
	}
	if s.BusProcess != nil {
		collect(s.BusProcess, "bus")
	}
}
