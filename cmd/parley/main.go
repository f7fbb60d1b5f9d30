// Command parley is the WebSocket room server and its tools.
//
// What it refuses to do: anything that a program using package engine could not do as well. Start reading at
// newRoot, then serve.go; settings are read in settings.go and load.go.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/parleyd/parley/cmd/parley/client"
	"github.com/parleyd/parley/cmd/parley/connect"
	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/engine/cluster/supervise"
	"github.com/parleyd/parley/engine/logs"
)

// Exit codes.
const (
	exitOK          = 0
	exitFailed      = client.Failed
	exitUsage       = client.Usage
	exitUnreachable = client.Unreachable // no server answers, or verify could not run
	exitRefused     = client.Refused
)

// A usageError is a mistake at the command line or in a configuration.
type usageError struct{ err error }

func (u usageError) Error() string { return u.err.Error() }
func (u usageError) Unwrap() error { return u.err }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-ctx.Done()
		<-time.After(supervise.SecondSignalAfter)
		stop() // from now on a second signal ends the process at once
	}()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// outliveOutput makes a write to a standard output whose reader is gone fail with EPIPE. Without it Go's runtime ends the
// process with SIGPIPE, which is right for a tool in front of `head` and wrong for a server.
func outliveOutput() { signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) }

// run is main without the process around it.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	return execute(ctx, root)
}

// execute runs a command, and returns the exit code.
func execute(ctx context.Context, root *cobra.Command) int {
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	var exit exitError
	if errors.As(err, &exit) && exit.err == nil {
		return exit.code
	}
	printError(root.ErrOrStderr(), err)
	return codeOf(err)
}

// codeOf is the code of a command that ends with err.
func codeOf(err error) int {
	var usage usageError
	var config *engine.ConfigError
	if errors.As(err, &usage) || errors.As(err, &config) {
		return exitUsage
	}
	var exit exitError
	if errors.As(err, &exit) && exit.code != exitOK {
		return exit.code
	}
	if asked, ok := errors.AsType[client.Error](err); ok {
		return asked.Code
	}
	return exitFailed
}

// redacted is an error whose text quotes the operator's input, without user and password of any URL in it: an operator may
// have put bus_url under another key, behind a misspelt flag, or in a list.
type redacted struct{ error }

func (r redacted) Error() string { return urlUser.ReplaceAllString(r.error.Error(), "://xxxxx@") }
func (r redacted) Unwrap() error { return r.error }

var urlUser = regexp.MustCompile(`://.*@`) // to the last @ of the line, since either part may hold others

// printError writes an error, and does not wait for a reader that has stopped reading.
func printError(stderr io.Writer, err error) {
	w := logs.NewWriter(stderr, nil)
	for line := range strings.SplitSeq(strings.TrimRight(redacted{err}.Error(), "\n"), "\n") {
		fmt.Fprintln(w, "parley:", line)
	}
	flush(w.Flush)
}

// outputWait is how long the end of a process waits for the readers of its log and standard output.
const outputWait = time.Second

// flush calls f with the bound outputWait. Lines that are left then are lost.
func flush(f func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.Background(), outputWait)
	defer cancel()
	f(ctx)
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "parley",
		Short: "A WebSocket room server for very many connections",
		Long: "Parley is a WebSocket room server. Start it with `parley serve`, and open http://127.0.0.1:9091/ in two windows.\n" +
			"`parley COMMAND --help` describes a command.",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          knownVerb,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cmd.Help()
		},
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(explainFlag)
	root.AddCommand(newServe(), newEcho(), newVersion(), newCheckConfig(), newHealthcheck(), newStatus(), newVerify(),
		newKey(), newToken(), newDefaultConfig(), newConfigDoc(), newCompletion(), newManual())
	root.AddCommand(client.Local{URL: apiURL, Key: takeKeyVariable, RunKey: findRunKey, KnownVerb: knownVerb, NoArguments: noArguments}.Commands()...)
	root.AddCommand(connect.Local{URL: socketURL, OutliveOutput: outliveOutput}.Command())
	arrange(root)
	return root
}

// knownVerb refuses a word that is no verb, and names the nearest verb.
func knownVerb(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var verbs []string
	for _, c := range cmd.Commands() {
		verbs = append(verbs, c.Name())
	}
	return usageError{fmt.Errorf("%q is no command%s; `%s --help` lists them", args[0], didYouMean(args[0], verbs), cmd.CommandPath())}
}

// explainFlag words cobra's complaint about a flag.
func explainFlag(cmd *cobra.Command, err error) error {
	const unknown = "unknown flag: --"
	if name, ok := strings.CutPrefix(err.Error(), unknown); ok {
		return usageError{fmt.Errorf("--%s is no flag of %s%s; `%s --help` lists them",
			name, cmd.CommandPath(), didYouMean(name, flagNames(cmd)), cmd.CommandPath())}
	}
	return usageError{fmt.Errorf("%w; `%s --help` says more", err, cmd.CommandPath())}
}
