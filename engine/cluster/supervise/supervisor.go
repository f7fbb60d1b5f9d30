package supervise

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/parleyd/parley/engine/logs"
	"github.com/parleyd/parley/protocol/ident"
)

// Supervisor runs a plan, in turns on the goroutine of Run: each takes an event, then does what is due. Addrs and Status
// are for any goroutine.
//
// Owner: the goroutine of Run, except the atomic fields.
type Supervisor struct {
	plan       Plan
	log        *slog.Logger
	executable string
	stdout     outlet
	stderr     outlet
	listeners  []*os.File
	addrs      []string
	// apiListener and apiAddr are the api process's; nil and empty without one.
	apiListener *os.File
	apiAddr     string
	started     time.Time

	events chan func()
	ended  chan struct{}
	status atomic.Pointer[Status]

	workers   []*ward
	api       *ward // nil without an api process
	bus       *ward // nil without a bus
	busAccess Bus   // its address and secret
	next      uint16
	used      int
	terms     uint64 // bus processes that were started
	settings  []byte
	dead      []Death        // for the welcome of new workers
	past      []ident.Worker // for that of new bus processes

	age       time.Duration // time in which the supervisor ran: it does not grow while the process is stopped
	lastTurn  time.Time
	published time.Time
	complete  bool // every ward has been ready once
	notify    Notifier
	reload    reloading
	leaving   *leaving // nil until the shutdown
	err       error    // the result of Run
}

// turnEvery is how often the supervisor takes a turn; ageStepMax bounds how much one turn adds to its age. So a supervisor
// that was stopped for a minute, or got no processor, does not take its wards for frozen: a ward is frozen only after
// FrozenAfter of the supervisor's own running time.
const (
	turnEvery  = 100 * time.Millisecond
	ageStepMax = 2 * turnEvery
	eventsMax  = 256
)

// New opens the listening sockets. Call Run, which closes them. Errors: the plan is wrong; the server cannot listen on an
// address; this process is a ward itself.
func New(plan Plan) (*Supervisor, error) {
	if Role() != "" {
		return nil, fmt.Errorf("make supervisor: this process is a %s; it must call Join instead", Role())
	}
	plan, err := plan.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Supervisor{plan: plan, log: plan.Log, started: time.Now(), settings: plan.Settings, next: plan.FirstInstance,
		stdout: newOutlet(plan.Stdout, plan.Log), stderr: newOutlet(plan.Stderr, plan.Log),
		events: make(chan func(), eventsMax), ended: make(chan struct{})}
	if plan.Stdout == plan.Stderr {
		s.stderr = s.stdout
	}
	if s.executable, err = executable(); err != nil {
		return nil, fmt.Errorf("find own executable: %w; workers are started from it, so mount /proc, or run one process without a supervisor (processes: 1)", err)
	}
	for s.next == 0 {
		var b [2]byte
		rand.Read(b[:])
		s.next = binary.NativeEndian.Uint16(b[:])
	}
	if plan.Bus {
		s.bus = &ward{role: RoleBus}
		s.busAccess = Bus{Address: plan.BusAddress, Secret: make([]byte, 32)}
		rand.Read(s.busAccess.Secret)
	}
	for i := range plan.Workers {
		s.workers = append(s.workers, &ward{role: RoleWorker, index: i})
	}
	if plan.API != "" {
		s.api = &ward{role: RoleAPI}
	}
	if err := s.listen(); err != nil {
		s.closeListeners()
		return nil, err
	}
	s.publish()
	return s, nil
}

// Run makes a supervisor with New and runs it.
func Run(ctx context.Context, plan Plan) error {
	s, err := New(plan)
	if err != nil {
		return err
	}
	return s.Run(ctx)
}

// Addrs are the listening addresses, in the plan's order, with the ports that the kernel chose. Any goroutine.
func (s *Supervisor) Addrs() []string { return s.addrs }

// APIAddr is the address that the api process listens on; empty without one. Any goroutine.
func (s *Supervisor) APIAddr() string { return s.apiAddr }

// Run starts the wards and keeps them running until ctx is done, SIGTERM or SIGINT; then it drains them. Once.
// It returns when no ward is left. Errors: a *Failure; ErrStopped; ErrInstances; wards that the kernel did not end.
func (s *Supervisor) Run(ctx context.Context) error {
	// The kernel ends the wards when the thread that started them ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer s.flush()
	defer close(s.ended)
	defer s.closeListeners()
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer signal.Stop(signals)
	tick := time.NewTicker(turnEvery)
	defer tick.Stop()
	s.notify.Begin(s.log)
	defer s.notify.End()

	done := ctx.Done()
	s.lastTurn = time.Now()
	s.turn(s.lastTurn)
	for !s.over() {
		select {
		case event := <-s.events:
			s.grow(time.Now()) // the event's times are now, not those of the latest tick
			event()
		case sig := <-signals:
			s.grow(time.Now())
			s.take(sig)
		case <-done:
			s.grow(time.Now())
			done = nil
			s.leave("asked to stop")
		case <-tick.C:
		}
		s.turn(time.Now())
	}
	s.log.Info("stopped", "after", (s.age - s.leaving.asked).Round(time.Millisecond))
	return s.err
}

// flush waits for the readers of the log and of the wards' output, for a bounded time.
func (s *Supervisor) flush() {
	bounded, cancel := context.WithTimeout(context.Background(), flushWait)
	defer cancel()
	s.stdout.lines.Flush(bounded)
	s.stderr.lines.Flush(bounded)
	logs.Flush(bounded, s.log)
}

const flushWait = time.Second

// post runs event on the supervisor's goroutine. Any other goroutine.
func (s *Supervisor) post(event func()) {
	select {
	case s.events <- event:
	case <-s.ended:
	}
}

// turn does everything that is due at now.
func (s *Supervisor) turn(now time.Time) {
	s.grow(now)
	for w := range s.wards() {
		s.tend(w)
	}
	s.reload.turn(s)
	if s.leaving != nil {
		s.leaving.turn(s)
	}
	s.announceReady()
	if now.Sub(s.published) >= turnEvery/2 {
		s.published = now
		s.publish()
	}
	s.report(now)
}

// grow adds the time since the last turn to the age, up to ageStepMax.
func (s *Supervisor) grow(now time.Time) {
	s.age += min(max(now.Sub(s.lastTurn), 0), ageStepMax)
	s.lastTurn = now
}

// wards iterates over all wards, the bus first, then the workers.
func (s *Supervisor) wards() func(yield func(*ward) bool) {
	return func(yield func(*ward) bool) {
		if s.bus != nil && !yield(s.bus) {
			return
		}
		for _, w := range s.workers {
			if !yield(w) {
				return
			}
		}
		if s.api != nil {
			yield(s.api)
		}
	}
}

// tend starts a ward if that is due, and kills a process that is silent or late.
func (s *Supervisor) tend(w *ward) {
	p := w.process
	switch {
	case p == nil:
		if s.leaving == nil && s.age >= w.retryAt && (w == s.bus || s.bus == nil || s.bus.everReady) && s.starting() < startsMax() {
			s.start(w)
		}
	case p.killed != "" || s.leaving != nil:
	case p.draining: // an operator ordered it, or it got SIGTERM from another process
		if s.age-p.drainAt > p.over+s.plan.DrainTimeout+killAfter {
			s.kill(p, "did not drain in time")
		}
	case !p.ready && s.age-p.startedAt > s.plan.StartTimeout:
		s.kill(p, fmt.Sprintf("not ready after %v", s.plan.StartTimeout))
	case p.ready && s.age-p.beatAt > s.plan.FrozenAfter:
		s.kill(p, fmt.Sprintf("frozen: no beat for %v", s.plan.FrozenAfter))
	}
}

// startsMax is how many processes start at once. If all share few cores, each takes as long as all together, and the
// slowest may exceed StartTimeout.
func startsMax() int { return max(4, 2*runtime.NumCPU()) }

// starting is how many processes have been started and are not ready.
func (s *Supervisor) starting() (n int) {
	for w := range s.wards() {
		if w.process != nil && !w.process.ready && w.process.killed == "" {
			n++
		}
	}
	return n
}

func (s *Supervisor) announceReady() {
	if s.complete || s.leaving != nil {
		return
	}
	for w := range s.wards() {
		if !w.isReady() {
			return
		}
	}
	s.complete = true
	s.log.Info("every process is ready", "workers", len(s.workers), "listen", s.addrs)
	s.publish()
	s.notify.Ready()
	if s.plan.Ready != nil {
		s.plan.Ready(s.Status())
	}
}

// take acts on a signal.
func (s *Supervisor) take(sig os.Signal) {
	if sig == syscall.SIGHUP {
		s.reload.ask(s)
		return
	}
	// The first signal may also have ended the context of Run: only a signal counts as a second one.
	if s.leaving == nil || !s.leaving.signalled {
		s.leave(sig.String())
		s.leaving.signalled, s.leaving.signalledAt = true, s.age
		return
	}
	if s.age-s.leaving.signalledAt >= SecondSignalAfter {
		s.stopNow()
	}
}

// SecondSignalAfter is how long after the first SIGTERM or SIGINT a further one means "at once". An earlier one is ignored:
// timeout(1) and service managers signal a process and also its group, and a terminal signals the whole group.
const SecondSignalAfter = time.Second

// nextInstance is an instance that was not used before.
func (s *Supervisor) nextInstance() (ident.Worker, error) {
	if s.used == 1<<16-1 {
		return 0, ErrInstances
	}
	i := s.next
	s.used++
	s.next++
	if s.next == 0 {
		s.next = 1
	}
	return ident.On(0, i), nil
}

// nextTerm is the term of the next bus process, whose sequencer numbers messages. Workers refuse what a sequencer of a lower
// term says, so that it must grow with each bus process of this server. It must grow over servers, too: on an external bus, a
// bus process that has lost its supervisor may still say something while the next server starts. So it counts up from the time,
// in milliseconds, at which the supervisor started. That is sound while the clock does not step back from one server to the next
// (then the new workers would for a moment listen to the old sequencer, which ends at once), and no bus process starts within
// a millisecond.
func (s *Supervisor) nextTerm() uint64 {
	s.terms++
	return uint64(s.started.UnixMilli()) + s.terms
}

// giveUp begins the shutdown because of err.
func (s *Supervisor) giveUp(err error) {
	s.err = errors.Join(s.err, err)
	s.log.Error("the supervisor gives up, and stops the server", "err", err)
	s.leave("giving up")
}
