package frame

import (
	"encoding/binary"
	"math/bits"

	"github.com/gobwas/ws"
)

// cipherMin is the size from which gobwas's cipher, which has vector code, beats the loop below. Measured
// by BenchmarkUnmask.
const cipherMin = 192

// unmask unmasks p in place; offset is the index in the key for its first byte. ascii means that no byte of the outcome
// has its high bit set; false means that unmask did not look or found one.
func unmask(p []byte, key [4]byte, offset int) (ascii bool) {
	if len(p) >= cipherMin {
		ws.Cipher(p, key, offset)
		return false
	}
	return unmaskSmall(p, key, offset)
}

// unmaskSmall looks for high bits on the way: most text has none, and then needs no check for UTF-8.
func unmaskSmall(p []byte, key [4]byte, offset int) (ascii bool) {
	k := bits.RotateLeft32(binary.LittleEndian.Uint32(key[:]), -8*(offset&3))
	wide := uint64(k)<<32 | uint64(k)
	var seen uint64
	for len(p) >= 32 {
		a, b := binary.LittleEndian.Uint64(p)^wide, binary.LittleEndian.Uint64(p[8:])^wide
		c, d := binary.LittleEndian.Uint64(p[16:])^wide, binary.LittleEndian.Uint64(p[24:])^wide
		binary.LittleEndian.PutUint64(p, a)
		binary.LittleEndian.PutUint64(p[8:], b)
		binary.LittleEndian.PutUint64(p[16:], c)
		binary.LittleEndian.PutUint64(p[24:], d)
		seen |= a | b | c | d
		p = p[32:]
	}
	for len(p) >= 8 {
		a := binary.LittleEndian.Uint64(p) ^ wide
		binary.LittleEndian.PutUint64(p, a)
		seen |= a
		p = p[8:]
	}
	for i := range p {
		p[i] ^= byte(wide >> (8 * (i & 7)))
		seen |= uint64(p[i])
	}
	return seen&highBits == 0
}

const highBits = 0x8080808080808080
