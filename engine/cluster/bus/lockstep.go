package bus

import (
	"bytes"
	"time"

	"github.com/parleyd/parley/protocol/ident"
)

// Lockstep is a link without a connection: its caller carries the messages, gives the time, and calls one method after
// the other. It is for simulations, and runs the code of [Link]. Its methods are for one goroutine.
//
// Owner: the caller.
type Lockstep struct {
	out    *outbox
	sender *sender
	inbox  *inbox
	tickAt time.Time // when the inbox wants its tick; zero: never
	sayAt  time.Time // when an announcement is due
	now    time.Time
	up     bool
	gaveUp bool // waiting for peers
}

// NewLockstep makes a link that publishes with a function, whose payload is borrowed. It uses only Instance, Peers and
// RingBytes of opts; the link is up, and has greeted its peers.
func NewLockstep(opts LinkOptions, publish func(subject string, payload []byte) error, to Receiver, now time.Time) *Lockstep {
	x := &Lockstep{out: newOutbox(opts.RingBytes), inbox: newInbox(to, opts.Peers), now: now, up: true}
	x.sender = newSender(wire{publish, x.Up}, x.out, opts.Instance)
	x.inbox.ask = func(from ident.Worker, first, last uint64) {
		x.sender.want(func(r *requests) { r.questions[from] = seqRange{first, last} })
	}
	x.inbox.arm = func(d time.Duration) {
		if at := x.now.Add(d); x.tickAt.IsZero() || at.Before(x.tickAt) {
			x.tickAt = at
		}
	}
	x.sayAt = now.Add(x.sender.due)
	x.greet()
	return x
}

func (x *Lockstep) greet() { x.sender.want(func(r *requests) { r.hello, r.top = true, true }) }

// Append is [Link.Append].
func (x *Lockstep) Append(entry []byte) error {
	full, err := x.out.append(entry)
	if full {
		x.sender.ring()
	}
	return err
}

// Flush is [Link.Flush]: it asks for a Round.
func (x *Lockstep) Flush() {
	if x.out.flush() {
		x.sender.ring()
	}
}

// Up is [Link.Up].
func (x *Lockstep) Up() bool { return x.up }

// SetUp says whether the bus can be reached from now on.
func (x *Lockstep) SetUp(up bool) {
	if up && !x.up {
		x.greet()
	}
	x.up = up
}

// Settled reports whether [Dial] would return: every peer has been heard, or GiveUp was called.
func (x *Lockstep) Settled() bool { return x.gaveUp || x.inbox.unheard == 0 }

// GiveUp stops waiting for silent peers, as [Dial] does after PeersWait.
func (x *Lockstep) GiveUp() {
	x.inbox.stopWaiting()
	x.gaveUp = true
}

// Waiting reports whether a Round is asked for.
func (x *Lockstep) Waiting() bool { return len(x.sender.wake) > 0 }

// Round publishes what is ready, as the goroutine of a link does when it is woken.
func (x *Lockstep) Round() {
	select {
	case <-x.sender.wake:
	default:
	}
	for x.sender.round() {
	}
	x.announceLater()
}

func (x *Lockstep) announceLater() {
	if x.sender.dueSet {
		x.sender.dueSet = false
		x.sayAt = x.now.Add(x.sender.due)
	}
}

// Due is when Tick must be called next.
func (x *Lockstep) Due() time.Time {
	if !x.tickAt.IsZero() && x.tickAt.Before(x.sayAt) {
		return x.tickAt
	}
	return x.sayAt
}

// Tick does everything that is due at now.
func (x *Lockstep) Tick(now time.Time) {
	x.now = now
	if !x.tickAt.IsZero() && !now.Before(x.tickAt) {
		x.tickAt = time.Time{}
		x.inbox.tick(now)
	}
	if !now.Before(x.sayAt) {
		x.sender.announceOnTime()
		x.announceLater()
	}
}

// Deliver takes a message that another link published. The payload is copied.
func (x *Lockstep) Deliver(subject string, payload []byte, now time.Time) {
	x.now = now
	from, ok := publisher(subject)
	if data := bytes.Clone(payload); ok && len(data) > 0 {
		switch subject[0] {
		case 'p':
			x.inbox.said(from, data, now)
		case 'a':
			x.inbox.answer(from, data, now)
		case 'q':
			x.sender.asked(from, data)
		}
	}
}

// Forget is [Link.Forget].
func (x *Lockstep) Forget(instance ident.Worker, now time.Time) {
	x.now = now
	x.inbox.forget(instance, now)
}
