package sim

import (
	"flag"
	"fmt"
	"testing"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "play this seed alone, with its whole trace")
	seedsFlag = flag.Int("seeds", 600, "how many seeds to play")
	untilFlag = flag.String("until", "", "play until this checker complains")
	stepsFlag = flag.Int("steps", 1500, "how many steps each")
)

func play(t *testing.T, seed uint64, tail int) *Report {
	t.Helper()
	r := Run(seed, *stepsFlag)
	if len(r.Complaints) > 0 {
		for _, line := range r.Trace[max(0, len(r.Trace)-tail):] {
			fmt.Println(line)
		}
		t.Errorf("seed %d: %v\nlook at it with: go test ./engine/sim -run TestSeeds -seed=%d", seed, r.Complaints, seed)
	}
	return r
}

// Whatever the schedule, clients read exactly their messages, and the server ends empty.
func TestSeeds(t *testing.T) {
	if *seedFlag != 0 {
		play(t, *seedFlag, 1<<30)
		return
	}
	published, resumed := 0, 0
	for seed := range uint64(*seedsFlag) {
		r := play(t, seed+1, 40)
		published += r.Delivered
		resumed += r.Resumed
		if t.Failed() {
			return
		}
	}
	t.Logf("%d messages, %d resumed sessions", published, resumed)
	if published < 10**seedsFlag || resumed < *seedsFlag/4 {
		t.Errorf("%d messages and %d resumed sessions in %d worlds: too little happens", published, resumed, *seedsFlag)
	}
}

// With -until, seeds are played until the named checker complains; other complaints are ignored.
func TestUntil(t *testing.T) {
	if *untilFlag == "" {
		t.Skip("for planted faults")
	}
	for seed := range uint64(*seedsFlag) {
		for _, c := range Run(seed+1, *stepsFlag).Complaints {
			if c.Checker == *untilFlag {
				t.Fatalf("seed %d: COMPLAINT %s: %s", seed+1, c.Checker, c.Text)
			}
		}
	}
}

// One seed is one history.
func TestRepeatable(t *testing.T) {
	for seed := uint64(1); seed <= 5; seed++ {
		if a, b := Run(seed, *stepsFlag), Run(seed, *stepsFlag); a.Digest != b.Digest {
			for i := range a.Trace {
				if i >= len(b.Trace) || a.Trace[i] != b.Trace[i] {
					t.Fatalf("seed %d: the second run differs at line %d: %q", seed, i, a.Trace[i])
				}
			}
			t.Fatalf("seed %d: the second run goes on longer", seed)
		}
	}
}
