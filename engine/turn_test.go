package engine

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/engine/internal/turn"
)

// turnAllocations counts what one served chunk, and the letters that follow, allocate, from the bytes that come
// in at the wire to those that go out.
func turnAllocations(w *script, c *Conn, frame []byte) float64 {
	chunk := make([]byte, len(frame))
	return testing.AllocsPerRun(200, func() {
		copy(chunk, frame) // it is unmasked in place
		w.server.Serve(c, chunk)
		w.drain()
	})
}

// A turn allocates nothing, except for what is published: a frame and its bytes, once for all its receivers.
func TestAllocationsOfATurn(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	w := newScript(t, func(c *Config) { c.History = []string{"kept=messages:10"} })
	members := make([]*Conn, 100)
	for i := range members {
		members[i] = w.open(i % 2)
		w.say(members[i], `{"type":"join","room":"r"}`)
		w.say(members[i], `{"type":"join","room":"kept"}`)
		w.drain()
	}
	bare := newScript(t, func(c *Config) { c.Bare = true })
	bare.server.Server.OnRaw(func(_ *Conn, payload []byte, _ bool) []byte { return payload })
	echo := bare.open(0)
	w.mute, bare.mute = true, true
	broadcast := masked(ws.OpText, `{"type":"broadcast","room":"r","data":{"text":"hello, everybody"}}`)
	for _, row := range []struct {
		name  string
		w     *script
		c     *Conn
		frame []byte
		most  float64
	}{
		{"a protocol ping", w, members[0], masked(ws.OpPing, "hello"), 0},
		{"a JSON ping", w, members[0], masked(ws.OpText, `{"type":"ping","ref":1}`), 0},
		{"an echo of 64 bytes", bare, echo, masked(ws.OpText, strings.Repeat("x", 64)), 0},
		{"an echo of 16 KiB", bare, echo, masked(ws.OpBinary, strings.Repeat("x", 16<<10)), 0},
		{"sixteen echoes in one chunk", bare, echo, []byte(strings.Repeat(string(masked(ws.OpText, "hello")), 16)), 0},
		{"a broadcast to 99 members on two loops", w, members[0], broadcast, 1},
		{"a broadcast that is kept, with its frame and the answer in its place", w, members[0], masked(ws.OpText, `{"type":"broadcast","room":"kept","data":1}`), 3},
		{"a repeated join", w, members[0], masked(ws.OpText, `{"type":"join","room":"r"}`), 0},
	} {
		if got := turnAllocations(row.w, row.c, row.frame); got > row.most {
			t.Errorf("%s: %v allocations, %v are promised", row.name, got, row.most)
		}
	}
}

// BenchmarkTurn measures a turn without the kernel: frames in, frames out.
func BenchmarkTurn(b *testing.B) {
	bare := newScript(b, func(c *Config) { c.Bare = true })
	bare.server.Server.OnRaw(func(_ *Conn, payload []byte, _ bool) []byte { return payload })
	echo := bare.open(0)
	bare.mute = true
	for _, n := range []int{1, 16} {
		frames := []byte(strings.Repeat(string(masked(ws.OpText, strings.Repeat("x", 64))), n))
		b.Run(fmt.Sprintf("echo/%d", n), func(b *testing.B) {
			chunk := make([]byte, len(frames))
			b.ReportAllocs()
			for b.Loop() {
				copy(chunk, frames)
				bare.server.Serve(echo, chunk)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/message")
		})
	}
	for _, n := range []int{10, 1000} {
		w := newScript(b, func(c *Config) { c.AnnounceMembersMax = -1 })
		var first *Conn
		for i := range n {
			c := w.open(i % 2)
			w.say(c, `{"type":"join","room":"r"}`)
			if i == 0 {
				first = c
			}
		}
		w.drain()
		w.mute = true
		frame := masked(ws.OpText, `{"type":"broadcast","room":"r","data":{"text":"hello, everybody"}}`)
		b.Run(fmt.Sprintf("broadcast/%d", n), func(b *testing.B) {
			chunk := make([]byte, len(frame))
			b.ReportAllocs()
			for b.Loop() {
				copy(chunk, frame)
				w.server.Serve(first, chunk)
				w.drain()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/delivery")
		})
	}
}

// A connection that a connect handler let in keeps nothing of the wait for it, and a stall finds nothing to move.
func TestVerdictLeavesNothingBehind(t *testing.T) {
	w := newScript(t, nil)
	w.server.Server.OnConnect(func(*Conn, *Request) error { return nil })
	w.out[1] = new(bytes.Buffer)
	c := w.server.Open(1, 1)
	w.server.Serve(c, []byte(wholeRequest))
	w.server.Offloaded()
	w.drain()
	if c.wire.Phase != turn.PhaseOpen || c.wire.Rare != nil || c.wire.Wire().Rare != nil {
		t.Errorf("in phase %v it still has %+v and %+v", c.wire.Phase, c.wire.Rare, c.wire.Wire().Rare)
	}
	c.wire.Extra().Alarm = 1 // of a wait that is over
	w.now += time.Second     // without a tick
	w.pass(w.server.TickEvery())
	if c.Cause() != CauseNone {
		t.Error("it ended:", c.Cause())
	}
}

// A connection is five cache lines, and what delivering and flushing touch of it is one of them.
func TestConnLayout(t *testing.T) {
	var c Conn
	if size := unsafe.Sizeof(c); size != 5*64 {
		t.Errorf("a connection takes %d bytes: between multiples of 64 the allocator splits its first line", size)
	}
	if end := unsafe.Offsetof(c.wire.Flags) + unsafe.Sizeof(c.wire.Flags); end > 64 {
		t.Errorf("what is hot ends at byte %d", end)
	}
}
