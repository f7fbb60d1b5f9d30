package main

import "testing"

// The collector waits for more garbage while it runs all the time, and no longer: not with a large heap, and not once it is calm.
func TestGarbageFollowsTheCollector(t *testing.T) {
	const megabyte = 1 << 20
	g := garbage{percent: thriftyPercent}
	cycles := uint64(0)
	for i, look := range []struct {
		made, live uint64
		want       int
	}{
		{hastyCycles - 1, 4 * megabyte, thriftyPercent},
		{hastyCycles, 4 * megabyte, 400},
		{1, 4 * megabyte, 400},
		{1, 9 * megabyte, thriftyPercent},
		{hastyCycles, 16 * megabyte, 100},
		{1, 32 * megabyte, 100},
		{1, 33 * megabyte, thriftyPercent},
		{hastyCycles, 1000 * megabyte, thriftyPercent},
		{hastyCycles, 1, 400},
	} {
		cycles += look.made
		if g.follow(cycles, look.live); g.percent != look.want {
			t.Errorf("look %d: %d %%, want %d %%", i, g.percent, look.want)
		}
	}
	for i := range calmLooks {
		if g.percent != 400 {
			t.Errorf("calm for %d looks only, and %d %%", i, g.percent)
		}
		g.follow(cycles, megabyte)
	}
	if g.percent != thriftyPercent {
		t.Errorf("calm, and %d %%", g.percent)
	}
}
