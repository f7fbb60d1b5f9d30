package fanout

import (
	"math/rand/v2"
	"testing"
)

// However many clients a worker sends away, about as many come back in each second, none of them at once, and none after more
// than a minute.
func TestClientsComeBackSpread(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, clients := range []int64{0, 1, 100, 10_000, 100_000} {
		const samples = 60_000
		seconds := map[int64]int{}
		for range samples {
			seconds[retryAfter(r.Uint64()|1, clients)]++
		}
		spread := min(max(clients/comebacksPerSecond, comebackLeast), comebackMost)
		for at, n := range seconds {
			if even := samples / int(spread); at < 1 || at > spread || n < even*8/10 || n > even*12/10 {
				t.Errorf("of %d clients, %d in %d come back after %d s", clients, n, samples, at)
			}
		}
		if int64(len(seconds)) != spread {
			t.Errorf("%d clients come back in %d different seconds", clients, len(seconds))
		}
	}
}
