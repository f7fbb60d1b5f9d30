package ledger

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/parleyd/parley/engine/canary"
	"github.com/parleyd/parley/protocol/ident"
)

// roleVar makes the test binary play another process: a bus, or a worker.
const roleVar = "LEDGER_TEST_ROLE"

func TestMain(m *testing.M) {
	switch role, args, _ := strings.Cut(os.Getenv(roleVar), " "); role {
	case "bus":
		playBus(args)
	case "seats":
		playSeats(args)
	default:
		os.Exit(m.Run())
	}
}

// process is a copy of the test binary that plays a role. It ends with its standard input.
type process struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	out   *bufio.Reader
}

func play(t testing.TB, role string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(os.Args[0])}
	p.cmd.Env = append(os.Environ(), roleVar+"="+role)
	p.cmd.Stderr = os.Stderr
	p.stdin, _ = p.cmd.StdinPipe()
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.out = bufio.NewReader(out)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := p.out.ReadString('\n')
	if err != nil || line != "ready\n" {
		t.Fatalf("%s said %q: %v", role, line, err)
	}
	return p
}

// kill ends it with SIGKILL and returns once it was reaped.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

func untilStdinEnds() { _, _ = io.Copy(io.Discard, os.Stdin) }

func startServer(port int, dir string) (*server.Server, error) {
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: port, JetStream: true, StoreDir: dir, NoSigs: true, NoLog: true,
	})
	if err != nil {
		return nil, err
	}
	s.Start()
	if !s.ReadyForConnections(20 * time.Second) {
		return nil, fmt.Errorf("bus on port %d does not start", port)
	}
	return s, nil
}

func playBus(args string) {
	var port int
	var dir string
	if _, err := fmt.Sscan(args, &port, &dir); err != nil {
		panic(err)
	}
	if _, err := startServer(port, dir); err != nil {
		panic(err)
	}
	fmt.Println("ready")
	untilStdinEnds()
}

// bus is a NATS server in a process of its own, which can be killed and started again.
type bus struct {
	t       testing.TB
	port    int
	dir     string
	process *process
}

var busPorts atomic.Int32

// freePort finds a port below the ephemeral ones, so that no dial takes it while the bus is down.
func freePort(t testing.TB) int {
	for range 1000 {
		port := 20000 + (os.Getpid()*37+int(busPorts.Add(1)))%10000
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			_ = l.Close()
			return port
		}
	}
	t.Fatal("no free port")
	return 0
}

func startBus(t testing.TB) *bus {
	b := &bus{t: t, port: freePort(t), dir: t.TempDir()}
	b.start()
	t.Cleanup(func() { b.process.kill() })
	return b
}

func (b *bus) start() { b.process = play(b.t, fmt.Sprintf("bus %d %s", b.port, b.dir)) }

func (b *bus) restart() {
	b.process.kill()
	b.start()
}

func (b *bus) url() string { return fmt.Sprintf("nats://127.0.0.1:%d", b.port) }

func connect(t testing.TB, url string) *nats.Conn {
	nc, err := nats.Connect(url, nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond), nats.ReconnectBufSize(-1),
		nats.RetryOnFailedConnect(true))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

const testEpoch = 1_700_000_000_000

// open makes the ledger of a worker, which waits for a bus that starts on a slow machine; opts are changed by each of adjust.
func (b *bus) open(t testing.TB, instance ident.Worker, adjust ...func(*Options)) *Ledger {
	t.Helper()
	return openAt(t, b.url(), instance, adjust...)
}

func openAt(t testing.TB, url string, instance ident.Worker, adjust ...func(*Options)) *Ledger {
	t.Helper()
	opts := Options{Instance: instance, Epoch: testEpoch, AwayAfter: 30 * time.Second, Fault: func(err error) { t.Errorf("worker %d: %v", instance, err) }}
	for _, f := range adjust {
		f(&opts)
	}
	ctx, cancel := context.WithTimeout(context.Background(), canary.Stretch(30*time.Second))
	defer cancel()
	l, err := Open(ctx, connect(t, url), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// await runs a call and waits for its callback.
func await(t testing.TB, call func(done func(error)) error) error {
	t.Helper()
	told := make(chan error, 1)
	if err := call(func(err error) { told <- err }); err != nil {
		return err
	}
	select {
	case err := <-told:
		return err
	case <-time.After(canary.Stretch(30 * time.Second)):
		t.Fatal("the callback was never called")
		return nil
	}
}

func must(t testing.TB, call func(done func(error)) error) {
	t.Helper()
	if err := await(t, call); err != nil {
		t.Fatal(err)
	}
}

// eventually polls until a condition holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	if !canary.Wait(30*time.Second, holds) {
		t.Fatalf("never: %s", what)
	}
}

// some is how many repetitions a test makes: all in make soak, a part in make test.
func some(all, part int) int {
	if testing.Short() {
		return part
	}
	return all
}
