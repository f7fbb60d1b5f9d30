package engine

import (
	"errors"
	"fmt"
	"time"

	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/rooms"
)

// World replaces the kernel and the reactor for the loops of a [Lockstep]. A wire is the number under which [Lockstep.Open]
// was given a connection. The methods are called in the middle of a turn; they may take turns of other loops, never of the
// calling one.
type World interface {
	// Now is the time since the server's start.
	Now() time.Duration
	// Entropy fills b with random bytes.
	Entropy(b []byte)
	// Write takes some of p, all or nothing. alive is false if the transport has failed. p is borrowed.
	Write(wire int, p []byte) (n int, alive bool)
	// Shutdown ends our half of the stream.
	Shutdown(wire int)
	// Drop closes the transport. [Lockstep.Gone] follows, perhaps before Drop returns.
	Drop(wire int)
	// Watch asks for [Lockstep.Writable] once Write would take bytes again.
	Watch(wire int)
	// Ring asks for [Lockstep.Drain].
	Ring(loop int)
}

// Lockstep is a server whose loops take their turns when its methods are called, all on one goroutine, in the caller's
// World: for simulations, and for measuring a single turn. It runs the same code as the reactor. Its server is never
// started, nor shut down.
//
// Its methods are for one goroutine.
type Lockstep struct {
	Server *Server
}

// NewLockstep makes a server that lives in a world. The error is a *[ConfigError].
func NewLockstep(cfg Config, w World, settings ...Setting) (*Lockstep, error) {
	settings = append([]Setting{func(s *Server) {
		s.clock = func() int64 { return int64(w.Now()) }
		s.walltime = func() time.Time { return time.Unix(lockstepEpoch, int64(w.Now())) }
		s.entropy = w.Entropy
	}}, settings...)
	s, err := New(cfg, settings...)
	if err != nil {
		return nil, err
	}
	s.pools = newPools(0, nil)
	s.state.Store(stateRunning)
	for _, l := range s.loops {
		l.Wires = &lockstepWires{world: w, loop: l}
		l.Mail.Rung.Store(false)
	}
	return &Lockstep{s}, nil
}

// lockstepEpoch is the wall clock at the start of such a server, in seconds since the epoch.
const lockstepEpoch = 1_000_000_000

// Open begins the life of an accepted connection on a loop; nil if the loop is full.
func (x *Lockstep) Open(loop, wire int) *Conn {
	l := x.Server.loops[loop]
	t := newConn(&l.Loop)
	t.Fd = wire
	c := connOf(t)
	l.Load.Add(1)
	if !l.Begin(t) {
		return nil
	}
	return c
}

// Serve is the turn in which a connection's input is taken. chunk is borrowed.
func (x *Lockstep) Serve(c *Conn, chunk []byte) {
	c.loop().Serve(&c.wire, chunk)
	if c.has(turn.FlagDropping) {
		c.loop().Gone(&c.wire)
	}
}

// Drain is the turn that answers a ring.
func (x *Lockstep) Drain(loop int) { x.Server.loops[loop].Drain() }

// Writable says that a watched wire takes bytes again.
func (x *Lockstep) Writable(c *Conn) {
	c.loop().Post(turn.Letter{Kind: turn.LetterWritable, Conn: &c.wire})
}

// Gone reports the end of a connection's transport. Call it between the turns of its loop, or from Drop.
func (x *Lockstep) Gone(c *Conn) { c.loop().Gone(&c.wire) }

// Tick wakes all loops, so that they look at their timers. Call it at least every [Lockstep.TickEvery].
func (x *Lockstep) Tick() {
	for _, l := range x.Server.loops {
		l.Wake()
	}
}

// Alarm is the time of the loops' earliest timer: call [Lockstep.Tick] then, and do not wait for the next tick. ok is false
// if no timer is set.
func (x *Lockstep) Alarm() (at time.Duration, ok bool) {
	for _, l := range x.Server.loops {
		if len(l.Timers) > 0 && (!ok || l.Timers[0].At < int64(at)) {
			at, ok = time.Duration(l.Timers[0].At), true
		}
	}
	return at, ok
}

// TickEvery is the interval at which the loops look at their timers.
func (x *Lockstep) TickEvery() time.Duration { return x.Server.ground.Tick }

// SendAway ends all connections as [Server.Shutdown] does.
func (x *Lockstep) SendAway() {
	x.Server.leaving.Store(true)
	x.Server.sendAway()
}

// Offloaded runs one waiting handler, connect handler, auth handler or answer to another worker on the caller's goroutine,
// and reports whether there was one.
func (x *Lockstep) Offloaded() bool {
	for _, p := range x.pools() {
		p.mu.Lock()
		if p.head < len(p.queue) {
			f := p.pop()
			p.mu.Unlock()
			f()
			return true
		}
		p.mu.Unlock()
	}
	return false
}

// OffloadWaits reports whether [Lockstep.Offloaded] has something to run.
func (x *Lockstep) OffloadWaits() bool {
	for _, p := range x.pools() {
		if p.head < len(p.queue) {
			return true
		}
	}
	return false
}

// pools are the pools with work for [Lockstep.Offloaded].
func (x *Lockstep) pools() []*pool {
	all := x.Server.pools.all()
	if x.Server.peers == nil {
		return all[:]
	}
	return append(all[:], x.Server.peers.answering)
}

// Ended reports whether a connection's transport is known to have ended.
func (x *Lockstep) Ended(c *Conn) bool { return c.wire.Phase == turn.PhaseGone }

// Backlog is the number of bytes that wait for a connection's wire.
func (x *Lockstep) Backlog(c *Conn) int { return c.wire.Backlog }

// Waiting is the backlog behind the frame that is being written: the part that the bounds apply to.
func (x *Lockstep) Waiting(c *Conn) int { return c.wire.Waits() }

// Leftovers lists what a server without connections still holds but should have freed. Parked sessions count: call it after
// reconnection_ttl.
func (x *Lockstep) Leftovers() (list []string) {
	expect := func(what string, n int) {
		if n != 0 {
			list = append(list, fmt.Sprintf("%s: %d", what, n))
		}
	}
	s := x.Server
	expect("open connections", int(s.live.Load()))
	s.index.Range(func(r *rooms.Room) bool {
		if !r.Explicit() {
			list = append(list, "room "+r.Name())
		}
		expect("seats in room "+r.Name(), r.Len())
		return true
	})
	for i := range s.sessions.shards {
		h := &s.sessions.shards[i]
		expect("live sessions", len(h.live))
		expect("parked sessions", len(h.parked))
		expect("claims", len(h.claims))
		expect("sessions that wait for their end", h.queued())
	}
	for _, p := range x.pools() {
		expect("work for a pool", len(p.queue)-p.head)
	}
	for _, l := range s.loops {
		expect("load", int(l.Load.Load()))
		expect("slots", l.Slab.Live)
		expect("letters", len(l.Mail.Letters)+len(l.Letters)-l.Opened)
		expect("reserved letters", int(l.Mail.Waiting.Load()))
		expect("reserved bytes", int(l.Mail.Bytes.Load()))
		expect("dirty connections", len(l.Dirty))
		expect("doomed connections", len(l.Doomed))
		expect("notices", len(l.notices))
		expect("jobs", len(l.Jobs))
		expect("connections whose input waits", len(l.Late))
		expect("timers", l.Wheel.Armed()+len(l.Timers))
	}
	return list
}

// lockstepWires passes a loop's calls on to the world.
type lockstepWires struct {
	world World
	loop  *loop
}

var (
	errWireFull   = errors.New("the wire is full")
	errWireFailed = errors.New("the wire is cut")
)

func (w *lockstepWires) Write(fd int, p []byte) (int, error) {
	n, alive := w.world.Write(fd, p)
	switch {
	case !alive:
		return -1, errWireFailed
	case n == 0 && len(p) > 0:
		return -1, errWireFull
	}
	return n, nil
}

func (w *lockstepWires) Writev(fd int, ps [][]byte) (int, error) {
	total := 0
	for _, p := range ps {
		n, err := w.Write(fd, p)
		if err != nil && total == 0 {
			return -1, err
		}
		total += max(n, 0)
		if n < len(p) {
			break
		}
	}
	return total, nil
}

func (w *lockstepWires) Again(err error) bool { return err == errWireFull }

func (w *lockstepWires) Shutdown(fd int) { w.world.Shutdown(fd) }

// Drop is as the reactor's: a connection that is being served is dropped when its turn is over.
func (w *lockstepWires) Drop(c *turn.Conn) {
	if c != w.loop.Served {
		w.world.Drop(c.Fd)
	}
}

func (w *lockstepWires) Watch(c *turn.Conn) { w.world.Watch(c.Fd) }

// RingIn does nothing: the world asks [Lockstep.Alarm].
func (w *lockstepWires) RingIn(time.Duration) {}

func (w *lockstepWires) Ring() { w.world.Ring(int(w.loop.Index)) }

// A [Lockstep] that is one of several workers. Its world carries the entries of its bus to the others' [Server.Receive],
// and calls what package cluster calls: Peers, Serving, Missed, Gone, RoomCreated, RoomDeleted, SaveSessions.

// Attach is [Server.Attach]: before anything else, and followed by Meet.
func (x *Lockstep) Attach(m Membership) {
	x.Server.Attach(m)
	x.Server.peers.answering = newPool(0)
}

// Meet is called when the worker begins to take connections and to receive from the others.
func (x *Lockstep) Meet() {
	x.Server.receiving.Store(true)
	x.Server.meet()
}

// CountEverywhere is [Everywhere.ConnectionCount], but calls done instead of waiting. missing are the workers that gave no
// answer.
func (x *Lockstep) CountEverywhere(done func(n int, missing []ident.Worker)) {
	x.gather(fleet.Connections, nil, func(answers []parcel, missing []ident.Worker) {
		n := 0
		for _, a := range answers {
			r := &fleet.Reader{Rest: a.bytes}
			n += int(r.Number())
		}
		done(n, missing)
	})
}

// MembersEverywhere is [Everywhere.Members], with up to 10,000 members a worker; it calls done as CountEverywhere does.
func (x *Lockstep) MembersEverywhere(room string, done func(ids []string, missing []ident.Worker)) {
	question := fleet.MembersQuestion{Room: []byte(room), Max: membersPage, From: fleet.Cursor(rooms.FirstPage)}.AppendTo(nil)
	x.gather(fleet.Members, question, func(answers []parcel, missing []ident.Worker) {
		var ids []string
		for _, a := range answers {
			for _, p := range readMembersPage(&fleet.Reader{Rest: a.bytes}, a.worker).places {
				ids = append(ids, ident.ID{Worker: a.worker, Place: p}.String())
			}
		}
		done(ids, missing)
	})
}

// gather asks every worker, this one too. A question of this worker to itself has a timer of its own.
func (x *Lockstep) gather(v fleet.Verb, question []byte, done func(answers []parcel, missing []ident.Worker)) {
	s := x.Server
	questions := []parcel{{s.instance, question}}
	for _, worker := range s.others() {
		questions = append(questions, parcel{worker, question})
	}
	h := s.gather(v, questions, gatherWait, done)
	s.loops[0].postAfter(gatherWait+gatherGrace, func(*loop) { h.giveUp() })
}

// JoinEverywhere is [Everywhere.Join]; it calls done as CountEverywhere does.
func (x *Lockstep) JoinEverywhere(id, room string, done func(error)) {
	e := errand{verb: fleet.Join, id: id, with: func(w *fleet.Writer) { w.Text(room) }}
	x.one(e, done)
}

// SendToEverywhere is [Everywhere.SendTo]; it calls done as CountEverywhere does. The error is ErrConnectionUnknown if
// SendTo reports false.
func (x *Lockstep) SendToEverywhere(id string, v any, done func(error)) {
	f, err := x.Server.encodeShared(v)
	if err != nil {
		done(err)
		return
	}
	x.one(errand{verb: fleet.Send, id: id, with: func(w *fleet.Writer) { w.B = append(w.B, f.Plain...) }}, done)
}

func (x *Lockstep) one(e errand, done func(error)) {
	worker, question, ok := e.question(x.Server)
	if !ok {
		done(ErrConnectionUnknown)
		return
	}
	s := x.Server
	h := s.gather(e.verb, []parcel{{worker, question}}, waitOf(e.verb), func(answers []parcel, missing []ident.Worker) {
		if len(missing) > 0 {
			done(ErrUnanswered)
			return
		}
		done(e.outcome(answers))
	})
	s.loops[0].postAfter(waitOf(e.verb)+gatherGrace, func(*loop) { h.giveUp() })
}

// CreateRoom is [Rooms.Create] of a room without metadata; it calls done as CountEverywhere does.
func (x *Lockstep) CreateRoom(name string, membersMax int, done func(error)) {
	x.Server.Rooms().createEverywhere(CreatedRoom{Name: name, MaxMembers: membersMax}, done)
}

// DeleteRoom is [Rooms.Delete]; existed is false if there was no such room.
func (x *Lockstep) DeleteRoom(name string, done func(existed bool)) {
	x.Server.Rooms().deleteEverywhere(name, done)
}
