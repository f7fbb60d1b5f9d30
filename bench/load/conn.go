//go:build linux

package load

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// conn is one client: a descriptor and the messages that it expects.
//
// Owner: the generator's thread.
type conn struct {
	fd     int
	index  int
	ready  bool
	state  int
	room   *room
	next   uint64   // the number of the next message that it must get from the room's first publisher
	nexts  []uint64 // the same for each publisher, if there are several
	worker uint16   // of the server, from the connection's id
	seq    uint64   // the server's number of the latest message
	due    int      // echoes that have come back, each to be answered with a new message
	sent   uint64

	in  []byte // a partial frame or head; nil while nothing is partial
	out []byte // bytes that the kernel did not take

	offset int // of the number in the latest message

	backend *backend // nil: a client
	guest   *dials   // nil: it stays
}

const (
	stateConnecting = iota
	stateHead       // waits for the answer to the handshake
	stateHello      // waits for the answer to the dialect's hello
	stateJoining
	stateReady
	stateClosed
)

// handshake is an opening handshake, with further header fields. Any key will do.
func handshake(addr, path, fields string) []byte {
	return fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n%s\r\n", cmp.Or(path, "/"), addr, fields)
}

var mask = [4]byte{0x37, 0xfa, 0x21, 0x3d}

// appendFrame appends a masked client frame.
func appendFrame(dst []byte, op byte, payload []byte) []byte {
	dst = append(dst, 0x80|op)
	switch n := len(payload); {
	case n < 126:
		dst = append(dst, 0x80|byte(n))
	case n < 1<<16:
		dst = append(dst, 0x80|126, byte(n>>8), byte(n))
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, 0x80|127), uint64(n))
	}
	dst = append(dst, mask[:]...)
	for i, b := range payload {
		dst = append(dst, b^mask[i%4])
	}
	return dst
}

// frameAt reads a server's frame. size is 0 if the frame is incomplete.
func frameAt(b []byte) (op byte, payload []byte, size int) {
	if len(b) < 2 {
		return 0, nil, 0
	}
	n, head := int(b[1]&0x7f), 2
	switch n {
	case 126:
		if len(b) < 4 {
			return 0, nil, 0
		}
		n, head = int(b[2])<<8|int(b[3]), 4
	case 127:
		if len(b) < 10 {
			return 0, nil, 0
		}
		n, head = int(binary.BigEndian.Uint64(b[2:])), 10
	}
	if len(b) < head+n {
		return 0, nil, 0
	}
	return b[0] & 0x0f, b[head : head+n], head + n
}

// A message carries its number as a string of ten digits behind this marker, in its data. Servers may put any text before it.
var marker = []byte(`"bench_n":"`)

const digits = 10

func appendNumber(dst []byte, n uint64) []byte {
	var buf [digits]byte
	for i := digits - 1; i >= 0; i-- {
		buf[i] = byte('0' + n%10)
		n /= 10
	}
	return append(dst, buf[:]...)
}

// number finds the message's number. It looks first at the place of the latest one. ok is false if there is none: then
// the message is an answer, a notice, or a ping.
func (c *conn) number(payload []byte) (n uint64, ok bool) {
	at := c.offset
	if at == 0 || at+digits > len(payload) || !bytes.Equal(payload[at-len(marker):at], marker) {
		i := bytes.Index(payload, marker)
		if i < 0 || i+len(marker)+digits > len(payload) {
			return 0, false
		}
		at = i + len(marker)
		c.offset = at
	}
	for _, d := range payload[at : at+digits] {
		n = n*10 + uint64(d-'0')
	}
	return n, true
}

// write sends p, and keeps the bytes that the kernel does not take.
func (c *conn) write(p []byte) error {
	if len(c.out) > 0 {
		c.out = append(c.out, p...)
		return nil
	}
	n, err := rawWrite(c.fd, p)
	if err == unix.EAGAIN {
		n, err = 0, nil
	}
	if err != nil {
		return err
	}
	if n < len(p) {
		c.out = append(c.out, p[n:]...)
	}
	return nil
}

// flush sends the kept bytes.
func (c *conn) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	n, err := rawWrite(c.fd, c.out)
	if err == unix.EAGAIN {
		return nil
	}
	if err != nil {
		return err
	}
	c.out = append(c.out[:0], c.out[n:]...)
	return nil
}
