// Package cluster makes several processes one server: `processes: N` workers on one port, a bus between them, and a
// supervisor that starts them and restarts them. An application needs one call:
//
//	srv, err := engine.New(engine.Config{Port: 9090, Processes: 4})
//	... handlers ...
//	err = cluster.Run(ctx, srv, cluster.Options{})
//
// The program's main runs once in every process, with the same arguments: code before Run must be safe to repeat. It must
// not, for example, open a file to write to it.
//
// What it refuses to do: know the meaning of a message (package engine), start and watch processes (package supervise),
// carry bytes between them (package bus), give the messages of rooms with history one order (package order), and store records that must outlive a process (package ledger).
//
// Start reading at [Run], then worker.go.
package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/engine/cluster/supervise"
	"github.com/parleyd/parley/engine/logs"
)

// Options are the settings of Run. The zero value works.
//
// Owner: immutable once given.
type Options struct {
	// Log is written to by a goroutine of its own, so that its handler may block: lines that the handler does not take in
	// time are dropped, and counted in the log. Nil means slog's default.
	Log *slog.Logger
	// Parent is called in the supervisor, before any process is started; it may keep the Overview, and serve it to
	// operators.
	Parent func(*Overview) error
	// Ready is called once all workers serve, with the address: in the supervisor, or in the only process. It must not
	// block.
	Ready func(addr net.Addr)
	// Reload is called on SIGHUP, in the supervisor or in the only process, and reads the configuration again: see
	// [Fresh]. An error leaves the configuration as it was. Nil: SIGHUP changes nothing.
	Reload func() (Fresh, error)
	// Adopt is called in every process, including the supervisor, with Fresh.Own, and returns the names of the settings
	// that it cannot change while the process runs.
	Adopt func(own json.RawMessage) (fixed []string)
	// Own are the program's settings for Adopt, in the form of Fresh.Own. Each child gets them when it starts, by the pipe on
	// which its secrets come, until a reload has others; nil: Adopt is called after reloads only.
	Own json.RawMessage
	// API is served beside the clients' port; nil: there is none.
	API *API
	// Serving is called in each process that has connections, when it begins to accept them; ctx is done when it stops.
	Serving func(ctx context.Context)
}

// Run serves until ctx is done, with as many workers as the server's configuration says, and shuts down. With one process
// there is no supervisor and no bus.
//
// In the supervisor and in the only process it returns nil after a shutdown that ctx asked for. In a child the process
// must end when Run has returned: the caller must not go on. [ExitCode] gives the exit code for the error.
func Run(ctx context.Context, srv *engine.Server, o Options) error {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	o.Log = logs.Queued(srv.GuardLog(o.Log))
	defer func() {
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), logWait)
		defer cancel()
		logs.Flush(bounded, o.Log)
	}()
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) // a log without a reader must not end the process
	switch supervise.Role() {
	case supervise.RoleBus:
		return runBus(ctx, srv, o)
	case supervise.RoleWorker:
		return runWorker(ctx, srv, o)
	case supervise.RoleAPI:
		return runAPI(ctx, srv, o)
	}
	run := runParent
	if srv.Config().Processes == 1 {
		run = runAlone
	}
	err := run(ctx, srv, o)
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil // asked to stop before it had started
	}
	return err
}

// logWait bounds how long Run waits for the log's handler at the end.
const logWait = time.Second

// Parent reports whether this process was started by the operator, and is not a child of the supervisor.
func Parent() bool { return supervise.Role() == "" }

// ExitCode is the code of a process that ends with err.
func ExitCode(err error) int { return supervise.ExitCode(err) }

// inheritance has the settings that the supervisor's children inherit from it.
//
// Owner: the holder.
type inheritance struct {
	Dir       string `json:"dir"`                 // of the bus's files
	Temporary bool   `json:"temporary,omitempty"` // the directory is deleted at the end of the server
	Epoch     int64  `json:"epoch"`               // when the supervisor started, in milliseconds since 1970: instances are unique within it
	Fresh     *Fresh `json:"fresh,omitempty"`     // the latest reload, or Options.Own

	BytesMax int    `json:"bytes_max,omitempty"` // of a message on an external bus
	BusURL   string `json:"bus_url,omitempty"`   // of an external bus, with its password: children get it in no other way; empty: the bus process is the bus
}

// first is what children adopt before any reload; nil for nothing.
func (o *Options) first(cfg engine.Config) *Fresh {
	if o.Own == nil {
		return nil
	}
	return &Fresh{Config: cfg, Own: o.Own}
}

func parseInheritance(welcome supervise.Welcome) (given inheritance, err error) {
	if err := json.Unmarshal(welcome.Settings, &given); err != nil {
		return given, fmt.Errorf("read settings: %w", err)
	}
	return given, nil
}

func runParent(ctx context.Context, srv *engine.Server, o Options) error {
	early := make(chan os.Signal, 1) // a SIGHUP before the supervisor listens would end the process
	signal.Notify(early, syscall.SIGHUP)
	defer signal.Stop(early)
	cfg := srv.Config()
	given := inheritance{Epoch: time.Now().UnixMilli(), Fresh: o.first(cfg)}
	if cfg.BusURL != "" {
		account, err := takeAccount(ctx, cfg, o)
		if err != nil {
			return err
		}
		defer account.Close()
		given.BytesMax, given.BusURL = account.BytesMax()-messageSlack, cfg.BusURL
	} else {
		dir, end, err := busDir(cfg.DataDir)
		if err != nil {
			return err
		}
		defer end()
		held, err := lock(ctx, dir, patience(cfg), o.Log) // here, so that a fault is logged once, before any child starts
		if err != nil {
			return err
		}
		held.Close() // the bus process takes the lock
		given.Dir, given.Temporary = dir, cfg.DataDir == ""
	}
	inherited, err := json.Marshal(given)
	if err != nil {
		return fmt.Errorf("encode settings: %w", err)
	}
	plan := supervise.Plan{
		Listen:  []string{net.JoinHostPort(cfg.Host, strconv.Itoa(max(cfg.Port, 0)))},
		Workers: cfg.Processes,
		Bus:     true, BusSilent: cfg.BusURL != "",
		Settings:     inherited,
		DrainTimeout: cfg.ShutdownTimeout,
		Log:          o.Log,
	}
	if o.API != nil {
		plan.API = o.API.Address
	}
	if o.Reload != nil {
		plan.Reload = func() (json.RawMessage, error) { return reread(srv, o, given) }
	}
	overview := new(Overview)
	overview.join(&plan)
	plan.Ready = func(supervise.Status) {
		signal.Stop(early)
		select {
		case <-early:
			syscall.Kill(os.Getpid(), syscall.SIGHUP) // again, since the settings were read before the first
		default:
		}
		o.API.sayReady(overview.APIAddr())
		if o.Ready != nil {
			o.Ready(overview.Addr())
		}
	}
	parent, err := supervise.New(plan)
	if err != nil {
		return err
	}
	overview.parent = parent
	if o.Parent != nil {
		if err := o.Parent(overview); err != nil {
			return err
		}
	}
	return parent.Run(ctx)
}
