//go:build linux

package load

import (
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Plan is a load on a server.
//
// Owner: immutable.
type Plan struct {
	Scenario string        `json:"scenario"` // echo, rooms, connect, idle, publishes
	Addr     string        `json:"addr"`
	PID      int           `json:"pid"` // of the server, whose CPU and memory are read; its children's too
	Conns    int           `json:"conns"`
	Rooms    int           `json:"rooms"`
	Window   int           `json:"window"` // messages under way: for each connection (echo), for each room (rooms)
	Size     int           `json:"size"`   // bytes of a message's payload
	Rate     float64       `json:"rate"`   // open loop: messages a second; 0: closed loop
	Warmup   time.Duration `json:"warmup"`
	Measure  time.Duration `json:"measure"`
	Unfair   bool          `json:"unfair"`             // publishers do not wait for slower ones
	Together bool          `json:"together,omitempty"` // rooms: a window is sent at once, and the next when all of it has come

	Dialect    string `json:"dialect,omitempty"`
	Publishers int    `json:"publishers,omitempty"` // in each room; 0: one
	Stalled    int    `json:"stalled,omitempty"`    // clients that join and never read again
	First      uint64 `json:"first,omitempty"`      // idle: deliveries before the measurement
	Visited    int    `json:"visited,omitempty"`    // many: rooms

	API      string `json:"api,omitempty"`      // publishes: address
	Key      string `json:"key,omitempty"`      // of the API
	Backends int    `json:"backends,omitempty"` // publishes: connections to the API
	Batch    int    `json:"batch,omitempty"`    // publishes in a request
	Socket   bool   `json:"socket,omitempty"`   // publishes are messages on a WebSocket

	Tokens   string  `json:"tokens,omitempty"`    // HS256 or ES256: each client has one
	TokenKey string  `json:"token_key,omitempty"` // file
	OneUser  bool    `json:"one_user,omitempty"`  // all clients are of one user
	Dials    float64 `json:"dials,omitempty"`     // dials: a second

	Parts int `json:"parts,omitempty"` // processes that play the plan together, see RunPart
	Part  int `json:"part,omitempty"`  // this process's number among them

	Missed   int  `json:"missed,omitempty"`   // recovery: messages that each client misses
	Kept     bool `json:"kept,omitempty"`     // the server keeps messages
	Numbered bool `json:"numbered,omitempty"` // and numbers them: no number may be left out
	Each     int  `json:"each,omitempty"`     // store: messages in each of Visited rooms

	Stats string `json:"stats,omitempty"` // address at which parley tells its figures: members that do not read must be behind, and none closed

	Source string `json:"source,omitempty"` // local address of the clients
	Sleepy bool   `json:"sleepy,omitempty"` // waits instead of spinning: cores are shared with the server

	every float64 // seconds from one window to the next
}

// Result is the outcome of a plan.
//
// Owner: the caller.
type Result struct {
	Messages   uint64  `json:"messages"` // delivered within the measured time
	Seconds    float64 `json:"seconds"`
	Rate       float64 `json:"rate"`                 // messages a second
	CPU        float64 `json:"cpu_us"`               // the server's CPU per message, microseconds
	ClientCPU  float64 `json:"client_us"`            // the generator's CPU per message, without spinning
	Busy       float64 `json:"busy"`                 // share of the time in which the generator did not spin
	P50        float64 `json:"p50_us,omitempty"`     // open loop: from the planned time on
	P99        float64 `json:"p99_us,omitempty"`     //
	P999       float64 `json:"p999_us,omitempty"`    //
	Memory     float64 `json:"bytes_conn,omitempty"` // resident memory of the server per connection
	Share      float64 `json:"share,omitempty"`      // quiet: of a core, in percent
	Local      float64 `json:"local_us,omitempty"`   // spread: median with publisher and member on one worker
	Away       float64 `json:"away_us,omitempty"`    // spread: median with publisher and member on two workers
	Others     float64 `json:"others,omitempty"`     // spread: CPU of other processes, in percent of a core
	Connect    float64 `json:"connect_s,omitempty"`  // spread: time until all clients were in
	Reach      float64 `json:"reach_ms,omitempty"`   // spread: median time until a round had reached all members; revoke: until all were closed; outage: until publishes were answered again
	ReachMost  float64 `json:"reach_most_ms,omitempty"`
	Lost       uint64  `json:"lost,omitempty"`    // recovery, outage: messages
	Doubled    uint64  `json:"doubled,omitempty"` //
	Resets     uint64  `json:"resets,omitempty"`  // outage: members that were told of a new epoch
	Again      int     `json:"again,omitempty"`   // outage: publishes that were sent again
	Frame      float64 `json:"frame,omitempty"`   // store: bytes of a message's frame
	Counted    float64 `json:"counted,omitempty"` // of the server's budget of memory, in percent
	Workers    []int   `json:"workers,omitempty"` // spread, outage: connections on each, the most first
	Lead       uint64  `json:"lead,omitempty"`    // rounds between the first and the last publisher
	Nanos      float64 `json:"ns,omitempty"`      // of an operation of a micro-benchmark
	Allocs     float64 `json:"allocs,omitempty"`
	Void       string  `json:"void,omitempty"`      // the reason for which the run does not count
	Histogram  string  `json:"histogram,omitempty"` // encoded
	histogram  *hdrhistogram.Histogram
	cpuSeconds float64
}
