package engine

import (
	"errors"
	"testing"
)

// A connection of another server, which shares the process or an emitter, is in no room of this one, and is not
// mistaken for the connection that has its place here.
func TestConnOfAnotherServer(t *testing.T) {
	a, b := newScript(t, nil), newScript(t, nil)
	stranger, own := a.open(0), b.open(0)
	if stranger.place() != own.place() {
		t.Fatal("the two have different places, and the test shows nothing")
	}
	b.say(own, `{"type":"join","room":"r"}`)
	b.drain()
	b.read(own)
	x := b.server.Server.Rooms()
	if err := x.Join(stranger, "r2"); !errors.Is(err, ErrForeignConn) {
		t.Error("Join:", err)
	}
	told := 0
	x.JoinThen(stranger, "r2", func(err error) {
		if told++; !errors.Is(err, ErrForeignConn) {
			t.Error("JoinThen:", err)
		}
	})
	if x.Has("r", stranger) || !x.Has("r", own) {
		t.Error("Has takes the one for the other")
	}
	x.Leave(stranger, "r")
	a.drain()
	b.drain()
	b.server.Server.Broadcast("r2", M{"type": "secret"})
	b.server.Server.Broadcast("r", M{"type": "news"})
	b.drain()
	b.expect(own, "news")
	if told != 1 || x.Len() != 1 || stranger.wire.RoomsTaken.Load() != 0 {
		t.Errorf("told %d times; %d rooms; the stranger counts as in %d", told, x.Len(), stranger.wire.RoomsTaken.Load())
	}
}
