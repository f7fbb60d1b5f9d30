package engine

import (
	"testing"

	"github.com/gobwas/ws"
)

// A client that does not read is ended with 4003 as soon as its backlog is over the bound: neither we nor the
// kernel hide megabytes for it. Its session can be resumed.
func TestSlowConsumer(t *testing.T) {
	s := startServer(t, func(c *Config) { c.MessageBytesMax, c.BacklogSoftBytes, c.BacklogHardBytes = 32<<10, 32<<10, 64<<10 }, nil)
	c := dial(t, s)
	c.send(`{"type":"join","room":"r"}`)
	c.expect("joined")
	payload := make([]byte, 4096)
	for i := range payload {
		payload[i] = 'x'
	}
	sent := 0
	eventually(t, "the slow client is ended", func() bool {
		for range 50 {
			if s.ConnectionCount() > 0 {
				s.Broadcast("r", M{"type": "storm", "pad": string(payload)})
				sent += len(payload)
			}
		}
		return s.ConnectionCount() == 0
	})
	if sent > 16<<20 {
		t.Errorf("%d bytes were taken for a client that reads nothing", sent)
	}
	if n := s.Stats().Ended[CauseSlow.String()]; n != 1 {
		t.Errorf("%d ended as slow", n)
	}
	if code := c.expectClose(); code != StatusSlow {
		t.Errorf("closed with %d", code)
	}
	heir := dialBare(t, s, ws.Dialer{})
	heir.expect("connected")
	heir.expect("reconnect_token")
	heir.send(`{"type":"reconnect","token":"` + c.token + `"}`)
	heir.expect("reconnected")
}
