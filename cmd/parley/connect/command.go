package connect

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/parleyd/parley/cmd/parley/client"
	"github.com/parleyd/parley/engine/access"
	"github.com/parleyd/parley/protocol/message"
)

// TokenVariable holds a client's access token.
const TokenVariable = "PARLEY_TOKEN"

// Local is what the command around this package knows.
type Local struct {
	URL           func(cmd *cobra.Command) (string, error) // of a server, by the settings that serve would have
	OutliveOutput func()                                   // makes a write fail, and not end the process, if the output has no reader
}

// Command is the counterpart of the chat page in a terminal.
func (l Local) Command() *cobra.Command {
	f := flags{local: l}
	cmd := &cobra.Command{
		Use:   "connect [URL]",
		Short: "Join rooms of a server from the terminal: read what arrives, and say what you type",
		Long: "Connect to a server as a client, join rooms, print what arrives, and send what you type to the current room. A line that\n" +
			"begins with / is a command; /help lists them. URL is ws://host:port or wss://host; by default it follows from the settings\n" +
			"that serve reads.\n\n" +
			"After a drop the client comes back by itself and resumes its session. It says what it missed, and which messages are gone.\n" +
			"What the server says goes to standard output, and what the client itself says to standard error. The end of the input,\n" +
			"/quit and Ctrl-C end the client with a close frame, the first two behind the answers to all lines.\n\n" +
			"A token on the command line can be read by other users of the machine: prefer --token-file, or the variable PARLEY_TOKEN. The\n" +
			"file is read again for each connection, and before the token ends.\n\n" +
			"Exit code 0: the client has left. 1: the connection failed. 2: a mistake in the command line. 3: no WebSocket server\n" +
			"answers. 4: the server refuses the client, or has sent it away for good.",
		Example: "  parley connect ws://127.0.0.1:9090 --room lobby\n" +
			"  echo hello | parley connect --room lobby\n" +
			"  parley connect wss://example.com/ --room news --listen --json > news.ndjson\n" +
			"  parley connect --raw",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return client.Error{Code: client.Usage, Err: fmt.Errorf("connect takes one URL, not %d; rooms are named with --room", len(args))}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := f.options(cmd, args)
			if err != nil {
				return err
			}
			l.OutliveOutput() // so that a close frame can be sent
			return Run(cmd.Context(), o)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	f.define(cmd)
	return cmd
}

// flags are those of the command.
//
// Owner: the command.
type flags struct {
	local                    Local
	token, tokenFile, origin string
	headers, rooms           []string
	last                     uint64
	raw, asJSON, listen      bool
}

func (f *flags) define(cmd *cobra.Command) {
	list := cmd.Flags()
	list.StringArrayVar(&f.rooms, "room", nil, "room to join; may stand several times, and what you type goes to the first")
	list.Uint64Var(&f.last, "last", 0, "show so many of the newest messages that the rooms keep, when they are joined")
	list.StringVar(&f.token, "token", "", "access token ("+TokenVariable+")")
	list.StringVar(&f.tokenFile, "token-file", "", "file with an access token")
	list.StringVar(&f.origin, "origin", "", "origin of a page, as a browser would send it: https://example.com")
	list.StringArrayVar(&f.headers, "header", nil, "further header field of the handshake, like 'Cookie: a=b'; may stand several times")
	list.BoolVar(&f.raw, "raw", false, "print the frames of both directions as they are, with arrows")
	list.BoolVar(&f.asJSON, "json", false, "print each message of the server as one line of JSON")
	list.BoolVar(&f.listen, "listen", false, "do not read standard input, and stay until the client is interrupted")
	list.String("config", "", "YAML or JSON file with the settings of serve (PARLEY_CONFIG)")
	for _, name := range []string{"room", "last", "token", "origin", "header"} {
		cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions)
	}
}

// options checks the flags.
func (f *flags) options(cmd *cobra.Command, args []string) (o Options, err error) {
	o = Options{Origin: f.origin, Rooms: f.rooms, Last: f.last, Listen: f.listen, In: cmd.InOrStdin(), Out: cmd.OutOrStdout(), Err: cmd.ErrOrStderr()}
	switch {
	case f.raw && f.asJSON:
		return o, client.Error{Code: client.Usage, Err: errors.New("--raw and --json are two forms: give one of them")}
	case f.raw:
		o.Form = Raw
	case f.asJSON:
		o.Form = JSON
	}
	if o.Header, err = headerOf(f.headers); err != nil {
		return o, err
	}
	for _, name := range f.rooms {
		if code := message.ValidRoom([]byte(name)); code != message.OK {
			return o, client.Error{Code: client.Usage, Err: fmt.Errorf("--room: %q is no name of a room: %s", name, message.InvalidRoom.Text())}
		}
	}
	if strings.ContainsFunc(f.origin, unicode.IsControl) {
		return o, client.Error{Code: client.Usage, Err: fmt.Errorf("--origin: %q is no origin", f.origin)}
	}
	if o.URL, err = f.socketURL(cmd, args); err != nil {
		return o, err
	}
	if in, isFile := o.In.(*os.File); isFile {
		stat, err := in.Stat()
		o.Terminal = err == nil && stat.Mode()&os.ModeCharDevice != 0
	}
	o.Token = f.readToken
	_, err = f.readToken()
	return o, err
}

// readToken takes the access token from the flag, the file or the variable; "" for none.
func (f *flags) readToken() (string, error) {
	text, where := f.token, "--token"
	switch {
	case f.token != "" && f.tokenFile != "":
		return "", client.Error{Code: client.Usage, Err: errors.New("--token and --token-file: give one of them")}
	case f.tokenFile != "":
		raw, err := os.ReadFile(f.tokenFile)
		if err != nil {
			return "", client.Error{Code: client.Usage, Err: fmt.Errorf("read a token: %w", err)}
		}
		text, where = string(raw), f.tokenFile
	case f.token == "":
		text, where = os.Getenv(TokenVariable), TokenVariable
	}
	text = strings.TrimSpace(text)
	switch {
	case f.tokenFile != "" && text == "":
		return "", client.Error{Code: client.Usage, Err: fmt.Errorf("%s holds no token", where)}
	case len(text) > access.TokenBytesMax || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "", client.Error{Code: client.Usage, Err: fmt.Errorf("%s holds no access token: one is a single line of letters, digits and a few signs", where)}
	}
	return text, nil
}

// fieldName matches the names of header fields.
var fieldName = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")

// ownFields are those that every handshake has.
var ownFields = []string{"Upgrade", "Connection", "Host", "Sec-Websocket-Key", "Sec-Websocket-Version", "Sec-Websocket-Extensions"}

// headerOf reads fields that are written as "Name: value".
func headerOf(lines []string) (http.Header, error) {
	h := http.Header{}
	for _, line := range lines {
		name, value, ok := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		if !ok || !fieldName.MatchString(name) || strings.ContainsFunc(value, unicode.IsControl) {
			return nil, client.Error{Code: client.Usage, Err: fmt.Errorf("--header: %q is no header field; write 'Name: value'", line)}
		}
		if slices.Contains(ownFields, http.CanonicalHeaderKey(name)) {
			return nil, client.Error{Code: client.Usage, Err: fmt.Errorf("--header: the handshake has its own %s", name)}
		}
		h.Add(name, value)
	}
	return h, nil
}

// socketURL is the address of the server: the argument, or that of a server with the settings of the command.
func (f *flags) socketURL(cmd *cobra.Command, args []string) (*url.URL, error) {
	if len(args) == 0 {
		text, err := f.local.URL(cmd)
		if err != nil {
			return nil, err
		}
		args = []string{text}
	}
	u, err := url.Parse(args[0])
	switch {
	case err != nil || u.Host == "" || u.Hostname() == "" || u.Scheme != "ws" && u.Scheme != "wss":
		return nil, client.Error{Code: client.Usage, Err: fmt.Errorf("%q is not the address of a WebSocket server; write ws://host:port or wss://host", args[0])}
	case u.User != nil:
		return nil, client.Error{Code: client.Usage, Err: fmt.Errorf("the address %s://%s: a name and a password in it are not sent; use --token-file, or --header", u.Scheme, u.Host)}
	case u.Fragment != "":
		return nil, client.Error{Code: client.Usage, Err: fmt.Errorf("%q: what follows # is not sent; leave it out", args[0])}
	}
	if u.Path == "" {
		u.Path = "/"
	}
	return u, nil
}
