package engine

// WorkerStats is one process of several that are one server: a worker, or the bus between them.
//
// Owner: the caller.
type WorkerStats struct {
	Index       int       `json:"index"`
	Instance    uint16    `json:"instance,omitempty"` // fresh with every start
	PID         int       `json:"pid"`                // 0 while there is no process
	State       string    `json:"state"`              // starting, ready, draining, backoff, frozen
	StartedAt   int64     `json:"started_at"`         // seconds since the epoch
	Restarts    int       `json:"restarts"`
	Cause       string    `json:"cause,omitempty"` // of its latest end
	Connections int       `json:"connections"`
	Rooms       int       `json:"rooms"`
	Bus         *BusStats `json:"bus,omitempty"`

	Process *ProcessStats `json:"process,omitempty"` // nil until the process has said it
}

// ProcessStats is what a process says of itself that other processes cannot see.
type ProcessStats struct {
	Goroutines int    `json:"goroutines"`
	HeapBytes  uint64 `json:"heap_bytes"` // of objects, those that the collector has yet to free included
}

// BusStats is what a worker's link to the others has carried since the worker's start.
//
// Owner: the caller.
type BusStats struct {
	Up         bool   `json:"up"`
	EntriesOut uint64 `json:"entries_out"`
	EntriesIn  uint64 `json:"entries_in"`
	BytesOut   uint64 `json:"bytes_out"`
	BytesIn    uint64 `json:"bytes_in"`
	Unsent     uint64 `json:"unsent_bytes"` // waiting for a bus that is away
	Gaps       uint64 `json:"gaps"`         // times that something of another worker was found missing
	Repaired   uint64 `json:"repaired"`     // batches that came when they were asked for
	Lost       uint64 `json:"lost"`         // batches that nobody had any more
	Overrun    uint64 `json:"overrun"`      // own batches that were given up before the bus came back
	Reconnects uint64 `json:"reconnects"`
	Unkept     string `json:"unkept,omitempty"` // why sessions, seats and created rooms cannot be used, where the link is up
}
