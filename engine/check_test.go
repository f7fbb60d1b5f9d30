package engine

import (
	"fmt"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/engine/internal/invariant"
	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/rooms"
)

// planted are states that a loop must never be in, made by hand: c is in the room r, other is in none.
var planted = []struct {
	found string
	plant func(l *loop, c, other *Conn)
}{
	{"1 connections are still to be ended", func(l *loop, c, _ *Conn) { l.Doomed = append(l.Doomed, c.wire.Wire()) }},
	{"1 to be dropped", func(l *loop, c, _ *Conn) { l.Drops = append(l.Drops, c.wire.Wire()) }},
	{"no drain follows", func(l *loop, c, _ *Conn) { c.wire.MarkDirty(); l.Mail.Rung.Store(false) }},
	{"(notices: true), and no drain follows", func(l *loop, c, _ *Conn) { l.Owes.Writes = true; l.Mail.Rung.Store(false) }},
	{"in the dirty list without the flag", func(l *loop, c, _ *Conn) {
		c.wire.MarkDirty()
		c.wire.Flags &^= turn.FlagDirty
		l.Mail.Rung.Store(true)
	}},
	{"marked dirty, and not in the list", func(_ *loop, c, _ *Conn) { c.wire.Flags |= turn.FlagDirty }},
	{"marked to be ended, and the turn is over", func(_ *loop, c, _ *Conn) { c.wire.Doomed = true }},
	{"says that its input waits: true", func(_ *loop, c, _ *Conn) { c.wire.Extra().Listed = true }},
	{"says that its input waits: false", func(l *loop, c, _ *Conn) { l.Late = append(l.Late, c.wire.Wire()) }},
	{"1 letters of 4 bytes wait in a mailbox that counts 0 of 0", func(l *loop, c, _ *Conn) {
		l.Mail.Post(turn.Letter{Kind: turn.LetterDirect, Conn: c.wire.Wire(), Frame: plantedFrame()})
	}},
	{"in a mailbox that counts 1 of 3", func(l *loop, c, _ *Conn) {
		l.Mail.Reserve(3)
		l.Letters, l.Opened = []turn.Letter{{Kind: turn.LetterDirect, Conn: c.wire.Wire(), Frame: plantedFrame()}}, 0
	}},
	{"is not in its slot", func(_ *loop, c, other *Conn) { c.wire.Slot = other.wire.Slot }},
	{"is gone and keeps its slot", func(_ *loop, c, _ *Conn) { c.wire.Phase = turn.PhaseGone }},
	{"counts -1 posted frames", func(_ *loop, c, _ *Conn) { c.wire.Posted.Store(-1) }},
	{"has an empty queue, of which 0 bytes are taken and 1 left", func(_ *loop, c, _ *Conn) { c.wire.Backlog = 1 }},
	{"has written 4 bytes of a frame of 4", func(_ *loop, c, _ *Conn) { c.wire.First, c.wire.Taken = plantedFrame(), 4 }},
	{"has frames queued, and no write follows", func(_ *loop, c, _ *Conn) { c.wire.First, c.wire.Backlog = plantedFrame(), 4 }},
	{"has 4 bytes queued and counts 5", func(l *loop, c, _ *Conn) { c.wire.Queue(plantedFrame()); c.wire.Backlog++; l.Wake() }},
	{"has 8 bytes queued and counts 7", func(l *loop, c, _ *Conn) {
		c.wire.Blocked = true
		c.wire.Queue(plantedFrame())
		c.wire.Queue(plantedFrame())
		c.wire.Backlog--
	}},
	{"is in 1 rooms and counts 0", func(_ *loop, c, _ *Conn) { c.wire.RoomsTaken.Store(0) }},
	{`lists room "r", whose roster has no such member`, func(l *loop, c, _ *Conn) { l.srv.rooms.Index.Leave(c.wire.Rooms[0], c.place()) }},
	{`as a member, and there is none`, func(l *loop, _, _ *Conn) {
		l.srv.rooms.Index.Enter([]byte("r"), ident.Place{Loop: l.Index, Slot: 77, Gen: 7}, 0)
	}},
	{`as a member, which does not list the room`, func(l *loop, _, other *Conn) { l.srv.rooms.Index.Enter([]byte("r"), other.place(), 0) }},
	{`room "r" counts 1 more than it has members and held seats`, func(_ *loop, c, _ *Conn) { taken(c.wire.Rooms[0]).Add(1) }},
}

func plantedFrame() *turn.Frame { return turn.NewFrame(ws.OpText, []byte("hi")) }

// taken is what a room counts, which no other package may touch.
func taken(r *rooms.Room) *atomic.Int32 {
	return (*atomic.Int32)(unsafe.Pointer(reflect.ValueOf(r).Elem().FieldByName("taken").UnsafeAddr()))
}

// broken is what a check finds, "" for nothing.
func broken(f func()) (found string) {
	defer func() {
		if v := recover(); v != nil {
			found = fmt.Sprint(v)
		}
	}()
	f()
	return ""
}

// Every check finds the fault that is planted for it, and nothing where there is none.
func TestChecksFindPlantedFaults(t *testing.T) {
	if !invariant.On {
		t.Skip("this build checks nothing")
	}
	for _, p := range planted {
		w := newScript(t, nil)
		c, other := w.open(0), w.open(0)
		w.say(c, `{"type":"join","room":"r"}`)
		w.drain()
		if found := broken(c.loop().Base().Check); found != "" {
			t.Fatal("where nothing is wrong:", found)
		}
		p.plant(c.loop(), c, other)
		if found := broken(c.loop().Base().Check); !strings.HasPrefix(found, "invariant: ") || !strings.Contains(found, p.found) {
			t.Errorf("want %q, got %q", p.found, found)
		}
	}
}

// A turn ends with the checks, and its panic is not caught.
func TestTurnsAreChecked(t *testing.T) {
	if !invariant.On {
		t.Skip("this build checks nothing")
	}
	for name, turn := range map[string]func(w *script, c *Conn){
		"input":   func(w *script, c *Conn) { w.say(c, `{"type":"broadcast","room":"r","data":1}`) },
		"letters": func(w *script, c *Conn) { w.server.Tick(); w.drain() },
	} {
		w := newScript(t, nil)
		c := w.open(0)
		w.say(c, `{"type":"join","room":"r"}`)
		w.drain()
		c.wire.RoomsTaken.Store(0)
		if found := broken(func() { turn(w, c) }); !strings.HasPrefix(found, "invariant: ") {
			t.Errorf("%s: a turn ends as if nothing were wrong: %q", name, found)
		}
	}
}
