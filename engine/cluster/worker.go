package cluster

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/engine/cluster/bus"
	"github.com/parleyd/parley/engine/cluster/ledger"
	"github.com/parleyd/parley/engine/cluster/supervise"
	"github.com/parleyd/parley/engine/internal/membership"
	"github.com/parleyd/parley/protocol/ident"
)

// worker is a member of the bus: a process that has connections, or the api process.
//
// Owner: the goroutine of runWorker, except bus and ledger.
type worker struct {
	srv     *engine.Server
	control *supervise.Control
	bus     lateLink
	options Options
	ledger  atomic.Pointer[ledger.Ledger] // opened before the server starts
	fault   fault
	mail    mailbag
	order   ident.Worker // the bus process, whose stream orders the messages of rooms with history; 0: not known
	// beforeLeave runs when the process is told to leave, before its clients are sent away; nil: nothing.
	beforeLeave func()
}

// lateLink implements [fleet.Bus]. A link calls its receiver before Dial returns it: until then the server has none.
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

func (b *lateLink) Confirm(ctx context.Context) error {
	l := b.link.Load()
	if l == nil {
		return errNoLink
	}
	err := l.Confirm(ctx)
	if errors.Is(err, bus.ErrAway) {
		return engine.ErrUnavailable
	}
	return err
}

var errNoLink = errors.New("the bus has not been dialled yet")

const (
	statsEvery = 250 * time.Millisecond
	dialWait   = 30 * time.Second
)

func runWorker(ctx context.Context, srv *engine.Server, o Options) error {
	w, err := joinBus(ctx, srv, o, func(welcome supervise.Welcome) (engine.Listener, error) {
		return newShared(welcome.Listeners[0], welcome.Listen[0])
	})
	if err != nil {
		return err
	}
	if err := srv.Start(); err != nil {
		return err
	}
	if err := w.openMailbag(); err != nil {
		return err
	}
	control := w.control
	w.report() // the supervisor knows from the start whether this worker admits newcomers
	control.Ready("")
	serving, stop := context.WithCancel(ctx)
	defer stop()
	if o.Serving != nil {
		o.Serving(serving)
	}
	go control.Pulse(serving, srv.Healthy)
	return w.followOrders(serving)
}

// joinBus makes this process a member of the bus: everything but the start of its server, which accepts from listen's
// listener.
func joinBus(ctx context.Context, srv *engine.Server, o Options, listen func(supervise.Welcome) (engine.Listener, error)) (*worker, error) {
	control, err := supervise.Join()
	if err != nil {
		return nil, err
	}
	welcome := control.Welcome()
	given, err := parseInheritance(welcome)
	if err != nil {
		return nil, err
	}
	w := &worker{srv: srv, control: control, options: o}
	listener, err := listen(welcome)
	if err != nil {
		return nil, err
	}
	srv.Worker().Attach(membership.Membership{Instance: welcome.Instance, Bus: &w.bus, Listener: listener, Clientless: supervise.Role() == supervise.RoleAPI,
		BytesMax: given.BytesMax, Seats: seats{w}, Rooms: created{w}, Order: w.mail.ring})
	if err := w.dial(ctx, welcome, given); err != nil {
		return nil, err
	}
	if err := w.openLedger(ctx, given, welcome.Peers.Ready); err != nil {
		return nil, err
	}
	for _, d := range welcome.Peers.Dead {
		w.bus.link.Load().Forget(d.Instance) // its last batches may still arrive
		w.died(d)
	}
	w.order = welcome.Peers.Bus
	srv.Worker().Link.Peers(welcome.Peers.Peers)
	srv.Worker().Link.Serving(welcome.Peers.Ready)
	inherit(welcome.Settings, srv, o) // the reloads before this process was started
	return w, nil
}

// dial connects to the bus. If the bus is away it waits: five workers that end in a row would end the server.
func (w *worker) dial(ctx context.Context, welcome supervise.Welcome, given inheritance) error {
	bounded, cancel := context.WithTimeout(ctx, dialWait)
	defer cancel()
	to := bus.LinkOptions{
		URL:      "nats://" + welcome.Bus.Address,
		Instance: welcome.Instance,
		Password: welcome.Bus.Password,
		Peers:    onBus(welcome.Peers),
		Log:      w.options.Log,
	}
	if given.BusURL != "" {
		to.URL, to.External, to.File = given.BusURL, true, w.srv.Config().BusCredentials
	}
	link, err := bus.Dial(bounded, to, bus.Receiver{
		Batch: func(from ident.Worker, entries iter.Seq[[]byte]) {
			for entry := range entries {
				if err := w.srv.Worker().Receive(from, entry); err != nil {
					w.options.Log.Error("a message of another worker cannot be read; do all workers run the same version?", "worker", from, "err", err)
				}
			}
		},
		Lost: func(from ident.Worker, first, last uint64) {
			w.options.Log.Error("messages of another worker are lost on the bus", "worker", from, "first", first, "last", last)
			w.srv.Worker().Missed(from)
		},
		Gone: w.srv.Worker().Gone,
	})
	if err != nil {
		return err
	}
	w.bus.link.Store(link)
	return nil
}

// onBus are the members of the bus that have told it that they are ready.
func onBus(p supervise.Peers) []ident.Worker {
	list := slices.Clip(p.Ready)
	for _, other := range []ident.Worker{p.API, p.Bus} {
		if other != 0 {
			list = append(list, other)
		}
	}
	return list
}

// ordersBy notes which bus process orders messages. The stream of an earlier one ends, once there is a new one.
func (w *worker) ordersBy(instance ident.Worker) {
	if instance == 0 || instance == w.order {
		return
	}
	if w.order != 0 {
		w.bus.link.Load().Forget(w.order)
	}
	w.order = instance
}

// followOrders carries out the supervisor's orders, and reports figures, until it is told to drain.
func (w *worker) followOrders(ctx context.Context) error {
	stats := time.NewTicker(statsEvery)
	defer stats.Stop()
	var drain supervise.Drain
	var drained <-chan struct{} // nil until the clients are sent away one by one
	for {
		select {
		case <-stats.C:
			w.report()
		case <-drained:
			return w.leave(ctx, drain)
		case order := <-w.control.Orders():
			switch order := order.(type) {
			case supervise.Peers:
				w.srv.Worker().Link.Peers(order.Peers)
				w.srv.Worker().Link.Serving(order.Ready)
				w.ledger.Load().Peers(order.Ready)
				w.ordersBy(order.Bus)
				for _, d := range order.Dead {
					w.bus.link.Load().Forget(d.Instance)
					w.died(d)
				}
			case supervise.Reload:
				w.control.Reloaded(order, inherit(order.Settings, w.srv, w.options))
			case supervise.Drain:
				if order.Over == 0 {
					return w.leave(ctx, order)
				}
				drain, drained = order, w.drain(context.WithoutCancel(ctx), order.Over)
			}
		}
	}
}

func (w *worker) report() {
	w.fault.log(w.ledger.Load().Why(), w.options.Log)
	if err := w.control.Stats(w.stats()); err != nil {
		w.options.Log.Error("the figures of this worker cannot be reported to the supervisor", "err", err)
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

// drain begins to send the clients away one by one. The channel is closed when all have been told, or when the worker is told
// to drain again: then it must leave.
func (w *worker) drain(ctx context.Context, over time.Duration) <-chan struct{} {
	unhurried, stop := context.WithCancel(ctx)
	go func() {
		select {
		case <-w.control.Hurried():
		case <-unhurried.Done():
		}
		stop()
	}()
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		defer stop()
		if err := w.srv.Drain(unhurried, over); err != nil {
			w.options.Log.Error("the clients of this worker cannot be sent away", "err", err)
		}
	}()
	return drained
}

// leave sends all clients away, and closes the ledger and the link.
func (w *worker) leave(ctx context.Context, d supervise.Drain) error {
	bounded, cancel := w.control.Draining(context.WithoutCancel(ctx), d)
	defer cancel()
	if w.beforeLeave != nil {
		w.beforeLeave()
	}
	err := w.srv.Shutdown(bounded)
	w.mail.close()
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
