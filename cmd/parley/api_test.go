package main

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/parleyd/parley/protocol/message"
)

// unsetAPIPort lifts the setting of the tests for one test.
func unsetAPIPort(t *testing.T) {
	t.Helper()
	t.Setenv(apiPort, "")
	os.Unsetenv(apiPort)
}

// backend is a program that speaks to the API.
type backend struct {
	t        *testing.T
	url, key string
}

// post sends a request, and returns the status and the answer.
func (b *backend) post(path, body string) (status int, answer string) {
	b.t.Helper()
	return b.request(http.MethodPost, path, "Content-Type", "application/json", body)
}

// request sends a request with one more header field, on a connection of its own, and reads the whole answer.
func (b *backend) request(method, path, field, value, body string) (status int, answer string) {
	b.t.Helper()
	r, err := http.NewRequest(method, b.url+path, strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+b.key)
	r.Header.Set(field, value)
	r.Close = true
	got, err := http.DefaultClient.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer got.Body.Close()
	text, err := io.ReadAll(got.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return got.StatusCode, string(text)
}

// member is a client in a room, whose messages are read line by line.
func (r *running) member(room string) *bufio.Reader { return r.memberBy(ws.DefaultDialer, room) }

// memberBy is a member that connects in a way of its own.
func (r *running) memberBy(d ws.Dialer, room string) *bufio.Reader {
	r.t.Helper()
	conn, in, _, err := d.Dial(r.t.Context(), "ws://"+r.ws+"/")
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	if err := wsutil.WriteClientText(conn, fmt.Appendf(nil, `{"type":"join","room":%s}`, message.AppendString(nil, room))); err != nil {
		r.t.Fatal(err)
	}
	var from io.Reader = conn
	if in != nil {
		from = io.MultiReader(in, conn)
	}
	lines, write := io.Pipe()
	go func() {
		for {
			text, err := wsutil.ReadServerText(struct {
				io.Reader
				io.Writer
			}{from, conn})
			if err != nil {
				conn.Close()
				write.CloseWithError(err)
				return
			}
			fmt.Fprintf(write, "%s\n", text)
		}
	}()
	m := bufio.NewReader(lines)
	await(r.t, m, `"joined"`)
	conn.SetDeadline(time.Now().Add(patient))
	return m
}

// await reads until a message with a text.
func await(t *testing.T, m *bufio.Reader, text string) string {
	t.Helper()
	for {
		line, err := m.ReadString('\n')
		if err != nil {
			t.Fatalf("waiting for %s: %v", text, err)
		}
		if strings.Contains(line, text) {
			return line
		}
	}
}

// serveAPI starts a server that makes a key for its run, with further flags.
func serveAPI(t *testing.T, processes string, flags ...string) (r *running, b *backend, keyFile string) {
	t.Helper()
	unsetAPIPort(t)
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	_, admin := freeAddress(t)
	_, api := freeAddress(t)
	flags = append([]string{"serve", "--port", "0", "--admin-port", admin, "--api-port", api, "--loops", "1", "--processes", processes}, flags...)
	r, stdout, _ := piped(t, nil, flags...)
	line, _ := stdout.ReadString('\n')
	found, ready := keyInReadyLine.FindStringSubmatch(line), readyLine.FindStringSubmatch(line)
	if found == nil || ready == nil {
		t.Fatalf("it says %q", line)
	}
	r.ws, r.admin = ready[1], ready[2]
	text, err := os.ReadFile(found[2])
	if err != nil {
		t.Fatal(err)
	}
	return r, &backend{t, found[1], strings.TrimSpace(string(text))}, found[2]
}

var keyInReadyLine = regexp.MustCompile(`HTTP API on (http://\S+)/ with the key in (\S+)`)

// A server without keys makes one for its run; the ready line says where. With it a backend publishes to the members on all
// workers, also after the api process was killed. The file is gone when the server has ended.
func TestPublish(t *testing.T) {
	for _, processes := range []string{"1", "3"} {
		t.Run(processes, func(t *testing.T) {
			r, b, keyFile := serveAPI(t, processes)
			var members []*bufio.Reader
			for range 4 {
				members = append(members, r.member("chat:1"))
			}
			for n := range 3 {
				if n == 2 && processes != "1" {
					r.signalRole("api", syscall.SIGKILL)
				}
				if status, answer := b.post("/v1/publish", fmt.Sprintf(`{"room":"chat:1","data":{"n":%d}}`, n)); status != http.StatusOK {
					t.Fatal(status, answer)
				}
			}
			for _, m := range members {
				for n := range 3 {
					if got := await(t, m, `"broadcast"`); !strings.Contains(got, fmt.Sprintf(`"data":{"n":%d}`, n)) {
						t.Errorf("message %d is %s", n, got)
					}
				}
			}
			if status, answer := (&backend{t, b.url, b.key[:len(b.key)-1] + "!"}).post("/v1/publish", `{}`); status != http.StatusUnauthorized {
				t.Error("a wrong key:", status, answer)
			}
			r.stops()
			if _, err := os.Stat(keyFile); err == nil {
				t.Error("the key's file is left")
			}
		})
	}
}

// children are the processes that a server has started.
func (r *running) children() (pids []string) {
	r.t.Helper()
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", r.cmd.Process.Pid))
	if err != nil || len(lists) == 0 {
		r.t.Skip("the kernel does not list the children of a process")
	}
	for _, list := range lists {
		text, _ := os.ReadFile(list)
		pids = append(pids, strings.Fields(string(text))...)
	}
	return pids
}

// signalRole sends a signal to the process with a role.
func (r *running) signalRole(role string, sig syscall.Signal) {
	r.t.Helper()
	for _, pid := range r.children() {
		environ, _ := os.ReadFile("/proc/" + pid + "/environ")
		if strings.Contains(string(environ), "PARLEY_ROLE="+role+"\x00") {
			n, _ := strconv.Atoi(pid)
			syscall.Kill(n, sig)
			if sig == syscall.SIGSTOP { // a thread on another core may run on for a while
				r.eventually(role+" has stopped", func() bool { return stopped(pid) })
			}
			return
		}
	}
	r.t.Fatal("there is no process with the role", role)
}

// stopped reports whether no thread of a process runs.
func stopped(pid string) bool {
	threads, _ := filepath.Glob("/proc/" + pid + "/task/*/stat")
	return len(threads) > 0 && !slices.ContainsFunc(threads, func(path string) bool {
		text, err := os.ReadFile(path)
		return err == nil && !strings.Contains(string(text), ") T ")
	})
}

// Keys of the section, of the file and of the variable are good; a reload replaces them. No secret is in the environment of
// the workers.
func TestKeys(t *testing.T) {
	unsetAPIPort(t)
	made := map[string]string{}
	entries := map[string]string{}
	for _, id := range []string{"file", "section", "variable"} {
		code, out, stderr := parley(t, "key", "create", "--id", id, "--scopes", "publish")
		if code != exitOK {
			t.Fatal(stderr)
		}
		made[id], entries[id], _ = strings.Cut(out, "\n\n")
	}
	keysFile := write(t, entries["file"])
	config := write(t, "api_keys_file: "+keysFile+"\n"+entries["section"])
	t.Setenv(keyVariable, made["variable"])
	_, admin := freeAddress(t)
	_, api := freeAddress(t)
	r, stdout, _ := piped(t, nil, "serve", "--port", "0", "--admin-port", admin, "--api-port", api, "--loops", "1", "--processes", "2", "--config", config)
	r.hears(stdout)
	publishes := func(id string) int {
		status, _ := (&backend{t, "http://127.0.0.1:" + api, made[id]}).post("/v1/publish", `{"room":"x","data":1}`)
		return status
	}
	for id := range made {
		if status := publishes(id); status != http.StatusOK {
			t.Errorf("key %s: %d", id, status)
		}
	}
	for _, pid := range r.children() {
		environ, _ := os.ReadFile("/proc/" + pid + "/environ")
		if strings.Contains(string(environ), made["variable"]) {
			t.Errorf("process %s finds the key in its environment", pid)
		}
	}
	if err := os.WriteFile(keysFile, []byte(strings.ReplaceAll(entries["file"], "id: file", "id: gone")), 0o600); err != nil {
		t.Fatal(err)
	}
	r.signal(syscall.SIGHUP)
	r.eventually("the key is bad", func() bool { return publishes("file") == http.StatusUnauthorized })
	if section, variable := publishes("section"), publishes("variable"); section != http.StatusOK || variable != http.StatusOK {
		t.Error("after the reload:", section, variable)
	}
	r.stops()
}

// A mistake in a key has its place, and an API for other machines needs a key.
func TestKeyMistakes(t *testing.T) {
	unsetAPIPort(t)
	good := "sha256: 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
	for text, want := range map[string]string{
		"port: 1\nkeys:\n  - {id: a, " + good + ", scopes: [reed]}\n":               "parley.yaml:3: keys: scopes: \"reed\" is no scope",
		"keys:\n  - id: a\n    " + good + "\n    scops: [read]\n":                   "parley.yaml:4: there is no field \"scops\"; did you mean \"scopes\"?",
		"keys:\n  - {id: a, id: b}\n":                                               "id is set twice",
		"keys: {id: a}\n":                                                           "parley.yaml:1: keys: it is a list",
		"keys:\n  - a\n":                                                            "parley.yaml:2: an entry has the form {id: ..., sha256:",
		"keys:\n  - {id: [a], " + good + ", scopes: [read]}\n":                      "parley.yaml:2: id is not a text",
		"keys:\n  - {id: a, " + good + ", scopes: read}\n":                          "parley.yaml:2: scopes is not a list of texts",
		"keys:\n  - {id: a, " + good + ", scopes: [read], until: never}\n":          "until: \"never\" is no date",
		"keys:\n  - {id: a, " + good + ", scopes: [read], rooms: ['a*b*c*d*e*']}\n": "rooms:",
		"keys: []\nkeys: []\n":                                                      "keys is set twice",
		"hooks: []\n":                                                               "parley.yaml:1: hooks: this version of parley does not have it yet",
		"backend: {}\n":                                                             "this version of parley does not have it yet",
		"key: []\n":                                                                 "did you mean \"keys\"?",
		"api_host: 0.0.0.0\n":                                                       "parley.yaml:1: api_host: 0.0.0.0 is reached from other machines, and there is no key",
		"api_port: 9091\n":                                                          "api_port: 9091 is admin_port, too",
		"api_port: 9090\n":                                                          "api_port: 9090 is the server's own port",
		"api_keys_file: /nowhere/keys\n":                                            "/nowhere/keys",
	} {
		if code, _, stderr := parley(t, "check-config", write(t, text)); code != exitUsage || !strings.Contains(stderr, want) {
			t.Errorf("%q: %d %s, wanted %s", text, code, stderr, want)
		}
	}
	t.Setenv(keyVariable, "pk_short")
	heldKey = ""
	t.Cleanup(func() { heldKey = "" })
	if code, _, stderr := parley(t, "check-config"); code != exitUsage || !strings.Contains(stderr, keyVariable+": read a key") || strings.Contains(stderr, "pk_short") {
		t.Error(code, stderr)
	}
}

// The list of keys has what each may do, and no hash.
func TestKeyList(t *testing.T) {
	unsetAPIPort(t)
	sum := strings.Repeat("0f", 32)
	config := write(t, "keys:\n  - {id: a, sha256: "+sum+", scopes: [read, publish], rooms: ['x:*']}\n  - {id: b, sha256: "+sum+", scopes: [all], until: 2099-01-01}\n")
	for want, args := range map[string][]string{
		"ID  SCOPES        ROOMS  UNTIL\na   read,publish  x:*    -\nb   all           -      2099-01-01\n":                                    nil,
		"{\"id\":\"a\",\"rooms\":[\"x:*\"],\"scopes\":[\"read\",\"publish\"]}\n{\"id\":\"b\",\"scopes\":[\"all\"],\"until\":\"2099-01-01\"}\n": {"--json"},
	} {
		if code, out, stderr := parley(t, append([]string{"key", "list", "--config", config}, args...)...); code != exitOK || out != want {
			t.Errorf("%d %q %q, want %q", code, out, stderr, want)
		}
	}
}
