package engine

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/gobwas/ws"
)

func exits(*Conn, *Message, *Server) (any, error) {
	runtime.Goexit()
	return nil, nil
}

// A handler on the pool that ends its goroutine costs its connection; the pool goes on.
func TestGoexitOnThePool(t *testing.T) {
	s := startServer(t, func(c *Config) { c.OffloadWorkers = 1 }, func(s *Server) {
		s.OnConnect(func(_ *Conn, r *Request) error {
			if r.Query("exit") != "" {
				runtime.Goexit()
			}
			return nil
		})
		s.OnAuth(func(_ *Conn, token string) error {
			if token == "exit" {
				runtime.Goexit()
			}
			return nil
		})
		s.On("exits", exits, Offload())
		s.On("returns", answerWith(M{"type": "ok"}, nil), Offload())
	})
	enter := func(token string) *client {
		c := dialBare(t, s, ws.Dialer{})
		c.expect("connected")
		c.send(`{"type":"auth","token":"` + token + `"}`)
		return c
	}
	for round := range 3 {
		if r := get(t, s, "/?exit=1", ""); r.StatusCode != 500 {
			t.Errorf("status %d", r.StatusCode)
		}
		if code := enter("exit").expectClose(); code != ws.StatusInternalServerError {
			t.Errorf("auth: closed with %d", code)
		}
		c := enter("")
		c.expect("authenticated")
		c.expect("reconnect_token")
		c.send(`{"type":"returns"}`)
		c.expect("ok")
		c.send(`{"type":"exits"}`)
		if code := c.expectClose(); code != ws.StatusInternalServerError {
			t.Errorf("round %d: closed with %d", round, code)
		}
	}
	if n := s.Stats().Panics; n != 9 {
		t.Errorf("%d counted", n)
	}
}

const goexitVariable = "PARLEY_TEST_GOEXIT"

// A handler that ends its loop ends the process, in a panic that names it: the loop's connections would wait for ever.
func TestGoexitOnALoop(t *testing.T) {
	if where := os.Getenv(goexitVariable); where != "" {
		exitOnALoop(t, where)
		return
	}
	for where, handler := range map[string]string{
		"message": `"exits"`, "raw": `"raw"`, "listener": `"listener of websocket.message"`, "end": `"listener of websocket.disconnect"`,
		"letter": `"JoinThen"`,
	} {
		t.Run(where, func(t *testing.T) {
			t.Parallel()
			child := exec.Command(os.Args[0], "-test.run=^TestGoexitOnALoop$", "-test.timeout=30s")
			child.Env = append(os.Environ(), goexitVariable+"="+where)
			out, err := child.CombinedOutput()
			if err == nil || !strings.Contains(string(out), "panic: engine: the handler "+handler+" ended a goroutine of the server") {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

func exitOnALoop(t *testing.T, where string) {
	s := startServer(t, nil, func(s *Server) {
		s.On("exits", exits)
		s.OnRaw(func(*Conn, []byte, bool) []byte { runtime.Goexit(); return nil })
		switch where {
		case "listener":
			s.Emitter().On(EventMessage, func(Event) { runtime.Goexit() })
		case "end":
			s.Emitter().On(EventDisconnect, func(Event) { runtime.Goexit() })
		}
	})
	c := dial(t, s)
	switch where {
	case "end":
		c.conn.Close()
	case "raw":
		c.send("raw")
	case "letter":
		s.Rooms().JoinThen(s.Connection(c.id), "r", func(error) { runtime.Goexit() })
	default:
		c.send(`{"type":"exits"}`)
	}
	fmt.Println("the server went on:", c.next())
	c.next()
}
