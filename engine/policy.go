package engine

import (
	"unsafe"

	"github.com/parleyd/parley/engine/internal/fanout"
	"github.com/parleyd/parley/engine/internal/session"
	"github.com/parleyd/parley/engine/internal/settings"
	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/message"
)

// Act is what a client wants to do with a room.
type Act uint8

// The acts.
const (
	ActJoin Act = iota
	ActPublish
	ActMembers // list the members
	ActHistory // read the history
)

// Decision is a policy's answer. The zero Decision allows.
type Decision struct {
	// Refuse is why not: the client gets its code if it is an [Error], else forbidden.
	Refuse error
	// Ask, if it is not nil, decides later: the client's later messages wait for it, for offload_timeout at most. It must not
	// block; done is called once, on any goroutine, with nil to allow. In a resume it counts as a refusal: the room is in
	// `lost` with the code unavailable.
	Ask func(done func(error))
}

// A Policy decides what clients may do: their messages join, broadcast and members, and the rooms of a session that they
// resume. Calls of the application ([Rooms.Join], [Server.Broadcast] and their like) pass no policy.
type Policy interface {
	// Allow is called on the connection's loop, and must not block. member says whether the connection is a member of the
	// room. room is borrowed: it must not be kept.
	Allow(c *Conn, act Act, room string, member bool) Decision
}

// SetPolicy sets the policy, for what clients want to do from now on; [Rooms.Review] is for the rooms that they are in. Any goroutine, at
// any time.
func (s *Server) SetPolicy(p Policy) { s.policy.Store(&p) }

// permit asks the policy for a message about a room. It returns false if the client was answered, or waits: then the
// message goes on with then, on the loop. The envelope is borrowed.
func (l *loop) permit(c *Conn, act Act, e *message.Envelope, then func(l *loop, c *Conn, e *message.Envelope)) bool {
	policy := settings.Held(&l.srv.policy)
	if policy == nil {
		return true
	}
	r := l.srv.rooms.Index.Find(e.Room)
	d := policy.Allow(c, act, unsafe.String(unsafe.SliceData(e.Room), len(e.Room)), r != nil && r.Has(c.place()))
	switch {
	case d.Refuse != nil:
		c.wire.Complain(message.Refused(d.Refuse), e.Ref)
		return false
	case d.Ask == nil:
		return true
	}
	decide := c.wire.AwaitDecision(e, func(e *message.Envelope) { then(l, c, e) })
	err := l.srv.guard.Run("policy", c.pending(), func() error {
		d.Ask(decide)
		return nil
	})
	if err != nil {
		c.wire.EndBy(CausePanic)
	}
	return false
}

// mayReturn reports whether a session may enter one of its rooms again; the code says why not.
func (s above) mayReturn(x *session.Conn, room string) (code string, ok bool) {
	policy := settings.Held(&s.policy)
	if policy == nil {
		return "", true
	}
	switch d := policy.Allow(connOf(x.Wire()), ActJoin, room, false); {
	case d.Refuse != nil:
		return message.Refused(d.Refuse).Code, false
	case d.Ask != nil:
		return message.Unavailable.String(), false
	}
	return "", true
}

// reviewRooms takes c, whose identity may have changed, out of the rooms that it may not be in any more.
func (l *loop) reviewRooms(c *Conn) {
	policy := settings.Held(&l.srv.policy)
	if policy == nil || len(c.wire.Rooms) == 0 {
		return
	}
	fanout.LeaveRefused(&c.wire.Conn, func(room string) error { return policy.Allow(c, ActJoin, room, true).Refuse })
}

// Review asks for each room of each connection whether the connection stays in, for instance since the rules of the policy have
// changed. It leaves a room for which ask returns an error: its client gets `left` with the error's code, else forbidden. ask is
// called on the loops and must not block. Review does not wait. Any goroutine.
//
// Scope: this worker.
func (x *Rooms) Review(ask func(c *Conn, room string) error) {
	for _, l := range x.srv.loops {
		l.PostCall(func() {
			fanout.Review(&l.Loop.Loop, func(c *turn.Conn, room string) error { return ask(connOf(c), room) })
		})
	}
}

// Shared is a state that all workers have, such as a list of revoked tokens. Each worker has the whole of it: a change is told
// to all, and a worker that starts, or has missed something, asks the others for all of theirs. Its methods are for any
// goroutine and must not block.
type Shared interface {
	// Merge takes a change, or a part of the state, of another worker. Merging twice, or in another order, must come to the
	// same. part is borrowed. An error is logged.
	Merge(part []byte) error
	// Parts is the whole state, in parts of less than a megabyte each.
	Parts() [][]byte
}

// Share makes a state one of all workers, under a name that each worker gives it. tell tells the others a change; any
// goroutine. Before the start.
//
// Scope: all workers.
func (s *Server) Share(name string, x Shared) (tell func(change []byte)) {
	return s.worker.Share(name, x)
}
