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

// The bus keeps its files in data_dir, so that sessions outlive the server, or in a temporary directory.

const (
	// lockWait is how long a bus waits for the end of an earlier bus of the same server.
	lockWait = 3 * time.Second
	// leaveSlack is by how much a shutdown may exceed shutdown_timeout: for saving sessions, and for the end of the workers
	// and of the bus.
	leaveSlack = 6 * time.Second
	lockRetry  = 20 * time.Millisecond
	// finishWait is how long a shutdown waits for the last writes to the ledger.
	finishWait = 2 * time.Second
)

// busDir makes the directory for the bus of a server. end deletes it, if it is temporary.
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

// patience is how long a server waits for data_dir: as long as an earlier server with the same settings may take to stop.
func patience(cfg engine.Config) time.Duration { return cfg.ShutdownTimeout + leaveSlack }

// restoreDir makes the directory again if it was deleted while the server ran; the workers write its records again. In a
// shared directory such as /tmp, another user may have made one of the same name meanwhile.
func restoreDir(given inheritance) error {
	if err := os.MkdirAll(given.Dir, 0o700); err != nil {
		return fmt.Errorf("make the directory of the bus again: %w", err)
	}
	if given.Temporary && !ours(given.Dir) {
		return fmt.Errorf("the directory of the bus, %s, belongs to another user: end the server, and name a directory in TMPDIR that only its user may write to", given.Dir)
	}
	return nil
}

// lock keeps two servers from writing to one directory, and cleaners from deleting its files: systemd-tmpfiles deletes
// files that were not written for ten days, but spares a locked directory. The file must stay open for as long as the bus
// runs. If another server holds the lock after wait, the error is no *[engine.ConfigError]: a later start may succeed. If
// the directory cannot be written to, it is one.
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
	return &engine.ConfigError{Key: "data_dir", Hint: fmt.Sprintf("it cannot be written to (%v); name a directory that this user may write to, or make this user the owner of it and of all files in it", err)}
}

// local is the ledger of a server of one process, on a bus that no other process can reach.
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
	srv.Worker().Sessions.KeepSessions(x.sessions)
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
	if x.conn, err = x.bus.Connect(srv.Worker().Link.Self); err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, openWait)
	defer cancel()
	if x.ledger, err = ledger.Open(bounded, x.conn, ledgerOptions(srv, time.Now().UnixMilli(), o)); err != nil {
		return fmt.Errorf("open ledger: %w", err)
	}
	return nil
}

// close closes in the reverse order of open.
func (x *local) close() {
	if x.ledger != nil {
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

// ledgerOptions are the options that a worker and a server of one process share.
func ledgerOptions(srv *engine.Server, epoch int64, o Options) ledger.Options {
	return ledger.Options{
		Instance:   srv.Worker().Link.Self,
		Epoch:      epoch,
		SessionTTL: srv.Config().ReconnectionTTL,
		Coalesce:   coalesce,
		Fault:      func(err error) { o.Log.Error("a record of sessions, seats or created rooms has a fault", "err", err) },
		Say: func(err error) {
			o.Log.Warn("the bus has lost its data: the workers write their sessions, seats and created rooms again", "what", err)
		},
		Lost: srv.Worker().Sessions.SaveSessions,
	}
}

// coalesce is how long the ledger waits for further saves; the engine has waited before.
const coalesce = 10 * time.Millisecond
