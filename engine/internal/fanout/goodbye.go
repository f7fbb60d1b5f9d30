package fanout

import (
	"github.com/gobwas/ws"

	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/message"
)

// A client that the server closes with a code for "come back later" is told before in how many seconds. The clients of a
// worker that ends are spread evenly over a time that grows with their number: if all came back in one second, they would
// wait for each other's handshakes, time out, and come again.

const (
	comebacksPerSecond = 1000 // of the clients of one worker
	comebackLeast      = 3    // seconds over which few clients are spread
	comebackMost       = 60   // a session waits longer by default
)

// Parting says goodbye to a client that is closed with a code; [turn.Owner] has it.
func (l *Loop) Parting(c *turn.Conn, code ws.StatusCode) {
	var clients int64 // that are sent away at once
	switch code {
	case turn.StatusRestart: // a drain has spread them already
	case ws.StatusGoingAway, turn.StatusTryAgain:
		clients = max(l.Rooms.Open.Load(), l.Rooms.Crowd.Load())
	default:
		return
	}
	l.Text = message.AppendGoodbye(l.Text[:0], retryAfter(c.Gen, clients))
	c.QueueText(l.Text)
}

// retryAfter is the number of seconds for a connection of a worker with so many clients. The generation is random; its lowest
// bit is not.
func retryAfter(gen uint64, clients int64) int64 {
	spread := min(max(clients/comebacksPerSecond, comebackLeast), comebackMost)
	return 1 + int64(gen>>1%uint64(spread))
}
