package admin

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/parleyd/parley/engine"
)

const prefix = "parley_"

// collector makes metrics of the server's figures when Prometheus asks for them: to count on a loop costs no more than to
// add to an integer.
//
// Owner: immutable.
type collector struct {
	srv     Source
	server  []metric[engine.Stats]
	loops   []metric[engine.LoopStats]
	workers []metric[engine.WorkerStats]
}

// metric is a figure with its description for Prometheus.
type metric[S any] struct {
	figure *engine.Figure[S]
	desc   *prometheus.Desc
}

func newCollector(srv Source) *collector {
	return &collector{srv, metrics(engine.ServerFigures()), metrics(engine.LoopFigures(), "worker", "loop"),
		metrics(engine.WorkerFigures(), "worker")}
}

// metrics are the figures that have a metric of their own.
func metrics[S any](figures []engine.Figure[S], labels ...string) (list []metric[S]) {
	for i := range figures {
		f := &figures[i]
		if f.Metric == "" {
			continue
		}
		names := labels
		if f.Label != "" {
			names = append(names[:len(names):len(names)], f.Label)
		}
		list = append(list, metric[S]{f, prometheus.NewDesc(prefix+f.Metric, f.Help, names, nil)})
	}
	return list
}

func describe[S any](list []metric[S], out chan<- *prometheus.Desc) {
	for _, m := range list {
		out <- m.desc
	}
}

// Describe lists the metrics.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	describe(c.server, out)
	describe(c.loops, out)
	describe(c.workers, out)
}

// Collect reads the figures.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	s := c.srv.Stats()
	collect(c.server, &s, out)
	for _, m := range c.server {
		if m.figure.Kind == engine.FigureHistogram {
			buckets, count, sum := m.figure.Durations(&s)
			out <- prometheus.MustNewConstHistogram(m.desc, count, sum, buckets)
		}
	}
	n := 0 // of the loop in its worker
	for i := range s.Loops {
		l := &s.Loops[i]
		if i > 0 && l.Worker != s.Loops[i-1].Worker {
			n = 0
		}
		collect(c.loops, l, out, strconv.Itoa(l.Worker), strconv.Itoa(n))
		n++
	}
	for i := range s.Workers {
		collect(c.workers, &s.Workers[i], out, strconv.Itoa(s.Workers[i].Index))
	}
	if s.BusProcess != nil {
		collect(c.workers, s.BusProcess, out, "bus")
	}
}

func collect[S any](list []metric[S], s *S, out chan<- prometheus.Metric, labels ...string) {
	for _, m := range list {
		kind := prometheus.GaugeValue
		if m.figure.Kind == engine.FigureCounter {
			kind = prometheus.CounterValue
		}
		for label, v := range m.figure.Values(s) {
			values := labels
			if m.figure.Label != "" {
				values = append(labels[:len(labels):len(labels)], label)
			}
			out <- prometheus.MustNewConstMetric(m.desc, kind, v, values...)
		}
	}
}
