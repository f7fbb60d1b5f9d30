package conformance

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Opcodes as RFC 6455 §5.2 numbers them.
const (
	opContinuation byte = 0x0
	opText         byte = 0x1
	opBinary       byte = 0x2
	opClose        byte = 0x8
	opPing         byte = 0x9
	opPong         byte = 0xA
)

// rsv1 marks a compressed message (RFC 7692 §6), as the bit stands in frame.rsv.
const rsv1 byte = 4

// heardBytesMax bounds one frame from the server: a wrong length must not use up the test's memory.
const heardBytesMax = 64 << 20

// maskKey is constant: no proxy is to be protected here, and a failure is easier to read and to repeat if a case always
// sends the same bytes. No byte of it is zero, so that the cases detect a server that does not unmask.
var maskKey = [4]byte{0x5a, 0xc3, 0x17, 0xe8}

// blob describes a payload: unit, repeated and cut to length. So a table with messages of 16 MB uses no memory until a row
// is played.
type blob struct {
	unit   string
	length int
}

func lit(s string) blob                { return blob{unit: s, length: len(s)} }
func rep(unit string, length int) blob { return blob{unit: unit, length: length} }
func (b blob) short() string           { return shorten(b.head(), b.length) }
func (b blob) head() []byte            { return blob{b.unit, min(b.length, shownBytesMax)}.bytes() }
func (b blob) matches(payload []byte) bool {
	if len(payload) != b.length {
		return false
	}
	for len(payload) > 0 {
		n := min(len(payload), len(b.unit))
		if string(payload[:n]) != b.unit[:n] {
			return false
		}
		payload = payload[n:]
	}
	return true
}

func (b blob) bytes() []byte {
	out := make([]byte, 0, b.length+len(b.unit))
	for len(out) < b.length {
		out = append(out, b.unit...)
	}
	return out[:b.length]
}

// appendFrame appends one masked frame. first is the whole first octet of the header, so that a row can break any rule.
func appendFrame(dst []byte, first byte, payload []byte) []byte {
	dst = append(dst, first)
	switch n := len(payload); {
	case n <= 125:
		dst = append(dst, 0x80|byte(n))
	case n <= 0xffff:
		dst = append(dst, 0x80|126)
		dst = binary.BigEndian.AppendUint16(dst, uint16(n))
	default:
		dst = append(dst, 0x80|127)
		dst = binary.BigEndian.AppendUint64(dst, uint64(n))
	}
	dst = append(dst, maskKey[:]...)
	start := len(dst)
	dst = append(dst, payload...)
	for i := range dst[start:] {
		dst[start+i] ^= maskKey[i&3]
	}
	return dst
}

// closeBody is the payload of a close frame.
func closeBody(code int, text string) string {
	return string([]byte{byte(code >> 8), byte(code)}) + text
}

// heard is one frame from the server.
//
// Owner: the reading goroutine.
type heard struct {
	fin     bool
	rsv     byte
	op      byte
	payload []byte
}

const (
	errMasked     = breach("a masked frame (RFC 6455 §5.1)")
	errNotMinimal = breach("a length spelled with more octets than it needs (RFC 6455 §5.2)")
	errTooLarge   = breach("a frame far larger than any message sent")
)

// readFrame reads one frame of the server. io.EOF means that the stream ended between two frames.
func readFrame(r *bufio.Reader) (heard, error) {
	first, err := r.ReadByte()
	if err != nil {
		return heard{}, err
	}
	second, err := r.ReadByte()
	if err != nil {
		return heard{}, tornFrame(err)
	}
	if second&0x80 != 0 {
		return heard{}, errMasked
	}
	length := uint64(second)
	if second >= 126 {
		if length, err = readLength(r, second); err != nil {
			return heard{}, err
		}
	}
	if length > heardBytesMax {
		return heard{}, errTooLarge
	}
	h := heard{fin: first&0x80 != 0, rsv: first >> 4 & 7, op: first & 15, payload: make([]byte, length)}
	if _, err = io.ReadFull(r, h.payload); err != nil {
		return heard{}, tornFrame(err)
	}
	return h, nil
}

// readLength reads the 2 or 8 octets after a length of 126 or 127.
func readLength(r *bufio.Reader, second byte) (uint64, error) {
	var octets [8]byte
	width, least := 2, uint64(126)
	if second == 127 {
		width, least = 8, 1<<16
	}
	if _, err := io.ReadFull(r, octets[8-width:]); err != nil {
		return 0, tornFrame(err)
	}
	length := binary.BigEndian.Uint64(octets[:])
	if length < least {
		return 0, errNotMinimal
	}
	return length, nil
}

// tornFrame makes an end in the middle of a frame differ from io.EOF, the proper end.
func tornFrame(err error) error {
	return fmt.Errorf("stream ends within a frame: %w", errors.Join(io.ErrUnexpectedEOF, err))
}
