package bus

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/parleyd/parley/protocol/ident"
)

// Four workers under heavy traffic: each gets all entries of all others, once and in order.
func TestFourWorkers(t *testing.T) {
	noLeaks(t)
	entries := uint64(some(30000, 10000))
	s := startServer(t)
	links, witnesses := fourWorkers(t, s.URL(), 0)
	var publishers sync.WaitGroup
	for i, l := range links {
		publishers.Go(func() {
			dice := rand.New(rand.NewPCG(uint64(i), 1))
			for n := range entries {
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

// fourWorkers are instances 1 to 4, each with the others as its peers.
func fourWorkers(t testing.TB, url string, ringBytes int) (links []*Link, witnesses []*witness) {
	links, witnesses = make([]*Link, 4), make([]*witness, 4)
	var dials sync.WaitGroup
	for i := range links {
		witnesses[i] = newWitness()
		var peers []ident.Worker
		for p := range ident.Worker(4) {
			if int(p) != i {
				peers = append(peers, p+1)
			}
		}
		opts := options(url, ident.Worker(i+1), peers...)
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
		for from := range ident.Worker(4) {
			if int(from) != i {
				eventually(t, "all entries", func() bool { return g.has(from+1, n) })
			}
		}
	}
}

// cable is a TCP hop that can be cut.
type cable struct {
	t      testing.TB
	to     string
	listen net.Listener
	mu     sync.Mutex
	conns  []net.Conn
	cut    bool
}

func newCable(t testing.TB, to string) *cable {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cable{t: t, to: to, listen: l}
	go c.serve()
	t.Cleanup(func() {
		_ = l.Close()
		c.set(true)
	})
	return c
}

func (c *cable) url() string { return "nats://" + c.listen.Addr().String() }

func (c *cable) serve() {
	for {
		near, err := c.listen.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", c.to)
		if err != nil {
			_ = near.Close()
			continue
		}
		c.mu.Lock()
		c.conns = append(c.conns, near, far)
		c.mu.Unlock()
		c.set(c.isCut())
		go func() { _, _ = io.Copy(near, far); _ = near.Close() }()
		go func() { _, _ = io.Copy(far, near); _ = far.Close() }()
	}
}

func (c *cable) isCut() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cut
}

// set cuts the cable, or mends it.
func (c *cable) set(cut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut = cut; cut {
		for _, conn := range c.conns {
			_ = conn.Close()
		}
		c.conns = nil
	}
}

// If the ring is too small for the batches that a receiver missed, exactly those that have left it are declared lost.
func TestRingTooSmall(t *testing.T) {
	noLeaks(t)
	s := startServer(t)
	wire := newCable(t, s.Addr())
	opts := options(s.URL(), 1)
	opts.RingBytes = 64 << 10
	l := dial(t, opts, newWitness())
	g := newWitness()
	g.exact = true
	r := dial(t, options(wire.url(), 2, 1), g)
	const entries = 1000
	publish := func(from, to uint64) {
		for n := from; n < to; n++ {
			appendEntry(t, l, n, 1000)
			l.Flush()
			eventually(t, "a batch an entry", func() bool { return l.Stats().BatchesOut == n+1 && l.Unsent() == 0 })
		}
	}
	publish(0, 10)
	eventually(t, "the first ten", func() bool { return g.has(1, 10) })
	wire.set(true)
	eventually(t, "the cut to be seen", func() bool { return !r.Up() })
	publish(10, entries)
	l.out.mu.Lock()
	oldest := l.out.ring.first
	l.out.mu.Unlock()
	wire.set(false)
	eventually(t, "the end", func() bool { return g.has(1, entries) })
	g.check(t)
	if want := []seqRange{{11, oldest - 1}}; !slices.Equal(g.lost[1], want) {
		t.Errorf("lost %v, want %v", g.lost[1], want)
	}
	if st := r.Stats(); st.BatchesLost != oldest-11 || st.BatchesRepaired == 0 || st.Reconnects != 1 {
		t.Errorf("%+v", st)
	}
}

// A publisher that was cut off goes on from where it stood; an idle one's lost tail is noticed.
func TestPublisherCut(t *testing.T) {
	noLeaks(t)
	s := startServer(t)
	wire := newCable(t, s.Addr())
	var seen []bool
	var mu sync.Mutex
	opts := options(wire.url(), 1)
	opts.Status = func(up bool) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, up)
	}
	l := dial(t, opts, newWitness())
	g := newWitness()
	dial(t, options(s.URL(), 2, 1), g)
	var n uint64
	for range 5 {
		for range 50 {
			appendEntry(t, l, n, 100)
			l.Flush()
			n++
		}
		wire.set(true) // some of the fifty are under way, and are lost
		eventually(t, "the cut to be seen", func() bool { return !l.Up() })
		appendEntry(t, l, n, 100)
		l.Flush()
		n++
		wire.set(false)
		eventually(t, "all so far", func() bool { return g.has(1, n) })
		eventually(t, "the link to be up", l.Up)
	}
	g.check(t)
	if g.lostBatches() != 0 {
		t.Errorf("lost %v", g.lost)
	}
	mu.Lock()
	defer mu.Unlock()
	if want := strings.Repeat("true false ", 5) + "true"; fmt.Sprint(seen) != "["+want+"]" {
		t.Errorf("status %v", seen)
	}
}

// A receiver that hangs costs bounded memory, delays no other worker, and gets all batches when it goes on.
func TestReceiverBlocked(t *testing.T) {
	noLeaks(t)
	s := startServer(t)
	opts := options(s.URL(), 1)
	opts.RingBytes = 128 << 20
	l := dial(t, opts, newWitness())
	g, other := newWitness(), newWitness()
	g.block = make(chan struct{})
	r := dial(t, options(s.URL(), 2, 1), g)
	dial(t, options(s.URL(), 3, 1), other)
	const entries, size = 1000, 60 << 10 // beyond inboxBytesMax
	for n := range uint64(entries) {
		appendEntry(t, l, n, size)
		l.Flush()
		eventually(t, "the bus to take it", func() bool { return l.Unsent() < 1<<20 })
	}
	eventually(t, "the other receiver", func() bool { return other.has(1, entries) })
	close(g.block)
	eventually(t, "all entries", func() bool { return g.has(1, entries) })
	g.check(t)
	if st := r.Stats(); st.BatchesRepaired == 0 || st.BatchesLost != 0 {
		t.Errorf("%+v", st)
	}
}

// Batches are split, large entries travel alone, and too large ones are refused.
func TestSizes(t *testing.T) {
	s := startServer(t)
	opts := options(s.URL(), 1)
	opts.RingBytes = 64 << 20
	l := dial(t, opts, newWitness())
	g := newWitness()
	dial(t, options(s.URL(), 2, 1), g)
	for n := range uint64(1000) {
		appendEntry(t, l, n, 1000)
	}
	l.Flush()
	eventually(t, "a thousand", func() bool { return g.has(1, 1000) })
	if st := l.Stats(); st.BatchesOut < 1000*1000/batchBytesMax || st.BytesOut/st.BatchesOut > batchBytesMax {
		t.Errorf("%+v", st)
	}
	for i, size := range []int{8, 127, 128, batchBytesMax - 20, batchBytesMax, batchBytesMax + 1, 1 << 20, EntryBytesMax} {
		appendEntry(t, l, 1000+uint64(i), size)
	}
	l.Flush()
	eventually(t, "large ones", func() bool { return g.has(1, 1008) })
	if err := l.Append(make([]byte, EntryBytesMax+1)); !errors.Is(err, ErrEntryTooLarge) {
		t.Errorf("%v", err)
	}
	if err := l.Append(nil); err != nil {
		t.Error(err)
	}
	g.check(t)
}

// A newcomer gets no entry from before its Dial, and all entries that are published after Dial has returned.
func TestNewcomer(t *testing.T) {
	s := startServer(t)
	l := dial(t, options(s.URL(), 1), newWitness())
	old := newWitness()
	dial(t, options(s.URL(), 3, 1), old)
	var n uint64
	for ; n < 100; n++ {
		appendEntry(t, l, n, 100)
		l.Flush()
	}
	eventually(t, "the hundred to have left the bus", func() bool { return old.has(1, n) })
	g := newWitness()
	g.next[1] = n
	dial(t, options(s.URL(), 2, 1), g)
	for ; n < 200; n++ {
		appendEntry(t, l, n, 100)
		l.Flush()
	}
	eventually(t, "the rest", func() bool { return g.has(1, n) })
	g.check(t)
}

// Dial waits for silent peers, but not for ever.
func TestSilentPeer(t *testing.T) {
	s := startServer(t)
	opts := options(s.URL(), 1, 77)
	opts.PeersWait = 50 * time.Millisecond
	begin := time.Now()
	l := dial(t, opts, newWitness())
	if took := time.Since(begin); took < opts.PeersWait || !l.Up() {
		t.Errorf("dialled in %v", took)
	}
}

// Publishing allocates nothing.
func TestAppendAllocates(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	out := newOutbox(1 << 20)
	entry, buf := make([]byte, 200), make([]byte, 0, batchBytesMax)
	once := func() {
		for range 50 {
			_, _ = out.append(entry)
			_, _ = out.append(entry)
		}
		out.flush()
		raw, seq := out.next(buf)
		buf = raw[:0]
		out.commit(seq)
	}
	for range 10000 {
		once() // the ring's spans have grown by then
	}
	if n := testing.AllocsPerRun(1000, once); n != 0 {
		t.Errorf("%v allocations for 100 entries and a batch", n)
	}
}

// A publisher that is cut off for longer than its ring lasts goes on; the batches that have left the ring are lost for all
// receivers, and declared to the number. Publishing never waits for the bus.
func TestRingOverrun(t *testing.T) {
	noLeaks(t)
	s := startServer(t)
	wire := newCable(t, s.Addr())
	opts := options(wire.url(), 1)
	opts.RingBytes = 64 << 10
	l := dial(t, opts, newWitness())
	g := newWitness()
	g.exact = true
	dial(t, options(s.URL(), 2, 1), g)
	publish := func(from, to uint64) {
		for n := from; n < to; n++ {
			appendEntry(t, l, n, 1000)
			l.out.mu.Lock()
			l.out.seal() // a batch an entry
			l.out.mu.Unlock()
			l.sender.ring()
		}
	}
	publish(0, 10)
	eventually(t, "the first ten", func() bool { return g.has(1, 10) })
	wire.set(true)
	eventually(t, "the cut to be seen", func() bool { return !l.Up() })
	const entries = 1000
	publish(10, entries)
	if n := l.Unsent(); n == 0 || n > opts.RingBytes {
		t.Errorf("%d bytes are unsent, with a ring of %d", n, opts.RingBytes)
	}
	l.out.mu.Lock()
	oldest := l.out.ring.first
	l.out.mu.Unlock()
	wire.set(false)
	eventually(t, "the end", func() bool { return g.has(1, entries) })
	g.check(t)
	if want := []seqRange{{11, oldest - 1}}; !slices.Equal(g.lost[1], want) {
		t.Errorf("lost %v, want %v", g.lost[1], want)
	}
	if st := l.Stats(); st.BatchesOverrun != oldest-11 || st.BytesUnsent != 0 || st.BatchesOut != entries {
		t.Errorf("%+v, %d batches have left the ring", st, oldest-11)
	}
}
