package interop

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
	"time"
)

// patient is how long a test waits for what must come.
const patient = 20 * time.Second

var binary string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "parley")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "parley")
		build := exec.Command("go", "build", "-o", binary, "./cmd/parley")
		build.Dir = filepath.Join("..", "..")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// server is a `parley serve` in a process of its own.
type server struct {
	t     testing.TB
	cmd   *exec.Cmd
	ws    string // ws://host:port
	admin string // http://host:port/
}

var ready = regexp.MustCompile(`ready on (ws://\S+); .* on (http://\S+)`)

// serve starts the server and waits until it is ready. It is ended at the end of the test, and must then exit
// with 0. limit is the number of descriptors that it may have, 0 for the usual.
func serve(t testing.TB, limit int, args ...string) *server {
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

// freePort is a port that nobody had a moment ago; 0 would turn the admin listener off.
func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
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

// need skips a test whose client is not installed; where everything is required, that is a failure.
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
