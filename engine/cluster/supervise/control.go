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
	listenerDescriptor = 4 // and those that follow
)

// role is taken when the process starts, before anything could pass the variable on to a process of its own.
var role = takeRole()

func takeRole() string {
	r := os.Getenv(roleVariable)
	if r != RoleBus && r != RoleWorker {
		return ""
	}
	os.Unsetenv(roleVariable)
	syscall.CloseOnExec(controlDescriptor)
	nameThread()
	return r
}

// Role says what this process is to a supervisor: RoleBus, RoleWorker, or "" where it has none. Any goroutine.
func Role() string { return role }

// Control is a ward's end of the control channel. Its methods are for any goroutine and never block, but
// Pulse, which blocks until its context is done.
//
// Owner: shared (mutex: mu).
type Control struct {
	welcome  Welcome
	conn     net.Conn
	orders   chan Order
	ready    atomic.Bool   // it has said so
	orphaned chan struct{} // closed when the supervisor is gone

	mu       sync.Mutex
	inbox    []Order
	lines    [][]byte // to be written, in this order
	beat     bool     // to be written
	stats    []byte   // to be written
	draining bool
	fresh    chan struct{} // the inbox has something
	due      chan struct{} // there is something to be written
}

// Join takes up the control channel and waits for the welcome. From then on SIGTERM is an order to drain,
// SIGINT and SIGHUP mean nothing, and a closed stderr is no reason to die. Once per process. Errors: the process
// has no role; it was not started by a supervisor.
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
	c := &Control{conn: conn, orders: make(chan Order), orphaned: make(chan struct{}), fresh: make(chan struct{}, 1), due: make(chan struct{}, 1)}
	lines := bufio.NewScanner(conn)
	lines.Buffer(nil, lineMax)
	if err := c.hearWelcome(lines); err != nil {
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
	go c.listen(lines)
	go c.deliver()
	go c.speak()
	return c, nil
}

func (c *Control) hearWelcome(lines *bufio.Scanner) error {
	if !lines.Scan() {
		return errors.Join(errors.New("it is gone"), lines.Err())
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

// Welcome is what the supervisor said first.
func (c *Control) Welcome() Welcome { return c.welcome }

// Orders are what it says from then on, in order. The channel is never closed, and waits for its reader: what
// comes meanwhile is kept.
func (c *Control) Orders() <-chan Order { return c.orders }

// Ready says that the ward does its work. address is where the bus listens; workers give "".
func (c *Control) Ready(address string) {
	c.ready.Store(true)
	c.say(report{Ready: &readyReport{address}})
}

// Beat says that the ward is alive: more often than Welcome.FrozenAfter, or it will be killed.
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

// Stats hands over what Status shows of this ward; the latest counts. Errors: v cannot be encoded, or is
// larger than 1 MB.
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

// Reloaded answers r: fixed names the settings that differ from what is in force and cannot change while the
// ward runs.
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

// speak writes what is due. It may block while the supervisor is suspended; nobody else does.
func (c *Control) speak() {
	beat, _ := line(report{Beat: true})
	for range c.due {
		c.mu.Lock()
		out := append(c.stats, slices.Concat(c.lines...)...) // whoever is ready has been counted
		if c.beat {
			out = append(out, beat...)
		}
		c.lines, c.beat, c.stats = c.lines[:0], false, nil
		c.mu.Unlock()
		if _, err := c.conn.Write(out); err != nil {
			return // the supervisor is gone: listen notices
		}
	}
}

// listen hears orders until the supervisor is gone, however it went: the kernel closes its end.
func (c *Control) listen(lines *bufio.Scanner) {
	for lines.Scan() {
		var said command
		if json.Unmarshal(lines.Bytes(), &said) != nil {
			continue // a supervisor is of the same binary: this does not happen
		}
		switch {
		case said.Peers != nil:
			c.put(*said.Peers)
		case said.Reload != nil:
			c.put(*said.Reload)
		case said.Drain != nil:
			c.drain(*said.Drain)
		}
	}
	close(c.orphaned)
	if c.welcome.Role == RoleWorker && !c.ready.Load() {
		os.Exit(exitFailed) // it has nobody to send away, and its sockets keep a successor from the port
	}
	within := min(c.welcome.DrainTimeout, orphanDrain)
	time.AfterFunc(within+orphanGrace, func() { os.Exit(exitFailed) })
	c.drain(Drain{Within: within, Orphaned: true})
}

const (
	// orphanDrain bounds the leave-taking of an orphan: a successor may serve on the same port meanwhile, and knows none of
	// the orphan's clients.
	orphanDrain = 2 * time.Second
	// orphanGrace is what an orphan may exceed its time to drain by.
	orphanGrace = time.Second
)

// Draining is the time for d: it ends after d.Within, or two seconds after the supervisor's end. The kernel's word of that
// end, SIGTERM, may be heard first and look like an order to take all the time there is.
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
	already := c.draining
	c.draining = true
	c.mu.Unlock()
	if !already {
		c.say(report{Draining: true})
		c.put(d)
	}
}

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

// deliver hands orders over, so that listen never waits for the reader: it must notice the supervisor's end.
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

// wardEnviron is the environment of a ward: its role, and nothing that is meant for the supervisor alone.
func wardEnviron(environ []string, role string) []string {
	own := []string{roleVariable, "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"}
	kept := slices.DeleteFunc(slices.Clone(environ), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return slices.Contains(own, name)
	})
	return append(kept, roleVariable+"="+role)
}
