package engine

import (
	"math"
	"testing"
	"time"
)

// Rates and bursts that no clock can count let through what they say, and do not wrap around.
func TestRatesAtTheirLimits(t *testing.T) {
	for name, row := range map[string]struct {
		rate Rate
		most int // of ten at once
	}{
		"a burst of 2^62":                {Rate{PerSecond: 1, Burst: 1 << 62}, 10},
		"a burst of 10^10":               {Rate{PerSecond: 1, Burst: 1e10}, 10},
		"one in 300 years":               {Rate{PerSecond: 1e-10, Burst: 1}, 1},
		"one in a million years, thrice": {Rate{PerSecond: 1e-13, Burst: 3}, 3},
		"the smallest":                   {Rate{PerSecond: math.SmallestNonzeroFloat64, Burst: 1}, 1},
		"without end":                    {Rate{PerSecond: math.Inf(1), Burst: 1}, 10},
		"as ever":                        {Rate{PerSecond: 1, Burst: 4}, 4},
	} {
		c, passed := new(Conn), 0
		for range 10 {
			if ok, _ := c.admits(&row.rate, int64(time.Hour)); ok {
				passed++
			}
		}
		if passed != row.most {
			t.Errorf("%s: %d of 10 pass, want %d", name, passed, row.most)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("a rate that is no number is taken")
		}
	}()
	RateLimit(Rate{PerSecond: math.NaN()})
}
