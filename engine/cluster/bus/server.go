package bus

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
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
	// SyncInterval is how often JetStream makes the files safe against the machine's fall (the process's own
	// fall loses nothing that it acknowledged); 0 = 1 s.
	SyncInterval time.Duration
}

const (
	secretBytesMin = 16
	// pendingBytesMax is what the server keeps for a worker that does not read; beyond it the worker is cut
	// off, and asks for what it missed when it is back.
	pendingBytesMax = 32 << 20
	// memoryBytesMax is for streams kept in memory, of which the ledger has none.
	memoryBytesMax = 16 << 20
	writeDeadline  = 5 * time.Second
	// authSeconds: many workers may start at once on few cores.
	authSeconds         = 10
	startTimeout        = 30 * time.Second
	syncIntervalDefault = time.Second
	portAttempts        = 16
)

// Server is the embedded NATS server. It listens on loopback only, and each user can only be itself. It
// keeps the streams that the ledger makes in files, and nothing else.
type Server struct {
	ns   *server.Server
	opts ServerOptions
}

// Start starts the server and returns when it takes connections and JetStream has read its files, or why
// that cannot be.
func Start(opts ServerOptions) (*Server, error) {
	if err := opts.complete(); err != nil {
		return nil, fmt.Errorf("start bus: %w", err)
	}
	if opts.Port != 0 || opts.Local {
		return start(opts)
	}
	// Between the choice and the server's own bind, somebody else may take the port.
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
		return errors.New("no directory: name one where sessions and seats are kept")
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
	log := &serverLog{log: opts.Log, fatal: make(chan string, 1)}
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
		WriteDeadline:              writeDeadline,
		JetStream:                  true,
		JetStreamMaxMemory:         memoryBytesMax,
		StoreDir:                   opts.Dir,
		SyncInterval:               opts.SyncInterval,
		DisableJetStreamBanner:     true,
	})
	if err != nil {
		return nil, fmt.Errorf("start bus: %w", err)
	}
	ns.SetLoggerV2(log, false, false, false)
	go ns.Start()
	s := &Server{ns, opts}
	if err := s.await(log.fatal); err != nil {
		s.Close()
		return nil, fmt.Errorf("start bus: %w", err)
	}
	return s, nil
}

// await polls, since the server says only in its log why it cannot start.
func (s *Server) await(fatal <-chan string) error {
	for deadline := time.Now().Add(startTimeout); time.Now().Before(deadline); {
		select {
		case why := <-fatal:
			return startError(why)
		default:
		}
		if s.ns.ReadyForConnections(20*time.Millisecond) && s.ns.JetStreamEnabled() {
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

// URL is what LinkOptions.URL wants.
func (s *Server) URL() string { return "nats://" + s.Addr() }

// Connect makes a connection inside this process, as the given instance: for the ledger of a server that is
// a single process and needs no link. The caller closes it.
func (s *Server) Connect(instance uint16) (*nats.Conn, error) {
	options := connOptions(LinkOptions{Instance: instance, Password: Password(s.opts.Secret, instance)})
	nc, err := nats.Connect("", append(options, nats.InProcessServer(s.ns))...)
	if err != nil {
		return nil, fmt.Errorf("connect to local bus: %w", err)
	}
	return nc, nil
}

// Close ends all connections and waits until the files are closed.
func (s *Server) Close() {
	s.ns.Shutdown()
	s.ns.WaitForShutdown()
}
