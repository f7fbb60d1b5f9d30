package rate

import (
	"math/rand/v2"
	"testing"
	"time"
)

const second = int64(time.Second)

// In no stretch of time more messages pass than the burst and the rate allow, and a client that keeps the rate is not refused.
func TestRuleHolds(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 2))
		perSecond, burst := 1+r.IntN(50), 1+r.IntN(20)
		rule, hasty, steady := NewRule(perSecond, burst, 0), Record{}, Record{}
		now, each := int64(r.IntN(1e9)), second/int64(perSecond)
		var passed []int64
		for range 500 {
			now += int64(r.ExpFloat64() * float64(each) / 3)
			if hasty.Take(rule, now, now) == Passes {
				passed = append(passed, now)
			}
		}
		for i := range passed {
			for j := i; j < len(passed); j++ {
				if n, may := j-i+1, burst+int((passed[j]-passed[i])/each); n > may {
					t.Fatalf("seed %d: %d messages pass in %v, %d may", seed, n, time.Duration(passed[j]-passed[i]), may)
				}
			}
		}
		for range 200 {
			now += each
			if steady.Take(rule, now, now) != Passes {
				t.Fatalf("seed %d: a message at the rate is refused", seed)
			}
		}
	}
}

// Refusals add up to the strike that ends the connection, also where messages pass in between, and are forgotten with a full bucket.
func TestStrikes(t *testing.T) {
	rule := NewRule(10, 2, 3)
	var x Record
	flood := func(from int64) (verdicts string) {
		for i := range 5 {
			now := from + int64(i)*second/20 // twice the rate
			verdicts += []string{"p", "r", "S"}[x.Take(rule, now, now)]
		}
		return verdicts
	}
	if got := flood(0) + flood(second/4) + flood(second/2); got != "ppprprpSpSpSpSp" {
		t.Errorf("a flood is answered with %s", got)
	}
	if got := flood(10 * second); got != "ppprp" {
		t.Errorf("after a rest it is answered with %s", got)
	}
	if x.Forget(10*second) || x == (Record{}) {
		t.Error("a bucket that is not full is forgotten")
	}
	if !x.Forget(20*second) || x != (Record{}) {
		t.Error("a full bucket is kept")
	}
}

// What came while the server was stopped is not taken for a burst.
func TestWaitingMessages(t *testing.T) {
	rule := NewRule(10, 2, 1)
	var x Record
	now := 100 * second
	for range 50 + 2 {
		if v := x.Take(rule, now-5*second, now); v != Passes {
			t.Fatalf("a message of five seconds is refused: %v", v)
		}
	}
	if x.Take(rule, now-5*second, now) == Passes {
		t.Error("more pass than have had the time to come")
	}
}
