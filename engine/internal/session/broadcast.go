package session

import (
	"github.com/gobwas/ws"

	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/protocol/message"
)

// broadcastBytes is about what a broadcast costs besides room and data; userBytes is what a user costs besides its text.
const (
	broadcastBytes = 112
	userBytes      = len(`,"user":`)
)

// BroadcastFrame is the message of c for the other members of a room. room and data are borrowed.
func (l *Loop) BroadcastFrame(c *Conn, room, data []byte) *turn.Frame {
	var id [ident.TextBytes]byte
	m, size := broadcastOf(l, c, message.Broadcast{Room: room, Data: data, From: c.ID().Append(id[:0])})
	return turn.BuildFrame(ws.OpText, size, func(dst []byte) []byte { return message.AppendBroadcast(dst, m) })
}

// BroadcastBody is that message without its last brace, for a room with history. It is borrowed until the loop writes another
// text.
func (l *Loop) BroadcastBody(c *Conn, room, data []byte) []byte {
	var id [ident.TextBytes]byte
	m, _ := broadcastOf(l, c, message.Broadcast{Room: room, Data: data, From: c.ID().Append(id[:0])})
	l.Text = message.AppendBroadcast(l.Text[:0], m)
	return l.Text[:len(l.Text)-1]
}

// broadcastOf completes a message of c, and returns about its size.
func broadcastOf(l *Loop, c *Conn, m message.Broadcast) (message.Broadcast, int) {
	m.User, m.Timestamp = c.QuotedUser(), l.Ground.Seconds(l.Now)
	size := len(m.Data) + len(m.Room) + broadcastBytes
	switch {
	case m.User == "":
	case l.Rooms.Above.ShowUsers():
		size += len(m.User) + userBytes
	default:
		m.User = ""
	}
	return m, size
}
