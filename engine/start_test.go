package engine

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"
)

// Questions and publishes before the server has started, or while it starts, leave no loop deaf: the loops open the letters
// that were posted, and a later question for health finds all well.
func TestPostsBeforeTheStart(t *testing.T) {
	for range 20 {
		cfg := DefaultConfig()
		cfg.Port, cfg.Loops = -1, 2
		s, err := New(cfg, WithLogger(slog.New(slog.DiscardHandler)))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.BroadcastAll(M{"type": "early"}); err != nil {
			t.Fatal(err)
		}
		heard := make(chan struct{}, len(s.loops))
		for _, l := range s.loops {
			l.PostCall(func() { heard <- struct{}{} })
		}
		started := make(chan struct{})
		var probes sync.WaitGroup
		for range 4 {
			probes.Go(func() { // a monitor that does not wait
				for {
					ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
					s.Healthy(ctx)
					cancel()
					s.Stats()
					s.Addr()
					select {
					case <-started:
						return
					default:
					}
				}
			})
		}
		if err := s.Start(); err != nil {
			t.Fatal(err)
		}
		close(started)
		deadline := time.After(patient)
		for range s.loops {
			select {
			case <-heard:
			case <-deadline:
				t.Fatal("what was posted before the start is never heard")
			}
		}
		ctx, cancel := context.WithTimeout(context.Background(), patient)
		if err := s.Healthy(ctx); err != nil {
			t.Error(err)
		}
		probes.Wait()
		if err := s.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		cancel()
	}
}
