package session

import (
	"github.com/parleyd/parley/engine/internal/fanout"
	"github.com/parleyd/parley/engine/internal/pending"
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
	entering *pending.Pending
	stash    []*turn.Frame
	bytes    int // of those
}

// revive enters the rooms and then answers.
func (l *Loop) revive(v *revival) {
	n := len(v.held) + len(v.state.rooms)
	if n <= fanout.RoomsAtOnce {
		for i := range n {
			v.step(l, i)
		}
		v.tell(l)
		return
	}
	v.entering = v.conn.Await(pending.Rooms, "reconnect", v.answer.Ref)
	v.entering.Deadline = 0 // the loop comes to its end
	v.answer.Ref = v.entering.Ref
	v.conn.rare().revival = v
	v.conn.Flags |= turn.FlagDiverted
	l.InParts(n, func(i int) { v.step(l, i) }, func() { v.end(l) })
}

// step enters one room.
func (v *revival) step(l *Loop, i int) {
	c := v.conn
	if c.Phase != turn.PhaseOpen {
		return
	}
	if i < len(v.held) {
		v.entered++
		if _, ok := l.Sessions.Above.MayReturn(c, v.held[i].Name()); !ok {
			l.Rooms.FreeHeld(v.held[i], c.Place())
			return
		}
		l.Admit(&fanout.Admission{How: fanout.WayHeir, Conn: &c.Conn, Held: v.held[i]})
		return
	}
	name := v.state.rooms[i-len(v.held)]
	if r := l.Rooms.Index.FindString(name); r != nil && r.Has(c.Place()) {
		v.answer.Rooms = append(v.answer.Rooms, name) // the policy was asked
		v.restart(l, name)
		return
	}
	if code, ok := l.Sessions.Above.MayReturn(c, name); !ok {
		v.answer.Lost = append(v.answer.Lost, message.LostRoom{Room: name, Code: code})
		return
	}
	if err := l.EnterAgain(&c.Conn, name, v.seats); err != nil {
		v.answer.Lost = append(v.answer.Lost, message.LostRoom{Room: name, Code: fanout.SeatError(err).Code})
		return
	}
	v.answer.Rooms = append(v.answer.Rooms, name)
	v.restart(l, name)
}

// tell answers, and begins the session that follows.
func (v *revival) tell(l *Loop) {
	c := v.conn
	l.GiveBackSeats(v.seats) // of rooms that it may not enter any more
	l.Count[CountResumed].Add(1)
	l.Text = message.AppendReconnected(l.Text[:0], v.answer)
	c.QueueText(l.Text)
	l.Replay(&c.Conn)
	l.follow(c, v.next, v.losses)
	l.Sessions.Above.Resumed(c, &v.answer, c.rare().attempts)
}

// end is the end of a revival that took several turns.
func (v *revival) end(l *Loop) {
	c := v.conn
	if !c.Settled(v.entering) {
		v.abandon(l)
		return
	}
	v.tell(l)
	c.rare().revival = nil
	c.Flags &^= turn.FlagDiverted
	for _, f := range v.stash {
		c.Queue(f)
	}
	c.GoOnAfter(v.entering)
}

// abandon gives the session back, since the connection has ended.
func (v *revival) abandon(l *Loop) {
	c := v.conn
	c.rare().revival = nil
	c.Flags &^= turn.FlagDiverted
	if c.rare().departure != nil { // out of the rooms that it has entered
		l.Work(func(int64) bool {
			if c.rare().departure != nil {
				return false
			}
			v.abandon(l)
			return true
		})
		return
	}
	l.Announce()
	v.held = v.held[v.entered:]
	l.forgo(v.succession)
}

// keep keeps a frame for behind the answer.
func (v *revival) keep(l *Loop, f *turn.Frame) {
	v.stash = append(v.stash, f)
	if v.bytes += len(f.Plain); v.bytes > l.Ground.Limits.Hard {
		v.conn.Doom()
	}
}

// Diverted keeps a frame for a connection that is on its way back into its rooms.
func (l *Loop) Diverted(c *Conn, f *turn.Frame) { c.rare().revival.keep(l, f) }
