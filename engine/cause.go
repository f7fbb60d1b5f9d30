package engine

import "github.com/parleyd/parley/engine/internal/turn"

// Cause says why a connection ended. The zero Cause is that of a live connection.
type Cause = turn.Cause

// Causes. Each has one row in the table of causes: the close code that the peer is sent, and a label
// for logs and metrics.
const (
	CauseNone         = turn.CauseNone
	CausePeerClosed   = turn.CausePeerClosed   // the peer sent a close frame
	CausePeerGone     = turn.CausePeerGone     // the transport ended without one
	CauseProtocol     = turn.CauseProtocol     // the peer broke RFC 6455; the code says how
	CauseUnsupported  = turn.CauseUnsupported  // binary data, and the application registered no handler for it
	CauseHandshake    = turn.CauseHandshake    // no upgrade took place: the request was refused, came too slowly, or the peer went
	CauseUnauthorized = turn.CauseUnauthorized // authentication failed or came too late
	CauseHeartbeat    = turn.CauseHeartbeat    // silent for heartbeat_timeout
	CauseSlow         = turn.CauseSlow         // the backlog exceeded its bound
	CauseTakenOver    = turn.CauseTakenOver    // its session was resumed by a newer connection
	CauseRateLimited  = turn.CauseRateLimited  // a rate limit that ends connections
	CauseOverloaded   = turn.CauseOverloaded   // too many messages waited for a pending answer
	CausePanic        = turn.CausePanic        // a handler of the application panicked
	CauseApplication  = turn.CauseApplication  // Conn.Close
	CauseShutdown     = turn.CauseShutdown     // the server shuts down
	CauseExpired      = turn.CauseExpired      // its token has ended
	CauseDrain        = turn.CauseDrain        // its worker is drained, and others serve
	CauseMemory       = turn.CauseMemory       // it held the most of the memory that the process may use
)

// Close codes of our own [wire protocol, close codes].
const (
	StatusUnauthorized = turn.StatusUnauthorized
	StatusHeartbeat    = turn.StatusHeartbeat
	StatusSlow         = turn.StatusSlow
	StatusTakenOver    = turn.StatusTakenOver
	StatusRateLimited  = turn.StatusRateLimited
	StatusTokenExpired = turn.StatusTokenExpired
	StatusDisconnected = turn.StatusDisconnected // by a backend: stay away
	// StatusRestart is the registry's 1012, which gobwas/ws does not name either.
	StatusRestart = turn.StatusRestart
	// StatusTryAgain is the registry's 1013, which gobwas/ws does not name.
	StatusTryAgain = turn.StatusTryAgain
)
