package supervise

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/parleyd/parley/engine/canary"
)

// parent is a supervisor in a process of its own.
type parent struct {
	t     *testing.T
	cmd   *exec.Cmd
	page  string
	ended chan struct{}

	mu   sync.Mutex
	out  strings.Builder // its stdout and stderr
	pids map[int]bool    // every ward that was ever seen
}

func begin(t *testing.T, sc script, environ ...string) *parent {
	t.Helper()
	if sc.Workers == 0 {
		sc.Workers = 2
	}
	if sc.Listen == nil {
		sc.Listen = []string{"127.0.0.1:0"}
	}
	text, _ := json.Marshal(sc)
	p := &parent{t: t, ended: make(chan struct{}), pids: map[int]bool{}}
	p.cmd = exec.Command(os.Args[0], "--a-flag=of-ours")
	p.cmd.Env = append(append(os.Environ(), scriptVariable+"="+string(text), "GORACE=atexit_sleep_ms=0"), environ...)
	stdout, _ := p.cmd.StdoutPipe()
	stderr, _ := p.cmd.StderrPipe()
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	page := make(chan string, 1)
	var readers sync.WaitGroup
	for _, r := range []io.Reader{stdout, stderr} {
		readers.Go(func() {
			lines := bufio.NewScanner(r)
			for lines.Scan() {
				if url, ok := strings.CutPrefix(lines.Text(), "page "); ok {
					page <- url
					continue
				}
				p.mu.Lock()
				fmt.Fprintln(&p.out, lines.Text())
				p.mu.Unlock()
			}
		})
	}
	go func() {
		readers.Wait()
		p.cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(p.clean)
	select {
	case p.page = <-page:
	case <-p.ended:
	case <-time.After(canary.Stretch(patient)):
		t.Fatal("the supervisor does not start")
	}
	return p
}

// clean ends the remaining processes. No test leaves a ward behind.
func (p *parent) clean() {
	p.cmd.Process.Kill()
	p.noneLeft(patient)
	if p.said("DATA RACE") > 0 {
		p.t.Error("there is a data race")
	}
	if p.t.Failed() {
		p.t.Log("the supervisor's output:\n" + p.output())
	}
}

func (p *parent) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}

// noneLeft waits until no ward is alive.
func (p *parent) noneLeft(within time.Duration) {
	p.t.Helper()
	alive := func() (list []int) {
		p.mu.Lock()
		defer p.mu.Unlock()
		for pid := range p.pids {
			if isAlive(pid) {
				list = append(list, pid)
			}
		}
		return list
	}
	if !poll(within, func() bool { return len(alive()) == 0 }) {
		p.t.Errorf("wards are left: %v", alive())
		for _, pid := range alive() {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// isAlive reports whether a process runs: one that has ended and was not reaped does not.
func isAlive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return syscall.Kill(pid, 0) == nil && !os.IsNotExist(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z")
}

// halt stops or kills a process, and returns when none of its threads runs any more: until then one may accept a
// connection, and never answer it.
func halt(t *testing.T, pid int, sig syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, sig); err != nil {
		t.Fatal(err)
	}
	if !poll(patient, func() bool {
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		return !slices.ContainsFunc(threads, func(path string) bool {
			stat, err := os.ReadFile(path)
			_, rest, _ := strings.Cut(string(stat), ") ")
			return err == nil && !strings.ContainsAny(rest[:1], "TZX")
		})
	}) {
		t.Fatalf("process %d goes on after %v", pid, sig)
	}
}

// patient is how long a test waits for a condition. It costs no time where the condition holds.
const patient = 30 * time.Second

// poll waits until cond holds, and reports whether it did in time.
func poll(within time.Duration, cond func() bool) bool { return canary.Wait(within, cond) }

func (p *parent) status() Status {
	var st Status
	client := http.Client{Timeout: patient}
	answer, err := client.Get(p.page)
	if err != nil {
		return st // it has ended, or ends
	}
	defer answer.Body.Close()
	json.NewDecoder(answer.Body).Decode(&st)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range st.Workers {
		if w.PID != 0 {
			p.pids[w.PID] = true
		}
	}
	if st.Bus != nil && st.Bus.PID != 0 {
		p.pids[st.Bus.PID] = true
	}
	return st
}

// until waits for a status.
func (p *parent) until(what string, cond func(Status) bool) (st Status) {
	p.t.Helper()
	if !poll(patient, func() bool { st = p.status(); return len(st.Workers) > 0 && cond(st) }) {
		now, _ := json.MarshalIndent(st, "", " ")
		p.t.Fatalf("not in %v: %s\n%s", patient, what, now)
	}
	return st
}

func (p *parent) running() Status {
	p.t.Helper()
	return p.until("everything runs", allReady)
}

func allReady(st Status) bool {
	if st.API != nil && st.API.State != "ready" {
		return false
	}
	for _, w := range st.Workers {
		if w.State != "ready" {
			return false
		}
	}
	return st.State == "running" && (st.Bus == nil || st.Bus.State == "ready")
}

// exit waits for the supervisor's end.
func (p *parent) exit() int {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(canary.Stretch(patient)):
		p.t.Fatalf("the supervisor has not ended in %v", patient)
	}
	return p.cmd.ProcessState.ExitCode()
}

func (p *parent) signal(sig syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatal(err)
	}
}

// says wants lines of output that hold all these words.
func (p *parent) says(words ...string) {
	p.t.Helper()
	if !poll(patient, func() bool { return p.said(words...) > 0 }) {
		p.t.Errorf("no line of output holds all of %q", words)
	}
}

func (p *parent) said(words ...string) (n int) {
	for text := range strings.Lines(p.output()) {
		all := true
		for _, word := range words {
			all = all && strings.Contains(text, word)
		}
		if all {
			n++
		}
	}
	return n
}

func heardBy(t *testing.T, w WardStatus) (h heard) {
	t.Helper()
	if len(w.Stats) == 0 {
		return h // there is none yet
	}
	if err := json.Unmarshal(w.Stats, &h); err != nil {
		t.Fatalf("stats %q: %v", w.Stats, err)
	}
	return h
}

// caller is a client that has been greeted.
type caller struct {
	conn                 net.Conn
	lines                *bufio.Reader
	index, instance, pid int
}

func dial(address string) (*caller, error) {
	conn, err := net.DialTimeout("tcp", address, patient)
	if err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Now().Add(canary.Stretch(patient)))
	c := &caller{conn: conn, lines: bufio.NewReader(conn)}
	if _, err := fmt.Fscanln(c.lines, &c.index, &c.instance, &c.pid); err != nil {
		conn.Close()
		return nil, err
	}
	conn.SetDeadline(time.Time{})
	return c, nil
}

// order has the worker with an index act on a line.
func (p *parent) order(index int, text string) {
	p.t.Helper()
	address := p.status().Listen[0]
	for range 100 {
		c, err := dial(address)
		if err != nil {
			p.t.Fatal(err)
		}
		if c.index == index {
			fmt.Fprintln(c.conn, text)
			p.t.Cleanup(func() { c.conn.Close() })
			return
		}
		c.conn.Close()
	}
	p.t.Fatalf("worker %d takes no connection", index)
}

// dials dials every 5 ms, and measures each from its planned time on.
type dials struct {
	address string
	running sync.WaitGroup

	mu     sync.Mutex
	n      int
	failed []error
	worst  time.Duration
	by     map[int]int // index
}

const dialEvery = 5 * time.Millisecond

// during dials for a time. events happen at their times, when no dial is under way: a connection that a process has
// accepted ends with it, which is no refusal.
func (d *dials) during(long time.Duration, events map[time.Duration]func()) {
	d.by = map[int]int{}
	start := time.Now()
	tick := time.NewTimer(0)
	defer tick.Stop()
	for plan := time.Duration(0); plan < long; plan += dialEvery {
		tick.Reset(time.Until(start.Add(plan)))
		<-tick.C
		if event := events[plan]; event != nil {
			d.running.Wait()
			event()
		}
		d.running.Go(func() { d.one(start.Add(plan)) })
	}
	d.running.Wait()
}

func (d *dials) one(planned time.Time) {
	c, err := dial(d.address)
	took := time.Since(planned)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.n++
	if err != nil {
		d.failed = append(d.failed, err)
		return
	}
	d.worst = max(d.worst, took)
	d.by[c.index]++
	c.conn.Close()
}

// unhurt wants that no dial was refused or cut off, as a dial is that a stopped or killed process has accepted.
func (d *dials) unhurt(t *testing.T) {
	t.Helper()
	if len(d.failed) > 0 {
		t.Errorf("%d of %d dials failed, the first with: %v", len(d.failed), d.n, d.failed[0])
	}
	t.Logf("%d dials, the slowest answered after %v, by worker %v", d.n, d.worst, d.by)
}
