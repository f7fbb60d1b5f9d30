package engine

import (
	"fmt"
	"testing"

	"github.com/gobwas/ws"
)

// BenchmarkHistory measures a turn with a broadcast to a room, without the kernel: a room without history beside one with it, which
// is full, so that each message drops another.
func BenchmarkHistory(b *testing.B) {
	for _, n := range []int{1, 10, 100, 1000} {
		for _, kept := range []int{0, 100} {
			b.Run(fmt.Sprintf("%dmembers/%dkept", n, kept), func(b *testing.B) { benchHistory(b, n, kept) })
		}
	}
}

func benchHistory(b *testing.B, members, kept int) {
	w := newScript(b, func(c *Config) {
		c.AnnounceMembersMax = -1
		if kept > 0 {
			c.History = []string{fmt.Sprintf("**=messages:%d", kept)}
		}
	})
	first := w.open(0)
	w.say(first, `{"type":"join","room":"r"}`)
	for range members - 1 {
		w.say(w.open(0), `{"type":"join","room":"r"}`)
	}
	w.drain()
	w.mute = true
	frame := masked(ws.OpText, `{"type":"broadcast","room":"r","data":{"text":"hello, everybody"}}`)
	chunk := make([]byte, len(frame))
	turn := func() {
		copy(chunk, frame)
		w.server.Serve(first, chunk)
		w.drain()
	}
	for range kept {
		turn()
	}
	b.ReportAllocs()
	for b.Loop() {
		turn()
	}
}
