package engine

import (
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

const (
	joinText      = `{"type":"join","room":"r"}`
	broadcastText = `{"type":"broadcast","room":"r","data":"last"}`
)

var closeFrame = string(masked(ws.OpClose, "\x03\xe8"))

func maskedTexts(texts ...string) (all string) {
	for _, text := range texts {
		all += string(masked(ws.OpText, text))
	}
	return all
}

// Messages that a client sent before its stream ended reach the others, whatever was pending then, and however it ended.
func TestLastWordsWaitForTheAnswer(t *testing.T) {
	for _, end := range []string{"close", "gone", "close and gone", "violation", "binary"} {
		for _, way := range []string{"connect", "auth", "offloaded", "seat", "claim"} {
			t.Run(way+", "+end, func(t *testing.T) { lastWords(t, way, end) })
		}
	}
}

func lastWords(t *testing.T, way, end string) {
	w, d := newSeatGiver(t, func(c *Config) {
		if way != "seat" {
			c.MaxConnectionsPerRoom = 0
		}
	})
	s := w.server.Server
	ann := w.open(0)
	w.say(ann, joinText)
	if way == "seat" {
		d.answer("r", nil)
	}
	w.drain()
	texts := maskedTexts(joinText, broadcastText)
	var c *Conn
	switch way {
	case "connect":
		s.OnConnect(func(*Conn, *Request) error { return nil })
		w.out[1] = new(bytes.Buffer)
		c = w.server.Open(1, 1)
		w.server.Serve(c, []byte(wholeRequest))
	case "auth":
		s.OnAuth(func(*Conn, string) error { return nil })
		c = w.open(1)
		texts = maskedTexts(`{"type":"auth","token":"x"}`) + texts
	case "offloaded":
		s.On("work", func(*Conn, *Message, *Server) (any, error) { return nil, nil }, Offload())
		c = w.open(1)
		texts = maskedTexts(`{"type":"work"}`) + texts
	case "seat":
		c = w.open(1)
	case "claim":
		c = w.open(1)
		texts = maskedTexts(`{"type":"reconnect","token":"`+w.token(w.open(0))+`"}`) + texts
	}
	switch end {
	case "close", "close and gone":
		texts += closeFrame
	case "violation":
		texts += "\xff\xff"
	case "binary":
		texts += string(masked(ws.OpBinary, "x"))
	}
	w.read(ann)
	w.server.Serve(c, []byte(texts))
	if end == "gone" || end == "close and gone" {
		w.server.Gone(c)
	}
	if w.server.Offloaded(); way == "seat" {
		w.expect(ann, "")
		d.answer("r", nil)
	}
	w.drain()
	w.expect(ann, "broadcast")
	if c.Cause() == CauseNone || s.Rooms().Has("r", c) {
		t.Error("it lives on")
	}
	if end == "gone" || end == "close and gone" {
		if !w.server.Ended(c) || c.loop().Slab.At(c.wire.Slot) == c.wire.Wire() {
			t.Error("its slot is kept")
		}
		if want := map[bool]Cause{true: CausePeerGone, false: CausePeerClosed}[end == "gone"]; c.Cause() != want {
			t.Errorf("the cause is %v, want %v", c.Cause(), want)
		}
	}
}

// A connection without a transport waits no longer than offload_timeout; nothing is written for it.
func TestLastWordsAreBounded(t *testing.T) {
	w := newScript(t, func(c *Config) { c.OffloadTimeout = time.Second })
	s := w.server.Server
	s.On("work", func(*Conn, *Message, *Server) (any, error) { return nil, nil }, Offload())
	c := w.open(0)
	w.read(c)
	fd := int(c.wire.Fd)
	w.server.Serve(c, []byte(maskedTexts(`{"type":"work"}`, `{"type":"work"}`, `{"type":"work"}`)))
	w.server.Gone(c)
	c.Send(M{"type": "push"})
	w.drain()
	if c.Cause() != CauseNone || s.ConnectionCount() != 1 {
		t.Fatal("it is gone already:", c.Cause())
	}
	w.pass(1300 * time.Millisecond)
	if c.Cause() != CausePeerGone || !w.server.Ended(c) || s.ConnectionCount() != 0 || w.out[fd].Len() != 0 {
		t.Error(c.Cause(), w.server.Ended(c), s.ConnectionCount(), w.out[fd])
	}
}

// An heir waits until all messages that its session's connection has sent are carried out, and inherits the result.
func TestHeirsWaitForLastWords(t *testing.T) {
	w := newScript(t, nil)
	s := w.server.Server
	s.On("work", func(c *Conn, _ *Message, _ *Server) (any, error) { return nil, c.SetAttribute("worked", true) }, Offload())
	ann, c, heir := w.open(0), w.open(1), w.open(0)
	w.say(ann, joinText)
	w.server.Serve(c, []byte(maskedTexts(`{"type":"work"}`, joinText, broadcastText)))
	token := w.token(c)
	w.server.Gone(c)
	w.read(ann)
	w.read(heir)
	w.say(heir, `{"type":"reconnect","token":"`+token+`"}`)
	w.drain()
	w.expect(heir, "")
	w.server.Offloaded()
	w.drain()
	w.expect(ann, "member_joined broadcast member_left member_joined")
	w.expect(heir, "reconnected reconnect_token")
	if worked, _ := Attribute[bool](heir, "worked"); !worked || !s.Rooms().Has("r", heir) || !w.server.Ended(c) || c.Cause() != CauseTakenOver {
		t.Error("the heir did not inherit all:", worked, s.Rooms().Has("r", heir), c.Cause())
	}
}

// Input that lies unread in the socket when a write fails is taken, too.
func TestUnreadWhenAWriteFails(t *testing.T) {
	w := newScript(t, nil)
	ann, c := w.open(0), w.open(1)
	w.say(ann, joinText)
	w.say(c, joinText)
	w.drain()
	w.read(ann)
	w.read(c)
	c.wire.Lose()
	w.say(c, broadcastText)
	w.server.Gone(c)
	w.drain()
	w.expect(ann, "broadcast member_left")
	if c.Cause() != CausePeerGone || !w.server.Ended(c) {
		t.Error(c.Cause())
	}
}

// The same over sockets: everything in one piece, then a close frame and the end, the end alone, or a reset.
func TestLastWordsOverLoopback(t *testing.T) {
	asked, release := make(chan struct{}), make(chan struct{})
	s := startServer(t, nil, func(s *Server) {
		s.OnConnect(func(_ *Conn, r *Request) error {
			if r.Query("slow") != "" {
				asked <- struct{}{}
				<-release
			}
			return nil
		})
		s.On("work", func(*Conn, *Message, *Server) (any, error) {
			asked <- struct{}{}
			<-release
			return nil, nil
		}, Offload())
	})
	ann := dial(t, s)
	ann.send(joinText)
	ann.expect("joined")
	for _, way := range []string{"connect", "offloaded"} {
		for _, end := range []string{"close", "half-close", "reset"} {
			conn, err := net.Dial("tcp", s.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			request, texts := wholeRequest, maskedTexts(joinText, broadcastText)
			if way == "connect" {
				request = "GET /?slow=1" + wholeRequest[len("GET /"):]
			} else {
				texts = maskedTexts(`{"type":"work"}`) + texts
			}
			if end == "close" {
				texts += closeFrame
			}
			io.WriteString(conn, request+texts)
			<-asked
			switch end {
			case "half-close":
				conn.(*net.TCPConn).CloseWrite()
			case "reset":
				conn.(*net.TCPConn).SetLinger(0)
				conn.Close()
			default:
				conn.Close()
			}
			ctx, cancel := context.WithTimeout(context.Background(), patient)
			if err := s.Healthy(ctx); err != nil { // the loops have looked at their sockets once more
				t.Fatal(err)
			}
			cancel()
			release <- struct{}{}
			ann.expect("member_joined")
			if m := ann.expect("broadcast"); m["data"] != "last" {
				t.Fatal(way, end, m)
			}
			ann.expect("member_left")
			conn.Close()
		}
	}
}

// Input behind a close frame that waits for an answer is thrown away: it neither takes memory nor ends the connection before
// the earlier messages are carried out.
func TestNothingIsHeldBehindACloseFrame(t *testing.T) {
	for name, behind := range map[string][]byte{
		"close frames":  flood(1000, func(int) []byte { return masked(ws.OpClose, "\x03\xe8") }),
		"messages":      flood(1000, func(int) []byte { return masked(ws.OpText, strings.Repeat("x", 1000)) }),
		"wrong frames":  bytes.Repeat([]byte{0xff}, 1000),
		"empty frames":  flood(5000, func(int) []byte { return masked(ws.OpText, "") }),
		"half a frame":  masked(ws.OpText, "hello")[:4],
		"broken chunks": []byte{0xff},
	} {
		w := newScript(t, func(c *Config) { c.MessageBytesMax = 1 << 10 })
		w.server.Server.On("slow", func(*Conn, *Message, *Server) (any, error) { return M{"type": "done"}, nil }, Offload())
		c := w.open(0)
		w.read(c)
		w.say(c, `{"type":"slow"}`)
		w.say(c, `{"type":"ping","ref":1}`)
		w.server.Serve(c, masked(ws.OpClose, "\x03\xe8"))
		for range 20 {
			w.server.Serve(c, bytes.Clone(behind))
		}
		if !c.wire.Awaits() || c.wire.Rare.Pending.Held() != 2 {
			t.Fatalf("%s: %+v waits", name, c.wire.Rare)
		}
		w.server.Offloaded()
		w.drain()
		if got := kinds(w.read(c)); got != "done pong close 1000" || c.Cause() != CausePeerClosed {
			t.Errorf("%s: reads %q, ended by %v", name, got, c.Cause())
		}
	}
}
