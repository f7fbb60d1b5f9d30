package session

import (
	"bytes"
	"slices"

	"github.com/parleyd/parley/engine/internal/fanout"
	"github.com/parleyd/parley/engine/internal/pending"
	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/message"
	"github.com/parleyd/parley/rooms"
)

// A move is a join or leave that a client asks for. Where the store is late, a move is stored before it happens (late.go); a
// join of a limited room, whose seats all workers share, waits for its seat.

// move is a join or leave that a client asks for.
//
// Owner: loop.
type move struct {
	leave     bool
	stored    bool  // before it happens
	seated    bool  // has waited for a shared seat
	verdict   error // why there is none
	room, ref []byte
	since     Since
}

// Since is where a client that joins wants to start.
type Since struct {
	Asked  bool // the client named a place
	Denied bool // it may not read the room's history
	rooms.Since
}

// Unless is s for a client that may read the history, or may not.
func (s Since) Unless(refused error) Since {
	if refused != nil {
		return Since{Asked: true, Denied: true}
	}
	return s
}

// storedMove is the part of a pending answer that belongs to a move that is stored before it happens, or that is stored and
// waits for a seat.
//
// Owner: loop.
type storedMove struct {
	move    move
	along   []move // held moves that are stored with it
	covered int    // how many held items are among them, once err is the result of the save
	err     error
}

// admission is how a join of c enters.
func (m *move) admission(c *Conn) fanout.Admission {
	if m.seated {
		return fanout.Admission{How: fanout.WaySeated, Conn: &c.Conn, Room: m.room, Verdict: m.verdict}
	}
	return fanout.Admission{How: fanout.WayJoin, Conn: &c.Conn, Room: m.room}
}

// Join takes c in and tells it so. Nothing is posted for c: the frames that the room gives it from now on must come behind the
// answer. In a room that a sequencer numbers, c waits until the history is here. The move is stored first, if the store is late. room and ref are borrowed.
func (l *Loop) Join(c *Conn, room, ref []byte, since Since) {
	if o := l.Rooms.Order; o.Keeps(room) {
		need := fanout.Followed{Room: room, Since: since.Since, Name: "join", Ref: ref}
		o.WhenFollowed(&c.Conn, need, func(need fanout.Followed, err error) {
			if err != nil {
				c.Complain(fanout.SeatError(err), need.Ref)
				return
			}
			l.storeFirst(c, move{room: need.Room, ref: need.Ref, since: since}, (*Loop).joinNow)
		})
		return
	}
	l.storeFirst(c, move{room: room, ref: ref, since: since}, (*Loop).joinNow)
}

// LeaveRoom takes c out of a room and tells it so. The move is stored first, if the store is late. room and ref are borrowed.
func (l *Loop) LeaveRoom(c *Conn, room, ref []byte) {
	l.storeFirst(c, move{leave: true, room: room, ref: ref}, (*Loop).leaveNow)
}

// awaitSeat makes c, whose limit of rooms counts the room, wait for a shared seat in it, and then join. m is borrowed.
func (l *Loop) awaitSeat(c *Conn, m move, limit int) {
	p := c.Await(pending.Seat, "join", m.ref)
	m.room, m.ref, m.seated = bytes.Clone(m.room), p.Ref, true
	if m.stored {
		p.Of = &storedMove{move: m} // a save until then must have it, too
	}
	l.Acquire(string(m.room), limit, fanout.SeatTicket{}, func(err error) {
		m.verdict = err
		l.seatFound(c, p, m)
	})
}

// seatFound lets c in, behind everything that was posted for it meanwhile. The store may have become late while c waited.
func (l *Loop) seatFound(c *Conn, p *pending.Pending, m move) {
	if turn.Expects(c.Wire()) {
		l.PostCall(func() { l.seatFound(c, p, m) })
		return
	}
	waits := c.Settled(p)
	if m.stored && (!waits || m.verdict != nil) {
		l.Changed(c) // the store has it
	}
	switch a := m.admission(c); {
	case !waits:
		l.GiveUp(&a)
		return
	case m.stored || m.verdict != nil:
		l.joinNow(c, m)
	default:
		l.storeFirst(c, m, (*Loop).joinNow)
	}
	c.GoOnAfter(p)
}

func (l *Loop) joinNow(c *Conn, m move) {
	a := m.admission(c)
	entry, err := l.Admit(&a)
	switch err {
	case nil:
	case rooms.ErrSeat:
		l.awaitSeat(c, m, entry.Limit)
		return
	default:
		c.Complain(fanout.SeatError(err), m.ref)
		return
	}
	joined := message.Joined{Room: m.room, Members: entry.Members + entry.Room.Away(), Ref: m.ref}
	if entry.Already || m.since.Since != (rooms.Since{}) {
		joined.Start, _ = l.Start(&c.Conn, entry.Room, m.since.Since)
	} else {
		joined.Position = entry.Position()
	}
	joined.Gap = joined.Gap || m.since.Denied || m.since.Asked && joined.Epoch == ""
	l.Text = message.AppendJoined(l.Text[:0], joined)
	c.QueueText(l.Text)
	l.Replay(&c.Conn)
}

func (l *Loop) leaveNow(c *Conn, m move) {
	r := l.Rooms.Index.Find(m.room)
	if r == nil || !l.Exit(&c.Conn, r) {
		c.Complain(message.ErrorOf(message.NotInRoom), m.ref)
		return
	}
	l.Text = message.AppendLeft(l.Text[:0], m.room, m.ref)
	c.Answer(l.Text)
}

// storeFirst stores a move of c before it happens, if the store is late; else the move happens at once. m is borrowed.
func (l *Loop) storeFirst(c *Conn, m move, then func(l *Loop, c *Conn, m move)) {
	if c.token == noToken || !l.storeLate() {
		then(l, c, m)
		return
	}
	if l.ahead.c == c && l.ahead.covered > 0 && !m.seated {
		if m.stored = l.ahead.err == nil; !m.stored && !isTooLarge(l.ahead.err) {
			c.Complain(message.ErrUnavailable, m.ref)
			return
		}
		then(l, c, m)
		return
	}
	name := "join"
	if m.leave {
		name = "leave"
	}
	p := c.Await(pending.Save, name, m.ref)
	m.room, m.ref = bytes.Clone(m.room), p.Ref
	p.Of = &storedMove{move: m, along: l.lookAhead(c)}
	given := l.Now
	err := l.Sessions.Store.Save(l.Sessions.keyOf(c.token), Value{l.toStore(c)}, func(err error) {
		now := l.Ground.Clock()
		if err == nil {
			l.Sessions.saves.stored(now-given, int64(saveAfter), now)
		} else {
			l.Sessions.saves.late(now)
		}
		l.PostCall(func() { l.storedFirst(c, p, err, then) })
	})
	if err != nil {
		l.storedFirst(c, p, err, then)
	}
}

// storedFirst carries on once the letters that were posted for c meanwhile are opened.
func (l *Loop) storedFirst(c *Conn, p *pending.Pending, err error, then func(l *Loop, c *Conn, m move)) {
	if turn.Expects(c.Wire()) {
		l.PostCall(func() { l.storedFirst(c, p, err, then) })
		return
	}
	stored := err == nil && !c.Has(flagUnsaved) // and no other change came since
	l.Changed(c)                                // the store may have a move that does not happen
	waits := c.Settled(p)
	happens := waits && (err == nil || isTooLarge(err))
	x := p.Of.(*storedMove)
	if !happens && x.move.seated {
		a := x.move.admission(c)
		l.GiveUp(&a)
	}
	switch {
	case happens:
		x.move.stored = err == nil
		then(l, c, x.move)
	case waits:
		c.Complain(message.ErrUnavailable, p.Ref)
	default:
		return
	}
	x.covered, x.err = len(x.along), err
	// In a room with history the place is not stored yet: without it a killed worker's client is told a gap of unknown extent.
	r := l.Rooms.Index.Find(x.move.room)
	placed := r == nil || r.History() == nil || x.move.leave
	if stored && placed && x.covered == 0 && (r != nil && r.Has(c.Place())) != x.move.leave {
		c.Flags &^= flagUnsaved // to store it once more would keep a late store late
	}
	c.GoOnAfter(p)
}

// toStore is the state of c that is to be stored: with a join or leave that waits for its save, or that waits for a seat and
// is already stored.
func (l *Loop) toStore(c *Conn) *parked {
	state := l.snapshot(c)
	state.forgetGiven()
	if !c.Awaits() {
		return state
	}
	x, _ := c.Rare.Pending.Of.(*storedMove)
	if x == nil {
		return state
	}
	state.rooms = x.move.in(state.rooms)
	for _, m := range x.along {
		state.rooms = m.in(state.rooms)
	}
	return state
}

// in is a list of rooms after m.
func (m move) in(list []string) []string {
	switch i := slices.Index(list, string(m.room)); {
	case m.leave && i >= 0:
		return slices.Delete(list, i, i+1)
	case !m.leave && i < 0:
		return append(list, string(m.room))
	}
	return list
}
