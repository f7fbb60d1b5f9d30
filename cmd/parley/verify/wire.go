package verify

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/protocol/frame"
)

// A wire is the socket of a connection: bytes out, frames in.
//
// Owner: the goroutine that runs the checker.
type wire struct {
	fd       int // -1: closed
	watching interest
	in       []byte // an incomplete frame
	out      []byte // bytes that the kernel did not take
	message  []byte // fragments so far
	partial  bool   // a message has begun
	closing  bool   // we have sent a close frame
}

// request is a client's opening handshake. The key is the RFC's example; the answer to it is checked. fields are further lines
// of the head.
func (t *target) request(fields string) []byte {
	return fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n%s\r\n", t.path, t.host, fields)
}

// acceptKey is the Sec-WebSocket-Accept for that key, from the RFC [RFC 6455 §1.3].
var acceptKey = []byte("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")

// admission reads the answer to the handshake. rest is the input behind it; done is false if the answer is incomplete.
func admission(in []byte) (rest []byte, done bool, err error) {
	end := bytes.Index(in, []byte("\r\n\r\n"))
	if end < 0 {
		return in, false, nil
	}
	head := in[:end]
	first, _, _ := bytes.Cut(head, []byte("\r\n"))
	switch {
	case !bytes.HasPrefix(first, []byte("HTTP/1.1 101")):
		return nil, true, fmt.Errorf("answer handshake: %q instead of 101", first)
	case !bytes.Contains(head, acceptKey):
		return nil, true, fmt.Errorf("answer handshake: Sec-WebSocket-Accept does not fit the key")
	}
	return in[end+4:], true, nil
}

// frameLimit bounds a frame's payload: a larger one is a fault.
const frameLimit = 64 << 20

// arrived is one frame of the server's. payload is borrowed.
type arrived struct {
	op      ws.OpCode
	final   bool
	payload []byte
}

// nextFrame takes a server's frame off in. size is 0 if the frame is incomplete.
func nextFrame(in []byte) (f arrived, size int, err error) {
	if len(in) < 2 {
		return f, 0, nil
	}
	n, head := uint64(in[1]&0x7f), 2
	switch n {
	case 126:
		if len(in) < 4 {
			return f, 0, nil
		}
		n, head = uint64(binary.BigEndian.Uint16(in[2:])), 4
	case 127:
		if len(in) < 10 {
			return f, 0, nil
		}
		n, head = binary.BigEndian.Uint64(in[2:]), 10
	}
	switch {
	case in[0]&0x70 != 0:
		return f, 0, fmt.Errorf("a frame has reserved bits set (%#x)", in[0])
	case in[1]&0x80 != 0:
		return f, 0, fmt.Errorf("the server masks a frame")
	case n > frameLimit:
		return f, 0, fmt.Errorf("a frame declares %d bytes", n)
	case uint64(len(in)) < uint64(head)+n:
		return f, 0, nil
	}
	f = arrived{op: ws.OpCode(in[0] & 0x0f), final: in[0]&0x80 != 0, payload: in[head : head+int(n)]}
	if f.op.IsControl() && (!f.final || n > ws.MaxControlFramePayloadSize) {
		return f, 0, fmt.Errorf("a control frame of %d bytes, final %v", n, f.final)
	}
	return f, head + int(n), nil
}

var maskKey = [4]byte{0x37, 0xfa, 0x21, 0x3d}

// send frames a payload and writes it, keeping bytes that the kernel does not take. The next read returns any error.
func (c *conn) send(op ws.OpCode, payload []byte) {
	w := &c.wire
	if w.fd < 0 || w.closing {
		return
	}
	if len(w.out) > 0 {
		w.out = frame.AppendMasked(w.out, op, maskKey, payload)
		return
	}
	k := c.k
	k.framed = frame.AppendMasked(k.framed[:0], op, maskKey, payload)
	c.push(k.framed)
}

// push writes bytes, or keeps them. b is borrowed.
func (c *conn) push(b []byte) {
	n, err := c.k.poll.write(c.wire.fd, b)
	if err != nil {
		return // the read side gets the end, behind the server's last messages
	}
	if n < len(b) {
		c.wire.out = append(c.wire.out, b[n:]...)
		c.watch()
	}
}

// watch sets the events for which the socket is watched, by the connection's mode.
func (c *conn) watch() {
	want := watchInput
	switch {
	case c.mode == stalled || c.mode == frozen:
		want = watchNothing
	case len(c.wire.out) > 0:
		want = watchBoth
	}
	if c.wire.fd >= 0 {
		c.k.poll.watch(c.wire.fd, c.wire.watching, want)
		c.wire.watching = want
	}
}

// flush writes the kept bytes.
func (c *conn) flush() {
	w := &c.wire
	n, err := c.k.poll.write(w.fd, w.out)
	if err != nil {
		w.out = nil
	} else {
		w.out = append(w.out[:0], w.out[n:]...)
	}
	c.watch()
}

// hangUp closes the socket without a close frame.
func (c *conn) hangUp() {
	if c.wire.fd >= 0 {
		delete(c.k.byFD, c.wire.fd)
		c.k.poll.hangUp(c.wire.fd)
		c.wire.fd = -1
		c.wire.in, c.wire.out, c.wire.message = nil, nil, nil
	}
}
