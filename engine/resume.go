package engine

import (
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/protocol/message"
	"github.com/parleyd/parley/rooms"
)

// Resuming: a connection shows the token of an earlier one and becomes its heir. Where the earlier one
// has ended, its parked state is restored at once. Where it still looks alive (a half-open link), its loop
// ends it and hands over its seats without freeing them in between, so that nobody can take them.

// Session is what a resumed connection inherits, as the reconnect event shows it.
type Session struct {
	PreviousConnectionID string
	Rooms                []string
	Attempts             int // resumes in a row, this one included
}

// handover is what an earlier connection leaves to its heir.
//
// Owner: the loop of the earlier connection; once posted, the heir's.
type handover struct {
	key   sessionKey
	next  token         // of the session that follows, where the store has it already
	state *parked       // nil: nothing is left
	held  []*rooms.Room // where a seat waits for the heir
	given []string      // rooms whose shared seat goes to the heir's worker
	seats seatVerdicts  // of rooms whose seats all workers share
	spent bool          // resumed too often in a row: the earlier connection stays
	ended bool          // it was revoked, and the store had not heard of it
}

// giveBack frees the seats that wait.
func (l *loop) giveBack(h *handover, heir place) {
	for _, r := range h.held {
		l.srv.freeHeld(r, heir)
	}
	l.giveBackSeats(h.seats)
}

// freeHeld frees a seat that waits for p: until now it was counted.
func (s *Server) freeHeld(r *rooms.Room, p place) {
	s.index.Release(r, p)
	s.counted(r)
}

// undo gives everything back: the session can be claimed again. It is for servers without a store of sessions, whose record
// would know nothing of what is parked here: see putBack.
func (l *loop) undo(h *handover, heir place) {
	l.giveBack(h, heir)
	if h.state != nil {
		l.srv.sessions.parkAgain(h.key, h.state)
	}
}

// issueToken begins a session for c and tells the client its token: at once, or when the store has the session.
func (l *loop) issueToken(c *Conn) {
	l.srv.entropy(c.token[:])
	l.srv.sessions.begin(l.srv.keyOf(c.token), c)
	c.flags &^= flagTold
	if l.srv.store != nil {
		l.saveFirst(c)
		return
	}
	l.tellToken(c)
}

// follow gives c, which has just resumed, the session that follows.
func (l *loop) follow(c *Conn, next token) {
	if next == noToken {
		l.issueToken(c)
		return
	}
	c.token = next
	l.srv.sessions.begin(l.srv.keyOf(next), c)
	l.tellToken(c)
	l.changed(c) // what was stored is what was claimed, not what was restored of it
}

// snapshot is the state of c for whoever resumes its session.
func (l *loop) snapshot(c *Conn) *parked {
	state := l.snapshotAlone(c)
	state.rooms = roomNames(c.rooms)
	return state
}

// roomNames are the names of those rooms that are not deleted: their members are about to be told.
func roomNames(list []*rooms.Room) (names []string) {
	for _, r := range list {
		if !r.Dead() {
			names = append(names, r.Name())
		}
	}
	return names
}

// snapshotAlone is snapshot without the rooms.
func (l *loop) snapshotAlone(c *Conn) *parked {
	state := &parked{
		previous:  c.place(),
		instance:  l.srv.instance,
		principal: c.Principal(),
		attrs:     c.attrs.Load(),
		userData:  c.userData.Load(),
		expires:   l.srv.sessions.until(l.now),
	}
	if r := c.rare; r != nil && r.attempts > 0 && l.now-r.resumedAt < l.srv.tuned.Load().timeout {
		state.attempts, state.resumedAt = r.attempts, l.srv.wall(r.resumedAt).UnixMilli()
	}
	return state
}

// park keeps the session of an ending connection, and returns the token that restores it, "" for none. state is what is
// kept; nil: what c has now.
func (l *loop) park(c *Conn, cause Cause, state *parked) string {
	t := c.token
	if t == noToken {
		return ""
	}
	c.token = noToken
	if l.srv.store != nil {
		return l.parkKept(c, t, cause, state)
	}
	if cause == CauseUnauthorized {
		l.srv.sessions.revoke(l.srv.keyOf(t))
		return ""
	}
	if state == nil {
		state = l.snapshot(c)
	}
	if !l.srv.sessions.park(l.srv.keyOf(t), state) {
		c.extra().leftover = state
	}
	return t.String()
}

func (l *loop) onReconnect(c *Conn, e *message.Envelope) {
	if e.Token == nil {
		l.complain(c, wireError(message.InvalidToken), e.Ref)
		return
	}
	owner, ok := l.srv.ownerOf(e.Token)
	key := SessionKey{owner, keyOf(e.Token)}
	switch {
	case !ok:
		l.count[countResumesRefused].Add(1)
		l.complain(c, wireError(message.InvalidToken), e.Ref)
		return
	case c.has(flagResumed):
		l.complain(c, wireError(message.AlreadyResumed), e.Ref)
		return
	case key == l.srv.sharedKey(c.token):
		l.complain(c, &Error{Code: message.InvalidToken.String(),
			Message: "this is the connection's own token; show it on the next connection"}, e.Ref)
		return
	case c.posted.Load() > 0:
		// What the restored rooms give c must come behind the answer, and the answer behind what is posted.
		withLast := e.Last != nil
		l.behind(c, "reconnect", e.Ref, func(ref []byte) { l.claim(c, key, claimant(ref, withLast)) })
		return
	}
	l.claim(c, key, e)
}

// claimant is what is kept of a reconnect message while an answer is awaited.
func claimant(ref []byte, withLast bool) *message.Envelope {
	e := &message.Envelope{Ref: ref}
	if withLast {
		e.Last = nullJSON
	}
	return e
}

// claim asks the store for a session.
func (l *loop) claim(c *Conn, shared SessionKey, e *message.Envelope) {
	if l.srv.store != nil {
		l.claimKept(c, shared, e)
		return
	}
	key := sessionKey(shared.Hash)
	claimed, code := l.srv.sessions.take(key, c.Principal())
	switch {
	case code != message.OK:
		l.count[countResumesRefused].Add(1)
		l.complain(c, wireError(code), e.Ref)
	case claimed.state != nil:
		l.restore(c, handover{key: key, state: claimed.state}, e)
	default:
		l.claimLive(c, claimed.conn, key, e)
	}
}

// claimLive has the loop of a connection that still looks alive hand over. The answer is awaited: the
// client's later messages wait with it.
func (l *loop) claimLive(c *Conn, old *Conn, key sessionKey, e *message.Envelope) {
	p := l.await(c, pendingClaim, "reconnect", e.Ref)
	withLast := e.Last != nil
	heir := c.place()
	old.loop.postCall(func(from *loop) {
		from.afterHeld(old, func(from *loop) {
			from.handOver(old, heir, func(_ *loop, h handover) {
				h.key = key
				l.postCall(func(l *loop) { l.inherit(c, p, h, withLast) })
			})
		})
	})
}

// handOver ends old in favour of its heir, and then says what that inherits. The member_left of old goes out before the
// heir's member_joined.
func (l *loop) handOver(old *Conn, heir place, then func(*loop, handover)) {
	if old.phase != phaseOpen {
		l.handOverEnded(old, heir, then)
		return
	}
	state := l.snapshotAlone(old)
	if state.attempts >= l.srv.sessions.max {
		l.srv.sessions.begin(l.srv.keyOf(old.token), old)
		then(l, handover{spent: true})
		return
	}
	l.endSession(old, nil) // of another token than was claimed, where old has resumed meanwhile
	if len(old.rooms) > roomsAtOnce {
		l.beginDeparture(&departure{conn: old, cause: CauseTakenOver, opened: true, state: state, heir: heir, inherit: then})
		l.endBy(old, CauseTakenOver)
		return
	}
	h := handover{state: state}
	state.rooms = roomNames(old.rooms)
	for _, r := range l.takeRooms(old) {
		l.bequeath(old, r, heir, &h)
	}
	l.announce()
	l.endBy(old, CauseTakenOver)
	then(l, h)
}

// handOverEnded is handOver for a connection that has ended by itself.
func (l *loop) handOverEnded(old *Conn, heir place, then func(*loop, handover)) {
	r := old.rare
	switch {
	case r == nil:
		then(l, handover{})
	case r.departure != nil:
		r.departure.endow(l, heir, then)
	default:
		state := r.leftover
		r.leftover = nil
		spent := state != nil && state.attempts >= l.srv.sessions.max
		if spent {
			state = nil
		}
		then(l, handover{state: state, spent: spent})
	}
}

// endSession ends the session of c, unless somebody has claimed it. It reports whether the store has to hear of it: then
// told, which may be nil, runs when it has, or is away.
func (l *loop) endSession(c *Conn, told func(error)) bool {
	t := c.token
	if t == noToken {
		return false
	}
	c.token = noToken
	if !l.srv.sessions.revoke(l.srv.keyOf(t)) || l.srv.store == nil {
		return false
	}
	l.srv.sessions.remember(l.srv.keyOf(t), l.now)
	l.srv.store.Drop(l.srv.sharedKey(t), told)
	return true
}

// inherit is the answer of the old connection's loop.
func (l *loop) inherit(c *Conn, p *pending, h handover, withLast bool) {
	if !l.settled(c, p) {
		l.undo(&h, c.place())
		return
	}
	e := claimant(p.ref, withLast)
	switch {
	case h.spent:
		l.complain(c, wireError(message.AttemptsExhausted), e.Ref)
	case h.state == nil:
		l.complain(c, wireError(message.InvalidToken), e.Ref)
	default:
		l.restore(c, h, e)
	}
	l.resume(c, p)
}

// restore makes c the heir of a session and answers, once it has the seats that this takes.
func (l *loop) restore(c *Conn, h handover, e *message.Envelope) {
	if !l.awaitSeats(c, h, e) {
		l.restoreSeated(c, h, e)
	}
}

// restoreSeated is the rest of it. With a store of sessions, it is all: the seats were taken before the claim was spent, and
// the session that c began with has ended.
func (l *loop) restoreSeated(c *Conn, h handover, e *message.Envelope) {
	if c.token != noToken && !l.srv.sessions.revoke(l.srv.keyOf(c.token)) {
		// Somebody has claimed this connection's own session: its take-over is on its way.
		l.undo(&h, c.place())
		l.complain(c, errUnavailable, e.Ref)
		return
	}
	state := h.state
	c.token = noToken
	c.flags |= flagResumed
	c.extra().attempts = state.attempts + 1
	c.rare.resumedAt = l.now
	if n := c.inheritAttributes(state); n > 0 {
		l.srv.log.Warn("attributes of a session do not fit beside those that its heir set: attributes_bytes_max", "conn", c.ID(), "dropped", n)
	}
	l.revive(&revival{conn: c, h: h, answer: message.Reconnected{
		ID:       []byte(c.ID()),
		Previous: ident.ID{Worker: state.instance, Place: state.previous}.Append(nil),
		Ref:      e.Ref,
	}, withLast: e.Last != nil})
}
