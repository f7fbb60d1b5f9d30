package engine

import "github.com/parleyd/parley/engine/internal/turn"

// Stats are the seed's figures, and further ones. Counts run from the server's start.
//
// Owner: the caller.
type Stats struct {
	Connections      int    `json:"connections"` // open now, without those that have not authenticated yet
	Rooms            int    `json:"rooms"`
	RoomsCounted     int    `json:"rooms_counted"`     // of these, those that this worker counts: the sum over workers has each room once
	MessagesSent     uint64 `json:"messages_sent"`     // to each recipient
	MessagesReceived uint64 `json:"messages_received"` // text and binary, well-formed or not
	Uptime           int64  `json:"uptime"`            // seconds
	MemoryUsage      uint64 `json:"memory_usage"`      // bytes of system memory of the process

	Sessions         int               `json:"sessions"` // without a connection, waiting to be resumed; with a SessionStore, those that it does not have yet
	MaxConnections   int               `json:"max_connections"`
	BytesReceived    uint64            `json:"bytes_received"`
	BytesSent        uint64            `json:"bytes_sent"`
	Writes           uint64            `json:"writes"`         // system calls
	WritesBlocked    uint64            `json:"writes_blocked"` // of these, writes of which the kernel did not take all bytes
	Pings            uint64            `json:"pings"`
	Accepted         uint64            `json:"accepted"` // upgraded
	Refused          uint64            `json:"refused"`  // answered with an HTTP error
	AcceptErrors     uint64            `json:"accept_errors"`
	Full             uint64            `json:"full"` // new connections over max_connections
	Errors           uint64            `json:"errors"`
	Overloaded       uint64            `json:"overloaded"`
	Panics           uint64            `json:"panics"`
	Missed           uint64            `json:"missed"`             // times that messages of another worker were lost
	SessionsEvicted  uint64            `json:"sessions_evicted"`   // evicted by later ones, because of their number or size
	Untold           uint64            `json:"untold"`             // entries that were too large for other workers
	EntriesSkipped   uint64            `json:"entries_skipped"`    // entries of a newer version that this worker did not understand in full
	SessionsTooLarge uint64            `json:"sessions_too_large"` // saves of sessions that were too large for the store
	SlowHandlers     uint64            `json:"slow_handlers"`
	Stalls           uint64            `json:"stalls"` // times that a loop did not run for a while; that time does not count as silence of peers
	Overdue          uint64            `json:"overdue"`
	Resumed          uint64            `json:"resumed"`
	ResumesRefused   uint64            `json:"resumes_refused"`
	OriginsRefused   uint64            `json:"origins_refused"`
	PrefacesRefused  uint64            `json:"prefaces_refused"`
	ForwardedIgnored uint64            `json:"forwarded_ignored"`
	Ended            map[string]uint64 `json:"ended"` // by cause

	// SessionSaves counts, by SaveSecondsBounds, the times until changes of sessions were stored, if there is a
	// SessionStore; SessionSaveMicros is the sum of these times. SessionUnsavedMillis is the age of the oldest change that
	// is not stored yet, rounded up; 0 if all are. Of several workers, the highest.
	SessionSaves         [len(SaveSecondsBounds) + 1]uint64 `json:"session_saves"`
	SessionSaveMicros    uint64                             `json:"session_save_micros"`
	SessionUnsavedMillis int64                              `json:"session_unsaved_millis"`

	Loops      []LoopStats   `json:"loops"`
	Workers    []WorkerStats `json:"workers,omitempty"` // if there are several; the other fields are their sums
	Bus        *BusStats     `json:"bus,omitempty"`     // one worker's link to the others
	BusProcess *WorkerStats  `json:"bus_process,omitempty"`
	Process    *ProcessStats `json:"process,omitempty"` // one worker's, where there are several
}

// LoopStats are the figures of one loop.
//
// Owner: the caller.
type LoopStats struct {
	Worker      int    `json:"worker,omitempty"` // the loop's worker, if there are several
	Connections int    `json:"connections"`
	Received    uint64 `json:"received"`
	Sent        uint64 `json:"sent"`
	Letters     int64  `json:"letters"` // waiting in the mailbox
}

// Stats returns the server's figures: the seed's getStats. With several workers the seed's own figures (connections, rooms,
// messages, uptime, memory) are sums over the live workers, at most a second old; the others are this worker's, and
// [Everywhere.Stats] has their sums. Any goroutine.
//
// Scope: all workers.
func (s *Server) Stats() Stats {
	out := s.StatsHere()
	if s.peers != nil {
		s.addFigures(&out)
	}
	return out
}

// StatsHere returns the figures of this worker alone. With one process they are the server's. Any goroutine.
//
// Scope: this worker.
func (s *Server) StatsHere() Stats {
	out := Stats{Ended: make(map[string]uint64, turn.Causes)}
	for i := range serverFigures {
		if f := &serverFigures[i]; f.read != nil {
			store(f.field(&out), f.read(s))
		}
	}
	for i := range out.SessionSaves {
		out.SessionSaves[i] = s.saves.counts[i].Load()
	}
	for _, l := range s.loops {
		for cause := Cause(1); cause < turn.Causes; cause++ {
			out.Ended[cause.String()] += l.Ended[cause].Load()
		}
		out.Loops = append(out.Loops, LoopStats{Connections: int(l.Load.Load()), Received: l.Count[turn.CountReceived].Load(),
			Sent: l.Count[turn.CountSent].Load(), Letters: l.Mail.Waiting.Load()})
	}
	return out
}

// connectionsBound is the most connections that the server accepts, 0 before it runs.
func connectionsBound(s *Server) uint64 {
	if s.state.Load() < stateRunning {
		return 0
	}
	return uint64(s.connectionsMax)
}

// unsavedMillis is the age of the oldest change of a session that is not stored yet, rounded up; 0 where all are.
func unsavedMillis(s *Server) (millis uint64) {
	for _, l := range s.loops {
		if oldest := l.saves.oldest(); oldest != 0 {
			millis = max(millis, uint64((s.clock()-oldest)/1e6+1))
		}
	}
	return millis
}

// Add adds another worker's figures. The uptime is the longest.
func (s *Stats) Add(o Stats) {
	for i := range serverFigures {
		f := &serverFigures[i]
		sum(f.field(s), f.field(&o), f.Kind)
	}
	s.Loops = append(s.Loops, o.Loops...)
}

// AddCounts adds the counts of a worker that is gone, so that a sum does not go back when another one starts.
func (s *Stats) AddCounts(o Stats) {
	for i := range serverFigures {
		if f := &serverFigures[i]; f.Kind.counts() {
			sum(f.field(s), f.field(&o), f.Kind)
		}
	}
}

// total is a count over all loops and the server. Any goroutine.
func total(s *Server, c turn.CountKind) uint64 {
	n := s.count[c].Load()
	for _, l := range s.loops {
		n += l.Count[c].Load()
	}
	return n
}
