package cluster

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/engine/cluster/bus"
	"github.com/parleyd/parley/engine/cluster/ledger"
	"github.com/parleyd/parley/engine/cluster/supervise"
	"github.com/parleyd/parley/protocol/ident"
)

// worker is one of the processes that have connections.
//
// Owner: the goroutine of runWorker, except bus and ledger.
type worker struct {
	srv     *engine.Server
	control *supervise.Control
	bus     lateLink
	options Options
	ledger  atomic.Pointer[ledger.Ledger] // opened before the server starts
	fault   fault
}

// lateLink implements [engine.Bus]. A link calls its receiver before Dial returns it: until then the server has none.
type lateLink struct{ link atomic.Pointer[bus.Link] }

func (b *lateLink) Append(entry []byte) error {
	if l := b.link.Load(); l != nil {
		return l.Append(entry)
	}
	return errNoLink
}

func (b *lateLink) Flush() {
	if l := b.link.Load(); l != nil {
		l.Flush()
	}
}

func (b *lateLink) Up() bool {
	l := b.link.Load()
	return l != nil && l.Up()
}

var errNoLink = errors.New("the bus has not been dialled yet")

const (
	statsEvery = 250 * time.Millisecond
	dialWait   = 30 * time.Second
)

func runWorker(ctx context.Context, srv *engine.Server, o Options) error {
	control, err := supervise.Join()
	if err != nil {
		return err
	}
	welcome := control.Welcome()
	given, err := parseInheritance(welcome)
	if err != nil {
		return err
	}
	w := &worker{srv: srv, control: control, options: o}
	listener, err := newShared(welcome.Listeners[0], welcome.Listen[0])
	if err != nil {
		return err
	}
	srv.Attach(engine.Membership{Instance: welcome.Instance, Bus: &w.bus, Listener: listener,
		BytesMax: given.BytesMax, Seats: seats{w}, Rooms: created{w}})
	if err := w.dial(ctx, welcome, given); err != nil {
		return err
	}
	if err := w.openLedger(ctx, given, welcome.Peers.Ready); err != nil {
		return err
	}
	for _, d := range welcome.Peers.Dead {
		w.bus.link.Load().Forget(d.Instance) // its last batches may still arrive
		w.died(d)
	}
	srv.Peers(welcome.Peers.Peers)
	srv.Serving(welcome.Peers.Ready)
	inherit(welcome.Settings, srv, o) // the reloads before this worker was started
	if err := srv.Start(); err != nil {
		return err
	}
	control.Ready("")
	serving, stop := context.WithCancel(ctx)
	defer stop()
	if o.Serving != nil {
		o.Serving(serving)
	}
	go control.Pulse(serving, srv.Healthy)
	return w.followOrders(serving)
}

// dial connects to the bus. If the bus is away it waits: five workers that end in a row would end the server.
func (w *worker) dial(ctx context.Context, welcome supervise.Welcome, given inheritance) error {
	bounded, cancel := context.WithTimeout(ctx, dialWait)
	defer cancel()
	to := bus.LinkOptions{
		URL:      "nats://" + welcome.Bus.Address,
		Instance: welcome.Instance,
		Password: welcome.Bus.Password,
		Peers:    welcome.Peers.Ready,
		Log:      w.options.Log,
	}
	if given.BusURL != "" {
		to.URL, to.External, to.File = given.BusURL, true, w.srv.Config().BusCredentials
	}
	link, err := bus.Dial(bounded, to, bus.Receiver{
		Batch: func(from ident.Worker, entries iter.Seq[[]byte]) {
			for entry := range entries {
				if err := w.srv.Receive(from, entry); err != nil {
					w.options.Log.Error("an entry of another worker cannot be read", "worker", from, "err", err)
				}
			}
		},
		Lost: func(from ident.Worker, first, last uint64) {
			w.options.Log.Error("batches of another worker are lost", "worker", from, "first", first, "last", last)
			w.srv.Missed(from)
		},
		Gone: w.srv.Gone,
	})
	if err != nil {
		return err
	}
	w.bus.link.Store(link)
	return nil
}

// followOrders carries out the supervisor's orders, and reports figures, until it is told to drain.
func (w *worker) followOrders(ctx context.Context) error {
	stats := time.NewTicker(statsEvery)
	defer stats.Stop()
	for {
		select {
		case <-stats.C:
			w.fault.log(w.ledger.Load().Why(), w.options.Log)
			if err := w.control.Stats(w.stats()); err != nil {
				w.options.Log.Error("report figures", "err", err)
			}
		case order := <-w.control.Orders():
			switch order := order.(type) {
			case supervise.Peers:
				w.srv.Peers(order.Peers)
				w.srv.Serving(order.Ready)
				w.ledger.Load().Peers(order.Ready)
				for _, d := range order.Dead {
					w.bus.link.Load().Forget(d.Instance)
					w.died(d)
				}
			case supervise.Reload:
				w.control.Reloaded(order, inherit(order.Settings, w.srv, w.options))
			case supervise.Drain:
				return w.leave(ctx, order)
			}
		}
	}
}

// stats are the figures of the server, its link and its process.
func (w *worker) stats() engine.Stats {
	s := w.srv.StatsHere()
	b := w.bus.link.Load().Stats()
	s.Bus = &engine.BusStats{Up: b.Up, EntriesOut: b.EntriesOut, EntriesIn: b.EntriesIn, BytesOut: b.BytesOut, BytesIn: b.BytesIn,
		Unsent: b.BytesUnsent, Gaps: b.Gaps, Repaired: b.BatchesRepaired, Lost: b.BatchesLost, Overrun: b.BatchesOverrun,
		Reconnects: b.Reconnects, Unkept: w.ledger.Load().Why()}
	own := ownProcess()
	s.Process = &own
	return s
}

// leave sends all clients away, and closes the ledger and the link.
func (w *worker) leave(ctx context.Context, d supervise.Drain) error {
	bounded, cancel := w.control.Draining(context.WithoutCancel(ctx), d)
	defer cancel()
	err := w.srv.Shutdown(bounded)
	written, end := context.WithTimeout(context.WithoutCancel(ctx), finishWait)
	defer end()
	sessions{w.ledger.Load()}.finish(written)
	w.bus.link.Load().Close()
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return nil // connections that did not end in time were cut off
	}
	return err
}

// shared is the listening socket of all workers.
type shared struct {
	acceptor *supervise.Acceptor
	addr     net.Addr
}

func newShared(file *os.File, addr string) (*shared, error) {
	acceptor, err := supervise.NewAcceptor(file)
	if err != nil {
		return nil, err
	}
	at, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("read listening address: %w", err)
	}
	return &shared{acceptor, at}, nil
}

// AcceptTCP implements [engine.Listener]. A connection that its peer has reset meanwhile has no remote address: RemoteAddr
// returns nil, and the engine closes it.
func (s *shared) AcceptTCP() (*net.TCPConn, error) {
	fd, _, err := s.acceptor.Accept()
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), "accepted")
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, fmt.Errorf("take accepted connection: %w", err)
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		conn.Close()
		return nil, fmt.Errorf("take accepted connection: it is a %T, not a TCP connection", conn)
	}
	return tcp, nil
}

func (s *shared) Addr() net.Addr { return s.addr }

func (s *shared) Close() error { return s.acceptor.Close() }
