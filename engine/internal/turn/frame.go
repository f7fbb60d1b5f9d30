package turn

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"unicode/utf8"
	"unsafe"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/protocol/deflate"
	"github.com/parleyd/parley/protocol/frame"
	"github.com/parleyd/parley/protocol/message"
)

// Frame is an encoded message on its way out, or several that leave together. It is built once and referenced by
// every queue that holds it; its bytes are never changed.
//
// The compressed variants are made when a frame is first written to a connection that negotiated one. Connections with the
// same window size share a variant.
//
// Owner: immutable once posted.
type Frame struct {
	Plain    []byte // header and payload
	Payload  int32  // where the payload starts in Plain
	further  int32  // messages after the first
	op       ws.OpCode
	lent     bool // by a loop, which gets it back once it is written
	variants atomic.Pointer[frameVariants]
}

// frameVariants are a frame's compressed forms.
type frameVariants struct {
	frames []*Frame // the messages of a joined frame
	bytes  [deflateBitsMax + 1]atomic.Pointer[[]byte]
}

const (
	deflateBitsMax = 15
	// deflateBytesMin is the payload below which compressing costs more than it saves.
	deflateBytesMin = 128
)

// NewFrame copies payload into a frame of its own.
func NewFrame(op ws.OpCode, payload []byte) *Frame {
	n := frame.HeaderSize(len(payload))
	f, buf := allocFrame(n + len(payload))
	f.Plain, f.Payload, f.op = frame.Append(buf, op, payload), int32(n), op
	return f
}

// CopyFrame copies a whole frame that is already encoded. header is the length of its header.
func CopyFrame(raw []byte, header int) *Frame {
	f, buf := allocFrame(len(raw))
	f.Plain, f.Payload, f.op = append(buf, raw...), int32(header), ws.OpCode(raw[0]&0x0f)
	return f
}

// BuildFrame lets build append a payload of about sizeHint bytes, and frames it without a copy.
func BuildFrame(op ws.OpCode, sizeHint int, build func([]byte) []byte) *Frame {
	f, buf := allocFrame(ws.MaxHeaderSize + sizeHint)
	f.inPlace(op, build(buf[:ws.MaxHeaderSize]))
	return f
}

// Init makes f a text frame of bytes that are encoded already, and never changed. header is the length of their header.
func (f *Frame) Init(raw []byte, header int) {
	f.Plain, f.Payload, f.op = raw, int32(header), ws.OpText
}

// allocFrame makes a frame and a buffer for its bytes: in one allocation if the frame is short.
func allocFrame(bytes int) (*Frame, []byte) {
	switch {
	case bytes <= len(smallFrame{}.buf):
		x := new(smallFrame)
		return &x.Frame, x.buf[:0]
	case bytes <= len(mediumFrame{}.buf):
		x := new(mediumFrame)
		return &x.Frame, x.buf[:0]
	}
	return new(Frame), make([]byte, 0, bytes)
}

// The sizes fill the allocator's classes.
type (
	smallFrame struct {
		Frame
		buf [320 - unsafe.Sizeof(Frame{})]byte
	}
	mediumFrame struct {
		Frame
		buf [1408 - unsafe.Sizeof(Frame{})]byte
	}
)

// Join makes one frame of several, in their order.
func Join(frames []*Frame) *Frame {
	n := 0
	for _, f := range frames {
		n += len(f.Plain)
	}
	all := &Frame{Plain: make([]byte, 0, n), further: int32(len(frames) - 1)}
	for _, f := range frames {
		all.Plain = append(all.Plain, f.Plain...)
	}
	all.variants.Store(&frameVariants{frames: frames})
	return all
}

// FrameInPlace makes a frame of a payload that starts at ws.MaxHeaderSize in buf.
func FrameInPlace(op ws.OpCode, buf []byte) *Frame {
	f := new(Frame)
	f.inPlace(op, buf)
	return f
}

// inPlace puts the header in front of a payload that starts at ws.MaxHeaderSize in buf.
func (f *Frame) inPlace(op ws.OpCode, buf []byte) {
	const headerMax = ws.MaxHeaderSize
	n := frame.HeaderSize(len(buf) - headerMax)
	frame.AppendHeader(buf[headerMax-n:headerMax-n:headerMax], op, len(buf)-headerMax)
	f.Plain, f.Payload, f.op = buf[headerMax-n:], int32(n), op
}

// variant returns the bytes for a connection that negotiated a window of 2^bits bytes; 0 bits: without compression.
func (f *Frame) variant(bits uint8) []byte {
	if bits == 0 || f.further == 0 && len(f.Plain)-int(f.Payload) < deflateBytesMin {
		return f.Plain
	}
	table := f.variants.Load()
	if table == nil {
		table = new(frameVariants)
		if !f.variants.CompareAndSwap(nil, table) {
			table = f.variants.Load()
		}
	}
	if b := table.bytes[bits].Load(); b != nil {
		return *b
	}
	var b []byte
	if f.further == 0 {
		b = f.shrink(bits)
	}
	for _, part := range table.frames {
		b = append(b, part.variant(bits)...)
	}
	// Two loops may both have compressed. Both must send the same bytes: a short write is continued with them.
	if !table.bytes[bits].CompareAndSwap(nil, &b) {
		b = *table.bytes[bits].Load()
	}
	return b
}

func (f *Frame) shrink(bits uint8) []byte {
	payload := f.Plain[f.Payload:]
	small := deflate.Shrink(nil, payload, bits)
	if len(small) >= len(payload) {
		return f.Plain
	}
	return appendCompressed(make([]byte, 0, frame.HeaderSize(len(small))+len(small)), f.op, small)
}

func appendCompressed(dst []byte, op ws.OpCode, small []byte) []byte {
	return append(frame.AppendCompressedHeader(dst, op, len(small)), small...)
}

// taken returns f compressed for one connection, and takes over that connection's context.
func (f *Frame) taken(s *deflate.Shrinker) *Frame {
	payload := f.Plain[f.Payload:]
	if len(payload) < deflateBytesMin || f.op.IsControl() {
		return f
	}
	return Sealed(appendCompressed(nil, f.op, s.Shrink(nil, payload)))
}

// Sealed makes a frame of bytes that are already encoded for the wire.
func Sealed(raw []byte) *Frame { return &Frame{Plain: raw, Payload: int32(len(raw))} }

// ErrInvalidUTF8 is the error for a text message that is not valid UTF-8: clients close the connection for it [RFC 6455
// §8.1]. a binary message takes any bytes.
var ErrInvalidUTF8 = errors.New("a text message must be valid UTF-8; send binary data with SendBinary")

// EncodeFrame makes a text frame of v.
func EncodeFrame(v any) (*Frame, error) {
	if raw, ok := v.([]byte); ok {
		if !frame.ValidUTF8(raw) {
			return nil, ErrInvalidUTF8
		}
		return NewFrame(ws.OpText, raw), nil
	}
	raw, err := message.Encode(make([]byte, ws.MaxHeaderSize, 256), v)
	if err != nil {
		return nil, err
	}
	return FrameInPlace(ws.OpText, raw), nil
}

// Farewell turns an application's code and reason into ones that may be sent. Any goroutine.
func Farewell(log *slog.Logger, conn fmt.Stringer, code ws.StatusCode, reason string) (ws.StatusCode, string) {
	if !frame.MayBeSent(code) {
		log.Error("a close code is not allowed, and the server sends 1011 instead; use 1000, 1001, 1008, 1011 to 1013, or 3000 to 4999",
			"code", int(code), "conn", conn.String())
		code = ws.StatusInternalServerError
	}
	if !utf8.ValidString(reason) {
		log.Error("a close reason is not valid UTF-8, and the server replaces the invalid bytes", "reason", reason, "conn", conn.String())
		reason = strings.ToValidUTF8(reason, "\uFFFD")
	}
	if len(reason) > frame.ReasonBytesMax {
		log.Warn("a close reason is cut", "bytes", len(reason), "bytes_max", frame.ReasonBytesMax, "conn", conn.String())
	}
	return code, reason
}
