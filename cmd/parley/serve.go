package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime/debug"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/spf13/cobra"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/engine/admin"
	"github.com/parleyd/parley/engine/cluster"
	"github.com/parleyd/parley/engine/logs"
)

func newServe() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve rooms over WebSocket",
		Long: "Serve rooms over WebSocket. Every setting is a flag, a variable (" + envPrefix + "HEARTBEAT_INTERVAL) or a line\n" +
			"of the file given by --config (heartbeat_interval: 30); flags win over variables, variables over the file.",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			outliveOutput()
			s, _, err := load(cmd)
			if err != nil {
				return err
			}
			if err := serve(cmd, s); err != nil {
				return s.logged(err)
			}
			return nil
		},
	}
	addFlags(cmd)
	return cmd
}

// serve runs the room server until the command's context is done: alone, or as the parent of several workers or one of
// its children.
func serve(cmd *cobra.Command, s *settings) error {
	s.settle()
	log, level := newLog(s)
	defer flush(func(ctx context.Context) error { return logs.Flush(ctx, log) })
	stdout := logs.NewWriter(cmd.OutOrStdout(), nil) // the supervisor's goroutine must not wait for a reader
	defer flush(stdout.Flush)
	for _, note := range s.notes {
		log.Warn(note)
	}
	if cluster.Parent() {
		s.announce(log)
	}
	limitMemory(log, s.Processes)
	srv, err := engine.New(s.Config, engine.WithLogger(log))
	if err != nil {
		return err
	}
	registerChat(srv)
	if cluster.Parent() && s.Processes > 1 {
		if err := handOn(s); err != nil {
			return err
		}
	}
	var page *admin.Admin
	show := func(source admin.Source) (err error) {
		page, err = admin.New(source, admin.Options{Host: s.AdminHost, Port: s.AdminPort, Log: log})
		return err
	}
	if s.Processes == 1 {
		if err := show(srv); err != nil {
			return err
		}
	}
	defer func() {
		if page != nil {
			page.Close()
		}
	}()
	err = cluster.Run(cmd.Context(), srv, cluster.Options{
		Log:     log,
		Parent:  func(o *cluster.Overview) error { return show(o) },
		Serving: func(ctx context.Context) { followLoad(ctx, srv) },
		Reload:  func() (cluster.Fresh, error) { return reread(cmd) },
		Adopt:   func(raw json.RawMessage) []string { return s.adopt(raw, level, log) },
		Ready: func(addr net.Addr) {
			s.sayReady(stdout, addr, page.Addr())
		},
	})
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return nil // connections that had not ended in time were cut off: no failure of the server
	case err != nil && cluster.ExitCode(err) == exitUsage:
		return usageError{err}
	}
	return err
}

// own are the settings of the command, unknown to the engine.
//
// Owner: the holder.
type own struct {
	AdminHost, LogLevel, LogFormat string
	AdminPort                      int
}

func (s *settings) own() own { return own{s.AdminHost, s.LogLevel, s.LogFormat, s.AdminPort} }

// reread loads the settings again, from the command line, the environment and the file.
func reread(cmd *cobra.Command) (cluster.Fresh, error) {
	s, _, err := load(cmd)
	if err != nil {
		return cluster.Fresh{}, err
	}
	if s.empty != "" { // an editor or a full disk has emptied the file: the operator does not want all the defaults
		return cluster.Fresh{}, fmt.Errorf("%s holds no setting: write the settings that you want", s.empty)
	}
	s.settle()
	raw, err := json.Marshal(s.own())
	return cluster.Fresh{Config: s.Config, Own: raw}, err
}

// adopt changes the log level, and names the changed settings that need a restart.
func (s *settings) adopt(raw json.RawMessage, level *slog.LevelVar, log *slog.Logger) (fixed []string) {
	var fresh own
	if json.Unmarshal(raw, &fresh) != nil {
		return nil // cannot happen: a process of the same binary wrote raw
	}
	was := level.Level()
	level.UnmarshalText([]byte(fresh.LogLevel))
	if is := level.Level(); is != was && cluster.Parent() {
		log.Info("setting changed", "setting", "log_level", "from", was, "to", is)
	}
	now := s.own()
	for key, differs := range map[string]bool{"admin_host": fresh.AdminHost != now.AdminHost,
		"admin_port": fresh.AdminPort != now.AdminPort, "log_format": fresh.LogFormat != now.LogFormat} {
		if differs {
			fixed = append(fixed, key)
		}
	}
	return fixed
}

// awaitShutdown waits for the signal and sends all clients away. Connections that do not end in time are cut off, which
// is no failure of the server.
func awaitShutdown(ctx context.Context, srv *engine.Server) error {
	<-ctx.Done()
	bounded, cancel := context.WithTimeout(context.Background(), srv.Config().ShutdownTimeout)
	defer cancel()
	if err := srv.Shutdown(bounded); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("%s takes flags only, not %q", cmd.CommandPath(), args[0])}
	}
	return nil
}

const memoryShare = 0.9 // of the limit

// limitMemory gives Go's collector the container's limit, so that it works harder near the limit; the kernel would kill
// the process there. Workers share the limit. GOGC follows from a measurement: the hot path makes no garbage, so early
// collection costs no time that can be measured, and keeps the resident memory of idle connections low
// (docs/performance.md).
func limitMemory(log *slog.Logger, workers int) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(25)
	}
	if _, err := memlimit.Set(memlimit.WithRatio(memoryShare/float64(workers)), memlimit.WithLogger(slog.New(slog.DiscardHandler))); err != nil {
		log.Debug("no memory limit found", "err", err)
	}
}
