package engine

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// Every public call that waits for loops refuses to do so on a loop, and no caller waits for ever.
func TestCallsThatWaitOnALoop(t *testing.T) {
	stopped := make(chan struct{})
	s := startServer(t, nil, func(s *Server) {
		s.Emitter().On(EventStopped, func(Event) { close(stopped) })
		for name, call := range map[string]func(c *Conn) error{
			"healthy":  func(*Conn) error { return s.Healthy(context.Background()) },
			"joins":    func(c *Conn) error { return s.Everywhere().Join(context.Background(), c.ID(), "r") },
			"shutdown": func(*Conn) error { return s.Shutdown(context.Background()) },
		} {
			s.On(name, func(c *Conn, _ *Message, _ *Server) (any, error) {
				return M{"type": name, "on_loop": errors.Is(call(c), ErrOnLoop)}, nil
			})
		}
		s.On("offloaded", func(c *Conn, _ *Message, _ *Server) (any, error) {
			err := errors.Join(s.Healthy(t.Context()), s.Everywhere().Join(t.Context(), c.ID(), "r"))
			return M{"type": "offloaded", "ok": err == nil}, nil
		}, Offload())
		s.On("counts", func(c *Conn, _ *Message, _ *Server) (any, error) { // these wait for no loop
			_, first := s.Everywhere().Members(t.Context(), "r")
			_, second := s.Everywhere().Stats(t.Context())
			_, third := s.Everywhere().SendTo(t.Context(), c.ID(), M{"type": "sent"})
			return M{"type": "counts", "ok": errors.Join(first, second, third) == nil && s.Rooms().Create("made", RoomOptions{}) == nil}, nil
		})
	})
	c := dial(t, s)
	c.send(`{"type":"counts"}`)
	c.expect("sent")
	if m := c.expect("counts"); m["ok"] != true {
		t.Error(m)
	}
	c.send(`{"type":"offloaded"}`)
	c.expect("joined")
	if m := c.expect("offloaded"); m["ok"] != true {
		t.Error(m)
	}
	for _, name := range []string{"healthy", "joins", "shutdown"} {
		c.send(`{"type":"` + name + `"}`)
		if m := c.expect(name); m["on_loop"] != true {
			t.Error(m)
		}
	}
	if code := c.expectClose(); code != ws.StatusGoingAway {
		t.Errorf("closed with %d", code)
	}
	c.conn.Close()
	select {
	case <-stopped:
	case <-time.After(patient):
		t.Error("the server does not stop")
	}
}

// Shutdown returns when its context ends, whatever a handler does.
func TestShutdownWhileALoopIsHeld(t *testing.T) {
	held, release, stopped := make(chan struct{}), make(chan struct{}), make(chan struct{})
	s := startServer(t, nil, func(s *Server) {
		s.Emitter().On(EventStopped, func(Event) { close(stopped) })
		s.On("hold", func(*Conn, *Message, *Server) (any, error) { close(held); <-release; return nil, nil })
	})
	c := dial(t, s)
	c.send(`{"type":"hold"}`)
	<-held
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	select {
	case <-stopped:
		t.Error("it has stopped with a handler on its loop")
	default:
	}
	close(release)
	select {
	case <-stopped:
	case <-time.After(patient):
		t.Error("the server does not stop when the handler has returned")
	}
}
