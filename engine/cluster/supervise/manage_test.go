package supervise

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/parleyd/parley/engine/canary"
	"github.com/parleyd/parley/protocol/ident"
)

func writeSettings(t *testing.T, path string, settings testSettings) {
	t.Helper()
	text, _ := json.Marshal(settings)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// SIGHUP brings new settings to all wards, and to later ones too, and names the settings that cannot change.
func TestReload(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "settings")
	p := begin(t, script{Workers: 2, Bus: true, ReloadFrom: path})
	p.running()
	writeSettings(t, path, testSettings{Word: "second", Port: 2})
	p.signal(syscall.SIGHUP)
	knows := func(word string) func(Status) bool {
		return func(st Status) bool {
			return allReady(st) && heardBy(t, *st.Bus).Settings.Word == word &&
				!slices.ContainsFunc(st.Workers, func(w WardStatus) bool { return heardBy(t, w).Settings.Word != word })
		}
	}
	st := p.until("everybody knows the second word", knows("second"))
	p.says("a setting has changed that needs a restart", "setting=port")
	p.says("reloaded", "generation=1")
	if n := p.said("setting=port"); n != 1 {
		t.Errorf("the port was named %d times", n)
	}

	syscall.Kill(st.Workers[0].PID, syscall.SIGKILL)
	p.until("a newcomer knows it", func(st Status) bool { return st.Workers[0].Restarts == 1 && knows("second")(st) })

	os.WriteFile(path, []byte("nonsense"), 0o600)
	p.signal(syscall.SIGHUP)
	p.says("cannot be reloaded; the old one stays in force", "no JSON")
	os.Remove(path)
	p.signal(syscall.SIGHUP)
	p.says("cannot be reloaded; the old one stays in force", "no such file")
	if !knows("second")(p.running()) {
		t.Error("a failed reload has changed something")
	}
	writeSettings(t, path, testSettings{Word: "third", Port: 2})
	p.signal(syscall.SIGHUP)
	p.until("everybody knows the third word", knows("third"))
}

func TestReloadOfNothing(t *testing.T) {
	t.Parallel()
	p := begin(t, script{Workers: 1})
	p.running()
	p.signal(syscall.SIGHUP)
	p.says("SIGHUP changes nothing")
	p.running()
}

// manager is systemd's end of the notify socket.
type manager struct {
	t    *testing.T
	conn *net.UnixConn
}

func newManager(t *testing.T) (*manager, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &manager{t, conn}, path
}

// hears reads until a state begins with want, and returns all states.
func (m *manager) hears(want string, within time.Duration) (came []string, heard bool) {
	m.conn.SetReadDeadline(time.Now().Add(within))
	buf := make([]byte, 4096)
	for {
		n, err := m.conn.Read(buf)
		if err != nil {
			return came, false
		}
		came = append(came, string(buf[:n]))
		if strings.HasPrefix(came[len(came)-1], want) {
			return came, true
		}
	}
}

func (m *manager) must(want string) (came []string) {
	m.t.Helper()
	came, heard := m.hears(want, canary.Stretch(patient))
	if !heard {
		m.t.Fatalf("the service manager was never told %q, but %q", want, came)
	}
	return came
}

// systemd is told the server's states, and its watchdog is fed only while a worker serves.
func TestNotify(t *testing.T) {
	t.Parallel()
	m, path := newManager(t)
	settings := filepath.Join(t.TempDir(), "settings")
	p := begin(t, script{Workers: 2, Bus: true, ReloadFrom: settings, Acts: []act{{RoleWorker, 4, "late"}}},
		"NOTIFY_SOCKET="+path, "WATCHDOG_USEC=300000")
	if came := m.must("READY=1"); !slices.Contains(came, "STATUS=0 of 2 workers ready") {
		t.Errorf("before it was ready it said %q", came)
	}
	st := p.running()
	for _, w := range append(st.Workers, *st.Bus) {
		if leaked := heardBy(t, w).Leaked; len(leaked) > 0 {
			t.Errorf("a ward could speak for the server: it has %v", leaked)
		}
	}
	m.must("STATUS=2 of 2 workers ready")
	m.must("WATCHDOG=1")
	m.must("WATCHDOG=1")

	writeSettings(t, settings, testSettings{Word: "second", Port: 1, Acts: []act{{RoleWorker, 4, "late"}}})
	p.signal(syscall.SIGHUP)
	came := m.must("RELOADING=1\nMONOTONIC_USEC=")
	if text := came[len(came)-1]; len(text) < len("RELOADING=1\nMONOTONIC_USEC=")+4 {
		t.Errorf("it said %q", text)
	}
	m.must("READY=1")

	syscall.Kill(st.Workers[0].PID, syscall.SIGKILL) // its successor is never ready
	m.must("STATUS=1 of 2 workers ready")
	m.must("WATCHDOG=1")
	syscall.Kill(st.Workers[1].PID, syscall.SIGKILL)
	m.must("STATUS=0 of 2 workers ready")
	if came, heard := m.hears("WATCHDOG=1", time.Second); heard {
		t.Errorf("no worker serves, and all is well: %q", came)
	}
	p.signal(syscall.SIGTERM)
	m.must("STOPPING=1")
	m.must("STATUS=stopped")
	p.exit()
}

// A wrong plan is refused before any process is started.
func TestPlans(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	here := []string{"127.0.0.1:0"}
	for _, row := range []struct {
		plan Plan
		want string
	}{
		{Plan{Listen: here}, "give at least 1"},
		{Plan{Listen: here, Workers: 5000}, "give at most"},
		{Plan{Workers: 1}, "no address"},
		{Plan{Listen: here, Workers: 1, Settings: json.RawMessage("{")}, "no JSON"},
		{Plan{Listen: here, Workers: 1, Settings: json.RawMessage(`"` + strings.Repeat("x", settingsMax) + `"`)}, "too large"},
		{Plan{Listen: here, Workers: 1, FrozenAfter: time.Millisecond}, "less than two beats"},
		{Plan{Listen: []string{"127.0.0.1:0", taken.Addr().String()}, Workers: 1}, "another process has this port"},
		{Plan{Listen: []string{"203.0.113.7:1"}, Workers: 1}, "no such address"},
		{Plan{Listen: []string{"here"}, Workers: 1}, "missing port"},
	} {
		if _, err := New(row.plan); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%+v: %v, want %q", row.plan, err, row.want)
		}
	}
}

// A process that no supervisor started cannot join one.
func TestJoinAlone(t *testing.T) {
	if c, err := Join(); err == nil {
		t.Errorf("joined: %v", c.Welcome())
	}
}

func TestBackoff(t *testing.T) {
	var got []time.Duration
	for ends := range 10 {
		got = append(got, backoff(ends))
	}
	const ms = time.Millisecond
	want := []time.Duration{0, 0, 100 * ms, 200 * ms, 400 * ms, 800 * ms, 1600 * ms, 3200 * ms, 5000 * ms, 5000 * ms}
	if !slices.Equal(got, want) || backoff(1<<30) != backoffMax {
		t.Errorf("got %v, %v", got, backoff(1<<30))
	}
}

// Every instance is used once, and 0 never.
func TestInstances(t *testing.T) {
	s := &Supervisor{next: 40_000}
	seen := map[ident.Worker]bool{}
	for range 1<<16 - 1 {
		i, err := s.nextInstance()
		if err != nil || i == 0 || seen[i] {
			t.Fatalf("instance %d, %v", i, err)
		}
		seen[i] = true
	}
	if i, err := s.nextInstance(); err != ErrInstances {
		t.Errorf("one more: %d, %v", i, err)
	}
}

// An acceptor ends when it is closed, and survives a process that makes the shared socket non-blocking.
func TestAcceptor(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"127.0.0.1:0", "[::1]:0", "localhost:0", ":0"} {
		file, bound, err := listenOn(address)
		if strings.HasPrefix(address, "[") && errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT) {
			t.Logf("no IPv6 here: %v", err)
			continue
		}
		if err != nil {
			t.Fatalf("%s: %v", address, err)
		}
		syscall.SetNonblock(int(file.Fd()), true)
		a, err := NewAcceptor(file)
		if err != nil {
			t.Fatal(err)
		}
		syscall.SetNonblock(a.fd, true)
		accepted := make(chan error, 1)
		go func() {
			for {
				fd, peer, err := a.Accept()
				if err == nil {
					syscall.Close(fd)
				}
				if err == nil && !peer.Addr().IsLoopback() {
					t.Errorf("%s: the peer is %v", address, peer)
				}
				accepted <- err
				if err != nil {
					return
				}
			}
		}()
		conn, err := net.Dial("tcp", bound)
		if err != nil {
			t.Fatalf("%s: %v", address, err)
		}
		defer conn.Close()
		if err := <-accepted; err != nil {
			t.Errorf("%s: %v", address, err)
		}
		if !poll(patient, func() bool { return !nonblocking(t, a.fd) }) {
			t.Errorf("%s: the socket stays non-blocking", address)
		}
		if err := a.Close(); err != nil {
			t.Errorf("%s: %v", address, err)
		}
		if err := <-accepted; err != net.ErrClosed {
			t.Errorf("%s: after Close: %v", address, err)
		}
		if err := a.Close(); err != net.ErrClosed {
			t.Errorf("%s: closed twice: %v", address, err)
		}
	}
}

func nonblocking(t *testing.T, fd int) bool {
	t.Helper()
	flags, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_GETFL, 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	return flags&syscall.O_NONBLOCK != 0
}

// A program may run the supervisor in one of its goroutines, and end it by its context.
func TestContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	ready := make(chan Status, 1)
	ended := make(chan error, 1)
	go func() {
		ended <- Run(ctx, Plan{Listen: []string{"127.0.0.1:0"}, Workers: 2, Ready: func(st Status) { ready <- st },
			Settings: json.RawMessage(`{}`), Log: slog.New(slog.DiscardHandler), Stdout: io.Discard, Stderr: io.Discard})
	}()
	select {
	case st := <-ready:
		c := clientOf(t, st, 1)
		cancel()
		if text, _ := c.lines.ReadString('\n'); text != "bye orphaned=false\n" {
			t.Errorf("a client was told %q", text)
		}
	case err := <-ended:
		t.Fatal(err)
	}
	if err := <-ended; err != nil || ExitCode(err) != 0 {
		t.Error(err)
	}
}

// The supervisor's age grows by a bounded step a turn.
func TestAttention(t *testing.T) {
	s := &Supervisor{lastTurn: time.Unix(1000, 0)}
	for _, step := range []struct{ passed, age time.Duration }{
		{10 * time.Millisecond, 10 * time.Millisecond},
		{100 * time.Millisecond, 110 * time.Millisecond},
		{time.Hour, 110*time.Millisecond + ageStepMax},
		{-time.Minute, 110*time.Millisecond + ageStepMax},
	} {
		s.grow(s.lastTurn.Add(step.passed))
		if s.age != step.age {
			t.Errorf("after %v: %v, want %v", step.passed, s.age, step.age)
		}
	}
}

// A process that does not read its commands is killed, and the supervisor does not wait for it.
func TestDeaf(t *testing.T) {
	s := &Supervisor{log: slog.New(slog.DiscardHandler)}
	p := &process{ward: &ward{role: RoleWorker}, commands: make(chan []byte, 2), cmd: exec.Command("sleep", "60")}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for range cap(p.commands) {
		s.say(p, command{Peers: &Peers{}})
	}
	if p.killed != "" {
		t.Errorf("killed already: %s", p.killed)
	}
	s.say(p, command{Peers: &Peers{}})
	p.cmd.Wait()
	if cause := p.causeOf(p.cmd.ProcessState); !strings.HasPrefix(cause, "does not read") {
		t.Errorf("it ended: %s", cause)
	}
}

// A killed worker is a peer until it was reaped: it may still hold seats and sessions.
func TestPeersUntilReaped(t *testing.T) {
	s := &Supervisor{workers: []*ward{
		{process: &process{instance: 7, ready: true, killed: "frozen"}}, {}, {process: &process{instance: 9}},
	}}
	if p := s.peers(); !slices.Equal(p.Peers, []ident.Worker{7, 9}) || !slices.Equal(p.Ready, []ident.Worker{7}) {
		t.Errorf("peers: %+v", p)
	}
}

// New workers are told of recent deaths, and of all of them while no worker is ready.
func TestDeathsAreKept(t *testing.T) {
	long := Death{Instance: 1, At: time.Now().Add(-2 * deathsKept)}
	recent := Death{Instance: 2, At: time.Now()}
	s := &Supervisor{dead: []Death{long, recent}}
	if s.forgetDead(Peers{}); len(s.dead) != 2 {
		t.Error("nobody is there who could have acted, and forgotten are some of", s.dead)
	}
	if s.forgetDead(Peers{Ready: []ident.Worker{3}}); !slices.Equal(s.dead, []Death{recent}) {
		t.Error("kept are", s.dead)
	}
}

// A signal that has also ended Run's context counts once.
func TestOneSignalSeenTwice(t *testing.T) {
	s := &Supervisor{log: slog.New(slog.DiscardHandler)}
	s.leave("its context is done")
	s.take(syscall.SIGTERM)
	s.take(syscall.SIGTERM) // of timeout(1), to the process and to its group
	s.age += SecondSignalAfter - 1
	s.take(syscall.SIGINT)
	if s.leaving.now || s.err != nil {
		t.Error("one signal was taken for two")
	}
	s.age++
	s.take(syscall.SIGTERM)
	if !s.leaving.now || !errors.Is(s.err, ErrStopped) {
		t.Errorf("the second signal was not heard: %v", s.err)
	}
}

// A logged Bus shows no secret.
func TestSecretsAreNotPrinted(t *testing.T) {
	w := Welcome{Bus: Bus{Address: "127.0.0.1:4", User: "w1", Password: "swordfish", Secret: []byte("swordfish")}}
	for _, verb := range []string{"%v", "%+v", "%s"} {
		text := fmt.Sprintf(verb, w)
		if strings.Contains(text, "swordfish") || strings.Contains(text, "115 119 111") || !strings.Contains(text, "w1@127.0.0.1:4") {
			t.Errorf("%s prints %s", verb, text)
		}
	}
}

// A service manager that does not read delays no ward.
func TestManagerAsleep(t *testing.T) {
	t.Parallel()
	_, path := newManager(t)
	p := begin(t, script{Workers: 1}, "NOTIFY_SOCKET="+path, "WATCHDOG_USEC=3000")
	st := p.running()
	if !poll(patient, func() bool { // until its socket is full
		conn, err := net.Dial("unixgram", path)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
		_, err = conn.Write([]byte("STATUS=x"))
		return errors.Is(err, os.ErrDeadlineExceeded)
	}) {
		t.Fatal("the socket is never full")
	}
	syscall.Kill(st.Workers[0].PID, syscall.SIGKILL)
	p.until("the worker is back", func(st Status) bool { return st.Workers[0].Restarts == 1 && allReady(st) })
	p.signal(syscall.SIGTERM)
	if code := p.exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
