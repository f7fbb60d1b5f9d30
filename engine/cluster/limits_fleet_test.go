package cluster

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/parleyd/parley/engine"
)

// The tests of limits run real servers: the test binary once more, which becomes a supervisor with its children.

const fleetVariable = "CLUSTER_LIMITS_FLEET"

// init, and not TestMain: a copy of the binary that is a server has nothing to do with the tests.
func init() {
	if text := os.Getenv(fleetVariable); text != "" {
		os.Exit(serveFleet(text))
	}
}

// order is what the tests' handlers are asked for.
type order struct {
	Room string `json:"room"`
	Max  int    `json:"max"`
}

func serveFleet(text string) int {
	var cfg engine.Config
	if err := json.Unmarshal([]byte(text), &cfg); err != nil {
		panic(err)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	srv, err := engine.New(cfg, engine.WithLogger(log))
	if err != nil {
		panic(err)
	}
	engine.On(srv, "worker", func(*engine.Conn, struct{}, *engine.Server) (any, error) {
		return engine.M{"type": "worker", "pid": os.Getpid()}, nil
	})
	engine.On(srv, "create", func(_ *engine.Conn, o order, s *engine.Server) (any, error) {
		err := s.Rooms().Create(o.Room, engine.RoomOptions{MaxMembers: o.Max, Metadata: engine.M{"max": o.Max}})
		return engine.M{"type": "created", "err": fmt.Sprint(err)}, nil
	}, engine.Offload())
	engine.On(srv, "delete", func(_ *engine.Conn, o order, s *engine.Server) (any, error) {
		return engine.M{"type": "deleted", "ok": s.Rooms().Delete(o.Room)}, nil
	}, engine.Offload())
	engine.On(srv, "stats", func(_ *engine.Conn, o order, s *engine.Server) (any, error) {
		stats, ok := s.Rooms().Stats(o.Room)
		return engine.M{"type": "stats", "ok": ok, "stats": stats}, nil
	})
	engine.On(srv, "enter", func(c *engine.Conn, o order, s *engine.Server) (any, error) {
		s.Rooms().JoinThen(c, o.Room, func(err error) { c.Send(engine.M{"type": "entered", "err": fmt.Sprint(err)}) })
		return nil, nil
	})
	err = Run(context.Background(), srv, Options{Log: log, Ready: func(addr net.Addr) { fmt.Println("ready", addr) }})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return ExitCode(err)
}

// fleet is a server with its processes, as the supervisor's log tells of them.
//
// Owner: shared (mutex: mu).
type fleet struct {
	t   testing.TB
	cmd *exec.Cmd
	url string

	mu      sync.Mutex
	pids    map[string]int // of "bus", "worker 0" ...
	ready   map[string]bool
	faults  []string
	expects []string // parts of lines that are no faults
}

func startFleet(t testing.TB, workers int, change func(*engine.Config)) *fleet {
	t.Helper()
	cfg := engine.Config{Port: -1, Processes: workers, Loops: 1, AnnounceMembersMax: -1}
	if change != nil {
		change(&cfg)
	}
	text, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	f := &fleet{t: t, cmd: exec.Command(os.Args[0]), pids: map[string]int{}, ready: map[string]bool{}}
	f.cmd.Env = append(os.Environ(), fleetVariable+"="+string(text))
	stdout, err := f.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := f.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := f.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var read sync.WaitGroup
	addr := make(chan string, 1)
	read.Go(func() {
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			if at, ok := strings.CutPrefix(lines.Text(), "ready "); ok {
				addr <- at
			}
		}
	})
	read.Go(func() { f.follow(stderr) })
	t.Cleanup(func() {
		_ = f.cmd.Process.Signal(syscall.SIGTERM)
		read.Wait()
		_ = f.cmd.Wait()
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, line := range f.faults {
			t.Error("the server complains: ", line)
		}
	})
	select {
	case at := <-addr:
		f.url = "ws://" + at + "/"
	case <-time.After(patient):
		t.Fatal("the server is not ready")
	}
	return f
}

var (
	startedLine = regexp.MustCompile(`msg="?started (bus|worker \d+)"?.* pid=(\d+)`)
	readyLine   = regexp.MustCompile(`msg="?(bus|worker \d+) is ready"?`)
	endedLine   = regexp.MustCompile(`msg="?(bus|worker \d+) ended"?`)
)

// follow keeps what the log says of the processes, and what it should not say.
func (f *fleet) follow(log io.Reader) {
	for lines := bufio.NewScanner(log); lines.Scan(); {
		line := lines.Text()
		f.mu.Lock()
		if m := startedLine.FindStringSubmatch(line); m != nil {
			f.pids[m[1]], _ = strconv.Atoi(m[2])
		}
		if m := readyLine.FindStringSubmatch(line); m != nil {
			f.ready[m[1]] = true
		}
		if m := endedLine.FindStringSubmatch(line); m != nil {
			f.ready[m[1]] = false
		}
		if strings.Contains(line, "panic") || strings.Contains(line, "DATA RACE") || strings.Contains(line, "msg=ledger") {
			f.faults = append(f.faults, line)
		}
		f.mu.Unlock()
	}
}

// pid is a process's, by its name; name is that of a worker's pid.
func (f *fleet) pid(name string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.pids[name]
}

func (f *fleet) isReady(name string, but int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ready[name] && f.pids[name] != but
}

// isGone reports whether the kernel has said that a process has ended.
func (f *fleet) isGone(name string, pid int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.ready[name] || f.pids[name] != pid
}

// signal sends one to a process and returns its pid.
func (f *fleet) signal(name string, sig syscall.Signal) int {
	f.t.Helper()
	pid := f.pid(name)
	if err := syscall.Kill(pid, sig); err != nil {
		f.t.Fatalf("signal %s (%d): %v", name, pid, err)
	}
	return pid
}

const patient = 20 * time.Second

// eventually polls until a condition holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	within(t, patient, what, holds)
}

func within(t testing.TB, limit time.Duration, what string, holds func() bool) {
	t.Helper()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for deadline := time.Now().Add(limit); !holds(); <-poll.C {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// client is one connection. Its methods are for one goroutine and return an error once it has ended.
type client struct {
	conn  net.Conn
	pid   int // of its worker
	id    string
	token string
}

type reply map[string]any

func (f *fleet) connect() (*client, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patient)
	defer cancel()
	conn, br, _, err := ws.Dial(ctx, f.url)
	if err != nil {
		return nil, err
	}
	c := &client{conn: conn}
	if br != nil {
		c.conn = &buffered{conn, br}
	}
	for _, typ := range []string{"connected", "reconnect_token"} {
		m, err := c.await(typ)
		if err != nil {
			conn.Close()
			return nil, err
		}
		if typ == "connected" {
			c.id = m["connection_id"].(string)
		} else {
			c.token = m["token"].(string)
		}
	}
	m, err := c.ask(`{"type":"worker"}`, "worker")
	if err != nil {
		conn.Close()
		return nil, err
	}
	c.pid = int(m["pid"].(float64))
	return c, nil
}

// buffered reads first what the dialer has read too far.
type buffered struct {
	net.Conn
	r *bufio.Reader
}

func (b *buffered) Read(p []byte) (int, error) { return b.r.Read(p) }

func (c *client) send(text string) error { return wsutil.WriteClientText(c.conn, []byte(text)) }

// next is the next message; pings are none.
func (c *client) next() (reply, error) {
	for {
		c.conn.SetReadDeadline(time.Now().Add(patient))
		raw, _, err := wsutil.ReadServerData(c.conn)
		if err != nil {
			return nil, err
		}
		var m reply
		if err := json.Unmarshal(raw, &m); err != nil {
			return nil, fmt.Errorf("%s: %w", raw, err)
		}
		if m["type"] != "ping" {
			return m, nil
		}
	}
}

// await skips what is of none of the types.
func (c *client) await(types ...string) (reply, error) {
	for {
		m, err := c.next()
		if err != nil {
			return nil, err
		}
		for _, typ := range types {
			if m["type"] == typ {
				return m, nil
			}
		}
	}
}

func (c *client) ask(text string, types ...string) (reply, error) {
	if err := c.send(text); err != nil {
		return nil, err
	}
	return c.await(types...)
}

// join asks for a room and returns "" or the code of the refusal.
func (c *client) join(room string) (code string, err error) {
	m, err := c.ask(`{"type":"join","room":"`+room+`"}`, "joined", "error")
	if err != nil || m["type"] == "joined" {
		return "", err
	}
	return m["code"].(string), nil
}

func (c *client) leave(room string) error {
	_, err := c.ask(`{"type":"leave","room":"`+room+`"}`, "left", "error")
	return err
}

// member is a client of a test's own goroutine, for which every error is a failure.
type member struct {
	*client
	t testing.TB
}

// dial connects to some worker; with a pid, to that one.
func (f *fleet) dial(pid int) *member {
	f.t.Helper()
	for deadline := time.Now().Add(patient); time.Now().Before(deadline); {
		c, err := f.connect()
		if err != nil {
			f.t.Fatal("connect:", err)
		}
		if pid == 0 || c.pid == pid {
			f.t.Cleanup(func() { c.conn.Close() })
			return &member{c, f.t}
		}
		c.conn.Close()
	}
	f.t.Fatalf("no connection reaches worker %d", pid)
	return nil
}

// each connects to every worker.
func (f *fleet) each(workers int) (list []*member) {
	for i := range workers {
		list = append(list, f.dial(f.pid(fmt.Sprint("worker ", i))))
	}
	return list
}

func (m *member) must(text string, types ...string) reply {
	m.t.Helper()
	answer, err := m.ask(text, types...)
	if err != nil {
		m.t.Fatalf("%s: %v", text, err)
	}
	return answer
}

func (m *member) joins(room string) string {
	m.t.Helper()
	code, err := m.join(room)
	if err != nil {
		m.t.Fatalf("join %s: %v", room, err)
	}
	return code
}

func (m *member) leaves(room string) {
	m.t.Helper()
	m.must(`{"type":"leave","room":"`+room+`"}`, "left")
}

func (m *member) stats(room string) (stats engine.RoomStats, ok bool) {
	m.t.Helper()
	answer := m.must(`{"type":"stats","room":"`+room+`"}`, "stats")
	raw, _ := json.Marshal(answer["stats"])
	if err := json.Unmarshal(raw, &stats); err != nil {
		m.t.Fatal(err)
	}
	return stats, answer["ok"] == true
}

func (m *member) creates(room string, most int) string {
	m.t.Helper()
	return m.must(fmt.Sprintf(`{"type":"create","room":%q,"max":%d}`, room, most), "created")["err"].(string)
}
