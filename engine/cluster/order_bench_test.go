package cluster

import (
	"context"
	"iter"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/engine/canary"
	"github.com/parleyd/parley/engine/cluster/bus"
	"github.com/parleyd/parley/engine/cluster/supervise"
	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/engine/internal/order"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/rooms"
)

// counter is a follower that counts what it takes.
type counter struct {
	f      *order.Follower
	calls  sync.Mutex
	mail   atomic.Pointer[bus.Courier]
	taken  atomic.Int64
	failed atomic.Int64
	place  atomic.Pointer[rooms.Position]
}

func (c *counter) Begin(_ string, at rooms.Position) { c.place.Store(&at) }
func (c *counter) Reset(_ string, at rooms.Position) { c.place.Store(&at) }
func (c *counter) Take(*order.Ordered)               { c.taken.Add(1) }
func (c *counter) TakeKept(string, *order.Kept)      { c.taken.Add(1) }
func (c *counter) Skip(string, uint64)               { c.failed.Add(1) }
func (c *counter) Fill(string, string, []order.Kept) {}

func (c *counter) Keys(string) []rooms.KeyedNumber                  { return nil }
func (c *counter) TakeKeys(string, string, []rooms.KeyedNumber)     {}
func (c *counter) Kept(string, string, uint64, uint64) []order.Kept { return nil }

func (c *counter) Count(ident.Worker, uint64, int)         {}
func (c *counter) Settle(*order.Submission, order.Outcome) { c.failed.Add(1) }

func (c *counter) At(string) (at rooms.Position, low uint64, ok bool) {
	if p := c.place.Load(); p != nil {
		return *p, 1, true
	}
	return at, 0, false
}

func (c *counter) call(f func() error) {
	c.calls.Lock()
	defer c.calls.Unlock()
	if f() != nil {
		c.failed.Add(1)
	}
}

func (c *counter) receiver(self ident.Worker) bus.Receiver {
	return bus.Receiver{
		Batch: func(_ ident.Worker, entries iter.Seq[[]byte]) {
			for entry := range entries {
				h, _ := fleet.Decode(entry, self)
				c.call(func() error { return c.f.Hear(h.Payload) })
			}
		},
		Lost: func(ident.Worker, uint64, uint64) { c.failed.Add(1) },
	}
}

var (
	benchSecret  = []byte("only benchmarks know this")
	benchHistory = &rooms.HistoryOptions{Messages: 100, Bytes: 1 << 20, Age: time.Hour}
)

const benchSequencer = 9

// newBusProcess has what a bus process has; its sequencer is still to run.
func newBusProcess(t testing.TB) (*bus.Server, *sequencer, bus.LinkOptions) {
	server, err := bus.Start(bus.ServerOptions{Dir: t.TempDir(), Secret: benchSecret})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	cfg, welcome := engine.Config{Processes: 2, MemoryBytesMax: 1 << 30}, supervise.Welcome{Instance: benchSequencer, Term: 1, Bus: supervise.Bus{Secret: benchSecret}}
	s := newSequencer(cfg, welcome, Options{Log: slog.New(slog.DiscardHandler)})
	return server, s, sequencerLink(cfg, welcome, inheritance{}, server)
}

// startSequencer is a bus process, inside of this one.
func startSequencer(b *testing.B) *bus.Server {
	server, s, to := newBusProcess(b)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.run(ctx, to) }()
	b.Cleanup(func() { stop(); <-ended })
	<-s.begun
	return server
}

// newCounter is a follower that has the room.
func newCounter(b *testing.B, server *bus.Server, self ident.Worker) *counter {
	c, began := new(counter), time.Now()
	c.f = order.NewFollower(order.FollowerOptions{Self: self, Floor: c, Clock: func() int64 { return int64(time.Since(began)) + 1 }, Ring: func() {
		if mail := c.mail.Load(); mail != nil {
			mail.Wake()
		}
	}})
	link, err := bus.Dial(b.Context(), bus.LinkOptions{URL: server.URL(), Instance: self, Password: bus.Password(benchSecret, self), Peers: []ident.Worker{benchSequencer}}, c.receiver(self))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(link.Close)
	mail, err := link.Follow(c.f.Outgoing, func(answer []byte) { c.call(func() error { return c.f.Piece(answer) }) })
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(mail.Close)
	c.mail.Store(mail)
	mail.Wake()
	done := make(chan error, 1)
	c.f.Prepare("r", benchHistory, rooms.Since{}, func(err error) { done <- err })
	if err := <-done; err != nil {
		b.Fatal(err)
	}
	return c
}

// BenchmarkOrder has two followers publish 128 bytes each to one room, over TCP, with the sequencer beside the bus's server as
// in the bus process; an operation is a publish of each that both have taken. All share the machine, as they do in a server.
func BenchmarkOrder(b *testing.B) {
	server := startSequencer(b)
	members := []*counter{newCounter(b, server, 1), newCounter(b, server, 2)}
	body := []byte(`{"type":"broadcast","data":"` + strings.Repeat("x", 100) + `"`)
	b.ResetTimer()
	var all sync.WaitGroup
	for _, c := range members {
		all.Go(func() {
			for range b.N {
				for c.f.Submit(&order.Submission{}, &order.Message{Room: "r", Body: body, Options: benchHistory}) != nil {
					runtime.Gosched() // too many wait
				}
			}
		})
	}
	all.Wait()
	for _, c := range members {
		if !canary.Wait(time.Minute, func() bool { return c.taken.Load() == int64(2*b.N) }) || c.failed.Load() > 0 {
			b.Fatal("publishes were lost")
		}
	}
	b.ReportMetric(2*float64(b.N)/b.Elapsed().Seconds(), "publishes/s")
}
