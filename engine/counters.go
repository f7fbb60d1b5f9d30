package engine

import (
	"reflect"
	"sync/atomic"
)

// tally counts what happens in a turn, without atomics. It is published at the turn's end.
//
// Owner: loop.
type tally struct {
	received, sent, bytesIn, bytesOut, writes, blocked, pings uint64
}

// counters are a loop's counts so far.
//
// Owner: written by the loop, read by any goroutine.
type counters struct {
	received, sent, bytesIn, bytesOut, writes, blocked, pings atomic.Uint64

	accepted, errors, slowHandlers, overdue, resumed, resumesRefused, originRefused atomic.Uint64
	prefacesRefused, forwardedIgnored                                               atomic.Uint64
	refusedClient, refusedServer                                                    atomic.Uint64
	ended                                                                           [causes]atomic.Uint64
}

// publish adds a turn's tally and clears it.
func (n *counters) publish(t *tally) {
	add := func(total *atomic.Uint64, turn uint64) {
		if turn != 0 {
			total.Store(total.Load() + turn) // one writer: cheaper than Add
		}
	}
	add(&n.received, t.received)
	add(&n.sent, t.sent)
	add(&n.bytesIn, t.bytesIn)
	add(&n.bytesOut, t.bytesOut)
	add(&n.writes, t.writes)
	add(&n.blocked, t.blocked)
	add(&n.pings, t.pings)
	*t = tally{}
}

// refused counts a handshake that was answered with an HTTP error.
func (n *counters) refused(status int) {
	if status >= 500 {
		n.refusedServer.Add(1)
		return
	}
	n.refusedClient.Add(1)
}

// serverCounters count what happens off the loops.
//
// Owner: shared (atomics).
type serverCounters struct {
	overloaded, panics, acceptErrors, full, missed atomic.Uint64
}

// Stats are the seed's figures, and more. Counts run from the server's start.
//
// Owner: the caller.
type Stats struct {
	Connections      int    `json:"connections"` // open now
	Rooms            int    `json:"rooms"`
	RoomsCounted     int    `json:"rooms_counted"`     // of these, those that this worker counts: in their sum, each room is once
	MessagesSent     uint64 `json:"messages_sent"`     // to each recipient
	MessagesReceived uint64 `json:"messages_received"` // text and binary, well-formed or not
	Uptime           int64  `json:"uptime"`            // seconds
	MemoryUsage      uint64 `json:"memory_usage"`      // bytes that the process holds of the system's memory

	Sessions         int               `json:"sessions"` // without a connection, waiting to be resumed; with a SessionStore, those that it does not have yet
	MaxConnections   int               `json:"max_connections"`
	BytesReceived    uint64            `json:"bytes_received"`
	BytesSent        uint64            `json:"bytes_sent"`
	Writes           uint64            `json:"writes"`         // system calls
	WritesBlocked    uint64            `json:"writes_blocked"` // of which the kernel did not take all
	Pings            uint64            `json:"pings"`
	Accepted         uint64            `json:"accepted"` // upgraded
	Refused          uint64            `json:"refused"`  // answered with an HTTP error
	AcceptErrors     uint64            `json:"accept_errors"`
	Full             uint64            `json:"full"` // newcomers over max_connections
	Errors           uint64            `json:"errors"`
	Overloaded       uint64            `json:"overloaded"`
	Panics           uint64            `json:"panics"`
	Missed           uint64            `json:"missed"` // times that messages of another worker were lost
	SlowHandlers     uint64            `json:"slow_handlers"`
	Overdue          uint64            `json:"overdue"`
	Resumed          uint64            `json:"resumed"`
	ResumesRefused   uint64            `json:"resumes_refused"`
	OriginsRefused   uint64            `json:"origins_refused"`
	PrefacesRefused  uint64            `json:"prefaces_refused"`
	ForwardedIgnored uint64            `json:"forwarded_ignored"`
	Ended            map[string]uint64 `json:"ended"` // by cause
	Loops            []LoopStats       `json:"loops"`
	Workers          []WorkerStats     `json:"workers,omitempty"` // where there are several; the rest is their sum
}

// WorkerStats is one process of several that are one server.
//
// Owner: the caller.
type WorkerStats struct {
	Index       int    `json:"index"`
	Instance    uint16 `json:"instance"` // fresh with every start
	PID         int    `json:"pid"`
	State       string `json:"state"` // starting, ready, draining, backoff, frozen
	StartedAt   int64  `json:"started_at"`
	Restarts    int    `json:"restarts"`
	Cause       string `json:"cause,omitempty"` // of its latest end
	Connections int    `json:"connections"`
	Rooms       int    `json:"rooms"`
}

// Add adds another worker's figures. The uptime is that of the oldest.
func (s *Stats) Add(o Stats) {
	s.Uptime = max(s.Uptime, o.Uptime)
	into, from := reflect.ValueOf(s).Elem(), reflect.ValueOf(o)
	for i := range into.NumField() {
		switch f := into.Field(i); {
		case into.Type().Field(i).Name == "Uptime":
		case f.CanInt():
			f.SetInt(f.Int() + from.Field(i).Int())
		case f.CanUint():
			f.SetUint(f.Uint() + from.Field(i).Uint())
		}
	}
	for cause, n := range o.Ended {
		s.Ended[cause] += n
	}
	s.Loops = append(s.Loops, o.Loops...)
}

// LoopStats is one loop's share.
//
// Owner: the caller.
type LoopStats struct {
	Connections int    `json:"connections"`
	Received    uint64 `json:"received"`
	Sent        uint64 `json:"sent"`
	Letters     int64  `json:"letters"` // waiting in the mailbox
}

// Stats returns the server's figures: the seed's getStats. Any goroutine.
func (s *Server) Stats() Stats {
	out := Stats{
		Connections:    s.ConnectionCount(),
		Rooms:          s.index.Len(),
		RoomsCounted:   s.index.Counted(s.lowest()),
		Uptime:         int64(s.uptime().Seconds()),
		MemoryUsage:    memoryUsage(),
		Sessions:       s.sessions.parkedLen(),
		MaxConnections: s.connectionsMax,
		AcceptErrors:   s.count.acceptErrors.Load(),
		Full:           s.count.full.Load(),
		Overloaded:     s.count.overloaded.Load(),
		Panics:         s.count.panics.Load(),
		Missed:         s.count.missed.Load(),
		Ended:          map[string]uint64{},
	}
	for _, l := range s.loops {
		n := &l.count
		out.MessagesSent += n.sent.Load()
		out.MessagesReceived += n.received.Load()
		out.BytesReceived += n.bytesIn.Load()
		out.BytesSent += n.bytesOut.Load()
		out.Writes += n.writes.Load()
		out.WritesBlocked += n.blocked.Load()
		out.Pings += n.pings.Load()
		out.Accepted += n.accepted.Load()
		out.Refused += n.refusedClient.Load() + n.refusedServer.Load()
		out.Errors += n.errors.Load()
		out.SlowHandlers += n.slowHandlers.Load()
		out.Overdue += n.overdue.Load()
		out.Resumed += n.resumed.Load()
		out.ResumesRefused += n.resumesRefused.Load()
		out.OriginsRefused += n.originRefused.Load()
		out.PrefacesRefused += n.prefacesRefused.Load()
		out.ForwardedIgnored += n.forwardedIgnored.Load()
		for cause := Cause(1); cause < causes; cause++ {
			out.Ended[cause.String()] += n.ended[cause].Load()
		}
		out.Loops = append(out.Loops, LoopStats{Connections: int(l.load.Load()), Received: n.received.Load(),
			Sent: n.sent.Load(), Letters: l.mail.waiting.Load()})
	}
	return out
}
