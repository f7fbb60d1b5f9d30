package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/engine/logs"
)

// The bounds of echo are generous: conformance suites send messages of megabytes, in tens of thousands of frames,
// before they read.
const (
	echoMessageBytes   = 32 << 20
	echoFragments      = 1 << 20
	echoBacklogSoft    = 64 << 20
	echoBacklogHard    = 256 << 20
	echoPortDefault    = 9090
	echoPortKernelPick = -1
)

func newEcho() *cobra.Command {
	cfg := engine.DefaultConfig()
	cmd := &cobra.Command{
		Use:   "echo",
		Short: "Run a server that sends every message back unchanged, for test suites and load generators",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			outliveOutput()
			if cfg.Port == 0 {
				cfg.Port = echoPortKernelPick
			}
			log, _ := newLog(&settings{LogLevel: "warn"})
			limitMemory(log, 1)
			srv, err := engine.New(cfg, engine.WithLogger(log))
			if err != nil {
				return err
			}
			srv.OnRaw(func(_ *engine.Conn, payload []byte, _ bool) []byte { return payload })
			if err := srv.Start(); err != nil {
				return err
			}
			followLoad(cmd.Context(), srv)
			stdout := logs.NewWriter(cmd.OutOrStdout(), nil)
			defer flush(stdout.Flush)
			fmt.Fprintln(stdout, "parley: echo on ws://"+srv.Addr().String())
			return awaitShutdown(cmd.Context(), srv)
		},
	}
	cfg.Bare = true
	cfg.MessageBytesMax, cfg.MessageFragmentsMax = echoMessageBytes, echoFragments
	cfg.BacklogSoftBytes, cfg.BacklogHardBytes = echoBacklogSoft, echoBacklogHard
	cmd.Flags().StringVar(&cfg.Host, "host", cfg.Host, "listen on this address")
	cmd.Flags().IntVar(&cfg.Port, "port", echoPortDefault, "listen on this port; 0 lets the kernel choose one")
	cmd.Flags().IntVar(&cfg.Loops, "loops", 0, "run this many event loops; 0 means one for each core")
	cmd.Flags().BoolVar(&cfg.Compression, "compression", false, "compress messages (permessage-deflate) for clients that offer it")
	return cmd
}
