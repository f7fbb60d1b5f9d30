package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/parleyd/parley/cmd/parley/verify"
)

// An exitError ends the command with a code of its own. A nil err means that the command has printed the error.
type exitError struct {
	code int
	err  error
}

func (e exitError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}
func (e exitError) Unwrap() error { return e.err }

func newVerify() *cobra.Command {
	o := verify.DefaultOptions()
	asJSON := false
	cmd := &cobra.Command{
		Use:   "verify URL",
		Short: "Check from outside that a running server keeps the promises of the wire protocol",
		Long: "Check that a running server keeps the wire protocol's promises: many clients join, publish, leave, break off,\n" +
			"stall, freeze and resume, and the checker compares the messages that they get with those that they should get\n" +
			"(docs/verify.md).\n\n" +
			"With --history-messages the rooms have history: start the server with an entry for them in the setting history,\n" +
			"like --history 'verify-**=messages:50', and tell the checker its bounds.\n\n" +
			"Exit code 0: nothing is wrong. 1: findings. 2: a mistake in the command line. 3: it could not run.",
		Example: "  parley verify ws://127.0.0.1:9090 --for 30s --exact-counts\n" +
			"  parley verify ws://127.0.0.1:9190 --exact-counts --history-messages 50 \\\n" +
			"    --spawn \"parley serve --port 9190 --admin-port 0 --history 'verify-**=messages:50'\"\n" +
			"  parley verify ws://127.0.0.1:9190 --spawn \"parley serve --port 9190 --admin-port 0 --processes 4\" --kill \\\n" +
			"    --api http://127.0.0.1:9192 --kill-api",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{fmt.Errorf("verify takes the address of one server, like ws://127.0.0.1:9090, not %d", len(args))}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			outliveOutput()
			o.URL = args[0]
			o.Progress = cmd.ErrOrStderr()
			o.Terminal = terminal(o.Progress)
			report, err := verify.Run(cmd.Context(), o)
			return conclude(cmd, report, err, asJSON)
		},
	}
	f := cmd.Flags()
	f.Uint64Var(&o.Seed, "seed", 0, "the clients' decisions follow from this seed; 0 draws a seed and prints it")
	f.IntVar(&o.Clients, "clients", o.Clients, "this many clients act")
	f.IntVar(&o.Rooms, "rooms", o.Rooms, "the clients share this many rooms")
	f.IntVar(&o.Rate, "rate", o.Rate, "all clients together do this many acts in a second")
	f.DurationVar(&o.For, "for", o.For, "the clients act for this long")
	f.StringVar(&o.Dialect, "dialect", o.Dialect, "protocol of the server: parley, or plain (join and broadcast only)")
	f.IntVar(&o.RoomLimit, "room-limit", 0, "the server's max_connections_per_room; 0 means none")
	f.BoolVar(&o.ExactCounts, "exact-counts", false, "the server is one process, whose counts are exact at every moment")
	f.IntVar(&o.HistoryMessages, "history-messages", 0, "the rooms have history: messages of the server's entry for verify-** in the setting history; 0 means none")
	f.DurationVar(&o.HistoryAge, "history-age", o.HistoryAge, "the age of that entry")
	f.IntVar(&o.HistoryBytes, "history-bytes", o.HistoryBytes, "the bytes of that entry")
	f.DurationVar(&o.HeartbeatInterval, "heartbeat-interval", 0, "the server's heartbeat_interval; 0 means that heartbeats are not checked")
	f.DurationVar(&o.HeartbeatTimeout, "heartbeat-timeout", 0, "the server's heartbeat_timeout; 0 means that heartbeats are not checked")
	f.IntVar(&o.AnnounceMax, "announce-members-max", o.AnnounceMax, "the server's announce_members_max; 0 means that announcements may be incomplete")
	f.DurationVar(&o.Patience, "patience", o.Patience, "an answer or a delivery may take this long")
	f.BoolVar(&o.StopAtFinding, "stop-at-finding", false, "end with the first finding")
	f.StringVar(&o.API, "api", "", "address of the server's HTTP API, like http://127.0.0.1:9092; backends use it beside the clients")
	f.StringVar(&o.APIKeyFile, "api-key-file", "", "this file holds a key of the API with all scopes; a spawned server gets one")
	f.StringVar(&o.SecretFile, "jwt-secret-file", "", "this file holds the secret of the server's tokens; a spawned server gets one")
	f.StringVar(&o.Spawn, "spawn", "", "start the server with this command, and stop it at the end")
	f.BoolVar(&o.Kill, "kill", false, "kill and freeze workers of the spawned server")
	f.BoolVar(&o.KillAPI, "kill-api", false, "kill the spawned server's api process")
	f.BoolVar(&o.KillBus, "kill-bus", false, "kill the spawned server's bus")
	f.StringVar(&o.Wipe, "wipe", "", "run this command now and then: it empties the server's store of sessions and seats")
	f.BoolVar(&asJSON, "json", false, "print the report as JSON")
	return cmd
}

// conclude prints the report and returns the error that ends the command.
func conclude(cmd *cobra.Command, report *verify.Report, err error, asJSON bool) error {
	switch {
	case errors.Is(err, verify.ErrUsage):
		return usageError{err}
	case errors.Is(err, verify.ErrUnreachable):
		return exitError{exitUnreachable, err}
	}
	if report != nil {
		if asJSON {
			if err := report.WriteJSON(cmd.OutOrStdout()); err != nil {
				return exitError{exitUnreachable, err}
			}
		} else {
			report.WriteText(cmd.OutOrStdout())
		}
	}
	switch {
	case err != nil:
		return exitError{exitUnreachable, err}
	case !report.Clean():
		return exitError{exitFailed, nil}
	}
	return nil
}

// terminal reports whether w is a terminal.
func terminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	stat, err := file.Stat()
	return err == nil && stat.Mode()&os.ModeCharDevice != 0
}
