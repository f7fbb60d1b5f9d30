package cluster_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/engine/canary"
	"github.com/parleyd/parley/engine/cluster"
	"github.com/parleyd/parley/engine/cluster/supervise"
)

const (
	serverVariable = "PARLEY_TEST_SERVER"
	apiVariable    = "PARLEY_TEST_API" // set: the server has an API, publishOverHTTP
)

// TestMain is also the main of the servers that tests start: this binary again, which then runs once for each role.
func TestMain(m *testing.M) {
	text := os.Getenv(serverVariable)
	if text == "" {
		os.Exit(m.Run())
	}
	if err := serveTest(text); err != nil {
		fmt.Fprintln(os.Stderr, err)
		if _, wrong := errors.AsType[*engine.ConfigError](err); wrong {
			os.Exit(2)
		}
		os.Exit(cluster.ExitCode(err))
	}
}

// serveTest is a server of the tests. text is its configuration.
func serveTest(text string) error {
	var cfg engine.Config
	if err := json.Unmarshal([]byte(text), &cfg); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	srv, err := engine.New(cfg, engine.WithLogger(log))
	if err != nil {
		return err
	}
	handle(srv)
	ctx := context.Background()
	if cluster.Parent() && cfg.Processes <= 1 {
		var stop func()
		ctx, stop = signal.NotifyContext(ctx, syscall.SIGTERM)
		defer stop()
	}
	var api *cluster.API
	if os.Getenv(apiVariable) != "" {
		api = &cluster.API{Address: "127.0.0.1:0", Serve: publishOverHTTP, Ready: func(addr net.Addr) { fmt.Println("api " + addr.String()) }}
	}
	return cluster.Run(ctx, srv, cluster.Options{
		Log: log,
		API: api,
		Parent: func(o *cluster.Overview) error {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return err
			}
			go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				json.NewEncoder(w).Encode(o.Status())
			}))
			fmt.Println("page http://" + l.Addr().String())
			return nil
		},
		Ready: func(addr net.Addr) { fmt.Println("ready " + addr.String()) },
	})
}

// holdOrder makes a handler block its loop, make a file in a directory as a sign, and return when the directory is gone.
type holdOrder struct {
	Dir string `json:"dir"`
}

// handle gives a server of the tests its handlers: keep sets an attribute and the user data, tell
// shows them, unsaved says for how long the oldest change has not been stored, gather makes all connections join a room.
func handle(srv *engine.Server) {
	handleDeeds(srv)
	handleRooms(srv)
	handleSeed(srv)
	srv.OnConnect(func(c *engine.Conn, r *engine.Request) error {
		if user := r.Query("user"); user != "" {
			c.SetPrincipal(user)
		}
		if name := r.Query("name"); name != "" {
			return c.SetAttribute("value", name)
		}
		return nil
	})
	srv.On("keep", func(c *engine.Conn, m *engine.Message, _ *engine.Server) (any, error) {
		var asked struct {
			Value string `json:"value"`
		}
		if err := m.Decode(&asked); err != nil {
			return nil, err
		}
		if err := c.SetUserData(asked.Value); err != nil {
			return nil, err
		}
		return engine.M{"type": "kept"}, c.SetAttribute("value", asked.Value)
	})
	srv.On("unsaved", func(_ *engine.Conn, _ *engine.Message, s *engine.Server) (any, error) {
		return engine.M{"type": "unsaved", "millis": s.Stats().SessionUnsavedMillis}, nil
	})
	srv.On("gather", func(_ *engine.Conn, _ *engine.Message, s *engine.Server) (any, error) {
		for c := range s.Connections() {
			if err := s.Rooms().Join(c, "all"); err != nil {
				return nil, err
			}
		}
		return engine.M{"type": "gathered"}, nil
	})
	engine.On(srv, "hold", func(_ *engine.Conn, o holdOrder, _ *engine.Server) (any, error) {
		f, err := os.CreateTemp(o.Dir, "held")
		if err != nil {
			return nil, err
		}
		f.Close()
		for err == nil { // on the loop
			<-time.After(time.Millisecond)
			_, err = os.Stat(o.Dir)
		}
		return nil, nil
	})
	srv.On("tell", func(c *engine.Conn, _ *engine.Message, _ *engine.Server) (any, error) {
		attribute, _ := engine.Attribute[string](c, "value")
		user, _ := engine.UserData[string](c)
		return engine.M{"type": "told", "attribute": attribute, "user": user, "pid": os.Getpid(), "rooms": c.Rooms()}, nil
	})
}

// serverProcess is a server in processes of its own.
type serverProcess struct {
	t     testing.TB
	cmd   *exec.Cmd
	addr  string
	api   string
	page  string
	ended chan struct{}

	mu  sync.Mutex
	out strings.Builder
}

// startProcesses starts a server with a configuration, and waits until it serves.
func startProcesses(t testing.TB, cfg engine.Config) *serverProcess {
	t.Helper()
	s := beginProcesses(t, cfg)
	poll(t, "the server serves", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		select {
		case <-s.ended:
			t.Fatalf("the server has ended:\n%s", s.out.String())
		default:
		}
		return s.addr != ""
	})
	return s
}

func beginProcesses(t testing.TB, cfg engine.Config) *serverProcess {
	t.Helper()
	cfg.Port, cfg.Loops = -1, 2
	text, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s := &serverProcess{t: t, ended: make(chan struct{})}
	s.cmd = exec.Command(os.Args[0])
	s.cmd.Env = append(os.Environ(), serverVariable+"="+string(text), "GORACE=atexit_sleep_ms=0")
	stdout, _ := s.cmd.StdoutPipe()
	stderr, _ := s.cmd.StderrPipe()
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var readers sync.WaitGroup
	for _, r := range []io.Reader{stdout, stderr} {
		readers.Go(func() { s.read(r) })
	}
	go func() {
		readers.Wait()
		s.cmd.Wait()
		close(s.ended)
	}()
	t.Cleanup(func() {
		s.end(syscall.SIGTERM)
		out := s.output()
		if fault := faults.FindString(out); fault != "" || t.Failed() {
			t.Errorf("%q is in the server's output:\n%s", fault, out)
		}
	})
	return s
}

// faults are log lines that a server must not write, unless its test has damaged something.
var faults = regexp.MustCompile(`DATA RACE|panic: |msg=ledger|cannot be read`)

func (s *serverProcess) read(r io.Reader) {
	for lines := bufio.NewScanner(r); lines.Scan(); {
		s.mu.Lock()
		text := lines.Text()
		if addr, ok := strings.CutPrefix(text, "ready "); ok {
			s.addr = addr
		} else if page, ok := strings.CutPrefix(text, "page "); ok {
			s.page = page
		} else if api, ok := strings.CutPrefix(text, "api "); ok {
			s.api = api
		}
		fmt.Fprintln(&s.out, text)
		s.mu.Unlock()
	}
}

// output is the server's output so far.
func (s *serverProcess) output() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.String()
}

// end ends the server by a signal, and waits until it and all its children are gone.
func (s *serverProcess) end(sig syscall.Signal) {
	s.t.Helper()
	s.cmd.Process.Signal(sig)
	s.cmd.Process.Signal(syscall.SIGCONT) // it may be stopped where a test has failed
	select {
	case <-s.ended:
	case <-time.After(canary.Stretch(patient)):
		s.cmd.Process.Kill()
		s.t.Errorf("the server does not end after %v", sig)
	}
}

// status is the supervisor's status.
func (s *serverProcess) status() (status supervise.Status) {
	s.t.Helper()
	r, err := http.Get(s.page)
	if err != nil {
		s.t.Fatal(err)
	}
	defer r.Body.Close()
	if err := json.NewDecoder(r.Body).Decode(&status); err != nil {
		s.t.Fatal(err)
	}
	return status
}

// pids are the process ids of the workers that serve.
func (s *serverProcess) pids() (pids []int) {
	for _, w := range s.status().Workers {
		if w.State == "ready" {
			pids = append(pids, w.PID)
		}
	}
	return pids
}

// ward is the status of "bus", "api", or "worker 0" and so on.
func (s *serverProcess) ward(name string) supervise.WardStatus {
	s.t.Helper()
	status := s.status()
	for _, w := range status.Workers {
		if name == fmt.Sprint("worker ", w.Index) {
			return w
		}
	}
	if name == "api" {
		return *status.API
	}
	return *status.Bus
}

func (s *serverProcess) pid(name string) int {
	s.t.Helper()
	return s.ward(name).PID
}

// isReady reports whether a ward serves, in another process than before.
func (s *serverProcess) isReady(name string, but int) bool {
	s.t.Helper()
	w := s.ward(name)
	return w.State == "ready" && w.PID != but
}

// isGone reports whether a process was reaped.
func (s *serverProcess) isGone(name string, pid int) bool {
	s.t.Helper()
	w := s.ward(name)
	return w.State != "ready" || w.PID != pid
}

// signal sends one to a process and returns its pid.
func (s *serverProcess) signal(name string, sig syscall.Signal) int {
	s.t.Helper()
	pid := s.pid(name)
	if err := syscall.Kill(pid, sig); err != nil {
		s.t.Fatalf("signal %s (%d): %v", name, pid, err)
	}
	return pid
}

// some is how many repetitions a test makes: all in make soak, a part in make test.
func some(all, part int) int {
	if testing.Short() {
		return part
	}
	return all
}

// patient is how long a test waits for a condition. It costs no time where the condition holds.
const patient = 30 * time.Second

// poll waits for a condition.
func poll(t testing.TB, what string, f func() bool) {
	t.Helper()
	if !canary.Wait(patient, f) {
		t.Fatalf("not within %v: %s", patient, what)
	}
}
