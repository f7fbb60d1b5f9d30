package verify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/parleyd/parley/cmd/parley/verify/caller"
	"github.com/parleyd/parley/engine/canary"
)

// server is a server that this run has started.
//
// Owner: the goroutine that runs the checker, except said (mutex: its own).
type server struct {
	cmd   *exec.Cmd
	said  *tail
	ended chan struct{}
	err   error // of its end; once ended is closed
}

// tail keeps the last bytes of a process's output.
type tail struct {
	mu   sync.Mutex
	text []byte
}

const tailMax = 4 << 10

// Write appends output. Any goroutine.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	t.text = t.text[max(0, len(t.text)-tailMax):]
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.text))
}

const (
	startWait = 20 * time.Second
	stopWait  = 10 * time.Second
)

// spawn starts the command by a shell, and waits until it serves. api is nil if the API is not used.
func spawn(ctx context.Context, o *Options, at target, api *caller.Target) (*server, error) {
	if c, err := net.DialTimeout("tcp", at.addr.String(), time.Second); err == nil {
		c.Close()
		return nil, fmt.Errorf("start server: %s is served by another one already; stop it or choose another port", at.addr)
	}
	s := &server{cmd: exec.Command("/bin/sh", "-c", "exec "+o.Spawn), said: &tail{}, ended: make(chan struct{})}
	s.cmd.Stdout, s.cmd.Stderr = s.said, s.said
	if api != nil {
		s.cmd.Env = append(os.Environ(), api.Environ...)
	}
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a Ctrl-C must not reach it: we stop it ourselves
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start server: %w", err)
	}
	go func() {
		s.err = s.cmd.Wait()
		close(s.ended)
	}()
	ctx, cancel := context.WithTimeout(ctx, canary.Stretch(startWait))
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for reachable(at) != nil {
		select {
		case <-s.ended:
			return nil, fmt.Errorf("start server: it ended (%v) and said: %s", s.err, s.said)
		case <-ctx.Done():
			s.stop()
			return nil, fmt.Errorf("start server: no server answers on %s (%w); its output: %s", at.addr, ctx.Err(), s.said)
		case <-tick.C:
		}
	}
	return s, nil
}

// stop ends the server and its children.
func (s *server) stop() {
	s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.ended:
	case <-time.After(canary.Stretch(stopWait)):
		syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL) // the group that we made
		<-s.ended
	}
}

// alive reports whether the server still runs.
func (s *server) alive() bool {
	select {
	case <-s.ended:
		return false
	default:
		return true
	}
}

// reachable makes a WebSocket connection and ends it.
func reachable(at target) error {
	c, err := net.DialTimeout("tcp", at.addr.String(), 3*time.Second)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(3 * time.Second))
	if _, err := c.Write(at.request("")); err != nil {
		return fmt.Errorf("ask for a WebSocket: %w", err)
	}
	var in []byte
	piece := make([]byte, 4<<10)
	for len(in) < 64<<10 {
		n, err := c.Read(piece)
		in = append(in, piece[:n]...)
		if _, done, wrong := admission(in); done {
			return wrong
		}
		if err != nil {
			return fmt.Errorf("ask for a WebSocket: %w", err)
		}
	}
	return errors.New("ask for a WebSocket: the answer has no end")
}

// workers finds the descendants of the server that have a role, by PARLEY_ROLE in their environment.
func (s *server) workers(role string) (pids []int) {
	children := map[int][]int{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended meanwhile
		}
		_, after, ok := strings.Cut(string(text[max(0, bytes.LastIndexByte(text, ')')):]), ") ")
		fields := strings.Fields(after)
		if !ok || len(fields) < 2 || fields[0] == "Z" {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		parent, _ := strconv.Atoi(fields[1])
		children[parent] = append(children[parent], pid)
	}
	queue := children[s.cmd.Process.Pid]
	for len(queue) > 0 {
		pid := queue[0]
		queue = append(queue[1:], children[pid]...)
		environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err == nil && bytes.Contains(append([]byte{0}, environ...), []byte("\x00PARLEY_ROLE="+role+"\x00")) {
			pids = append(pids, pid)
		}
	}
	return pids
}
