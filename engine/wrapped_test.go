package engine

import (
	"errors"
	"fmt"
	"testing"

	"github.com/gobwas/ws"
)

// An error keeps its code however often it was wrapped, wherever an error of the application is judged.
func TestWrappedErrorsKeepTheirCode(t *testing.T) {
	wrap := func(err error) error {
		return fmt.Errorf("outer: %w", errors.Join(errors.New("other"), fmt.Errorf("inner: %w", err)))
	}
	tracing := func(next Handler) Handler {
		return func(c *Conn, m *Message, s *Server) (any, error) {
			reply, err := next(c, m, s)
			if err != nil {
				err = wrap(err)
			}
			return reply, err
		}
	}
	s := startServer(t, nil, func(s *Server) {
		s.OnConnect(func(_ *Conn, r *Request) error {
			switch r.Query("refuse") {
			case "status":
				return wrap(RefuseStatus(403, "no"))
			case "code":
				return wrap(Refuse(4321, "no"))
			}
			return nil
		})
		s.OnAuth(func(_ *Conn, token string) error {
			if token == "bad" {
				return wrap(&Error{Code: "forbidden", Message: "no"})
			}
			return nil
		})
		s.On("full", answerWith(nil, wrap(ErrRoomFull)))
		s.On("offloaded", answerWith(nil, wrap(ErrUnavailable)), Offload())
		s.On("checked", answerWith(nil, nil), With(Validate(func(*Conn, *Message) error { return wrap(&Error{Code: "forbidden", Message: "no"}) })))
		s.On("limited", answerWith(M{"type": "ok"}, nil), With(tracing, RateLimit(Rate{PerSecond: 0.001})))
		s.Use(tracing, "ping", "leave")
	})
	if r := get(t, s, "/?refuse=status", ""); r.StatusCode != 403 {
		t.Errorf("status %d", r.StatusCode)
	}
	if code := dialURL(t, "ws://"+s.Addr().String()+"/?refuse=code", ws.Dialer{}).expectClose(); code != 4321 {
		t.Errorf("closed with %d", code)
	}
	refused := dialBare(t, s, ws.Dialer{})
	refused.expect("connected")
	refused.send(`{"type":"auth","token":"bad"}`)
	if m := refused.expect("error"); m["code"] != "forbidden" {
		t.Error(m)
	}
	c := dialBare(t, s, ws.Dialer{})
	c.send(`{"type":"auth","token":"good"}`)
	for _, want := range []string{"connected", "authenticated", "reconnect_token"} {
		c.expect(want)
	}
	for _, x := range []struct{ send, want string }{
		{"full", "room_full"}, {"offloaded", "unavailable"}, {"checked", "forbidden"}, {"limited", ""}, {"limited", "rate_limited"},
		{"leave", "room_required"}, {"ping", ""}, // answered once, by the built-in handler
		{"full", "room_full"},
	} {
		c.send(`{"type":"` + x.send + `"}`)
		if m := c.next(); x.want != "" && m["code"] != x.want || x.want == "" && m["type"] == "error" {
			t.Errorf("%s: got %v", x.send, m)
		}
	}
}
