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
	saves   *prometheus.Desc
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
		"Connections that have ended, by the cause of their end.", []string{"cause"}, nil)}
	c.saves = prometheus.NewDesc(prefix+"session_save_seconds",
		"Seconds until a change of a session was stored, where sessions outlive their worker.", nil, nil)
	gauge := func(name, help string, of func(*engine.Stats) float64) {
		c.figures = append(c.figures, figure{prometheus.NewDesc(prefix+name, help, nil, nil), prometheus.GaugeValue, of})
	}
	counter := func(name, help string, of func(*engine.Stats) uint64) {
		c.figures = append(c.figures, figure{prometheus.NewDesc(prefix+name+"_total", help, nil, nil), prometheus.CounterValue,
			func(s *engine.Stats) float64 { return float64(of(s)) }})
	}
	gauge("connections", "Open WebSocket connections.", func(s *engine.Stats) float64 { return float64(s.Connections) })
	gauge("connections_max", "Connections that the server has room for; further ones are answered with 503.", func(s *engine.Stats) float64 { return float64(s.MaxConnections) })
	gauge("rooms", "Rooms that exist.", func(s *engine.Stats) float64 { return float64(s.Rooms) })
	gauge("sessions", "Sessions whose connection has ended and that can still be resumed.", func(s *engine.Stats) float64 { return float64(s.Sessions) })
	gauge("session_unsaved_seconds", "Seconds since the oldest change of a session that is not stored yet.", func(s *engine.Stats) float64 { return float64(s.SessionUnsavedMillis) / 1000 })
	gauge("uptime_seconds", "Seconds since the server's start.", func(s *engine.Stats) float64 { return float64(s.Uptime) })
	counter("messages_received", "Messages received from clients.", func(s *engine.Stats) uint64 { return s.MessagesReceived })
	counter("messages_sent", "Messages sent to clients; a broadcast counts once for each recipient.", func(s *engine.Stats) uint64 { return s.MessagesSent })
	counter("received_bytes", "Bytes received from clients.", func(s *engine.Stats) uint64 { return s.BytesReceived })
	counter("sent_bytes", "Bytes sent to clients.", func(s *engine.Stats) uint64 { return s.BytesSent })
	counter("writes", "System calls that wrote to clients' sockets.", func(s *engine.Stats) uint64 { return s.Writes })
	counter("writes_blocked", "System calls of which the kernel did not take all bytes: the client reads more slowly than it is sent to.", func(s *engine.Stats) uint64 { return s.WritesBlocked })
	counter("pings_sent", "Pings sent to clients that were silent for heartbeat_interval.", func(s *engine.Stats) uint64 { return s.Pings })
	counter("connections_accepted", "Connections whose WebSocket handshake has succeeded.", func(s *engine.Stats) uint64 { return s.Accepted })
	counter("handshakes_refused", "Handshakes answered with an HTTP error, for whatever reason.", func(s *engine.Stats) uint64 { return s.Refused })
	counter("connections_over_limit", "Connections refused because max_connections were open.", func(s *engine.Stats) uint64 { return s.Full })
	counter("accept_errors", "Connections that could not be taken: their peer had reset them, or descriptors are lacking.", func(s *engine.Stats) uint64 { return s.AcceptErrors })
	counter("error_replies", "Messages from clients that were answered with an error.", func(s *engine.Stats) uint64 { return s.Errors })
	counter("sends_overloaded", "Broadcasts and direct messages refused with the code overloaded, since an event loop was behind.", func(s *engine.Stats) uint64 { return s.Overloaded })
	counter("panics", "Panics in code of the application, such as handlers, or of the server; each costs one connection at most.", func(s *engine.Stats) uint64 { return s.Panics })
	counter("stalls", "Times that a loop did not look at its connections for a while (a stopped or starved process, a handler); that time counts against no client.", func(s *engine.Stats) uint64 { return s.Stalls })
	counter("slow_handlers", "Calls of handlers that held their event loop for more than 50 ms.", func(s *engine.Stats) uint64 { return s.SlowHandlers })
	counter("handler_timeouts", "Answers of handlers, and verdicts on who may connect, that did not come within offload_timeout.", func(s *engine.Stats) uint64 { return s.Overdue })
	counter("sessions_resumed", "Sessions that a client has resumed with its token.", func(s *engine.Stats) uint64 { return s.Resumed })
	counter("session_resumes_refused", "Requests to resume a session that were refused.", func(s *engine.Stats) uint64 { return s.ResumesRefused })
	counter("sessions_too_large", "Attempts to store a session of more than 512 KiB: what was stored of it last stays.", func(s *engine.Stats) uint64 { return s.SessionsTooLarge })
	counter("sessions_evicted", "Sessions that can no longer be resumed because later ones needed their memory; the oldest go first.", func(s *engine.Stats) uint64 { return s.SessionsEvicted })
	counter("bus_too_large", "Messages that were too large to be passed on to the other workers, whose clients did not get them.", func(s *engine.Stats) uint64 { return s.Untold })
	counter("origins_refused", "Handshakes refused because origins does not list the page's.", func(s *engine.Stats) uint64 { return s.OriginsRefused })
	counter("proxy_headers_refused", "Connections closed for want of a valid PROXY protocol header from a trusted proxy.", func(s *engine.Stats) uint64 { return s.PrefacesRefused })
	counter("forwarded_headers_ignored", "Header fields of trusted proxies, like X-Forwarded-For, that were malformed or contradicted each other.", func(s *engine.Stats) uint64 { return s.ForwardedIgnored })
	loop := func(name, help string, kind prometheus.ValueType, of func(*engine.LoopStats) float64) {
		c.loops = append(c.loops, loopFigure{prometheus.NewDesc(prefix+"loop_"+name, help, []string{"worker", "loop"}, nil), kind, of})
	}
	loop("connections", "Sockets on the event loop, those in the handshake or closing included.", prometheus.GaugeValue, func(l *engine.LoopStats) float64 { return float64(l.Connections) })
	loop("queue_length", "Internal messages that wait for the event loop.", prometheus.GaugeValue, func(l *engine.LoopStats) float64 { return float64(l.Letters) })
	loop("messages_received_total", "Messages that the event loop has received from clients.", prometheus.CounterValue, func(l *engine.LoopStats) float64 { return float64(l.Received) })
	loop("messages_sent_total", "Messages that the event loop has sent to clients.", prometheus.CounterValue, func(l *engine.LoopStats) float64 { return float64(l.Sent) })
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
	out <- c.saves
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
	out <- saveSeconds(&s, c.saves)
	for cause, n := range s.Ended {
		out <- prometheus.MustNewConstMetric(c.ended, prometheus.CounterValue, float64(n), cause)
	}
}

// saveSeconds is the histogram of what sessions took to be stored.
func saveSeconds(s *engine.Stats, desc *prometheus.Desc) prometheus.Metric {
	buckets, count := make(map[float64]uint64, len(engine.SaveSecondsBounds)), uint64(0)
	for i, n := range s.SessionSaves {
		count += n
		if i < len(engine.SaveSecondsBounds) {
			buckets[engine.SaveSecondsBounds[i]] = count
		}
	}
	return prometheus.MustNewConstHistogram(desc, count, float64(s.SessionSaveMicros)/1e6, buckets)
}
