package fanout

import (
	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/message"
	"github.com/parleyd/parley/rooms"
)

// LeaveRefused takes c out of those of its rooms for which ask returns an error, and tells its client. Loop only.
func LeaveRefused(c *Conn, ask func(room string) error) {
	l := c.loop()
	list := append([]*rooms.Room(nil), c.Rooms...)
	step := func(i int) {
		if c.Phase != turn.PhaseOpen || list[i].Dead() {
			return
		}
		if err := ask(list[i].Name()); err != nil && l.Exit(c, list[i]) {
			l.Text = message.AppendSentOut(l.Text[:0], list[i].Name(), message.Refused(err).Code)
			c.Answer(l.Text)
		}
	}
	if len(list) > RoomsAtOnce {
		l.InParts(len(list), step, func() {})
		return
	}
	for i := range list {
		step(i)
	}
}

// Review is LeaveRefused for all connections of the loop. A connection that waits for an answer, such as for a seat in a room, is
// asked again afterwards. Loop only.
func Review(l *Loop, ask func(c *turn.Conn, room string) error) {
	var list []*Conn
	l.Slab.Each(func(t *turn.Conn) bool {
		list = append(list, ConnOf(t))
		return true
	})
	l.InParts(len(list), func(i int) {
		c := list[i]
		review := func() { LeaveRefused(c, func(room string) error { return ask(c.Wire(), room) }) }
		review()
		c.AfterAnswer(review)
	}, func() {})
}
