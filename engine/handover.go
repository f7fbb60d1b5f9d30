package engine

import (
	"encoding/binary"
	"slices"
	"sync/atomic"

	"github.com/parleyd/parley/protocol/ident"
)

// Taking over across workers: the worker that has claimed a session asks its owner to end the connection in its favour,
// and gets the state as it is now, which is newer than what the store holds. Seats in limited rooms, which all workers
// share, go with it: the owner gives them before it answers, with the claim's nonce for a ticket, so that none is free in
// between. Who does not answer in time gives nothing in time: then the heir takes what seats there are.

// What an answer to verbHandOver begins with.
const (
	handoverNothing = iota // the connection and what it left are gone: the store's state counts
	handoverState          // the state follows
	handoverSpent          // resumed too often in a row: the connection stays
	handoverEnded          // it was revoked: the claim is in vain
)

// handoverQuestion is what the owner is asked.
type handoverQuestion struct {
	key    sessionKey
	heir   ident.Worker // the worker that asks
	ticket SeatTicket
}

func (q handoverQuestion) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(append(b, q.key[:]...), q.heir.Instance())
	return append(b, q.ticket[:]...)
}

func readHandoverQuestion(b []byte) (q handoverQuestion, ok bool) {
	if len(b) != len(q.key)+2+len(q.ticket) {
		return q, false
	}
	b = b[copy(q.key[:], b):]
	q.heir = ident.On(0, binary.BigEndian.Uint16(b))
	copy(q.ticket[:], b[2:])
	return q, true
}

// answerHandOver ends a connection whose session another worker has claimed.
func (s *Server) answerHandOver(payload []byte, answer func([]byte)) {
	q, ok := readHandoverQuestion(payload)
	if !ok {
		answer([]byte{handoverNothing})
		return
	}
	given := s.sessions.release(q.key)
	tell := func(h handover) {
		switch {
		case h.ended:
			answer([]byte{handoverEnded})
		case h.spent:
			answer([]byte{handoverSpent})
		case h.state != nil:
			answer(append([]byte{handoverState}, h.state.encode()...))
		default:
			answer([]byte{handoverNothing})
		}
	}
	if given.conn == nil {
		tell(handover{state: given.state, ended: given.revoked})
		return
	}
	given.conn.loop.postCall(func(l *loop) {
		l.afterHeld(given.conn, func(l *loop) {
			l.handOverClaimed(given.conn, q.key, nowhere, func(_ *loop, h handover) {
				s.giveSeats(h.given, q, func() { tell(h) })
			})
		})
	})
}

// giveSeats gives the heir's worker seats in several rooms; then runs, on any goroutine, when it may take them.
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

// handOverClaimed is handOver for a session that somebody has claimed in the store. Only when its connection has ended
// is the store told to forget it: a save that came later would bring a spent session back to life.
func (l *loop) handOverClaimed(old *Conn, key sessionKey, heir place, then func(*loop, handover)) {
	l.handOver(old, heir, func(l *loop, h handover) {
		if h.state == nil && !h.spent {
			h.ended = l.srv.sessions.ended(key) // between the claim and now
		}
		if !h.spent {
			l.srv.store.Forget(SessionKey{l.srv.instance, key})
		}
		then(l, h)
	})
}

// decodeHandover reads the answer, which is borrowed. The state is nil where there is none.
func decodeHandover(answer []byte) (h handover, err error) {
	if len(answer) == 0 {
		return h, errSessionValue
	}
	switch answer[0] {
	case handoverState:
		h.state, err = decodeParked(slices.Clone(answer[1:]))
	case handoverSpent:
		h.spent = true
	case handoverEnded:
		h.ended = true
	}
	return h, err
}
