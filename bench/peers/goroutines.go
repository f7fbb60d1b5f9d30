//go:build linux

package peers

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/coder/websocket"
	"github.com/gobwas/ws"
	gorilla "github.com/gorilla/websocket"
	"github.com/lxzan/gws"
	"github.com/olahol/melody"
)

// The servers with goroutines for each connection.

var lastID atomic.Uint64

// serveGws follows the README of gws: an upgrader, a goroutine for the read loop, a Broadcaster for rooms.
func serveGws(addr string, echo bool) error {
	h := &gwsHandler{hub: newHub[*gws.Conn](), echo: echo}
	upgrader := gws.NewUpgrader(h, &gws.ServerOption{})
	return http.ListenAndServe(addr, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if socket, err := upgrader.Upgrade(w, r); err == nil {
			go socket.ReadLoop()
		}
	}))
}

type gwsHandler struct {
	gws.BuiltinEventHandler
	hub  *hub[*gws.Conn]
	echo bool
}

func (h *gwsHandler) OnOpen(c *gws.Conn) { c.Session().Store("id", lastID.Add(1)) }

func (h *gwsHandler) OnClose(c *gws.Conn, _ error) { h.hub.leave(c) }

func (h *gwsHandler) OnMessage(c *gws.Conn, m *gws.Message) {
	defer m.Close()
	if h.echo {
		c.WriteMessage(m.Opcode, m.Bytes())
		return
	}
	var e envelope
	if json.Unmarshal(m.Bytes(), &e) != nil {
		return
	}
	switch e.Type {
	case "join":
		c.WriteMessage(gws.OpcodeText, joined(e.Room, h.hub.join(e.Room, c)))
	case "broadcast":
		id, _ := c.Session().Load("id")
		b := gws.NewBroadcaster(gws.OpcodeText, broadcast(e.Room, id.(uint64), e.Data))
		n := h.hub.others(e.Room, c, func(other *gws.Conn) { b.Broadcast(other) })
		b.Close()
		c.WriteMessage(gws.OpcodeText, sent(e.Room, n))
	}
}

// serveGorilla follows gorilla's chat example: a channel and a writing goroutine for each connection; rooms share a
// PreparedMessage.
func serveGorilla(addr string, echo bool) error {
	upgrader := gorilla.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
	hub := newHub[*gorillaClient]()
	return http.ListenAndServe(addr, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		if echo {
			for {
				kind, p, err := conn.ReadMessage()
				if err != nil || conn.WriteMessage(kind, p) != nil {
					conn.Close()
					return
				}
			}
		}
		c := &gorillaClient{conn: conn, id: lastID.Add(1), send: make(chan *gorilla.PreparedMessage, 256)}
		go c.write()
		c.read(hub)
	}))
}

type gorillaClient struct {
	conn *gorilla.Conn
	id   uint64
	send chan *gorilla.PreparedMessage
}

func (c *gorillaClient) write() {
	for m := range c.send {
		if c.conn.WritePreparedMessage(m) != nil {
			return
		}
	}
}

func (c *gorillaClient) text(p []byte) {
	m, err := gorilla.NewPreparedMessage(gorilla.TextMessage, p)
	if err == nil {
		c.send <- m
	}
}

func (c *gorillaClient) read(hub *hub[*gorillaClient]) {
	defer c.conn.Close()
	defer hub.leave(c)
	for {
		_, p, err := c.conn.ReadMessage()
		if err != nil {
			return
		}
		var e envelope
		if json.Unmarshal(p, &e) != nil {
			return
		}
		switch e.Type {
		case "join":
			c.text(joined(e.Room, hub.join(e.Room, c)))
		case "broadcast":
			m, err := gorilla.NewPreparedMessage(gorilla.TextMessage, broadcast(e.Room, c.id, e.Data))
			if err != nil {
				return
			}
			c.text(sent(e.Room, hub.others(e.Room, c, func(other *gorillaClient) {
				select {
				case other.send <- m:
				default:
					other.conn.Close() // it does not keep up
				}
			})))
		}
	}
}

// serveGobwas follows the README of gobwas/ws, with a goroutine and buffers for each connection. The answers to all
// messages of one read leave in one write.
func serveGobwas(addr string, echo bool) error {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	hub := newHub[*gobwasClient]()
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			if _, err := ws.Upgrade(conn); err != nil {
				return
			}
			c := &gobwasClient{conn: conn, id: lastID.Add(1)}
			defer hub.leave(c)
			c.serve(hub, echo)
		}()
	}
}

type gobwasClient struct {
	conn net.Conn
	id   uint64
	mu   sync.Mutex
}

func (c *gobwasClient) write(p []byte) {
	c.mu.Lock()
	c.conn.Write(p)
	c.mu.Unlock()
}

func (c *gobwasClient) serve(hub *hub[*gobwasClient], echo bool) {
	in := bufio.NewReader(c.conn)
	var out, payload []byte
	for {
		h, err := ws.ReadHeader(in)
		if err != nil || h.OpCode == ws.OpClose {
			return
		}
		if int64(cap(payload)) < h.Length {
			payload = make([]byte, h.Length)
		}
		payload = payload[:h.Length]
		if _, err := io.ReadFull(in, payload); err != nil {
			return
		}
		ws.Cipher(payload, h.Mask, 0)
		if echo {
			out = serverFrame(out, byte(h.OpCode), payload)
		} else if out, err = c.message(hub, payload, out); err != nil {
			return
		}
		if in.Buffered() == 0 && len(out) > 0 {
			c.write(out)
			out = out[:0]
		}
	}
}

func (c *gobwasClient) message(hub *hub[*gobwasClient], payload, out []byte) ([]byte, error) {
	var e envelope
	if err := json.Unmarshal(payload, &e); err != nil {
		return out, err
	}
	switch e.Type {
	case "join":
		return serverFrame(out, 1, joined(e.Room, hub.join(e.Room, c))), nil
	case "broadcast":
		compiled, err := ws.CompileFrame(ws.NewTextFrame(broadcast(e.Room, c.id, e.Data)))
		if err != nil {
			return out, err
		}
		n := hub.others(e.Room, c, func(other *gobwasClient) { other.write(compiled) })
		return serverFrame(out, 1, sent(e.Room, n)), nil
	}
	return out, nil
}

// serveCoder follows coder's chat example: a channel for each subscriber, and a goroutine that writes from it.
func serveCoder(addr string, echo bool) error {
	hub := newHub[*coderClient]()
	return http.ListenAndServe(addr, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
		if err != nil {
			return
		}
		defer conn.CloseNow()
		ctx := context.Background()
		if echo {
			for {
				kind, p, err := conn.Read(ctx)
				if err != nil || conn.Write(ctx, kind, p) != nil {
					return
				}
			}
		}
		c := &coderClient{conn: conn, id: lastID.Add(1), send: make(chan []byte, 256)}
		defer hub.leave(c)
		go func() {
			for p := range c.send {
				if conn.Write(ctx, websocket.MessageText, p) != nil {
					return
				}
			}
		}()
		c.read(ctx, hub)
	}))
}

type coderClient struct {
	conn *websocket.Conn
	id   uint64
	send chan []byte
}

func (c *coderClient) read(ctx context.Context, hub *hub[*coderClient]) {
	for {
		_, p, err := c.conn.Read(ctx)
		if err != nil {
			return
		}
		var e envelope
		if json.Unmarshal(p, &e) != nil {
			return
		}
		switch e.Type {
		case "join":
			c.send <- joined(e.Room, hub.join(e.Room, c))
		case "broadcast":
			out := broadcast(e.Room, c.id, e.Data)
			c.send <- sent(e.Room, hub.others(e.Room, c, func(other *coderClient) {
				select {
				case other.send <- out:
				default:
					go other.conn.CloseNow() // it does not keep up
				}
			}))
		}
	}
}

// serveMelody follows melody's README: handlers, and broadcasts to a list of sessions.
func serveMelody(addr string, echo bool) error {
	m := melody.New()
	m.Config.MaxMessageSize = 1 << 20
	m.Config.MessageBufferSize = 1 << 16 // melody drops messages beyond it
	hub := newHub[*melody.Session]()
	m.HandleConnect(func(s *melody.Session) { s.Set("id", lastID.Add(1)) })
	m.HandleDisconnect(hub.leave)
	m.HandleMessage(func(s *melody.Session, p []byte) {
		if echo {
			s.Write(p)
			return
		}
		var e envelope
		if json.Unmarshal(p, &e) != nil {
			return
		}
		switch e.Type {
		case "join":
			s.Write(joined(e.Room, hub.join(e.Room, s)))
		case "broadcast":
			id, _ := s.Get("id")
			out := broadcast(e.Room, id.(uint64), e.Data)
			s.Write(sent(e.Room, hub.others(e.Room, s, func(other *melody.Session) { other.Write(out) })))
		}
	})
	return http.ListenAndServe(addr, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { m.HandleRequest(w, r) }))
}
