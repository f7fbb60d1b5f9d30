package session

import (
	"bytes"

	"github.com/parleyd/parley/engine/internal/pending"
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
	next    []pending.Item
	covered int // of next, together with the one that is being handled
	err     error
}

// lookAhead returns the moves that wait next for c.
func (l *Loop) lookAhead(c *Conn) (moves []move) {
	if l.ahead.c != c {
		return nil
	}
	for _, item := range l.ahead.next[:min(len(l.ahead.next), movesAhead)] {
		var e message.Envelope
		if item.Binary || item.Closing || message.Route(item.Payload, &e) != message.OK || message.ValidRoom(e.Room) != message.OK {
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

// Next dispatches a held item of p; next are the items behind it.
func Next(t *pending.Conn, p *pending.Pending, item pending.Item, next []pending.Item) {
	c := ConnOf(t.Wire())
	l := c.loop()
	l.ahead = ahead{c: c, next: next}
	if x, ok := p.Of.(*storedMove); ok {
		l.ahead.covered, l.ahead.err = x.covered, x.err
		x.covered = max(x.covered-1, 0)
	}
	defer func() { l.ahead = ahead{} }()
	l.Sessions.Above.Dispatch(c, item.Binary, item.Payload)
}
