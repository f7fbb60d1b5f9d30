package interop

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// patient is how long a test waits for an event that must come, on a slow machine, too.
const patient = time.Minute

// The server is built twice: as it ships, for thousands of clients, and with the race detector, if there is a C compiler,
// and the invariants, for all other tests.
var binary, watched string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "parley")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		os.Setenv("PARLEY_API_PORT", "0") // servers of several tests run at once, and the default port is one
		binary = filepath.Join(dir, "parley")
		watched = binary
		if err := build(binary, "CGO_ENABLED=0"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		if _, err := exec.LookPath("gcc"); err == nil {
			watched = filepath.Join(dir, "parley-race")
			err := build(watched, "CGO_ENABLED=1", "-race", "-tags", "invariants")
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				return 1
			}
		} else if os.Getenv("REQUIRE_ALL_CLIENTS") == "1" {
			fmt.Fprintln(os.Stderr, "a C compiler is missing, and REQUIRE_ALL_CLIENTS=1 requires it")
			return 1
		}
		return m.Run()
	}())
}

func build(path, cgo string, flags ...string) error {
	cmd := exec.Command("go", append(append([]string{"build", "-o", path}, flags...), "./cmd/parley")...)
	cmd.Dir = filepath.Join("..", "..")
	cmd.Env = append(os.Environ(), cgo)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w\n%s", err, out)
	}
	return nil
}

// server is a `parley serve` in a process of its own.
type server struct {
	t     testing.TB
	cmd   *exec.Cmd
	ws    string // ws://host:port
	admin string // http://host:port/
}

var ready = regexp.MustCompile(`ready on (ws://\S+); .*? on (http://[^\s;]+)`) // the API's address comes behind it

// serve starts the server and waits until it is ready. It is ended at the end of the test, and must then exit
// with 0, which a data race would prevent.
func serve(t testing.TB, args ...string) *server {
	t.Helper()
	return start(t, watched, 0, args...)
}

// serveMany is serve for thousands of clients: the server as it ships. limit is the most descriptors that it may have, 0
// for the usual limit.
func serveMany(t testing.TB, limit int, args ...string) *server {
	t.Helper()
	return start(t, binary, limit, args...)
}

func start(t testing.TB, binary string, limit int, args ...string) *server {
	t.Helper()
	shell := fmt.Sprintf("exec %s serve --port 0 --admin-port %d \"$@\"", binary, freePort(t))
	if limit > 0 {
		shell = fmt.Sprintf("ulimit -n %d; %s", limit, shell)
	}
	s := &server{t: t, cmd: exec.Command("sh", append([]string{"-c", shell, "parley"}, args...)...)}
	s.cmd.Stderr = os.Stderr
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	found := ready.FindStringSubmatch(line)
	if err != nil || found == nil {
		t.Fatalf("the server says %q (%v)", line, err)
	}
	s.ws, s.admin = found[1], found[2]
	t.Cleanup(func() {
		if s.cmd.ProcessState != nil {
			return // the test has ended it
		}
		s.cmd.Process.Signal(syscall.SIGTERM)
		if err := s.cmd.Wait(); err != nil {
			t.Errorf("the server ended with %v", err)
		}
	})
	return s
}

// lastPort counts on from a random place, outside the range from which the kernel chooses ports: two concurrent servers
// must not get the same one.
var lastPort = func() *atomic.Uint32 {
	n := new(atomic.Uint32)
	n.Store(rand.Uint32())
	return n
}()

// freePort is a port that was free a moment ago; 0 would turn the admin listener off.
func freePort(t testing.TB) int {
	t.Helper()
	for range 1000 {
		port := 12_000 + int(lastPort.Add(1)%20_000)
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}

// stats reads one figure.
func (s *server) stats(key string) float64 {
	s.t.Helper()
	response, err := http.Get(s.admin + "stats")
	if err != nil {
		s.t.Fatal(err)
	}
	defer response.Body.Close()
	var all map[string]any
	if err := json.NewDecoder(response.Body).Decode(&all); err != nil {
		s.t.Fatal(err)
	}
	n, _ := all[key].(float64)
	return n
}

// eventually polls for a condition.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patient)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		<-tick.C
	}
}

// need skips a test whose client is not installed; if all clients are required, that is a failure.
func need(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err == nil {
		return path
	}
	if os.Getenv("REQUIRE_ALL_CLIENTS") == "1" {
		t.Fatalf("%s is missing, and REQUIRE_ALL_CLIENTS=1 requires it", program)
	}
	t.Skipf("%s is missing", program)
	return ""
}
