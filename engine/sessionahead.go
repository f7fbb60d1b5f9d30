package engine

import (
	"bytes"

	"github.com/parleyd/parley/protocol/message"
)

// Joins and leaves that a client sends without waiting for the answers wait behind the first of them. If the store is late,
// each would cost a round trip of its own. So a save takes along the moves that wait next in line: its result is the answer
// to all of them, as far as they happen in the same turn.

// movesAhead is the number of moves that a save takes along.
const movesAhead = 64

// ahead is a loop's position among the held messages of a connection, and the result of the save that took moves of it
// along.
//
// Owner: loop.
type ahead struct {
	c       *Conn
	next    []heldItem
	covered int // of next, together with the one that is being handled
	err     error
}

// lookAhead returns the moves that wait next for c.
func (l *loop) lookAhead(c *Conn) (moves []move) {
	if l.ahead.c != c {
		return nil
	}
	for _, item := range l.ahead.next[:min(len(l.ahead.next), movesAhead)] {
		var e message.Envelope
		if item.binary || item.closing || message.Route(item.payload, &e) != message.OK || message.ValidRoom(e.Room) != message.OK {
			break
		}
		leave := string(e.Type) == "leave"
		if !leave && string(e.Type) != "join" {
			break
		}
		moves = append(moves, move{leave: leave, room: bytes.Clone(e.Room)})
	}
	return moves
}

// dispatchNext dispatches a held item of p; next are the items behind it.
func (l *loop) dispatchNext(c *Conn, p *pending, item heldItem, next []heldItem) {
	l.ahead = ahead{c: c, next: next, covered: p.covered, err: p.err}
	p.covered = max(p.covered-1, 0)
	defer func() { l.ahead = ahead{} }()
	l.dispatch(c, item.binary, item.payload)
}
