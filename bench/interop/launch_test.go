package interop

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// said is the output of a process so far.
type said struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// launched is a `parley serve` whose output and end a test checks itself.
type launched struct {
	t           *testing.T
	cmd         *exec.Cmd
	out         *said
	port, admin int
	ended       chan error
}

// launch starts the server in a shell that may restrict it first, and does not wait until it is ready.
func launch(t *testing.T, program, before string, args ...string) *launched {
	t.Helper()
	l := &launched{t: t, out: new(said), port: freePort(t), admin: freePort(t), ended: make(chan error, 1)}
	shell := fmt.Sprintf("%s exec %s serve --port %d --admin-port %d \"$@\"", before, program, l.port, l.admin)
	l.cmd = exec.Command("sh", append([]string{"-c", shell, "parley"}, args...)...)
	l.cmd.Stdout, l.cmd.Stderr = l.out, l.out
	if err := l.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { l.ended <- l.cmd.Wait() }()
	t.Cleanup(func() {
		for _, pid := range append(descendants(l.cmd.Process.Pid), l.cmd.Process.Pid) {
			syscall.Kill(pid, syscall.SIGKILL) // the rest are processes of this test, too
		}
		if t.Failed() {
			t.Logf("the server says:\n%s", l.out)
		}
	})
	return l
}

func (l *launched) ready() *launched {
	l.t.Helper()
	l.says("parley: ready on ")
	return l
}

// says waits for a line of output that contains all words.
func (l *launched) says(words ...string) {
	l.t.Helper()
	eventually(l.t, fmt.Sprintf("it says %q", words), func() bool {
		for line := range strings.Lines(l.out.String()) {
			all := true
			for _, w := range words {
				all = all && strings.Contains(line, w)
			}
			if all {
				return true
			}
		}
		return false
	})
}

func (l *launched) signal(s syscall.Signal) {
	l.t.Helper()
	if err := l.cmd.Process.Signal(s); err != nil {
		l.t.Fatal(err)
	}
}

// exit waits for the end and returns its code, -1 for a signal.
func (l *launched) exit() int {
	l.t.Helper()
	var code int
	eventually(l.t, "the server ends", func() bool {
		select {
		case <-l.ended:
			code = l.cmd.ProcessState.ExitCode()
			return true
		default:
			return false
		}
	})
	return code
}

func (l *launched) ws() string { return fmt.Sprintf("ws://127.0.0.1:%d/", l.port) }

// ask asks the admin listener; status is 0 if it does not answer.
func (l *launched) ask(path string) (status int, body string) {
	response, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d%s", l.admin, path))
	if err != nil {
		return 0, ""
	}
	defer response.Body.Close()
	raw, _ := io.ReadAll(response.Body)
	return response.StatusCode, string(raw)
}

// metric is the sum of a metric over its labels; only lines with all given labels count.
func (l *launched) metric(name, labels string) (sum float64) {
	_, body := l.ask("/metrics")
	for _, m := range regexp.MustCompile(`(?m)^`+name+`(\{[^}]*\})? (\S+)$`).FindAllStringSubmatch(body, -1) {
		if strings.Contains(m[1], labels) {
			v, _ := strconv.ParseFloat(m[2], 64)
			sum += v
		}
	}
	return sum
}

// workers are the process ids of a role, by the environment that the supervisor gave them.
func (l *launched) workers(role string) (pids []int) {
	for _, pid := range descendants(l.cmd.Process.Pid) {
		environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err == nil && strings.Contains("\x00"+string(environ), "\x00PARLEY_ROLE="+role+"\x00") {
			pids = append(pids, pid)
		}
	}
	return pids
}

// descendants are the living descendants of a process.
func descendants(of int) (pids []int) {
	children := map[int][]int{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended meanwhile
		}
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		if len(fields) < 2 || fields[0] == "Z" {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		parent, _ := strconv.Atoi(fields[1])
		children[parent] = append(children[parent], pid)
	}
	queue := children[of]
	for len(queue) > 0 {
		pids = append(pids, queue[0])
		queue = append(queue[1:], children[queue[0]]...)
	}
	return pids
}

// running reports whether a process exists and is no zombie.
func running(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	return len(fields) > 0 && fields[0] != "Z" && fields[0] != "X"
}
