//go:build linux

// Package load is the load generator: one thread, one epoll set, thousands of clients. It checks that every client gets
// all its messages, in order, and declares a run void if one is missing, doubled or late.
//
// It knows no more of the server than the room protocol and WebSocket frames.
//
// Start reading at [Run].
package load

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"
)

// busyMax is the share above which the generator would measure itself.
const busyMax = 0.85

// leadMax is the most rounds by which a publisher may be ahead of the slowest one.
const leadMax = 3

// generator is the loop and its clients.
//
// Owner: its thread.
type generator struct {
	plan   Plan
	epoll  int
	conns  []*conn
	byFD   []*conn
	rooms  []*room
	opened int
	ready  int
	now    time.Time
	buffer []byte
	events []unix.EpollEvent
	failed error
	port   int // the next local port of the plan's address

	deliveries uint64
	dueConns   []*conn // with due above 0
	busy       time.Duration
	result     Result
	scenario   scenario
	window     int      // the plan's, while it lasts
	fields     []string // header fields with the clients' tokens
	dialect    *dialect
	hears      hears // nil: texts go to the scenario
}

// scenario is the behaviour of clients once they are ready.
type scenario interface {
	begin(g *generator) error
	message(g *generator, c *conn, n uint64, payload []byte)
	poll(g *generator) // between events
	drained(g *generator) bool
}

// answers is a scenario that also gets messages without a number.
type answers interface {
	answer(g *generator, c *conn, payload []byte)
}

// hears takes texts before the generator does.
type hears interface {
	hear(g *generator, c *conn, payload []byte) (taken bool, err error)
}

// Run plays a plan. A run that does not count has the reason in Void; an error is a failure of the generator.
func Run(p Plan) (Result, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if p.Rate > 0 {
		p.every = float64(p.Window) / p.Rate
	}
	g, err := newGenerator(p)
	if err != nil {
		return Result{}, err
	}
	defer unix.Close(g.epoll)
	switch p.Scenario {
	case "echo":
		g.scenario = &echo{}
	case "rooms":
		g.scenario = &rooms{}
	case "connect", "idle", "quiet":
		g.scenario = &idle{}
		if p.First > 0 {
			g.scenario = &rooms{}
		}
	case "churn":
		g.scenario = &churn{}
	case "publishes":
		g.scenario = &publishes{}
	case "dials":
		g.scenario = &dials{}
	case "revoke":
		g.scenario = &revoke{}
	case "many":
		g.scenario = &many{}
	case "recovery":
		s := &recovery{clients: make([]returner, p.Conns)}
		g.scenario, g.hears = s, s
	case "outage":
		s := &outage{clients: make([]witness, p.Conns)}
		g.scenario, g.hears = s, s
	case "store":
		s := &store{}
		g.scenario, g.hears = s, s
	default:
		return Result{}, fmt.Errorf("there is no scenario %q", p.Scenario)
	}
	if err := g.play(); err != nil {
		g.result.Void = err.Error()
	}
	g.closeAll()
	return g.result, nil
}

func newGenerator(p Plan) (*generator, error) {
	debug.SetGCPercent(400)
	g := &generator{plan: p, window: p.Window, dialect: dialects[p.Dialect], buffer: make([]byte, 1<<20), events: make([]unix.EpollEvent, 1024)}
	if p.Numbered {
		g.hears = numbers{}
	}
	var err error
	g.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	return g, err
}

func (g *generator) play() error {
	if err := g.prepareTokens(); err != nil {
		return err
	}
	idleMemory := residentBytes(g.plan.PID)
	begun, cpu := time.Now(), cpuSeconds(g.plan.PID)
	if err := g.connectAll(); err != nil {
		return err
	}
	if s, ok := g.scenario.(interface{ play(g *generator) error }); ok {
		return s.play(g)
	}
	if g.plan.Scenario == "connect" {
		g.measured(uint64(g.plan.Conns), time.Since(begun), cpuSeconds(g.plan.PID)-cpu)
		return nil
	}
	if g.plan.Scenario == "idle" {
		if err := g.pass(g.plan.First); err != nil {
			return err
		}
		g.spin(g.plan.Measure)
		g.result.Messages = uint64(g.plan.Conns)
		g.result.Memory = (residentBytes(g.plan.PID) - idleMemory) / float64(g.plan.Conns)
		return g.failed
	}
	if g.plan.Scenario == "quiet" {
		g.spin(g.plan.Warmup)
		begun, cpu = time.Now(), cpuSeconds(g.plan.PID)
		g.spin(g.plan.Measure)
		g.result.Share = (cpuSeconds(g.plan.PID) - cpu) / time.Since(begun).Seconds() * 100
		return g.failed
	}
	if err := g.fill(); err != nil {
		return err
	}
	if err := g.scenario.begin(g); err != nil {
		return err
	}
	g.spin(g.plan.Warmup)
	before := g.deliveries
	g.busy = 0
	g.result.histogram = hdrhistogram.New(1, 60_000_000, 3)
	begun, cpu = time.Now(), cpuSeconds(g.plan.PID)
	g.spin(g.plan.Measure)
	took := time.Since(begun)
	g.measured(g.deliveries-before, took, cpuSeconds(g.plan.PID)-cpu)
	g.result.Busy = g.busy.Seconds() / took.Seconds()
	g.result.ClientCPU = g.busy.Seconds() * 1e6 / float64(max(1, g.deliveries-before))
	g.summarize()
	if err := g.readStats(); err != nil {
		return err
	}
	return g.reconcile()
}

// pass plays the scenario until a number of messages is delivered, and waits for the last.
func (g *generator) pass(messages uint64) error {
	if messages == 0 {
		return nil
	}
	if err := g.scenario.begin(g); err != nil {
		return err
	}
	for g.failed == nil && g.deliveries < messages {
		g.turn()
	}
	return g.reconcile()
}

// measured records the figures of the measured time.
func (g *generator) measured(messages uint64, took time.Duration, cpu float64) {
	r := &g.result
	r.Messages, r.Seconds, r.cpuSeconds = messages, took.Seconds(), cpu
	r.Rate = float64(messages) / took.Seconds()
	r.CPU = cpu * 1e6 / float64(max(1, messages))
	r.Share = cpu / took.Seconds() * 100
}

func (g *generator) summarize() {
	r := &g.result
	if h := r.histogram; h != nil && h.TotalCount() > 0 {
		r.P50, r.P99, r.P999 = float64(h.ValueAtQuantile(50)), float64(h.ValueAtQuantile(99)), float64(h.ValueAtQuantile(99.9))
		if text, err := h.Encode(hdrhistogram.V2CompressedEncodingCookieBase); err == nil {
			r.Histogram = string(text)
		}
	}
}

// reconcile waits for the messages that are still owed. A message that does not come in time is missing.
func (g *generator) reconcile() error {
	g.plan.Window = 0 // no new messages
	for deadline := time.Now().Add(10 * time.Second); g.failed == nil && !g.scenario.drained(g); {
		if time.Now().After(deadline) {
			return errors.New("messages are missing")
		}
		g.turn()
	}
	if g.failed == nil && !g.plan.Sleepy && g.result.Busy > busyMax {
		return fmt.Errorf("the load generator was busy for %.0f %% of the time: it measured itself", g.result.Busy*100)
	}
	return g.failed
}

// spin takes turns for a time without sleeping: the server's sends would pay for waking a sleeping client.
func (g *generator) spin(d time.Duration) {
	for until := time.Now().Add(d); g.failed == nil && g.now.Before(until); {
		g.turn()
	}
}

// turn handles the events that have happened.
func (g *generator) turn() {
	n, err := g.poll()
	begun := time.Now()
	g.now = begun
	if err != nil && err != unix.EINTR {
		g.failed = err
		return
	}
	for i := range max(n, 0) {
		c := g.byFD[g.events[i].Fd]
		if c == nil {
			continue // closed in this turn
		}
		if g.plan.Rate > 0 && i%16 == 15 {
			g.now = time.Now()
		}
		if err := g.serve(c, g.events[i].Events); err != nil {
			g.failed = fmt.Errorf("client %d: %w", c.index, err)
			return
		}
	}
	g.scenario.poll(g)
	if n > 0 {
		g.busy += time.Since(begun)
	}
}

func (g *generator) serve(c *conn, events uint32) error {
	if c.state == stateConnecting {
		if code, _ := unix.GetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_ERROR); code != 0 {
			return unix.Errno(code)
		}
		if c.backend != nil {
			return c.backend.open(g)
		}
		c.state = stateHead
		return c.write(handshake(g.plan.Addr, g.dialect.path, g.field(c)))
	}
	if events&unix.EPOLLOUT != 0 && len(c.out) > 0 {
		if err := c.flush(); err != nil {
			return err
		}
	}
	for {
		n, err := rawRead(c.fd, g.buffer)
		if err == unix.EAGAIN || err == unix.EINTR {
			return nil
		}
		if c.state == stateClosed && (n == 0 || err != nil) {
			return nil
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return errors.New("the server has closed the connection")
		}
		if err := g.input(c, g.buffer[:n]); err != nil {
			return err
		}
		if n < len(g.buffer) {
			return nil
		}
	}
}

// input takes bytes of a server apart into frames.
func (g *generator) input(c *conn, chunk []byte) error {
	if len(c.in) > 0 {
		c.in = append(c.in, chunk...)
		chunk = c.in
	}
	if c.backend != nil && !c.backend.socket {
		return c.backend.answers(chunk)
	}
	if c.state == stateHead {
		end := bytes.Index(chunk, []byte("\r\n\r\n"))
		if end < 0 {
			c.keep(chunk)
			return nil
		}
		if !bytes.HasPrefix(chunk, []byte("HTTP/1.1 101")) {
			return fmt.Errorf("refused: %.60q", chunk)
		}
		chunk = chunk[end+4:]
		if err := g.upgraded(c); err != nil {
			return err
		}
	}
	for {
		op, payload, size := frameAt(chunk)
		if size == 0 {
			break
		}
		chunk = chunk[size:]
		if err := g.frame(c, op, payload); err != nil {
			return err
		}
	}
	c.keep(chunk)
	return nil
}

// keep holds on to a partial frame.
func (c *conn) keep(rest []byte) {
	if len(rest) == 0 {
		c.in = c.in[:0]
		return
	}
	c.in = append(c.in[:0], rest...)
}

func (g *generator) frame(c *conn, op byte, payload []byte) error {
	switch op {
	case 9:
		return c.write(appendFrame(nil, 10, payload))
	case 8:
		if s, ok := g.scenario.(*revoke); ok {
			return s.end(c, payload)
		}
		return fmt.Errorf("told to close: %q", payload)
	case 1, 2:
		if !g.dialect.lines {
			return g.text(c, payload)
		}
		for line := range bytes.SplitSeq(payload, []byte("\n")) {
			if err := g.text(c, line); err != nil {
				return err
			}
		}
	}
	return nil
}

// text takes one message.
func (g *generator) text(c *conn, payload []byte) error {
	if d := g.dialect; d.ping != "" && string(payload) == d.ping {
		return c.write(appendFrame(nil, 1, []byte(d.pong)))
	}
	if g.hears != nil {
		if taken, err := g.hears.hear(g, c, payload); taken || err != nil {
			return err
		}
	}
	if c.backend != nil {
		return c.backend.answer(g, payload)
	}
	if c.guest != nil {
		return c.guest.greeted(g, c, payload)
	}
	switch c.state {
	case stateHello:
		if bytes.Contains(payload, []byte(g.dialect.greeted)) {
			return g.join(c)
		}
	case stateJoining:
		if bytes.Contains(payload, []byte(g.dialect.joined)) {
			return g.becomesReady(c)
		}
		if g.plan.Parts > 0 {
			return c.greeted(payload)
		}
	default:
		if n, ok := c.number(payload); ok {
			g.scenario.message(g, c, n, payload)
		} else if x, ok := g.scenario.(answers); ok {
			x.answer(g, c, payload)
		}
	}
	return nil
}

// upgraded goes on after the handshake.
func (g *generator) upgraded(c *conn) error {
	if c.backend != nil {
		return g.becomesReady(c)
	}
	if c.guest != nil {
		c.state = stateHello
		return nil
	}
	if s, ok := g.scenario.(*recovery); ok && s.returning && g.dialect.atOnce {
		return g.join(c)
	}
	if g.dialect.hello != "" {
		c.state = stateHello
		return c.write(appendFrame(nil, 1, []byte(g.dialect.hello)))
	}
	return g.join(c)
}

func (g *generator) join(c *conn) error {
	if g.plan.Rooms == 0 {
		return g.becomesReady(c)
	}
	c.state = stateJoining
	c.room = g.rooms[c.index%g.plan.Rooms]
	if s, ok := g.scenario.(*recovery); ok && s.returning {
		return c.write(appendFrame(nil, 1, s.wish(g, c)))
	}
	return c.write(appendFrame(nil, 1, g.dialect.join(c.room.name)))
}

func (g *generator) becomesReady(c *conn) error {
	c.state = stateReady
	g.ready++
	if c.index >= g.plan.Conns {
		return nil // a client of the scenario's own
	}
	if c.index >= g.plan.Conns-g.plan.Stalled {
		return g.stall(c)
	}
	if c.room != nil {
		c.room.members = append(c.room.members, c)
	}
	return nil
}
