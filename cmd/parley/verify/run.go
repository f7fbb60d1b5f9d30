package verify

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"syscall"
	"time"

	"github.com/parleyd/parley/cmd/parley/verify/caller"
	"github.com/parleyd/parley/cmd/parley/verify/history"
	"github.com/parleyd/parley/engine/canary"
)

// ErrUsage wraps a mistake in the options.
var ErrUsage = errors.New("wrong usage")

// ErrUnreachable wraps the reason for which a run could not begin, such as a server that does not answer.
var ErrUnreachable = errors.New("cannot run")

// checker is one run.
//
// Owner: the goroutine that called Run.
type checker struct {
	opt    *Options
	speaks *dialect
	poll   *poller
	report *Report
	rng    *rand.Rand
	run    string // tells this run's rooms and messages from those of other runs
	at     target
	hello  []byte    // the opening handshake of clients without a token
	api    *backends // nil: the API is not used

	now, started time.Time
	granted      time.Duration // by the machine, so far (package canary): the server's deadlines count in it
	slowest      float64       // the canary's largest factor
	due          int           // checks for which the end of the run waits
	evt          uint64        // the latest place in the order of events

	actors   []*actor
	rooms    []*room
	weights  []float64 // of the rooms, summed up
	byName   map[string]*room
	byFD     map[int]*conn
	bySerial map[int]*conn
	byID     map[string]*conn
	living   map[*conn]bool
	serial   int
	tokens   map[string]*session
	used     []*session

	book       *history.Book // nil: the rooms have no history
	holes      map[hole]*stay
	counts     []*count
	suspicions []suspicion
	timers     timers
	pause      quietPoint
	settled    time.Time // the latest quiet point
	points     int

	bulky bool // messages published now are large

	calm bool // clients do not act
	over bool // clients do not come back
	lag  time.Duration
	lags []lateness // of the checker itself, the latest last

	server     *server       // that was spawned; nil: none
	shaken     time.Time     // the latest kill, wipe or freeze, or the end of it
	restUntil  time.Duration // granted: until then the disturbance excuses faults
	killed     time.Time
	cuts       bool      // the latest disturbance may cut connections
	wiping     *wipe     // under way; nil: none
	wiped      time.Time // the end of the latest wipe
	beforeKill uint64    // the order of events, a second before the latest kill
	seconds    []uint64  // the order of events, second by second

	owing   float64 // acts that are due
	bytes   int64
	buffer  []byte
	framed  []byte
	payload []byte
	body    body
	fatal   error
}

// Run checks the server and reports. An error wraps [ErrUsage] or [ErrUnreachable], or is a failure of the checker
// itself; the server's faults are in the report.
func Run(ctx context.Context, o Options) (*Report, error) {
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUsage, err)
	}
	if o.Seed == 0 {
		o.Seed = rand.Uint64N(1<<32-1) + 1
	}
	at, err := parseTarget(o.URL)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUsage, err)
	}
	k := newChecker(&o, at)
	var api *caller.Target
	if o.API != "" {
		dir, err := os.MkdirTemp("", "parley-verify-")
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
		}
		defer os.RemoveAll(dir)
		if api, err = caller.Find(caller.Sources{URL: o.API, KeyFile: o.APIKeyFile, SecretFile: o.SecretFile, Spawned: o.Spawn != "", Dir: dir}); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUsage, err)
		}
	}
	if k.poll, err = newPoller(at.addr); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	defer k.poll.shut()
	if o.Spawn != "" {
		if k.server, err = spawn(ctx, &o, at, api); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
		}
		defer k.server.stop()
	}
	if err := reachable(at); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	if api != nil {
		if api.Secret != nil {
			k.grant(api.Secret)
		}
		k.startBackends(ctx, api)
		defer k.api.stop()
	}
	k.begin()
	err = k.loop(ctx)
	k.finishAll()
	return k.report, err
}

func newChecker(o *Options, at target) *checker {
	k := &checker{opt: o, speaks: dialects[o.Dialect], report: newReport(o), rng: rand.New(rand.NewPCG(o.Seed, 0)),
		run: fmt.Sprintf("%06x", rand.Uint32N(1<<24)), at: at, hello: at.request(""),
		byName: map[string]*room{}, byFD: map[int]*conn{}, bySerial: map[int]*conn{}, byID: map[string]*conn{},
		living: map[*conn]bool{}, tokens: map[string]*session{}, holes: map[hole]*stay{}, buffer: make([]byte, 64<<10)}
	if o.HistoryMessages > 0 {
		k.book = newBook(k)
	}
	for i := range o.Rooms {
		k.addRoom(fmt.Sprintf("verify-%s-%d", k.run, i), false)
	}
	for i := range o.Clients {
		k.actors = append(k.actors, newActor(k, i))
	}
	return k
}

// addRoom adds a room, which is drawn less often than the earlier ones.
func (k *checker) addRoom(name string, closed bool) {
	r := newRoom(name)
	r.closed = closed
	if k.remembers() {
		r.history = k.book.Room(name)
	}
	k.rooms = append(k.rooms, r)
	k.byName[r.name] = r
	sum := 1 / math.Sqrt(float64(len(k.rooms)))
	if len(k.weights) > 0 {
		sum += k.weights[len(k.weights)-1]
	}
	k.weights = append(k.weights, sum)
}

// drawRoom draws a room: the first ones more often than the last.
func (k *checker) drawRoom(rng *rand.Rand) *room {
	at := rng.Float64() * k.weights[len(k.weights)-1]
	for i, w := range k.weights {
		if at < w {
			return k.rooms[i]
		}
	}
	return k.rooms[0]
}

func (k *checker) roomsEach() int {
	if !k.speaks.members {
		return 1
	}
	return roomsEach
}

// begin lets all actors connect, arrivalsPerSecond, and starts the timers.
func (k *checker) begin() {
	k.now, k.granted = time.Now(), canary.Now()
	k.started, k.settled = k.now, k.now
	for i, a := range k.actors {
		a.comeBack(time.Duration(i) * time.Second / arrivalsPerSecond)
	}
	k.pause.next = k.now.Add(quietEvery)
	k.every(7*time.Second, k.storm)
	k.every(200*time.Millisecond, func() { k.silent(time.Second) })
	k.planKills()
}

const (
	arrivalsPerSecond = 1500
	turnWait          = 5 * time.Millisecond
	actsPerTurn       = 200
)

// loop runs until the time is over and a quiet point has settled all.
func (k *checker) loop(ctx context.Context) error {
	last, shown := k.now, k.now
	for k.fatal == nil {
		list, err := k.poll.wait(turnWait)
		if err != nil {
			return err
		}
		k.now, k.granted = time.Now(), canary.Now()
		k.slowest = max(k.slowest, canary.Factor())
		k.lag = k.now.Sub(last)
		last = k.now
		if k.lag > lagNoted {
			k.lags = append(k.lags, lateness{k.now, k.lag})
		}
		for _, r := range list {
			if c := k.byFD[r.fd]; c != nil {
				c.ready(r)
			}
		}
		if k.api != nil {
			k.api.hear()
		}
		if k.wiping != nil && k.remembers() {
			k.book.Renumbered()
		}
		k.runTimers()
		k.judgeCounts(false)
		k.judgeSuspicions()
		k.stepQuiet()
		k.act()
		shown = k.progress(shown)
		switch {
		case ctx.Err() != nil:
			k.report.Notes = append(k.report.Notes, "the run was interrupted: what was under way is not judged")
			return nil
		case k.opt.StopAtFinding && !k.report.Clean():
			return nil
		case k.now.Sub(k.started) >= k.opt.For && k.due == 0 && k.pause.stage == acting && k.points > 0 && !k.settled.Before(k.started.Add(k.opt.For)):
			return nil
		}
	}
	return k.fatal
}

// lateness is a turn of the checker's own that came late.
type lateness struct {
	at time.Time
	by time.Duration
}

// lagNoted is the least lateness that is recorded.
const lagNoted = 50 * time.Millisecond

// late is the worst lateness of the checker itself within some time: a machine that grants the checker no time grants the
// server none, either.
func (k *checker) late(within time.Duration) (worst time.Duration) {
	for i := len(k.lags) - 1; i >= 0 && k.now.Sub(k.lags[i].at) < within; i-- {
		worst = max(worst, k.lags[i].by)
	}
	return worst
}

// act makes clients perform the acts that are due.
func (k *checker) act() {
	if k.calm {
		k.owing = 0
		return
	}
	if k.now.Sub(k.started) >= k.opt.For {
		k.pause.next = earlier(k.pause.next, k.now)
		return
	}
	k.owing = min(k.owing+k.lag.Seconds()*float64(k.opt.Rate), actsPerTurn)
	for ; k.owing >= 1; k.owing-- {
		if k.api != nil && k.rng.IntN(apiShare) == 0 {
			k.api.act(k.rng)
			continue
		}
		k.actors[k.rng.IntN(len(k.actors))].perform()
	}
}

// apiShare is the number of acts of which one is a backend's.
const apiShare = 8

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// refused handles a connection that failed before it was open.
func (k *checker) refused(c *conn, err error) {
	var conns []*conn
	if c != nil {
		conns = append(conns, c)
		c.finish()
	}
	if !k.disturbed() || errors.Is(err, syscall.ECONNREFUSED) { // the port stays open while workers are killed
		k.found("refused", nil, conns, fmt.Sprintf("a connection does not come about: %v", err))
	}
}

// finishAll ends all connections and completes the report.
func (k *checker) finishAll() {
	k.over = true
	for c := range k.living {
		c.hangUp()
	}
	k.report.Seconds = time.Since(k.started).Seconds()
	if k.slowest > slowNoted {
		k.report.Notes = append(k.report.Notes, fmt.Sprintf("the machine was busy: everything took up to %.1f times as long as on one that idles, "+
			"and so did what the server was given time for (patience %v up to %v)", k.slowest, k.opt.Patience,
			time.Duration(float64(k.opt.Patience)*k.slowest).Round(time.Second)))
	}
}

// slowNoted is the least factor of slowness that the report notes.
const slowNoted = 1.5

// progress shows a line when it is time.
func (k *checker) progress(shown time.Time) time.Time {
	pause := 5 * time.Second
	if k.opt.Terminal {
		pause = time.Second
	}
	if k.opt.Progress == nil || k.now.Sub(shown) < pause {
		return shown
	}
	found := int64(0)
	for _, n := range k.report.Found {
		found += n
	}
	fmt.Fprintf(k.opt.Progress, "%5.0f s  %d connected, %d acts, %d deliveries, %d answers, %d findings\n", k.now.Sub(k.started).Seconds(),
		len(k.living), k.report.Done["publish"]+k.report.Done["join"], k.report.Checked["deliveries"], k.report.Checked["answers"], found)
	return k.now
}

// timer calls f at a time.
type timer struct {
	at time.Time
	f  func()
}

// timers is a heap.
type timers []timer

func (t timers) Len() int           { return len(t) }
func (t timers) Less(i, j int) bool { return t[i].at.Before(t[j].at) }
func (t timers) Swap(i, j int)      { t[i], t[j] = t[j], t[i] }

// Push appends a timer, for container/heap.
func (t *timers) Push(x any) { *t = append(*t, x.(timer)) }

// Pop takes the last one off, for container/heap.
func (t *timers) Pop() any {
	last := (*t)[len(*t)-1]
	*t = (*t)[:len(*t)-1]
	return last
}

// in calls f after a while.
func (k *checker) in(after time.Duration, f func()) {
	heap.Push(&k.timers, timer{k.now.Add(after), f})
}

// within calls f once the machine has granted a time: the server must have kept its promise by then.
func (k *checker) within(grant time.Duration, f func()) {
	until := k.granted + grant
	var look func()
	look = func() {
		if left := until - k.granted; left > 0 {
			k.in(left, look)
			return
		}
		f()
	}
	k.in(grant, look)
}

// every calls f again and again, while clients act.
func (k *checker) every(pause time.Duration, f func()) {
	k.in(pause, func() {
		if !k.calm {
			f()
		}
		k.every(pause, f)
	})
}

func (k *checker) runTimers() {
	for len(k.timers) > 0 && !k.timers[0].at.After(k.now) {
		heap.Pop(&k.timers).(timer).f()
	}
}
