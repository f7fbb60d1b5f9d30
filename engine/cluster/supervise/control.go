package supervise

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const roleVariable = "PARLEY_ROLE"

const (
	controlDescriptor  = 3
	listenerDescriptor = 4 // the first of them
)

// role is read when the process starts, before any code could pass the variable on to a child process.
var role = takeRole()

func takeRole() string {
	r := os.Getenv(roleVariable)
	if r != RoleBus && r != RoleWorker && r != RoleAPI {
		return ""
	}
	os.Unsetenv(roleVariable)
	syscall.CloseOnExec(controlDescriptor)
	nameThread()
	return r
}

// Role is this process's role under a supervisor: RoleBus, RoleWorker, RoleAPI, or "" without a supervisor. Any goroutine.
func Role() string { return role }

// Control is a ward's end of the control channel. Its methods are for any goroutine and never block, except Pulse, which
// blocks until its context is done.
//
// Owner: shared (mutex: mu).
type Control struct {
	welcome  Welcome
	conn     net.Conn
	orders   chan Order
	ready    atomic.Bool   // Ready was called
	orphaned chan struct{} // closed when the supervisor is gone
	hurried  chan struct{} // closed by an order to drain while the ward drains
	asked    asked

	mu       sync.Mutex
	inbox    []Order
	lines    [][]byte // to be written, in this order
	beat     bool     // to be written
	stats    []byte   // to be written
	draining bool
	inAHurry bool          // hurried is closed
	fresh    chan struct{} // the inbox is not empty
	due      chan struct{} // a line, beat or stats are to be written
}

// Join opens the control channel and waits for the welcome. From then on SIGTERM is an order to drain, SIGINT and SIGHUP
// are ignored, and a closed stderr does not end the process. Once per process. Errors: the process has no role; it was not
// started by a supervisor.
func Join() (*Control, error) {
	if role == "" {
		return nil, errors.New("join supervisor: no supervisor started this process")
	}
	file := os.NewFile(controlDescriptor, "control")
	conn, err := net.FileConn(file)
	file.Close()
	if err != nil {
		return nil, fmt.Errorf("join supervisor: %s was set, but descriptor 3 is no control channel; leave that variable to the supervisor: %w", roleVariable, err)
	}
	c := &Control{conn: conn, orders: make(chan Order), orphaned: make(chan struct{}), hurried: make(chan struct{}), fresh: make(chan struct{}, 1), due: make(chan struct{}, 1)}
	lines := bufio.NewScanner(conn)
	lines.Buffer(nil, lineMax)
	if err := c.readWelcome(lines); err != nil {
		return nil, fmt.Errorf("join supervisor: %w", err)
	}
	signal.Ignore(syscall.SIGINT, syscall.SIGHUP, syscall.SIGPIPE)
	terminate := make(chan os.Signal, 1)
	signal.Notify(terminate, syscall.SIGTERM)
	go func() {
		for range terminate {
			c.drain(Drain{Within: c.welcome.DrainTimeout})
		}
	}()
	continueOrphan()
	go c.readOrders(lines)
	go c.deliver()
	go c.writeReports()
	return c, nil
}

func (c *Control) readWelcome(lines *bufio.Scanner) error {
	if !lines.Scan() {
		return errors.Join(errors.New("the supervisor is gone"), lines.Err())
	}
	var first command
	if err := json.Unmarshal(lines.Bytes(), &first); err != nil {
		return fmt.Errorf("read welcome: %w", err)
	}
	if first.Welcome == nil {
		return errors.New("read welcome: the supervisor's first line is another command")
	}
	c.welcome = *first.Welcome
	for i, address := range c.welcome.Listen {
		fd := listenerDescriptor + i
		syscall.CloseOnExec(fd)
		c.welcome.Listeners = append(c.welcome.Listeners, os.NewFile(uintptr(fd), address))
	}
	return nil
}

// Welcome is the supervisor's first message.
func (c *Control) Welcome() Welcome { return c.welcome }

// Orders are the supervisor's later messages, in order. The channel is never closed; orders are kept until they are read.
func (c *Control) Orders() <-chan Order { return c.orders }

// Ready says that the ward serves. address is where the bus listens; workers give "".
func (c *Control) Ready(address string) {
	c.ready.Store(true)
	c.say(report{Ready: &readyReport{address}})
}

// Beat says that the ward is alive. A ward without a beat for Welcome.FrozenAfter is killed.
func (c *Control) Beat() {
	c.mu.Lock()
	c.beat = true
	c.mu.Unlock()
	ring(c.due)
}

// Pulse beats every 250 ms for as long as healthy returns nil, until ctx is done. A ward that drains is not
// asked. healthy gets a context that ends after a second.
func (c *Control) Pulse(ctx context.Context, healthy func(context.Context) error) {
	t := time.NewTicker(beatEvery)
	defer t.Stop()
	for {
		if c.isDraining() || c.check(ctx, healthy) == nil {
			c.Beat()
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

func (c *Control) check(ctx context.Context, healthy func(context.Context) error) error {
	bounded, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return healthy(bounded)
}

// Stats reports the figures that Status shows of this ward; the latest replace earlier ones. Errors: v cannot be encoded,
// or is larger than 1 MiB.
func (c *Control) Stats(v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode stats: %w", err)
	}
	b, err := line(report{Stats: raw})
	if err != nil {
		return fmt.Errorf("encode stats: %w", err)
	}
	if len(b) >= lineMax {
		return fmt.Errorf("encode stats: %d bytes are more than %d", len(b), lineMax)
	}
	c.mu.Lock()
	c.stats = b
	c.mu.Unlock()
	ring(c.due)
	return nil
}

// Reloaded answers r: fixed names the settings that differ from those in force and cannot change while the ward runs.
func (c *Control) Reloaded(r Reload, fixed []string) {
	c.say(report{Reloaded: &reloadReport{r.Generation, fixed}})
}

func (c *Control) say(r report) {
	b, err := line(r)
	if err != nil {
		panic("supervise: a report cannot be encoded: " + err.Error())
	}
	c.mu.Lock()
	c.lines = append(c.lines, b)
	c.mu.Unlock()
	ring(c.due)
}

// writeReports writes what the other methods leave for it. Only this goroutine may block, while the supervisor is stopped.
func (c *Control) writeReports() {
	beat, _ := line(report{Beat: true})
	for range c.due {
		c.mu.Lock()
		out := append(c.stats, slices.Concat(c.lines...)...) // stats first: the supervisor has those of each ready ward
		if c.beat {
			out = append(out, beat...)
		}
		c.lines, c.beat, c.stats = c.lines[:0], false, nil
		c.mu.Unlock()
		if _, err := c.conn.Write(out); err != nil {
			return // the supervisor is gone: readOrders ends too
		}
	}
}

// readOrders takes orders until the supervisor is gone: when it ends for any reason, the kernel closes its end.
func (c *Control) readOrders(lines *bufio.Scanner) {
	for lines.Scan() {
		var said command
		if json.Unmarshal(lines.Bytes(), &said) != nil {
			continue // cannot happen: the supervisor runs the same binary
		}
		switch {
		case said.Peers != nil:
			c.put(*said.Peers)
		case said.Reload != nil:
			c.put(*said.Reload)
		case said.Drain != nil:
			c.drain(*said.Drain)
		case said.Answer != nil:
			c.asked.answered(*said.Answer)
		}
	}
	close(c.orphaned)
	if c.welcome.Role != RoleBus && !c.ready.Load() {
		os.Exit(exitFailed) // no client is connected, and the sockets would keep the port from a new server
	}
	within := min(c.welcome.DrainTimeout, orphanDrain)
	time.AfterFunc(within+orphanGrace, func() { os.Exit(exitFailed) })
	c.drain(Drain{Within: within, Orphaned: true})
}

const (
	// orphanDrain bounds the drain of an orphan: a new server may listen on the same port meanwhile, and does not know the
	// orphan's clients.
	orphanDrain = 2 * time.Second
	// orphanGrace is by how much an orphan may exceed its time to drain.
	orphanGrace = time.Second
)

// Draining makes a context for the time of d: it ends after d.Within, or two seconds after the supervisor's end. At that
// end the kernel sends SIGTERM, which can arrive first and look like an order with the whole DrainTimeout.
func (c *Control) Draining(ctx context.Context, d Drain) (context.Context, context.CancelFunc) {
	bounded, cancel := context.WithTimeout(ctx, d.Within)
	go func() {
		select {
		case <-c.orphaned:
		case <-bounded.Done():
			return
		}
		wait := time.NewTimer(orphanDrain)
		defer wait.Stop()
		select {
		case <-wait.C:
			cancel()
		case <-bounded.Done():
		}
	}()
	return bounded, cancel
}

func (c *Control) drain(d Drain) {
	c.mu.Lock()
	already, hurried := c.draining, c.inAHurry
	c.draining, c.inAHurry = true, c.draining
	c.mu.Unlock()
	switch {
	case !already:
		c.say(report{Draining: true})
		c.put(d)
	case !hurried:
		close(c.hurried)
	}
}

// Hurried is closed when a ward that drains is told to drain again: the server stops, or an operator has sent SIGTERM. Then
// Drain.Over is over.
func (c *Control) Hurried() <-chan struct{} { return c.hurried }

func (c *Control) isDraining() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.draining
}

func (c *Control) put(o Order) {
	c.mu.Lock()
	c.inbox = append(c.inbox, o)
	c.mu.Unlock()
	ring(c.fresh)
}

// deliver hands orders over, so that readOrders never waits for their reader: it must notice the supervisor's end.
func (c *Control) deliver() {
	for range c.fresh {
		c.mu.Lock()
		list := c.inbox
		c.inbox = nil
		c.mu.Unlock()
		for _, o := range list {
			c.orders <- o
		}
	}
}

func ring(bell chan struct{}) {
	select {
	case bell <- struct{}{}:
	default:
	}
}

// wardEnviron is the environment of a ward: with its role, and without the variables for the supervisor alone.
func wardEnviron(environ []string, role string) []string {
	own := []string{roleVariable, "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"}
	kept := slices.DeleteFunc(slices.Clone(environ), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return slices.Contains(own, name)
	})
	return append(kept, roleVariable+"="+role)
}
