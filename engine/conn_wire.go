package engine

import (
	"github.com/gobwas/ws"

	"github.com/parleyd/parley/protocol/handshake"
)

// What the rest of the server asks of a connection's transport.

func (l *loop) answer(c *Conn, payload []byte) { l.turnLoop.answer(&c.turnConn, payload) }

func (l *loop) answerAs(c *Conn, op ws.OpCode, payload []byte) {
	l.turnLoop.answerAs(&c.turnConn, op, payload)
}

func (l *loop) answerNow(c *Conn, payload []byte) { l.turnLoop.answerNow(&c.turnConn, payload) }

func (l *loop) end(c *Conn, cause Cause, code ws.StatusCode, reason string) {
	l.turnLoop.end(&c.turnConn, cause, code, reason)
}

func (l *loop) endBy(c *Conn, cause Cause) { l.turnLoop.endBy(&c.turnConn, cause) }

func (l *loop) refuse(c *Conn, r handshake.Refusal) { l.turnLoop.refuse(&c.turnConn, r) }
