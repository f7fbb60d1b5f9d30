package sim

import (
	"context"
	"iter"
	"log/slog"
	"slices"
	"time"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/engine/cluster/bus"
	workers "github.com/parleyd/parley/engine/internal/membership"
	"github.com/parleyd/parley/protocol/ident"
)

// worker is one of the servers of a [Fleet], from its start to its end: the shipped code, in place of a process. The
// supervisor's messages are orders, as package cluster passes them to the engine.
//
// Owner: the simulation.
type worker struct {
	station
	f        *Fleet
	slot     int
	server   *engine.Lockstep
	shelves  *shelves
	book     []func() // its calls for seats and created rooms
	learned  int      // changes of created rooms that it knows
	rooms    map[string]createdRoom
	rung     []bool // by loop
	busy     []bool // by loop: in a turn
	turns    []int  // by loop: the number of the latest one
	serving  bool   // it takes connections
	draining bool
	leaves   time.Duration // when it began to wait for its end
	kept     bool          // when it ended, the stores had all of it
	left     bool          // when it ended, the bus had all of it
	ticked   time.Duration
	welcome  directive
	orders   []directive
	peers    []ident.Worker // the workers that it knows of
	deaths   map[ident.Worker]time.Duration
	died     time.Duration
	servedAt time.Duration
	heard    map[string]*hearing // by connection
	began    time.Duration

	wantsNumbers bool          // it has a batch for the sequencer
	orderTicked  time.Duration // when its side of the order had its latest tick
	sequencer    ident.Worker  // that it knows
}

// directive is a message of the supervisor to a worker.
//
// Owner: immutable.
type directive struct {
	peers, ready []ident.Worker
	dead         []ident.Worker
	sequencer    ident.Worker // 0: none, or it is not known
}

// spawn starts a worker in a slot.
func (f *Fleet) spawn(slot int) {
	w := &worker{f: f, slot: slot, station: station{instance: ident.Worker(len(f.workers) + 1)}, began: f.now, ticked: f.now}
	w.rung, w.busy = make([]bool, f.plan.config.Loops), make([]bool, f.plan.config.Loops)
	w.turns = make([]int, f.plan.config.Loops)
	server, err := engine.NewLockstep(f.plan.config, w, engine.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		f.complain("plan", "%v", err)
		return
	}
	w.server = server
	f.tracef("worker %d begins", w.instance)
	f.workers = append(f.workers, w)
	f.slots[slot] = w
	w.welcome = f.order()
	for _, other := range f.workers {
		if other.dead {
			w.welcome.dead = append(w.welcome.dead, other.instance)
		}
	}
	w.rooms = map[string]createdRoom{}
	w.deaths = map[ident.Worker]time.Duration{}
	server.Attach(workers.Membership{Instance: w.instance, Bus: w, Seats: seatsOf{w}, Rooms: roomsOf{w}, Order: w.bell()})
	w.shelves = newShelves(w)
	f.store.marks[w] = f.store.turn
	server.Server.Worker().Sessions.KeepSessions(w.shelves)
	w.link = bus.NewLockstep(bus.LinkOptions{Instance: w.instance, Peers: w.welcome.talkers(), RingBytes: f.plan.ringBytes},
		func(subject string, payload []byte) error { return f.bus.publish(&w.station, subject, payload) },
		bus.Receiver{Batch: w.batch, Lost: w.lost, Gone: server.Server.Worker().Gone}, f.clock())
	f.truth.listen(w)
	f.truth.wish(w)
	w.serveApplication()
	if f.plan.auth {
		w.serveGrants()
	}
	f.later(5*time.Second, func() { w.link.GiveUp() })
	f.tell(nil)
}

// order is the supervisor's present message.
func (f *Fleet) order() (o directive) {
	for _, w := range f.workers {
		if w.dead {
			continue
		}
		o.peers = append(o.peers, w.instance)
		if w.serving {
			o.ready = append(o.ready, w.instance)
		}
	}
	if f.sequencer != nil {
		o.sequencer = f.sequencer.instance
	}
	return o
}

// tell sends all workers the supervisor's lists of live and dead workers.
func (f *Fleet) tell(dead []ident.Worker) {
	for _, w := range f.slots {
		if w != nil {
			o := f.order()
			o.dead = dead
			w.orders = append(w.orders, o)
		}
	}
}

// moves are the next possible steps of a worker.
func (w *worker) moves(can []func()) []func() {
	for loop := range w.rung {
		if w.rung[loop] && !w.busy[loop] {
			can = append(can, func() { w.drain(loop) })
		}
	}
	if w.link.Waiting() {
		can = append(can, w.link.Round)
	}
	switch {
	case !w.serving && w.link.Settled():
		can = append(can, w.serve)
	case w.serving && len(w.orders) > 0:
		can = append(can, w.obey)
	}
	if w.serving && w.reached() && w.shelves.turn == w.f.store.turn && w.learned < len(w.f.created.changes) {
		can = append(can, w.learn)
	}
	if w.wantsNumbers && w.link.Up() && !w.receiving {
		can = append(can, w.submit)
	}
	if w.server.OffloadWaits() {
		can = append(can, func() { w.server.Offloaded() })
	}
	return can
}

// serve runs when the worker knows the others: it begins to take connections.
func (w *worker) serve() {
	s := w.server.Server
	for _, dead := range w.welcome.dead {
		w.bury(dead)
	}
	w.peers = w.welcome.peers
	w.f.created.read(w)
	s.Worker().Link.Peers(w.peers)
	s.Worker().Link.Serving(w.welcome.ready)
	w.orderedBy(w.welcome.sequencer)
	w.server.Meet()
	w.serving, w.servedAt = true, w.f.now
	w.f.tracef("worker %d serves", w.instance)
	w.f.tell(nil)
}

// obey carries out the supervisor's first order.
func (w *worker) obey() {
	o := w.orders[0]
	w.orders = w.orders[1:]
	w.peers = o.peers
	w.server.Server.Worker().Link.Peers(w.peers)
	w.server.Server.Worker().Link.Serving(o.ready)
	w.orderedBy(o.sequencer)
	for _, dead := range o.dead {
		w.bury(dead)
	}
}

// bury removes a dead worker from this one's knowledge.
func (w *worker) bury(dead ident.Worker) {
	w.link.Forget(dead, w.f.clock())
	w.deaths[dead] = w.f.of(dead).died
	w.f.seats.reap(w.f.of(dead))
}

// killOne ends a worker without warning.
func (f *Fleet) killOne() {
	w := f.slots[f.rand.IntN(len(f.slots))]
	if w == nil || !w.serving || slices.Contains(w.busy, true) || w.receiving {
		return
	}
	f.tracef("worker %d is killed", w.instance)
	f.end(w)
}

// end is the end of a worker's process.
func (f *Fleet) end(w *worker) {
	w.died = f.now
	w.dead, f.slots[w.slot] = true, nil
	f.bus.bury(&w.station)
	for _, k := range f.clients {
		if k.w == w && !(w.kept && k.departed) {
			k.bereave()
		}
	}
	f.truth.died(w)
	f.later(f.span(0, 50*time.Millisecond), func() { f.tell([]ident.Worker{w.instance}) })
	f.later(f.span(50*time.Millisecond, time.Second), func() { f.spawn(w.slot) })
	if f.plan.historic {
		f.later(f.span(0, 50*time.Millisecond), func() { f.sequencerBuries(w) })
	}
}

// batch gives the entries of another worker to the server, as package cluster does.
func (w *worker) batch(from ident.Worker, entries iter.Seq[[]byte]) {
	for entry := range entries {
		if err := w.server.Server.Worker().Receive(from, entry); err != nil {
			w.f.complain("entries", "worker %d makes no sense of what %d says: %v", w.instance, from, err)
		}
	}
}

func (w *worker) lost(from ident.Worker, first, last uint64) {
	w.f.tracef("worker %d has lost %d to %d of worker %d", w.instance, first, last, from)
	if from < sequencersFrom {
		w.f.trouble = w.f.now
		w.f.truth.missed(w, from)
	}
	w.server.Server.Worker().Missed(from)
}

// due is the earliest time that the worker's loops or its link wait for.
func (w *worker) due() time.Duration {
	at := w.ticked + w.server.TickEvery()
	if alarm, ok := w.server.Alarm(); ok {
		at = min(at, alarm)
	}
	return max(w.f.now, min(at, w.link.Due().Sub(time.Unix(1_000_000_000, 0))))
}

// look does what is due.
func (w *worker) look() {
	if !w.link.Due().After(w.f.clock()) && !w.receiving {
		w.receiving = true
		w.link.Tick(w.f.clock())
		w.receiving = false
	}
	w.askOrder()
	alarm, ok := w.server.Alarm()
	if w.f.now >= w.ticked+w.server.TickEvery() || ok && alarm <= w.f.now {
		w.ticked = w.f.now
		w.server.Tick()
	}
}

func (w *worker) turn(loop int, do func()) {
	w.f.turns++
	w.turns[loop], w.busy[loop] = w.f.turns, true
	do()
	w.busy[loop] = false
	w.f.truth.turnEnded(w, loop)
}

func (w *worker) drain(loop int) {
	if !w.busy[loop] {
		w.rung[loop] = false
		w.turn(loop, func() { w.server.Drain(loop) })
	}
}

// Append is of [fleet.Bus], as Flush and Up.
func (w *worker) Append(entry []byte) error { return w.link.Append(entry) }

// Flush sends the appended entries.
func (w *worker) Flush() { w.link.Flush() }

// Up reports whether the bus is reached.
func (w *worker) Up() bool { return w.link.Up() }

// Confirm is of fleet.Bus. A simulated worker calls it never: it would wait.
func (w *worker) Confirm(context.Context) error { return nil }

// Now is the made-up time; the workers have one clock.
func (w *worker) Now() time.Duration { return w.f.now }

// Entropy fills b from the seed.
func (w *worker) Entropy(b []byte) {
	for i := range b {
		b[i] = byte(w.f.rand.Uint32())
	}
}

// Write takes all of p, or what fits.
func (w *worker) Write(wire int, p []byte) (n int, alive bool) {
	k := w.f.clients[wire]
	switch {
	case k.dropped || k.departed || k.downEnd:
		w.f.complain("stream", "%d bytes are written to wire %d after its end", len(p), wire)
		return 0, false
	case k.cut:
		return 0, false
	}
	n = min(len(p), k.takes())
	k.down = append(k.down, p[:n]...)
	w.f.meanwhile()
	return n, true
}

// Shutdown ends the server's half.
func (w *worker) Shutdown(wire int) { w.f.clients[wire].downEnd = true }

// Drop closes the wire, in a later step.
func (w *worker) Drop(wire int) { w.f.clients[wire].dropped = true }

// Watch makes the world tell the server when the wire takes bytes again.
func (w *worker) Watch(wire int) { w.f.clients[wire].watched = true }

// Ring notes that a loop wants a turn.
func (w *worker) Ring(loop int) { w.rung[loop] = true }

// knows reports whether the worker has been told of another.
func (w *worker) knows(other *worker) bool { return slices.Contains(w.peers, other.instance) }
