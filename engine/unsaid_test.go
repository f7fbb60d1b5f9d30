package engine

import (
	"sync"
	"testing"

	"github.com/parleyd/parley/engine/internal/turn"
)

// A room that no mailbox takes the word for goes on announcing, and says later that it stops.
func TestAnnouncementsThatNobodyHeardOf(t *testing.T) {
	w := newScript(t, func(c *Config) { c.AnnounceMembersMax = 3 })
	ann := w.open(0)
	w.say(ann, `{"type":"join","room":"r"}`)
	w.drain()
	w.read(ann)
	mail := &ann.loop().Mail
	join := func() {
		w.say(w.open(1), `{"type":"join","room":"r"}`)
		w.drain()
	}
	join()
	join()
	w.read(ann)
	mail.Waiting.Add(turn.MailboxLettersMax)
	join()
	mail.Waiting.Add(-turn.MailboxLettersMax)
	w.expect(ann, "")
	join()
	w.expect(ann, "announcements")
}

// Middleware that is added from two goroutines at once is all there.
func TestMiddlewareFromTwoGoroutines(t *testing.T) {
	w := newScript(t, nil)
	s := w.server.Server
	calls := 0
	const n = 50
	var all sync.WaitGroup
	for range 2 {
		all.Go(func() {
			for range n {
				s.Use(func(h Handler) Handler {
					return func(c *Conn, m *Message, s *Server) (any, error) {
						calls++
						return h(c, m, s)
					}
				}, "ping")
			}
		})
	}
	all.Wait()
	c := w.open(0)
	w.read(c)
	w.say(c, `{"type":"ping"}`)
	w.drain()
	w.expect(c, "pong")
	if calls != 2*n {
		t.Errorf("%d of %d middlewares are called", calls, 2*n)
	}
}
