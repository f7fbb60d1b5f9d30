package engine

import (
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
)

// With one loop, goroutines wake a deputy, which takes the loop's turn while gnet sleeps. The tests of this file are about the
// two of them.

// Connections are closed from goroutines, and so in the deputy's turns, while they have input that gnet has read.
func TestDeputyClosesWhileInputComes(t *testing.T) {
	s := startServer(t, func(c *Config) { c.Loops = 1 }, nil)
	var clients, closers sync.WaitGroup
	for range 200 {
		clients.Go(func() {
			conn, _, _, err := ws.Dial(t.Context(), "ws://"+s.Addr().String()+"/")
			if err != nil {
				return // closed in the handshake
			}
			defer conn.Close()
			for buf := make([]byte, 4096); err == nil; _, err = conn.Read(buf) {
				err = wsutil.WriteClientText(conn, []byte(`{"type":"join","room":"r1"}`))
			}
		})
	}
	done := make(chan struct{})
	closers.Go(func() {
		closed := map[string]bool{}
		for {
			select {
			case <-done:
				return
			default:
			}
			s.Broadcast("r1", M{"type": "news"})
			for c := range s.Connections() {
				if !closed[c.ID()] {
					closed[c.ID()] = true
					c.CloseWith(4000, "enough")
					c.Send(M{"type": "late"})
				}
			}
		}
	})
	clients.Wait()
	close(done)
	closers.Wait()
	eventually(t, "all are gone", func() bool { return s.ConnectionCount() == 0 })
}

// A goroutine may hold a lock that a handler takes, while it posts to the loop: the poster never takes the turn itself.
func TestDeputyIsNotTheOneWhoPosts(t *testing.T) {
	var mu sync.Mutex
	entered := make(chan struct{})
	s := startServer(t, func(c *Config) { c.Loops = 1 }, func(s *Server) {
		s.Emitter().On(EventDisconnect, func(Event) {
			close(entered)
			mu.Lock()
			mu.Unlock()
		})
	})
	c := dial(t, s)
	mu.Lock()
	s.Connection(c.id).Close()
	s.BroadcastAll(M{"type": "news"})
	mu.Unlock()
	c.conn.SetReadDeadline(time.Now().Add(patient))
	for {
		if _, err := c.conn.Read(make([]byte, 512)); err != nil {
			if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
				t.Fatal("the loop is held")
			}
			break
		}
	}
	<-entered
}

// Publishes while the server stops reach no closed descriptor, and end no process.
func TestDeputyStops(t *testing.T) {
	for range 20 {
		s := startServer(t, func(c *Config) { c.Loops = 1 }, nil)
		c := dial(t, s)
		c.send(`{"type":"join","room":"r"}`)
		c.expect("joined")
		var publishers sync.WaitGroup
		done := make(chan struct{})
		for range 4 {
			publishers.Go(func() {
				for {
					select {
					case <-done:
						return
					default:
						s.Broadcast("r", M{"type": "news"})
					}
				}
			})
		}
		c.conn.Close()
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		close(done)
		publishers.Wait()
	}
}
