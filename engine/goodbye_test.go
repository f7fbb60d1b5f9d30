package engine

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/gobwas/ws"
)

// A client that was greeted reads goodbye right before a close with 1001, 1012 or 1013, and before no other; also one that has not
// authenticated yet, one whose answers are in the mailbox, and one whose message has to wait.
func TestGoodbye(t *testing.T) {
	gentle := map[ws.StatusCode]bool{1001: true, 1012: true, 1013: true}
	for _, state := range []string{"open", "unauthenticated", "with letters", "pending"} {
		for _, code := range []ws.StatusCode{1000, 1001, 1008, 1011, 1012, 1013, 4001, 4006, 4007} {
			w := newScript(t, nil)
			s := w.server.Server
			if state == "unauthenticated" {
				s.OnAuth(func(*Conn, string) error { return nil })
			}
			s.On("slow", func(*Conn, *Message, *Server) (any, error) { return nil, nil }, Offload())
			c := w.open(0)
			w.read(c)
			switch state {
			case "with letters":
				c.Send(M{"type": "news"})
			case "pending":
				w.say(c, `{"type":"slow"}`)
			}
			c.CloseWith(code, "")
			w.drain()
			want := fmt.Sprint("close ", int(code))
			if gentle[code] {
				want = "goodbye " + want
			}
			if state == "with letters" {
				want = "news " + want
			}
			w.expect(c, want)
		}
	}
}

// A client that ends the connection itself, one that was refused, and one of a bare server read no goodbye.
func TestNoGoodbye(t *testing.T) {
	w := newScript(t, nil)
	c := w.open(0)
	w.read(c)
	w.server.Serve(c, masked(ws.OpClose, string(ws.NewCloseFrameBody(1001, ""))))
	w.drain()
	w.expect(c, "close 1001")

	w = newScript(t, nil)
	w.server.Server.OnConnect(func(*Conn, *Request) error { return Refuse(1013, "later") })
	w.expect(w.open(0), "close 1013")

	w = newScript(t, nil)
	w.server.Server.OnConnect(func(*Conn, *Request) error { return errors.New("no") })
	c = w.open(0)
	w.server.SendAway()
	w.drain()
	if strings.Contains(w.out[int(c.wire.Fd)].String(), "goodbye") {
		t.Error("a refusal with a goodbye")
	}

	w = newScript(t, func(c *Config) { c.Bare = true })
	c = w.open(0)
	w.read(c)
	w.server.SendAway()
	w.drain()
	w.expect(c, "close 1001")
}

// Shutdown says goodbye to all, and spreads them over the same time from the first to the last.
func TestGoodbyeOfAShutdown(t *testing.T) {
	w := newScript(t, nil)
	for i := range 20 {
		w.open(i % 2)
	}
	w.server.Server.rooms.Open.Add(10_000 - 20) // as if there were so many
	w.server.SendAway()
	w.server.Server.rooms.Open.Add(20 - 10_000)
	w.drain()
	later := 0
	for _, out := range w.out {
		_, text, _ := strings.Cut(out.String(), `{"type":"goodbye","retry_after":`)
		seconds, _, found := strings.Cut(text, "}")
		if !found {
			t.Fatalf("%q", out)
		}
		if len(seconds) == 2 || seconds > "3" {
			later++
		}
	}
	if later == 0 {
		t.Error("all of 10,000 clients come back within three seconds")
	}
}
