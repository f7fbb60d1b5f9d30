package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/parleyd/parley/engine"
)

// The examples of the seed's document, in its order, in Go (docs/from-the-seed.md).

type chat struct {
	Room string `json:"room"`
	Text string `json:"text"`
}

type private struct {
	To   string `json:"to"`
	Text string `json:"text"`
}

// seedServer is what the document's code blocks build up together.
func seedServer(t *testing.T, emitter *engine.Emitter) *engine.Server {
	t.Helper()
	server, err := engine.New(engine.Config{
		Host:                    "127.0.0.1",
		Port:                    -1,
		Processes:               1,
		HeartbeatInterval:       30 * time.Second,
		HeartbeatTimeout:        60 * time.Second,
		ReconnectionTTL:         300 * time.Second,
		ReconnectionMaxAttempts: 5,
		MaxConnectionsPerRoom:   100,
		MaxRoomsPerConnection:   10,
	}, engine.WithEmitter(emitter), engine.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	server.OnConnect(func(conn *engine.Conn, request *engine.Request) error {
		token, ok := strings.CutPrefix(request.Header("Authorization"), "Bearer ")
		if !ok {
			conn.CloseWith(4001, "Unauthorized")
			return nil
		}
		conn.SetPrincipal(token)
		return errors.Join(conn.SetAttribute("user_id", 123), conn.SetAttribute("user_name", token))
	})
	engine.On(server, "chat", func(conn *engine.Conn, message chat, server *engine.Server) (any, error) {
		if message.Text == "" || len(message.Text) > 1000 {
			return engine.M{"type": "error", "message": "Invalid message"}, nil
		}
		if last, ok := engine.Attribute[int64](conn, "last_message_time"); ok && time.Now().Unix()-last < 60 {
			return engine.M{"type": "error", "message": "Rate limited"}, nil
		}
		conn.SetAttribute("last_message_time", time.Now().Unix())
		room := message.Room
		if room == "" {
			room = "general"
		}
		if _, err := server.Broadcast(room, engine.M{
			"type": "chat", "from": conn.ID(), "room": room, "text": message.Text, "timestamp": time.Now().Unix(),
		}); err != nil {
			return nil, err
		}
		return engine.M{"type": "chat_sent", "room": room}, nil
	})
	engine.On(server, "private", func(conn *engine.Conn, message private, server *engine.Server) (any, error) {
		if message.To == "" {
			return engine.M{"type": "error", "message": "Target required"}, nil
		}
		sent := server.SendTo(message.To, engine.M{
			"type": "private", "from": conn.ID(), "text": message.Text, "timestamp": time.Now().Unix(),
		})
		return engine.M{"type": "private_sent", "delivered": sent}, nil
	})
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		server.Shutdown(ctx)
	})
	return server
}

// peer is a client that speaks the seed's messages.
type peer struct {
	t         *testing.T
	conn      net.Conn
	rw        wsutilConn
	id, token string
}

type wsutilConn struct {
	read func([]byte) (int, error)
	net.Conn
}

func (w wsutilConn) Read(p []byte) (int, error) { return w.read(p) }

func join(t *testing.T, s *engine.Server, user string) *peer {
	t.Helper()
	conn, br, _, err := ws.Dialer{Header: ws.HandshakeHeaderString("Authorization: Bearer " + user + "\r\n")}.Dial(t.Context(), "ws://"+s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	p := &peer{t: t, conn: conn, rw: wsutilConn{conn.Read, conn}}
	if br != nil {
		p.rw.read = br.Read
	}
	p.id = p.until("connected")["connection_id"].(string)
	p.token = p.until("reconnect_token")["token"].(string)
	return p
}

func (p *peer) say(v any) {
	p.t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		p.t.Fatal(err)
	}
	if err := wsutil.WriteClientText(p.conn, raw); err != nil {
		p.t.Fatal(err)
	}
}

// until reads up to a message of a type.
func (p *peer) until(typ string) map[string]any {
	p.t.Helper()
	p.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	for {
		raw, _, err := wsutil.ReadServerData(p.rw)
		if err != nil {
			p.t.Fatalf("waiting for %q: %v", typ, err)
		}
		var m map[string]any
		if err := json.Unmarshal(raw, &m); err != nil {
			p.t.Fatal(err)
		}
		if m["type"] == typ {
			return m
		}
	}
}

// The message handlers and the built-in types.
func TestSeedMessages(t *testing.T) {
	s := seedServer(t, engine.NewEmitter())
	ann, bob := join(t, s, "ann"), join(t, s, "bob")
	for _, p := range []*peer{ann, bob} {
		p.say(engine.M{"type": "join", "room": "general"})
		p.until("joined")
	}
	ann.say(engine.M{"type": "chat", "text": "hello"})
	if m := bob.until("chat"); m["from"] != ann.id || m["text"] != "hello" || m["room"] != "general" {
		t.Error(m)
	}
	ann.until("chat_sent")
	ann.say(engine.M{"type": "chat", "text": "again"})
	if m := ann.until("error"); m["message"] != "Rate limited" {
		t.Error(m)
	}
	ann.say(engine.M{"type": "chat"})
	if m := ann.until("error"); m["message"] != "Invalid message" {
		t.Error(m)
	}
	ann.say(engine.M{"type": "private"})
	if m := ann.until("error"); m["message"] != "Target required" {
		t.Error(m)
	}
	ann.say(engine.M{"type": "private", "to": bob.id, "text": "psst"})
	if m := bob.until("private"); m["text"] != "psst" {
		t.Error(m)
	}
	if m := ann.until("private_sent"); m["delivered"] != true {
		t.Error(m)
	}
	ann.say(engine.M{"type": "broadcast", "room": "general", "data": "hello"})
	bob.until("broadcast")
	ann.say(engine.M{"type": "ping"})
	ann.until("pong")
	ann.say(engine.M{"type": "leave", "room": "general"})
	bob.until("member_left")
}

// The room manager, broadcasts, the heartbeat manager, connections, stats.
func TestSeedManagers(t *testing.T) {
	s := seedServer(t, engine.NewEmitter())
	ann, bob := join(t, s, "ann"), join(t, s, "bob")
	rooms, connection := s.Rooms(), s.Connection(ann.id)
	if err := rooms.Create("game_room_1", engine.RoomOptions{MaxMembers: 50, Metadata: engine.M{"game_type": "chess"}}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(rooms.Join(connection, "game_room_1"), rooms.Join(s.Connection(bob.id), "game_room_1")); err != nil {
		t.Fatal(err)
	}
	s.Broadcast("game_room_1", engine.M{"type": "game_update", "data": 1}, bob.id)
	s.BroadcastAll(engine.M{"type": "system_notice", "message": "Server maintenance in 5 minutes"})
	ann.until("game_update")
	bob.until("system_notice")
	if n := len(rooms.Members("game_room_1")); n != 2 {
		t.Error(n)
	}
	if stats, ok := rooms.Stats("game_room_1"); !ok || stats.Connections != 2 || stats.CreatedAt == 0 {
		t.Error(stats)
	}
	if n := len(rooms.List()); n != 1 {
		t.Error(n)
	}
	rooms.Leave(connection, "game_room_1")
	bob.until("member_left")

	lastActivity := connection.LastActivity()
	connection.Touch()
	if connection.LastActivity().Before(lastActivity) || !connection.Alive() {
		t.Error("activity goes backwards")
	}
	userID, _ := engine.Attribute[int](connection, "user_id")
	if userID != 123 {
		t.Error(userID)
	}
	if f := connection.Facts(); f.ID != ann.id || f.RemoteAddress != "127.0.0.1" || f.ConnectedAt == 0 {
		t.Error(f)
	}
	userConnections := s.FindConnections(func(c *engine.Conn) bool {
		id, _ := engine.Attribute[int](c, "user_id")
		return id == 123
	})
	if len(userConnections) != 2 || s.ConnectionCount() != 2 {
		t.Error(len(userConnections))
	}
	raw, err := json.Marshal(s.Stats())
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"connections", "rooms", "messages_sent", "messages_received", "uptime", "memory_usage"} {
		if !strings.Contains(string(raw), `"`+key+`":`) {
			t.Errorf("no %q in %s", key, raw)
		}
	}
	connection.Send(engine.M{"type": "hello"})
	ann.until("hello")
	connection.Close()
}

// A request without a token is closed with 4001.
func TestSeedUnauthorized(t *testing.T) {
	s := seedServer(t, engine.NewEmitter())
	conn, br, _, err := ws.Dialer{}.Dial(t.Context(), "ws://"+s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	p := wsutilConn{conn.Read, conn}
	if br != nil {
		p.read = br.Read
	}
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	f, err := ws.ReadFrame(p)
	if err != nil || f.Header.OpCode != ws.OpClose {
		t.Fatal(err, f)
	}
	if code, reason := ws.ParseCloseFrameData(f.Payload); code != 4001 || reason != "Unauthorized" {
		t.Error(code, reason)
	}
}

// The events, the disconnect event's token, and the client that reconnects with it.
func TestSeedEventsAndReconnect(t *testing.T) {
	emitter := engine.NewEmitter()
	var mu sync.Mutex
	said := map[string]int{}
	for _, kind := range []engine.EventKind{"websocket.started", "websocket.connect", "websocket.disconnect", "websocket.room.join",
		"websocket.room.leave", "websocket.reconnect", "websocket.message"} {
		emitter.On(kind, func(e engine.Event) {
			mu.Lock()
			said[string(e.Kind)]++
			mu.Unlock()
		})
	}
	tokens := make(chan string, 4)
	emitter.On(engine.EventDisconnect, func(e engine.Event) { tokens <- e.Token })
	previous := make(chan string, 1)
	emitter.On(engine.EventReconnect, func(e engine.Event) { previous <- e.Session.PreviousConnectionID })
	s := seedServer(t, emitter)
	ann := join(t, s, "ann")
	ann.say(engine.M{"type": "join", "room": "general"})
	ann.until("joined")
	ann.conn.Close()
	token := <-tokens
	if token != ann.token {
		t.Errorf("the event's token is %q, the client's %q", token, ann.token)
	}
	again := join(t, s, "ann")
	again.say(engine.M{"type": "reconnect", "token": token})
	again.until("reconnected")
	if id := <-previous; id != ann.id {
		t.Error(id)
	}
	mu.Lock()
	defer mu.Unlock()
	for _, kind := range []string{"started", "connect", "disconnect", "room.join", "room.leave", "reconnect", "message"} {
		if said["websocket."+kind] == 0 {
			t.Errorf("no %s event", kind)
		}
	}
}
