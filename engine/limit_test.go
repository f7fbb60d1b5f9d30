package engine

import (
	"sync"
	"testing"

	"github.com/parleyd/parley/engine/internal/fanout"
)

// The limit of rooms holds exactly where a join over the wire and one of the application meet.
func TestRoomLimitWhereJoinsMeet(t *testing.T) {
	w := newScript(t, func(c *Config) { c.MaxRoomsPerConnection, c.Loops = 1, 1 })
	s, c := w.server.Server, w.open(0)
	c.loop().Mail.Rung.Store(true) // no doorbell rings: the test drains by itself
	for range 3000 {
		var both sync.WaitGroup
		begin := make(chan struct{})
		both.Go(func() {
			<-begin
			s.Rooms().Join(c, "a")
		})
		both.Go(func() {
			<-begin
			c.loop().Admit(&fanout.Admission{How: fanout.WayJoin, Conn: &c.wire.Conn, Room: []byte("b")})
		})
		close(begin)
		both.Wait()
		if n := c.wire.RoomsTaken.Load(); n != 1 {
			t.Fatalf("a connection that may be in one room counts as in %d", n)
		}
		w.server.Drain(0)
		if n := len(c.Rooms()); n != 1 {
			t.Fatalf("a connection that may be in one room is in %d", n)
		}
		for _, name := range c.Rooms() {
			c.loop().Exit(&c.wire.Conn, s.rooms.Index.FindString(name))
		}
		w.server.Drain(0)
		c.loop().Mail.Rung.Store(true)
	}
}
