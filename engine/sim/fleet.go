package sim

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"time"

	"github.com/parleyd/parley/engine"
	sessions "github.com/parleyd/parley/engine/internal/session"
)

// Fleet is a simulated world of several workers that are one server.
//
// Owner: the goroutine of [RunFleet].
type Fleet struct {
	rand      *rand.Rand
	plan      fleetPlan
	now       time.Duration
	bus       *fleetBus
	sequencer *sequencer // nil: it is dead, or no room has history
	terms     uint64
	annals    *annals
	truth     *fleetTruth
	store     *sessionBook
	seats     *seatBook
	created   *roomBook
	slots     []*worker // nil: its worker is dead, and the next one has not begun
	workers   []*worker // all workers of the run, by their instance from 1 on
	people    []*fleetPerson
	clients   []*fleetClient // one for each connection of the run
	agenda    []*event       // future events, the earliest first
	grants    []*grant
	quiet     bool // no further fault happens
	trouble   time.Duration
	message   int
	turns     int // of all loops

	trace      []string
	complaints []Complaint
}

// event is a function that runs at a time.
//
// Owner: the simulation.
type event struct {
	at time.Duration
	f  func()
}

// RunFleet plays a world of several workers of a seed for a number of steps, and then lets it come to rest.
func RunFleet(seed uint64, steps int) *Report {
	f := &Fleet{rand: rand.New(rand.NewPCG(seed, 0xf1ee7))}
	f.plan = drawFleetPlan(f.rand)
	if seed%4 < 2 {
		f.plan.drawHistories(f.rand)
	}
	f.bus = newFleetBus(f)
	f.truth = newFleetTruth(f)
	f.annals = newAnnals(f)
	f.seats = &seatBook{f: f, rooms: map[string]*seatRecord{}}
	f.created = &roomBook{f: f, rooms: map[string]*createdRoom{}}
	f.store = &sessionBook{f: f, records: map[sessions.Key]*sessionRecord{}, losses: losses{marks: map[*worker]int{}, deleted: map[sessions.Key]time.Duration{}}}
	f.slots = make([]*worker, f.plan.workers)
	for i := range f.plan.clients {
		f.people = append(f.people, &fleetPerson{name: string(rune('a' + i))})
	}
	f.live(steps)
	h := fnv.New64a()
	for _, line := range f.trace {
		h.Write([]byte(line))
	}
	return &Report{f.complaints, f.trace, h.Sum64(), f.message, f.truth.resumed}
}

// live plays the steps and the end. A server that panics is a complaint, so that its seed is known.
func (f *Fleet) live(steps int) {
	defer func() {
		if v := recover(); v != nil {
			f.complain("crash", "%v\n%s", v, debug.Stack())
		}
	}()
	if f.plan.historic {
		f.beginSequencer()
	}
	for slot := range f.slots {
		f.spawn(slot)
	}
	for i := 0; i < steps && len(f.complaints) == 0; i++ {
		f.step()
	}
	f.rest()
}

func (f *Fleet) complain(checker, format string, args ...any) {
	if len(f.complaints) < complaintsMax {
		c := Complaint{checker, fmt.Sprintf(format, args...)}
		f.complaints = append(f.complaints, c)
		f.tracef("COMPLAINT %s: %s", c.Checker, c.Text)
	}
}

func (f *Fleet) tracef(format string, args ...any) {
	f.trace = append(f.trace, fmt.Sprintf("%v ", f.now)+fmt.Sprintf(format, args...))
}

func (f *Fleet) chance(p float64) bool { return p > 0 && f.rand.Float64() < p }

// fault is chance for faults, until the world comes to rest.
func (f *Fleet) fault(p float64) bool { return !f.quiet && f.chance(p) }

func (f *Fleet) number() int {
	f.message++
	return f.message
}

// later runs do after d.
func (f *Fleet) later(d time.Duration, do func()) {
	x := &event{f.now + d, do}
	i, _ := slices.BinarySearchFunc(f.agenda, x, func(a, b *event) int {
		if a.at <= b.at {
			return -1
		}
		return 1
	})
	f.agenda = slices.Insert(f.agenda, i, x)
}

// span is a random time between two.
func (f *Fleet) span(least, most time.Duration) time.Duration {
	return least + time.Duration(f.rand.Int64N(int64(most-least)+1))
}

// step makes one thing happen.
func (f *Fleet) step() {
	switch n := f.rand.IntN(100); {
	case n < 25:
		f.act(f.people[f.rand.IntN(len(f.people))])
	case n < 84:
		f.move()
	case n < 91:
		f.pass(f.span(0, 30*time.Millisecond))
	case n < 94:
		f.applicationActs()
	case f.fault(f.plan.kills):
		f.killOne()
	case f.fault(f.plan.drains):
		f.drainOne()
	case f.fault(f.plan.sequencerDeaths):
		f.killSequencer()
	default:
		f.bus.suffer()
	}
}

// meanwhile lets other loops make progress in the middle of a turn, as they do on other cores.
func (f *Fleet) meanwhile() {
	for f.chance(f.plan.meanwhile) {
		if !f.move() {
			return
		}
	}
}

// move lets one part of the world make progress, and reports whether any could.
func (f *Fleet) move() bool {
	var can []func()
	for _, k := range f.clients {
		if do := k.next(); do != nil {
			can = append(can, do)
		}
	}
	for _, w := range f.slots {
		if w != nil {
			can = w.moves(can)
		}
	}
	can = f.sequencer.moves(can)
	can = f.bus.moves(can)
	if len(can) == 0 {
		return false
	}
	can[f.rand.IntN(len(can))]()
	return true
}

// pass lets time pass. Loops have had their turns before, as in a world whose cores keep up; messages between workers may
// lag.
func (f *Fleet) pass(d time.Duration) {
	for until := f.now + d; ; {
		f.keepUp()
		next := min(until, f.now+tickEvery)
		for _, w := range f.slots {
			if w != nil {
				next = min(next, w.due())
			}
		}
		if len(f.agenda) > 0 {
			next = min(next, f.agenda[0].at)
		}
		f.now = max(f.now, next)
		for len(f.agenda) > 0 && f.agenda[0].at <= f.now {
			x := f.agenda[0]
			f.agenda = f.agenda[1:]
			x.f()
		}
		for _, w := range f.slots {
			if w != nil {
				w.look()
			}
		}
		f.sequencer.look()
		if f.now >= until {
			return
		}
	}
}

// tickEvery is the longest step of time.
const tickEvery = 20 * time.Millisecond

// keepUp gives every loop its turns, and the bus most of its.
func (f *Fleet) keepUp() {
	for range 200 {
		moved := false
		for _, w := range f.slots {
			if w == nil {
				continue
			}
			for loop := range w.rung {
				if w.rung[loop] && !w.busy[loop] {
					moved = true
					w.drain(loop)
				}
			}
			if w.link.Waiting() && !f.fault(f.plan.lag) {
				moved = true
				w.link.Round()
			}
			for w.server.Offloaded() {
				moved = true
			}
			if w.wantsNumbers && w.link.Up() && !w.receiving && !f.fault(f.plan.lag) {
				moved = true
				w.submit()
			}
		}
		for _, do := range f.sequencer.moves(nil) {
			if !f.fault(f.plan.lag) {
				moved = true
				do()
			}
		}
		for _, do := range f.bus.moves(nil) {
			if !f.fault(f.plan.lag) {
				moved = true
				do()
			}
		}
		if !moved {
			return
		}
	}
}

// settle moves until nothing can move. Time stands still.
func (f *Fleet) settle() {
	for range 200_000 {
		if !f.move() {
			return
		}
	}
	f.complain("stall", "the world does not come to rest")
}

// calm lets time pass until lost entries must have been repeated.
func (f *Fleet) calm(d time.Duration) {
	for until := f.now + d; f.now < until && len(f.complaints) == 0; {
		f.pass(tickEvery)
		f.settle()
	}
}

// rest brings the world to its end: faults cease, messages arrive, then all clients go.
func (f *Fleet) rest() {
	if len(f.complaints) > 0 {
		return
	}
	f.tracef("coming to rest")
	f.quiet, f.plan.meanwhile = true, 0
	f.bus.mend()
	f.store.away = 0
	for _, k := range f.clients {
		k.frozen, k.slowUntil = false, 0
	}
	f.calm(f.plan.config.HeartbeatTimeout + 6*time.Second)
	if len(f.complaints) == 0 {
		f.truth.converged()
	}
	if len(f.complaints) > 0 {
		return
	}
	for _, k := range f.clients {
		if !k.cut {
			k.hangUp()
		}
	}
	f.calm(f.plan.config.ReconnectionTTL + 2*f.plan.config.HeartbeatTimeout + 5*time.Second)
	f.annals.unused()
	for _, w := range f.slots {
		if w == nil {
			f.complain("stall", "a dead worker was not followed by another")
			continue
		}
		for _, what := range w.server.Leftovers() {
			f.complain("leaks", "worker %d: %s", w.instance, what)
		}
	}
	f.store.leftovers()
	f.created.agreed()
	f.seats.leftovers()
	f.annals.leftovers()
}

// Now is the simulated time; the workers have one clock.
func (f *Fleet) Now() time.Duration { return f.now }

var _ engine.World = (*worker)(nil)
