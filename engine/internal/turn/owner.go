package turn

import (
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/engine/internal/crowds"
	"github.com/parleyd/parley/engine/internal/rate"
	"github.com/parleyd/parley/protocol/deflate"
	"github.com/parleyd/parley/protocol/frame"
	"github.com/parleyd/parley/protocol/handshake"
	"github.com/parleyd/parley/protocol/proxy"
)

// The transport is the loop and its turns, mailbox, slab and wheel, and of a connection the opening, the way in, the way
// out, the heartbeat and the close. It knows no room, no session, no JSON and no worker: it calls the code above through the
// two interfaces in this file.

// Owner has the connections of a loop: the room server, or the echo server. Its methods run on the loop, within a turn of
// the connection that they are given.
type Owner interface {
	// Opening decides on a well-formed request, which is borrowed.
	Opening(c *Conn, r *handshake.Request) Verdict
	// Opened is called when the connection is upgraded: the owner greets it.
	Opened(c *Conn)
	// Message takes one whole message. payload is borrowed.
	Message(c *Conn, binary bool, payload []byte)
	// Pong takes the payload of a PONG, which is borrowed.
	Pong(c *Conn, payload []byte)
	// Closing is called when the peer's frames end, and reports whether the connection ends now. If messages wait, the owner
	// keeps e behind them and calls [Conn.EndAs] with it later.
	Closing(c *Conn, e Ending) (now bool)
	// Alarm is called at the time that [Conn.SetAlarm] was given.
	Alarm(c *Conn)
	// Excuse shifts the owner's deadlines of the peer by a stall, in nanoseconds: a time in which the loop did not run.
	Excuse(c *Conn, stall int64)
	// More goes on with input that the owner has put off by [Conn.PutOffMessages].
	More(c *Conn)
	// CaughtUp is called when all input that was put off is taken.
	CaughtUp(c *Conn)
	// Outlives reports whether the connection stays, without a transport, until its owner has carried out the messages that
	// wait.
	Outlives(c *Conn) bool
	// Diverted takes a frame for a connection with FlagDiverted.
	Diverted(c *Conn, f *Frame)
	// Emptied is called when a write has emptied the queue of a connection with Rare.Reads. It must not queue anything at once:
	// the loop may be on its walk through the dirty connections.
	Emptied(c *Conn)
	// Parting is called when the server closes a connection that was greeted, before its close frame: the owner may answer a
	// last time.
	Parting(c *Conn, code ws.StatusCode)
	// Ended is called once: the connection is over, except for the bytes that still leave. A connection with FlagKept keeps
	// its slot until [Conn.Forget].
	Ended(c *Conn, cause Cause)
}

// Floor is the code on a loop that belongs to no single connection. Its methods run on the loop.
type Floor interface {
	// Deliver takes one or more of the first letters of x and returns how many. Letters that it takes together have at most
	// bytesMax bytes of frames; a first letter above that is taken alone.
	Deliver(x []Letter, bytesMax int) (n int)
	// BeforeWrites is called before the connections are written to, if Owes.Writes is set.
	BeforeWrites()
	// AfterTurn is called after the turn's writes, if Owes.Flush is set.
	AfterTurn()
	// Tick is called every tick.
	Tick()
	// Check panics where c contradicts the floor's state. Builds with the tag invariants call it at the ends of turns.
	Check(c *Conn)
	// Stalled is called when no loop ran for a while, of late nanoseconds.
	Stalled(late int64)
}

// owes are the calls that a floor wants of its loop.
//
// Owner: loop.
type owes struct {
	Writes bool // BeforeWrites, in a drain that follows
	Flush  bool // AfterTurn
}

// Verdict is an owner's decision on a request.
type Verdict struct {
	Refusal handshake.Refusal // used if its status is not 0
	Ask     func()            // not nil: it begins the wait for an answer; [Conn.Admit] or [Conn.Refuse] follows
}

// Ending is how the peer's frames end: with its close frame, or with a violation.
type Ending struct {
	code      ws.StatusCode
	violation frame.Violation
}

// Ground is the state and the settings that the loops of a server share.
//
// Owner: immutable once the loops run, except the atomic fields.
type Ground struct {
	Clock  func() int64 // nanoseconds since the server's start
	Tick   time.Duration
	Log    *slog.Logger
	Beats  atomic.Pointer[Beats]
	Rate   atomic.Pointer[rate.Rule] // of messages; nil: any
	Crowds crowds.Table
	Trust  *proxy.Trust // nil: no proxy is trusted
	Limits Limits

	Heartbeat *Frame
	NewConn   func(l *Loop) *Conn
	Departed  func(c *Conn) // a connection's descriptor is closed; any goroutine
	Survive   func(where string, c *Conn, v any)
	Seconds   func(at int64) int64 // since the epoch
}

// Beats are the times of heartbeats, in nanoseconds.
//
// Owner: immutable.
type Beats struct{ Interval, Timeout int64 }

// NewBeats are heartbeats of these times.
func NewBeats(interval, timeout time.Duration) *Beats { return &Beats{int64(interval), int64(timeout)} }

// Limits bound the memory and the time that a connection may take.
//
// Owner: immutable.
type Limits struct {
	Frame     frame.Limits
	Head      handshake.Limits
	Handshake time.Duration
	Owner     time.Duration // for messages that wait after their connection's transport is gone
	Early     int           // bytes before the verdict
	Answers   int           // bytes of answers and backlog above which a connection's input waits
	Soft      int           // bytes of backlog for at most Grace
	Hard      int
	Grace     time.Duration

	Preface      bool   // the PROXY protocol's header comes first
	ProxyHeader  string // "" for any
	Subprotocols []string
	Compression  bool
	Deflate      deflate.Options
}
