package engine

import "github.com/parleyd/parley/engine/internal/turn"

// Stats are the seed's figures, and more. Counts run from the server's start.
//
// Owner: the caller.
type Stats struct {
	Connections      int    `json:"connections"` // open now, those that have not authenticated yet not among them
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
	Missed           uint64            `json:"missed"`             // times that messages of another worker were lost
	SessionsEvicted  uint64            `json:"sessions_evicted"`   // pushed out by later ones: they held too much together
	Untold           uint64            `json:"untold"`             // times that something was too large to be said to other workers
	EntriesSkipped   uint64            `json:"entries_skipped"`    // of workers of a newer version, of which this one does not know all
	SessionsTooLarge uint64            `json:"sessions_too_large"` // times that a session was, to be stored
	SlowHandlers     uint64            `json:"slow_handlers"`
	Stalls           uint64            `json:"stalls"` // times that a loop did not look for a while; that time counts against no peer
	Overdue          uint64            `json:"overdue"`
	Resumed          uint64            `json:"resumed"`
	ResumesRefused   uint64            `json:"resumes_refused"`
	OriginsRefused   uint64            `json:"origins_refused"`
	PrefacesRefused  uint64            `json:"prefaces_refused"`
	ForwardedIgnored uint64            `json:"forwarded_ignored"`
	Ended            map[string]uint64 `json:"ended"` // by cause

	// SessionSaves counts, by SaveSecondsBounds, how long changes of sessions took until they were stored, where there is a
	// SessionStore; SessionSaveMicros is the sum of these times. SessionUnsavedMillis is the age of the oldest change that is
	// not stored yet, rounded up; 0 where all are. Of several workers, the highest.
	SessionSaves         [len(SaveSecondsBounds) + 1]uint64 `json:"session_saves"`
	SessionSaveMicros    uint64                             `json:"session_save_micros"`
	SessionUnsavedMillis int64                              `json:"session_unsaved_millis"`

	Loops      []LoopStats   `json:"loops"`
	Workers    []WorkerStats `json:"workers,omitempty"` // where there are several; the rest is their sum
	Bus        *BusStats     `json:"bus,omitempty"`     // one worker's link to the others
	BusProcess *WorkerStats  `json:"bus_process,omitempty"`
	Process    *ProcessStats `json:"process,omitempty"` // one worker's, where there are several
}

// LoopStats is one loop's share.
//
// Owner: the caller.
type LoopStats struct {
	Worker      int    `json:"worker,omitempty"` // whose loop it is, where there are several
	Connections int    `json:"connections"`
	Received    uint64 `json:"received"`
	Sent        uint64 `json:"sent"`
	Letters     int64  `json:"letters"` // waiting in the mailbox
}

// Stats returns the server's figures: the seed's getStats. With several workers the seed's own figures (connections, rooms,
// messages, uptime, memory) are of all that live, as they said last, a second ago at most; the others are this worker's,
// and [Everywhere.Stats] asks for those. Any goroutine.
//
// Scope: all workers.
func (s *Server) Stats() Stats {
	out := s.StatsHere()
	if s.peers != nil {
		s.addFigures(&out)
	}
	return out
}

// StatsHere returns the figures of this worker alone. Where there is one process they are the server's. Any goroutine.
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

// Add adds another worker's figures. The uptime is that of the oldest.
func (s *Stats) Add(o Stats) {
	for i := range serverFigures {
		f := &serverFigures[i]
		sum(f.field(s), f.field(&o), f.Kind)
	}
	s.Loops = append(s.Loops, o.Loops...)
}

// AddCounts adds what a worker that is gone had counted: a sum that is kept does not go back when one starts anew.
func (s *Stats) AddCounts(o Stats) {
	for i := range serverFigures {
		if f := &serverFigures[i]; f.Kind.counts() {
			sum(f.field(s), f.field(&o), f.Kind)
		}
	}
}

// total is a count of all loops and of the server. Any goroutine.
func total(s *Server, c turn.CountKind) uint64 {
	n := s.count[c].Load()
	for _, l := range s.loops {
		n += l.Count[c].Load()
	}
	return n
}
