package frame

import (
	"encoding/binary"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

const (
	bitFinal      = 0x80
	bitCompressed = 0x40
	bitMasked     = 0x80
)

// HeaderSize is the size of the header of an unmasked frame with n bytes of payload.
func HeaderSize(n int) int {
	switch {
	case n < 126:
		return 2
	case n < 1<<16:
		return 4
	default:
		return 10
	}
}

// AppendHeader appends the header of an unmasked frame that is a whole message of n bytes.
func AppendHeader(dst []byte, op ws.OpCode, n int) []byte {
	return appendHeader(dst, bitFinal|byte(op), 0, n)
}

// AppendCompressedHeader is AppendHeader for a payload that permessage-deflate has compressed
// [RFC 7692 §6].
func AppendCompressedHeader(dst []byte, op ws.OpCode, n int) []byte {
	return appendHeader(dst, bitFinal|bitCompressed|byte(op), 0, n)
}

func appendHeader(dst []byte, b0, mask byte, n int) []byte {
	switch {
	case n < 126:
		return append(dst, b0, mask|byte(n))
	case n < 1<<16:
		return append(dst, b0, mask|126, byte(n>>8), byte(n))
	default:
		return binary.BigEndian.AppendUint64(append(dst, b0, mask|127), uint64(n))
	}
}

// Append appends an unmasked frame that is a whole message.
func Append(dst []byte, op ws.OpCode, payload []byte) []byte {
	return append(AppendHeader(dst, op, len(payload)), payload...)
}

// AppendClose appends a close frame. It cuts reason at 123 bytes, between characters; code 0 or 1005 makes a frame
// without a body [RFC 6455 §5.5.1].
func AppendClose(dst []byte, code ws.StatusCode, reason string) []byte {
	if code == 0 || code == ws.StatusNoStatusRcvd {
		return AppendHeader(dst, ws.OpClose, 0)
	}
	if len(reason) > ReasonBytesMax {
		n := ReasonBytesMax
		for n > 0 && !utf8.RuneStart(reason[n]) {
			n--
		}
		reason = reason[:n]
	}
	dst = AppendHeader(dst, ws.OpClose, 2+len(reason))
	dst = binary.BigEndian.AppendUint16(dst, uint16(code))
	return append(dst, reason...)
}

// AppendMasked appends a client's frame that is a whole message.
func AppendMasked(dst []byte, op ws.OpCode, key [4]byte, payload []byte) []byte {
	dst = appendHeader(dst, bitFinal|byte(op), bitMasked, len(payload))
	dst = append(dst, key[:]...)
	at := len(dst)
	dst = append(dst, payload...)
	unmask(dst[at:], key, 0) // masking is its own inverse
	return dst
}

// ReasonBytesMax is the longest reason that fits into a close frame beside its code [RFC 6455 §5.5].
const ReasonBytesMax = ws.MaxControlFramePayloadSize - 2

// ParseClose reads a close frame's body. An empty body gives 1005, a code that no peer may send [RFC 6455 §7.1.5].
// reason is borrowed.
func ParseClose(payload []byte) (code ws.StatusCode, reason []byte, v Violation) {
	switch len(payload) {
	case 0:
		return ws.StatusNoStatusRcvd, nil, Fine
	case 1:
		return 0, nil, ShortClose
	}
	code = ws.StatusCode(binary.BigEndian.Uint16(payload))
	reason = payload[2:]
	switch {
	case !MayBeSent(code):
		return 0, nil, InvalidCloseCode
	case !ValidUTF8(reason):
		return 0, nil, InvalidUTF8
	}
	return code, reason, Fine
}

// MayBeSent reports whether a close code may occur on the wire [RFC 6455 §7.4]. The registry has since added 1012 to
// 1014, which gobwas's check does not know.
func MayBeSent(code ws.StatusCode) bool {
	switch {
	case code >= 1000 && code <= 1003, code >= 1007 && code <= 1014, code >= 3000 && code <= 4999:
		return true
	}
	return false
}
