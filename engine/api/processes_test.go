package api

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parleyd/parley/engine"
)

// silent is an operator that does not answer.
type silent struct{ asked int }

func (s *silent) Processes(ctx context.Context) (engine.Processes, error) {
	s.asked++
	<-ctx.Done()
	return engine.Processes{}, ctx.Err()
}

func (s *silent) Drain(context.Context, int, time.Duration) error { return nil }

// The rows of a list wait for an operator that does not answer once, and not each.
func TestPlacesOfASilentOperator(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p places
		var o silent
		begun := time.Now()
		for range 3 {
			if p.of(&o, 7) != nil {
				t.Error("an index that nobody has told")
			}
		}
		if took := time.Since(begun); o.asked != 1 || took != placesWait {
			t.Errorf("it was asked %d times, for %v", o.asked, took)
		}
		<-time.After(placesEvery)
		if p.of(&o, 7); o.asked != 2 {
			t.Errorf("later it was asked %d times", o.asked)
		}
	})
}
