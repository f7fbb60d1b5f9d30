package cluster

import (
	"context"
	"fmt"
	"net"
	"os"
	"sync"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/engine/cluster/supervise"
)

// API is an HTTP API for backends, or whatever else answers on a port of its own. With several workers one more process
// serves it: a member of the bus without clients, which is started again like a worker. With one process it runs there.
//
// Owner: immutable once given.
type API struct {
	Address string // host:port; the port may be 0
	// Serve answers on l until ctx is done, and returns when the last request is answered, at most Config.ShutdownTimeout
	// later. It is called once in the process of the API. srv reaches all workers.
	Serve func(ctx context.Context, srv *engine.Server, l net.Listener) error
	// Operate is called before Serve, in the same process; nil: nothing.
	Operate func(o *Operator)
	// Ready is called with the API's address before Options.Ready, in the same process; nil: nothing.
	Ready func(addr net.Addr)
}

func (a *API) sayReady(addr net.Addr) {
	if a != nil && a.Ready != nil {
		a.Ready(addr)
	}
}

func (a *API) operate(x *Operator) {
	if a.Operate != nil {
		a.Operate(x)
	}
}

// runAPI is the api process.
func runAPI(ctx context.Context, srv *engine.Server, o Options) error {
	w, err := joinBus(ctx, srv, o, func(supervise.Welcome) (engine.Listener, error) { return newSilent(), nil })
	if err != nil {
		return err
	}
	welcome := w.control.Welcome()
	listener, err := inherited(welcome)
	if err != nil {
		return err
	}
	if err := srv.Start(); err != nil {
		return err
	}
	if err := w.openMailbag(); err != nil {
		return err
	}
	w.control.Ready("")
	serving, stop := context.WithCancel(ctx)
	defer stop()
	served := make(chan error, 1)
	o.API.operate(&Operator{srv: srv, control: w.control})
	go func() { served <- o.API.Serve(serving, srv, listener) }()
	go w.control.Pulse(context.WithoutCancel(ctx), srv.Healthy)
	w.beforeLeave = func() {
		stop()
		if err := <-served; err != nil {
			o.Log.Error("the HTTP API has ended with an error", "err", err)
		}
	}
	return w.followOrders(serving)
}

// inherited is the socket that the supervisor keeps open for the API, so that no dial is refused while the api process is
// started again. Only this process accepts from it, so that it may be non-blocking.
func inherited(welcome supervise.Welcome) (net.Listener, error) {
	file := welcome.Listeners[0]
	defer file.Close()
	l, err := net.FileListener(file)
	if err != nil {
		return nil, fmt.Errorf("take the listening socket of the API: %w", err)
	}
	return l, nil
}

// startAPI serves the API in the only process. The function that it returns stops it, and waits for its last requests.
func startAPI(ctx context.Context, srv *engine.Server, o Options) (stop func(), addr net.Addr, err error) {
	if o.API == nil {
		return func() {}, nil, nil
	}
	listener, err := net.Listen("tcp", o.API.Address)
	if err != nil {
		return nil, nil, supervise.ExplainListen(err, o.API.Address)
	}
	serving, cancel := context.WithCancel(context.WithoutCancel(ctx))
	served := make(chan error, 1)
	o.API.operate(Alone(srv))
	go func() { served <- o.API.Serve(serving, srv, listener) }()
	return func() {
		cancel()
		if err := <-served; err != nil {
			o.Log.Error("the HTTP API has ended with an error", "err", err)
		}
	}, listener.Addr(), nil
}

// silent is the listener of a server without clients: it accepts nothing until it is closed.
type silent struct {
	closed chan struct{}
	once   sync.Once
}

func newSilent() *silent { return &silent{closed: make(chan struct{})} }

// AcceptTCP implements [engine.Listener].
func (s *silent) AcceptTCP() (*net.TCPConn, error) {
	<-s.closed
	return nil, net.ErrClosed
}

// Addr implements [engine.Listener].
func (s *silent) Addr() net.Addr { return &net.TCPAddr{} }

// Close implements [engine.Listener].
func (s *silent) Close() error {
	err := os.ErrClosed
	s.once.Do(func() {
		close(s.closed)
		err = nil
	})
	return err
}
