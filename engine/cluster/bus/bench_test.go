package bus

import (
	"iter"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/parleyd/parley/protocol/ident"
)

// benchBus starts the bus in its own process. Its processor time is read when it has ended.
func benchBus(b *testing.B) (p *process, url string) {
	b.Helper()
	p, addr := busProcess(b, b.TempDir(), 0)
	return p, "nats://" + addr
}

// processorTime is the processor time that this process has used.
func processorTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// counter is a receiver that only counts.
type counter struct{ entries atomic.Int64 }

func (c *counter) receiver() Receiver {
	return Receiver{Batch: func(_ ident.Worker, entries iter.Seq[[]byte]) {
		n := int64(0)
		for range entries {
			n++
		}
		c.entries.Add(n)
	}, Lost: func(ident.Worker, uint64, uint64) {}}
}

func benchLink(b *testing.B, url string, instance ident.Worker, to Receiver) *Link {
	b.Helper()
	opts := options(url, instance)
	l, err := Dial(b.Context(), opts, to)
	if err != nil {
		b.Fatal(err)
	}
	return l
}

// benchTraffic publishes b.N entries of 200 bytes, a turn each, from the first publishers of n links, and waits until
// each link has all of them.
func benchTraffic(b *testing.B, publishers, links, turn int) {
	bus, url := benchBus(b)
	all, counters := make([]*Link, links), make([]*counter, links)
	for i := range all {
		counters[i] = &counter{}
		all[i] = benchLink(b, url, ident.Worker(i+1), counters[i].receiver())
	}
	entry := make([]byte, 200)
	share := max(b.N/publishers, 1)
	want := func(i int) int64 {
		if i < publishers {
			return int64(share * (publishers - 1))
		}
		return int64(share * publishers)
	}
	b.ReportAllocs()
	b.ResetTimer()
	cpu, begin := processorTime(), time.Now()
	done := make(chan struct{}, publishers)
	p := pace{make([]atomic.Int64, publishers), counters}
	for i, l := range all[:publishers] {
		go func() {
			for n := range share {
				_ = l.Append(entry)
				if n%turn == turn-1 {
					l.Flush()
					p.said[i].Add(int64(turn))
					p.await()
				}
			}
			l.Flush()
			done <- struct{}{}
		}()
	}
	for range publishers {
		<-done
	}
	for i, c := range counters {
		eventually(b, "everything", func() bool { return c.entries.Load() == want(i) })
	}
	took := time.Since(begin)
	cpu = processorTime() - cpu
	b.StopTimer()
	var repaired uint64
	for _, l := range all {
		repaired += l.Stats().BatchesRepaired
		l.Close()
	}
	bus.kill()
	state := bus.cmd.ProcessState
	n := float64(share * publishers)
	b.ReportMetric(n/took.Seconds(), "entries/s")
	b.ReportMetric(float64(cpu.Nanoseconds())/n, "worker-ns/entry")
	b.ReportMetric(float64((state.UserTime()+state.SystemTime()).Nanoseconds())/n, "bus-ns/entry")
	b.ReportMetric(float64(repaired), "repaired")
}

// pace keeps publishers within a window of the slowest receiver, so that the benchmark measures the rate of the bus, and
// no ring drops a batch.
type pace struct {
	said     []atomic.Int64
	counters []*counter
}

const paceWindow = 20000

func (p *pace) behind() (most int64) {
	total := int64(0)
	for i := range p.said {
		total += p.said[i].Load()
	}
	for i, c := range p.counters {
		due := total - c.entries.Load()
		if i < len(p.said) {
			due -= p.said[i].Load()
		}
		most = max(most, due)
	}
	return most
}

func (p *pace) await() {
	if p.behind() < paceWindow {
		return
	}
	poll := time.NewTicker(100 * time.Microsecond)
	defer poll.Stop()
	for p.behind() > paceWindow/2 {
		<-poll.C
	}
}

// One worker publishes to four others.
func BenchmarkFanOut(b *testing.B) { benchTraffic(b, 1, 5, 64) }

// Four workers publish to each other, in turns of so many entries.
func BenchmarkFourWorkers(b *testing.B) {
	for _, turn := range []int{1, 8, 64} {
		b.Run(strconv.Itoa(turn), func(b *testing.B) { benchTraffic(b, 4, 4, turn) })
	}
}

// Appending alone: the price for a loop.
func BenchmarkAppend(b *testing.B) {
	out := newOutbox(ringBytesDefault)
	entry := make([]byte, 200)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = out.append(entry)
	}
}

// latencies sends one entry at a time, a millisecond apart, and reports how long each took to arrive.
func latencies(b *testing.B, send func(), arrived <-chan time.Time) {
	took := make([]time.Duration, 0, b.N)
	pace := time.NewTicker(time.Millisecond)
	defer pace.Stop()
	b.ResetTimer()
	cpu := processorTime()
	for range b.N {
		<-pace.C
		begin := time.Now()
		send()
		took = append(took, (<-arrived).Sub(begin))
	}
	b.StopTimer()
	cpu = processorTime() - cpu
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Nanoseconds())/1e3, "p50-us")
	b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds())/1e3, "p99-us")
	b.ReportMetric(float64(cpu.Nanoseconds())/1e3/float64(b.N), "worker-us/op")
}

// A lone entry on an idle bus.
func BenchmarkLoneEntry(b *testing.B) {
	_, url := benchBus(b)
	arrived := make(chan time.Time, 1)
	l := benchLink(b, url, 1, (&counter{}).receiver())
	defer l.Close()
	r := benchLink(b, url, 2, Receiver{
		Batch: func(ident.Worker, iter.Seq[[]byte]) { arrived <- time.Now() },
		Lost:  func(ident.Worker, uint64, uint64) {},
	})
	defer r.Close()
	entry := make([]byte, 200)
	latencies(b, func() { _ = l.Append(entry); l.Flush() }, arrived)
}

// An entry among 100,000 others a second, which two more workers publish in turns of a millisecond.
func BenchmarkBusyEntry(b *testing.B) {
	_, url := benchBus(b)
	arrived := make(chan time.Time, 1)
	l := benchLink(b, url, 1, (&counter{}).receiver())
	defer l.Close()
	r := benchLink(b, url, 2, Receiver{
		Batch: func(from ident.Worker, _ iter.Seq[[]byte]) {
			if from == 1 {
				arrived <- time.Now()
			}
		},
		Lost: func(ident.Worker, uint64, uint64) {},
	})
	defer r.Close()
	entry := make([]byte, 200)
	for i := range ident.Worker(2) {
		c := &counter{}
		other := benchLink(b, url, 3+i, c.receiver())
		defer other.Close()
		go func() {
			turn := time.NewTicker(time.Millisecond)
			defer turn.Stop()
			for range turn.C {
				if b.Context().Err() != nil {
					return
				}
				for range 50 {
					_ = other.Append(entry)
				}
				other.Flush()
			}
		}()
	}
	latencies(b, func() { _ = l.Append(entry); l.Flush() }, arrived)
}

// A lone message over a bare NATS connection, for comparison.
func BenchmarkLoneMessage(b *testing.B) {
	_, url := benchBus(b)
	arrived := make(chan time.Time, 1)
	var conns [2]*nats.Conn
	for i := range conns {
		nc, err := nats.Connect(url, connOptions(LinkOptions{Instance: ident.Worker(i + 1), Password: Password(secret, ident.Worker(i+1))})...)
		if err != nil {
			b.Fatal(err)
		}
		defer nc.Close()
		conns[i] = nc
	}
	if _, err := conns[1].Subscribe("p.*", func(*nats.Msg) { arrived <- time.Now() }); err != nil {
		b.Fatal(err)
	}
	if err := conns[1].Flush(); err != nil {
		b.Fatal(err)
	}
	payload := make([]byte, 200)
	latencies(b, func() { _ = conns[0].Publish("p.1", payload) }, arrived)
}
