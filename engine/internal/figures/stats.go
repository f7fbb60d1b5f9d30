package figures

import (
	"runtime/metrics"
	"time"

	"github.com/parleyd/parley/engine/internal/budget"
	"github.com/parleyd/parley/engine/internal/fanout"
	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/engine/internal/session"
	"github.com/parleyd/parley/engine/internal/turn"
)

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
	Full             uint64            `json:"full"`          // new connections over max_connections
	Crowded          uint64            `json:"crowded"`       // new connections over connections_per_address_max
	SendRings        uint64            `json:"send_rings"`    // event loops whose writes reach the kernel together
	RateExceeded     uint64            `json:"rate_exceeded"` // messages over message_rate
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
	Ended            map[string]uint64 `json:"ended"`    // by cause
	Auth             int64             `json:"auth"`     // 0 off, 1 optional, 2 required
	KeysAge          int64             `json:"keys_age"` // seconds since the keys of tokens were read; of several workers, the highest

	// SessionSaves counts, by session.SaveSecondsBounds, the times until changes of sessions were stored, if there is a
	// SessionStore; SessionSaveMicros is the sum of these times. SessionUnsavedMillis is the age of the oldest change that
	// is not stored yet, rounded up; 0 if all are. Of several workers, the highest.
	SessionSaves         [len(session.SaveSecondsBounds) + 1]uint64 `json:"session_saves"`
	SessionSaveMicros    uint64                                     `json:"session_save_micros"`
	SessionUnsavedMillis int64                                      `json:"session_unsaved_millis"`

	HistoryRooms     int64             `json:"history_rooms"`
	HistoryMessages  int64             `json:"history_messages"`
	HistoryBytes     int64             `json:"history_bytes"`
	HistoryDropped   map[string]uint64 `json:"history_dropped"` // by cause
	Recoveries       map[string]uint64 `json:"recoveries"`      // by outcome
	ReplayedMessages uint64            `json:"replayed_messages"`
	ReplayedBytes    uint64            `json:"replayed_bytes"`
	HistoryGaps      map[string]uint64 `json:"history_gaps"` // by cause
	Behind           int64             `json:"behind"`       // members that read a history now
	BehindTotal      uint64            `json:"behind_total"` // times that a member could not keep up
	Conflated        uint64            `json:"conflated"`
	Receipts         map[string]uint64 `json:"receipts"`     // of PINGs, by result
	MemoryParts      map[string]uint64 `json:"memory_parts"` // bytes that are held for others, by part
	MemoryLimit      int64             `json:"memory_limit"` // for all parts together; 0: none
	Relieved         map[string]uint64 `json:"relieved"`     // times that the limit was reached, by the step that freed memory
	Duplicates       uint64            `json:"duplicates"`   // publishes with a repeated idempotency key

	// Where several workers are one server, publishes to rooms with history wait for their numbers. OrderWaits counts how long
	// they waited, by order.WaitBounds; OrderWaitMicros is the sum of these times.
	OrderOutstanding int64  `json:"order_outstanding"` // publishes that wait
	OrderPublishes   uint64 `json:"order_publishes"`
	OrderUnanswered  uint64 `json:"order_unanswered"` // publishes of which the outcome is not known
	OrderReads       uint64 `json:"order_reads"`
	OrderResets      uint64 `json:"order_resets"` // rooms that have begun a new epoch
	OrderWaits       Waits  `json:"order_waits"`
	OrderWaitMicros  uint64 `json:"order_wait_micros"`

	Unready    string        `json:"unready,omitempty"` // why this worker would refuse newcomers
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

// Add adds another worker's figures. The uptime is the longest.
func (s *Stats) Add(o Stats) {
	for i := range Server {
		f := &Server[i]
		sum(f.field(s), f.field(&o), f.Kind)
	}
	s.Loops = append(s.Loops, o.Loops...)
}

// AddCounts adds the counts of a worker that is gone, so that a sum does not go back when another one starts.
func (s *Stats) AddCounts(o Stats) {
	for i := range Server {
		if f := &Server[i]; f.Kind.counts() {
			sum(f.field(s), f.field(&o), f.Kind)
		}
	}
}

// total is a count over all loops and the server. Any goroutine.
func total(s *Source, c turn.CountKind) uint64 {
	n := s.Rooms.Count[c].Load()
	for _, l := range s.Rooms.Loops {
		n += l.Count[c].Load()
	}
	return n
}

// WorkerStats are the figures of one process of several: a worker, or the bus between them.
//
// Owner: the caller.
type WorkerStats struct {
	Index       int       `json:"index"`
	Instance    uint16    `json:"instance,omitempty"` // new with every start
	PID         int       `json:"pid"`                // 0 while there is no process
	State       string    `json:"state"`              // starting, ready, draining, backoff, frozen
	StartedAt   int64     `json:"started_at"`         // seconds since the epoch
	Restarts    int       `json:"restarts"`
	Cause       string    `json:"cause,omitempty"` // of its latest end
	Connections int       `json:"connections"`
	Rooms       int       `json:"rooms"`
	Bus         *BusStats `json:"bus,omitempty"`

	Process *ProcessStats   `json:"process,omitempty"` // nil until the process has reported it
	Order   *SequencerStats `json:"order,omitempty"`   // of the bus process; nil until it has reported it
}

// Processes are the processes of a server at one moment.
//
// Owner: the caller.
type Processes struct {
	State   string        `json:"state"` // starting, running, draining
	Workers []WorkerStats `json:"workers"`
	Bus     *WorkerStats  `json:"bus,omitempty"` // the bus process; nil where there is one process
	API     *WorkerStats  `json:"api,omitempty"` // nil where the API has no process of its own
}

// ProcessStats are figures of a process that other processes cannot see.
type ProcessStats struct {
	Goroutines int    `json:"goroutines"`
	HeapBytes  uint64 `json:"heap_bytes"` // of objects, those that the collector has yet to free included
}

// BusStats are the figures of a worker's link to the others, since the worker's start.
//
// Owner: the caller.
type BusStats struct {
	Up         bool   `json:"up"`
	EntriesOut uint64 `json:"entries_out"`
	EntriesIn  uint64 `json:"entries_in"`
	BytesOut   uint64 `json:"bytes_out"`
	BytesIn    uint64 `json:"bytes_in"`
	Unsent     uint64 `json:"unsent_bytes"` // waiting for a bus that is away
	Gaps       uint64 `json:"gaps"`         // times that an entry of another worker was found missing
	Repaired   uint64 `json:"repaired"`     // batches that arrived after they were requested again
	Lost       uint64 `json:"lost"`         // batches that their worker no longer had
	Overrun    uint64 `json:"overrun"`      // own batches that were dropped before the bus came back
	Reconnects uint64 `json:"reconnects"`
	Unkept     string `json:"unkept,omitempty"` // why sessions, seats and created rooms cannot be used although the link is up
}

// Source is where the figures of a server are read.
//
// Owner: immutable.
type Source struct {
	Rooms          *fanout.Rooms
	Sessions       *session.Sessions
	Budget         *budget.Budget
	Uptime         func() time.Duration
	ConnectionsMax func() uint64 // 0 before the server runs, and where it accepts nobody
	Keys           Keys
	Auth           func() uint64 // 0: clients do not authenticate; 1: they may; 2: they must
}

// Keys are keys from elsewhere that newcomers are verified with. The zero value needs none. The functions are for any
// goroutine, and must not block.
type Keys struct {
	Missing func() string        // why newcomers cannot be verified now; "" if they can
	Age     func() time.Duration // since the keys were last read well
}

// Unready says why newcomers would be refused; "" if they would not. Any goroutine.
func (s *Source) Unready() string {
	if s.Keys.Missing == nil {
		return ""
	}
	return s.Keys.Missing()
}

// Read reads the figures of this worker. Any goroutine.
func (s *Source) Read() Stats {
	out := Stats{Ended: make(map[string]uint64, turn.Causes), Unready: s.Unready()}
	for i := range Server {
		switch f := &Server[i]; {
		case f.read != nil:
			store(f.field(&out), f.read(s))
		case f.table != nil:
			*f.field(&out).(*map[string]uint64) = f.table(s)
		}
	}
	out.SessionSaves, _ = s.Sessions.SaveCounts()
	out.OrderWaits = s.Rooms.Order.Counts().Waits
	for _, l := range s.Rooms.Loops {
		for cause := turn.Cause(1); cause < turn.Causes; cause++ {
			out.Ended[cause.String()] += l.Ended[cause].Load()
		}
		out.Loops = append(out.Loops, LoopStats{Connections: int(l.Load.Load()), Received: l.Count[turn.CountReceived].Load(),
			Sent: l.Count[turn.CountSent].Load(), Letters: l.Mail.Waiting.Load()})
	}
	return out
}

// Told are the figures that this worker tells the others. Any goroutine.
func (s *Source) Told() fleet.FigureSet {
	return fleet.FigureSet{Connections: uint64(s.Rooms.Open.Load()), Rooms: uint64(s.Rooms.Index.Counted(s.Rooms.Link.Lowest())), // the sum has each room once
		Memory: memoryUsage(), Uptime: uint64(s.Uptime().Seconds()), Sent: total(s, turn.CountSent), Received: total(s, turn.CountReceived)}
}

// Report tells the other workers changed figures. Loop 0 calls it, and sends the entry at the end of its turn if it reports
// true.
func (s *Source) Report(now int64) bool {
	link := s.Rooms.Link
	if !link.FiguresDue(uint64(s.Rooms.Open.Load()), uint64(s.Rooms.Index.Counted(link.Lowest())), now) {
		return false
	}
	link.ReportFigures(s.Told(), now)
	return true
}

// AddAway adds the figures that the other workers have told.
func (s *Stats) AddAway(link *fleet.Link) {
	s.Rooms = s.RoomsCounted
	for _, f := range link.FiguresAway() {
		s.Connections += int(f.Connections)
		s.Rooms += int(f.Rooms)
		s.MessagesSent += f.Sent
		s.MessagesReceived += f.Received
		s.MemoryUsage += f.Memory
		s.Uptime = max(s.Uptime, int64(f.Uptime))
	}
}

// memoryUsage is the system memory of the Go runtime, in bytes.
func memoryUsage() uint64 {
	samples := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(samples)
	return samples[0].Value.Uint64() - samples[1].Value.Uint64()
}
