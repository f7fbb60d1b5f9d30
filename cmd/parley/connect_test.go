package main

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/parleyd/parley/cmd/parley/connect"
	"github.com/parleyd/parley/engine/canary"
)

// A mistake in the flags of connect ends with 2, and says what to do.
func TestConnectMistakes(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(empty, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ args, says string }{
		{"http://127.0.0.1:1", "is not the address of a WebSocket server; write ws://host:port"},
		{"localhost:9090", "is not the address"}, {"ws://", "is not the address"}, {"ws://:80", "is not the address"}, {"ws://%zz", "is not the address"},
		{"ws://a:secret@b", "a name and a password in it are not sent"}, {"ws://a/#x", "what follows # is not sent"},
		{"ws://a ws://b", "takes one URL, not 2"}, {"ws://a --raw --json", "--raw and --json"}, {"ws://a --header x", "is no header field"},
		{"ws://a --header Upgrade:x", "has its own Upgrade"}, {"ws://a --token a --token-file b", "give one of them"}, {"ws://a --token-file /nowhere/x", "read a token: "},
		{"ws://a --token-file " + empty, "holds no token"}, {"ws://a --token \x01", "holds no access token"}, {"ws://a --origin \x01", "is no origin"}, {"ws://a --room \x01", "is no name of a room"}, {"ws://a --room=", "is no name of a room"}, {"ws://a --rom x", `did you mean "room"?`},
		{"--config /nowhere/x", "/nowhere/x"},
	} {
		code, out, stderr := parley(t, append([]string{"connect"}, strings.Fields(c.args)...)...)
		if code != exitUsage || out != "" || !strings.Contains(stderr, c.says) || strings.Contains(stderr, "secret") {
			t.Errorf("connect %q: %d %q, want %q", c.args, code, stderr, c.says)
		}
	}
}

// A shell completes the flags, and no files but for tokens.
func TestConnectCompletion(t *testing.T) {
	code, out, _ := parley(t, "__complete", "connect", "--")
	for _, flag := range []string{"--room", "--token-file", "--listen", "--json", "--raw", "--last", "--origin", "--header"} {
		if code != exitOK || !strings.Contains(out, "\n"+flag+"\t") && !strings.HasPrefix(out, flag+"\t") {
			t.Errorf("%s is not completed: %d %q", flag, code, out)
		}
	}
	if _, out, _ = parley(t, "__complete", "connect", "--room", ""); !strings.Contains(out, ":4") {
		t.Errorf("a room is completed: %q", out)
	}
}

var socketAt = regexp.MustCompile(`ws://[^\s;]+`)

// talking is a `parley connect` in a process of its own.
type talking struct {
	*running
	in       io.WriteCloser
	out, err *os.File // what it has written so far
}

// talk starts one. Its output goes to files, which are read again and again.
func talk(t *testing.T, args ...string) *talking {
	t.Helper()
	dir := t.TempDir()
	x := &talking{}
	for name, file := range map[string]**os.File{"out": &x.out, "err": &x.err} {
		var err error
		if *file, err = os.Create(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { (*file).Close() })
	}
	in, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	x.in = write
	t.Cleanup(func() { write.Close() })
	x.running = commandWith(t, in, outputs{x.out, x.err}, os.Args[0], append([]string{"connect"}, args...)...)
	in.Close()
	return x
}

func (x *talking) text() string {
	var all strings.Builder
	for _, file := range []*os.File{x.out, x.err} {
		text, err := os.ReadFile(file.Name())
		if err != nil {
			x.t.Fatal(err)
		}
		all.Write(text)
	}
	return all.String()
}

func (x *talking) sees(text string) {
	x.t.Helper()
	if !canary.Wait(patient, func() bool { return strings.Contains(x.text(), text) }) {
		x.t.Fatalf("never: %s\n%s", text, x.text())
	}
}

// A client whose server is killed waits for the next one on the same port, and joins its rooms there. Ctrl-C ends it with 0, and so
// does the end of its input.
func TestConnectOutlivesTheServer(t *testing.T) {
	address, port := freeAddress(t)
	serve := func() *running {
		r, stdout, _ := piped(t, nil, "serve", "--port", port, "--admin-port", "0", "--loops", "1", "--history", "**")
		if line, err := stdout.ReadString('\n'); !strings.Contains(line, "ready on") {
			t.Fatal(line, err)
		}
		return r
	}
	first := serve()
	ann := talk(t, "ws://"+address, "--room", "lobby")
	ann.sees("[lobby] * joined: 1 member")
	first.signal(syscall.SIGKILL)
	<-first.ended
	ann.sees("the connection broke: ")
	io.WriteString(ann.in, "typed meanwhile\n")
	ann.sees("no server answers on ")
	second := serve()
	ann.sees("the session is gone (invalid_token)")
	ann.sees("[lobby] the messages are numbered anew: it is not known which are gone")
	ann.sees("[lobby] * sent to 0 members")
	config := filepath.Join(t.TempDir(), "parley.yaml")
	if err := os.WriteFile(config, []byte("port: "+port+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	bob := talk(t, "--config", config, "--room", "lobby", "--listen", "--json")
	bob.sees(`"joined"`)
	io.WriteString(ann.in, "the last line")
	ann.in.Close()
	if code := ann.code(); code != exitOK {
		t.Errorf("the end of the input ends with %d: %s", code, ann.text())
	}
	bob.sees(`"data":"the last line"`)
	bob.signal(syscall.SIGINT)
	if code := bob.code(); code != exitOK {
		t.Errorf("Ctrl-C ends with %d: %s", code, bob.text())
	}
	second.stops()
}

// A server with tokens and origins: who is refused is told so, with the code for that; who shows a token is let in.
func TestConnectIsRefused(t *testing.T) {
	secret := secretFile(t)
	r, stdout, _ := piped(t, nil, "serve", "--port", "0", "--admin-port", "0", "--loops", "1", "--auth", "required", "--jwt-secret-file", secret, "--origins", "https://one.example")
	line, _ := stdout.ReadString('\n')
	at := socketAt.FindString(line)
	code, token, stderr := parley(t, "token", "--jwt-secret-file", secret, "--auth", "required", "--user", "ann", "--join", "lobby")
	if code != exitOK || at == "" {
		t.Fatal(code, stderr, line)
	}
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"--origin", "https://two.example"}, "is the origin https://two.example in the server's setting origins?"},
		{[]string{"--token", "nonsense"}, "the server does not let this client in (4001"},
		{nil, "demands an access token: give one with --token-file"},
	} {
		x := talk(t, append([]string{at, "--room", "lobby"}, c.args...)...)
		if code := x.code(); code != exitRefused || !strings.Contains(x.text(), c.says) || strings.Count(x.text(), "parley: ") != 1 {
			t.Errorf("%q: %d %s", c.args, code, x.text())
		}
	}
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"--token-file", file}, {"--header", "Authorization: Bearer " + strings.TrimSpace(token)}} {
		x := talk(t, append([]string{at, "--room", "lobby", "--origin", "https://one.example"}, args...)...)
		x.sees("(ann)")
		x.sees("[lobby] * joined: 1 member")
		x.in.Close()
		if code := x.code(); code != exitOK {
			t.Errorf("%d %s", code, x.text())
		}
	}
	t.Setenv(connect.TokenVariable, strings.TrimSpace(token))
	x := talk(t, at)
	x.sees("(ann)")
	x.in.Close()
	x.code()
	r.stops()
}

// A reader of its output that is gone ends it with 1, and a server that is not there with 3.
func TestConnectEnds(t *testing.T) {
	address, _ := freeAddress(t)
	if x := talk(t, "ws://"+address); x.code() != exitUnreachable || !strings.Contains(x.text(), "is it running?") {
		t.Error(x.text())
	}
	r, stdout, _ := piped(t, nil, "serve", "--port", "0", "--admin-port", "0", "--loops", "1")
	line, _ := stdout.ReadString('\n')
	x, out, closer := piped(t, nil, "connect", socketAt.FindString(line), "--listen", "--raw", "--room", "lobby")
	if _, err := out.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	closer.Close()
	y := talk(t, socketAt.FindString(line), "--room", "lobby")
	y.in.Close() // its joining is written to no reader
	if code := y.code(); code != exitOK {
		t.Error(y.text())
	}
	if code := x.code(); code != exitFailed {
		t.Errorf("it ends with %d", code)
	}
	r.stops()
}
