package engine

import (
	"slices"
	"sync/atomic"
	"time"

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

// handoverKind is the first byte of an answer to fleet.HandOver.
type handoverKind byte

const (
	handoverNothing handoverKind = iota // the connection and its parked state are gone: the store's state counts
	handoverState                       // the state follows
	handoverSpent                       // resumed too often in a row: the connection stays
	handoverEnded                       // it was revoked: the claim is in vain
)

// handover is the state and the seats that an earlier connection leaves to its heir.
//
// Owner: the loop of the earlier connection; once posted, the heir's.
type handover struct {
	kind  handoverKind
	state *parked       // of handoverState
	held  []*rooms.Room // rooms with a seat that is held for the heir
	given []string      // rooms whose shared seat goes to the heir's worker
}

// handover is the handover of a session whose connection has gone.
func (x released) handover() handover {
	switch {
	case x.state != nil:
		return handover{kind: handoverState, state: x.state}
	case x.revoked:
		return handover{kind: handoverEnded}
	}
	return handover{}
}

// handoverQuestion is the question to the owner of a session.
type handoverQuestion struct {
	key    tokenHash
	heir   ident.Worker // the worker that asks
	ticket SeatTicket
}

func (q handoverQuestion) append(b []byte) []byte {
	return fleet.HandOverQuestion{Key: q.key, Heir: q.heir, Ticket: q.ticket}.AppendTo(b)
}

func readHandoverQuestion(b []byte) (q handoverQuestion, ok bool) {
	read, ok := fleet.ReadHandOver(b)
	return handoverQuestion{read.Key, read.Heir, read.Ticket}, ok
}

// answerHandOver ends a connection whose session another worker has claimed.
func (s *Server) answerHandOver(payload []byte, answer func([]byte)) {
	q, ok := readHandoverQuestion(payload)
	if !ok {
		answer([]byte{byte(handoverNothing)})
		return
	}
	tell := func(h handover) {
		b := []byte{byte(h.kind)}
		if h.kind == handoverState {
			b = append(b, h.state.encode()...)
		}
		answer(b)
	}
	left := s.sessions.release(q.key)
	if left.conn == nil {
		if left.state != nil {
			s.sessions.parkAgain(q.key, left.state) // until parkStored knows which connection has the session
		}
		tell(left.handover())
		return
	}
	left.conn.postHandOver(q.key, nowhere, func(h handover) {
		s.giveSeats(h.given, q, func() { tell(h) })
	})
}

// giveSeats gives the heir's worker seats in several rooms. then runs, on any goroutine, when that worker may take them.
func (s *Server) giveSeats(names []string, q handoverQuestion, then func()) {
	if len(names) == 0 {
		then()
		return
	}
	left := new(atomic.Int32)
	left.Store(int32(len(names)))
	for _, name := range names {
		s.peers.Seats.Give(name, q.heir, q.ticket, func() {
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
func (c *Conn) postHandOver(key tokenHash, heir place, then func(handover)) {
	c.loop().postCall(func(l *loop) {
		l.afterHeld(c, func(l *loop) {
			l.handOver(c, heir, func(l *loop, h handover) {
				if h.kind == handoverNothing && l.srv.sessions.ended(key) { // after the claim
					h.kind = handoverEnded
				}
				switch {
				case h.state != nil && heir == nowhere:
					kept := *h.state
					kept.resumedAtMillis, kept.lent = 0, true
					l.srv.sessions.parkAgain(key, &kept)
					l.srv.parkLater(SessionKey{l.srv.instance, key}, &kept)
				case h.kind != handoverSpent:
					l.srv.store.Forget(SessionKey{l.srv.instance, key})
				}
				then(h)
			})
		})
	})
}

// handOver ends old in favour of its heir, and calls then with the handover. The member_left of old goes out before the
// heir's member_joined.
func (l *loop) handOver(old *Conn, heir place, then func(*loop, handover)) {
	if old.wire.Phase != turn.PhaseOpen {
		l.handOverEnded(old, heir, then)
		return
	}
	state := l.snapshotAlone(old)
	if state.attempts >= l.srv.sessions.max {
		l.srv.sessions.begin(l.srv.hashOf(old.token), old)
		then(l, handover{kind: handoverSpent})
		return
	}
	l.endSession(old, nil) // its token is another than the claimed one, if old has resumed meanwhile
	if len(old.rooms) > roomsAtOnce {
		l.beginDeparture(&departure{conn: old, cause: CauseTakenOver, opened: true, state: state, heir: heir, inherit: then})
		l.endBy(old, CauseTakenOver)
		return
	}
	h := handover{kind: handoverState, state: state}
	state.rooms = roomNames(old.rooms)
	for _, r := range l.takeRooms(old) {
		l.bequeath(old, r, heir, &h)
	}
	l.announce()
	l.endBy(old, CauseTakenOver)
	then(l, h)
}

// handOverEnded is handOver for a connection that has already ended for another cause.
func (l *loop) handOverEnded(old *Conn, heir place, then func(*loop, handover)) {
	r := old.rare
	switch {
	case r == nil || r.departure == nil && r.leftover == nil:
		then(l, handover{})
	case r.departure != nil:
		r.departure.endow(l, heir, then)
	case r.leftover.attempts >= l.srv.sessions.max:
		r.leftover = nil
		then(l, handover{kind: handoverSpent})
	default:
		h := handover{kind: handoverState, state: r.leftover}
		r.leftover = nil
		then(l, h)
	}
}

// decodeHandover reads the answer, which is borrowed.
func decodeHandover(answer []byte) (h handover, err error) {
	if len(answer) == 0 || answer[0] > byte(handoverEnded) {
		return h, errSessionValue
	}
	h.kind = handoverKind(answer[0])
	if h.kind == handoverState {
		if h.state, err = decodeParked(slices.Clone(answer[1:])); err != nil {
			return handover{}, err
		}
	}
	return h, nil
}
