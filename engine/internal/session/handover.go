package session

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/parleyd/parley/engine/internal/fanout"
	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/rooms"
)

// Hand over: the loop of a connection whose session was claimed ends it in favour of its heir. The connection's seats go to
// the heir without being freed in between, so that no other connection can take them. Across workers the heir's worker asks
// the owner, and gets the present state, which is newer than the stored one. Seats in limited rooms, which all workers
// share, are given too: the owner gives them before it answers, with the claim's nonce as the ticket. If the owner does not
// answer in time, no seats are handed over, and the heir competes for free ones.

// handOverWait is how long the heir waits for an owner; then the stored state counts. An owner that was frozen ends the
// connection when it runs again.
const handOverWait = time.Second

// handover is the state and the seats that an earlier connection leaves to its heir.
//
// Owner: the loop of the earlier connection; once posted, the heir's.
type handover struct {
	kind  fleet.HandedOver
	state *parked       // of fleet.HandedOverState
	held  []*rooms.Room // rooms with a seat that is held for the heir
	given []string      // rooms whose shared seat goes to the heir's worker
}

// handover is the handover of a session whose connection has gone.
func (x released) handover() handover {
	switch {
	case x.state != nil:
		return handover{kind: fleet.HandedOverState, state: x.state}
	case x.revoked:
		return handover{kind: fleet.HandedOverEnded}
	}
	return handover{}
}

// AnswerHandOver ends a connection whose session another worker has claimed.
func (s *Sessions) AnswerHandOver(payload []byte, answer func([]byte)) {
	q, ok := fleet.ReadHandOver(payload)
	if !ok {
		answer([]byte{byte(fleet.HandedOverNothing)})
		return
	}
	tell := func(h handover) {
		b := []byte{byte(h.kind)}
		if h.kind == fleet.HandedOverState {
			b = append(b, h.state.encode()...)
		}
		answer(b)
	}
	left := s.Memory.Release(q.Key)
	if left.conn == nil {
		if left.state != nil {
			s.Memory.parkLent(q.Key, left.state) // until parkStored knows which connection has the session
		}
		tell(left.handover())
		return
	}
	left.conn.postHandOver(q.Key, fanout.Nowhere, func(h handover) {
		s.giveSeats(h.given, q, func() { tell(h) })
	})
}

// giveSeats gives the heir's worker seats in several rooms. then runs, on any goroutine, when that worker may take them.
func (s *Sessions) giveSeats(names []string, q fleet.HandOverQuestion, then func()) {
	if len(names) == 0 {
		then()
		return
	}
	left := new(atomic.Int32)
	left.Store(int32(len(names)))
	for _, name := range names {
		s.Rooms.Seats.Give(name, q.Heir, q.Ticket, func() {
			if left.Add(-1) == 0 {
				then()
			}
		})
	}
}

// postHandOver ends c in favour of the heir that has claimed its session, once the held messages of c have been carried out;
// then runs on the loop of c. The store forgets the session only when c has ended: a later save would bring a spent session
// back to life. An heir on another worker may miss the answer, and its claim may fail: so the state is kept here until the
// store knows which connection has the session. Any goroutine.
func (c *Conn) postHandOver(key tokenHash, heir ident.Place, then func(handover)) {
	l := c.loop()
	l.PostCall(func() {
		c.AfterHeld(handOverWait/2, func() {
			l.handOver(c, heir, func(l *Loop, h handover) {
				if h.kind == fleet.HandedOverNothing && l.Sessions.Memory.Ended(key) { // after the claim
					h.kind = fleet.HandedOverEnded
				}
				switch {
				case h.state != nil && heir == fanout.Nowhere:
					kept := *h.state
					kept.resumedAtMillis = 0
					l.Sessions.Memory.parkLent(key, &kept)
					l.Sessions.parkLater(Key{l.Link.Self, key}, &kept)
				case h.kind != fleet.HandedOverSpent:
					l.Sessions.Store.Forget(Key{l.Link.Self, key})
				}
				then(h)
			})
		})
	})
}

// handOver ends old in favour of its heir, and calls then with the handover. The member_left of old goes out before the
// heir's member_joined.
func (l *Loop) handOver(old *Conn, heir ident.Place, then func(*Loop, handover)) {
	if old.Phase != turn.PhaseOpen {
		l.handOverEnded(old, heir, then)
		return
	}
	state := l.snapshotAlone(old)
	if state.attempts >= l.Sessions.Memory.max {
		l.Sessions.Memory.begin(l.Sessions.hashOf(old.token), old)
		then(l, handover{kind: fleet.HandedOverSpent})
		return
	}
	l.endSession(old, nil) // its token is another than the claimed one, if old has resumed meanwhile
	if len(old.Rooms) > fanout.RoomsAtOnce {
		l.beginDeparture(&departure{conn: old, cause: turn.CauseTakenOver, opened: true, state: state, heir: heir, inherit: then})
		old.EndBy(turn.CauseTakenOver)
		return
	}
	h := handover{kind: fleet.HandedOverState, state: state}
	state.rooms = roomNames(old.Rooms)
	for _, r := range old.Rooms {
		state.savePlace(l, old, r)
	}
	for _, r := range l.TakeRooms(&old.Conn) {
		l.bequeath(old, r, heir, &h)
	}
	l.Announce()
	old.EndBy(turn.CauseTakenOver)
	then(l, h)
}

// handOverEnded is handOver for a connection that has already ended for another cause.
func (l *Loop) handOverEnded(old *Conn, heir ident.Place, then func(*Loop, handover)) {
	r := old.rare()
	switch {
	case r == nil || r.departure == nil && r.leftover == nil:
		then(l, handover{})
	case r.departure != nil:
		r.departure.endow(l, heir, then)
	case r.leftover.attempts >= l.Sessions.Memory.max:
		r.leftover = nil
		then(l, handover{kind: fleet.HandedOverSpent})
	default:
		h := handover{kind: fleet.HandedOverState, state: r.leftover}
		r.leftover = nil
		then(l, h)
	}
}

// decodeHandover reads the answer, which is borrowed.
func decodeHandover(answer []byte) (h handover, err error) {
	if len(answer) == 0 || answer[0] > byte(fleet.HandedOverEnded) {
		return h, errSessionValue
	}
	h.kind = fleet.HandedOver(answer[0])
	if h.kind == fleet.HandedOverState {
		if h.state, err = decodeParked(slices.Clone(answer[1:])); err != nil {
			return handover{}, err
		}
	}
	return h, nil
}

// ReadHandOver reports whether an owner's answer, which is borrowed, can be read.
func ReadHandOver(answer []byte) error {
	_, err := decodeHandover(answer)
	return err
}
