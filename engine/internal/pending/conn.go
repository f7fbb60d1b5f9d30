package pending

import (
	"unsafe"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/protocol/message"
)

// Conn is a connection that can wait for an answer.
type Conn struct {
	turn.Conn
	Rare *Rare // nil while nothing in it is in use
}

// Rare is state that few connections need, and those for a short time. The floors above add theirs: [Above.NewRare].
//
// Owner: loop.
type Rare struct {
	Pending  *Pending
	Closing  *CloseCall
	AnswerBy int64    // deadline of the authentication, or of claimants that wait for the connection's session
	heirs    []func() // claimants, and others that wait until the held messages have been carried out
	Token    Token
}

// Token are the times, on the server's clock, at which a connection whose identity ends is warned and closed; 0 for never.
//
// Owner: loop.
type Token struct {
	WarnAt, CloseAt int64
	Refusals        uint8 // of further tokens, in a row
}

// Idle reports whether no field is in use.
func (r *Rare) Idle() bool {
	return r.Pending == nil && r.Closing == nil && r.AnswerBy == 0 && r.heirs == nil && r.Token == (Token{})
}

// CloseCall is a close that the connect handler has asked for, and that waits for the upgrade.
type CloseCall struct {
	Cause  turn.Cause
	Code   ws.StatusCode
	Reason string
}

// CloseCallOf is a close for an application's code and reason, with ones that may be sent. Any goroutine.
func (c *Conn) CloseCallOf(code ws.StatusCode, reason string) *CloseCall {
	code, reason = turn.Farewell(c.Loop.Ground.Log, c.ID(), code, reason)
	cause := turn.CauseApplication
	if code == turn.StatusUnauthorized {
		cause = turn.CauseUnauthorized
	}
	return &CloseCall{Cause: cause, Code: code, Reason: reason}
}

// CloseWith ends the connection, soon; if the connect handlers have not decided yet, after the upgrade. Any goroutine.
func (c *Conn) CloseWith(code ws.StatusCode, reason string) {
	call := c.CloseCallOf(code, reason)
	c.Loop.PostCall(func() {
		if c.Phase == turn.PhaseVerdict {
			c.WithRare().Closing = call
			return
		}
		c.End(call.Cause, call.Code, call.Reason)
	})
}

// Loop is a loop whose connections can wait.
type Loop struct {
	turn.Loop
	Link  *fleet.Link
	Above *Above
}

// Above are the functions of the floors above, on the loop of the connection that they are given.
type Above struct {
	// NewRare makes the state of all floors, of which this floor's is the first.
	NewRare func() *Rare
	// Next carries out a message that has waited for p; rest are the ones behind it.
	Next func(c *Conn, p *Pending, item Item, rest []Item)
}

// ConnOf is the connection whose transport is c; nil for nil.
func ConnOf(c *turn.Conn) *Conn { return (*Conn)(unsafe.Pointer(c)) }

// loop is the loop that the connection lives on.
func (c *Conn) loop() *Loop { return (*Loop)(unsafe.Pointer(c.Loop)) }

// Wire is the connection's transport.
func (c *Conn) Wire() *turn.Conn { return &c.Conn }

// Base is the transport's loop.
func (l *Loop) Base() *turn.Loop { return &l.Loop }

// WithRare returns the rare part, making it on first use.
func (c *Conn) WithRare() *Rare {
	if c.Rare == nil {
		c.Rare = c.loop().Above.NewRare()
	}
	return c.Rare
}

// ID names the connection to clients and to the server's calls. Any goroutine.
func (c *Conn) ID() ident.ID { return c.loop().Link.IDOf(c.Place()) }

// Complain answers with an error message. ref is borrowed.
func (c *Conn) Complain(e *message.Error, ref []byte) {
	l := c.Loop
	l.Count[CountErrors].Add(1)
	l.Text = message.AppendError(l.Text[:0], e.Code, e.Message, ref)
	c.Answer(l.Text)
}

// Counts of this floor.
const (
	CountErrors = turn.CountersOfOwner + iota
	CountOverdue
	CountersOfOwner // the kinds from here on are the floors' above
)
