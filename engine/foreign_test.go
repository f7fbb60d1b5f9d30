package engine

import (
	"errors"
	"testing"

	"github.com/parleyd/parley/engine/internal/fanout"
	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/ident"
)

// A loop that takes no letters misses what another worker says, once its bounds are reached, and is alone in that: the
// goroutine that receives never waits, other loops get everything in order, and the loss is counted and told.
func TestFullLoopMissesAlone(t *testing.T) {
	w, _ := newPeer(t, nil)
	s := w.server.Server
	var told []uint16
	s.Emitter().On(EventError, func(ev Event) {
		if lost, ok := errors.AsType[*MissedError](ev.Err); ok {
			told = append(told, lost.Worker)
		}
	})
	held, free := w.welcome(0), w.welcome(1)
	for _, c := range []*Conn{held, free} {
		w.say(c, `{"type":"join","room":"r"}`)
	}
	w.drain()
	w.read(held)
	w.read(free)
	f, _ := turn.EncodeFrame(M{"type": "m"})
	says := []fleet.Entry{
		{Kind: fleet.Publish, Room: "r"},
		{Kind: fleet.Spread, Rooms: []string{"r"}},
		{Kind: fleet.Spread},
		{Kind: fleet.Direct, Target: s.link.Self, Conns: []ident.ID{s.link.IDOf(held.place())}},
		{Kind: fleet.Direct, Target: s.link.Self, Conns: []ident.ID{s.link.IDOf(free.place())}},
	}
	receive := func() {
		for _, e := range says {
			e.Frame = f.Plain
			if err := s.worker.Receive(9, fleet.Append(nil, &e)); err != nil {
				t.Fatal(err)
			}
		}
	}
	mail := &s.loops[0].Mail
	mail.Waiting.Add(turn.MailboxLettersMax) // a publisher of ours would be refused
	receive()
	if len(told) != 0 || s.count[fanout.CountMissed].Load() != 0 {
		t.Fatalf("%d messages are missed while the loop has places", s.count[fanout.CountMissed].Load())
	}
	mail.Waiting.Add(turn.MailboxLettersMax)
	receive()
	if n := s.count[fanout.CountMissed].Load(); n != 4 || len(told) != 1 || told[0] != 9 {
		t.Errorf("%d messages are missed, and told of workers %v", n, told)
	}
	mail.Waiting.Add(-2 * turn.MailboxLettersMax)
	w.drain()
	w.expect(held, "m m m m")
	w.expect(free, "m m m m m m m m")
	for _, l := range s.loops {
		if n := l.Mail.Waiting.Load(); n != 0 {
			t.Errorf("loop %d keeps %d places", l.Index, n)
		}
	}
}
