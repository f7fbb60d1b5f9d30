package frame

import (
	"encoding/binary"
	"math/bits"

	"github.com/gobwas/ws"
)

// cipherMin is the size from which gobwas's cipher, which has vector code, beats the loop below. Measured
// by BenchmarkUnmask.
const cipherMin = 192

// unmask unmasks p in place; offset is where in the key its first byte is.
func unmask(p []byte, key [4]byte, offset int) {
	if len(p) >= cipherMin {
		ws.Cipher(p, key, offset)
		return
	}
	unmaskSmall(p, key, offset)
}

func unmaskSmall(p []byte, key [4]byte, offset int) {
	k := bits.RotateLeft32(binary.LittleEndian.Uint32(key[:]), -8*(offset&3))
	wide := uint64(k)<<32 | uint64(k)
	for len(p) >= 32 {
		binary.LittleEndian.PutUint64(p, binary.LittleEndian.Uint64(p)^wide)
		binary.LittleEndian.PutUint64(p[8:], binary.LittleEndian.Uint64(p[8:])^wide)
		binary.LittleEndian.PutUint64(p[16:], binary.LittleEndian.Uint64(p[16:])^wide)
		binary.LittleEndian.PutUint64(p[24:], binary.LittleEndian.Uint64(p[24:])^wide)
		p = p[32:]
	}
	for len(p) >= 8 {
		binary.LittleEndian.PutUint64(p, binary.LittleEndian.Uint64(p)^wide)
		p = p[8:]
	}
	for i := range p {
		p[i] ^= byte(wide >> (8 * (i & 7)))
	}
}
