package engine

import (
	"fmt"
	"testing"

	"github.com/gobwas/ws"
)

// A handler's sends, broadcasts and reply leave in the order of its calls, behind the earlier ones of its connection: in
// handlers of each kind, with other frames on their way and without.
func TestHandlersKeepTheOrderOfCalls(t *testing.T) {
	for _, kind := range []string{"handler", "offloaded", "middleware", "raw text", "raw binary"} {
		for _, busy := range []bool{false, true} {
			t.Run(fmt.Sprint(kind, busy), func(t *testing.T) {
				w := newScript(t, nil)
				s := w.server.Server
				act := func(c *Conn) {
					c.Send(M{"type": "one"})
					s.Broadcast("r", M{"type": "two"})
					c.Send(M{"type": "three"})
				}
				handler := func(c *Conn, _ *Message, _ *Server) (any, error) {
					act(c)
					return M{"type": "four"}, nil
				}
				request := masked(ws.OpText, `{"type":"work"}`)
				switch kind {
				case "handler":
					s.On("work", handler)
				case "offloaded":
					s.On("work", handler, Offload())
				case "middleware":
					request = masked(ws.OpText, `{"type":"ping"}`)
					s.Use(func(next Handler) Handler {
						return func(c *Conn, m *Message, s *Server) (any, error) {
							act(c)
							next(c, m, s)
							return M{"type": "four"}, nil
						}
					}, "ping")
				default:
					s.OnRaw(func(c *Conn, _ []byte, _ bool) []byte {
						act(c)
						return []byte(`{"type":"four"}`)
					})
					request = masked(ws.OpText, "x")
					if kind == "raw binary" {
						request = masked(ws.OpBinary, "x")
					}
				}
				ann, bob := w.open(0), w.open(1)
				w.say(ann, joinText)
				w.drain()
				w.read(ann)
				w.read(bob)
				if busy {
					bob.Send(M{"type": "zero"})
				}
				w.server.Serve(bob, append(masked(ws.OpText, joinText), request...))
				w.drain()
				w.server.Offloaded()
				w.drain()
				want := map[string]string{"middleware": "joined one two three pong four", "raw binary": "joined one two three"}[kind]
				if want == "" {
					want = "joined one two three four"
				}
				if busy {
					want = "zero " + want
				}
				w.expect(bob, want)
				w.expect(ann, "member_joined two")
			})
		}
	}
}

// A raw handler's reply of the binary kind keeps its place, too.
func TestBinaryReplyKeepsItsPlace(t *testing.T) {
	w := newScript(t, nil)
	w.server.Server.OnRaw(func(c *Conn, p []byte, _ bool) []byte {
		c.SendBinary([]byte("one"))
		return []byte("two")
	})
	c := w.welcome(0)
	w.server.Serve(c, masked(ws.OpBinary, "x"))
	w.drain()
	var got []string
	for out := w.out[int(c.wire.Fd)]; out.Len() > 0; {
		f, err := ws.ReadFrame(out)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(f.Payload))
	}
	if fmt.Sprint(got) != "[one two]" {
		t.Error(got)
	}
}
