// Package cluster makes several processes one server: `processes: N` workers on one port, a bus between them, and a
// parent that starts them and starts them again. A program of one's own gets all that in one call:
//
//	srv, err := engine.New(engine.Config{Port: 9090, Processes: 4})
//	... handlers ...
//	err = cluster.Run(ctx, srv, cluster.Options{})
//
// The same program runs once for each role, with the same arguments: what stands before Run must have no effect that
// may not happen several times, such as opening a file to write to it.
//
// What it refuses to do: know what a message means (package engine), how a process is started and watched (package
// supervise), how bytes get from one to another (package bus), and what must outlive a process (package ledger).
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
	"github.com/parleyd/parley/engine/cluster/bus"
	"github.com/parleyd/parley/engine/cluster/supervise"
	"github.com/parleyd/parley/engine/logs"
)

// Options are what Run can be told. The zero value works.
//
// Owner: immutable once given.
type Options struct {
	// Log is written to by a goroutine of its own, so that its handler may block: what it does not take in time is dropped,
	// and counted in the log. Nil means slog's default.
	Log *slog.Logger
	// Parent is called in the supervisor, before anything is started; it may keep what it is given, and serve it to
	// operators.
	Parent func(*Overview) error
	// Ready is called once everybody serves, with the address: in the supervisor, or in the only process. It must not block.
	Ready func(addr net.Addr)
	// Reload is called on SIGHUP, in the supervisor or in the only process, and reads the configuration again: see
	// [Fresh]. An error leaves everything as it was. Nil: SIGHUP changes nothing.
	Reload func() (Fresh, error)
	// Adopt is called in every process, the supervisor too, with Fresh.Own, and returns the names of what it cannot
	// change while the process runs.
	Adopt func(own json.RawMessage) (fixed []string)
	// Serving is called in each process that has connections, when it begins to take them; ctx is done when it stops.
	Serving func(ctx context.Context)
}

// Run serves until ctx is done, with as many workers as the server's configuration says, and takes its leave. With one
// process it is the server's own Run.
//
// In the supervisor it returns nil after a leave-taking that was asked for; in a child its return is followed by the
// process's end: the caller must not go on. [ExitCode] is what the process should end with.
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
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) // a log that has no reader any more is no reason to end
	switch supervise.Role() {
	case supervise.RoleBus:
		return runBus(ctx, o)
	case supervise.RoleWorker:
		return runWorker(ctx, srv, o)
	}
	run := runParent
	if srv.Config().Processes == 1 {
		run = runAlone
	}
	err := run(ctx, srv, o)
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil // asked to leave while it waited for what it needs
	}
	return err
}

// logWait bounds the wait for the log's reader at the end.
const logWait = time.Second

// Parent reports whether this process is the one that was started by hand, and not a child of it.
func Parent() bool { return supervise.Role() == "" }

// ExitCode is the code of a process that ends with err.
func ExitCode(err error) int { return supervise.ExitCode(err) }

// inheritance is what the supervisor's children are told besides who they are.
//
// Owner: the holder.
type inheritance struct {
	Dir     string `json:"dir"`               // of the bus's files
	Passing bool   `json:"passing,omitempty"` // the directory is there for one run of the server, and goes with it
	Epoch   int64  `json:"epoch"`             // when the supervisor started, in milliseconds since 1970: instances begin anew with it
	Fresh   *Fresh `json:"fresh,omitempty"`   // what was read again last

	BytesMax int    `json:"bytes_max,omitempty"` // of a message, where the bus is not ours
	BusURL   string `json:"bus_url,omitempty"`   // of it, with its password: it comes this way only
}

func inherited(welcome supervise.Welcome) (given inheritance, err error) {
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
	given := inheritance{Epoch: time.Now().UnixMilli()}
	if cfg.BusURL != "" {
		tenancy, err := occupy(ctx, cfg, o)
		if err != nil {
			return err
		}
		defer tenancy.Close()
		given.BytesMax, given.BusURL = tenancy.BytesMax()-messageSlack, cfg.BusURL
	} else {
		dir, end, err := busDir(cfg.DataDir)
		if err != nil {
			return err
		}
		defer end()
		held, err := lock(ctx, dir, patience(cfg), o.Log) // here, so that it is said once, and before anything is started
		if err != nil {
			return err
		}
		held.Close() // it is for the bus
		given.Dir, given.Passing = dir, cfg.DataDir == ""
	}
	legacy, err := json.Marshal(given)
	if err != nil {
		return fmt.Errorf("encode settings: %w", err)
	}
	plan := supervise.Plan{
		Listen:       []string{net.JoinHostPort(cfg.Host, strconv.Itoa(max(cfg.Port, 0)))},
		Workers:      cfg.Processes,
		Bus:          cfg.BusURL == "",
		Settings:     legacy,
		DrainTimeout: cfg.ShutdownTimeout,
		Log:          o.Log,
	}
	if o.Reload != nil {
		plan.Reload = func() (json.RawMessage, error) { return reread(srv, o, given) }
	}
	overview := new(Overview)
	plan.Gone = overview.gone
	plan.Ready = func(supervise.Status) {
		signal.Stop(early)
		select {
		case <-early:
			syscall.Kill(os.Getpid(), syscall.SIGHUP) // the settings were read before it; no error towards oneself
		default:
		}
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

// runBus is the process that carries what workers say to each other.
func runBus(ctx context.Context, o Options) error {
	control, err := supervise.Join()
	if err != nil {
		return err
	}
	welcome := control.Welcome()
	given, err := inherited(welcome)
	if err != nil {
		return err
	}
	port := 0
	if _, text, err := net.SplitHostPort(welcome.Bus.Address); err == nil {
		if port, err = strconv.Atoi(text); err != nil {
			return fmt.Errorf("read address of the bus: %w", err)
		}
	}
	if err := remake(given); err != nil {
		return err
	}
	held, err := lock(ctx, given.Dir, lockWait, o.Log)
	if err != nil {
		return err
	}
	defer held.Close()
	server, err := bus.Start(bus.ServerOptions{Dir: given.Dir, Secret: welcome.Bus.Secret, Port: port, Log: o.Log})
	if err != nil {
		return err
	}
	defer server.Close()
	control.Ready(server.Addr())
	go control.Pulse(ctx, func(context.Context) error { return control.Stats(busReport{ownProcess()}) })
	for order := range control.Orders() {
		switch order := order.(type) {
		case supervise.Reload:
			control.Reloaded(order, inherit(order.Settings, nil, o))
		case supervise.Drain:
			server.Close()
			if order.Orphaned && given.Passing {
				os.RemoveAll(given.Dir) // the supervisor would have
			}
			return nil
		}
	}
	return nil
}
