package engine

import (
	"sync/atomic"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/protocol/deflate"
	"github.com/parleyd/parley/protocol/frame"
)

// outFrame is an encoded message on its way out. It is built once and referenced by every queue that
// holds it; its bytes are never changed.
//
// The compressed variants are made when the first connection that negotiated one is served, and shared
// by all with the same window size.
//
// Owner: immutable once posted.
type outFrame struct {
	plain    []byte // header and payload
	payload  int    // where the payload starts in plain
	op       ws.OpCode
	variants atomic.Pointer[[deflateBitsMax + 1]atomic.Pointer[[]byte]]
}

const (
	deflateBitsMax = 15
	// deflateBytesMin is the payload below which compressing costs more than it saves.
	deflateBytesMin = 128
)

// newOutFrame copies payload into a frame of its own.
func newOutFrame(op ws.OpCode, payload []byte) *outFrame {
	n := frame.HeaderSize(len(payload))
	return &outFrame{
		plain:   frame.Append(make([]byte, 0, n+len(payload)), op, payload),
		payload: n,
		op:      op,
	}
}

// buildOutFrame lets build append a payload of about sizeHint bytes, and frames it without a copy.
func buildOutFrame(op ws.OpCode, sizeHint int, build func([]byte) []byte) *outFrame {
	const room = ws.MaxHeaderSize
	buf := build(make([]byte, room, room+sizeHint))
	return frameInPlace(op, buf)
}

// frameInPlace puts the header in front of a payload that starts at ws.MaxHeaderSize in buf.
func frameInPlace(op ws.OpCode, buf []byte) *outFrame {
	const room = ws.MaxHeaderSize
	n := frame.HeaderSize(len(buf) - room)
	frame.Append(buf[room-n:room-n], op, nil)
	frame.AppendHeader(buf[room-n:room-n:room], op, len(buf)-room)
	return &outFrame{plain: buf[room-n:], payload: n, op: op}
}

// variant returns the bytes for a connection that negotiated a window of 2^bits bytes, or none (0).
func (f *outFrame) variant(bits uint8) []byte {
	if bits == 0 || len(f.plain)-f.payload < deflateBytesMin {
		return f.plain
	}
	table := f.variants.Load()
	if table == nil {
		table = new([deflateBitsMax + 1]atomic.Pointer[[]byte])
		if !f.variants.CompareAndSwap(nil, table) {
			table = f.variants.Load()
		}
	}
	if b := table[bits].Load(); b != nil {
		return *b
	}
	b := f.shrink(bits)
	// Two loops may both have compressed; both must send the same bytes, since a partial write goes on
	// where it stopped.
	if !table[bits].CompareAndSwap(nil, &b) {
		b = *table[bits].Load()
	}
	return b
}

func (f *outFrame) shrink(bits uint8) []byte {
	payload := f.plain[f.payload:]
	small := deflate.Shrink(nil, payload, bits)
	if len(small) >= len(payload) {
		return f.plain
	}
	return appendCompressed(make([]byte, 0, frame.HeaderSize(len(small))+len(small)), f.op, small)
}

func appendCompressed(dst []byte, op ws.OpCode, small []byte) []byte {
	return append(frame.AppendCompressedHeader(dst, op, len(small)), small...)
}

// taken returns f compressed for one connection, whose context it takes over.
func (f *outFrame) taken(s *deflate.Shrinker) *outFrame {
	payload := f.plain[f.payload:]
	if len(payload) < deflateBytesMin || f.op.IsControl() {
		return f
	}
	return sealed(appendCompressed(nil, f.op, s.Shrink(nil, payload)))
}

// sealed makes a frame of bytes that are already as the wire wants them.
func sealed(raw []byte) *outFrame { return &outFrame{plain: raw, payload: len(raw)} }
