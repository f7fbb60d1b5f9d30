package canary

import (
	"math"
	"runtime"
	"testing"
	"time"
)

// Of a second, an idle machine grants a second, one with four threads for each core a quarter, and one that stands still
// nearly nothing.
func TestGranted(t *testing.T) {
	cores := runtime.NumCPU()
	for _, row := range []struct {
		name      string
		threads   int
		since     time.Duration
		low, high time.Duration
		factor    float64
	}{
		{"idle", 1, every, 980 * time.Millisecond, time.Second, 1},
		{"all cores busy", cores, every, 980 * time.Millisecond, time.Second, 1},
		{"four for each core", 4 * cores, every, 250 * time.Millisecond, 400 * time.Millisecond, 4},
		{"a thousand for each core", 1000 * cores, every, 0, 60 * time.Millisecond, factorMax},
		{"a standstill", 1, time.Second, lateMax, lateMax, 10},
	} {
		c := &canary{smooth: 1, wanted: func() int { return row.threads }}
		now := time.Unix(1_000_000, 0)
		for range time.Second / row.since {
			now = now.Add(row.since)
			c.look(now, row.since)
		}
		if got := time.Duration(c.granted.Load()); got < row.low || got > row.high {
			t.Errorf("%s: %v are granted, want %v to %v", row.name, got, row.low, row.high)
		}
		factor := math.Float64frombits(c.factor.Load())
		if math.Abs(factor-row.factor) > row.factor/10 {
			t.Errorf("%s: everything takes %.2f times as long, want %v", row.name, factor, row.factor)
		}
		c.wanted = func() int { return 1 }
		for range 2 * memory / every {
			now = now.Add(every)
			c.look(now, every)
		}
		if f := math.Float64frombits(c.factor.Load()); f > 1.01 {
			t.Errorf("%s: long after, the factor is %v still", row.name, f)
		}
	}
}

func TestWait(t *testing.T) {
	n := 0
	if !Wait(time.Hour, func() bool { n++; return n == 3 }) || n != 3 {
		t.Error("a condition that holds at the third look is seen after", n)
	}
	if Wait(0, func() bool { return false }) {
		t.Error("a condition that never holds is seen")
	}
	if Factor() < 1 || Stretch(time.Second) < time.Second {
		t.Error("a busy machine shortens deadlines")
	}
}
