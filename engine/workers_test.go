package engine

import (
	"context"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/parleyd/parley/engine/cluster/bus"
	"github.com/parleyd/parley/engine/internal/membership"
	"github.com/parleyd/parley/protocol/ident"
)

// testWorker is a server that is one of several, in this process, over a real bus.
type testWorker struct {
	*Server
	dialled   atomic.Pointer[bus.Link]
	loses     atomic.Uint32 // a kind of entry that is lost on its way; 0 for none
	swallowed atomic.Uint32
}

func (w *testWorker) Append(entry []byte) error {
	if uint32(entry[1]) == w.loses.Load() {
		w.swallowed.Add(1)
		return nil
	}
	if l := w.dialled.Load(); l != nil {
		return l.Append(entry)
	}
	return fmt.Errorf("not dialled yet")
}

func (w *testWorker) Flush() {
	if l := w.dialled.Load(); l != nil {
		l.Flush()
	}
}

func (w *testWorker) Up() bool {
	l := w.dialled.Load()
	return l != nil && l.Up()
}

func (w *testWorker) Confirm(ctx context.Context) error { return w.dialled.Load().Confirm(ctx) }

// hangUp ends the link, once.
func (w *testWorker) hangUp() {
	if l := w.dialled.Swap(nil); l != nil {
		l.Close()
	}
}

// testWorkers are what the supervisor would have started.
type testWorkers struct {
	t    testing.TB
	bus  *bus.Server
	list []*testWorker
	ring int // bytes; 0: as ever

	order *testOrder // nil: each worker numbers its own rooms
}

var busSecret = []byte("only tests know this secret")

// startWorkers serves with n workers, of the instances 1 to n; with one, it is alone.
func startWorkers(t testing.TB, n int, change func(*Config), prepare func(*Server)) *testWorkers {
	t.Helper()
	ws := &testWorkers{t: t}
	if n == 1 {
		ws.list = []*testWorker{{Server: startServer(t, change, prepare)}}
		return ws
	}
	ws.startBus()
	for range n {
		ws.start(change, prepare)
	}
	return ws
}

// startBus starts the bus, or starts it again where it was.
func (ws *testWorkers) startBus() {
	ws.t.Helper()
	port := 0
	if ws.bus != nil {
		at := netip.MustParseAddrPort(ws.bus.Addr())
		port = int(at.Port())
	}
	var err error
	if ws.bus, err = bus.Start(bus.ServerOptions{Dir: ws.t.TempDir(), Secret: busSecret, Port: port}); err != nil {
		ws.t.Fatal(err)
	}
	ws.t.Cleanup(sync.OnceFunc(ws.bus.Close))
}

func (ws *testWorkers) start(change func(*Config), prepare func(*Server)) *testWorker {
	ws.t.Helper()
	w := &testWorker{}
	instance := ident.Worker(len(ws.list) + 1)
	w.Server = startServer(ws.t, change, func(s *Server) {
		if joins := (membership.Membership{Instance: instance, Bus: w}); ws.order != nil {
			ws.order.attach(s, joins)
		} else {
			s.worker.Attach(joins)
		}
		if prepare != nil {
			prepare(s)
		}
		link, err := bus.Dial(context.Background(), bus.LinkOptions{
			URL: "nats://" + ws.bus.Addr(), Instance: instance, Password: bus.Password(busSecret, instance), Peers: ws.instances(), RingBytes: ws.ring,
		}, bus.Receiver{
			Batch: func(from ident.Worker, entries iter.Seq[[]byte]) {
				for entry := range entries {
					if err := s.worker.Receive(from, entry); err != nil {
						ws.t.Errorf("worker %d hears of %d: %v", instance, from, err)
					}
				}
			},
			Lost: func(from ident.Worker, first, last uint64) { s.worker.Missed(from) },
			Gone: s.worker.Gone,
		})
		if err != nil {
			ws.t.Fatal(err)
		}
		w.dialled.Store(link)
	})
	ws.t.Cleanup(w.hangUp)
	ws.list = append(ws.list, w)
	ws.tellPeers()
	return w
}

func (ws *testWorkers) instances() (list []ident.Worker) {
	for _, w := range ws.list {
		list = append(list, w.link.Self)
	}
	return list
}

func (ws *testWorkers) tellPeers() {
	for _, w := range ws.list {
		w.link.Peers(ws.instances())
		w.link.Serving(ws.instances())
	}
}

// die takes a worker away as its death would: it says nothing more, and the others are told.
func (ws *testWorkers) die(w *testWorker) {
	w.hangUp()
	ws.list = slices.DeleteFunc(ws.list, func(x *testWorker) bool { return x == w })
	ws.tellPeers()
	for _, other := range ws.list {
		other.dialled.Load().Forget(w.link.Self)
	}
}

// next returns the next message of a type, leaving out others.
func (c *client) skipTo(typ string) map[string]any {
	c.t.Helper()
	for {
		if m := c.next(); m["type"] == typ {
			return m
		}
	}
}

// join joins and returns the count that it is told.
func (c *client) join(room string) float64 {
	c.t.Helper()
	c.send(`{"type":"join","room":"` + room + `"}`)
	return c.skipTo("joined")["members"].(float64)
}
