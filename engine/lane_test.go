package engine

import (
	"context"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// A loop that a handler holds keeps those whom it was to serve waiting; all others are served by other loops.
func TestStuckLoopKeepsFewWaiting(t *testing.T) {
	const dials = 300
	s := startServer(t, func(c *Config) { c.Loops = 2 }, nil)
	held, release := make(chan struct{}), make(chan struct{})
	s.loops[0].PostCall(func() { close(held); <-release })
	<-held
	defer close(release)

	upgraded := make(chan bool, dials)
	for range dials {
		go func() {
			ctx, cancel := context.WithTimeout(t.Context(), patient)
			defer cancel()
			conn, _, _, err := ws.Dial(ctx, "ws://"+s.Addr().String()+"/")
			if err == nil {
				defer conn.Close()
			}
			upgraded <- err == nil
		}()
	}
	// What was under way before it was noticed waits: a lane's places at most, and who was being accepted.
	most := s.reactor.InFlight() + 2
	served := 0
	for deadline := time.After(patient / 2); served < dials-most; {
		select {
		case ok := <-upgraded:
			if ok {
				served++
			}
		case <-deadline:
			t.Fatalf("%d of %d are upgraded while one of two loops is held, want all but %d", served, dials, most)
		}
	}
}
