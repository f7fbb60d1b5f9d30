package reactor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/panjf2000/gnet/v2"
	"github.com/panjf2000/gnet/v2/pkg/logging"
	"golang.org/x/sys/unix"

	"github.com/parleyd/parley/engine/internal/turn"
)

// The reactor hosts the loops on gnet: the only file that knows it. gnet reads and tells us when; we
// write to the descriptors ourselves, on their loops, so that its outbound buffer stays empty.
//
// gnet has no listener here: its own acceptor ends the whole engine when the file table is full. Its
// client starts the loops, and the acceptor enrols connections on them. Each loop has a doorbell: one end
// of a socket pair, enrolled like a connection. Ringing is writing a byte to the other end; it keeps
// order with input and needs none of gnet's task queues, which keep none among themselves.

// Reactor runs gnet's loops.
//
// Owner: immutable once started.
type Reactor struct {
	gnet.BuiltinEventEngine
	cfg      Config
	acceptor *acceptor
	client   *gnet.Client
	hosts    []*host
	writable *writableWatch
	stopped  chan struct{}
}

// host is one loop's outer world.
//
// Owner: immutable once started, except alarm, which is the loop's.
type host struct {
	reactor   *Reactor
	loop      *turn.Loop
	eventLoop gnet.EventLoop
	bell      *os.File // the end that is written to
	rope      syscall.RawConn
	alarm     *time.Timer // rings for the loop's timers; nil before the first
	pull      func(fd uintptr)
	vector    vector
	deputy    *deputy // nil where there are several loops
	uring     *uring  // nil where each write is a system call
}

// doorbell is the context of the enrolled end.
type doorbell struct{ host *host }

// Start runs the loops, and then accepts connections. Errors: the loops cannot be started, the address cannot be had.
func Start(cfg Config) (*Reactor, error) {
	r, err := startLoops(cfg)
	if err != nil {
		return nil, fmt.Errorf("start event loops: %w", err)
	}
	if cfg.Accepting != nil {
		cfg.Accepting()
	}
	if err := r.accept(); err != nil {
		r.stop()
		return nil, err
	}
	return r, nil
}

func startLoops(cfg Config) (*Reactor, error) {
	r := &Reactor{cfg: cfg, stopped: make(chan struct{})}
	cfg.Ground.Departed = r.Departed
	var err error
	if r.writable, err = startWritableWatch(cfg.Loops); err != nil {
		return nil, err
	}
	r.client, err = gnet.NewClient(r, gnet.WithNumEventLoop(len(cfg.Loops)),
		gnet.WithLogger(gnetLog{cfg.Ground}), gnet.WithLogLevel(logging.ErrorLevel))
	if err != nil {
		return nil, err
	}
	if err := r.client.Start(); err != nil {
		return nil, err
	}
	for _, l := range cfg.Loops {
		r.hosts = append(r.hosts, &host{reactor: r, loop: l})
	}
	if err := r.openUrings(); err != nil {
		r.stop()
		return nil, err
	}
	for i, l := range cfg.Loops {
		h := r.hosts[i]
		if len(cfg.Loops) == 1 {
			h.deputy = newDeputy(h)
			go h.deputy.run(r.stopped)
		}
		l.Wires = h
		if err := r.hang(h); err != nil {
			r.stop()
			return nil, err
		}
		h.Ring()
	}
	go r.ticker()
	return r, nil
}

// hang enrols a doorbell. The client chooses the loop with the fewest connections, so that one after
// another gives each loop its own.
func (r *Reactor) hang(h *host) error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return fmt.Errorf("make doorbell: %w", err)
	}
	h.bell = os.NewFile(uintptr(pair[0]), "bell") // blocking still, or Go's poller would hear of every answered ring
	for _, fd := range pair {
		unix.CloseOnExec(fd)
		if err := unix.SetNonblock(fd, true); err != nil {
			return fmt.Errorf("make doorbell: %w", err)
		}
	}
	if h.rope, err = h.bell.SyscallConn(); err != nil {
		return fmt.Errorf("make doorbell: %w", err)
	}
	h.pull = func(fd uintptr) { h.rang(func() error { _, err := unix.Write(int(fd), ringByte[:]); return err }) }
	file := os.NewFile(uintptr(pair[1]), "doorbell")
	conn, err := net.FileConn(file)
	file.Close()
	if err != nil {
		return fmt.Errorf("make doorbell: %w", err)
	}
	g, err := r.client.EnrollContext(conn, &doorbell{h})
	if err != nil {
		return fmt.Errorf("enrol doorbell: %w", err)
	}
	h.eventLoop = g.EventLoop()
	for _, other := range r.hosts {
		if other != h && other.eventLoop == h.eventLoop {
			return errors.New("enrol doorbell: two doorbells on one event loop")
		}
	}
	return nil
}

// ticker wakes the loops so that they look at their timers.
func (r *Reactor) ticker() {
	t := time.NewTicker(r.cfg.Ground.Tick)
	defer t.Stop()
	for {
		select {
		case <-r.stopped:
			return
		case <-t.C:
			for _, l := range r.cfg.Loops {
				l.Wake()
			}
		}
	}
}

// enrolment is how gnet tells that a connection is on its loop, or is not.
type enrolment = gnet.RegisteredResult

// enroll puts an accepted connection on its loop. The result arrives once it is there, or failed.
func (r *Reactor) enroll(c *turn.Conn, tcp *net.TCPConn) (<-chan enrolment, error) {
	return r.hosts[c.Loop.Index].eventLoop.Enroll(gnet.NewContext(context.Background(), c), tcp)
}

func (r *Reactor) stop() {
	select {
	case <-r.stopped:
		return
	default:
		close(r.stopped)
	}
	for _, h := range r.hosts {
		h.deputy.stop()
	}
	if err := r.client.Stop(); err != nil {
		r.cfg.Ground.Log.Error("the event loops cannot be stopped", "err", err)
	}
	r.writable.stop()
	r.closeUrings()
	for _, h := range r.hosts {
		if h.bell != nil {
			h.bell.Close()
		}
	}
}

// OnOpen begins a connection's life on its loop.
func (r *Reactor) OnOpen(g gnet.Conn) ([]byte, gnet.Action) {
	c, ok := g.Context().(*turn.Conn)
	if !ok {
		return nil, gnet.None
	}
	c.Handle, c.Fd = g, int32(g.Fd())
	tuneConn(int(c.Fd))
	d := r.hosts[c.Loop.Index].deputy
	defer d.leave(d.enter())
	if !c.Loop.Begin(c) {
		return nil, gnet.Close
	}
	return nil, gnet.None
}

// OnTraffic takes a connection's input, or answers the doorbell.
func (r *Reactor) OnTraffic(g gnet.Conn) (do gnet.Action) {
	returned := false
	defer r.cfg.MustReturn(&returned)
	do = r.onTraffic(g)
	returned = true
	return do
}

func (r *Reactor) onTraffic(g gnet.Conn) gnet.Action {
	chunk, err := g.Next(-1)
	if err != nil {
		return gnet.Close
	}
	switch to := g.Context().(type) {
	case *turn.Conn:
		d := r.hosts[to.Loop.Index].deputy
		entered := d.enter()
		if !to.Has(turn.FlagDropping) { // by the deputy
			to.Loop.Serve(to, chunk)
		}
		dropping := to.Has(turn.FlagDropping)
		if entered { // the bell of this loop is seldom rung
			to.Loop.NoteCPU()
		}
		d.leave(entered)
		if dropping {
			return gnet.Close
		}
	case *doorbell:
		d := to.host.deputy
		entered := d.enter()
		d.closeDropped()
		to.host.loop.Drain()
		to.host.loop.NoteCPU()
		d.leave(entered)
	}
	return gnet.None
}

// OnClose is the end of a connection's descriptor, whoever wanted it.
func (r *Reactor) OnClose(g gnet.Conn, _ error) gnet.Action {
	returned := false
	defer r.cfg.MustReturn(&returned)
	if c, ok := g.Context().(*turn.Conn); ok {
		d := r.hosts[c.Loop.Index].deputy
		entered := d.enter()
		c.Loop.Gone(c)
		d.leave(entered)
	}
	returned = true
	return gnet.None
}

// OnLoop reports whether the caller runs on an event loop. It looks through its own stack, some microseconds for calls
// that are rare: no loop knows the goroutine that it runs on.
func OnLoop() bool {
	pcs := make([]uintptr, 256)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	for {
		f, more := frames.Next()
		if strings.HasSuffix(f.Function, "reactor.(*Reactor).OnTraffic") || strings.HasSuffix(f.Function, "reactor.(*Reactor).OnClose") ||
			strings.HasSuffix(f.Function, "reactor.(*deputy).Drain") {
			return true
		}
		if !more {
			return false
		}
	}
}

func (h *host) Write(fd int, p []byte) (int, error) { return writeNow(fd, p) }

func (h *host) Writev(fd int, ps [][]byte) (int, error) { return h.vector.writeNow(fd, ps) }

func (h *host) Again(err error) bool {
	return err == unix.EAGAIN || err == unix.EINTR || err == unix.ENOBUFS || err == unix.ENOMEM
}

func (h *host) Shutdown(fd int) { unix.Shutdown(fd, unix.SHUT_WR) }

// Drop closes the descriptor. The connection whose input is being taken is closed by OnTraffic's return
// value instead: gnet still holds it.
func (h *host) Drop(c *turn.Conn) {
	if c == h.loop.Served {
		return
	}
	if g, ok := c.Handle.(gnet.Conn); ok && !h.deputy.drop(c) {
		h.eventLoop.Close(g)
	}
}

func (h *host) Watch(c *turn.Conn) { h.reactor.writable.watch(c) }

// Ring wakes the loop. A full pipe means that it has been rung often enough. The application may call when the
// server has stopped: the rope holds the descriptor for as long as it is pulled, and nothing else once it is closed.
func (h *host) Ring() {
	if !h.deputy.ring() {
		h.ringBell()
	}
}

func (h *host) ringBell() { h.rope.Control(h.pull) }

// rang rings once. Where that fails for another reason than a full pipe, the loop is not taken for rung: the next letter,
// or the next tick, rings again.
func (h *host) rang(write func() error) {
	err := write()
	for err == unix.EINTR {
		err = write()
	}
	if err != nil && err != unix.EAGAIN {
		h.loop.Mail.Rung.Store(false)
	}
}

// RingIn is called on the loop only.
func (h *host) RingIn(d time.Duration) {
	if h.alarm == nil {
		h.alarm = time.AfterFunc(d, h.loop.Wake)
		return
	}
	h.alarm.Reset(d)
}

var ringByte [1]byte

// gnetLog brings what gnet has to say into the server's log. Its warnings are of events for connections that
// the same turn has closed: nothing for an operator.
type gnetLog struct{ ground *turn.Ground }

func (g gnetLog) Debugf(format string, args ...any) {
	g.ground.Log.Debug("gnet: " + fmt.Sprintf(format, args...))
}
func (g gnetLog) Infof(format string, args ...any) {
	g.ground.Log.Debug("gnet: " + fmt.Sprintf(format, args...))
}
func (g gnetLog) Warnf(format string, args ...any) {
	g.ground.Log.Debug("gnet: " + fmt.Sprintf(format, args...))
}
func (g gnetLog) Errorf(format string, args ...any) {
	g.ground.Log.Error("gnet: " + fmt.Sprintf(format, args...))
}
func (g gnetLog) Fatalf(format string, args ...any) {
	g.ground.Log.Error("gnet: " + fmt.Sprintf(format, args...))
}
