package reactor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/parleyd/parley/engine/internal/turn"
)

// The acceptor is ours because gnet's ends the engine when the file table is full. It takes connections as
// long as there are descriptors for them, puts each on the loop with the fewest, and keeps a reserve of
// descriptors so that newcomers beyond max_connections still get a 503 instead of silence.

// reserve is how the descriptors that are no connections are shared out.
type reserve struct {
	total    int // kept free of connections
	refusals int // connections that are only told 503
	inFlight int // enrolments at once; each takes three descriptors for a moment
}

const (
	reserveMost   = 512
	reserveLeast  = 48
	acceptBackoff = 5 * time.Millisecond
	acceptPause   = 200 * time.Millisecond
	notSentLowat  = 16 << 10 // bytes; what the kernel hides of a slow reader's backlog
)

// Plan shares out the process's descriptors: how many connections there may be, and what is kept free of them for
// listeners, doorbells, enrolments, refusals, and the application's own files.
//
// Owner: immutable.
type Plan struct {
	ConnectionsMax int
	reserve        reserve
}

// Share plans for most connections, 0 for as many as there are descriptors for. hint says what to change where there are
// not enough of them.
func Share(most int) (p Plan, hint string, err error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return Plan{}, "", fmt.Errorf("read descriptor limit: %w", err)
	}
	files := int(min(limit.Cur, 1<<30))
	r := reserve{total: min(max(files/8, reserveLeast), reserveMost)}
	r.refusals = r.total / 4
	r.inFlight = max(r.total/8, 4)
	possible := files - r.total
	switch {
	case possible < 1:
		hint = fmt.Sprintf("the descriptor limit of %d is too low for any; raise it (ulimit -n, LimitNOFILE) to at least %d",
			files, 2*reserveLeast)
	case most == 0:
		most = possible
	case most > possible:
		hint = fmt.Sprintf("%d connections need %d descriptors, the limit is %d; raise it (ulimit -n) or give at most %d",
			most, most+r.total, files, possible)
	}
	return Plan{most, r}, hint, nil
}

// acceptor accepts connections on a goroutine of its own.
//
// Owner: its goroutine, except what is atomic.
type acceptor struct {
	reactor  *Reactor
	cfg      *Config
	reserve  reserve
	listener Listener
	lanes    []*lane
	held     atomic.Int64  // descriptors that are connections, refused ones too
	crowded  atomic.Int64  // of these, those that are refused because of their address
	saidFull atomic.Int64  // when this worker last said that it is full; 0: it is not, or has said so
	left     chan struct{} // a connection departed
	waits    atomic.Bool   // for a lane: landed is to be told
	landed   chan struct{} // a connection was enrolled
	closing  atomic.Bool
	closed   chan struct{}
	ended    chan struct{}
}

// accept begins to accept connections.
func (r *Reactor) accept() error {
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		raw.Control(func(fd uintptr) { err = tuneListener(int(fd)) })
		return err
	}, KeepAlive: -1}
	listener := r.cfg.Listener
	if listener == nil {
		own, err := config.Listen(context.Background(), "tcp", r.cfg.Address)
		if err != nil {
			return explainListen(err, r.cfg.Address)
		}
		listener = own.(*net.TCPListener)
	}
	a := &acceptor{reactor: r, cfg: &r.cfg, reserve: r.cfg.Plan.reserve, listener: listener,
		left: make(chan struct{}, 1), landed: make(chan struct{}, 1), closed: make(chan struct{}), ended: make(chan struct{})}
	r.acceptor = a
	for _, l := range r.cfg.Loops {
		x := &lane{loop: l, flying: make(chan flight, max(a.reserve.inFlight/len(r.cfg.Loops), 1))}
		a.lanes = append(a.lanes, x)
		go x.land(a)
	}
	go a.run()
	return nil
}

// explainListen says what to do about an address that cannot be had.
func explainListen(err error, address string) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("listen on %s: another process has this port; stop it or choose another port: %w", address, err)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("listen on %s: not allowed; choose a port above 1023: %w", address, err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("listen on %s: this machine has no such address; check host: %w", address, err)
	}
	return fmt.Errorf("listen on %s: %w", address, err)
}

// run accepts until the listener is closed.
func (a *acceptor) run() {
	defer close(a.ended)
	defer func() {
		for _, x := range a.lanes {
			close(x.flying)
		}
	}()
	pause := acceptBackoff
	for a.waitForPlace() {
		tcp, err := a.accept()
		if err == nil {
			pause = acceptBackoff
			a.take(tcp)
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		// The file table is full, or memory is short, or the peer was gone before we came. Those that are
		// connected go on; whoever waits in the listener's queue is served later.
		a.cfg.Count[turn.CountAcceptErrors].Add(1)
		if !errors.Is(err, syscall.ECONNABORTED) {
			a.cfg.Ground.Log.Warn("the server cannot accept a connection, and tries again; if descriptors are short, raise ulimit -n", "err", err, "again_in", pause)
			a.wait(pause)
			pause = min(2*pause, acceptPause)
		}
	}
}

// accept waits for a connection. A panic in the listener, which may be the application's, is an error like any other.
func (a *acceptor) accept() (tcp *net.TCPConn, err error) {
	defer func() {
		if v := recover(); v != nil {
			a.cfg.Ground.Survive("accepting connections", nil, v)
			err = fmt.Errorf("the listener panicked: %v", v)
		}
	}()
	if tcp, err = a.listener.AcceptTCP(); tcp == nil && err == nil {
		err = errors.New("the listener returned neither a connection nor an error")
	}
	return tcp, err
}

// waitForPlace waits while the next connection would have to be refused, or would meet loops that are stuck, and another
// worker has a place for it; and while even refusing would cost descriptors that there are not. It reports false once the
// acceptor is closed.
func (a *acceptor) waitForPlace() bool {
	for {
		held, most := a.held.Load(), int64(a.cfg.Plan.ConnectionsMax)
		a.sayFull(held >= most)
		switch {
		case held < most && !a.stuck():
			return true
		case held < most+int64(a.reserve.refusals) && !a.cfg.OthersAccept():
			return true
		}
		if !a.wait(lookFullEvery) {
			return false
		}
	}
}

// wait waits for a departure or for a lane, at most for d. It reports false once the acceptor is closed.
func (a *acceptor) wait(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-a.closed:
		return false
	case <-a.left:
	case <-a.landed:
	case <-t.C:
	}
	return true
}

// take puts a connection on a loop. A connection that has no remote address was reset by its peer while it waited: it is
// closed before it reaches gnet, whose enrolment asks for the address when it has copied the descriptor already.
func (a *acceptor) take(tcp *net.TCPConn) {
	var counted *turn.Conn // until its lane has it
	defer func() {
		if v := recover(); v != nil {
			a.cfg.Ground.Survive("taking a connection", nil, v)
			tcp.Close()
			if counted != nil {
				a.reactor.Departed(counted)
			}
		}
	}()
	remote, _ := tcp.RemoteAddr().(*net.TCPAddr)
	if remote == nil {
		tcp.Close()
		a.cfg.Count[turn.CountAcceptErrors].Add(1)
		return
	}
	best := a.lane()
	if best == nil {
		tcp.Close()
		return
	}
	c := a.cfg.Ground.NewConn(best.loop)
	c.SetRemote(unmapped(remote.AddrPort()))
	if a.cfg.Ground.Crowded(c) {
		if a.crowded.Load() >= int64(a.reserve.refusals) {
			tcp.Close() // the answer would cost others their places
			return
		}
		a.crowded.Add(1)
		c.Flags |= turn.FlagCrowded
	}
	if a.held.Add(1) > int64(a.cfg.Plan.ConnectionsMax) {
		c.Flags |= turn.FlagRefusal
		a.cfg.Count[turn.CountFull].Add(1)
	}
	best.loop.Load.Add(1)
	counted = c
	result, err := a.reactor.enroll(c, tcp)
	counted = nil
	if err != nil {
		tcp.Close()
		a.reactor.Departed(c)
		return
	}
	best.flying <- flight{c, result, a.cfg.Ground.Clock()}
}

// Departed is told when a connection's descriptor is closed. Any goroutine.
func (r *Reactor) Departed(c *turn.Conn) {
	c.Loop.Load.Add(-1)
	r.cfg.Ground.LeaveCrowd(c)
	a := r.acceptor
	if c.Has(turn.FlagCrowded) {
		a.crowded.Add(-1)
	}
	if a.held.Add(-1) < int64(r.cfg.Plan.ConnectionsMax) {
		a.sayFree() // the acceptor may be waiting for a connection, which full workers would refuse
	}
	select {
	case a.left <- struct{}{}:
	default:
	}
}

// Held is the number of descriptors that are connections, refused ones too. Any goroutine.
func (r *Reactor) Held() int { return int(r.acceptor.held.Load()) }

// InFlight is how many enrolments a loop may be behind with. Any goroutine.
func (r *Reactor) InFlight() int { return cap(r.acceptor.lanes[0].flying) }

// Addr is the address that connections come to.
func (r *Reactor) Addr() net.Addr { return r.acceptor.listener.Addr() }

// Close stops accepting. Any goroutine.
func (r *Reactor) Close() { r.acceptor.close() }

// WaitEmpty waits until the last connection has departed, and stops the loops. The error says how many were cut off
// because ctx was done first.
func (r *Reactor) WaitEmpty(ctx context.Context) error {
	err := r.acceptor.waitEmpty(ctx)
	r.stop()
	return err
}

func (a *acceptor) close() {
	if a.closing.CompareAndSwap(false, true) {
		close(a.closed)
		a.listener.Close()
	}
	<-a.ended
}

// waitEmpty waits until the last connection has departed.
func (a *acceptor) waitEmpty(ctx context.Context) error {
	for a.held.Load() > 0 {
		select {
		case <-ctx.Done():
			return fmt.Errorf("shut down: %d connections were cut off: %w", a.held.Load(), ctx.Err())
		case <-a.left:
		}
	}
	return nil
}

// unmapped takes the dress of IPv6 off an address of IPv4, which a listener for both puts on.
func unmapped(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }
