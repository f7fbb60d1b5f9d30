package engine

import (
	"github.com/gobwas/ws"

	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/handshake"
)

// Shorthands for the transport of a connection.

func (l *loop) answer(c *Conn, payload []byte) { l.Loop.Answer(&c.wire, payload) }

func (l *loop) answerAs(c *Conn, op ws.OpCode, payload []byte) {
	l.Loop.AnswerAs(&c.wire, op, payload)
}

func (l *loop) answerNow(c *Conn, payload []byte) { l.Loop.AnswerNow(&c.wire, payload) }

func (l *loop) end(c *Conn, cause Cause, code ws.StatusCode, reason string) {
	l.Loop.End(&c.wire, cause, code, reason)
}

func (l *loop) endBy(c *Conn, cause Cause) { l.Loop.EndBy(&c.wire, cause) }

func (l *loop) refuse(c *Conn, r handshake.Refusal) { l.Loop.Refuse(&c.wire, r) }

// place is the connection's place on its worker. Any goroutine.
func (c *Conn) place() place { return c.wire.Place() }

func (c *Conn) has(f turn.ConnFlags) bool { return c.wire.Has(f) }
