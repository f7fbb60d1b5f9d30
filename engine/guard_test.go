package engine

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/gobwas/ws"
)

// Values of an application whose every method panics.
type (
	badError struct{}
	badJSON  struct{}
	badText  struct{}
)

func (badError) Error() string               { panic("Error") }
func (badError) Unwrap() error               { panic("Unwrap") }
func (badError) Is(error) bool               { panic("Is") }
func (badError) As(any) bool                 { panic("As") }
func (badError) String() string              { panic("String") }
func (badError) LogValue() slog.Value        { panic("LogValue") }
func (badJSON) MarshalJSON() ([]byte, error) { panic("MarshalJSON") }
func (badText) MarshalText() ([]byte, error) { panic("MarshalText") }
func (*badJSON) UnmarshalJSON([]byte) error  { panic("UnmarshalJSON") }
func noRefusal() *Error                      { return nil }
func noVerdict() *Refusal                    { return nil }
func answerWith(v any, err error) Handler {
	return func(*Conn, *Message, *Server) (any, error) { return v, err }
}
func panicWith(v any) Handler { return func(*Conn, *Message, *Server) (any, error) { panic(v) } }

// badLog panics with every record.
type badLog struct{}

func (badLog) Enabled(context.Context, slog.Level) bool  { panic("Enabled") }
func (badLog) Handle(context.Context, slog.Record) error { panic("Handle") }
func (badLog) WithAttrs([]slog.Attr) slog.Handler        { panic("WithAttrs") }
func (badLog) WithGroup(string) slog.Handler             { panic("WithGroup") }

// Whatever of an application's handler panics, its error's and its reply's methods too, costs the connection.
func TestWhatPanicsBehindAHandlerCostsOneConnection(t *testing.T) {
	cases := map[string]Handler{
		"error":        answerWith(nil, badError{}),
		"wrapped":      answerWith(nil, errors.Join(badError{})),
		"marshal":      answerWith(badJSON{}, nil),
		"marshal_deep": answerWith(M{"a": []any{&badJSON{}}}, nil),
		"marshal_text": answerWith(map[string]any{"t": badText{}}, nil),
		"panic_value":  panicWith(badError{}),
		"panic_json":   panicWith(badJSON{}),
		"panic_nil":    panicWith(nil),
		"decode": func(_ *Conn, m *Message, _ *Server) (any, error) {
			var v struct {
				Type badJSON `json:"type"`
			}
			return nil, m.Decode(&v)
		},
	}
	s := startServer(t, nil, func(s *Server) {
		s.log = s.GuardLog(slog.New(slog.NewJSONHandler(io.Discard, nil)))
		for name, h := range cases {
			s.On(name, h)
			s.On("offloaded_"+name, h, Offload())
		}
		s.OnRaw(func(*Conn, []byte, bool) []byte { panic(badError{}) })
		s.On("middleware", answerWith(nil, nil), With(func(Handler) Handler { return panicWith("in middleware") }))
		s.On("check", answerWith(nil, nil), With(Validate(func(*Conn, *Message) error { return badError{} })))
		s.Emitter().On(EventError, func(Event) { panic(badError{}) })
		s.Emitter().On(EventMessage, func(Event) { panic(badError{}) })
	})
	bystander := dial(t, s)
	ends := func(text string) {
		c := dial(t, s)
		c.send(text)
		if code := c.expectClose(); code != ws.StatusInternalServerError {
			t.Errorf("%s: closed with %d", text, code)
		}
		bystander.send(`{"type":"ping"}`)
		bystander.expect("pong")
	}
	for name := range cases {
		ends(`{"type":"` + name + `","ref":1}`)
		ends(`{"type":"offloaded_` + name + `"}`)
	}
	ends("no JSON")
	ends(`{"type":"middleware"}`)
	ends(`{"type":"check"}`)
	if n := s.Stats().Panics; n < uint64(2*len(cases)) {
		t.Errorf("%d panics counted", n)
	}
}

// A nil pointer, as a function gives whose result is of its own type, is no error and no reply.
func TestTypedNilIsNone(t *testing.T) {
	s := startServer(t, nil, func(s *Server) {
		s.OnConnect(func(*Conn, *Request) error { return noVerdict() })
		s.OnAuth(func(*Conn, string) error { return noRefusal() })
		s.On("ok", answerWith(M{"type": "ok"}, noRefusal()))
		s.On("offloaded", answerWith(M{"type": "ok"}, noRefusal()), Offload())
		s.On("checked", answerWith(M{"type": "ok"}, nil), With(Validate(func(*Conn, *Message) error { return noRefusal() })))
		s.On("nothing", answerWith((*greeting)(nil), nil))
		s.On("no_bytes", answerWith([]byte(nil), nil))
		s.On("joined", answerWith(nil, errors.Join(errors.New("no luck"), noRefusal())))
	})
	c := dialBare(t, s, ws.Dialer{})
	c.send(`{"type":"auth","token":"x"}`)
	for _, want := range []string{"connected", "authenticated", "reconnect_token"} {
		c.expect(want)
	}
	for _, typ := range []string{"nothing", "no_bytes", "ok", "offloaded", "checked"} {
		c.send(`{"type":"` + typ + `"}`)
	}
	for range 3 {
		c.expect("ok")
	}
	c.send(`{"type":"joined"}`)
	if m := c.expect("error"); m["code"] != "internal" {
		t.Error(m)
	}
}

// Before authentication the same holds: anybody can send what reaches a connect or an auth handler.
func TestPanicsBeforeAuthentication(t *testing.T) {
	s := startServer(t, nil, func(s *Server) {
		s.OnConnect(func(_ *Conn, r *Request) error {
			switch r.Query("do") {
			case "panic":
				panic(badError{})
			case "error":
				return badError{}
			}
			return nil
		})
		s.OnAuth(func(_ *Conn, token string) error {
			switch token {
			case "panic":
				panic(badError{})
			case "error":
				return badError{}
			}
			return nil
		})
	})
	for _, do := range []string{"panic", "error"} {
		if r := get(t, s, "/?do="+do, ""); r.StatusCode != http.StatusInternalServerError {
			t.Errorf("%s: status %d", do, r.StatusCode)
		}
		c := dialBare(t, s, ws.Dialer{})
		c.expect("connected")
		c.send(`{"type":"auth","token":"` + do + `"}`)
		if code := c.expectClose(); code != ws.StatusInternalServerError {
			t.Errorf("%s: closed with %d", do, code)
		}
	}
}

// The function that is told the outcome of a join runs on a loop.
func TestPanicInJoinThen(t *testing.T) {
	s := startServer(t, nil, nil)
	c, bystander := dial(t, s), dial(t, s)
	s.Rooms().JoinThen(s.Connection(c.id), "r", func(error) { panic("told") })
	if code := c.expectClose(); code != ws.StatusInternalServerError {
		t.Errorf("closed with %d", code)
	}
	s.Rooms().JoinThen(s.Connection(bystander.id), "r", nil)
	bystander.expect("joined")
	s.Rooms().JoinThen(s.Connection(bystander.id), "\x00", nil)
	bystander.send(`{"type":"ping"}`)
	bystander.expect("pong")
}

// A log handler that panics costs records, and nothing else.
func TestPanicInTheLog(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Port = -1
	s, err := New(cfg, WithLogger(slog.New(badLog{})))
	if err != nil {
		t.Fatal(err)
	}
	s.On("failing", answerWith(nil, errors.New("no luck")))
	s.On("boom", panicWith("boom"))
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	c := dial(t, s)
	c.send(`{"type":"failing"}`)
	c.expect("error")
	s.log.With("a", 1).WithGroup("g").Error("said")
	c.send(`{"type":"boom"}`)
	if code := c.expectClose(); code != ws.StatusInternalServerError {
		t.Errorf("closed with %d", code)
	}
	if s.Stats().Panics < 3 {
		t.Error(s.Stats().Panics, "panics counted")
	}
	c.conn.Close()
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

// A nil handler is found when it is registered, and not when the first client sends its type.
func TestNilHandlersAreRefused(t *testing.T) {
	s := newScript(t, nil).server.Server
	for name, register := range map[string]func(){
		"On":   func() { s.On("x", nil) },
		"With": func() { s.On("x", answerWith(nil, nil), With(func(Handler) Handler { return nil })) },
		"Use":  func() { s.Use(func(Handler) Handler { return nil }, "join") },
	} {
		func() {
			defer func() {
				if v, _ := recover().(string); !strings.Contains(v, "nil") {
					t.Errorf("%s: %q", name, v)
				}
			}()
			register()
		}()
	}
}
