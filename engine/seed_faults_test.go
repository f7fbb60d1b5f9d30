package engine

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/engine/internal/turn"
)

// The faults of the seed's implementation that must not come back, one test each.

// Our own sends keep no connection alive: a client that never sends anything is closed although it receives messages.
func TestSeedFaultLivenessRefreshedByOwnSends(t *testing.T) {
	const timeout = 4 * time.Second
	w := newScript(t, func(c *Config) { c.HeartbeatInterval, c.HeartbeatTimeout = time.Second, timeout })
	mute, heard := w.open(0), 0
	for mute.Cause() == CauseNone && w.now <= timeout+time.Second {
		w.server.Server.BroadcastAll(M{"type": "noise"})
		heard++
		w.drain()
		w.pass(w.server.TickEvery())
	}
	if mute.Cause() != CauseHeartbeat || w.now < timeout || w.now > timeout+time.Second {
		t.Errorf("after %v the cause is %v; the timeout is %v, and one second more is allowed", w.now, mute.Cause(), timeout)
	}
	texts := w.read(mute)
	if got := strings.Count(kinds(texts), "noise"); got != heard {
		t.Errorf("it is told %d of %d messages", got, heard)
	}
	if last := texts[len(texts)-1]; last != fmt.Sprint("close ", StatusHeartbeat) {
		t.Error("its last word is", last)
	}
}

// A token works once.
func TestSeedFaultTokenUsableTwice(t *testing.T) {
	s := startServer(t, nil, nil)
	first := dial(t, s)
	first.conn.Close()
	eventually(t, "the session is parked", func() bool { return s.Stats().Sessions == 1 })
	var won, lost atomic.Int32
	heirs := make([]*client, 8)
	for i := range heirs {
		heirs[i] = dial(t, s)
	}
	for _, h := range heirs {
		h.send(`{"type":"reconnect","token":"` + first.token + `"}`)
	}
	for _, h := range heirs {
		switch m := h.next(); {
		case m["type"] == "reconnected":
			won.Add(1)
		case m["code"] == "invalid_token":
			lost.Add(1)
		default:
			t.Error(m)
		}
	}
	if won.Load() != 1 || lost.Load() != 7 {
		t.Errorf("%d claims won, %d lost", won.Load(), lost.Load())
	}
}

// The client is told its token at once, not the disconnect event alone.
func TestSeedFaultTokenNeverReachesTheClient(t *testing.T) {
	s := startServer(t, nil, nil)
	c := dial(t, s)
	if len(c.token) < 22 {
		t.Errorf("the token %q holds less than 128 bits", c.token)
	}
}

// Connect handlers run, and see the request.
func TestSeedFaultConnectHandlersNeverRun(t *testing.T) {
	s := startServer(t, nil, func(s *Server) {
		s.OnConnect(func(c *Conn, r *Request) error {
			if r.Header("Authorization") != "Bearer good" {
				return Refuse(StatusUnauthorized, "Unauthorized")
			}
			return c.SetAttribute("user_id", 123)
		})
	})
	if code := dialBare(t, s, ws.Dialer{}).expectClose(); code != StatusUnauthorized {
		t.Errorf("closed with %d", code)
	}
	good := dialBare(t, s, ws.Dialer{Header: ws.HandshakeHeaderString("Authorization: Bearer good\r\n")})
	id := good.expect("connected")["connection_id"].(string)
	if v, ok := Attribute[int](s.Connection(id), "user_id"); !ok || v != 123 {
		t.Error("the attribute set by the connect handler is missing")
	}
}

// Close codes reach the client.
func TestSeedFaultCloseCodesNeverReachTheClient(t *testing.T) {
	s := startServer(t, nil, nil)
	c := dial(t, s)
	s.Connection(c.id).CloseWith(4321, "because")
	if code := c.expectClose(); code != 4321 {
		t.Errorf("closed with %d", code)
	}
}

// Those who stay hear of those who drop.
func TestSeedFaultMemberLeftMissingOnDisconnect(t *testing.T) {
	s := startServer(t, nil, nil)
	ann, bob := dial(t, s), dial(t, s)
	ann.send(`{"type":"join","room":"r"}`)
	ann.expect("joined")
	bob.send(`{"type":"join","room":"r"}`)
	bob.expect("joined")
	ann.expect("member_joined")
	bob.conn.Close()
	if m := ann.expect("member_left"); m["connection_id"] != bob.id || m["room"] != "r" {
		t.Error(m)
	}
}

// A second join is answered, and announced to no member.
func TestSeedFaultRepeatedJoinAnnouncedTwice(t *testing.T) {
	s := startServer(t, nil, nil)
	ann, bob := dial(t, s), dial(t, s)
	ann.send(`{"type":"join","room":"r"}`)
	ann.expect("joined")
	for range 2 {
		bob.send(`{"type":"join","room":"r"}`)
		if m := bob.expect("joined"); m["members"] != 2.0 {
			t.Error(m)
		}
	}
	ann.expect("member_joined")
	bob.send(`{"type":"broadcast","room":"r","data":1}`)
	ann.expect("broadcast") // and not a second member_joined
}

// 0, false, "" and null are data. Nothing at all is a typing error, which the sender is told.
func TestSeedFaultFalsyDataRefused(t *testing.T) {
	s := startServer(t, nil, nil)
	ann, bob := dial(t, s), dial(t, s)
	for _, c := range []*client{ann, bob} {
		c.send(`{"type":"join","room":"r"}`)
		c.expect("joined")
	}
	ann.expect("member_joined")
	for text, want := range map[string]any{`,"data":0`: 0.0, `,"data":false`: false, `,"data":""`: "", `,"data":null`: nil} {
		bob.send(`{"type":"broadcast","room":"r"` + text + `}`)
		if m := ann.expect("broadcast"); m["data"] != want {
			t.Errorf("%s: got %v", text, m)
		}
		bob.expect("broadcast_sent")
	}
	bob.send(`{"type":"broadcast","room":"r","ref":1}`)
	if m := bob.expect("error"); m["code"] != "data_required" || m["ref"] != 1.0 {
		t.Error(m)
	}
}

// counted counts how often it is encoded.
type counted struct{ n *atomic.Int32 }

func (c counted) MarshalJSON() ([]byte, error) {
	c.n.Add(1)
	return []byte(`{"type":"counted"}`), nil
}

// A broadcast is encoded once, not once per recipient.
func TestSeedFaultEncodingOncePerRecipient(t *testing.T) {
	s := startServer(t, nil, nil)
	clients := make([]*client, 10)
	for i := range clients {
		clients[i] = dial(t, s)
		s.Rooms().Join(s.Connection(clients[i].id), "r")
	}
	var n atomic.Int32
	if members, err := s.Broadcast("r", counted{&n}); err != nil || members != 10 {
		t.Fatal(members, err)
	}
	for _, c := range clients {
		for c.next()["type"] != "counted" {
		}
	}
	// Under the race detector sonic encodes everything twice: what counts is what encoding once costs.
	var once atomic.Int32
	if _, err := turn.EncodeFrame(counted{&once}); err != nil || n.Load() != once.Load() {
		t.Errorf("encoded %d times, once costs %d (%v)", n.Load(), once.Load(), err)
	}
}

// A full room does not refuse its own member.
func TestSeedFaultFullRoomRefusesItsOwnMember(t *testing.T) {
	s := startServer(t, func(c *Config) { c.MaxConnectionsPerRoom = 1 }, nil)
	ann, bob := dial(t, s), dial(t, s)
	for range 2 {
		ann.send(`{"type":"join","room":"r"}`)
		ann.expect("joined")
	}
	bob.send(`{"type":"join","room":"r","ref":"x"}`)
	if m := bob.expect("error"); m["code"] != "room_full" || m["ref"] != "x" {
		t.Error(m)
	}
	if err := s.Rooms().Join(s.Connection(bob.id), "r"); err != ErrRoomFull {
		t.Error(err)
	}
	if err := s.Rooms().Join(s.Connection(ann.id), "r"); err != nil {
		t.Error(err)
	}
	ann.send(`{"type":"leave","room":"r"}`)
	ann.expect("left")
	bob.send(`{"type":"join","room":"r"}`)
	bob.expect("joined")
}

// Each error code of the wire protocol that a single client can provoke.
func TestErrorCodes(t *testing.T) {
	s := startServer(t, func(c *Config) { c.MaxRoomsPerConnection = 1 }, nil)
	c := dial(t, s)
	for _, x := range []struct{ send, code string }{
		{`hello`, "invalid_json"}, {`[]`, "invalid_json"}, {`{"type":"join"`, "invalid_message"},
		{`{"type":5,"ref":1}`, "invalid_message"}, {`{"type":"nope"}`, "unknown_type"},
		{`{"type":"join"}`, "room_required"}, {`{"type":"join","room":""}`, "room_required"},
		{`{"type":"join","room":7}`, "invalid_room"}, {`{"type":"join","room":"a\n"}`, "invalid_room"},
		{`{"type":"join","room":"` + strings.Repeat("a", 256) + `"}`, "invalid_room"},
		{`{"type":"leave","room":"r"}`, "not_in_room"}, {`{"type":"broadcast","room":"r","data":1}`, "not_in_room"},
		{`{"type":"members","room":"r"}`, "not_in_room"},
		{`{"type":"reconnect"}`, "invalid_token"}, {`{"type":"reconnect","token":"x"}`, "invalid_token"},
		{`{"type":"reconnect","token":"` + c.token + `"}`, "invalid_token"},
		{`{"type":"auth","token":"x"}`, "unknown_type"},
	} {
		c.send(x.send)
		if m := c.expect("error"); m["code"] != x.code || m["message"] == "" {
			t.Errorf("%s: got %v, want %s", x.send, m, x.code)
		}
	}
	c.send(`{"type":"join","room":"one"}`)
	c.expect("joined")
	c.send(`{"type":"join","room":"two","ref":9}`)
	if m := c.expect("error"); m["code"] != "too_many_rooms" || fmt.Sprint(m["ref"]) != "9" {
		t.Error(m)
	}
	c.send(`pong`)
	c.send(`{"type":"pong"}`)
	c.send(`{"type":"ping","ref":3}`)
	if m := c.expect("pong"); m["ref"] != 3.0 || m["timestamp"] == nil {
		t.Error(m)
	}
}
