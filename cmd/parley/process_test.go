package main

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// mainVariable makes this test binary the command itself, and its children too.
const mainVariable = "TEST_PLAYS_PARLEY"

func TestMain(m *testing.M) {
	if os.Getenv(mainVariable) != "" {
		main()
	}
	os.Setenv(apiPort, "0") // servers of several tests run at once, and the default port is one
	os.Exit(m.Run())
}

const apiPort = envPrefix + "API_PORT"

const patient = 30 * time.Second

// running is the command in a process of its own.
type running struct {
	t         *testing.T
	cmd       *exec.Cmd
	ws, admin string // addresses, once it is ready
	ended     chan struct{}
}

// outputs are a process's standard output and standard error.
type outputs struct{ stdout, stderr *os.File }

// command prepares a process. The end of the test ends it.
func command(t *testing.T, to outputs, name string, args ...string) *running {
	t.Helper()
	return commandWith(t, nil, to, name, args...)
}

// commandWith is command with a standard input; nil is none.
func commandWith(t *testing.T, stdin *os.File, to outputs, name string, args ...string) *running {
	t.Helper()
	r := &running{t: t, cmd: exec.Command(name, args...), ended: make(chan struct{})}
	r.cmd.Env = append(os.Environ(), mainVariable+"=1", "GORACE=atexit_sleep_ms=0")
	r.cmd.Stdout, r.cmd.Stderr = to.stdout, to.stderr
	if stdin != nil {
		r.cmd.Stdin = stdin
	}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		r.cmd.Wait()
		close(r.ended)
	}()
	t.Cleanup(func() {
		r.cmd.Process.Kill() // the kernel tells its children
		<-r.ended
	})
	return r
}

// piped runs the command with a pipe for its standard output, whose reader is returned.
func piped(t *testing.T, stderr *os.File, args ...string) (*running, *bufio.Reader, io.Closer) {
	t.Helper()
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close() })
	r := command(t, outputs{out, stderr}, os.Args[0], args...)
	out.Close()
	return r, bufio.NewReader(in), in
}

var readyLine = regexp.MustCompile(`ready on ws://(\S+);.*? on http://(\S+)/`)

// hears waits for the ready line.
func (r *running) hears(stdout *bufio.Reader) *running {
	r.t.Helper()
	line, err := stdout.ReadString('\n')
	found := readyLine.FindStringSubmatch(line)
	if found == nil {
		r.t.Fatalf("it says %q instead of being ready (%v)", line, err)
	}
	r.ws, r.admin = found[1], found[2]
	return r
}

// code waits for the end.
func (r *running) code() int {
	r.t.Helper()
	select {
	case <-r.ended:
	case <-time.After(patient):
		r.t.Fatal("it does not end")
	}
	return r.cmd.ProcessState.ExitCode()
}

func (r *running) signal(sig syscall.Signal) {
	r.t.Helper()
	if err := r.cmd.Process.Signal(sig); err != nil {
		r.t.Fatal(err)
	}
}

// stops wants the server to obey SIGTERM.
func (r *running) stops() {
	r.t.Helper()
	r.signal(syscall.SIGTERM)
	if code := r.code(); code != exitOK {
		r.t.Errorf("ends with %d: %v", code, r.cmd.ProcessState)
	}
}

func (r *running) eventually(what string, ok func() bool) {
	r.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patient); !ok(); <-tick.C {
		select {
		case <-r.ended:
			r.t.Fatalf("it has ended (%v); never: %s", r.cmd.ProcessState, what)
		default:
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("never: %s", what)
		}
	}
}

// admits reports whether a page of an origin may connect.
func (r *running) admits(origin string) bool {
	conn, err := net.Dial("tcp", r.ws)
	if err != nil {
		return false
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patient))
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nOrigin: %s\r\n"+
		"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n", origin)
	line, _ := bufio.NewReader(conn).ReadString('\n')
	return strings.Contains(line, " 101 ")
}

func (r *running) healthy() bool {
	answer, err := http.Get("http://" + r.admin + "/healthz")
	if err != nil {
		return false
	}
	defer answer.Body.Close()
	return answer.StatusCode == http.StatusOK
}

// freeAddress is an address that was free a moment ago.
//
// It is below the ports that the kernel gives to dials: one of those may be taken by a client of another test before the server
// listens.
func freeAddress(t *testing.T) (address, port string) {
	t.Helper()
	for range 100 {
		address = net.JoinHostPort("127.0.0.1", strconv.Itoa(10_000+rand.IntN(22_000)))
		if l, err := net.Listen("tcp", address); err == nil {
			l.Close()
			_, port, _ = net.SplitHostPort(address)
			return address, port
		}
	}
	t.Fatal("no port is free")
	return "", ""
}
