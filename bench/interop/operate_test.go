package interop

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	gorilla "github.com/gorilla/websocket"
)

// status runs `parley status`.
func (l *launched) status(args ...string) (code int, out string) {
	cmd := exec.Command(binary, append([]string{"status", fmt.Sprintf("http://127.0.0.1:%d", l.admin)}, args...)...)
	raw, _ := cmd.CombinedOutput()
	return cmd.ProcessState.ExitCode(), string(raw)
}

// An operator sees every worker, which one is not well, the cause of its end, and sums that do not go back.
func TestStatusOfWorkers(t *testing.T) {
	l := launch(t, binary, "", "--processes", "2").ready()
	for range 8 {
		greet(t, "gorilla", l.ws())
	}
	eventually(t, "eight connections are counted", func() bool {
		code, out := l.status()
		return code == 0 && strings.Contains(out, "8 of ") && strings.Contains(out, "worker 0") && strings.Contains(out, "worker 1") && strings.Contains(out, "bus ")
	})
	eventually(t, "both links are up", func() bool { return l.metric("parley_bus_up", "") == 2 && l.metric("parley_worker_up", "") == 3 })
	var before struct {
		Stats struct {
			MaxConnections int `json:"max_connections"`
			Workers        []struct {
				PID int
			}
		}
	}
	_, out := l.status("--json")
	if err := json.Unmarshal([]byte(out), &before); err != nil || len(before.Stats.Workers) != 2 {
		t.Fatal(err, out)
	}
	// Killed again and again, it is started after ever longer pauses: long enough to be seen.
	eventually(t, "the server is said not to be well", func() bool {
		if pids := l.workers("worker"); len(pids) == 2 {
			syscall.Kill(l.pidOf(0), syscall.SIGKILL)
		}
		status, body := l.ask("/healthz")
		return status == http.StatusServiceUnavailable && strings.Contains(body, "worker 0 is not ready")
	})
	eventually(t, "it is well again, and says what was", func() bool {
		code, out := l.status()
		return code == 0 && strings.Contains(out, "signal 9 (killed)")
	})
	if restarts, accepted := l.metric("parley_worker_restarts_total", `worker="0"`), l.metric("parley_connections_accepted_total", ""); restarts < 1 || accepted != 8 {
		t.Errorf("%v restarts, %v accepted", restarts, accepted)
	}
	l.signal(syscall.SIGTERM)
	if code := l.exit(); code != 0 {
		t.Errorf("ends with %d", code)
	}
	if code, out := l.status(); code != 3 || !strings.Contains(out, "no server answers") {
		t.Errorf("%d: %s", code, out)
	}
}

// pidOf is the process id of a worker; 0 while there is none.
func (l *launched) pidOf(index int) int {
	_, body := l.ask("/stats")
	var stats struct{ Workers []struct{ Index, PID int } }
	json.Unmarshal([]byte(body), &stats)
	for _, w := range stats.Workers {
		if w.Index == index && w.PID != 0 && running(w.PID) {
			return w.PID
		}
	}
	return 1 << 30 // no process has it
}

// The verb works for one process, too, which has no workers.
func TestStatusOfOneProcess(t *testing.T) {
	l := launch(t, binary, "").ready()
	if code, out := l.status(); code != 0 || !strings.Contains(out, "one process") || !strings.Contains(out, ": ok\n") {
		t.Errorf("%d: %s", code, out)
	}
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	go http.Serve(other, http.NotFoundHandler())
	cmd := exec.Command(binary, "status", "http://"+other.Addr().String())
	if out, _ := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != 3 || !strings.Contains(string(out), "no admin listener of Parley") {
		t.Errorf("%s", out)
	}
}

// knock dials as a page of an origin would, and reports whether the server accepts it.
func knock(t *testing.T, url, origin string) bool {
	t.Helper()
	conn, response, err := gorilla.DefaultDialer.Dial(url, http.Header{"Origin": {origin}})
	if err == nil {
		conn.Close()
		return true
	}
	if response == nil || response.StatusCode != http.StatusForbidden {
		t.Fatalf("%v", err)
	}
	return false
}

// SIGHUP brings changed settings into force, in every worker and in workers that start later, and disconnects no client.
// The log names settings that need a restart. A file with a mistake changes no setting.
func TestReload(t *testing.T) {
	for _, processes := range []int{1, 2} {
		t.Run(fmt.Sprint(processes), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "parley.yaml")
			settings := func(text string) { writeFile(t, path, text) }
			settings("heartbeat_interval: 3000\norigins: [https://a.example]\nlog_level: info\nmax_rooms_per_connection: 10\n")
			l := launch(t, watched, "", "--config", path, "--processes", fmt.Sprint(processes)).ready()
			if !knock(t, l.ws(), "https://a.example") || knock(t, l.ws(), "https://b.example") {
				t.Fatal("the first settings are not in force")
			}
			idle := greet(t, "gorilla", l.ws())

			settings("heartbeat_interval: 0.2\nheartbeat_timeout: 3600\norigins: [https://b.example]\nlog_level: debug\nmax_rooms_per_connection: 11\nlog_format: json\n")
			l.signal(syscall.SIGHUP)
			l.says("needs a restart", "setting=max_rooms_per_connection")
			l.says("needs a restart", "setting=log_format")
			l.says("msg=reloaded")
			l.says("setting changed", "setting=origins", "from=[https://a.example]", "to=[https://b.example]")
			l.says("setting changed", "setting=log_level", "from=INFO", "to=DEBUG")
			everywhere := func(ok, refused string) {
				t.Helper()
				for range 8 { // workers take turns
					if !knock(t, l.ws(), ok) || knock(t, l.ws(), refused) {
						t.Fatal("the new origins are not in force")
					}
				}
			}
			everywhere("https://b.example", "https://a.example")
			idle.until("ping") // it had nothing to expect for an hour

			for text, why := range map[string]string{ // what lost its origins is a mistake, too
				"": "holds no setting", "# only a comment\n": "holds no setting", "port: 1\n": "now there is none",
				"origins: ['']\n": "parley.yaml:1: origins: it is empty", "\norigins: ''\n": "parley.yaml:2: origins: it is empty",
				"heartbeat_interval: none\norigins: []\n": "parley.yaml:1: heartbeat_interval",
			} {
				settings(text)
				l.signal(syscall.SIGHUP)
				l.says("the old one stays in force", why)
				everywhere("https://b.example", "https://a.example")
			}
			settings("heartbeat_interval: none\n")
			if processes > 1 {
				for _, pid := range l.workers("worker") { // with the file still wrong
					syscall.Kill(pid, syscall.SIGKILL)
				}
				eventually(t, "the workers are there again", func() bool { return healthy(l.admin) && l.metric("parley_worker_restarts_total", "") == 2 })
				everywhere("https://b.example", "https://a.example")
			} else {
				idle.say(`{"type":"ping"}`)
				idle.until("pong")
			}
			l.signal(syscall.SIGTERM)
			if code := l.exit(); code != 0 {
				t.Errorf("ends with %d", code)
			}
		})
	}
}

// The server tells a service manager when it is ready, when it reloads its settings and when it stops, and feeds its
// watchdog, with one process and with several.
func TestServiceManager(t *testing.T) {
	for _, processes := range []int{1, 2} {
		t.Run(fmt.Sprint(processes), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "n")
			manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
			if err != nil {
				t.Fatal(err)
			}
			defer manager.Close()
			heard := new(said)
			go func() {
				buffer := make([]byte, 4096)
				for {
					n, err := manager.Read(buffer)
					if err != nil {
						return
					}
					heard.Write(append(buffer[:n:n], '\n'))
				}
			}()
			told := func(what string) {
				t.Helper()
				eventually(t, "the manager hears "+what, func() bool { return slices.Contains(strings.Split(heard.String(), "\n"), what) })
			}
			l := launch(t, watched, fmt.Sprintf("NOTIFY_SOCKET=%s WATCHDOG_USEC=300000", path), "--processes", fmt.Sprint(processes)).ready()
			told("READY=1")
			eventually(t, "the watchdog is fed again and again", func() bool { return strings.Count(heard.String(), "WATCHDOG=1") > 3 })
			before := strings.Count(heard.String(), "READY=1")
			l.signal(syscall.SIGHUP)
			told("RELOADING=1")
			eventually(t, "the reload ends", func() bool { return strings.Count(heard.String(), "READY=1") > before })
			l.signal(syscall.SIGTERM)
			told("STOPPING=1")
			if code := l.exit(); code != 0 {
				t.Errorf("ends with %d", code)
			}
		})
	}
}

// When the supervisor is killed, all its children end, and the port is free again.
func TestNoOrphans(t *testing.T) {
	l := launch(t, binary, "", "--processes", "2", "--shutdown-timeout", "1").ready()
	p := greet(t, "gorilla", l.ws())
	family := descendants(l.cmd.Process.Pid)
	if len(family) != 3 {
		t.Fatalf("%d children, want two workers and a bus", len(family))
	}
	l.signal(syscall.SIGKILL)
	if _, err := p.c.read(); err == nil { // a going away, or an end
		for err == nil {
			_, err = p.c.read()
		}
	}
	eventually(t, "all have ended", func() bool { return !slices.ContainsFunc(family, running) })
	next, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", l.port))
	if err != nil {
		t.Fatal(err)
	}
	next.Close()
}

// A second signal ends all processes at once, however long shutdown_timeout is.
func TestSecondSignal(t *testing.T) {
	l := launch(t, binary, "", "--processes", "2", "--shutdown-timeout", "3600").ready()
	stubborn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", l.port)) // it never closes
	if err != nil {
		t.Fatal(err)
	}
	defer stubborn.Close()
	workers := l.workers("worker")
	for _, pid := range workers {
		syscall.Kill(pid, syscall.SIGSTOP) // and they never will
	}
	family := descendants(l.cmd.Process.Pid)
	l.signal(syscall.SIGTERM)
	l.says("msg=stopping")
	told := make(chan struct{})
	go func() { // one that comes within a second of the first says the same again
		again := time.NewTicker(300 * time.Millisecond)
		defer again.Stop()
		for {
			select {
			case <-told:
				return
			case <-again.C:
				l.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
			}
		}
	}()
	code := l.exit()
	close(told)
	if code != 1 {
		t.Errorf("ends with %d", code)
	}
	l.says("stopped at once by a second signal")
	eventually(t, "all have ended", func() bool { return !slices.ContainsFunc(family, running) })
}

// A server that cannot start prints the cause and the remedy, and ends with a code, with one process and with several.
func TestCannotStart(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := fmt.Sprint(taken.Addr().(*net.TCPAddr).Port)
	dir, err := os.MkdirTemp("", "everybody")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(dir, "parley")
	if out, err := exec.Command("cp", binary, copied).CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	for _, processes := range []string{"1", "2"} {
		for _, c := range []struct {
			name, program, before string
			args                  []string
			code                  int
			says                  []string
		}{
			{"port taken", binary, "", []string{"--port", port}, 1, []string{"listen on 127.0.0.1:" + port, "another process has this port; stop it or choose another port"}},
			{"admin port taken", binary, "", []string{"--admin-port", port}, 1, []string{"for admin_port", "another process has this port", "or 0 for none"}},
			{"no such address", binary, "", []string{"--host", "203.0.113.7"}, 1, []string{"this machine has no such address; check host"}},
			{"descriptors", binary, "ulimit -n 40;", nil, 2, []string{"max_connections: the descriptor limit of 40 is too low", "raise it (ulimit -n, LimitNOFILE) to at least"}},
			{"more than descriptors", binary, "ulimit -n 300;", []string{"--max-connections", "5000"}, 2, []string{"max_connections", "5000 connections need", "raise it (ulimit -n)"}},
			{"not allowed", "setpriv --reuid 65534 --regid 65534 --clear-groups " + copied, "", []string{"--port", "1"}, 1, []string{"not allowed; choose a port above 1023"}},
		} {
			t.Run(c.name+"/"+processes, func(t *testing.T) {
				if c.name == "not allowed" {
					if first, _ := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start"); strings.TrimSpace(string(first)) == "0" || os.Getuid() != 0 {
						t.Skip("everybody may have every port here, or this is not root")
					}
					need(t, "setpriv")
				}
				l := launch(t, c.program, c.before, append([]string{"--processes", processes}, c.args...)...)
				if code := l.exit(); code != c.code {
					t.Errorf("ends with %d, want %d", code, c.code)
				}
				l.says(c.says...)
			})
		}
	}
}
