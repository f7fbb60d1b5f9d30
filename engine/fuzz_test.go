package engine

import (
	"bytes"
	"testing"

	"github.com/gobwas/ws"
)

// FuzzChunks feeds a connection, before or after its upgrade, with anything, in any chunks: it answers the same as
// when all comes at once, holds no more than its limits, and leaves nothing behind.
func FuzzChunks(f *testing.F) {
	join := masked(ws.OpText, `{"type":"join","room":"r","ref":1}`)
	broadcast := masked(ws.OpText, `{"type":"broadcast","room":"r","data":[1]}`)
	f.Add(append(join, broadcast...), uint64(0x5555), true)
	f.Add(append(masked(ws.OpPing, "x"), masked(ws.OpClose, "\x03\xe8bye")...), uint64(3), true)
	f.Add(masked(ws.OpText, "\xf0\x9f\x98\x80 no JSON"), uint64(1<<8|1<<9), true)
	f.Add([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), uint64(0x11), false)
	f.Add([]byte{0x01, 0x81, 1, 2, 3, 4, 'a', 0x80, 0x80, 1, 2, 3, 4}, uint64(7), true)
	f.Fuzz(func(t *testing.T, input []byte, cuts uint64, upgraded bool) {
		whole := chunkwise(t, input, 0, upgraded)
		pieces := chunkwise(t, input, cuts, upgraded)
		if bytes.HasPrefix(whole, []byte("HTTP/1.1 4")) { // a request is refused at the first sign, with what is wrong there
			whole, pieces = whole[:len("HTTP/1.1 4")], pieces[:min(len(pieces), len("HTTP/1.1 4"))]
		}
		if !bytes.Equal(whole, pieces) {
			t.Fatalf("whole, it is answered with %q, in pieces with %q", whole, pieces)
		}
	})
}

// chunkwise serves input, cut behind byte i where bit i%64 of cuts is set, and returns what was written.
func chunkwise(t *testing.T, input []byte, cuts uint64, upgraded bool) []byte {
	w := newScript(t, func(c *Config) { c.MessageBytesMax, c.MessageFragmentsMax = 4096, 16 })
	var c *Conn
	if upgraded {
		c = w.open(0)
	} else {
		w.out[0] = new(bytes.Buffer)
		c = w.server.Open(0, 0)
	}
	for begin, i := 0, 0; i < len(input) && !w.server.Ended(c); i++ {
		if cuts&(1<<(i%64)) != 0 || i == len(input)-1 {
			w.server.Serve(c, bytes.Clone(input[begin:i+1]))
			begin = i + 1
		}
		if n := cap(c.wire.Buf); n > 4*(4096+DefaultConfig().HandshakeBytesMax) {
			t.Fatalf("%d bytes are held of a partial message", n)
		}
	}
	w.drain()
	w.server.Gone(c)
	w.pass(w.server.Server.cfg.ReconnectionTTL + w.server.TickEvery())
	if left := w.server.Leftovers(); len(left) > 0 {
		t.Fatal("left behind:", left)
	}
	return w.out[0].Bytes()
}
