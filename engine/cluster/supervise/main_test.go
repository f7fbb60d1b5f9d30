package supervise

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/parleyd/parley/protocol/ident"
)

// The test binary runs the tests, the supervisor as a process of its own, and its wards.
func TestMain(m *testing.M) {
	switch {
	case Role() != "":
		os.Exit(runWard())
	case os.Getenv(scriptVariable) != "":
		os.Exit(runParent(os.Getenv(scriptVariable)))
	}
	os.Exit(m.Run())
}

const scriptVariable = "SUPERVISE_TEST_SCRIPT"

// script is the order for the supervisor's process.
type script struct {
	Workers      int
	Bus          bool
	BusSilent    bool
	API          string
	Listen       []string
	Acts         []act // of the wards, from the start
	ReloadFrom   string
	StartTimeout time.Duration
	FrozenAfter  time.Duration
	DrainTimeout time.Duration
}

// act is a fault of some wards.
type act struct {
	Role string
	From ident.Worker // the first instance that does it
	How  string
}

type testSettings struct {
	Acts []act
	Word string
	Port int
	// Silent has the bus report no address.
	Silent bool
}

func runParent(text string) int {
	var sc script
	if err := json.Unmarshal([]byte(text), &sc); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 99
	}
	settings, _ := json.Marshal(testSettings{Acts: sc.Acts, Word: "first", Port: 1, Silent: sc.BusSilent})
	plan := Plan{Listen: sc.Listen, Workers: sc.Workers, Bus: sc.Bus, BusSilent: sc.BusSilent, API: sc.API, FirstInstance: 1, Settings: settings,
		StartTimeout: sc.StartTimeout, FrozenAfter: sc.FrozenAfter, DrainTimeout: sc.DrainTimeout,
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	plan.Show = func() (json.RawMessage, error) { return json.RawMessage(`"shown"`), nil }
	if sc.ReloadFrom != "" {
		plan.Reload = func() (json.RawMessage, error) { return os.ReadFile(sc.ReloadFrom) }
	}
	s, err := New(plan)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 98
	}
	page, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 97
	}
	go http.Serve(page, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(w).Encode(s.Status())
	}))
	fmt.Println("page http://" + page.Addr().String())
	// As a server's main does: the first signal is seen twice.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-ctx.Done()
		stop()
	}()
	err = s.Run(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return ExitCode(err)
}

// testWard is a small server: it greets each connection with its index, instance and pid, obeys a line, and reports its
// orders as stats.
type testWard struct {
	control *Control
	welcome Welcome
	muted   atomic.Bool

	mu    sync.Mutex
	conns map[net.Conn]bool
	heard heard
}

// heard has the orders of a ward; tests read it in Status.
type heard struct {
	Welcome  Welcome
	Settings testSettings
	Peers    Peers
	Dead     []Death
	Leaked   []string // variables that a process of the ward's would inherit
	Sockets  int      // that a process of the ward's would inherit
	Secret   bool     // the secret is seen from outside
	Args     []string
}

func runWard() int {
	control, err := Join()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 96
	}
	w := &testWard{control: control, welcome: control.Welcome(), conns: map[net.Conn]bool{}}
	json.Unmarshal(w.welcome.Settings, &w.heard.Settings)
	how := w.how()
	switch how {
	case "exit 1":
		fmt.Println("this is stdout")
		fmt.Fprintln(os.Stderr, "the disk is full")
		return 1
	case "exit 2":
		fmt.Fprintln(os.Stderr, "port: 70000 is no port")
		return 2
	case "panic":
		panic("at the start")
	case "late":
		select {}
	}
	w.heard.Welcome, w.heard.Peers = w.welcome, w.welcome.Peers
	w.inspect()
	w.tell()
	address := ""
	if w.welcome.Role == RoleBus && !w.heard.Settings.Silent {
		listener, err := net.Listen("tcp", "127.0.0.1:"+portOf(w.welcome.Bus.Address))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		address = listener.Addr().String()
	}
	for _, l := range w.welcome.Listeners {
		a, err := NewAcceptor(l)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer a.Close()
		go w.accept(a)
	}
	fmt.Fprintf(os.Stderr, "%s says hello\n", w.welcome.Role)
	control.Ready(address)
	go control.Pulse(context.Background(), func(context.Context) error {
		if w.muted.Load() {
			control.Stats(w.welcome) // is no sign of life
			return errors.New("muted")
		}
		return nil
	})
	return w.obey(how)
}

func portOf(address string) string {
	if _, port, err := net.SplitHostPort(address); err == nil {
		return port
	}
	return "0"
}

func (w *testWard) how() string {
	for _, a := range w.heard.Settings.Acts {
		if a.Role == w.welcome.Role && w.welcome.Instance >= a.From {
			return a.How
		}
	}
	return ""
}

// inspect reads the environment and the command line, as others could.
func (w *testWard) inspect() {
	out, _ := exec.Command("env").Output()
	for text := range strings.Lines(string(out)) {
		name, _, _ := strings.Cut(text, "=")
		if name == roleVariable || name == "NOTIFY_SOCKET" || strings.HasPrefix(name, "WATCHDOG_") {
			w.heard.Leaked = append(w.heard.Leaked, name)
		}
	}
	files, _ := exec.Command("ls", "-l", "/proc/self/fd").Output()
	w.heard.Sockets = strings.Count(string(files), "socket:")
	environ, _ := os.ReadFile("/proc/self/environ")
	seen := string(environ) + strings.Join(os.Args, " ")
	password := w.welcome.Bus.Password
	w.heard.Secret = password != "" && strings.Contains(seen, password)
	w.heard.Args = os.Args
}

func (w *testWard) tell() {
	if err := w.control.Stats(w.heard); err != nil {
		panic(err)
	}
}

func (w *testWard) obey(how string) int {
	for order := range w.control.Orders() {
		switch o := order.(type) {
		case Peers:
			w.heard.Peers = o
			w.heard.Dead = append(w.heard.Dead, o.Dead...)
		case Reload:
			before := w.heard.Settings.Port
			json.Unmarshal(o.Settings, &w.heard.Settings)
			if w.heard.Settings.Port != before {
				w.control.Reloaded(o, []string{"port"})
			} else {
				w.control.Reloaded(o, nil)
			}
		case Drain:
			if how == "stubborn" {
				continue
			}
			if o.Over > 0 {
				select {
				case <-time.After(o.Over):
				case <-w.control.Hurried():
				}
			}
			// An orphan's output breaks, sooner or later: that must not end it.
			poll(time.Second, func() bool {
				_, err := fmt.Fprintf(os.Stderr, "%s drains\n", w.welcome.Role)
				return err != nil || how != "chatty"
			})
			w.mu.Lock()
			for c := range w.conns {
				fmt.Fprintf(c, "bye orphaned=%v\n", o.Orphaned)
				c.Close()
			}
			w.mu.Unlock()
			fmt.Fprintf(os.Stderr, "%s has drained\n", w.welcome.Role)
			return 0
		}
		w.tell()
	}
	return 95
}

func (w *testWard) accept(a *Acceptor) {
	for {
		fd, peer, err := a.Accept()
		if err != nil {
			return
		}
		if !peer.Addr().IsLoopback() {
			panic("a peer from " + peer.String())
		}
		file := os.NewFile(uintptr(fd), "conn")
		c, err := net.FileConn(file)
		file.Close()
		if err != nil {
			panic(err)
		}
		w.mu.Lock()
		w.conns[c] = true
		w.mu.Unlock()
		fmt.Fprintf(c, "%d %d %d\n", w.welcome.Index, w.welcome.Instance, os.Getpid())
		go w.serve(c)
	}
}

func (w *testWard) serve(c net.Conn) {
	defer func() {
		w.mu.Lock()
		delete(w.conns, c)
		w.mu.Unlock()
		c.Close()
	}()
	lines := bufio.NewScanner(c)
	for lines.Scan() {
		switch verb, rest, _ := strings.Cut(lines.Text(), " "); verb {
		case "exit":
			code, _ := strconv.Atoi(rest)
			os.Exit(code)
		case "panic":
			panic("told to")
		case "mute":
			w.muted.Store(true)
		case "drain":
			index, text, _ := strings.Cut(rest, " ")
			worker, _ := strconv.Atoi(index)
			over, _ := time.ParseDuration(text)
			fmt.Fprintf(c, "drain: %v\n", w.control.DrainWorker(context.Background(), worker, over))
		case "overview":
			shown, err := w.control.Overview(context.Background())
			fmt.Fprintf(c, "%s %v\n", shown, err)
		}
	}
}
