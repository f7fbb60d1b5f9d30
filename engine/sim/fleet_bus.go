package sim

import (
	"bytes"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

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

func newFleetBus(f *Fleet) *fleetBus { return &fleetBus{f: f} }

var errSevered = errors.New("the bus is not reached")

// publish puts a message on its way to all receivers that reach the bus.
func (b *fleetBus) publish(from *worker, subject string, payload []byte) error {
	if !from.link.Up() {
		return errSevered
	}
	to := subject[strings.LastIndexByte(subject, '.')+1:]
	for _, w := range b.f.slots {
		if w == nil || w == from || !w.link.Up() || subject[0] != 'p' && to != "0" && to != strconv.Itoa(int(w.instance)) {
			continue
		}
		if b.f.fault(b.f.plan.losses) {
			b.trouble("a message of worker %d to %d is lost: %s", from.instance, w.instance, subject)
			continue
		}
		l := b.lane(from.instance, w.instance, subject[0])
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
		w := b.f.workers[l.to-1]
		if len(l.mail) > 0 && !w.dead && !w.receiving {
			can = append(can, func() { b.deliver(l, w) })
		}
	}
	return can
}

func (b *fleetBus) deliver(l *lane, w *worker) {
	if len(l.mail) == 0 || w.dead || w.receiving {
		return // lost since it was chosen
	}
	x := l.mail[0]
	l.mail = l.mail[1:]
	w.receiving = true
	w.link.Deliver(x.subject, x.payload, b.f.clock())
	w.receiving = false
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
		b.trouble("the bus is restarted")
		for _, l := range b.roads {
			l.mail = nil
		}
		for _, w := range b.f.slots {
			if w != nil {
				b.sever(w)
			}
		}
	case b.f.fault(b.f.plan.severings):
		if w := b.f.slots[b.f.rand.IntN(len(b.f.slots))]; w != nil {
			b.sever(w)
		}
	}
}

// sever cuts a worker off from the bus for a while: messages on their way to it are lost.
func (b *fleetBus) sever(w *worker) {
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

func (b *fleetBus) join(w *worker) {
	if !w.dead && !w.link.Up() {
		b.trouble("worker %d reaches the bus again", w.instance)
		w.link.SetUp(true)
	}
}

// mend lets all workers reach the bus again.
func (b *fleetBus) mend() {
	for _, w := range b.f.slots {
		if w != nil {
			b.join(w)
		}
	}
}

// bury drops the messages on their way to a dead worker. Its own messages still arrive.
func (b *fleetBus) bury(w *worker) {
	b.roads = slices.DeleteFunc(b.roads, func(l *lane) bool { return l.to == w.instance })
}
