package session

import (
	"math"
	"slices"

	"github.com/parleyd/parley/engine/internal/fanout"
	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/protocol/message"
	"github.com/parleyd/parley/rooms"
)

// Where a session goes on in its rooms with history: behind the position that the client names, else where the session's last
// connection began. From there on messages may arrive twice, up to the last one that the connection was given.

// savedPlace is a session's place in a room with history.
//
// Owner: immutable.
type savedPlace struct {
	room   string
	base   rooms.Position // that the client was told
	given  uint64         // the highest number that the connection may have been given; [givenUnknown]: it is not known
	proven bool           // a receipt proved base
}

// savePlace notes the place of c in a room, if the room has history and is not deleted.
func (p *parked) savePlace(l *Loop, c *Conn, r *rooms.Room) {
	h := r.History()
	if h == nil || r.Dead() {
		return
	}
	known, ok := h.KnownOf(c.Place())
	if !ok {
		return
	}
	given := known.Top
	if number, behind := l.Given(&c.Conn, r); behind {
		given = number
	}
	p.places = append(p.places, savedPlace{r.Name(), known.Base, given, known.Proven})
}

// givenUnknown is of a session that was stored while its connection lived: if its worker is killed, the connection may have been
// given any later message, too.
const givenUnknown = math.MaxUint64

// forgetGiven notes that the connection lives on after its places were taken.
func (p *parked) forgetGiven() {
	for i := range p.places {
		p.places[i].given = givenUnknown
	}
}

// place is the session's place in a room. Without one, the zero position says that nothing is known: its epoch is none.
func (p *parked) place(room string) savedPlace {
	for _, x := range p.places {
		if x.room == room {
			return x
		}
	}
	return savedPlace{room: room}
}

// readLast reads the positions that the client names, and reports whether they are well formed.
func (x *succession) readLast(l *Loop) (ok bool) {
	if x.asked.last == nil {
		return true
	}
	x.asked.known, ok = message.ParseLast(x.asked.last, func(room []byte) bool {
		return slices.Contains(x.state.rooms, string(room)) && l.Rooms.Index.Keeps(room)
	})
	return ok
}

// restart lets c go on in a room of its session. Rooms without history have a gap if the client named what it has.
func (v *revival) restart(l *Loop, room string) {
	r := l.Rooms.Index.FindString(room)
	at, named := v.asked.known[room]
	saved := v.state.place(room)
	if r == nil || r.History() == nil {
		if v.asked.last != nil {
			v.answer.Gaps = append(v.answer.Gaps, room)
		}
		return
	}
	switch {
	case !named:
		at = saved.base
	case saved.proven && at.Epoch == saved.base.Epoch && at.Seq < saved.base.Seq:
		l.Rooms.Liars.Note(&l.Loop, &v.conn.Conn, r)
	}
	start, ok := l.Start(&v.conn.Conn, r, rooms.Since{Named: true, Position: at})
	if !ok {
		return
	}
	if start.Gap {
		v.answer.Gaps = append(v.answer.Gaps, room)
	}
	again := message.Restart{Room: room, Start: start}
	if !named && start.Epoch == saved.base.Epoch && saved.given > start.Seq {
		again.Repeats = min(saved.given, start.Until)
		fanout.SetGiven(&l.Loop, &v.conn.Conn, r, again.Repeats)
	}
	v.answer.Restarts = append(v.answer.Restarts, again)
}

// succeed notes the connection of a session among the earlier ones of its heir.
func (p *parked) succeed() []uint64 {
	list := append(slices.Clone(p.earlier), rooms.Who(ident.ID{Worker: p.instance, Place: p.previous}))
	return list[max(0, len(list)-fanout.EarlierMax):]
}

// appendPlaces encodes the places and the earlier connections.
func (p *parked) appendPlaces(w *fleet.Writer) {
	w.Number(uint64(len(p.earlier)))
	for _, who := range p.earlier {
		w.Number(who)
	}
	w.Number(uint64(len(p.places)))
	for _, x := range p.places {
		proven := uint64(0)
		if x.proven {
			proven = 1
		}
		w.Text(x.room).Text(x.base.Epoch).Number(x.base.Seq).Number(x.given).Number(proven)
	}
}

// readPlaces is the inverse of appendPlaces.
func (p *parked) readPlaces(r *fleet.Reader) {
	for range min(r.Number(), uint64(len(r.Rest))) {
		p.earlier = append(p.earlier, r.Number())
	}
	for range min(r.Number(), uint64(len(r.Rest))) {
		x := savedPlace{room: string(r.Bytes())}
		x.base.Epoch, x.base.Seq, x.given, x.proven = string(r.Bytes()), r.Number(), r.Number(), r.Number() == 1
		p.places = append(p.places, x)
	}
}
