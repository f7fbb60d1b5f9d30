package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"reflect"
	"runtime/debug"
	"slices"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/spf13/cobra"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/engine/access"
	"github.com/parleyd/parley/engine/admin"
	"github.com/parleyd/parley/engine/api"
	"github.com/parleyd/parley/engine/cluster"
	"github.com/parleyd/parley/engine/logs"
)

func newServe() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the room server",
		Long: "Run the room server. Every setting is a flag (--message-rate=20), a variable (" + envPrefix + "MESSAGE_RATE=20) or a line of the\n" +
			"file given by --config (message_rate: 20). Flags win over variables, variables over the file.",
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
	if s.Examples {
		registerChat(srv)
	}
	backends := &backends{settings: s, log: log}
	end, err := backends.prepare(srv)
	if err != nil {
		return err
	}
	defer end()
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
	own, err := json.Marshal(s.own())
	if err != nil {
		return fmt.Errorf("encode settings: %w", err)
	}
	err = cluster.Run(cmd.Context(), srv, cluster.Options{
		Log:     log,
		Own:     own,
		API:     backends.options(),
		Parent:  func(o *cluster.Overview) error { return show(o) },
		Serving: func(ctx context.Context) { followLoad(ctx, srv) },
		Reload:  func() (cluster.Fresh, error) { return reread(cmd, s) },
		Adopt:   func(raw json.RawMessage) []string { return s.adopt(raw, level, backends) },
		Ready: func(addr net.Addr) {
			s.sayReady(stdout, places{addr, page.Addr(), backends.addr})
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
	LogLevel  string
	ShowUsers bool
	Keys      []api.KeyEntry
	Rules     []access.Entry
	Fixed     map[string]string // the settings that need a restart, by key
}

// reloaded are the keys of the command's own settings that a reload changes. The engine compares bus_url.
var reloaded = []string{"log_level", "show_users", "api_keys_file", "bus_url_file"}

func (s *settings) own() own {
	fixed := map[string]string{}
	for _, one := range table {
		if len(one.index) == 1 && !slices.Contains(reloaded, one.key) {
			fixed[one.key] = one.text(s)
		}
	}
	return own{s.LogLevel, s.ShowUsers, s.Keys, s.Rules, fixed}
}

// reread loads the settings again, from the command line, the environment and the file. The key of this run stays good until the
// operator gives keys.
func reread(cmd *cobra.Command, now *settings) (cluster.Fresh, error) {
	s, _, err := load(cmd)
	if err != nil {
		return cluster.Fresh{}, err
	}
	if s.empty != "" { // an editor or a full disk has emptied the file: the operator does not want all the defaults
		return cluster.Fresh{}, fmt.Errorf("%s holds no setting: write the settings that you want", s.empty)
	}
	if len(s.Keys) == 0 && now.runKey != nil {
		s.Keys = []api.KeyEntry{now.runKey.entry}
	}
	raw, err := json.Marshal(s.own())
	if err != nil {
		return cluster.Fresh{}, fmt.Errorf("encode settings: %w", err)
	}
	// What cannot change stays in force: the files that the workers read again, and a cookie beside other origins.
	s.keepTokens(now)
	if err := s.checkTokens(); err != nil {
		return cluster.Fresh{}, fmt.Errorf("the new settings, together with those that cannot change without a restart: %w", err)
	}
	s.settle()
	return cluster.Fresh{Config: s.Config, Own: raw}, err
}

// adopt changes the log level, the keys of the API and the rules, and names the changed settings that need a restart.
func (s *settings) adopt(raw json.RawMessage, level *slog.LevelVar, b *backends) (fixed []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var fresh own
	if json.Unmarshal(raw, &fresh) != nil {
		return nil // cannot happen: a process of the same binary wrote raw
	}
	was := level.Level()
	level.UnmarshalText([]byte(fresh.LogLevel))
	if is := level.Level(); is != was && cluster.Parent() {
		b.log.Info("setting changed", "setting", "log_level", "from", was, "to", is)
	}
	now := s.own()
	s.LogLevel = fresh.LogLevel
	if s.ShowUsers = fresh.ShowUsers; s.ShowUsers != now.ShowUsers && cluster.Parent() { // the engine has it already
		b.log.Info("setting changed", "setting", "show_users", "from", now.ShowUsers, "to", s.ShowUsers)
	}
	if !reflect.DeepEqual(fresh.Keys, now.Keys) {
		b.adopt(fresh.Keys)
	}
	b.adoptRules(fresh.Rules)
	for _, key := range slices.Sorted(maps.Keys(now.Fixed)) {
		if fresh.Fixed[key] != now.Fixed[key] {
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
		debug.SetGCPercent(thriftyPercent)
	}
	if _, err := memlimit.Set(memlimit.WithRatio(memoryShare/float64(workers)), memlimit.WithLogger(slog.New(slog.DiscardHandler))); err != nil {
		log.Debug("the process has no memory limit that it can find", "err", err)
	}
}
