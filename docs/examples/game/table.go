package main

import (
	"log"
	"sync"
	"time"

	"github.com/parleyd/parley/engine"
)

const (
	tableName = "table"
	players   = 2
	sticksMax = 21
	takeMax   = 3
)

// Refusals. The client gets the code, and a person the message; the connection lives on.
var (
	errNoTable = &engine.Error{Code: "forbidden", Message: "there is one room: " + tableName}
	errWaiting = &engine.Error{Code: "waiting", Message: "the other seat is empty"}
	errTurn    = &engine.Error{Code: "not_your_turn", Message: "it is not your turn"}
	errSticks  = &engine.Error{Code: "bad_move", Message: "take 1 to 3 sticks, and no more than there are"}
)

// seat is a place at the table, of a user and not of a connection.
type seat struct {
	user string       // "" if it is free
	conn *engine.Conn // nil while the user is cut off
	away time.Time    // since when
}

// table has the state of the game. Its methods are called on event loops: none of them waits.
//
// Owner: shared (mutex: mu).
type table struct {
	srv    *engine.Server
	keep   time.Duration
	mu     sync.Mutex
	seats  [players]seat
	sticks int
	turn   int // index of the seat
}

// Allow gives a seat to a user that wants to join, or to come back: a resume asks, too.
func (t *table) Allow(c *engine.Conn, act engine.Act, room string, _ bool) engine.Decision {
	switch {
	case room != tableName, act == engine.ActPublish: // moves are messages of the type take
		return engine.Decision{Refuse: errNoTable}
	case act == engine.ActJoin && !t.reserve(c.Principal()):
		return engine.Decision{Refuse: engine.ErrRoomFull}
	}
	return engine.Decision{}
}

// reserve finds the user's seat, or one that is free or whose user was away for too long.
func (t *table) reserve(user string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.seatOf(user) != nil {
		return true
	}
	for i := range t.seats {
		if s := &t.seats[i]; s.user == "" || s.conn == nil && time.Since(s.away) > t.keep {
			*s = seat{user: user, away: time.Now()} // away until the room says that the user is in
			return true
		}
	}
	return false
}

// seatOf needs mu.
func (t *table) seatOf(user string) *seat {
	for i := range t.seats {
		if t.seats[i].user == user {
			return &t.seats[i]
		}
	}
	return nil
}

func (t *table) entered(e engine.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.seatOf(e.Conn.Principal())
	if s == nil {
		return
	}
	if s.conn != nil && s.conn != e.Conn { // another window of the same user: the newer one plays
		t.srv.Rooms().Leave(s.conn, tableName)
	}
	s.conn = e.Conn
	t.tell("")
}

func (t *table) left(e engine.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.seatOf(e.Conn.Principal())
	switch {
	case s == nil || s.conn != e.Conn:
		return
	case e.Conn.Cause() == engine.CauseNone: // the connection lives: the user has left on purpose
		*s = seat{}
	default:
		s.conn, s.away = nil, time.Now()
	}
	t.tell("")
}

type take struct {
	Sticks int `json:"sticks"`
}

// take is a move. The server checks it: a client can send anything at any time.
func (t *table) take(c *engine.Conn, m take, _ *engine.Server) (any, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.seats[t.turn].conn != c:
		return nil, errTurn
	case t.seats[1-t.turn].user == "":
		return nil, errWaiting
	case m.Sticks < 1 || m.Sticks > min(takeMax, t.sticks):
		return nil, errSticks
	}
	winner := ""
	if t.sticks -= m.Sticks; t.sticks == 0 { // and the next game begins
		winner, t.sticks = c.Principal(), sticksMax
	}
	t.turn = 1 - t.turn
	t.tell(winner)
	return engine.M{"type": "taken", "sticks": m.Sticks}, nil
}

// tell shows the table to its members. Under mu, so that they see all states in their order: a broadcast only queues. It needs mu.
func (t *table) tell(winner string) {
	state := engine.M{"type": "table", "room": tableName, "sticks": t.sticks, "turn": t.seats[t.turn].user,
		"players": [players]string{t.seats[0].user, t.seats[1].user}}
	if winner != "" {
		state["winner"] = winner
	}
	if _, err := t.srv.Broadcast(tableName, state); err != nil {
		log.Printf("the members of %s did not get its state: %v", tableName, err) // the next state has all that it had
	}
}
