package reactor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/panjf2000/gnet/v2"
	"github.com/panjf2000/gnet/v2/pkg/logging"
	"golang.org/x/sys/unix"
)

// How gnet bites, as tests against the pinned version: what the reactor does is an answer to these. Where one
// fails after an upgrade, gnet has changed, and the part of the reactor that it names may become simpler or must
// change.

// trap is gnet's client with handlers of a test's own.
type trap struct {
	gnet.BuiltinEventEngine
	t       testing.TB
	client  *gnet.Client
	traffic func(gnet.Conn) gnet.Action
	closed  func(gnet.Conn)
	tick    func()
	opened  atomic.Int32
}

func (x *trap) OnOpen(gnet.Conn) ([]byte, gnet.Action) {
	x.opened.Add(1)
	return nil, gnet.None
}

func (x *trap) OnTraffic(c gnet.Conn) gnet.Action {
	if x.traffic == nil {
		return gnet.None
	}
	return x.traffic(c)
}

func (x *trap) OnClose(c gnet.Conn, _ error) gnet.Action {
	if x.closed != nil {
		x.closed(c)
	}
	return gnet.None
}

func (x *trap) OnTick() (time.Duration, gnet.Action) {
	if x.tick != nil {
		x.tick()
	}
	return time.Millisecond, gnet.None
}

// start runs loops until the test ends. It is called before the handlers can be.
func (x *trap) start(t testing.TB, loops int, options ...gnet.Option) *trap {
	t.Helper()
	x.t = t
	options = append(options, gnet.WithNumEventLoop(loops), gnet.WithLogLevel(logging.FatalLevel))
	var err error
	if x.client, err = gnet.NewClient(x, options...); err == nil {
		err = x.client.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.client.Stop() })
	return x
}

// enrol gives gnet one end of a socket pair and returns it with the other.
func (x *trap) enrol(context any) (gnet.Conn, net.Conn) {
	x.t.Helper()
	ours, theirs := socketPair(x.t)
	c, err := x.client.EnrollContext(ours, context)
	if err != nil {
		x.t.Fatal(err)
	}
	return c, theirs
}

func socketPair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	a, b = fileConn(t, pair[0]), fileConn(t, pair[1])
	t.Cleanup(func() { b.Close() })
	return a, b
}

// fileConn makes a connection of a descriptor, which it takes over.
func fileConn(t testing.TB, fd int) net.Conn {
	t.Helper()
	file := os.NewFile(uintptr(fd), "pair")
	defer file.Close()
	c, err := net.FileConn(file)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// within waits for something that a loop sends.
func within[T any](t *testing.T, ch <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-ch:
	case <-time.After(patient):
		t.Fatal("never: " + what)
	}
	return v
}

// inChild runs a test of this file in a process of its own, where it finds its name in TRAP.
func inChild(t *testing.T) (out string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), "TRAP="+t.Name())
	raw, err := cmd.CombinedOutput()
	return string(raw), err
}

// A full file table ends a gnet server, and every connection with it. The acceptor is ours for that.
func TestTrapAcceptEndsTheServer(t *testing.T) {
	if os.Getenv("TRAP") != t.Name() {
		out, err := inChild(t)
		if err != nil || !strings.Contains(out, "the engine has ended: <nil>") {
			t.Errorf("gnet survives a full file table now: the acceptor may go. %v\n%s", err, out)
		}
		return
	}
	limit := unix.Rlimit{Cur: 128, Max: 128}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	probe, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := probe.Addr().String()
	probe.Close()
	ended, server := make(chan error, 1), &trap{}
	go func() {
		ended <- gnet.Run(server, "tcp://"+address, gnet.WithNumEventLoop(1), gnet.WithLogLevel(logging.FatalLevel))
	}()
	eventually(t, "the server accepts", func() bool { // it listens before it has all descriptors of its own
		c, err := net.Dial("tcp", address)
		if err == nil {
			c.Close()
		}
		return server.opened.Load() > 0
	})
	var last *os.File
	for {
		f, err := os.Open(os.DevNull)
		if err != nil {
			break
		}
		last = f
	}
	last.Close() // room for our end of a connection, none for the server's
	if c, err := net.Dial("tcp", address); err == nil {
		defer c.Close()
	}
	fmt.Println("the engine has ended:", within(t, ended, "the server ends"))
}

// Execute keeps no order beyond 1,024 waiting tasks: a later one overtakes. The mailbox is ours for that.
func TestTrapExecuteIsNotFIFO(t *testing.T) {
	x := &trap{}
	x.start(t, 1)
	c, theirs := x.enrol(nil)
	defer theirs.Close()
	held, release := make(chan bool), make(chan bool)
	loop, ctx := c.EventLoop(), t.Context()
	run := func(f func()) {
		loop.Execute(ctx, gnet.RunnableFunc(func(context.Context) error {
			f()
			return nil
		}))
	}
	run(func() { held <- true; <-release })
	within(t, held, "the loop is held")
	const tasks = 3000
	done, overtaken := make(chan bool, 1), atomic.Bool{}
	for i := range tasks {
		run(func() {
			if i == 0 {
				run(func() { overtaken.Store(len(done) == 0) })
			}
			if i == tasks-1 {
				done <- true
			}
		})
	}
	close(release)
	within(t, done, "the last task runs")
	eventually(t, "the task that was posted last overtakes: else gnet keeps order now, and may carry the mailbox", overtaken.Load)
}

// OnTick runs on a goroutine of its own, while the loop is held; Schedule is not there. The clock is brought by a
// ticker that rings the doorbells.
func TestTrapTickIsNotOnTheLoop(t *testing.T) {
	held, release, ticks := make(chan bool), make(chan bool), atomic.Int32{}
	x := &trap{
		traffic: func(gnet.Conn) gnet.Action { held <- true; <-release; return gnet.Close },
		tick:    func() { ticks.Add(1) },
	}
	x.start(t, 1, gnet.WithTicker(true))
	c, theirs := x.enrol(nil)
	if err := c.EventLoop().Schedule(t.Context(), nil, time.Second); err == nil {
		t.Error("EventLoop.Schedule works now: the ticker may go")
	}
	theirs.Write([]byte("x"))
	within(t, held, "the loop is held")
	before := ticks.Load()
	eventually(t, "OnTick runs while the loop is held: else it may drive the wheel", func() bool { return ticks.Load() > before+2 })
	close(release)
}

// A panic on a loop ends the process: code of the application runs under guard.
func TestTrapNoRecover(t *testing.T) {
	if os.Getenv("TRAP") != t.Name() {
		if out, err := inChild(t); err == nil || !strings.Contains(out, "panic: on the loop") {
			t.Errorf("gnet recovers from panics now. %v\n%s", err, out)
		}
		return
	}
	x := &trap{traffic: func(gnet.Conn) gnet.Action { panic("on the loop") }}
	x.start(t, 1)
	_, theirs := x.enrol(nil)
	theirs.Write([]byte("x"))
	<-t.Context().Done()
}

// A write that fails calls OnClose before it returns, and takes the connection's context away. We write to the
// descriptor ourselves, and close when the turn is over.
func TestTrapFailedWriteCloses(t *testing.T) {
	closed, found := false, make(chan string, 1)
	x := &trap{closed: func(gnet.Conn) { closed = true }}
	x.traffic = func(c gnet.Conn) gnet.Action {
		c.Write([]byte("nobody reads this"))
		found <- fmt.Sprint(closed, c.Context())
		return gnet.None
	}
	x.start(t, 1)
	ours, theirs := socketPair(t)
	theirs.Write([]byte("x"))
	theirs.Close()
	if _, err := x.client.EnrollContext(ours, "context"); err != nil {
		t.Fatal(err)
	}
	if got := within(t, found, "input"); got != "true <nil>" {
		t.Error("a failed write leaves the connection alone now:", got)
	}
}

// What the peer does not take piles up in gnet without bound. Our queue has one.
func TestTrapOutboundBufferHasNoBound(t *testing.T) {
	buffered := make(chan int, 1)
	x := &trap{traffic: func(c gnet.Conn) gnet.Action {
		for range 64 {
			if _, err := c.Write(make([]byte, 1<<20)); err != nil {
				break
			}
		}
		buffered <- c.OutboundBuffered()
		return gnet.Close
	}}
	x.start(t, 1)
	_, theirs := x.enrol(nil)
	theirs.Write([]byte("x"))
	if n := within(t, buffered, "the writes return"); n < 60<<20 {
		t.Errorf("gnet holds %d bytes of 64 MiB and refuses the rest: its buffer has a bound now", n)
	}
}

// Closing loses what the kernel has not taken, a close frame too: we linger.
func TestTrapCloseLosesOutput(t *testing.T) {
	const sent = 16 << 20
	x := &trap{traffic: func(c gnet.Conn) gnet.Action {
		c.Write(make([]byte, sent))
		return gnet.Close
	}}
	closed := make(chan bool, 1)
	x.closed = func(gnet.Conn) { closed <- true }
	x.start(t, 1)
	_, theirs := x.enrol(nil)
	theirs.Write([]byte("x"))
	within(t, closed, "the connection is closed")
	if n, _ := io.Copy(io.Discard, theirs); n >= sent {
		t.Error("gnet delivers everything before it closes now: lingering may become simpler")
	}
}

// A peer that shuts only its own half is closed at once; an answer that is on its way is lost. There is nothing
// that we can do about it, and no WebSocket client does it.
func TestTrapHalfCloseCloses(t *testing.T) {
	closed := make(chan bool, 1)
	x := &trap{closed: func(gnet.Conn) { closed <- true }}
	x.start(t, 1)
	_, theirs := x.enrol(nil)
	theirs.(*net.UnixConn).CloseWrite()
	within(t, closed, "a half-closed connection is closed: else late answers could be sent now")
}

// Zero means all, and what is lent lies in one buffer for all connections of a loop: it is gone with the handler's
// return. Chunks are borrowed, and always taken whole.
func TestTrapBorrowedInput(t *testing.T) {
	type look struct {
		all, left int
		at        *byte
	}
	looks := make(chan look, 2)
	x := &trap{traffic: func(c gnet.Conn) gnet.Action {
		p, _ := c.Peek(0)
		n, at := len(p), &p[0]
		c.Discard(0)
		looks <- look{n, c.InboundBuffered(), at}
		return gnet.None
	}}
	x.start(t, 1)
	_, a := x.enrol(nil)
	_, b := x.enrol(nil)
	a.Write([]byte("five!"))
	first := within(t, looks, "input")
	b.Write([]byte("six..."))
	second := within(t, looks, "input")
	if first.all != 5 || second.all != 6 || first.left != 0 {
		t.Errorf("Peek(0) gives %d and %d bytes of 5 and 6, and Discard(0) leaves %d", first.all, second.all, first.left)
	}
	if first.at != second.at {
		t.Error("two connections of one loop have buffers of their own now")
	}
}

// More than a buffer of input comes in several calls, in order: reading is level-triggered.
func TestTrapLevelTriggered(t *testing.T) {
	sent := bytes.Repeat([]byte("0123456789"), 40_000)
	var got []byte
	calls, whole := 0, make(chan bool, 1)
	x := &trap{traffic: func(c gnet.Conn) gnet.Action {
		p, _ := c.Next(-1)
		got = append(got, p...)
		if calls++; len(got) == len(sent) {
			whole <- true
		}
		return gnet.None
	}}
	x.start(t, 1)
	_, theirs := x.enrol(nil)
	go theirs.Write(sent)
	within(t, whole, "all of it")
	if !bytes.Equal(got, sent) || calls < 2 {
		t.Errorf("%d bytes came in %d calls", len(got), calls)
	}
}

// Enrolling one after another gives each loop its own connection, and so each loop its doorbell; the event loop's
// Enroll puts a connection on that very loop, with its context.
func TestTrapEnrol(t *testing.T) {
	contexts := make(chan string, 1)
	x := &trap{traffic: func(c gnet.Conn) gnet.Action {
		contexts <- fmt.Sprint(c.Context())
		return gnet.None
	}}
	x.start(t, 3)
	loops := map[gnet.EventLoop]bool{}
	var last gnet.Conn
	for range 3 {
		last, _ = x.enrol(nil)
		loops[last.EventLoop()] = true
	}
	if len(loops) != 3 {
		t.Errorf("three doorbells hang on %d loops", len(loops))
	}
	ours, theirs := socketPair(t)
	result, err := last.EventLoop().Enroll(gnet.NewContext(t.Context(), "mine"), ours)
	if err != nil {
		t.Fatal(err)
	}
	if r := within(t, result, "the enrolment ends"); r.Err != nil || r.Conn.EventLoop() != last.EventLoop() {
		t.Error("enrolled elsewhere:", r.Err)
	}
	theirs.Write([]byte("x"))
	if got := within(t, contexts, "input"); got != "mine" {
		t.Error("the context is", got)
	}
	eventually(t, "the connection that was handed in is closed", func() bool {
		_, err := ours.Write([]byte("x"))
		return errors.Is(err, net.ErrClosed)
	})
}

// An enrolment that fails says so by its result alone: OnOpen and OnClose are not called. The acceptor looks.
func TestTrapFailedEnrolment(t *testing.T) {
	x := &trap{}
	x.start(t, 1)
	c, _ := x.enrol(nil)
	before := x.opened.Load()
	ours, _ := socketPair(t)
	ours.Close()
	result, err := c.EventLoop().Enroll(t.Context(), ours)
	if err == nil {
		if r := within(t, result, "the enrolment ends"); r.Err == nil {
			t.Error("a closed connection was enrolled")
		}
	}
	if x.opened.Load() != before {
		t.Error("OnOpen was called")
	}
}

// Raw writes to the descriptor pass by gnet's buffers, and another connection of the loop may be closed from within
// a handler: OnClose has run when Close returns.
func TestTrapRawWriteAndClose(t *testing.T) {
	var other gnet.Conn
	closed, done := 0, make(chan string, 1)
	x := &trap{closed: func(gnet.Conn) { closed++ }}
	x.traffic = func(c gnet.Conn) gnet.Action {
		n, err := unix.Write(c.Fd(), []byte("raw"))
		c.EventLoop().Close(other)
		done <- fmt.Sprint(n, err, c.OutboundBuffered(), closed)
		return gnet.None
	}
	x.start(t, 1)
	other, _ = x.enrol(nil)
	_, theirs := x.enrol(nil)
	theirs.Write([]byte("x"))
	if got := within(t, done, "the handler returns"); got != "3 <nil> 0 1" {
		t.Error(got)
	}
	var got [3]byte
	if _, err := io.ReadFull(theirs, got[:]); err != nil || string(got[:]) != "raw" {
		t.Error(string(got[:]), err)
	}
}
