package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime/debug"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/spf13/cobra"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/engine/admin"
	"github.com/parleyd/parley/engine/cluster"
)

func newServe() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve rooms over WebSocket",
		Long: "Serve rooms over WebSocket. Every setting is a flag, a variable (" + envPrefix + "HEARTBEAT_INTERVAL) or a line\n" +
			"of the file given by --config (heartbeat_interval: 30); flags win over variables, variables over the file.",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, _, err := load(cmd)
			if err != nil {
				return err
			}
			return serve(cmd.Context(), s, cmd.OutOrStdout())
		},
	}
	addFlags(cmd)
	return cmd
}

// serve runs the room server until ctx is done: alone, or as the parent of several workers or one of its children.
func serve(ctx context.Context, s *settings, stdout io.Writer) error {
	log := newLog(s)
	limitMemory(log)
	srv, err := engine.New(s.Config, engine.WithLogger(log))
	if err != nil {
		return err
	}
	registerChat(srv)
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
	err = cluster.Run(ctx, srv, cluster.Options{
		Log:     log,
		Parent:  func(o *cluster.Overview) error { return show(o) },
		Serving: func(ctx context.Context) { followLoad(ctx, srv) },
		Ready: func(addr net.Addr) {
			line := "parley: ready on ws://" + addr.String()
			if page.Addr() != nil {
				line += "; chat page, health, stats and metrics on http://" + page.Addr().String() + "/"
			}
			fmt.Fprintln(stdout, line)
		},
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return nil // who did not go in time was cut off: no failure of the server
	}
	return err
}

// leave waits for the signal and takes leave of everybody. Those who did not go in time are cut off, which is
// no failure of the server.
func leave(ctx context.Context, srv *engine.Server) error {
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

func newLog(s *settings) *slog.Logger {
	var level slog.Level
	level.UnmarshalText([]byte(s.LogLevel)) // one of four words by now
	options := &slog.HandlerOptions{Level: level}
	if s.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, options))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, options))
}

// limitMemory tells Go's collector of a container's limit, so that it works harder instead of being killed.
// GOGC follows from a measurement: the hot path makes no garbage, so collecting early costs nothing that shows, and
// decides what idle connections keep resident (docs/performance.md).
func limitMemory(log *slog.Logger) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(25)
	}
	if _, err := memlimit.Set(memlimit.WithLogger(slog.New(slog.DiscardHandler))); err != nil {
		log.Debug("no memory limit found", "err", err)
	}
}
