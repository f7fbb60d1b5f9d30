package main

import (
	"time"

	"github.com/parleyd/parley/engine"
)

// The two message types of the seed's document, for its examples; the chat page sends private ones. And whoami, with which an
// operator finds out whether the server behind a proxy sees the client's address or the proxy's.

type chat struct {
	Room string `json:"room"`
	Text string `json:"text"`
	Name string `json:"name"`
}

type private struct {
	To   string `json:"to"`
	Text string `json:"text"`
	Name string `json:"name"`
}

// nameMax bounds a client's name, in bytes. Names are not checked: the id identifies the sender.
const nameMax = 64

var errName = &engine.Error{Code: "invalid_message", Message: "A name has 64 bytes at most"}

// signed adds the sender's name, if there is one, to a message.
func signed(m engine.M, name string) engine.M {
	if name != "" {
		m["name"] = name
	}
	return m
}

func registerChat(srv *engine.Server) {
	engine.On(srv, "chat", func(c *engine.Conn, m chat, s *engine.Server) (any, error) {
		if m.Room == "" {
			m.Room = "general"
		}
		if !s.Rooms().Has(m.Room, c) {
			return nil, engine.ErrNotInRoom
		}
		if len(m.Name) > nameMax {
			return nil, errName
		}
		_, err := s.Broadcast(m.Room, signed(engine.M{
			"type": "chat", "from": c.ID(), "room": m.Room, "text": m.Text, "timestamp": time.Now().Unix(),
		}, m.Name))
		if err != nil {
			return nil, err
		}
		return engine.M{"type": "chat_sent", "room": m.Room}, nil
	})
	engine.On(srv, "private", func(c *engine.Conn, m private, s *engine.Server) (any, error) {
		if m.To == "" {
			return engine.M{"type": "error", "code": "invalid_message", "message": "Target required"}, nil
		}
		if len(m.Name) > nameMax {
			return nil, errName
		}
		sent := s.SendTo(m.To, signed(engine.M{
			"type": "private", "from": c.ID(), "text": m.Text, "timestamp": time.Now().Unix(),
		}, m.Name))
		return engine.M{"type": "private_sent", "delivered": sent}, nil
	})
	engine.On(srv, "whoami", func(c *engine.Conn, _ struct{}, _ *engine.Server) (any, error) {
		facts := c.Facts()
		return engine.M{"type": "whoami", "connection_id": facts.ID, "remote_address": facts.RemoteAddress,
			"connected_at": facts.ConnectedAt}, nil
	})
}
