package engine

import (
	"github.com/gobwas/ws"

	"github.com/parleyd/parley/engine/internal/turn"
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
		"reconnect": (*loop).onReconnect,
		"auth":      (*loop).onAuth,
	} {
		routes[name] = &route{name: name, builtin: f}
	}
	return routes
}

func (l *loop) onPing(c *Conn, e *message.Envelope) {
	l.Text = message.AppendPong(l.Text[:0], l.srv.seconds(l.Now), e.Ref)
	l.answer(c, l.Text)
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
		l.complain(c, wireError(code), e.Ref)
		return false
	}
	return true
}

func (l *loop) onJoin(c *Conn, e *message.Envelope) {
	if !l.roomOf(c, e) {
		return
	}
	if c.wire.Posted.Load() == 0 {
		l.join(c, e.Room, e.Ref, e.Since != nil)
		return
	}
	room, since := append([]byte(nil), e.Room...), e.Since != nil
	l.behind(c, "join", e.Ref, func(ref []byte) { l.join(c, room, ref, since) })
}

// join takes c in and tells it so. Nothing is posted for c: what the room gives it from now on must come
// behind the answer.
func (l *loop) join(c *Conn, room, ref []byte, since bool) {
	l.storeFirst(c, move{room: room, ref: ref, since: since}, (*loop).joinNow)
}

func (l *loop) joinNow(c *Conn, m move) {
	a := m.admission(c)
	entry, err := l.admit(&a)
	switch err {
	case nil:
	case rooms.ErrSeat:
		l.awaitSeat(c, m, entry.Limit)
		return
	default:
		l.complain(c, seatError(err), m.ref)
		return
	}
	l.Text = message.AppendJoined(l.Text[:0], message.Joined{Room: m.room, Members: entry.Members + entry.Room.Away(), Gap: m.since, Ref: m.ref})
	l.answerNow(c, l.Text)
}

func (l *loop) onLeave(c *Conn, e *message.Envelope) {
	if !l.roomOf(c, e) {
		return
	}
	l.storeFirst(c, move{leave: true, room: e.Room, ref: e.Ref}, (*loop).leaveNow)
}

func (l *loop) leaveNow(c *Conn, m move) {
	r := l.srv.index.Find(m.room)
	if r == nil || !l.exit(c, r) {
		l.complain(c, wireError(message.NotInRoom), m.ref)
		return
	}
	l.Text = message.AppendLeft(l.Text[:0], m.room, m.ref)
	l.answer(c, l.Text)
}

// ownRoom is the room that a message names, of which c must be a member; nil where it was told why not.
func (l *loop) ownRoom(c *Conn, e *message.Envelope) *rooms.Room {
	if !l.roomOf(c, e) {
		return nil
	}
	r := l.srv.index.Find(e.Room)
	if r == nil || !r.Has(c.place()) {
		l.complain(c, wireError(message.NotInRoom), e.Ref)
		return nil
	}
	return r
}

func (l *loop) onBroadcast(c *Conn, e *message.Envelope) {
	if e.Data == nil {
		if l.roomOf(c, e) {
			l.complain(c, wireError(message.DataRequired), e.Ref)
		}
		return
	}
	r := l.ownRoom(c, e)
	if r == nil {
		return
	}
	l.announce() // who joined before this message is announced before it
	var id [idSize]byte
	from := c.appendID(id[:0])
	f := turn.BuildFrame(ws.OpText, len(e.Data)+len(e.Room)+broadcastBytes, func(dst []byte) []byte {
		return message.AppendBroadcast(dst, message.Broadcast{
			Room: e.Room, From: from, Data: e.Data, Timestamp: l.srv.seconds(l.Now)})
	})
	p := &l.outgoing
	*p = publication{srv: l.srv, frame: f, room: r, except: c.place()}
	members, err := p.publish()
	if err != nil {
		l.complain(c, errOverloaded, e.Ref)
		return
	}
	l.forward(f, r.Name(), c.place())
	l.Text = message.AppendBroadcastSent(l.Text[:0], message.BroadcastSent{
		Room: e.Room, Recipients: max(members-1, 0) + r.Away(), Delayed: l.srv.cutOff(), Ref: e.Ref})
	l.answer(c, l.Text)
}

// broadcastBytes is about what a broadcast costs besides room and data.
const broadcastBytes = 112

var nullJSON = []byte("null")

// onAuth answers an auth message of a connection that needs none any more.
func (l *loop) onAuth(c *Conn, e *message.Envelope) {
	handler := l.srv.authHandler.Load()
	switch {
	case c.has(flagAuth) && e.Token == nil:
		l.complain(c, &Error{Code: message.InvalidMessage.String(), Message: `auth needs a "token" that is a string`}, e.Ref)
	case c.has(flagAuth):
		l.authenticate(c, *handler, string(e.Token), e.Ref)
	case handler == nil:
		l.complain(c, &Error{Code: message.UnknownType.String(), Message: "this server asks for no auth message"}, e.Ref)
	default:
		l.Text = message.AppendAuthenticated(l.Text[:0], e.Ref)
		l.answer(c, l.Text)
	}
}

// authenticated is what the auth handler said.
func (l *loop) authenticated(c *Conn, p *pending, out outcome) {
	if !l.settled(c, p) {
		return
	}
	switch {
	case out.panicked:
		l.endBy(c, CausePanic)
		return
	case out.refusal != nil:
		l.complain(c, out.refusal, p.ref)
		l.endBy(c, CauseUnauthorized)
		return
	}
	c.wire.Flags &^= flagAuth
	l.Text = message.AppendAuthenticated(l.Text[:0], p.ref)
	l.answer(c, l.Text)
	l.begun(c)
	l.goOnAfter(c, p)
}

// exit takes c out of a room, and reports whether it was in.
func (l *loop) exit(c *Conn, r *rooms.Room) bool {
	left, seq := l.srv.index.Leave(r, c.place())
	if !left {
		return false
	}
	c.removeRoom(r)
	c.seats.Add(-1)
	l.left(c, r, seq)
	return true
}

func (l *loop) left(c *Conn, r *rooms.Room, seq uint64) {
	l.notify(notice{room: r, place: c.place(), seq: seq})
	l.srv.counted(r)
	l.changed(c)
	l.srv.emit(Event{Kind: EventRoomLeave, Conn: c, Room: r.Name()})
}
