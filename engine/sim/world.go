package sim

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"time"

	"github.com/parleyd/parley/engine"
)

// World is a simulated world of one server.
//
// Owner: the goroutine of [Run].
type World struct {
	seed   uint64
	rand   *rand.Rand
	plan   plan
	server *engine.Lockstep
	truth  *truth
	now    time.Duration

	people  []*person
	clients []*client // one for each connection of the run
	sockets []*socket
	rung    []bool // by loop
	busy    []bool // by loop: in a turn
	message int    // the latest number

	trace      []string
	complaints []Complaint
}

// Complaint is a fault that a checker has found.
type Complaint struct {
	Checker string // delivery, order, gap, answers, notices, sessions, limits, heartbeat, stream, stall, leaks, crash ...
	Text    string
}

// Report is the result of a run.
//
// Owner: the caller.
type Report struct {
	Complaints []Complaint
	Trace      []string // the events of the run, the latest last
	Digest     uint64   // of the trace: two runs of one seed have the same
	Delivered  int      // messages that were published
	Resumed    int
}

const complaintsMax = 20

// Run plays a world of a seed for a number of steps, and then lets it come to rest.
func Run(seed uint64, steps int) *Report {
	w := &World{seed: seed, rand: rand.New(rand.NewPCG(seed, 0x9a71e7))}
	w.plan = drawPlan(w.rand, steps)
	w.rung = make([]bool, w.plan.config.Loops)
	w.busy = make([]bool, w.plan.config.Loops)
	w.truth = newTruth(w)
	server, err := engine.NewLockstep(w.plan.config, w, engine.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		return &Report{Complaints: []Complaint{{"plan", err.Error()}}}
	}
	w.server = server
	w.serveApplication()
	w.truth.listen(server.Server.Emitter())
	for i := range w.plan.clients {
		w.people = append(w.people, &person{name: string(rune('a' + i))})
	}
	w.live(steps)
	return w.report()
}

// live plays the steps and the end. A server that panics is a complaint, so that its seed is known.
func (w *World) live(steps int) {
	defer func() {
		if v := recover(); v != nil {
			w.complain("crash", "%v\n%s", v, debug.Stack())
		}
	}()
	for i := 0; i < steps && len(w.complaints) == 0; i++ {
		w.step()
	}
	w.rest()
}

func (w *World) report() *Report {
	h := fnv.New64a()
	for _, line := range w.trace {
		h.Write([]byte(line))
	}
	return &Report{w.complaints, w.trace, h.Sum64(), w.message, int(w.server.Server.Stats().Resumed)}
}

func (w *World) complain(checker, format string, args ...any) {
	if len(w.complaints) < complaintsMax {
		c := Complaint{checker, fmt.Sprintf(format, args...)}
		w.complaints = append(w.complaints, c)
		w.tracef("COMPLAINT %s: %s", c.Checker, c.Text)
	}
}

func (w *World) tracef(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf("%v ", w.now)+fmt.Sprintf(format, args...))
}

func (w *World) chance(p float64) bool { return p > 0 && w.rand.Float64() < p }

// Now is the simulated time.
func (w *World) Now() time.Duration { return w.now }

// Entropy fills b from the seed.
func (w *World) Entropy(b []byte) {
	for i := range b {
		b[i] = byte(w.rand.Uint32())
	}
}

// Ring notes that a loop wants a turn.
func (w *World) Ring(loop int) { w.rung[loop] = true }

func (w *World) clientOf(c *engine.Conn) *client {
	for _, k := range w.clients {
		if k.wire.conn == c {
			return k
		}
	}
	panic("a connection of nobody")
}

// step makes one thing happen.
func (w *World) step() {
	switch n := w.rand.IntN(100); {
	case n < 30:
		p := w.people[w.rand.IntN(len(w.people))]
		w.act(p)
	case n < 85:
		w.move()
	case n < 88:
		w.pass(time.Duration(w.rand.Int64N(int64(40 * time.Millisecond))))
	case n < 91:
		w.server.Offloaded()
	case n < 92 && w.plan.historic:
		w.truth.histories()
	case w.chance(w.plan.stalls):
		w.stall()
	case w.chance(w.plan.application):
		w.applicationActs()
	}
}

// meanwhile lets other loops have a turn in the middle of one, as they do on other cores.
func (w *World) meanwhile() {
	for w.chance(w.plan.meanwhile) {
		if !w.move() {
			return
		}
	}
}

// move lets bytes, letters or ends of streams make progress, for a loop that is not in a turn, and reports whether any
// could.
func (w *World) move() bool {
	var can []func()
	for _, s := range w.sockets {
		if f := w.nextFor(s); f != nil {
			can = append(can, f)
		}
	}
	for loop := range w.rung {
		if w.rung[loop] && !w.busy[loop] {
			can = append(can, func() { w.drain(loop) })
		}
	}
	if len(can) == 0 {
		return false
	}
	can[w.rand.IntN(len(can))]()
	return true
}

// nextFor is the next event of a wire; nil for none.
func (w *World) nextFor(s *socket) func() {
	k := s.client
	var can []func()
	if len(s.down) > 0 && !k.frozen && !s.cut {
		can = append(can, func() { w.clientReads(s) })
	}
	if !w.busy[k.loop] && !s.departed {
		switch {
		case s.dropped, s.cut && len(s.up) == 0, s.upEnd && len(s.up) == 0:
			can = append(can, func() { w.turn(k.loop, func() { w.depart(s) }) })
		case len(s.up) > 0:
			can = append(can, func() { w.serve(s) })
		}
		if s.takes() {
			can = append(can, func() {
				s.watched = false
				w.server.Writable(s.conn)
			})
		}
	}
	if (s.downEnd || s.dropped) && len(s.down) == 0 && !k.frozen && !s.upEnd {
		can = append(can, func() {
			s.upEnd = true
			if k.person.now == k {
				k.person.now = nil
			}
		})
	}
	if len(can) == 0 {
		return nil
	}
	return can[w.rand.IntN(len(can))]
}

func (w *World) clientReads(s *socket) {
	n := len(s.down)
	if w.chance(0.3) {
		n = 1 + w.rand.IntN(n)
	}
	chunk := slices.Clone(s.down[:n])
	s.down = s.down[n:]
	s.client.hear(chunk)
}

// turn runs something on a loop, which takes no other turn meanwhile.
func (w *World) turn(loop int, f func()) {
	w.busy[loop] = true
	f()
	w.busy[loop] = false
	w.truth.turnEnded(loop)
}

func (w *World) serve(s *socket) {
	n := len(s.up)
	if w.chance(0.4) {
		n = 1 + w.rand.IntN(n)
	}
	chunk := slices.Clone(s.up[:n])
	s.up = s.up[n:]
	s.client.heardAt = w.now
	if c := s.client.truth; c != nil {
		c.heardAt = w.now
	}
	w.turn(s.client.loop, func() {
		w.server.Serve(s.conn, chunk)
		if w.server.Ended(s.conn) {
			s.departed, s.dropped = true, true
		}
	})
}

func (w *World) drain(loop int) {
	w.rung[loop] = false
	w.turn(loop, func() { w.server.Drain(loop) })
	for _, s := range w.sockets {
		if s.client.loop != loop || s.departed || w.rung[loop] {
			continue
		}
		limit := w.plan.config.BacklogHardBytes
		if n := w.server.Waiting(s.conn); n > limit && s.conn.Cause() == engine.CauseNone {
			w.complain("limits", "%s has a backlog of %d bytes, %d are allowed", s.client.name, n, limit)
		}
	}
}

// pass lets time pass, a tick at a time. The loops have had their turns before, as in a world whose cores keep up.
func (w *World) pass(d time.Duration) {
	for d > 0 {
		for i := 0; i < 1000 && slices.Contains(w.rung, true); i++ {
			for loop := range w.rung {
				if w.rung[loop] {
					w.drain(loop)
				}
			}
		}
		w.now += min(d, w.server.TickEvery())
		d -= w.server.TickEvery()
		w.server.Tick()
	}
	for _, c := range w.truth.conns {
		silence := w.now - c.heardAt
		if !c.ended && silence > w.plan.config.HeartbeatTimeout+time.Second {
			w.complain("heartbeat", "%s lives on after a silence of %v", c.id, silence)
		}
	}
}

// stall stops the server for longer than clients may be silent. Bytes that they send meanwhile wait.
func (w *World) stall() {
	d := 6*w.server.TickEvery() + time.Duration(w.rand.Int64N(int64(2*w.plan.config.HeartbeatTimeout)))
	w.tracef("the server stalls for %v", d)
	w.now += d
	for _, k := range w.clients {
		k.heardAt += d - w.server.TickEvery()
		if k.truth != nil {
			k.truth.heardAt += d - w.server.TickEvery()
		}
	}
	w.server.Tick()
}

// endure lets time pass until silence must have been noticed. Clients that are not frozen answer.
func (w *World) endure() {
	for until := w.now + w.plan.config.HeartbeatTimeout + 1100*time.Millisecond; w.now < until; {
		w.pass(w.server.TickEvery())
		w.settle()
	}
}

// rest brings the world to its end: no client acts any more, messages arrive, then all clients go.
func (w *World) rest() {
	if len(w.complaints) > 0 {
		return
	}
	w.tracef("coming to rest")
	w.plan.shortWrites, w.plan.meanwhile = 0, 0
	w.settle()
	w.everybodyHasAll()
	w.endure()
	w.allWasTaken()
	for _, k := range w.clients {
		k.frozen = false
	}
	w.settle()
	w.everybodyHasAll()
	if w.chance(0.3) {
		w.leave()
	}
	for _, s := range w.sockets {
		s.cut, s.torn, s.up = true, s.torn || len(s.up) > 0, nil
	}
	w.settle()
	for until := w.now + w.plan.config.ReconnectionTTL + 2*w.plan.config.HeartbeatTimeout + 5*time.Second; w.now < until; {
		w.pass(w.server.TickEvery())
		w.settle()
	}
	w.allWasTaken()
	for _, what := range w.server.Leftovers() {
		w.complain("leaks", "%s", what)
	}
}

// leave ends all connections, new ones and talking ones too.
func (w *World) leave() {
	for _, p := range w.people {
		if p.now == nil {
			w.dial(p)
		}
	}
	for range w.rand.IntN(20) {
		w.move()
	}
	if w.chance(0.5) {
		w.server.DrainOver(time.Duration(w.rand.IntN(2000))*time.Millisecond, func() {})
		for range w.rand.IntN(100) {
			w.move()
		}
	}
	w.server.SendAway()
	for range w.rand.IntN(100) {
		if k := w.clients[w.rand.IntN(len(w.clients))]; (k.head || k.refused) && k.hurried && !k.wire.cut {
			w.pester(k)
		}
		w.move()
	}
	w.settle()
}

// heirsWait is the longest time that a claimant of a session waits until the messages of its connection are carried out.
const heirsWait = 500 * time.Millisecond

// allWasTaken checks that messages that clients sent before they hung up were carried out.
func (w *World) allWasTaken() {
	for _, k := range w.clients {
		c := k.truth
		if c == nil || k.wire.torn || !c.ended {
			continue
		}
		switch cause := c.conn.Cause(); cause {
		case engine.CausePeerClosed, engine.CausePeerGone, engine.CauseProtocol, engine.CauseUnsupported:
		default:
			continue
		}
		if c.endedAt-k.goneAt >= w.plan.config.OffloadTimeout || c.claimedAt != 0 && c.endedAt-c.claimedAt >= heirsWait {
			continue
		}
		for _, q := range k.asked {
			if q.must && !q.taken {
				w.complain("lost", "%s sent %v before its stream ended (%v), and nothing came of it", c.id, q, c.conn.Cause())
			}
		}
	}
}

// everybodyHasAll checks the clients' reading when nothing can move any more.
func (w *World) everybodyHasAll() {
	for _, k := range w.clients {
		if c := k.truth; c != nil && !c.ended && !k.frozen && !k.wire.cut && k.goneAt == 0 { // one whose wire is gone carries out its last messages
			w.truth.settled(c)
		}
	}
	w.truth.histories()
}

// settle moves until nothing can move. Time stands still: progress that needs a clock is a stall.
func (w *World) settle() {
	for range 200_000 {
		if !w.move() && !w.server.Offloaded() {
			return
		}
	}
	w.complain("stall", "the world does not come to rest")
}

func (w *World) seatsUnderWay() (n int) {
	for _, c := range w.truth.conns {
		n += len(c.holds) + len(c.handedOver)
	}
	return n
}

// decode reads a message of the simulation's own.
func decode(raw []byte) (b *body) {
	b = &body{}
	json.Unmarshal(raw, b)
	return b
}

// number makes a new message of a publisher.
func (w *World) number() int {
	w.message++
	return w.message
}
