package engine

import (
	"slices"
	"testing"
	"time"

	"github.com/parleyd/parley/engine/canary"
)

// Timers run in their order, those of one moment in the order in which they were set, and none before its time.
func TestTimersRunInOrder(t *testing.T) {
	w := newScript(t, func(c *Config) { c.Loops = 1 })
	l := w.server.Server.loops[0]
	var ran []int
	note := func(n int) func() { return func() { ran = append(ran, n) } }
	l.PostAfter(30*time.Millisecond, note(3))
	l.PostAfter(10*time.Millisecond, note(1))
	l.PostAfter(30*time.Millisecond, note(4))
	l.PostAfter(20*time.Millisecond, func() {
		note(2)()
		l.After(50*time.Millisecond, note(5))
	})
	w.drain()
	at, ok := w.server.Alarm()
	if want := w.now + 10*time.Millisecond; !ok || at != want {
		t.Fatalf("the alarm is set to %v (%v), want %v", at, ok, want)
	}
	for _, step := range []struct {
		pass time.Duration
		want []int
	}{{9, nil}, {1, []int{1}}, {10, []int{1, 2}}, {9, []int{1, 2}}, {1, []int{1, 2, 3, 4}}, {39, []int{1, 2, 3, 4}}, {1, []int{1, 2, 3, 4, 5}}} {
		w.now += step.pass * time.Millisecond
		w.server.Tick()
		w.drain()
		if !slices.Equal(ran, step.want) {
			t.Fatalf("%v have run, want %v", ran, step.want)
		}
	}
	if _, ok := w.server.Alarm(); ok {
		t.Error("an alarm is set, and no timer is left")
	}
}

// A loop that sleeps is woken for a timer although no tick comes, and for the next one after it.
func TestTimerWakesItsLoop(t *testing.T) {
	s := startServer(t, func(c *Config) { c.Loops = 1 }, func(s *Server) { s.ground.Tick = time.Hour })
	began := time.Now()
	ran := make(chan time.Duration, 2)
	for _, d := range []time.Duration{20 * time.Millisecond, 10 * time.Millisecond} {
		s.loops[0].PostAfter(d, func() { ran <- time.Since(began) })
	}
	for _, d := range []time.Duration{10 * time.Millisecond, 20 * time.Millisecond} {
		select {
		case after := <-ran:
			if after < d {
				t.Errorf("a timer of %v ran after %v", d, after)
			}
		case <-time.After(canary.Stretch(10 * time.Second)):
			t.Fatalf("the timer of %v does not run", d)
		}
	}
}
