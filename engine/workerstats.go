package engine

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

	Process *ProcessStats `json:"process,omitempty"` // nil until the process has reported it
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
