package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/engine/cluster/bus"
	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/engine/internal/order"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/rooms"
)

// In half of the fleets, rooms have history. A sequencer of its own numbers their messages: the shipped rules, with a stream of
// the shipped kind, in place of the bus process. It dies, and another one of a higher term begins with nothing. Workers learn of
// that from the supervisor, as of each other.

// sequencer is the process that numbers messages.
//
// Owner: the simulation.
type sequencer struct {
	station
	f      *Fleet
	term   uint64
	rules  *order.Sequencer
	ticked time.Duration
}

const (
	// sequencersFrom is the least instance of a sequencer; workers have lower ones.
	sequencersFrom ident.Worker = 1000
	// orderTick is how often a sequencer and its followers look at the clock.
	orderTick = 100 * time.Millisecond
	// unusedTime is longer than a worker follows a room that nobody is in, and the sequencer remembers one that nobody follows.
	unusedTime = 30*time.Second + 25*time.Second
)

// beginSequencer begins a new term.
func (f *Fleet) beginSequencer() {
	f.terms++
	q := &sequencer{f: f, term: f.terms, ticked: f.now}
	q.instance = sequencersFrom + ident.Worker(f.terms)
	q.station.take = q.hear
	ring := f.plan.ringBytes
	if f.plan.soundBus() {
		ring = 1 << 20 // of a smaller one, the batches that leave together push each other out
	}
	q.link = bus.NewLockstep(bus.LinkOptions{Instance: q.instance, RingBytes: ring},
		func(subject string, payload []byte) error { return f.bus.publish(&q.station, subject, payload) },
		bus.Receiver{}, f.clock())
	f.sequencer = q
	f.tracef("sequencer %d begins", q.instance)
	history := func(room string) *rooms.HistoryOptions {
		if o, keeps := f.plan.histories[room]; keeps {
			return (*rooms.HistoryOptions)(&o)
		}
		return nil
	}
	epochs := 0
	q.rules = order.NewSequencer(order.SequencerOptions{Term: q.term, History: history, Linger: f.plan.config.ReconnectionTTL,
		Epoch: func() string { epochs++; return fmt.Sprintf("t%d-%d", q.term, epochs) }, Say: q.say, Tell: q.tell})
	q.link.Flush()
	for _, w := range f.workers {
		if w.dead {
			q.rules.Bury(w.instance)
		}
	}
	q.link.Flush()
	f.tell(nil)
}

// killSequencer ends the sequencer without warning, perhaps with the bus itself.
func (f *Fleet) killSequencer() {
	q := f.sequencer
	if q == nil || q.receiving {
		return
	}
	f.tracef("sequencer %d is killed", q.instance)
	q.dead, f.sequencer = true, nil
	f.bus.bury(&q.station)
	if !f.plan.soundBus() && f.chance(0.5) {
		f.bus.restart()
	}
	f.later(f.span(10*time.Millisecond, pick(f.rand, 300*time.Millisecond, 3*time.Second)), f.beginSequencer)
}

// sequencerBuries tells the sequencer of a worker's death.
func (f *Fleet) sequencerBuries(w *worker) {
	if q := f.sequencer; q != nil {
		q.rules.Bury(w.instance)
		q.link.Flush()
	}
}

// say is of [order.SequencerOptions].
func (q *sequencer) say(entry []byte) {
	if err := q.link.Append(fleet.Append(nil, &fleet.Entry{Kind: fleet.Order, Body: fleet.Body{Payload: entry}})); err != nil {
		q.f.complain("entries", "an entry of the sequencer does not fit: %v", err)
	}
	if q.rules != nil { // else it is just beginning
		q.f.annals.note(q)
	}
}

// tell is of [order.SequencerOptions].
func (q *sequencer) tell(to ident.Worker, piece []byte) {
	if q.link.Up() {
		q.f.bus.publish(&q.station, fmt.Sprintf("r.%d.%d", q.instance, to), piece)
	}
}

// hear takes a batch of a follower.
func (q *sequencer) hear(from ident.Worker, batch []byte) {
	if err := q.rules.Take(from, batch, int64(q.f.now)); err != nil {
		q.f.complain("entries", "the sequencer makes no sense of what %d submits: %v", from, err)
	}
	q.link.Flush()
}

// moves are the next possible steps of a sequencer.
func (q *sequencer) moves(can []func()) []func() {
	if q != nil && q.link.Waiting() {
		can = append(can, q.link.Round)
	}
	return can
}

// look does what is due.
func (q *sequencer) look() {
	if q == nil || q.receiving {
		return
	}
	if !q.link.Due().After(q.f.clock()) {
		q.link.Tick(q.f.clock())
	}
	if q.f.now >= q.ticked+orderTick {
		q.ticked = q.f.now
		q.rules.Tick(int64(q.f.now))
	}
}

// talkers are the members of the bus that a new worker must hear.
func (o *directive) talkers() []ident.Worker {
	if o.sequencer == 0 {
		return o.ready
	}
	return append(slices.Clone(o.ready), o.sequencer)
}

// bell is what the worker's side of the order calls when there is a batch for the sequencer; nil where no room has history.
func (w *worker) bell() func() {
	if !w.f.plan.historic {
		return nil
	}
	w.station.take = w.hearPiece
	return func() { w.wantsNumbers = true }
}

// submit sends the sequencer what waits.
func (w *worker) submit() {
	w.wantsNumbers = false
	for {
		batch := w.server.Server.Worker().Rooms.Order.Outgoing(nil)
		if len(batch) == 0 {
			return
		}
		w.f.bus.publish(&w.station, fmt.Sprintf("o.%d", w.instance), batch)
	}
}

// hearPiece takes the sequencer's answer to a read.
func (w *worker) hearPiece(_ ident.Worker, piece []byte) {
	if err := w.server.Server.Worker().Rooms.Order.HearPiece(piece); err != nil {
		w.f.complain("entries", "worker %d makes no sense of the sequencer's answer: %v", w.instance, err)
	}
}

// orderedBy tells a worker which sequencer there is. The stream of an earlier one ends.
func (w *worker) orderedBy(q ident.Worker) {
	if q == 0 || q == w.sequencer {
		return
	}
	if w.sequencer != 0 {
		w.link.Forget(w.sequencer, w.f.clock())
	}
	w.sequencer = q
}

// askOrder repeats what the sequencer has not answered.
func (w *worker) askOrder() {
	if !w.f.plan.historic || !w.serving || w.receiving || w.f.now < w.orderTicked+orderTick {
		return
	}
	w.orderTicked, w.receiving = w.f.now, true
	w.server.Server.Worker().Rooms.Order.Tick()
	w.receiving = false
}

// takes is how many bytes the client's wire takes.
func (k *fleetClient) takes() int {
	if !k.slow() {
		return 1 << 20
	}
	return max(k.f.plan.wire-len(k.down), 0)
}

// slow reports whether the client reads nothing for the moment.
func (k *fleetClient) slow() bool { return k.slowUntil > k.f.now }

// writable tells the server that a wire takes bytes again.
func (k *fleetClient) writable() {
	k.watched = false
	k.w.server.Writable(k.conn)
}

// drawHistories gives some rooms a history.
func (p *fleetPlan) drawHistories(r *rand.Rand) {
	p.historic = true
	p.histories = map[string]engine.HistoryOptions{}
	for i := range p.rooms {
		if i > 0 && r.IntN(3) == 0 {
			continue
		}
		slow := pick(r, 0, 0, 1, 2)
		o := engine.HistoryOptions{Messages: pick(r, 5, 10, 20, 100), Bytes: pick(r, 5000, 100_000), Age: pick(r, 300*time.Millisecond, 3*time.Second, 20*time.Second), Slow: engine.SlowPolicy(slow)}
		p.histories[roomOf(i)] = o
		p.config.History = append(p.config.History, historyEntry(roomOf(i), o))
	}
	p.sequencerDeaths = pick(r, 0, 0.01, 0.05)
	p.slow = pick(r, 0, 0.02, 0.1)
	p.wire = pick(r, 100, 4<<10)
	p.config.BacklogSoftBytes = pick(r, 2<<10, 64<<10)
	p.config.BacklogHardBytes = 256 << 10
}
