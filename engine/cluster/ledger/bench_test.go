package ledger

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/parleyd/parley/protocol/ident"
)

const sessionBytes = 300

// inFlight keeps up to n calls under way.
type inFlight struct {
	free chan struct{}
	b    *testing.B
}

func newInFlight(b *testing.B, n int) *inFlight {
	f := &inFlight{make(chan struct{}, n), b}
	for range n {
		f.free <- struct{}{}
	}
	return f
}

func (f *inFlight) do(call func(done func(error)) error) {
	<-f.free
	if err := call(func(err error) {
		if err != nil {
			f.b.Error(err)
		}
		f.free <- struct{}{}
	}); err != nil {
		f.b.Fatal(err)
	}
}

func (f *inFlight) wait() {
	for range cap(f.free) {
		<-f.free
	}
}

// New sessions of one worker, each written at once.
func BenchmarkSaveFirst(b *testing.B) {
	bus := startBus(b)
	l := bus.open(b, 1)
	f := newInFlight(b, 500)
	value := make([]byte, sessionBytes)
	empty, own := rss(b, bus.process.cmd.Process.Pid), heapBytes()
	b.ResetTimer()
	for i := range b.N {
		f.do(func(done func(error)) error { return l.Sessions.Save(keyOf(1, i), value, done) })
	}
	f.wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "saves/s")
	b.StopTimer()
	if n := bus.records(b, sessionBucket); n != uint64(b.N) {
		b.Errorf("%d sessions are stored, of %d", n, b.N)
	}
	if b.N > 10000 {
		b.ReportMetric(float64(rss(b, bus.process.cmd.Process.Pid)-empty)/float64(b.N), "server-B/session")
		b.ReportMetric(float64(heapBytes()-own)/float64(b.N), "worker-B/session")
	}
}

// Later saves of 20,000 sessions, without coalescing.
func BenchmarkSaveAgain(b *testing.B) {
	const sessions = 20000
	bus := startBus(b)
	l := bus.open(b, 1, func(o *Options) { o.Coalesce = time.Nanosecond })
	f := newInFlight(b, 500)
	value := make([]byte, sessionBytes)
	for i := range sessions {
		f.do(func(done func(error)) error { return l.Sessions.Save(keyOf(1, i), value, done) })
	}
	b.ResetTimer()
	for i := range b.N {
		f.do(func(done func(error)) error { return l.Sessions.Save(keyOf(1, i%sessions), value, done) })
	}
	f.wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "saves/s")
}

// percentiles reports the median and the 99th percentile of calls that run one after the other.
func percentiles(b *testing.B, call func(i int, done func(error)) error) {
	took := make([]time.Duration, b.N)
	b.ResetTimer()
	for i := range b.N {
		start := time.Now()
		must(b, func(done func(error)) error { return call(i, done) })
		took[i] = time.Since(start)
	}
	b.StopTimer()
	slices.Sort(took)
	b.ReportMetric(float64(took[b.N/2].Microseconds()), "p50-us")
	b.ReportMetric(float64(took[b.N*99/100].Microseconds()), "p99-us")
}

// Claims of parked sessions by another worker, one after the other.
func BenchmarkClaim(b *testing.B) {
	bus := startBus(b)
	owner, taker := bus.open(b, 1), bus.open(b, 2)
	f := newInFlight(b, 500)
	for i := range b.N {
		f.do(func(done func(error)) error {
			return owner.Sessions.Park(keyOf(1, i), make([]byte, sessionBytes), time.Minute, done)
		})
	}
	f.wait()
	percentiles(b, func(i int, done func(error)) error {
		return taker.Sessions.Claim(Claim{keyOf(1, i), nonceOf(i)}, func(_ Claimed, err error) { done(err) })
	})
}

// A first save, which the client's token waits for.
func BenchmarkSaveLatency(b *testing.B) {
	l := startBus(b).open(b, 1)
	percentiles(b, func(i int, done func(error)) error {
		return l.Sessions.Save(keyOf(1, i), make([]byte, sessionBytes), done)
	})
}

// A seat of a room of which no worker holds a block: a write each.
func BenchmarkAcquireWritten(b *testing.B) {
	l := startBus(b).open(b, 1)
	percentiles(b, func(i int, done func(error)) error {
		return l.Seats.Acquire(fmt.Sprint(i), 2, 1, func(_ int, err error) { done(err) })
	})
}

// A seat of a room far from its limit: mostly from a block.
func BenchmarkAcquireFromBlock(b *testing.B) {
	l := startBus(b).open(b, 1)
	percentiles(b, func(_ int, done func(error)) error {
		return l.Seats.Acquire("r", 100_000_000, 1, func(_ int, err error) { done(err) })
	})
}

// A refusal that has to ask: two workers hold all seats, the third wants one.
func BenchmarkRefusal(b *testing.B) {
	bus := startBus(b)
	for i := range 2 {
		l := bus.open(b, ident.Worker(i+1))
		for n := range b.N {
			grant(b, l, fmt.Sprint(n), 2, 1)
		}
	}
	l := bus.open(b, 3)
	percentiles(b, func(i int, done func(error)) error {
		return l.Seats.Acquire(fmt.Sprint(i), 2, 1, func(_ int, err error) {
			if err != ErrFull {
				b.Error(err)
			}
			done(nil)
		})
	})
}

// The longest wait of a save while 100,000 sessions of a dead worker are deleted at once.
func BenchmarkSweep(b *testing.B) {
	const sessions = 100_000
	bus := startBus(b)
	longest := time.Duration(0)
	for n := range b.N {
		dead := bus.open(b, ident.Worker(2*n+1))
		f := newInFlight(b, 500)
		for i := range sessions {
			f.do(func(done func(error)) error {
				return dead.Sessions.Save(keyOf(dead.opts.Instance, i), make([]byte, sessionBytes), done)
			})
		}
		f.wait()
		l := bus.open(b, ident.Worker(2*n+2))
		start := time.Now()
		l.post(func() { l.life.sweepInstance(worker{testEpoch, dead.opts.Instance}) })
		for i := 0; time.Since(start) < time.Second; i++ {
			before := time.Now()
			must(b, func(done func(error)) error {
				return l.Sessions.Save(keyOf(l.opts.Instance, i), make([]byte, sessionBytes), done)
			})
			longest = max(longest, time.Since(before))
		}
		if n := bus.records(b, sessionBucket); n > sessions/2 {
			b.Errorf("%d sessions are left", n)
		}
	}
	b.ReportMetric(float64(longest.Milliseconds()), "longest-ms")
}

// rss is the resident memory of a process.
func rss(b testing.TB, pid int) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		b.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(text))[1])
	if err != nil {
		b.Fatal(err)
	}
	return pages * os.Getpagesize()
}

func heapBytes() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// First seats of new rooms, many at once: a write each.
func BenchmarkFirstSeats(b *testing.B) {
	l := startBus(b).open(b, 1)
	f := newInFlight(b, 500)
	b.ResetTimer()
	for i := range b.N {
		f.do(func(done func(error)) error {
			return l.Seats.Acquire(strconv.Itoa(i), 10, 1, func(_ int, err error) { done(err) })
		})
	}
	f.wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "seats/s")
}
