package sim

import (
	"fmt"
	"testing"
)

func playFleet(t *testing.T, seed uint64, tail int) *Report {
	t.Helper()
	r := RunFleet(seed, *stepsFlag)
	if len(r.Complaints) > 0 || *seedFlag != 0 {
		for _, line := range r.Trace[max(0, len(r.Trace)-tail):] {
			fmt.Println(line)
		}
	}
	if len(r.Complaints) > 0 {
		t.Errorf("seed %d: %v\nlook at it with: go test ./engine/sim -run TestFleetSeeds -seed=%d", seed, r.Complaints, seed)
	}
	return r
}

// Whatever the workers and the bus between them do, clients read exactly their messages, and the server ends empty.
func TestFleetSeeds(t *testing.T) {
	if *seedFlag != 0 {
		playFleet(t, *seedFlag, 1<<30)
		return
	}
	for seed := range uint64(*seedsFlag / 2) {
		playFleet(t, seed+1, 60)
		if t.Failed() {
			return
		}
	}
}

// One seed is one history of several workers, too.
func TestFleetRepeatable(t *testing.T) {
	for _, seed := range []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 22, 46, 87, 111, 231, 263, 284} { // the later ones once differed
		a, b := RunFleet(seed, *stepsFlag), RunFleet(seed, *stepsFlag)
		for i := range a.Trace {
			if i >= len(b.Trace) || a.Trace[i] != b.Trace[i] {
				t.Fatalf("seed %d: the second run differs at line %d: %q", seed, i, a.Trace[i])
			}
		}
	}
}

// With -until, seeds of several workers are played until the named checker complains; other complaints are ignored.
func TestFleetUntil(t *testing.T) {
	if *untilFlag == "" {
		t.Skip("for planted faults")
	}
	for seed := range uint64(*seedsFlag / 2) {
		for _, c := range RunFleet(seed+1, *stepsFlag).Complaints {
			if c.Checker == *untilFlag {
				t.Fatalf("seed %d: COMPLAINT %s: %s", seed+1, c.Checker, c.Text)
			}
		}
	}
}
