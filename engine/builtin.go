package engine

import (
	"github.com/parleyd/parley/engine/internal/fanout"
	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/engine/internal/pending"
	"github.com/parleyd/parley/engine/internal/session"
	"github.com/parleyd/parley/engine/internal/settings"
	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/protocol/message"
	"github.com/parleyd/parley/rooms"
)

// The message types that the server itself understands [wire protocol, envelope].

func builtinRoutes() map[string]*route {
	routes := map[string]*route{}
	for name, f := range map[string]func(l *loop, c *Conn, e *message.Envelope){
		"join":      (*loop).onJoin,
		"leave":     (*loop).onLeave,
		"broadcast": (*loop).onBroadcast,
		"members":   (*loop).onMembers,
		"ping":      (*loop).onPing,
		"pong":      func(*loop, *Conn, *message.Envelope) {}, // it was activity already
		"reconnect": func(l *loop, c *Conn, e *message.Envelope) { l.Reconnect(&c.wire, e) },
		"auth":      (*loop).onAuth,
	} {
		routes[name] = &route{name: name, builtin: f}
	}
	return routes
}

func (l *loop) onPing(c *Conn, e *message.Envelope) {
	l.Text = message.AppendPong(l.Text[:0], l.srv.time.Seconds(l.Now), e.Ref)
	c.wire.Answer(l.Text)
}

// roomOf checks the name that a message gives, and answers where there is none.
func (l *loop) roomOf(c *Conn, e *message.Envelope) bool {
	code := message.RoomRequired
	if e.Room != nil || e.RoomWrong {
		code = message.InvalidRoom
		if !e.RoomWrong {
			code = message.ValidRoom(e.Room)
		}
	}
	if code != message.OK {
		c.wire.Complain(message.ErrorOf(code), e.Ref)
		return false
	}
	return true
}

func (l *loop) onJoin(c *Conn, e *message.Envelope) {
	if l.roomOf(c, e) && l.permit(c, ActJoin, e, (*loop).joinPermitted) {
		l.joinPermitted(c, e)
	}
}

func (l *loop) joinPermitted(c *Conn, e *message.Envelope) {
	if since, ok := l.since(c, e); ok {
		l.joinSince(c, e, since)
	}
}

func (l *loop) joinSince(c *Conn, e *message.Envelope, since session.Since) {
	if c.wire.Posted.Load() == 0 {
		l.Join(&c.wire, e.Room, e.Ref, since)
		return
	}
	room := append([]byte(nil), e.Room...)
	c.wire.Behind("join", e.Ref, func(ref []byte) { l.Join(&c.wire, room, ref, since) })
}

func (l *loop) onLeave(c *Conn, e *message.Envelope) {
	if !l.roomOf(c, e) {
		return
	}
	if c.wire.Posted.Load() == 0 || !l.srv.rooms.Index.Keeps(e.Room) {
		l.LeaveRoom(&c.wire, e.Room, e.Ref)
		return
	}
	// The answers to its own messages stand in the room's order: it gets them, and what is in front of them, before it leaves.
	room := append([]byte(nil), e.Room...)
	c.wire.Behind("leave", e.Ref, func(ref []byte) { l.LeaveRoom(&c.wire, room, ref) })
}

// ownRoom is the room that a message names, of which c must be a member; nil where it was told why not.
func (l *loop) ownRoom(c *Conn, e *message.Envelope) *rooms.Room {
	if !l.roomOf(c, e) {
		return nil
	}
	r := l.srv.rooms.Index.Find(e.Room)
	if r == nil || !r.Has(c.place()) {
		c.wire.Complain(message.ErrorOf(message.NotInRoom), e.Ref)
		return nil
	}
	return r
}

func (l *loop) onBroadcast(c *Conn, e *message.Envelope) {
	if e.Data == nil {
		if l.roomOf(c, e) {
			c.wire.Complain(message.ErrorOf(message.DataRequired), e.Ref)
		}
		return
	}
	if l.ownRoom(c, e) != nil && l.permit(c, ActPublish, e, (*loop).broadcastPermitted) {
		l.broadcastPermitted(c, e)
	}
}

// broadcastPermitted publishes a client's message. The client may have left the room while the policy decided.
func (l *loop) broadcastPermitted(c *Conn, e *message.Envelope) {
	r := l.ownRoom(c, e)
	if r == nil {
		return
	}
	l.Announce() // who joined before this message is announced before it
	if l.broadcastNumbered(c, r, e) {
		return
	}
	f := l.BroadcastFrame(&c.wire, e.Room, e.Data)
	members, err := l.Broadcast(&c.wire.Conn, r, f)
	if err != nil {
		c.wire.Complain(message.ErrOverloaded, e.Ref)
		return
	}
	l.Text = message.AppendBroadcastSent(l.Text[:0], message.BroadcastSent{
		Room: e.Room, Recipients: max(members-1, 0) + r.Away(), Delayed: l.Link.CutOff(), Ref: e.Ref})
	c.wire.Answer(l.Text)
}

// onMembers answers the question for a room's members: fanout.MembersList has the answer.
func (l *loop) onMembers(c *Conn, e *message.Envelope) {
	if !l.roomOf(c, e) {
		return
	}
	switch room := l.srv.rooms.Index.Find(e.Room); {
	case room == nil || settings.Held(&l.srv.policy) == nil && !room.Has(c.place()):
		c.wire.Complain(message.ErrorOf(message.NotInRoom), e.Ref)
	case l.permit(c, ActMembers, e, (*loop).membersPermitted):
		l.membersPermitted(c, e)
	}
}

func (l *loop) membersPermitted(c *Conn, e *message.Envelope) {
	if c.wire.Has(turn.FlagMute) {
		return
	}
	from := fanout.MembersBegin
	if e.After != nil {
		var ok bool
		if from, ok = fanout.ParseCursor(e.After); !ok {
			c.wire.Complain(&Error{Code: message.InvalidMessage.String(),
				Message: `"after" must be the "next" of the page before`}, e.Ref)
			return
		}
	}
	b := &fanout.MembersList{Rooms: l.Rooms, Room: append([]byte(nil), e.Room...), From: from, Max: fanout.MembersMax,
		Users: l.Rooms.Above.ShowUsers()}
	questions := b.Ask()
	if len(l.Link.Others()) == 0 {
		l.tellMembers(c, b, e.Ref, false)
		return
	}
	p := c.wire.Await(pending.Members, "members", e.Ref)
	l.Link.Gather(b.Verb(), questions, fleet.GatherWait, func(answers []fleet.Part, missing []ident.Worker) {
		partial := !b.TakeAll(answers) || len(missing) > 0
		l.PostCall(func() {
			if c.wire.Settled(p) {
				l.tellMembers(c, b, p.Ref, partial)
				c.wire.GoOnAfter(p)
			}
		})
	})
}

func (l *loop) tellMembers(c *Conn, b *fanout.MembersList, ref []byte, partial bool) {
	l.Paged = true
	m, next, more := b.Page()
	m.Room, m.Ref, m.Partial = b.Room, ref, partial
	if more {
		m.Next = next.Text()
	}
	l.Text = message.AppendMembers(l.Text[:0], m)
	c.wire.Answer(l.Text)
}
