package main

import (
	"time"

	"github.com/parleyd/parley/engine"
)

// The two message types that the seed's document registers, for the chat page and for anybody who tries the
// server with the seed's examples, and whoami, which tells a client what the server knows of it: behind a proxy, whether
// the server sees the client's address or the proxy's.

type chat struct {
	Room string `json:"room"`
	Text string `json:"text"`
}

type private struct {
	To   string `json:"to"`
	Text string `json:"text"`
}

func registerChat(srv *engine.Server) {
	engine.On(srv, "chat", func(c *engine.Conn, m chat, s *engine.Server) (any, error) {
		if m.Room == "" {
			m.Room = "general"
		}
		if !s.Rooms().Has(m.Room, c) {
			return nil, engine.ErrNotInRoom
		}
		_, err := s.Broadcast(m.Room, engine.M{
			"type": "chat", "from": c.ID(), "room": m.Room, "text": m.Text, "timestamp": time.Now().Unix(),
		})
		if err != nil {
			return nil, err
		}
		return engine.M{"type": "chat_sent", "room": m.Room}, nil
	})
	engine.On(srv, "private", func(c *engine.Conn, m private, s *engine.Server) (any, error) {
		if m.To == "" {
			return engine.M{"type": "error", "code": "invalid_message", "message": "Target required"}, nil
		}
		sent := s.SendTo(m.To, engine.M{
			"type": "private", "from": c.ID(), "text": m.Text, "timestamp": time.Now().Unix(),
		})
		return engine.M{"type": "private_sent", "delivered": sent}, nil
	})
	engine.On(srv, "whoami", func(c *engine.Conn, _ struct{}, _ *engine.Server) (any, error) {
		facts := c.Facts()
		return engine.M{"type": "whoami", "connection_id": facts.ID, "remote_address": facts.RemoteAddress,
			"connected_at": facts.ConnectedAt}, nil
	})
}
