package engine

import "testing"

// Whom the application takes into a room, or out of it, is told so: in front of whatever the room gives it.
func TestTakenInAndOut(t *testing.T) {
	w := newScript(t, nil)
	s := w.server.Server
	ann, bob := w.welcome(0), w.welcome(1)
	w.say(ann, joinText)
	w.drain()
	w.read(ann)
	if err := s.Rooms().Join(bob, "r"); err != nil {
		t.Fatal(err)
	}
	s.Rooms().Join(bob, "r") // again: nothing happens
	s.Broadcast("r", M{"type": "news"})
	w.drain()
	texts := w.expect(bob, "joined news")
	if texts[0] != `{"type":"joined","room":"r","members":2}` {
		t.Error(texts[0])
	}
	w.read(ann)
	s.Rooms().Leave(bob, "r")
	s.Rooms().Leave(bob, "r")
	w.drain()
	if texts := w.expect(bob, "left"); texts[0] != `{"type":"left","room":"r"}` {
		t.Error(texts[0])
	}
	w.expect(ann, "member_left")

	s.On("in", func(c *Conn, _ *Message, s *Server) (any, error) { return M{"type": "done"}, s.Rooms().Join(c, "r") })
	w.say(bob, `{"type":"in"}`)
	w.drain()
	w.expect(bob, "joined done")
}

// So is one that waits for a seat that all workers share.
func TestTakenInWithASeat(t *testing.T) {
	w, d := newSeatGiver(t, nil)
	c := w.welcome(0)
	w.server.Server.Rooms().Join(c, "r")
	w.drain()
	w.expect(c, "")
	d.answer("r", nil)
	w.drain()
	w.expect(c, "joined")
}
