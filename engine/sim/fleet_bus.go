package sim

import (
	"bytes"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/parleyd/parley/engine/cluster/bus"
	"github.com/parleyd/parley/protocol/ident"
)

// fleetBus is a simulated bus with the promises of NATS, and no others. The messages of one worker to another under one kind
// of subject keep their order; any others may change places, and any message may be lost. The workers' side is the shipped
// code: see [github.com/parleyd/parley/engine/cluster/bus.Lockstep].
//
// Owner: the simulation.
type fleetBus struct {
	f     *Fleet
	roads []*lane // in the order of their first use
}

// lane has the messages on their way from one worker to another under one kind of subject.
//
// Owner: the simulation.
type lane struct {
	from, to ident.Worker
	kind     byte
	mail     []parcel
}

type parcel struct {
	subject string
	payload []byte
}

// station is a member of the bus: a worker, or the sequencer.
//
// Owner: the simulation.
type station struct {
	instance  ident.Worker
	link      *bus.Lockstep
	receiving bool
	dead      bool
	take      func(from ident.Worker, payload []byte) // of what is in no stream
}

// stations are the live members of the bus.
func (b *fleetBus) stations() (list []*station) {
	for _, w := range b.f.slots {
		if w != nil {
			list = append(list, &w.station)
		}
	}
	if b.f.sequencer != nil {
		list = append(list, &b.f.sequencer.station)
	}
	return list
}

// at is the live member with an instance; nil for none.
func (b *fleetBus) at(instance ident.Worker) *station {
	switch w := b.f.of(instance); {
	case w != nil && !w.dead:
		return &w.station
	case b.f.sequencer != nil && b.f.sequencer.instance == instance:
		return &b.f.sequencer.station
	}
	return nil
}

// gets reports whether a member has subscribed to a subject.
func (x *station) gets(subject string) bool {
	to := subject[strings.LastIndexByte(subject, '.')+1:]
	switch subject[0] {
	case 'p':
		return x.instance < sequencersFrom
	case 'o':
		return x.instance >= sequencersFrom
	}
	return to == "0" || to == strconv.Itoa(int(x.instance))
}

func newFleetBus(f *Fleet) *fleetBus { return &fleetBus{f: f} }

var errSevered = errors.New("the bus is not reached")

// publish puts a message on its way to all receivers that reach the bus.
func (b *fleetBus) publish(from *station, subject string, payload []byte) error {
	if !from.link.Up() {
		return errSevered
	}
	for _, x := range b.stations() {
		if x == from || !x.link.Up() || !x.gets(subject) {
			continue
		}
		if b.f.fault(b.f.plan.losses) {
			b.trouble("a message of worker %d to %d is lost: %s", from.instance, x.instance, subject)
			continue
		}
		l := b.lane(from.instance, x.instance, subject[0])
		l.mail = append(l.mail, parcel{subject, bytes.Clone(payload)})
		if b.f.fault(b.f.plan.doubles) {
			l.mail = append(l.mail, l.mail[len(l.mail)-1])
		}
	}
	return nil
}

func (b *fleetBus) lane(from, to ident.Worker, kind byte) *lane {
	for _, l := range b.roads {
		if l.from == from && l.to == to && l.kind == kind {
			return l
		}
	}
	l := &lane{from: from, to: to, kind: kind}
	b.roads = append(b.roads, l)
	return l
}

// trouble notes a fault between workers.
func (b *fleetBus) trouble(format string, args ...any) {
	b.f.trouble = b.f.now
	b.f.tracef(format, args...)
}

// moves are the messages that can arrive.
func (b *fleetBus) moves(can []func()) []func() {
	for _, l := range b.roads {
		if x := b.at(l.to); len(l.mail) > 0 && x != nil && !x.receiving {
			can = append(can, func() { b.deliver(l, x) })
		}
	}
	return can
}

func (b *fleetBus) deliver(l *lane, to *station) {
	if len(l.mail) == 0 || to.dead || to.receiving {
		return // lost since it was chosen
	}
	x := l.mail[0]
	l.mail = l.mail[1:]
	to.receiving = true
	if l.kind == 'o' || l.kind == 'r' {
		to.take(l.from, x.payload)
	} else {
		to.link.Deliver(x.subject, x.payload, b.f.clock())
	}
	to.receiving = false
}

// clock is the simulated time as a time of day.
func (f *Fleet) clock() time.Time { return time.Unix(1_000_000_000, int64(f.now)) }

// suffer takes the bus away, for one worker or for all.
func (b *fleetBus) suffer() {
	switch {
	case b.f.fault(b.f.plan.storeAway):
		b.trouble("the stores are away")
		b.f.store.away = b.f.now + b.f.span(10*time.Millisecond, pick(b.f.rand, 300*time.Millisecond, 3*time.Second))
	case b.f.fault(b.f.plan.storeLosses):
		b.f.lose()
	case b.f.fault(b.f.plan.restarts):
		b.restart()
	case b.f.fault(b.f.plan.severings):
		n := len(b.f.slots)
		if b.f.sequencer != nil {
			n++
		}
		if i := b.f.rand.IntN(n); i == len(b.f.slots) {
			b.sever(&b.f.sequencer.station)
		} else if w := b.f.slots[i]; w != nil {
			b.sever(&w.station)
		}
	}
}

// restart takes the bus away for all. What was on its way is lost.
func (b *fleetBus) restart() {
	b.trouble("the bus is restarted")
	for _, l := range b.roads {
		l.mail = nil
	}
	for _, x := range b.stations() {
		b.sever(x)
	}
}

// sever cuts a member off from the bus for a while: messages on their way to it are lost.
func (b *fleetBus) sever(w *station) {
	if !w.link.Up() {
		return
	}
	b.trouble("worker %d does not reach the bus", w.instance)
	w.link.SetUp(false)
	for _, l := range b.roads {
		if l.to == w.instance {
			l.mail = nil
		}
	}
	b.f.later(b.f.span(10*time.Millisecond, pick(b.f.rand, 300*time.Millisecond, 3*time.Second)), func() { b.join(w) })
}

func (b *fleetBus) join(w *station) {
	if !w.dead && !w.link.Up() {
		b.trouble("worker %d reaches the bus again", w.instance)
		w.link.SetUp(true)
	}
}

// mend lets all workers reach the bus again.
func (b *fleetBus) mend() {
	for _, x := range b.stations() {
		b.join(x)
	}
}

// bury drops the messages on their way to a dead member. Its own messages still arrive.
func (b *fleetBus) bury(w *station) {
	b.roads = slices.DeleteFunc(b.roads, func(l *lane) bool { return l.to == w.instance })
}
