package bus

import (
	"math/rand/v2"
	"sync"
	"testing"
)

// Four workers under heavy traffic: everybody gets everything of everybody else, once and in order.
func TestFourWorkers(t *testing.T) {
	noLeaks(t)
	const entries = 30000
	s := startServer(t)
	links, witnesses := fourWorkers(t, s.URL(), 0)
	var publishers sync.WaitGroup
	for i, l := range links {
		publishers.Go(func() {
			dice := rand.New(rand.NewPCG(uint64(i), 1))
			for n := range uint64(entries) {
				appendEntry(t, l, n, 8+dice.IntN(300))
				if dice.IntN(20) == 0 {
					l.Flush()
				}
			}
			l.Flush()
		})
	}
	publishers.Wait()
	awaitAll(t, witnesses, entries)
	for i, l := range links {
		witnesses[i].check(t)
		st := l.Stats()
		if st.BatchesLost != 0 || st.EntriesIn != 3*entries || st.EntriesOut != entries {
			t.Errorf("worker %d: %+v", i+1, st)
		}
	}
}

// fourWorkers are instances 1 to 4, who know of each other.
func fourWorkers(t testing.TB, url string, ringBytes int) (links []*Link, witnesses []*witness) {
	links, witnesses = make([]*Link, 4), make([]*witness, 4)
	var dials sync.WaitGroup
	for i := range links {
		witnesses[i] = newWitness()
		var peers []uint16
		for p := range uint16(4) {
			if int(p) != i {
				peers = append(peers, p+1)
			}
		}
		opts := options(url, uint16(i+1), peers...)
		opts.RingBytes = ringBytes
		dials.Go(func() {
			l, err := tryDial(t, opts, witnesses[i])
			if err != nil {
				t.Error(err)
			}
			links[i] = l
		})
	}
	if dials.Wait(); t.Failed() {
		t.FailNow()
	}
	return links, witnesses
}

// awaitAll waits until each has n entries of all others.
func awaitAll(t testing.TB, witnesses []*witness, n uint64) {
	t.Helper()
	for i, g := range witnesses {
		for from := range uint16(4) {
			if int(from) != i {
				eventually(t, "all entries", func() bool { return g.has(from+1, n) })
			}
		}
	}
}
