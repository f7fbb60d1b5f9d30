package engine

import (
	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/message"
)

// The way back into the rooms of a session. As with the way out, many take several turns (departure.go). What the rooms
// give the connection until the answer is there waits for that.

// revival is a connection on its way into the rooms of the session that it resumes.
//
// Owner: loop.
type revival struct {
	*succession
	answer   message.Reconnected
	entered  int // of held
	entering *pending
	stash    []*turn.Frame
	bytes    int // of those
}

// revive enters the rooms and then answers.
func (l *loop) revive(v *revival) {
	n := len(v.held) + len(v.state.rooms)
	if n <= roomsAtOnce {
		for i := range n {
			v.step(l, i)
		}
		v.tell(l)
		return
	}
	v.entering = l.await(v.conn, pendingRooms, "reconnect", v.answer.Ref)
	v.entering.deadline = 0 // the loop comes to its end
	v.answer.Ref = v.entering.ref
	v.conn.rare.revival = v
	v.conn.wire.Flags |= turn.FlagDiverted
	l.work(inParts(n, v.step, v.end))
}

// step enters one room.
func (v *revival) step(l *loop, i int) {
	c := v.conn
	if c.wire.Phase != turn.PhaseOpen {
		return
	}
	if i < len(v.held) {
		v.entered++
		l.admit(&admission{how: wayHeir, conn: c, held: v.held[i]})
		return
	}
	name := v.state.rooms[i-len(v.held)]
	if err := l.enterAgain(c, name, v.seats); err != nil {
		v.answer.Lost = append(v.answer.Lost, message.LostRoom{Room: name, Code: seatError(err).Code})
		return
	}
	v.answer.Rooms = append(v.answer.Rooms, name)
}

// tell answers, and begins the session that follows.
func (v *revival) tell(l *loop) {
	c := v.conn
	if v.asked.last {
		v.answer.Gaps = v.answer.Rooms
	}
	l.Count[countResumed].Add(1)
	l.Text = message.AppendReconnected(l.Text[:0], v.answer)
	l.answerNow(c, l.Text)
	l.follow(c, v.next)
	l.srv.emit(Event{Kind: EventReconnect, Conn: c, Session: &Session{
		PreviousConnectionID: string(v.answer.Previous), Rooms: v.answer.Rooms, Attempts: c.rare.attempts}})
}

// end is the end of a revival that took several turns.
func (v *revival) end(l *loop) {
	c := v.conn
	if !l.settled(c, v.entering) {
		v.abandon(l)
		return
	}
	v.tell(l)
	c.rare.revival = nil
	c.wire.Flags &^= turn.FlagDiverted
	for _, f := range v.stash {
		l.Queue(&c.wire, f)
	}
	l.goOnAfter(c, v.entering)
}

// abandon gives the session back, since the connection has ended.
func (v *revival) abandon(l *loop) {
	c := v.conn
	c.rare.revival = nil
	c.wire.Flags &^= turn.FlagDiverted
	if c.rare.departure != nil { // out of the rooms that it has entered
		l.work(func(l *loop, _ int64) bool {
			if c.rare.departure != nil {
				return false
			}
			v.abandon(l)
			return true
		})
		return
	}
	l.announce()
	v.held = v.held[v.entered:]
	l.forgo(v.succession)
}

// keep keeps a frame for behind the answer.
func (v *revival) keep(l *loop, f *turn.Frame) {
	v.stash = append(v.stash, f)
	if v.bytes += len(f.Plain); v.bytes > l.srv.cfg.BacklogHardBytes {
		l.Doom(&v.conn.wire)
	}
}
