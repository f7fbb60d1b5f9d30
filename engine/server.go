package engine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net"
	"runtime/metrics"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/parleyd/parley/engine/internal/invariant"
	"github.com/parleyd/parley/engine/internal/reactor"
	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/engine/logs"
	"github.com/parleyd/parley/protocol/deflate"
	"github.com/parleyd/parley/protocol/frame"
	"github.com/parleyd/parley/protocol/handshake"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/protocol/message"
	"github.com/parleyd/parley/protocol/proxy"
	"github.com/parleyd/parley/rooms"
)

// Server is a WebSocket room server. Its methods are for any goroutine.
//
// Owner: immutable after New, except what is atomic or under mu.
type Server struct {
	cfg      Config
	log      *slog.Logger
	instance ident.Worker
	tuned    atomic.Pointer[tuned]
	ground   turn.Ground

	pendingBytesMax int
	connectionsMax  int

	clock    func() int64 // nanoseconds since the start
	wallBase atomic.Int64 // nanoseconds since the epoch at clock 0
	walltime func() time.Time
	entropy  func([]byte) // fills a slice with unguessable bytes

	mu              sync.Mutex
	routes          atomic.Pointer[map[string]*route]
	connectHandlers atomic.Pointer[[]ConnectHandler]
	authHandler     atomic.Pointer[AuthHandler]
	rawHandler      atomic.Pointer[RawHandler]
	filters         atomic.Pointer[map[string]Filter]
	emitter         *Emitter
	wishes          wishes // for events of other workers

	loops        []*loop
	index        *rooms.Index
	peers        *peers   // nil: the only worker
	listener     Listener // nil: the server opens its own
	sessions     *sessionMemory
	store        SessionStore
	storeApart   bool // the store is outside the process: saves are sent to it, and tokens name the worker that began a session
	saves        saveTimes
	unstoredSaid atomic.Int64 // when the log last said that the store takes no sessions
	untoldSaid   atomic.Int64 // when the log last said that other workers miss an entry
	pools        pools
	reactor      *reactor.Reactor // once it runs

	live      atomic.Int64 // admitted and not ended
	leaving   atomic.Bool
	receiving atomic.Bool // entries from other workers
	state     atomic.Int32
	count     turn.Counters          // of no single loop
	exited    atomic.Pointer[string] // the last handler that ended its goroutine
	rescues   bool                   // whether panics of ours are caught
	unproven  atomic.Int64           // caught panics after which the locks were not checked yet
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
		walltime:        time.Now,
		rescues:         !invariant.On,
		entropy:         func(b []byte) { rand.Read(b) },
	}
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
	started := time.Now()
	s.clock = func() int64 { return int64(time.Since(started)) }
	routes := builtinRoutes()
	s.routes.Store(&routes)
	for _, set := range settings {
		set(s)
	}
	s.assemble()
	return s, nil
}

const (
	pendingBytesLeast = 256 << 10
	answersBytesMost  = 256 << 10
)

// assemble makes the parts that depend on the settings.
func (s *Server) assemble() {
	var seed [32]byte
	s.entropy(seed[:])
	s.instance = ident.On(0, max(1, uint16(seed[0])<<8|uint16(seed[1])))
	s.resyncWall()
	s.log = s.GuardLog(s.log)
	s.layGround()
	s.index = rooms.NewIndex(s.cfg.Loops, rooms.Options{MaxMembers: s.cfg.MaxConnectionsPerRoom})
	s.sessions = newSessionMemory(s.cfg.ReconnectionTTL, s.cfg.ReconnectionMaxAttempts)
	s.store = memoryStore{s.sessions}
	s.pools = newPools(s.cfg.OffloadWorkers, func(v any) { s.survive("work that may block", nil, v) })
	for i := range s.cfg.Loops {
		seed[31] ^= byte(i) + 1
		l := newLoop(s, uint8(i), seed)
		l.Mail.Rung.Store(true) // the reactor's first ring comes later: letters that are posted now wait for it
		s.loops = append(s.loops, l)
	}
}

// layGround sets the transport's settings and callbacks.
func (s *Server) layGround() {
	cfg, g := &s.cfg, &s.ground
	g.Clock, g.Tick, g.Log = s.clock, tickOf(s.cfg), s.log
	g.NewConn, g.Departed, g.Seconds = newConn, func(c *turn.Conn) { c.Loop.Load.Add(-1) }, s.seconds
	g.Survive = func(where string, c *turn.Conn, v any) { s.survive(where, connOf(c), v) }
	g.Heartbeat = turn.RoomsHeartbeat
	if cfg.Bare {
		g.Heartbeat = turn.BareHeartbeat
	}
	g.Beats.Store(beatsOf(cfg))
	g.Limits = turn.Limits{
		Frame:     frame.Limits{MessageBytes: int64(cfg.MessageBytesMax), Fragments: cfg.MessageFragmentsMax},
		Head:      handshake.Limits{Bytes: cfg.HandshakeBytesMax, Headers: cfg.HandshakeFieldsMax},
		Handshake: cfg.HandshakeTimeout,
		Owner:     cfg.OffloadTimeout,
		Early:     s.pendingBytesMax,
		Answers:   min(cfg.BacklogSoftBytes, cfg.BacklogHardBytes/2, answersBytesMost),
		Soft:      cfg.BacklogSoftBytes,
		Hard:      cfg.BacklogHardBytes,
		Grace:     cfg.BacklogGrace,

		Preface:      cfg.ProxyProtocol,
		ProxyHeader:  cfg.ProxyHeader,
		Subprotocols: cfg.Subprotocols,
		Compression:  cfg.Compression,
		Deflate:      deflate.Options{ContextTakeover: cfg.CompressionContextTakeover},
	}
}

// tickOf is the interval at which the loops look at their timers: short enough for the shortest timeout.
func tickOf(cfg Config) time.Duration {
	shortest := min(cfg.HeartbeatInterval, cfg.HeartbeatTimeout-cfg.HeartbeatInterval,
		cfg.HandshakeTimeout, cfg.AuthTimeout, cfg.OffloadTimeout, cfg.BacklogGrace)
	return min(max(shortest/8, 5*time.Millisecond), 100*time.Millisecond)
}

// Start listens and serves in the background. With several workers, cluster.Run calls it in each. Errors: the address is not
// available.
//
// Scope: this worker.
func (s *Server) Start() error {
	if s.cfg.Processes > 1 && s.peers == nil {
		return &ConfigError{Key: "processes", Hint: "several workers are started by cluster.Run; or give 1"}
	}
	if s.cfg.DataDir != "" && !s.storeApart {
		return &ConfigError{Key: "data_dir", Hint: "sessions on disk are kept by cluster.Run; or leave it empty"}
	}
	if s.cfg.BusURL != "" && s.peers == nil {
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
		s.receiving.Store(false)
		return err
	}
	if len(s.Config().Origins) == 0 {
		s.log.Debug("pages of every origin may connect; if cookies authenticate, list the allowed ones in origins")
	}
	s.state.Store(stateRunning)
	s.emit(Event{Kind: EventStarted})
	s.meet()
	return nil
}

// meet asks the other workers for their counts, figures and wishes.
func (s *Server) meet() {
	s.sayWish(true)
	s.askCounts(0)
}

// startReactor runs the loops and accepts connections.
func (s *Server) startReactor(plan reactor.Plan) error {
	cfg := reactor.Config{
		Ground:   &s.ground,
		Count:    &s.count,
		Plan:     plan,
		Address:  net.JoinHostPort(s.cfg.Host, strconv.Itoa(max(s.cfg.Port, 0))),
		Listener: s.listener,
		// A client that is accepted and joins must not miss what other workers say from then on.
		Accepting:      func() { s.receiving.Store(true) },
		MustReturn:     s.mustReturn,
		OthersHaveRoom: s.othersHaveRoom,
	}
	for _, l := range s.loops {
		cfg.Loops = append(cfg.Loops, &l.Loop)
	}
	if s.peers != nil {
		cfg.SayFull = s.sayFull
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
	s.sendAway()
	err := s.reactor.WaitEmpty(ctx)
	for _, p := range s.pools.all() {
		p.close()
	}
	if s.peers != nil {
		s.peers.answering.close()
	}
	s.emit(Event{Kind: EventStopped})
	flushed, cancel := context.WithTimeout(ctx, logWait)
	defer cancel()
	logs.Flush(flushed, s.log) // later records are lost: the log is no longer read
	left <- err
}

// sendAway ends every connection because the server shuts down.
func (s *Server) sendAway() {
	for _, l := range s.loops {
		l.postCall(func(l *loop) { l.work(l.sendAway()) })
	}
}

// sendAway ends the loop's connections, one slot after the other.
func (l *loop) sendAway() steps {
	next, more := uint32(0), true
	return func(l *loop, until int64) bool {
		for more && l.srv.clock() <= until || next == 0 && more {
			left := partSize
			next, more = l.Slab.From(next, func(c *turn.Conn) bool {
				l.endBy(connOf(c), CauseShutdown)
				left--
				return left > 0
			})
		}
		return !more
	}
}

// Connections iterates over all open connections: the seed's getConnections. A connection that comes or goes meanwhile may
// be seen or missed. [Everywhere.FindFiltered] asks all workers. Any goroutine.
//
// Scope: this worker.
func (s *Server) Connections() iter.Seq[*Conn] {
	return func(yield func(*Conn) bool) {
		for _, l := range s.loops {
			if !l.each(func(c *Conn) bool { return !c.isOpen() || yield(c) }) {
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
	n := s.live.Load()
	if s.peers != nil {
		n += s.peers.figures.connections.Load()
	}
	return int(n)
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
	return s.FindConnections(func(c *Conn) bool { return c.hasAttribute(key, raw) })
}

// resyncWall reads the wall clock again: it may have been set.
func (s *Server) resyncWall() { s.wallBase.Store(s.walltime().UnixNano() - s.clock()) }

// seconds turns a time on the server's clock into seconds since the epoch.
func (s *Server) seconds(at int64) int64 { return (s.wallBase.Load() + at) / int64(time.Second) }

func (s *Server) wall(at int64) time.Time { return time.Unix(0, s.wallBase.Load()+at) }

func (s *Server) uptime() time.Duration { return time.Duration(s.clock()) }

// memoryUsage is the system memory of the Go runtime, in bytes.
func memoryUsage() uint64 {
	samples := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(samples)
	return samples[0].Value.Uint64() - samples[1].Value.Uint64()
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
		l.postCall(func(*loop) { turns <- struct{}{} })
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
