package turn

import "github.com/gobwas/ws"

// Cause says why a connection ended. The zero Cause is that of a live connection.
type Cause uint8

// Causes. Each has one row in the table of causes: the close code that the peer is sent, and a label
// for logs and metrics.
const (
	CauseNone         Cause = iota
	CausePeerClosed         // the peer sent a close frame
	CausePeerGone           // the transport ended without one
	CauseProtocol           // the peer broke RFC 6455; the code says how
	CauseUnsupported        // binary data, and the application registered no handler for it
	CauseHandshake          // no upgrade took place: the request was refused, came too slowly, or the peer went
	CauseUnauthorized       // authentication failed or came too late
	CauseHeartbeat          // silent for heartbeat_timeout
	CauseSlow               // the backlog exceeded its bound
	CauseTakenOver          // its session was resumed by a newer connection
	CauseRateLimited        // a rate limit that ends connections
	CauseOverloaded         // too many messages waited for a pending answer
	CausePanic              // a handler of the application panicked
	CauseApplication        // Conn.Close
	CauseShutdown           // the server shuts down
	CauseExpired            // its token has ended
	CauseDrain              // its worker is drained, and others serve
	CauseMemory             // it held the most of the memory that the process may use
	Causes
)

// Close codes of our own [wire protocol, close codes].
const (
	StatusUnauthorized ws.StatusCode = 4001
	StatusHeartbeat    ws.StatusCode = 4002
	StatusSlow         ws.StatusCode = 4003
	StatusTakenOver    ws.StatusCode = 4004
	StatusRateLimited  ws.StatusCode = 4005
	StatusTokenExpired ws.StatusCode = 4006
	StatusDisconnected ws.StatusCode = 4007 // by a backend: stay away
	// StatusRestart is the registry's 1012, which gobwas/ws does not name either.
	StatusRestart ws.StatusCode = 1012
	// StatusTryAgain is the registry's 1013, which gobwas/ws does not name.
	StatusTryAgain ws.StatusCode = 1013
)

var causeTable = [Causes]struct {
	label string
	code  ws.StatusCode
	text  string
}{
	CauseNone:         {"none", 0, ""},
	CausePeerClosed:   {"peer_closed", ws.StatusNormalClosure, ""},
	CausePeerGone:     {"peer_gone", 0, ""},
	CauseProtocol:     {"protocol", ws.StatusProtocolError, ""},
	CauseUnsupported:  {"unsupported", ws.StatusUnsupportedData, "binary messages are not understood here"},
	CauseHandshake:    {"handshake", 0, ""},
	CauseUnauthorized: {"unauthorized", StatusUnauthorized, "unauthorized"},
	CauseHeartbeat:    {"heartbeat", StatusHeartbeat, "heartbeat timeout"},
	CauseSlow:         {"slow_consumer", StatusSlow, "slow consumer"},
	CauseTakenOver:    {"taken_over", StatusTakenOver, "session resumed elsewhere"},
	CauseRateLimited:  {"rate_limited", StatusRateLimited, "rate limited"},
	CauseOverloaded:   {"overloaded", StatusTryAgain, "too much at once, try again later"},
	CausePanic:        {"panic", ws.StatusInternalServerError, "internal error"},
	CauseApplication:  {"application", ws.StatusNormalClosure, ""},
	CauseShutdown:     {"shutdown", ws.StatusGoingAway, "server is going away"},
	CauseDrain:        {"drain", StatusRestart, "this worker restarts: come back"},
	CauseMemory:       {"memory", StatusSlow, "slow consumer: the server needs the memory"},
	CauseExpired:      {"token_expired", StatusTokenExpired, "the token has expired: come back with another"},
}

// String is the label that logs and metrics use.
func (c Cause) String() string {
	if c >= Causes {
		return "unknown"
	}
	return causeTable[c].label
}
