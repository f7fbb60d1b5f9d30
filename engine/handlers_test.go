package engine

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
)

type greeting struct {
	Name string `json:"name"`
}

func (g *greeting) Validate() error {
	if g.Name == "" {
		return errors.New("a name is needed")
	}
	return nil
}

func TestHandlers(t *testing.T) {
	s := startServer(t, nil, func(s *Server) {
		On(s, "greet", func(c *Conn, m greeting, s *Server) (any, error) {
			return M{"type": "greeting", "text": "hello " + m.Name}, nil
		})
		s.On("silent", func(*Conn, *Message, *Server) (any, error) { return nil, nil })
		s.On("coded", func(*Conn, *Message, *Server) (any, error) { return nil, &Error{Code: "forbidden", Message: "not you"} })
		s.On("failing", func(*Conn, *Message, *Server) (any, error) { return nil, errors.New("no luck") })
		s.On("raw", func(*Conn, *Message, *Server) (any, error) { return []byte(`{"type":"raw"}`), nil })
		s.On("unencodable", func(*Conn, *Message, *Server) (any, error) { return make(chan int), nil })
	})
	c := dial(t, s)
	for _, x := range []struct{ send, want string }{
		{`{"type":"greet","name":"Ann","ref":1}`, `map[ref:1 text:hello Ann type:greeting]`},
		{`{"type":"greet","name":5}`, "invalid_message"},
		{`{"type":"greet","name":""}`, `map[code:invalid_message message:a name is needed type:error]`},
		{`{"type":"coded","ref":"r"}`, `map[code:forbidden message:not you ref:r type:error]`},
		{`{"type":"failing"}`, `map[code:internal message:no luck type:error]`},
		{`{"type":"raw","ref":2}`, `map[ref:2 type:raw]`},
		{`{"type":"unencodable"}`, "internal"},
	} {
		c.send(`{"type":"silent"}`)
		c.send(x.send)
		m := c.next()
		if got := fmt.Sprint(m); got != x.want && m["code"] != x.want {
			t.Errorf("%s: got %s, want %s", x.send, got, x.want)
		}
	}
}

// A panic costs one connection, and is counted; the others go on.
func TestPanicCostsOneConnection(t *testing.T) {
	s := startServer(t, nil, func(s *Server) {
		s.On("boom", func(*Conn, *Message, *Server) (any, error) { panic("boom") })
		s.On("later", func(*Conn, *Message, *Server) (any, error) { panic("boom") }, Offload())
	})
	other := dial(t, s)
	for _, typ := range []string{"boom", "later"} {
		c := dial(t, s)
		c.send(`{"type":"` + typ + `"}`)
		if code := c.expectClose(); code != ws.StatusInternalServerError {
			t.Errorf("%s: closed with %d", typ, code)
		}
	}
	other.send(`{"type":"ping"}`)
	other.expect("pong")
	if n := s.Stats().Panics; n != 2 {
		t.Errorf("%d panics counted", n)
	}
}

// Messages that a handler sends before it returns arrive before its reply, as with the seed.
func TestReplyComesBehindWhatTheHandlerSent(t *testing.T) {
	s := startServer(t, nil, func(s *Server) {
		s.On("chat", func(c *Conn, m *Message, s *Server) (any, error) {
			s.Broadcast("r", M{"type": "chat"})
			c.Send(M{"type": "direct"})
			return M{"type": "chat_sent"}, nil
		})
	})
	c := dial(t, s)
	c.send(`{"type":"join","room":"r"}`)
	c.expect("joined")
	for range 50 {
		c.send(`{"type":"chat"}`)
		c.send(`{"type":"ping"}`)
	}
	for range 50 {
		for _, want := range []string{"chat", "direct", "chat_sent", "pong"} {
			c.expect(want)
		}
	}
}

// While an offloaded handler runs, the connection's later messages wait, built-in ones too, in order; other
// connections do not.
func TestOffloadKeepsOrder(t *testing.T) {
	gate := make(chan struct{})
	s := startServer(t, nil, func(s *Server) {
		s.On("slow", func(c *Conn, m *Message, s *Server) (any, error) {
			<-gate
			return M{"type": "slow_done", "payload": string(m.Payload())}, nil
		}, Offload())
	})
	c, other := dial(t, s), dial(t, s)
	c.send(`{"type":"slow","ref":1}`)
	c.send(`{"type":"ping","ref":2}`)
	c.send(`{"type":"join","room":"r","ref":3}`)
	c.send(`{"type":"slow","ref":4}`)
	c.send(`{"type":"ping","ref":5}`)
	other.send(`{"type":"ping"}`)
	other.expect("pong")
	close(gate)
	for i, want := range []string{"slow_done", "pong", "joined", "slow_done", "pong"} {
		if m := c.expect(want); m["ref"] != float64(i+1) {
			t.Error(m)
		}
	}
}

// Few messages may wait for a pending answer: a client that goes on sending is closed with 1013.
func TestPendingIsBounded(t *testing.T) {
	gate := make(chan struct{})
	defer close(gate)
	s := startServer(t, nil, func(s *Server) {
		s.On("slow", func(*Conn, *Message, *Server) (any, error) { <-gate; return nil, nil }, Offload())
	})
	c := dial(t, s)
	c.send(`{"type":"slow"}`)
	go func() {
		for wsutil.WriteClientText(c.conn, []byte(`{"type":"ping"}`)) == nil {
		}
	}()
	if code := c.expectClose(); code != StatusTryAgain {
		t.Errorf("closed with %d", code)
	}
}

// An answer that does not come in time is given up, and the connection lives on.
func TestOffloadTimeout(t *testing.T) {
	w := newScript(t, func(c *Config) { c.OffloadTimeout = 10 * time.Second })
	w.server.Server.On("slow", func(*Conn, *Message, *Server) (any, error) { return M{"type": "late"}, nil }, Offload())
	c := w.open(0)
	w.read(c)
	w.say(c, `{"type":"slow","ref":1}`)
	w.say(c, `{"type":"ping"}`)
	w.pass(9500 * time.Millisecond)
	w.expect(c, "")
	w.pass(time.Second)
	texts := w.expect(c, "error pong")
	if !strings.Contains(texts[0], `"code":"unavailable"`) || !strings.Contains(texts[0], `"ref":1`) {
		t.Error(texts[0])
	}
	w.server.Offloaded() // and answers after all
	w.say(c, `{"type":"ping"}`)
	w.drain()
	w.expect(c, "pong")
}

func TestMiddleware(t *testing.T) {
	var mu sync.Mutex
	var order []string
	note := func(name string) Middleware {
		return func(next Handler) Handler {
			return func(c *Conn, m *Message, s *Server) (any, error) {
				mu.Lock()
				order = append(order, name)
				mu.Unlock()
				return next(c, m, s)
			}
		}
	}
	s := startServer(t, nil, func(s *Server) {
		s.On("chat", func(*Conn, *Message, *Server) (any, error) { return M{"type": "ok"}, nil },
			With(note("outer"), note("inner"), Validate(func(_ *Conn, m *Message) error {
				var v struct {
					Text string `json:"text"`
				}
				if err := m.Decode(&v); err != nil || v.Text == "" || len(v.Text) > 10 {
					return errors.New("Invalid message")
				}
				return nil
			}), RateLimit(Rate{PerSecond: 0.001, Burst: 2})))
		s.Use(func(next Handler) Handler {
			return func(c *Conn, m *Message, s *Server) (any, error) {
				if m.Room() == "secret" {
					return nil, &Error{Code: "forbidden", Message: "not this room"}
				}
				return next(c, m, s)
			}
		}, "join")
	})
	c := dial(t, s)
	for _, x := range []struct{ send, want string }{
		{`{"type":"chat","text":""}`, "invalid_message"}, {`{"type":"chat","text":"hi"}`, ""}, {`{"type":"chat","text":"hi"}`, ""},
		{`{"type":"chat","text":"hi"}`, "rate_limited"}, {`{"type":"join","room":"secret"}`, "forbidden"},
	} {
		c.send(x.send)
		if m := c.next(); x.want != "" && m["code"] != x.want || x.want == "" && m["type"] != "ok" {
			t.Errorf("%s: got %v", x.send, m)
		}
	}
	c.send(`{"type":"join","room":"open","ref":1}`)
	if m := c.expect("joined"); m["ref"] != 1.0 {
		t.Error(m)
	}
	mu.Lock()
	defer mu.Unlock()
	if got := fmt.Sprint(order[:2]); got != "[outer inner]" {
		t.Error(got)
	}
}

// A client that is refused too often in a row is closed with 4005.
func TestRateLimitStrikes(t *testing.T) {
	s := startServer(t, nil, func(s *Server) {
		s.Use(RateLimit(Rate{PerSecond: 0.001, Burst: 1, Strikes: 3}), "ping")
	})
	c := dial(t, s)
	for range 5 {
		c.send(`{"type":"ping"}`)
	}
	if code := c.expectClose(); code != StatusRateLimited {
		t.Errorf("closed with %d", code)
	}
}

// Binary messages and text that is no JSON go to the raw handler; without one, binary is closed with 1003.
func TestRaw(t *testing.T) {
	s := startServer(t, nil, func(s *Server) {
		s.OnRaw(func(_ *Conn, p []byte, binary bool) []byte {
			return fmt.Appendf(nil, `{"type":"raw","binary":%v,"n":%d}`, binary, len(p))
		})
	})
	c := dial(t, s)
	wsutil.WriteClientBinary(c.conn, []byte{1, 2, 3})
	if m := c.next(); fmt.Sprint(m) != "map[binary:true n:3 type:raw]" {
		t.Error(m)
	}
	c.send("hello")
	if m := c.next(); fmt.Sprint(m) != "map[binary:false n:5 type:raw]" {
		t.Error(m)
	}
	plain := dial(t, startServer(t, nil, nil))
	wsutil.WriteClientBinary(plain.conn, []byte{1})
	if code := plain.expectClose(); code != ws.StatusUnsupportedData {
		t.Errorf("closed with %d", code)
	}
}
