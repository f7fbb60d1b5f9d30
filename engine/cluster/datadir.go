package cluster

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/engine/cluster/bus"
	"github.com/parleyd/parley/engine/cluster/ledger"
)

// Where the bus keeps its files: under data_dir, so that sessions outlive the server, or in a directory that goes with it.

const (
	// lockWait is for a bus that starts while one before it is still ending: the server has waited for its predecessor.
	lockWait = 3 * time.Second
	// leaveSlack is what a leave-taking may exceed shutdown_timeout by: saves of sessions, the end of the workers and of the
	// bus.
	leaveSlack = 6 * time.Second
	lockRetry  = 20 * time.Millisecond
	// finishWait is for writing the sessions of those who have just been sent away.
	finishWait = 2 * time.Second
)

// busDir is the directory for the bus of a server, and what is to be done with it in the end.
func busDir(dataDir string) (dir string, end func(), err error) {
	if dataDir == "" {
		if dir, err = os.MkdirTemp("", "parley-bus-"); err != nil {
			return "", nil, fmt.Errorf("make a directory for the bus: %w; name one that can be written to in TMPDIR", err)
		}
		return dir, func() { os.RemoveAll(dir) }, nil
	}
	if dir, err = filepath.Abs(dataDir); err != nil {
		return "", nil, fmt.Errorf("find data_dir: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", nil, &engine.ConfigError{Key: "data_dir", Hint: fmt.Sprintf("%s cannot be made (%v); name a directory that this user may write to", dir, err)}
	}
	return dir, func() {}, nil
}

// patience is how long a server waits for data_dir: as long as its predecessor, with the same settings, may take to leave.
func patience(cfg engine.Config) time.Duration { return cfg.ShutdownTimeout + leaveSlack }

// remake makes the directory again where it was deleted while the server ran: what was in it the workers know. In a directory
// that everybody may write to, somebody else may have come first.
func remake(given inheritance) error {
	if err := os.MkdirAll(given.Dir, 0o700); err != nil {
		return fmt.Errorf("make the directory of the bus again: %w", err)
	}
	if given.Passing && !ours(given.Dir) {
		return fmt.Errorf("the directory of the bus, %s, belongs to another user: end the server, and name a directory in TMPDIR that only its user may write to", given.Dir)
	}
	return nil
}

// lock keeps two servers from writing to one directory, and cleaners of temporary files from its contents: some of these
// are never written again, and would be too old for systemd-tmpfiles after ten days. What it returns is to stay open for
// as long as the bus runs. A directory of another server is waited for, and then no mistake in the settings: starting
// again later may help. One that cannot be written to is a *[engine.ConfigError].
func lock(ctx context.Context, dir string, wait time.Duration, log *slog.Logger) (*os.File, error) {
	file, err := os.Open(dir)
	if err != nil {
		return nil, unusable(err)
	}
	retry := time.NewTicker(lockRetry)
	defer retry.Stop()
	said := false
	for deadline := time.Now().Add(wait); ; {
		err := lockFile(file)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			file.Close()
			return nil, ctx.Err()
		}
		if time.Now().After(deadline) {
			file.Close()
			return nil, fmt.Errorf("data_dir: %s is in use by another server (%w); stop that one, or name another directory", dir, err)
		}
		if !said {
			said = true
			log.Info("data_dir is in use by another server; waiting for it to leave", "dir", dir, "at most", wait)
		}
		<-retry.C
	}
	if err := bus.Unwritable(dir); err != nil {
		file.Close()
		return nil, unusable(err)
	}
	return file, nil
}

func unusable(err error) error {
	return &engine.ConfigError{Key: "data_dir", Hint: fmt.Sprintf("it cannot be written to (%v); name a directory that this user may write to, or give it to this user with all that it holds", err)}
}

// local is the ledger of a server that is one process: on a bus that nobody else can reach.
//
// Owner: the goroutine of Run.
type local struct {
	lock *os.File
	bus  *bus.Server
	conn *nats.Conn
	sessions
}

func openLocal(ctx context.Context, srv *engine.Server, o Options) (*local, error) {
	x := &local{}
	if err := x.open(ctx, srv, o); err != nil {
		x.close()
		return nil, err
	}
	srv.KeepSessions(x.sessions)
	return x, nil
}

func (x *local) open(ctx context.Context, srv *engine.Server, o Options) error {
	dir, _, err := busDir(srv.Config().DataDir)
	if err != nil {
		return err
	}
	if x.lock, err = lock(ctx, dir, patience(srv.Config()), o.Log); err != nil {
		return err
	}
	secret := make([]byte, 32)
	rand.Read(secret)
	if x.bus, err = bus.Start(bus.ServerOptions{Dir: dir, Secret: secret, Local: true, Log: o.Log}); err != nil {
		return err
	}
	if x.conn, err = x.bus.Connect(srv.Instance()); err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, openWait)
	defer cancel()
	if x.book, err = ledger.Open(bounded, x.conn, bookOptions(srv, time.Now().UnixMilli(), o)); err != nil {
		return fmt.Errorf("open ledger: %w", err)
	}
	return nil
}

// close ends what has been opened, the latest first.
func (x *local) close() {
	if x.book != nil {
		bounded, cancel := context.WithTimeout(context.Background(), finishWait)
		defer cancel()
		x.finish(bounded)
	}
	if x.conn != nil {
		x.conn.Close()
	}
	if x.bus != nil {
		x.bus.Close()
	}
	if x.lock != nil {
		x.lock.Close()
	}
}

// bookOptions are those of a ledger, whoever keeps it.
func bookOptions(srv *engine.Server, epoch int64, o Options) ledger.Options {
	return ledger.Options{
		Instance:   srv.Instance(),
		Epoch:      epoch,
		SessionTTL: srv.Config().ReconnectionTTL,
		Coalesce:   coalesce,
		Fault:      func(err error) { o.Log.Error("ledger", "err", err) },
		Say:        func(err error) { o.Log.Warn("the bus has lost its data", "what", err) },
		Lost:       srv.SaveSessions,
	}
}

// coalesce is what the ledger waits for further saves; the engine has waited before.
const coalesce = 10 * time.Millisecond
