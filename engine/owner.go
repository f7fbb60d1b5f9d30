package engine

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

// owner is what the connections of a loop belong to: a room server, or an echo. Its methods run on the loop, within a
// turn of the connection that they are given.
type owner interface {
	// opening decides on a well-formed request, which is borrowed.
	opening(c *turnConn, r *handshake.Request) verdict
	// opened is called when the connection is upgraded: greet it.
	opened(c *turnConn)
	// message takes one whole message. payload is borrowed.
	message(c *turnConn, binary bool, payload []byte)
	// closing is told that the peer's frames end, and reports whether the connection ends now. Where messages wait, the
	// owner keeps e behind them and calls [loop.endAs] with it later.
	closing(c *turnConn, e ending) (now bool)
	// alarm is called when the time that [loop.setAlarm] was given has come.
	alarm(c *turnConn)
	// excuse moves what the owner measures against the peer by a time in which nobody looked.
	excuse(c *turnConn, stall int64)
	// more goes on with input that the owner has put off by [loop.putOffMessages].
	more(c *turnConn)
	// caughtUp is called when all input that was put off has been taken.
	caughtUp(c *turnConn)
	// outlives reports whether the connection stays, without a transport, until its owner has carried out what waits.
	outlives(c *turnConn) bool
	// diverted takes a frame for a connection with flagDiverted.
	diverted(c *turnConn, f *outFrame)
	// ended is called once: the connection is over, but for the bytes that still leave. A connection with flagKept keeps
	// its slot until [loop.forget].
	ended(c *turnConn, cause Cause)
}

// floor is what lives on a loop besides its connections. Its methods run on the loop.
type floor interface {
	// deliver takes the first letters of x, one or several, and says how many: those that it takes at once have no more
	// than bytesMax bytes of frames, but for the first.
	deliver(x []letter, bytesMax int) (n int)
	// beforeWrites is called, where owes.writes is set, before the connections are written to.
	beforeWrites()
	// afterTurn is called, where owes.flush is set, when the turn has written.
	afterTurn()
	// tick is called every tick.
	tick()
	// check panics where c contradicts what the floor knows of it. Builds with the tag invariants call it at the ends of turns.
	check(c *turnConn)
	// stalled is told that no loop looked for a while.
	stalled(late int64)
}

// owes is what a floor asks of its loop.
//
// Owner: loop.
type owes struct {
	writes bool // beforeWrites, in a drain that follows
	flush  bool // afterTurn
}

// verdict is what an owner says of a request.
type verdict struct {
	refusal handshake.Refusal // where its status is not 0
	ask     func()            // begins the wait for an answer: [loop.admit] or [loop.refuse] follows
}

// ending is how the peer's frames end: with its close frame, or with a frame that is wrong.
type ending struct {
	code      ws.StatusCode
	violation frame.Violation
}

// ground is what the loops of a server share.
//
// Owner: immutable once the loops run, except what is atomic.
type ground struct {
	clock  func() int64 // nanoseconds since the server's start
	tick   time.Duration
	log    *slog.Logger
	beats  atomic.Pointer[beats]
	trust  *proxy.Trust // nil where nobody is trusted
	limits limits

	heartbeat *outFrame
	newConn   func(l *turnLoop) *turnConn
	departed  func(c *turnConn) // a connection's descriptor is closed; any goroutine
	survive   func(where string, c *turnConn, v any)
	seconds   func(at int64) int64 // since the epoch
}

// beats are the times of heartbeats, in nanoseconds.
//
// Owner: immutable.
type beats struct{ interval, timeout int64 }

// limits bound what a connection may take.
//
// Owner: immutable.
type limits struct {
	frame     frame.Limits
	head      handshake.Limits
	handshake time.Duration
	owner     time.Duration // for what waits of a connection whose transport is gone
	early     int           // bytes before the verdict
	answers   int           // bytes that a connection may be given before its input waits
	soft      int           // bytes of backlog, for no longer than grace
	hard      int
	grace     time.Duration

	preface      bool   // the PROXY protocol's header comes first
	proxyHeader  string // "" for any
	subprotocols []string
	compression  bool
	deflate      deflate.Options
}
