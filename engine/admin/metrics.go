package admin

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/parleyd/parley/engine"
)

// collector turns the server's counters into metrics when they are asked for: counting on the loops stays
// as cheap as adding to a plain integer.
//
// Owner: immutable.
type collector struct {
	srv     Source
	figures []figure
	ended   *prometheus.Desc
	loops   []loopFigure
	workers []workerFigure
}

// figure is one metric without labels.
type figure struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	of   func(*engine.Stats) float64
}

// loopFigure is one metric for each loop.
type loopFigure struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	of   func(*engine.LoopStats) float64
}

func newCollector(srv Source) *collector {
	const prefix = "parley_"
	c := &collector{srv: srv, ended: prometheus.NewDesc(prefix+"connections_ended_total",
		"Connections that have ended, by cause.", []string{"cause"}, nil)}
	gauge := func(name, help string, of func(*engine.Stats) float64) {
		c.figures = append(c.figures, figure{prometheus.NewDesc(prefix+name, help, nil, nil), prometheus.GaugeValue, of})
	}
	counter := func(name, help string, of func(*engine.Stats) uint64) {
		c.figures = append(c.figures, figure{prometheus.NewDesc(prefix+name+"_total", help, nil, nil), prometheus.CounterValue,
			func(s *engine.Stats) float64 { return float64(of(s)) }})
	}
	gauge("connections", "Open connections.", func(s *engine.Stats) float64 { return float64(s.Connections) })
	gauge("connections_max", "Connections that are taken at most.", func(s *engine.Stats) float64 { return float64(s.MaxConnections) })
	gauge("rooms", "Rooms.", func(s *engine.Stats) float64 { return float64(s.Rooms) })
	gauge("sessions", "Sessions without a connection, waiting to be resumed.", func(s *engine.Stats) float64 { return float64(s.Sessions) })
	gauge("uptime_seconds", "Time since the start.", func(s *engine.Stats) float64 { return float64(s.Uptime) })
	counter("messages_received", "Messages from clients.", func(s *engine.Stats) uint64 { return s.MessagesReceived })
	counter("messages_sent", "Messages to clients, each recipient counted.", func(s *engine.Stats) uint64 { return s.MessagesSent })
	counter("received_bytes", "Bytes from clients.", func(s *engine.Stats) uint64 { return s.BytesReceived })
	counter("sent_bytes", "Bytes to clients.", func(s *engine.Stats) uint64 { return s.BytesSent })
	counter("writes", "System calls that write.", func(s *engine.Stats) uint64 { return s.Writes })
	counter("writes_blocked", "Writes of which the kernel did not take all.", func(s *engine.Stats) uint64 { return s.WritesBlocked })
	counter("pings", "Heartbeats sent to silent clients.", func(s *engine.Stats) uint64 { return s.Pings })
	counter("accepted", "Connections upgraded.", func(s *engine.Stats) uint64 { return s.Accepted })
	counter("refused", "Handshakes answered with an HTTP error.", func(s *engine.Stats) uint64 { return s.Refused })
	counter("full", "Newcomers beyond max_connections.", func(s *engine.Stats) uint64 { return s.Full })
	counter("accept_errors", "Failures to accept.", func(s *engine.Stats) uint64 { return s.AcceptErrors })
	counter("errors", "Messages answered with an error.", func(s *engine.Stats) uint64 { return s.Errors })
	counter("overloaded", "Publishes and sends refused by a full mailbox.", func(s *engine.Stats) uint64 { return s.Overloaded })
	counter("panics", "Panics in the application's handlers, and in the server's own code: each costs at most one connection.", func(s *engine.Stats) uint64 { return s.Panics })
	counter("stalls", "Times that a loop did not look at its connections for a while (a stopped or starved process, a handler); that time counts against no client.", func(s *engine.Stats) uint64 { return s.Stalls })
	counter("slow_handlers", "Handlers that held their loop.", func(s *engine.Stats) uint64 { return s.SlowHandlers })
	counter("overdue", "Answers of the application that came too late.", func(s *engine.Stats) uint64 { return s.Overdue })
	counter("resumed", "Sessions resumed.", func(s *engine.Stats) uint64 { return s.Resumed })
	counter("resumes_refused", "Resumes refused.", func(s *engine.Stats) uint64 { return s.ResumesRefused })
	counter("sessions_too_large", "Times that a session was too large to be stored.", func(s *engine.Stats) uint64 { return s.SessionsTooLarge })
	counter("untold", "Times that something was too large to be told to other workers.", func(s *engine.Stats) uint64 { return s.Untold })
	counter("origins_refused", "Handshakes from pages of other origins.", func(s *engine.Stats) uint64 { return s.OriginsRefused })
	counter("prefaces_refused", "Connections without a good PROXY protocol header from a trusted proxy.", func(s *engine.Stats) uint64 { return s.PrefacesRefused })
	counter("forwarded_ignored", "Header fields of trusted proxies that were malformed or contradicted each other.", func(s *engine.Stats) uint64 { return s.ForwardedIgnored })
	loop := func(name, help string, kind prometheus.ValueType, of func(*engine.LoopStats) float64) {
		c.loops = append(c.loops, loopFigure{prometheus.NewDesc(prefix+"loop_"+name, help, []string{"worker", "loop"}, nil), kind, of})
	}
	loop("connections", "Descriptors on the loop.", prometheus.GaugeValue, func(l *engine.LoopStats) float64 { return float64(l.Connections) })
	loop("letters", "Letters waiting in the loop's mailbox.", prometheus.GaugeValue, func(l *engine.LoopStats) float64 { return float64(l.Letters) })
	loop("messages_received_total", "Messages that the loop has received.", prometheus.CounterValue, func(l *engine.LoopStats) float64 { return float64(l.Received) })
	loop("messages_sent_total", "Messages that the loop has sent.", prometheus.CounterValue, func(l *engine.LoopStats) float64 { return float64(l.Sent) })
	c.workers = workerFigures(prefix)
	return c
}

// Describe lists the metrics.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, f := range c.figures {
		out <- f.desc
	}
	for _, f := range c.loops {
		out <- f.desc
	}
	for _, f := range c.workers {
		out <- f.desc
	}
	out <- c.ended
}

// Collect reads the counters.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	s := c.srv.Stats()
	for _, f := range c.figures {
		out <- prometheus.MustNewConstMetric(f.desc, f.kind, f.of(&s))
	}
	n := 0 // of the loop in its worker
	for i := range s.Loops {
		l := &s.Loops[i]
		if i > 0 && l.Worker != s.Loops[i-1].Worker {
			n = 0
		}
		for _, f := range c.loops {
			out <- prometheus.MustNewConstMetric(f.desc, f.kind, f.of(l), strconv.Itoa(l.Worker), strconv.Itoa(n))
		}
		n++
	}
	collectWorkers(&s, c.workers, out)
	for cause, n := range s.Ended {
		out <- prometheus.MustNewConstMetric(c.ended, prometheus.CounterValue, float64(n), cause)
	}
}
