package main

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/cmd/parley/client"
	"github.com/parleyd/parley/engine/api"
)

// terminalOf is another terminal of the server's user: the commands there find the API by the port in the settings, and the key of
// the run by themselves.
type terminalOf struct{ t *testing.T }

func (b *backend) terminal() terminalOf {
	b.t.Helper()
	at, err := url.Parse(b.url)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Setenv(apiPort, at.Port())
	b.t.Setenv(client.URLVariable, "")
	return terminalOf{b.t}
}

// run runs a command.
func (x terminalOf) run(stdin string, args ...string) (code int, stdout, stderr string) {
	var out, wrong bytes.Buffer
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(strings.NewReader(stdin))
	root.SetOut(&out)
	root.SetErr(&wrong)
	code = execute(x.t.Context(), root)
	return code, out.String(), wrong.String()
}

// says wants a command to end well and to print a text.
func (x terminalOf) says(want string, args ...string) {
	x.t.Helper()
	if code, out, stderr := x.run("", args...); code != exitOK || stderr != "" || out != want {
		x.t.Errorf("%q: %d %q %q, want %q", args, code, out, stderr, want)
	}
}

// shows wants a command to end well and to print what matches.
func (x terminalOf) shows(pattern string, args ...string) {
	x.t.Helper()
	if code, out, stderr := x.run("", args...); code != exitOK || stderr != "" || !regexp.MustCompile(pattern).MatchString(out) {
		x.t.Errorf("%q: %d %q %q, want %s", args, code, out, stderr, pattern)
	}
}

// fails wants a code and an error.
func (x terminalOf) fails(want int, text string, args ...string) {
	x.t.Helper()
	if code, out, stderr := x.run("", args...); code != want || out != "" || !strings.Contains(stderr, text) {
		x.t.Errorf("%q: %d %q %q, want %d %q", args, code, out, stderr, want, text)
	}
}

// Without a server, with a mistake, and with a server that refuses, a command has a code of its own, and says what to do.
func TestExitCodesOfRequests(t *testing.T) {
	_, b, keyFile := serveAPI(t, "1")
	x := b.terminal()
	x.says("", "publish", "lobby", `{"a":1}`)
	x.fails(exitRefused, "not_found: room:", "rooms", "show", "nowhere")
	x.fails(exitRefused, "not_found: connection:", "conns", "show", "nobody")
	x.fails(exitRefused, "invalid_room: ", "rooms", "create", "a\nb")
	x.fails(exitRefused, "invalid_request: /message", "publish", "lobby", "--message", `{"a":1}`)
	x.fails(exitRefused, "invalid_request: /sort", "conns", "ls", "--sort", "wealth")
	for text, args := range map[string][]string{
		`"hello" is no JSON (invalid character 'h' looking for beginning of value); if it is meant as a text, quote it twice: '"hello"'`: {"publish", "lobby", "hello"},
		`quote it twice: '"it'\''s"'`:                   {"publish", "lobby", "it's"},
		"put single quotes around the whole":            {"publish", "lobby", "{a:1}"},
		"the JSON is empty":                             {"publish", "lobby", ""},
		"not valid UTF-8":                               {"publish", "a\xff", "1"},
		"takes a room and JSON":                         {"publish", "lobby"},
		"takes one message, and no room":                {"publish", "lobby", "1", "--everybody"},
		"not both":                                      {"publish", "{}", "--everybody", "--user", "7"},
		"--user is missing":                             {"disconnect"},
		"conns show takes one connection":               {"conns", "show"},
		"did you mean \"kick\"?; `parley conns --help`": {"conns", "kik"},
		"--limit: -1 is negative":                       {"rooms", "ls", "--limit", "-1"},
		"at most 1000 rows":                             {"conns", "--sort", "age", "--limit", "1001"},
		"--metadata: ":                                  {"rooms", "create", "x", "--metadata", "y"},
		"is not the address of an API":                  {"users", "--url", "localhost:9092"},
		"xxxxx@127.0.0.1":                               {"users", "--url", "http://user:secret@127.0.0.1"},
		"/nowhere":                                      {"users", "--key-file", "/nowhere"},
		"has the form pk_ID_SECRET":                     {"users", "--key-file", write(t, "secret")},
	} {
		x.fails(exitUsage, text, args...)
		if _, _, stderr := x.run("", args...); strings.Contains(stderr, "secret@") {
			t.Error(stderr)
		}
	}
	_, free := freeAddress(t)
	x.fails(exitUnreachable, "no server answers on http://127.0.0.1:"+free, "users", "--url", "http://127.0.0.1:"+free)
	if code, _, stderr := x.run("1\n", "publish", "lobby", "-", "--url", "http://127.0.0.1:"+free); code != exitUnreachable || !strings.Contains(stderr, "is it running?") {
		t.Error(code, stderr)
	}
	strange := write(t, "pk_x_"+strings.Repeat("a", 43))
	for _, text := range []string{"1", "-"} {
		x.fails(exitRefused, "unauthenticated: the key is not known, or its secret is wrong", "publish", "lobby", text, "--key-file", strange)
	}
	x.fails(exitRefused, "the key is that of "+strange, "users", "--key-file", strange)
	if err := os.Remove(keyFile); err != nil {
		t.Fatal(err)
	}
	x.fails(exitRefused, "no key was sent: name a file with --key-file, or put the key into PARLEY_API_KEY; a server on this machine that has no keys", "users")
	t.Setenv(apiPort, "0")
	x.fails(exitUsage, "api_port is 0", "users")
}

// The flag wins over the variable, the variable over the key of the run. A key without the scope is refused. A proxy may give the API
// a path of its own.
func TestKeyOfCommands(t *testing.T) {
	text, entry, err := api.CreateKey("reader")
	if err != nil {
		t.Fatal(err)
	}
	entry.Scopes = []string{"read"}
	_, b, _ := serveAPI(t, "1")
	_, admin := freeAddress(t)
	_, port := freeAddress(t)
	r, stdout, _ := piped(t, nil, "serve", "--port", "0", "--admin-port", admin, "--api-port", port, "--loops", "1", "--config", write(t, entryText(entry)))
	r.hears(stdout)
	x := b.terminal()
	x.shows("^USER", "users")
	t.Setenv(client.URLVariable, "http://127.0.0.1:"+port)
	x.fails(exitRefused, "no key was sent", "users")
	t.Setenv(keyVariable, text)
	t.Cleanup(func() { heldKey = "" })
	x.shows("^USER", "users")
	x.shows("^USER", "users", "--url", "http://localhost:"+port+"/")
	x.fails(exitRefused, "forbidden: the key reader lacks the scope publish", "publish", "lobby", "1")
	x.fails(exitRefused, "unauthenticated", "users", "--url", b.url)
	own := write(t, b.key+"\n\nkeys:\n")
	x.shows("^USER", "users", "--url", b.url, "--key-file", own)

	at, err := url.Parse(b.url)
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewServer(http.StripPrefix("/parley", httputil.NewSingleHostReverseProxy(at)))
	defer front.Close()
	x.shows("^USER", "users", "--url", front.URL+"/parley/", "--key-file", own)
	if code, out, stderr := x.run("1\n", "publish", "a", "-", "--count", "--url", front.URL+"/parley", "--key-file", own); code != exitOK || out != "published 1 line, queued 0 times\n" {
		t.Error(code, out, stderr)
	}
}

// writtenKey writes a key of a run, and returns its path.
func writtenKey() (path string, err error) {
	key, err := newRunKey(9092)
	if err != nil {
		return "", err
	}
	return key.path, key.write()
}

// Two directories may have the key of a run: the newer file counts. A file in a directory of others does not.
func TestFindRunKey(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	t.Setenv("TMPDIR", t.TempDir())
	at := &url.URL{Host: "127.0.0.1:9092"}
	if found := findRunKey(at); found != "" {
		t.Error(found)
	}
	here, err := writtenKey()
	if err != nil || findRunKey(at) != here {
		t.Error(err, findRunKey(at))
	}
	if err := os.Chmod(filepath.Dir(here), 0o755); err != nil || findRunKey(at) != "" {
		t.Error(err, findRunKey(at))
	}
	t.Setenv("XDG_RUNTIME_DIR", "")
	if there, err := writtenKey(); err != nil || findRunKey(at) != there {
		t.Error(err, findRunKey(at))
	}
}

// A server that is not Parley's API, and a proxy in front of it, are named in a sentence; the key is not sent to where a redirect points.
func TestStrangers(t *testing.T) {
	unsetAPIPort(t)
	t.Setenv(client.URLVariable, "")
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a redirect was followed") }))
	defer elsewhere.Close()
	key := write(t, "pk_x_"+strings.Repeat("a", 43))
	for want, answer := range map[string]http.HandlerFunc{
		"it redirects to " + fmt.Sprintf("%q", elsewhere.URL): func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL, http.StatusMovedPermanently)
		},
		`it answers "502 Bad Gateway" with "text/html"`: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			w.WriteHeader(http.StatusBadGateway)
			fmt.Fprint(w, "<html>")
		},
		`it answers "200 OK" with "application/json"`: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{"users":[]}`)
		},
		"no answer from ": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"its list is malformed": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Parley-Request", "r_1")
			fmt.Fprint(w, `{"users":7}`)
		},
	} {
		s := httptest.NewServer(answer)
		x := terminalOf{t}
		x.fails(exitUnreachable, want, "users", "--url", s.URL, "--key-file", key)
		if code, _, stderr := x.run("1\n", "publish", "a", "-", "--url", s.URL, "--key-file", key); code != exitUnreachable || !strings.Contains(want, "malformed") && !strings.Contains(stderr, want) {
			t.Error(code, stderr, want)
		}
		s.Close()
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			fmt.Fprint(c, "SSH-2.0-OpenSSH\r\n")
			c.Close()
		}
	}()
	terminalOf{t}.fails(exitUnreachable, "no answer from", "users", "--url", "http://"+l.Addr().String(), "--key-file", key)
}

// A shell completes the verbs, and the values of a flag.
func TestCompletionOfRequests(t *testing.T) {
	for want, args := range map[string][]string{"create\tMake a room": {"rooms", ""}, "kick\t": {"conns", ""}, "backlog\n": {"conns", "ls", "--sort", ""}, "publish\t": {"pub"}} {
		if code, out, _ := parley(t, append([]string{"__complete"}, args...)...); code != exitOK || !strings.Contains(out, want) {
			t.Errorf("%q: %d %s", args, code, out)
		}
	}
}

// withUser is a dialer that shows a token.
func withUser(token string) ws.Dialer {
	return ws.Dialer{Header: ws.HandshakeHeaderHTTP{"Authorization": {"Bearer " + token}}}
}
