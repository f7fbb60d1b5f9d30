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
	add("worker_up", "1 where the process does its work, 0 while it is started or ended.", prometheus.GaugeValue, always(func(w *engine.WorkerStats) float64 { return flag(w.State == "ready") }))
	add("worker_restarts_total", "Times that the process was started again after its end.", prometheus.CounterValue, always(func(w *engine.WorkerStats) float64 { return float64(w.Restarts) }))
	add("worker_start_time_seconds", "When the process was started, in seconds since 1970.", prometheus.GaugeValue, always(func(w *engine.WorkerStats) float64 { return float64(w.StartedAt) }))
	add("worker_connections", "Open connections of the worker.", prometheus.GaugeValue, serving(func(w *engine.WorkerStats) float64 { return float64(w.Connections) }))
	process := func(of func(*engine.ProcessStats) float64) func(*engine.WorkerStats) (float64, bool) {
		return func(w *engine.WorkerStats) (float64, bool) {
			if w.Process == nil {
				return 0, false
			}
			return of(w.Process), true
		}
	}
	add("worker_goroutines", "Goroutines of the process.", prometheus.GaugeValue, process(func(p *engine.ProcessStats) float64 { return float64(p.Goroutines) }))
	add("worker_heap_bytes", "Bytes of objects on the process's Go heap, those that the collector has yet to free included.", prometheus.GaugeValue,
		process(func(p *engine.ProcessStats) float64 { return float64(p.HeapBytes) }))
	add("bus_up", "1 where the worker is connected to the bus, over which it reaches the other workers.", prometheus.GaugeValue, linked(func(b *engine.BusStats) float64 { return flag(b.Up) }))
	add("ledger_up", "Whether the worker can keep sessions and give out seats: its link is up, and what the bus keeps is there.", prometheus.GaugeValue,
		linked(func(b *engine.BusStats) float64 { return flag(b.Up && b.Unkept == "") }))
	counter := func(name, help string, of func(*engine.BusStats) uint64) {
		add("bus_"+name+"_total", help, prometheus.CounterValue, linked(func(b *engine.BusStats) float64 { return float64(of(b)) }))
	}
	counter("entries_sent", "Messages, joins, counts and questions that the worker has sent to the other workers.", func(b *engine.BusStats) uint64 { return b.EntriesOut })
	counter("entries_received", "Messages, joins, counts and questions that the worker has got from the other workers.", func(b *engine.BusStats) uint64 { return b.EntriesIn })
	counter("sent_bytes", "Bytes that the worker has sent to the other workers.", func(b *engine.BusStats) uint64 { return b.BytesOut })
	counter("received_bytes", "Bytes that the worker has got from the other workers.", func(b *engine.BusStats) uint64 { return b.BytesIn })
	counter("gaps", "Times that the worker found something of another worker missing, and asked for it again.", func(b *engine.BusStats) uint64 { return b.Gaps })
	counter("repaired", "Missing batches that came when they were asked for.", func(b *engine.BusStats) uint64 { return b.Repaired })
	counter("lost", "Missing batches that no worker had any more: messages are lost.", func(b *engine.BusStats) uint64 { return b.Lost })
	counter("overrun", "The worker's own batches that were dropped because the bus was away for too long.", func(b *engine.BusStats) uint64 { return b.Overrun })
	counter("reconnects", "Times that the worker's connection to the bus came back.", func(b *engine.BusStats) uint64 { return b.Reconnects })
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
