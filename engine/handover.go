package engine

import "slices"

// Taking over across workers: the worker that has claimed a session asks its owner to end the connection in its favour,
// and gets the state as it is now, which is newer than what the store holds.

// What an answer to verbHandOver begins with.
const (
	handoverNothing = iota // the connection and what it left are gone: the store's state counts
	handoverState          // the state follows
	handoverSpent          // resumed too often in a row: the connection stays
	handoverEnded          // it was revoked: the claim is in vain
)

// answerHandOver ends a connection whose session another worker has claimed. payload is the session's hash.
func (s *Server) answerHandOver(payload []byte, answer func([]byte)) {
	var key sessionKey
	if copy(key[:], payload) != len(key) {
		answer([]byte{handoverNothing})
		return
	}
	given := s.sessions.release(key)
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
	given.conn.loop.postCall(func(l *loop) { tell(l.handOverClaimed(given.conn, key, nowhere)) })
}

// handOverClaimed is handOver for a session that somebody has claimed in the store. Only when its connection has ended
// is the store told to forget it: a save that came later would bring a spent session back to life.
func (l *loop) handOverClaimed(old *Conn, key sessionKey, heir place) handover {
	h := l.handOver(old, heir)
	if h.state == nil && !h.spent {
		h.ended = l.srv.sessions.ended(key) // between the claim and now
	}
	if !h.spent {
		l.srv.store.Forget(SessionKey{l.srv.instance, key})
	}
	return h
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
