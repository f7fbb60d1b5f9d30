package bus

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/parleyd/parley/protocol/ident"
)

const roleVariable = "PARLEY_BUS_TEST_ROLE"

// roles are the processes that tests start. Each reads its order from stdin as a line of JSON, and ends when
// stdin does, so that none outlives the tests.
var roles = map[string]func() error{"bus": busRole, "worker": workerRole}

func busRole() error {
	in := bufio.NewReader(os.Stdin)
	var opts ServerOptions
	if err := readOrder(in, &opts); err != nil {
		return err
	}
	s, err := Start(opts)
	if err != nil {
		return err
	}
	defer s.Close()
	fmt.Println(s.Addr())
	_, _ = io.Copy(io.Discard, in)
	return nil
}

// workerOrder is a worker process's order; report is its answer to each question.
type workerOrder struct {
	URL      string
	Instance ident.Worker
	Password string
	Peers    []ident.Worker
}

type report struct {
	Next  map[ident.Worker]uint64
	Lost  uint64
	Wrong []string
	Stats Stats
}

func workerRole() error {
	in := bufio.NewReader(os.Stdin)
	var o workerOrder
	if err := readOrder(in, &o); err != nil {
		return err
	}
	g := newWitness()
	l, err := Dial(context.Background(), LinkOptions{URL: o.URL, Instance: o.Instance, Password: o.Password, Peers: o.Peers}, g.receiver())
	if err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	for {
		st, lost := l.Stats(), g.lostBatches()
		g.mu.Lock()
		err := out.Encode(report{g.next, lost, g.wrong, st})
		g.mu.Unlock()
		if err != nil {
			return err
		}
		if _, err := in.ReadString('\n'); err != nil {
			return nil
		}
	}
}

func readOrder(in *bufio.Reader, order any) error {
	line, err := in.ReadBytes('\n')
	if err != nil {
		return err
	}
	return json.Unmarshal(line, order)
}

// process is this test binary in another role.
type process struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func spawn(t testing.TB, role string, order any) *process {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{cmd, in, bufio.NewReader(out)}
	t.Cleanup(p.kill)
	if err := json.NewEncoder(in).Encode(order); err != nil {
		t.Fatal(err)
	}
	return p
}

// kill is kill -9, and waits until the process is gone.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

func (p *process) signal(t testing.TB, s syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

func (p *process) line(t testing.TB) string {
	t.Helper()
	line, err := p.out.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return line[:len(line)-1]
}

func (p *process) report(t testing.TB) (r report) {
	t.Helper()
	if _, err := io.WriteString(p.in, "\n"); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(p.line(t)), &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// busProcess starts the bus in a process of its own; port 0 lets it choose.
func busProcess(t testing.TB, dir string, port int) (p *process, addr string) {
	t.Helper()
	p = spawn(t, "bus", ServerOptions{Dir: dir, Secret: secret, Port: port})
	return p, p.line(t)
}

// traffic publishes from all links until stop is closed, at a pace that lets a machine of two cores breathe, and
// then says how many entries each published.
func traffic(t testing.TB, links []*Link, stop <-chan struct{}) (counts func() []uint64) {
	said := make([]uint64, len(links))
	var publishers sync.WaitGroup
	for i, l := range links {
		publishers.Go(func() {
			turn := time.NewTicker(time.Millisecond)
			defer turn.Stop()
			for {
				select {
				case <-stop:
					return
				case <-turn.C:
				}
				for range 10 {
					appendEntry(t, l, said[i], 200)
					said[i]++
				}
				l.Flush()
			}
		})
	}
	return func() []uint64 {
		publishers.Wait()
		return said
	}
}

// The bus is killed again and again under traffic: nothing is lost, doubled or swapped.
func TestBusKilled(t *testing.T) {
	noLeaks(t)
	kills := some(12, 4)
	dir := t.TempDir()
	bus, addr := busProcess(t, dir, 0)
	var port int
	if _, err := fmt.Sscanf(addr, "127.0.0.1:%d", &port); err != nil {
		t.Fatal(err)
	}
	links, witnesses := fourWorkers(t, "nats://"+addr, 0)
	stop := make(chan struct{})
	counts := traffic(t, links, stop)
	for range kills {
		before := links[0].Stats().Reconnects
		heard := links[0].Stats().EntriesIn
		eventually(t, "traffic", func() bool { return links[0].Stats().EntriesIn > heard+1000 })
		bus.kill()
		bus, _ = busProcess(t, dir, port)
		eventually(t, "all links to be back", func() bool {
			return links[0].Stats().Reconnects > before && links[0].Up() && links[1].Up() && links[2].Up() && links[3].Up()
		})
	}
	close(stop)
	said := counts()
	var repaired uint64
	for i, g := range witnesses {
		for from, n := range said {
			if from != i {
				eventually(t, "all entries", func() bool { return g.has(ident.Worker(from+1), n) })
			}
		}
		g.check(t)
		st := links[i].Stats()
		repaired += st.BatchesRepaired
		if st.BatchesLost != 0 || st.BatchesOverrun != 0 {
			t.Errorf("worker %d: %+v", i+1, st)
		}
	}
	t.Logf("%d kills, %d entries published, %d batches repaired", kills, said[0]+said[1]+said[2]+said[3], repaired)
}

// A worker is stopped until the bus disconnects it as too slow. When it goes on, it gets the batches that it missed.
func TestWorkerFrozen(t *testing.T) {
	noLeaks(t)
	_, addr := busProcess(t, t.TempDir(), 0)
	url := "nats://" + addr
	opts := options(url, 1)
	opts.RingBytes = 256 << 20
	l := dial(t, opts, newWitness())
	frozen := spawn(t, "worker", workerOrder{url, 2, Password(secret, 2), []ident.Worker{1}})
	frozen.line(t) // it has dialled
	other := newWitness()
	dial(t, options(url, 3, 1), other)
	frozen.signal(t, syscall.SIGSTOP)
	// More than the server and both kernels keep for it.
	const entries, size = 1600, 60 << 10
	for n := range uint64(entries) {
		appendEntry(t, l, n, size)
		l.Flush()
		eventually(t, "the bus to take it", func() bool { return l.Unsent() < 1<<20 })
	}
	eventually(t, "the other worker, who must not suffer", func() bool { return other.has(1, entries) })
	frozen.signal(t, syscall.SIGCONT)
	var r report
	eventually(t, "the frozen one to have all", func() bool { r = frozen.report(t); return r.Next[1] == entries })
	if r.Stats.Reconnects == 0 || r.Stats.BatchesRepaired == 0 {
		t.Errorf("it was not cut off: %+v", r.Stats)
	}
	if r.Lost != 0 || len(r.Wrong) != 0 {
		t.Errorf("%+v", r)
	}
	other.check(t)
}

// A frozen bus delays no worker: entries that are appended meanwhile wait in the ring, and arrive.
func TestBusFrozen(t *testing.T) {
	noLeaks(t)
	bus, addr := busProcess(t, t.TempDir(), 0)
	opts := options("nats://"+addr, 1)
	opts.RingBytes = 64 << 20
	l := dial(t, opts, newWitness())
	g := newWitness()
	dial(t, options("nats://"+addr, 2, 1), g)
	bus.signal(t, syscall.SIGSTOP)
	defer bus.signal(t, syscall.SIGCONT)
	const entries, size = 700, 60 << 10 // far more than the sockets hold
	for n := range uint64(entries) {    // would stand still here
		appendEntry(t, l, n, size)
		l.Flush()
	}
	if l.Unsent() == 0 {
		t.Error("a frozen bus has taken everything: the test does not test")
	}
	bus.signal(t, syscall.SIGCONT)
	eventually(t, "all entries", func() bool { return g.has(1, entries) })
	g.check(t)
}

// Entries that a worker published before it was killed arrive; then it is gone.
func TestWorkerKilled(t *testing.T) {
	noLeaks(t)
	s := startServer(t)
	g := newWitness()
	killed := dial(t, options(s.URL(), 1), newWitness())
	survivor := dial(t, options(s.URL(), 2, 1), g)
	for n := range uint64(100) {
		appendEntry(t, killed, n, 100)
		killed.Flush()
	}
	eventually(t, "its batches to be under way", func() bool { return killed.Unsent() == 0 })
	survivor.Forget(1)
	eventually(t, "the end of 1", func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return len(g.gone) == 1
	})
	if !g.has(1, 100) {
		t.Error("what it published last is lost")
	}
	appendEntry(t, killed, 100, 100)
	killed.Flush()
	eventually(t, "a late batch to be under way", func() bool { return killed.Unsent() == 0 })
	// An entry of another instance comes after it.
	third := dial(t, options(s.URL(), 3), newWitness())
	appendEntry(t, third, 0, 100)
	third.Flush()
	eventually(t, "the third's entry", func() bool { return g.has(3, 1) })
	if g.has(1, 101) {
		t.Error("a forgotten instance is still heard")
	}
	g.check(t)
}
