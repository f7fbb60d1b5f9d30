package turn

import (
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/protocol/deflate"
	"github.com/parleyd/parley/protocol/frame"
	"github.com/parleyd/parley/protocol/handshake"
	"github.com/parleyd/parley/protocol/proxy"
)

// The transport moves bytes: the loop and its turns, mailbox, slab and wheel, and of a connection the opening, the way in,
// the way out, the heartbeat and the close. It knows no room, no session, no JSON and no worker: what is
// above the transport is called through the two seams in this file.

// Owner is what the connections of a loop belong to: a room server, or an echo. Its methods run on the loop, within a
// turn of the connection that they are given.
type Owner interface {
	// Opening decides on a well-formed request, which is borrowed.
	Opening(c *Conn, r *handshake.Request) Verdict
	// Opened is called when the connection is upgraded: greet it.
	Opened(c *Conn)
	// Message takes one whole message. payload is borrowed.
	Message(c *Conn, binary bool, payload []byte)
	// Closing is told that the peer's frames end, and reports whether the connection ends now. Where messages wait, the
	// owner keeps e behind them and calls [Loop.EndAs] with it later.
	Closing(c *Conn, e Ending) (now bool)
	// Alarm is called when the time that [Loop.SetAlarm] was given has come.
	Alarm(c *Conn)
	// Excuse moves what the owner measures against the peer by a time in which nobody looked.
	Excuse(c *Conn, stall int64)
	// More goes on with input that the owner has put off by [Loop.PutOffMessages].
	More(c *Conn)
	// CaughtUp is called when all input that was put off has been taken.
	CaughtUp(c *Conn)
	// Outlives reports whether the connection stays, without a transport, until its owner has carried out what waits.
	Outlives(c *Conn) bool
	// Diverted takes a frame for a connection with flagDiverted.
	Diverted(c *Conn, f *Frame)
	// Ended is called once: the connection is over, but for the bytes that still leave. A connection with flagKept keeps
	// its slot until [Loop.Forget].
	Ended(c *Conn, cause Cause)
}

// floor is what lives on a loop besides its connections. Its methods run on the loop.
type floor interface {
	// Deliver takes the first letters of x, one or several, and says how many: those that it takes at once have no more
	// than bytesMax bytes of frames, but for the first.
	Deliver(x []Letter, bytesMax int) (n int)
	// BeforeWrites is called, where owes.writes is set, before the connections are written to.
	BeforeWrites()
	// AfterTurn is called, where owes.flush is set, when the turn has written.
	AfterTurn()
	// Tick is called every tick.
	Tick()
	// Check panics where c contradicts what the floor knows of it. Builds with the tag invariants call it at the ends of turns.
	Check(c *Conn)
	// Stalled is told that no loop looked for a while.
	Stalled(late int64)
}

// owes is what a floor asks of its loop.
//
// Owner: loop.
type owes struct {
	Writes bool // beforeWrites, in a drain that follows
	Flush  bool // afterTurn
}

// Verdict is what an owner says of a request.
type Verdict struct {
	Refusal handshake.Refusal // where its status is not 0
	Ask     func()            // begins the wait for an answer: [Loop.Admit] or [Loop.Refuse] follows
}

// Ending is how the peer's frames end: with its close frame, or with a frame that is wrong.
type Ending struct {
	code      ws.StatusCode
	violation frame.Violation
}

// Ground is what the loops of a server share.
//
// Owner: immutable once the loops run, except what is atomic.
type Ground struct {
	Clock  func() int64 // nanoseconds since the server's start
	Tick   time.Duration
	Log    *slog.Logger
	Beats  atomic.Pointer[Beats]
	Trust  *proxy.Trust // nil where nobody is trusted
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

// Limits bound what a connection may take.
//
// Owner: immutable.
type Limits struct {
	Frame     frame.Limits
	Head      handshake.Limits
	Handshake time.Duration
	Owner     time.Duration // for what waits of a connection whose transport is gone
	Early     int           // bytes before the verdict
	Answers   int           // bytes that a connection may be given before its input waits
	Soft      int           // bytes of backlog, for no longer than grace
	Hard      int
	Grace     time.Duration

	Preface      bool   // the PROXY protocol's header comes first
	ProxyHeader  string // "" for any
	Subprotocols []string
	Compression  bool
	Deflate      deflate.Options
}
