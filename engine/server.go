package engine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/parleyd/parley/engine/internal/budget"
	"github.com/parleyd/parley/engine/internal/fanout"
	"github.com/parleyd/parley/engine/internal/figures"
	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/engine/internal/guard"
	"github.com/parleyd/parley/engine/internal/invariant"
	"github.com/parleyd/parley/engine/internal/membership"
	"github.com/parleyd/parley/engine/internal/pending"
	"github.com/parleyd/parley/engine/internal/reactor"
	"github.com/parleyd/parley/engine/internal/session"
	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/engine/logs"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/protocol/message"
	"github.com/parleyd/parley/protocol/proxy"
)

// Server is a WebSocket room server. Its methods are for any goroutine.
//
// Owner: immutable after New, except what is atomic or under mu.
type Server struct {
	cfg    Config
	log    *slog.Logger
	tuned  atomic.Pointer[tuned]
	ground turn.Ground

	pendingBytesMax int
	connectionsMax  int

	time    turn.Time
	entropy func([]byte) // fills a slice with unguessable bytes

	mu              sync.Mutex
	routes          routes
	connectHandlers atomic.Pointer[[]ConnectHandler]
	authHandler     atomic.Pointer[AuthHandler]
	authOptional    atomic.Bool
	rawHandler      atomic.Pointer[RawHandler]
	filters         atomic.Pointer[map[string]Filter]
	policy          atomic.Pointer[Policy] // nil: all is allowed
	emitter         *Emitter
	remote          fleet.Listeners[RemoteEvent]

	loops    []*loop
	link     *fleet.Link
	waits    pending.Above
	rooms    *fanout.Rooms
	sessions *session.Sessions
	budget   *budget.Budget
	worker   *membership.Worker
	figures  figures.Source
	pools    pending.Pools
	reactor  *reactor.Reactor // once it runs

	leaving atomic.Bool
	state   atomic.Int32
	count   turn.Counters // of no single loop
	guard   guard.Guard
}

const (
	stateNew = iota
	stateStarting
	stateRunning
	stateStopped
)

// Listener is where connections come from: a *net.TCPListener, or a socket that several workers share. A connection
// without a remote address (its peer has reset it) is closed by the server and counted in accept_errors.
type Listener = reactor.Listener

// Setting changes a property that a Config cannot hold.
type Setting func(*Server)

// WithEmitter sets the emitter, which several servers may share: the seed's setEventEmitter.
func WithEmitter(e *Emitter) Setting { return func(s *Server) { s.emitter = e } }

// WithLogger makes the server log to l instead of slog's default. From Start on, records wait in a bounded queue for l's
// handler, which runs on a goroutine of its own and may block: an event loop never waits for it. Records that do not fit are
// dropped, and the log says how many. Shutdown waits up to a second for the handler. A panic in the handler loses the
// record.
func WithLogger(l *slog.Logger) Setting { return func(s *Server) { s.log = l } }

// New makes a server that does not listen yet. The error is a *[ConfigError].
func New(cfg Config, settings ...Setting) (*Server, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Server{
		cfg:     cfg,
		log:     slog.Default(),
		emitter: NewEmitter(),

		pendingBytesMax: max(pendingBytesLeast, 2*cfg.MessageBytesMax),
		entropy:         func(b []byte) { rand.Read(b) },
	}
	s.guard.Ground, s.guard.Panics, s.guard.Walk = &s.ground, &s.count[figures.CountPanics], s.walkLocks
	s.guard.Rescues, s.guard.LockWait = !invariant.On, 5*time.Second
	t, err := newTuned(cfg)
	if err != nil {
		return nil, err
	}
	s.tuned.Store(t)
	if len(cfg.TrustedProxies) > 0 {
		if s.ground.Trust, err = proxy.NewTrust(cfg.TrustedProxies); err != nil {
			return nil, &ConfigError{Key: "trusted_proxies", Hint: err.Error()}
		}
	}
	s.time.Walltime = time.Now
	started := time.Now()
	s.time.Now = func() int64 { return int64(time.Since(started)) }
	routes := builtinRoutes()
	s.routes.list.Store(&routes)
	for _, set := range settings {
		set(s)
	}
	s.assemble()
	return s, nil
}

const (
	pendingBytesLeast = 256 << 10
	answersBytesMost  = 256 << 10
	answerers         = 2 // goroutines for long answers to other workers
)

// assemble makes the parts that depend on the settings.
func (s *Server) assemble() {
	var seed [32]byte
	s.entropy(seed[:])
	self := ident.On(0, max(1, uint16(seed[0])<<8|uint16(seed[1])))
	s.time.Resync()
	s.log = s.GuardLog(s.log)
	s.layGround()
	s.layFloors(self)
	s.pools = pending.NewPools(s.cfg.OffloadWorkers, answerers, func(where string, v any) { s.guard.Survive(where, nil, v) })
	for i := range s.cfg.Loops {
		seed[31] ^= byte(i) + 1
		l := newLoop(s, uint8(i), seed)
		l.Mail.Rung.Store(true) // the reactor's first ring comes later: letters that are posted now wait for it
		s.loops, s.rooms.Loops = append(s.loops, l), append(s.rooms.Loops, &l.Loop.Loop)
	}
}

// Start listens and serves in the background. With several workers, cluster.Run calls it in each. Errors: the address is not
// available.
//
// Scope: this worker.
func (s *Server) Start() error {
	if s.cfg.Processes > 1 && s.link.Alone() {
		return &ConfigError{Key: "processes", Hint: "several workers are started by cluster.Run; or give 1"}
	}
	if s.cfg.DataDir != "" && !s.sessions.Apart() {
		return &ConfigError{Key: "data_dir", Hint: "sessions on disk are kept by cluster.Run; or leave it empty"}
	}
	if s.cfg.BusURL != "" && s.link.Alone() {
		return &ConfigError{Key: "bus_url", Hint: "several workers are started by cluster.Run; or leave it empty"}
	}
	if !s.state.CompareAndSwap(stateNew, stateStarting) {
		return errors.New("start server: it was started before")
	}
	s.log = logs.Queued(s.log)
	s.ground.Log = s.log // loops log, and must not wait for the log's handler
	plan, hint, err := reactor.Share(s.cfg.MaxConnections)
	switch {
	case err != nil:
		return err
	case hint != "":
		return &ConfigError{Key: "max_connections", Hint: hint}
	}
	s.connectionsMax = plan.ConnectionsMax
	if err := s.startReactor(plan); err != nil {
		s.worker.Receiving.Store(false)
		return err
	}
	if len(s.Config().Origins) == 0 {
		s.log.Debug("pages of every origin may connect; if cookies authenticate, list the allowed ones in origins")
	}
	s.state.Store(stateRunning)
	s.emit(Event{Kind: EventStarted})
	s.worker.Meet()
	return nil
}

// startReactor runs the loops and accepts connections.
func (s *Server) startReactor(plan reactor.Plan) error {
	cfg := reactor.Config{
		Ground:   &s.ground,
		Count:    &s.count,
		Plan:     plan,
		Sends:    s.cfg.Sends,
		Address:  net.JoinHostPort(s.cfg.Host, strconv.Itoa(max(s.cfg.Port, 0))),
		Listener: s.worker.Listener,
		// A client that is accepted and joins must not miss what other workers say from then on.
		Accepting:    func() { s.worker.Receiving.Store(true) },
		MustReturn:   s.guard.MustReturn,
		OthersAccept: func() bool { return s.worker.Listener != nil && s.link.OthersAccept() },
	}
	for _, l := range s.loops {
		cfg.Loops = append(cfg.Loops, l.Base())
	}
	if !s.link.Alone() {
		cfg.SayFull = s.link.SayFull
	}
	r, err := reactor.Start(cfg)
	if err != nil {
		return err
	}
	s.reactor = r
	return nil
}

// Run starts the server, serves until ctx is done, and shuts down: [Server.Shutdown].
//
// Scope: this worker.
func (s *Server) Run(ctx context.Context) error {
	if err := s.Start(); err != nil {
		return err
	}
	<-ctx.Done()
	bounded, cancel := context.WithTimeout(context.Background(), s.cfg.ShutdownTimeout)
	defer cancel()
	return s.Shutdown(bounded)
}

// Addr is the address that the server listens on; nil before Start.
func (s *Server) Addr() net.Addr {
	if s.state.Load() < stateRunning {
		return nil
	}
	return s.reactor.Addr()
}

// Emitter is the server's emitter; [Everywhere.OnEvent] has the events of all workers.
//
// Scope: this worker.
func (s *Server) Emitter() *Emitter { return s.emitter }

// logWait bounds the wait for the log's handler.
const logWait = time.Second

// stopWait is how long Shutdown waits for the loops to stop once its context is done: some milliseconds, unless a
// handler holds one.
const stopWait = 500 * time.Millisecond

// Shutdown stops accepting, closes all connections with 1001, and waits until they have left or ctx is done; then it cuts
// off the others. If a handler holds a loop, Shutdown returns after ctx, and the rest goes on in the background. On a loop
// it does not wait, because the loop would wait for itself: it returns [ErrOnLoop] and shuts down in the background. A
// second call waits for nothing. Any goroutine.
//
// Scope: this worker.
func (s *Server) Shutdown(ctx context.Context) error {
	if !s.state.CompareAndSwap(stateRunning, stateStopped) {
		return nil
	}
	left := make(chan error, 1)
	if reactor.OnLoop() {
		background, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.ShutdownTimeout)
		go func() {
			defer cancel()
			s.leave(background, left)
		}()
		return fmt.Errorf("shut down: %w; it goes on in the background", ErrOnLoop)
	}
	go s.leave(ctx, left)
	select {
	case err := <-left:
		return err
	case <-ctx.Done():
	}
	late := time.NewTimer(stopWait)
	defer late.Stop()
	select {
	case err := <-left:
		return err
	case <-late.C:
		return fmt.Errorf("shut down: a handler holds its loop, which stops when the handler returns: %w", ctx.Err())
	}
}

// leave ends all connections and stops the loops.
func (s *Server) leave(ctx context.Context, left chan<- error) {
	s.leaving.Store(true)
	s.reactor.Close()
	sendAway(s)
	err := s.reactor.WaitEmpty(ctx)
	for _, p := range s.pools.All() {
		p.Close()
	}
	s.emit(Event{Kind: EventStopped})
	flushed, cancel := context.WithTimeout(ctx, logWait)
	defer cancel()
	logs.Flush(flushed, s.log) // later records are lost: the log is no longer read
	left <- err
}

// Drain stops accepting, and closes the connections with 1012 evenly over a time, so that their clients do not all come to
// other workers at once. It returns when the last one has been told, or when ctx is done; then comes [Server.Shutdown].
// Until a client is told, the server serves it. Errors: [ErrOnLoop]. Any goroutine that may block.
//
// Scope: this worker.
func (s *Server) Drain(ctx context.Context, over time.Duration) error {
	switch {
	case reactor.OnLoop():
		return fmt.Errorf("drain: %w", ErrOnLoop)
	case s.state.Load() != stateRunning:
		return nil
	}
	s.reactor.Close()
	done := make(chan struct{}, len(s.loops))
	s.drain(over, func() { done <- struct{}{} })
	for range s.loops {
		select {
		case <-done:
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

// drain ends the connections of each loop evenly over a time, and calls done on each loop that has ended its own.
func (s *Server) drain(over time.Duration, done func()) {
	for _, l := range s.loops {
		l.PostCall(func() { l.EndEvenly(CauseDrain, over, done) })
	}
}

// sendAway ends every connection because the server shuts down.
func sendAway(s *Server) {
	s.rooms.Crowd.Store(s.rooms.Open.Load())
	for _, l := range s.loops {
		l.PostCall(func() { l.EndAll(CauseShutdown) })
	}
}

// Connections iterates over all open connections: the seed's getConnections. A connection that comes or goes meanwhile may
// be seen or missed. [Everywhere.FindFiltered] asks all workers. Any goroutine.
//
// Scope: this worker.
func (s *Server) Connections() iter.Seq[*Conn] {
	return func(yield func(*Conn) bool) {
		for _, l := range s.loops {
			if !l.Slab.Each(func(t *turn.Conn) bool { c := connOf(t); return !c.isOpen() || yield(c) }) {
				return
			}
		}
	}
}

// ConnectionCount is the number of open connections: the seed's getConnectionCount. Clients that have not authenticated yet
// do not count. The numbers of other workers are a fraction of a second old; [Everywhere.ConnectionCount] asks them, and
// [Server.StatsHere] has this worker's own. Any goroutine.
//
// Scope: all workers.
func (s *Server) ConnectionCount() int {
	return int(s.rooms.Open.Load() + s.link.ConnectionsAway())
}

// FindConnections returns the open connections that chosen accepts. [Everywhere.FindFiltered] asks all workers. Any goroutine.
//
// Scope: this worker.
func (s *Server) FindConnections(chosen func(*Conn) bool) []*Conn {
	var list []*Conn
	for c := range s.Connections() {
		if chosen(c) {
			list = append(list, c)
		}
	}
	return list
}

// FindByAttribute returns the open connections whose attribute has a value, compared as JSON. It returns none for a value
// that cannot be encoded. [Everywhere.FindByAttribute] asks all workers. Any goroutine.
//
// Scope: this worker.
func (s *Server) FindByAttribute(key string, value any) []*Conn {
	raw, err := message.Encode(nil, value)
	if err != nil {
		return nil
	}
	return s.FindConnections(func(c *Conn) bool { return c.wire.HasAttribute(key, raw) })
}

// Healthy asks every loop for a turn and waits until all have taken one. The error names a loop that took none before ctx
// was done, or says that the server is not running, or that the caller is on a loop itself ([ErrOnLoop]). Any goroutine.
//
// Scope: this worker.
func (s *Server) Healthy(ctx context.Context) error {
	if reactor.OnLoop() {
		return ErrOnLoop
	}
	if s.state.Load() != stateRunning {
		return errors.New("the server is not running")
	}
	turns := make(chan struct{}, len(s.loops))
	for _, l := range s.loops {
		l.PostCall(func() { turns <- struct{}{} })
	}
	for range s.loops {
		select {
		case <-turns:
		case <-ctx.Done():
			return errors.New("a loop has not taken a turn in time: a handler holds it")
		}
	}
	return nil
}
