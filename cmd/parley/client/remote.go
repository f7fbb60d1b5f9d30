// Package client has the commands that speak to the HTTP API of a running server.
//
// What it refuses to do: to know settings, or where a server keeps the key of its run; the command around it knows ([Local]).
// Start reading at remote.place, then call.go.
package client

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/parleyd/parley/engine/api"
)

// Exit codes.
const (
	Failed      = iota + 1 // or not all of it is done
	Usage                  // a mistake at the command line, or in the input
	Unreachable            // no API of Parley answers
	Refused                // the API refuses a request
)

// Error ends a command with an exit code.
type Error struct {
	Code int
	Err  error
}

func (e Error) Error() string { return e.Err.Error() }
func (e Error) Unwrap() error { return e.Err }

// Local is what the command around this package knows. Its functions are called by one goroutine.
//
// Owner: immutable.
type Local struct {
	URL         func(cmd *cobra.Command) (string, error) // of the API, by the settings that serve would have
	Key         func() string                            // the value of KeyVariable
	RunKey      func(at *url.URL) (path string)          // of the file with the key of a run; "" if there is none
	KnownVerb   cobra.PositionalArgs                     // refuses a word that is no verb of a command
	NoArguments cobra.PositionalArgs
}

// The variables for all commands.
const (
	URLVariable = "PARLEY_URL"     // address of the API
	KeyVariable = "PARLEY_API_KEY" // one whole key
)

// Commands are the commands of this package.
func (l Local) Commands() []*cobra.Command {
	return []*cobra.Command{l.publish(), l.history(), l.rooms(), l.users(), l.conns(), l.disconnect(), l.revoke(), l.drain(), l.openAPI()}
}

// remote are the flags of a command that speaks to the API of a running server.
//
// Owner: the command.
type remote struct {
	local        Local
	url, keyFile string
	asJSON       bool
}

func (r *remote) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&r.url, "url", "", "call the HTTP API at this address ("+URLVariable+"); by default the address follows from the settings of serve")
	f.StringVar(&r.keyFile, "key-file", "", "take the key from the first line of this file ("+KeyVariable+" holds the key itself); by default the key of the server's run")
	f.String("config", "", "YAML or JSON file with the settings of serve (PARLEY_CONFIG)")
	f.BoolVar(&r.asJSON, "json", false, "print JSON")
	if cmd.ValidArgsFunction == nil {
		cmd.ValidArgsFunction = cobra.NoFileCompletions
	}
}

// with finds the API before act runs.
func (r *remote) with(act func(cmd *cobra.Command, at *place, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		for _, arg := range args {
			if !utf8.ValidString(arg) {
				return Error{Usage, fmt.Errorf("%q is not valid UTF-8", arg)}
			}
		}
		at, err := r.place(cmd)
		if err != nil {
			return err
		}
		return act(cmd, at, args)
	}
}

// place is where an API is, and the key for it.
//
// Owner: the command.
type place struct {
	base *url.URL
	key  string // "" if none is known
	from string // where the key comes from, or where it was looked for; a sentence's end
}

// place finds the API: by the flag, by the variable, or by the settings of serve.
func (r *remote) place(cmd *cobra.Command) (*place, error) {
	where, text := "--url", r.url
	if text == "" {
		where, text = URLVariable, os.Getenv(URLVariable)
	}
	if text == "" {
		found, err := r.local.URL(cmd)
		if err != nil {
			return nil, err
		}
		where, text = "api_host", found
	}
	base, err := url.Parse(text)
	if err != nil || base.Scheme != "http" && base.Scheme != "https" || base.Host == "" || base.User != nil || base.RawQuery != "" || base.Fragment != "" {
		return nil, Error{Usage, fmt.Errorf("%s: %q is not the address of an API; write http://host:port", where, text)}
	}
	at := &place{base: base}
	return at, r.findKey(at)
}

// findKey takes the key of the flag, of the variable, or of the server's run.
func (r *remote) findKey(at *place) (err error) {
	if r.keyFile != "" {
		at.from = "the key is that of " + r.keyFile
		at.key, err = readKey(r.keyFile)
		return err
	}
	if text := r.local.Key(); text != "" {
		at.from = "the key is that of " + KeyVariable
		at.key, err = checkedKey(text, KeyVariable)
		return err
	}
	at.from = "no key was sent: name a file with --key-file, or put the key into " + KeyVariable
	path := r.local.RunKey(at.base)
	if path == "" {
		at.from += "; a server on this machine that has no keys makes one for its run, which only its own user finds"
		return nil
	}
	at.from = "the key is that of " + path
	at.key, err = readKey(path)
	return err
}

const keyBytesMax = 4 << 10 // of the first line of a file

// readKey reads the first line of a file, as `parley key create` prints it.
func readKey(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", Error{Usage, fmt.Errorf("read a key: %w", err)}
	}
	defer f.Close()
	line, err := bufio.NewReader(io.LimitReader(f, keyBytesMax)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", Error{Usage, fmt.Errorf("read a key: %w", err)}
	}
	return checkedKey(line, path)
}

// checkedKey is a key without the white space around it.
func checkedKey(text, where string) (string, error) {
	text = strings.TrimSpace(text)
	if _, err := api.EntryOf(text); err != nil {
		return "", Error{Usage, fmt.Errorf("%s: %w", where, err)}
	}
	return text, nil
}
