package interop

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	gorilla "github.com/gorilla/websocket"
)

// backend is a server with an HTTP API, as the examples of docs/backend see it.
//
// Owner: the test.
type backend struct {
	*server
	t      *testing.T
	dir    string // with the files of secrets
	url    string // of the API
	key    string
	secret string // the file of jwt_secret_file
}

// secretBackend has a file for the secret of tokens, and no server yet.
func secretBackend(t *testing.T) *backend {
	t.Helper()
	dir := t.TempDir()
	b := &backend{t: t, dir: dir, secret: filepath.Join(dir, "jwt"), server: &server{}}
	writeFile(t, b.secret, strings.Repeat("a secret of many bytes ", 3)+"\n")
	return b
}

// serveBackends starts a server whose API takes one key with the scopes.
func serveBackends(t *testing.T, scopes string, args ...string) *backend {
	t.Helper()
	return secretBackend(t).start(scopes, args...)
}

func (b *backend) start(scopes string, args ...string) *backend {
	b.t.Helper()
	out, err := exec.Command(binary, "key", "create", "--id", "example", "--scopes", scopes).Output()
	if err != nil {
		b.t.Fatal(err)
	}
	port, keys := freePort(b.t), filepath.Join(b.dir, "keys.yaml")
	key, entry, _ := strings.Cut(string(out), "\n")
	b.url, b.key = fmt.Sprintf("http://127.0.0.1:%d", port), key
	writeFile(b.t, keys, entry)
	b.server = serve(b.t, append([]string{"--api-port", fmt.Sprint(port), "--api-keys-file", keys}, args...)...)
	return b
}

// examples is the folder of the programs.
func examples(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join("..", "..", "docs", "backend"))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// languages are the command lines of the examples that have the verbs publish, members and token. {} stands for the verb.
var languages = map[string][]string{
	"php":    {"php", "php/{}.php"},
	"python": {"python3", "python/backend.py", "{}"},
	"node":   {"node", "node/backend.mjs", "{}"},
	"go":     {"go", "run", "./go", "{}"},
	"curl":   {"bash", "curl.sh", "{}"},
}

// ran is how a program ended.
type ran struct {
	code     int
	out, err string
}

// example runs a verb of a language's example against the server.
func (b *backend) example(t *testing.T, language, verb string, words ...string) ran {
	t.Helper()
	line := languages[language]
	cmd := exec.Command(need(t, line[0]))
	for _, word := range line[1:] {
		cmd.Args = append(cmd.Args, strings.ReplaceAll(word, "{}", verb))
	}
	cmd.Args = append(cmd.Args, words...)
	cmd.Dir, cmd.Env = examples(t), b.environment()
	return b.run(t, cmd)
}

// environment has the variables of the examples.
func (b *backend) environment() []string {
	return append(os.Environ(), "PARLEY_URL="+b.url, "PARLEY_API_KEY="+b.key, "PARLEY_JWT_SECRET_FILE="+b.secret, "CHAT_WS_URL="+b.ws)
}

func (b *backend) run(t *testing.T, cmd *exec.Cmd) ran {
	t.Helper()
	var out, wrong bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &wrong
	if err := cmd.Run(); cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return ran{cmd.ProcessState.ExitCode(), strings.TrimSpace(out.String()), strings.TrimSpace(wrong.String())}
}

// listeners are two clients in a room; where there are several workers, they are on two of them.
func (b *backend) listeners(t *testing.T, room string, processes int) (list []*person) {
	t.Helper()
	enter := func() *person {
		p := greet(t, "gorilla", b.ws)
		p.say(`{"type":"join","room":"%s"}`, room)
		p.until("joined")
		return p
	}
	list = append(list, enter(), enter())
	eventually(t, "the members are on all workers", func() bool {
		if processes == 1 || b.busyWorkers() == processes {
			return true
		}
		list = append(list, enter())
		return false
	})
	return list
}

// difficult has all that a program may quote wrongly.
const difficult = `he said "hi" \ <b> & $(id) 'it' 聊天 🎈`

// Each language's example publishes a text that every member gets as it was, on one process and on two.
func TestExamplesPublish(t *testing.T) {
	t.Parallel()
	for _, processes := range []int{1, 2} {
		t.Run(fmt.Sprint("processes ", processes), func(t *testing.T) {
			b := serveBackends(t, "publish", "--processes", fmt.Sprint(processes))
			people := b.listeners(t, "chat:1", processes)
			for language := range languages {
				t.Run(language, func(t *testing.T) {
					text := language + " says: " + difficult
					if r := b.example(t, language, "publish", "chat:1", text); r.code != 0 || r.err != "" {
						t.Fatalf("%+v", r)
					}
					for _, p := range people {
						m := p.until("broadcast")
						if data, _ := m["data"].(map[string]any); data["text"] != text || m["room"] != "chat:1" || m["from"] != nil {
							t.Errorf("a member got %v", m)
						}
					}
				})
			}
		})
	}
}

// A refusal ends each example with code and detail of the problem on standard error, and with exit code 1: a key that is
// unknown, a scope that is missing, a room that is no room. So does a server that is away, with an exit code that is not 0.
func TestExamplesOfRefusals(t *testing.T) {
	t.Parallel()
	b := serveBackends(t, "read")
	unknown, away := *b, *b
	unknown.key = "pk_stranger_" + strings.Repeat("A", 43)
	away.url = fmt.Sprintf("http://127.0.0.1:%d", freePort(t))
	publisher := serveBackends(t, "publish")
	for language := range languages {
		t.Run(language, func(t *testing.T) {
			for _, c := range []struct {
				b            *backend
				room         string
				code, detail string
			}{
				{&unknown, "chat:1", "unauthenticated", "the key is not known"},
				{b, "chat:1", "forbidden", "publish"},
				{publisher, strings.Repeat("r", 256), "invalid_room", "255"},
			} {
				r := c.b.example(t, language, "publish", c.room, "x")
				if r.code != 1 || r.out != "" || !strings.Contains(r.err, c.code) || !strings.Contains(r.err, c.detail) {
					t.Errorf("%s: %+v", c.code, r)
				}
			}
			if r := away.example(t, language, "publish", "chat:1", "x"); r.code == 0 || r.out != "" || r.err == "" || strings.Count(r.err, "\n") > 1 {
				t.Errorf("away: %+v", r)
			}
			if r := b.example(t, language, "publish"); r.out+r.err == "" || !strings.Contains(r.out+r.err, "ROOM") && !strings.Contains(r.out+r.err, "publish chat:1") {
				t.Errorf("a mistaken command line: %+v", r)
			}
		})
	}
}

// The shell's example publishes once to a room with history, however often it is called, and reads what the room keeps.
func TestCurlExampleOfHistory(t *testing.T) {
	b := serveBackends(t, "publish,read", "--history", "orders=messages:10")
	for i, pattern := range []string{`^\{"seq":1,"epoch":"[^"]+"\}$`, `^\{"seq":1,"epoch":"[^"]+","duplicate":true\}$`} {
		if r := b.example(t, "curl", "once", "orders", "order-7", difficult); r.code != 0 || !regexp.MustCompile(pattern).MatchString(r.out) {
			t.Errorf("call %d: %+v", i, r)
		}
	}
	var page struct {
		Messages []struct {
			Message struct{ Data struct{ Text string } }
		}
	}
	r := b.example(t, "curl", "history", "orders")
	if err := json.Unmarshal([]byte(r.out), &page); err != nil || len(page.Messages) != 1 || page.Messages[0].Message.Data.Text != difficult {
		t.Errorf("%v %+v", err, r)
	}
	if r := b.example(t, "curl", "once", "lobby", "k", "x"); r.code != 1 || !strings.Contains(r.err, "no_history") {
		t.Errorf("%+v", r)
	}
}

// The shell's example sends a text to everybody, also outside of rooms, and ends a connection with 4007.
func TestCurlExample(t *testing.T) {
	b := serveBackends(t, "publish,manage")
	ann, bob := greet(t, "gorilla", b.ws), greet(t, "gorilla", b.ws)
	if r := b.example(t, "curl", "everybody", difficult); r.code != 0 || r.out != "{}" {
		t.Errorf("%+v", r)
	}
	for _, p := range []*person{ann, bob} {
		if m := p.until("notice"); m["text"] != difficult {
			t.Errorf("a client got %v", m)
		}
	}
	if r := b.example(t, "curl", "disconnect", ann.id); r.code != 0 || r.out != `{"closed":1}` {
		t.Errorf("%+v", r)
	}
	for err := error(nil); !gorilla.IsCloseError(err, 4007); _, err = ann.c.read() {
		if err != nil {
			t.Fatal(err)
		}
	}
	if r := b.example(t, "curl", "members", "chat:1"); r.code != 1 || !strings.Contains(r.err, "forbidden") {
		t.Errorf("a key without the scope read: %+v", r)
	}
}
