package bus

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/parleyd/parley/protocol/ident"
)

// ServerOptions says how the bus process serves.
//
// Owner: immutable after Start.
type ServerOptions struct {
	Dir    string       // where JetStream keeps its files; it is made if it is not there
	Secret []byte       // makes the passwords; see Password
	Port   int          // on 127.0.0.1; 0 = choose one outside the range of ephemeral ports
	Local  bool         // no port at all: only LinkOptions.Local and Server.Connect reach it
	Log    *slog.Logger // nil = none
	// SyncInterval is how often JetStream syncs its files to the disk, against a crash of the machine (a crash of the
	// process alone loses no acknowledged write); 0 = 1 s.
	SyncInterval time.Duration
}

const (
	secretBytesMin = 16
	// pendingBytesMax is how much the server keeps for a worker that does not read; beyond it the server disconnects the
	// worker, which asks for the missed batches when it is back.
	pendingBytesMax = 32 << 20
	// memoryBytesMax is for streams kept in memory; the ledger has none.
	memoryBytesMax = 16 << 20
	writeDeadline  = 5 * time.Second
	// connsMax bounds the connections of strangers on this machine, who have no password: a worker has one connection.
	connsMax = 1024
	// authSeconds is generous: many workers may start at once on few cores.
	authSeconds         = 10
	startTimeout        = 30 * time.Second
	syncIntervalDefault = time.Second
	portAttempts        = 16
)

// Server is the embedded NATS server. It listens on loopback only, and each user can act only as itself. It keeps the
// ledger's streams in files, and stores nothing else. While the files cannot be written (the disk is full), stored records
// can still be read; the embedded server is started anew as soon as the files can be written: see mend.go.
//
// Owner: shared (mutex: mu).
type Server struct {
	opts ServerOptions
	log  *serverLog

	mu      sync.Mutex
	ns      *server.Server
	closing sync.Once
	stop    chan struct{} // closed by Close
	mended  chan struct{} // closed when mend has returned
}

// Start starts the server and returns when it takes connections and JetStream has read its files.
func Start(opts ServerOptions) (*Server, error) {
	if err := opts.complete(); err != nil {
		return nil, fmt.Errorf("start bus: %w", err)
	}
	if opts.Port != 0 || opts.Local {
		return start(opts)
	}
	// Another process may take the port before the server binds it.
	for range portAttempts - 1 {
		if s, err := startAnywhere(opts); err == nil || !errors.Is(err, errAddressInUse) {
			return s, err
		}
	}
	return startAnywhere(opts)
}

func startAnywhere(opts ServerOptions) (*Server, error) {
	port, err := choosePort()
	if err != nil {
		return nil, fmt.Errorf("start bus: %w", err)
	}
	opts.Port = port
	return start(opts)
}

func (o *ServerOptions) complete() error {
	if o.Dir == "" {
		return errors.New("no directory: name one to keep sessions and seats in")
	}
	if len(o.Secret) < secretBytesMin {
		return fmt.Errorf("secret of %d bytes is too short: give %d random ones", len(o.Secret), secretBytesMin)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.SyncInterval == 0 {
		o.SyncInterval = syncIntervalDefault
	}
	return nil
}

func start(opts ServerOptions) (*Server, error) {
	s := &Server{opts: opts, log: newServerLog(opts.Log), stop: make(chan struct{}), mended: make(chan struct{})}
	if err := s.launch(); err != nil {
		return nil, fmt.Errorf("start bus: %w", err)
	}
	go s.mend()
	return s, nil
}

// launch starts the embedded server, and returns when it serves.
func (s *Server) launch() error {
	opts := s.opts
	ns, err := server.NewServer(&server.Options{
		ServerName:                 "parley-bus",
		Host:                       loopback,
		Port:                       opts.Port,
		DontListen:                 opts.Local,
		NoSigs:                     true,
		CustomClientAuthentication: gate{opts.Secret},
		AuthTimeout:                authSeconds,
		MaxPayload:                 payloadBytesMax,
		MaxPending:                 pendingBytesMax,
		MaxConn:                    connsMax,
		WriteDeadline:              writeDeadline,
		JetStream:                  true,
		JetStreamMaxMemory:         memoryBytesMax,
		StoreDir:                   opts.Dir,
		SyncInterval:               opts.SyncInterval,
		DisableJetStreamBanner:     true,
	})
	if err != nil {
		return err
	}
	ns.SetLoggerV2(s.log, false, false, false)
	go ns.Start()
	if err := s.await(ns); err != nil {
		end(ns)
		return err
	}
	s.mu.Lock()
	s.ns = ns
	s.mu.Unlock()
	return nil
}

// await polls: the server reports a failed start only in its log.
func (s *Server) await(ns *server.Server) error {
	for deadline := time.Now().Add(startTimeout); time.Now().Before(deadline); {
		select {
		case why := <-s.log.fatal:
			return startError(why)
		case <-s.stop:
			return errClosed
		default:
		}
		if ns.ReadyForConnections(20*time.Millisecond) && ns.JetStreamEnabled() {
			return nil
		}
	}
	return fmt.Errorf("not ready after %v", startTimeout)
}

// Addr is where the server listens, as host:port; empty for a local one.
func (s *Server) Addr() string {
	if s.opts.Local {
		return ""
	}
	return net.JoinHostPort(loopback, strconv.Itoa(s.opts.Port))
}

// URL is the server's address for LinkOptions.URL.
func (s *Server) URL() string { return "nats://" + s.Addr() }

// Connect makes a connection inside this process, as the given instance: for the ledger of a server that is
// a single process and needs no link. The caller closes it.
func (s *Server) Connect(instance ident.Worker) (*nats.Conn, error) {
	options := connOptions(LinkOptions{Instance: instance, Password: Password(s.opts.Secret, instance)})
	nc, err := nats.Connect("", append(options, nats.InProcessServer(s))...)
	if err != nil {
		return nil, fmt.Errorf("connect to local bus: %w", err)
	}
	return nc, nil
}

// InProcessConn is for nats.go, which calls it whenever it connects anew.
func (s *Server) InProcessConn() (net.Conn, error) { return s.embedded().InProcessConn() }

func (s *Server) embedded() *server.Server {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ns
}

var errClosed = errors.New("the bus has been closed")

// Close ends all connections and waits until the files are closed.
func (s *Server) Close() {
	s.closing.Do(func() { close(s.stop) })
	<-s.mended
	end(s.embedded())
}

func end(ns *server.Server) {
	ns.Shutdown()
	ns.WaitForShutdown()
}
