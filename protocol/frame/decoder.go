package frame

import (
	"encoding/binary"
	"sync"

	"github.com/gobwas/ws"
)

// Limits are shared by all decoders of a server.
//
// Owner: immutable.
type Limits struct {
	MessageBytes int64 // payload over all frames of a message; a header that declares more is TooBig
	Fragments    int   // frames of a message
}

// compressedSlack is the number of bytes by which stored blocks may lengthen a message, once and for each 64 KiB.
const compressedSlack = 64

// Kind is the kind of a part.
type Kind uint8

// Kinds of parts.
const (
	None   Kind = iota // the chunk is exhausted
	Data               // bytes of a message
	Ping               // a whole ping
	Pong               // a whole pong
	Close              // a whole close frame; see ParseClose
	Broken             // the peer broke the protocol: no further part will come
)

// Part is one step of [Decoder.Next].
//
// Owner: the caller, until the next call.
type Part struct {
	Payload    []byte // borrowed: from the chunk, or from the decoder's buffer
	Kind       Kind
	Op         ws.OpCode // of the message, on continuation frames too
	First      bool      // of the message
	Last       bool      // of the message
	Compressed bool      // the whole message is compressed
	Violation  Violation
}

// Decoder takes frames apart. The zero Decoder refuses all input (NotReady); Reset makes it ready. It is small: every
// connection has one.
//
// Owner: one goroutine.
type Decoder struct {
	limits *Limits
	pieces *[piecesSize]byte // a header or a control frame's payload that comes in pieces
	left   int64             // of the frame's payload
	size   int64             // of the message so far
	frames int32             // of the message so far
	key    [4]byte
	have   uint8     // bytes of a header in pieces
	ctrl   ws.OpCode // of the control frame whose payload arrives; OpContinuation: none
	length uint8     // of that payload
	op     ws.OpCode // of the message; OpContinuation: none
	turn   uint8     // index in the key for the next byte of payload
	flags  flags
	utf8   UTF8
}

const piecesSize = ws.MaxControlFramePayloadSize

// piecesPool lends its buffers while a header or a control frame is incomplete.
var piecesPool = sync.Pool{New: func() any { return new([piecesSize]byte) }}

type flags uint8

const (
	flagExtended   flags = 1 << iota // RSV1 may be set
	flagCompressed                   // the message's first frame had RSV1 set
	flagFinal                        // the frame is the message's last
	flagStarted                      // a part of the message was handed on
	flagReady                        // Reset was called, and the peer has broken no rule since
)

// Reset makes d ready for a new connection.
func (d *Decoder) Reset(l *Limits, compression bool) {
	*d = Decoder{limits: l, flags: flagReady}
	if compression {
		d.flags |= flagExtended
	}
}

// Next takes one part off the front of chunk, unmasking it in place, and returns the rest of chunk. After a
// violation it returns None for ever.
func (d *Decoder) Next(chunk []byte) (Part, []byte) {
	if at, end := d.whole(chunk); end > 0 {
		return Part{Kind: Data, Op: ws.OpCode(chunk[0] & 0x0f), Payload: chunk[at:end], First: true, Last: true}, chunk[end:]
	}
	for len(chunk) > 0 && d.flags&flagReady != 0 {
		if d.left == 0 {
			var part Part
			if part, chunk = d.begin(chunk); part.Kind != None || d.left == 0 && len(chunk) == 0 {
				return part, chunk
			}
			continue
		}
		if d.ctrl != ws.OpContinuation {
			var whole bool
			if chunk, whole = d.gatherControl(chunk); whole {
				payload := d.pieces[:d.length]
				d.pieces = nil // lent to the caller: a copy would cost more than a new one
				return d.controlPart(payload), chunk
			}
			continue
		}
		return d.data(chunk)
	}
	if d.limits == nil && len(chunk) > 0 {
		return d.broken(NotReady), nil
	}
	return Part{}, nil
}

// whole unmasks a frame that is a message of its own and lies in chunk to its last byte, as nearly all do, and returns
// the bounds of its payload. For any other frame, and for a wrong one, end is 0 and chunk is as it was.
func (d *Decoder) whole(chunk []byte) (at, end int) {
	if len(chunk) < smallHeader || d.have != 0 || d.op|d.ctrl != ws.OpContinuation || d.flags&flagReady == 0 {
		return 0, 0
	}
	text := chunk[0] == bitFinal|byte(ws.OpText)
	size, at := int(chunk[1]&^bitMasked), smallHeader
	if size == 126 {
		size, at = int(binary.BigEndian.Uint16(chunk[2:])), smallHeader+2
		if size < 126 {
			return 0, 0
		}
	}
	end = at + size
	if !text && chunk[0] != bitFinal|byte(ws.OpBinary) || chunk[1]&bitMasked == 0 || chunk[1] == bitMasked|127 ||
		end > len(chunk) || int64(size) > d.limits.MessageBytes || d.limits.Fragments < 1 {
		return 0, 0
	}
	key, payload := [4]byte(chunk[at-4:at]), chunk[at:end]
	if ascii := unmask(payload, key, 0); text && !ascii && !ValidUTF8(payload) {
		unmask(payload, key, 0) // masked again: the long way finds the violation
		return 0, 0
	}
	return at, end
}

// smallHeader is the size of the shortest masked header.
const smallHeader = 6

// begin takes a header, and with it a control frame that lies whole in chunk, or a data frame without payload.
func (d *Decoder) begin(chunk []byte) (Part, []byte) {
	head := chunk
	if d.have > 0 {
		n := copy(d.pieces[d.have:ws.MaxHeaderSize], chunk)
		head = d.pieces[:int(d.have)+n]
	}
	if len(head) >= 2 {
		// Checked before the header is whole: the rest of it may never come.
		if v := d.check(head[0], head[1]); v != Fine {
			return d.broken(v), nil
		}
	}
	size := headerSize(head)
	if size > len(head) {
		if d.pieces == nil {
			d.pieces = piecesPool.Get().(*[piecesSize]byte)
		}
		copy(d.pieces[:], head)
		d.have = uint8(len(head))
		return Part{}, nil
	}
	length, v := payloadLength(head)
	if op := ws.OpCode(head[0] & 0x0f); v == Fine && !op.IsControl() {
		v = d.checkSize(op, head[0]&bitCompressed != 0, length)
	}
	if v != Fine {
		return d.broken(v), nil
	}
	copy(d.key[:], head[size-4:size])
	chunk = chunk[size-int(d.have):]
	d.have, d.turn, d.left = 0, 0, length
	b0 := head[0]
	if d.pieces != nil {
		piecesPool.Put(d.pieces)
		d.pieces = nil
	}
	op := ws.OpCode(b0 & 0x0f)
	if op.IsControl() {
		return d.beginControl(op, chunk)
	}
	d.enterFrame(b0, op)
	if length == 0 {
		return d.dataPart(chunk[:0]), chunk
	}
	return Part{}, chunk
}

// headerSize is the length of the header that starts with b; more than len(b) if b is too short to tell.
func headerSize(b []byte) int {
	if len(b) < 2 {
		return ws.MaxHeaderSize + 1
	}
	n := 2
	switch b[1] & 0x7f {
	case 126:
		n += 2
	case 127:
		n += 8
	}
	if b[1]&0x80 != 0 {
		n += 4
	}
	return n
}

// payloadLength reads the length of a whole header [RFC 6455 §5.2].
func payloadLength(b []byte) (int64, Violation) {
	switch n := b[1] & 0x7f; n {
	case 126:
		length := binary.BigEndian.Uint16(b[2:])
		if length < 126 {
			return 0, LongLength
		}
		return int64(length), Fine
	case 127:
		length := binary.BigEndian.Uint64(b[2:])
		switch {
		case length>>63 != 0:
			return 0, HugeLength
		case length < 1<<16:
			return 0, LongLength
		}
		return int64(length), Fine
	default:
		return int64(n), Fine
	}
}

// check holds a header's first two bytes against the RFC. gobwas's CheckHeader would let RSV2 and RSV3 pass once
// an extension is on.
func (d *Decoder) check(b0, b1 byte) Violation {
	op := ws.OpCode(b0 & 0x0f)
	final, rsv1 := b0&0x80 != 0, b0&0x40 != 0
	control := op.IsControl()
	switch {
	case b0&0x30 != 0 || rsv1 && d.flags&flagExtended == 0:
		return ReservedBits
	case op.IsReserved():
		return ReservedOpcode
	case rsv1 && (control || op == ws.OpContinuation):
		return CompressedControl
	case control && !final:
		return FragmentedControl
	case control && b1&0x7f > ws.MaxControlFramePayloadSize:
		return LongControl
	case op == ws.OpContinuation && d.op == ws.OpContinuation:
		return StrayContinuation
	case op.IsData() && op != ws.OpContinuation && d.op != ws.OpContinuation:
		return InterruptedMessage
	case b1&0x80 == 0:
		return Unmasked
	}
	return Fine
}

// checkSize holds a data frame against the limits before any of its payload arrives.
func (d *Decoder) checkSize(op ws.OpCode, rsv1 bool, length int64) Violation {
	size, frames, compressed := d.size, d.frames, d.flags&flagCompressed != 0
	if op != ws.OpContinuation {
		size, frames, compressed = 0, 0, rsv1
	}
	limit := d.limits.MessageBytes
	if compressed {
		limit += limit/1024 + compressedSlack
	}
	switch {
	case length > limit-size:
		return TooBig
	case int(frames) >= d.limits.Fragments:
		return TooManyFragments
	}
	return Fine
}

// enterFrame records a legal data frame's header.
func (d *Decoder) enterFrame(b0 byte, op ws.OpCode) {
	d.flags &^= flagFinal
	if op != ws.OpContinuation {
		d.op, d.size, d.frames = op, 0, 0
		d.flags &^= flagCompressed | flagStarted
		d.utf8 = UTF8{}
		if b0&0x40 != 0 {
			d.flags |= flagCompressed
		}
	}
	if b0&0x80 != 0 {
		d.flags |= flagFinal
	}
	d.frames++
	d.size += d.left
}

// data hands on the part of a data frame's payload that chunk holds.
func (d *Decoder) data(chunk []byte) (Part, []byte) {
	n := len(chunk)
	if d.left < int64(n) {
		n = int(d.left)
	}
	payload := chunk[:n]
	unmask(payload, d.key, int(d.turn))
	d.turn = (d.turn + uint8(n&3)) & 3
	d.left -= int64(n)
	return d.dataPart(payload), chunk[n:]
}

func (d *Decoder) dataPart(payload []byte) Part {
	last := d.left == 0 && d.flags&flagFinal != 0
	part := Part{Kind: Data, Op: d.op, Payload: payload, Last: last,
		First: d.flags&flagStarted == 0, Compressed: d.flags&flagCompressed != 0}
	d.flags |= flagStarted
	if d.op == ws.OpText && !part.Compressed && !(d.utf8.Feed(payload) && (!last || d.utf8.Whole())) {
		return d.broken(InvalidUTF8)
	}
	if last {
		d.op = ws.OpContinuation
	}
	return part
}

// beginControl takes a control frame whose payload lies whole in chunk, or begins to gather it.
func (d *Decoder) beginControl(op ws.OpCode, chunk []byte) (Part, []byte) {
	n := int(d.left)
	d.ctrl = op
	if n <= len(chunk) {
		d.left = 0
		unmask(chunk[:n], d.key, 0)
		return d.controlPart(chunk[:n]), chunk[n:]
	}
	d.pieces = piecesPool.Get().(*[piecesSize]byte)
	d.length = uint8(n)
	return Part{}, chunk
}

func (d *Decoder) gatherControl(chunk []byte) (rest []byte, whole bool) {
	has := int(d.length) - int(d.left)
	n := copy(d.pieces[has:d.length], chunk)
	unmask(d.pieces[has:has+n], d.key, has&3)
	d.left -= int64(n)
	return chunk[n:], d.left == 0
}

func (d *Decoder) controlPart(payload []byte) Part {
	op := d.ctrl
	d.ctrl = ws.OpContinuation
	kind := Pong
	switch op {
	case ws.OpPing:
		kind = Ping
	case ws.OpClose:
		kind = Close
	}
	return Part{Kind: kind, Op: op, Payload: payload, First: true, Last: true}
}

func (d *Decoder) broken(v Violation) Part {
	d.flags &^= flagReady
	d.pieces = nil
	return Part{Kind: Broken, Violation: v}
}
