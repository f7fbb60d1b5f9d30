package crowds

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
)

// Addresses of one subscriber count as one, those of two do not [RFC 6052 §2.1].
func TestKeys(t *testing.T) {
	for _, row := range []struct {
		a, b string
		same bool
	}{
		{"203.0.113.9", "203.0.113.9", true},
		{"203.0.113.9", "203.0.113.8", false},
		{"203.0.113.9", "::ffff:203.0.113.9", true},
		{"203.0.113.9", "64:ff9b::203.0.113.9", true},
		{"64:ff9b::203.0.113.9", "64:ff9b::203.0.113.8", false},
		{"64:ff9b:1::203.0.113.9", "64:ff9b:1::203.0.113.8", true}, // a local prefix is not told from a subscriber's network
		{"2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", true},
		{"2001:db8::1", "2001:db8:0:1::1", false},
		{"2001:db8::1", "2001:db9::1", false},
		{"fe80::1%eth0", "fe80::1", true},
		{"203.0.113.9", "2001:db8::203.0.113.9", false},
		{"127.0.0.1", "::1", false},
	} {
		if got := keyOf(netip.MustParseAddr(row.a)) == keyOf(netip.MustParseAddr(row.b)); got != row.same {
			t.Errorf("%s and %s are one: %v", row.a, row.b, got)
		}
	}
}

// Whatever comes and goes at once, no address ever has more than it may, and in the end there is no entry.
func TestCountsReturnToZero(t *testing.T) {
	const most, addresses, steps = 3, 5, 20_000
	var x Table
	x.Max.Store(most)
	var live [addresses]atomic.Int64
	var full atomic.Int64
	var all sync.WaitGroup
	for seed := range 4 {
		all.Go(func() {
			r := rand.New(rand.NewPCG(uint64(seed), 1))
			var mine []int
			for range steps {
				if i := r.IntN(addresses); r.IntN(2) == 0 {
					if !x.Enter(numbered(i)) {
						full.Add(1)
						continue
					}
					if n := live[i].Add(1); n > most {
						t.Errorf("%d connections of one address", n)
					}
					mine = append(mine, i)
				} else if n := len(mine); n > 0 {
					live[mine[n-1]].Add(-1)
					x.Leave(numbered(mine[n-1]))
					mine = mine[:n-1]
				}
			}
			for _, i := range mine {
				live[i].Add(-1)
				x.Leave(numbered(i))
			}
		})
	}
	all.Wait()
	if n := x.Addresses(); n != 0 || full.Load() == 0 {
		t.Errorf("%d addresses are left; %d were refused", n, full.Load())
	}
}

func numbered(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}) }
