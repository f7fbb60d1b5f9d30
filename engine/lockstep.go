package engine

import (
	"fmt"
	"time"

	"github.com/parleyd/parley/engine/internal/fanout"
	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/engine/internal/lockstep"
	"github.com/parleyd/parley/engine/internal/membership"
	"github.com/parleyd/parley/engine/internal/pending"
	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/ident"
)

// World replaces the kernel and the reactor for the loops of a [Lockstep]: time and entropy, and the wires of connections, each
// of which is the number under which [Lockstep.Open] was given a connection. The methods are called in the middle of a turn;
// they may take turns of other loops, never of the calling one.
type World = lockstep.World

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
		s.time.Now = func() int64 { return int64(w.Now()) }
		s.time.Walltime = func() time.Time { return time.Unix(lockstepEpoch, int64(w.Now())) }
		s.entropy = w.Entropy
	}}, settings...)
	s, err := New(cfg, settings...)
	if err != nil {
		return nil, err
	}
	s.pools = pending.NewPools(0, 0, nil)
	s.state.Store(stateRunning)
	for _, l := range s.loops {
		lockstep.Connect(w, l.Base(), s.cfg.Sends)
		l.Mail.Rung.Store(false)
	}
	return &Lockstep{s}, nil
}

// lockstepEpoch is the wall clock at the start of such a server, in seconds since the epoch.
const lockstepEpoch = 1_000_000_000

// Open begins the life of an accepted connection on a loop; nil if the loop is full.
func (x *Lockstep) Open(loop, wire int) *Conn {
	l := x.Server.loops[loop]
	t := newConn(l.Base())
	t.Fd = int32(wire)
	c := connOf(t)
	l.Load.Add(1)
	if !l.Begin(t) {
		return nil
	}
	return c
}

// Serve is the turn in which a connection's input is taken. chunk is borrowed.
func (x *Lockstep) Serve(c *Conn, chunk []byte) {
	c.loop().Serve(c.wire.Wire(), chunk)
	if c.wire.Has(turn.FlagDropping) {
		c.loop().Gone(c.wire.Wire())
	}
}

// Drain is the turn that answers a ring.
func (x *Lockstep) Drain(loop int) { x.Server.loops[loop].Drain() }

// Writable says that a watched wire takes bytes again.
func (x *Lockstep) Writable(c *Conn) {
	c.loop().Post(turn.Letter{Kind: turn.LetterWritable, Conn: c.wire.Wire()})
}

// Gone reports the end of a connection's transport. Call it between the turns of its loop, or from Drop.
func (x *Lockstep) Gone(c *Conn) { c.loop().Gone(c.wire.Wire()) }

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
	sendAway(x.Server)
}

// DrainOver ends all connections over a time as [Server.Drain] does. told is called in the turn that ends a loop's last one.
func (x *Lockstep) DrainOver(over time.Duration, done func()) { x.Server.drain(over, done) }

// Top is the position of the newest message of a room with history. Unlike [Server.History] it looks at no message, so that
// none is forgotten for its age.
func (x *Lockstep) Top(room string) (p Position, ok bool) {
	r := x.Server.rooms.Index.FindString(room)
	if r == nil || r.History() == nil {
		return p, false
	}
	return r.History().Top(), true
}

// Offloaded runs one waiting handler, connect handler, auth handler or answer to another worker on the caller's goroutine,
// and reports whether there was one.
func (x *Lockstep) Offloaded() bool {
	for _, p := range x.Server.pools.All() {
		if p.RunOne() {
			return true
		}
	}
	return false
}

// OffloadWaits reports whether [Lockstep.Offloaded] has something to run.
func (x *Lockstep) OffloadWaits() bool {
	for _, p := range x.Server.pools.All() {
		if p.Waits() > 0 {
			return true
		}
	}
	return false
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
	s.rooms.Leftovers(expect)
	kept := s.sessions.Memory.Kept()
	expect("live sessions", kept.Live)
	expect("parked sessions", kept.Parked)
	expect("claims", kept.Claims)
	expect("sessions that wait for their end", kept.Queued)
	for _, p := range s.pools.All() {
		expect("work for a pool", p.Waits())
	}
	return list
}

// A [Lockstep] that is one of several workers. Its world carries the entries of its bus to the others' [Server.Receive],
// and calls what package cluster calls: Peers, Serving, Missed, Gone, RoomCreated, RoomDeleted, SaveSessions.

// Attach is [Server.Attach]: before anything else, and followed by Meet.
func (x *Lockstep) Attach(m membership.Membership) { x.Server.worker.Attach(m) }

// Meet is called when the worker begins to take connections and to receive from the others.
func (x *Lockstep) Meet() {
	x.Server.worker.Receiving.Store(true)
	x.Server.worker.Meet()
}

// CountEverywhere is [Everywhere.ConnectionCount], but calls done instead of waiting. missing are the workers that gave no
// answer.
func (x *Lockstep) CountEverywhere(done func(n int, missing []ident.Worker)) {
	x.Server.worker.CountThen(done)
}

// MembersEverywhere is [Everywhere.Members], with up to 10,000 members a worker; it calls done as CountEverywhere does.
func (x *Lockstep) MembersEverywhere(room string, done func(ids []string, missing []ident.Worker)) {
	x.Server.worker.MembersThen(room, done)
}

// JoinEverywhere is [Everywhere.Join]; it calls done as CountEverywhere does.
func (x *Lockstep) JoinEverywhere(id, room string, done func(error)) {
	e := membership.Question{Verb: fleet.Join, ID: id, With: func(w *fleet.Writer) { w.Text(room) }}
	x.Server.worker.AskThen(e, done)
}

// SendToEverywhere is [Everywhere.SendTo]; it calls done as CountEverywhere does. The error is ErrConnectionUnknown if
// SendTo reports false.
func (x *Lockstep) SendToEverywhere(id string, v any, done func(error)) {
	f, err := x.Server.link.EncodeFrame(v)
	if err != nil {
		done(err)
		return
	}
	x.Server.worker.AskThen(membership.Question{Verb: fleet.Send, ID: id, With: func(w *fleet.Writer) { w.B = append(w.B, f.Plain...) }}, done)
}

// CreateRoom is [Rooms.Create] of a room without metadata; it calls done as CountEverywhere does.
func (x *Lockstep) CreateRoom(name string, membersMax int, done func(error)) {
	x.Server.rooms.CreateEverywhere(fanout.CreatedRoom{Name: name, MaxMembers: membersMax}, done)
}

// UpdateRoom is [Rooms.Update] of a room's limit and of its metadata, which are JSON; it calls done as CountEverywhere does.
func (x *Lockstep) UpdateRoom(name string, membersMax int, metadata []byte, done func(error)) {
	x.Server.rooms.Created.Update(name, fanout.RoomUpdate{MaxMembers: &membersMax, Metadata: metadata}, done)
}

// DeleteRoom is [Rooms.Delete]; existed is false if there was no such room.
func (x *Lockstep) DeleteRoom(name string, done func(existed bool)) {
	x.Server.rooms.DeleteEverywhere(name, done)
}
