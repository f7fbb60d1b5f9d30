package engine

import (
	"encoding/binary"
	"encoding/hex"

	"github.com/parleyd/parley/rooms"
)

// place is where a connection lives: loop, slot, and the generation that tells it from the slot's
// earlier and later tenants.
type place = rooms.Place

// idSize is the length of a connection id: instance (16 bits), loop (8), slot (24) and generation (48),
// in hexadecimal.
const idSize = 24

const generationMask = 1<<48 - 1

// appendID writes the id of the connection at p.
func appendID(dst []byte, instance uint16, p place) []byte {
	var raw [idSize / 2]byte
	binary.BigEndian.PutUint16(raw[0:], instance)
	binary.BigEndian.PutUint32(raw[2:], uint32(p.Loop)<<24|p.Slot)
	binary.BigEndian.PutUint16(raw[6:], uint16(p.Gen>>32))
	binary.BigEndian.PutUint32(raw[8:], uint32(p.Gen))
	return hex.AppendEncode(dst, raw[:])
}

// parseID is the inverse of appendID; ok is false for what was never an id.
func parseID(id string) (instance uint16, p place, ok bool) {
	var raw [idSize / 2]byte
	if len(id) != idSize {
		return 0, p, false
	}
	if n, err := hex.Decode(raw[:], []byte(id)); err != nil || n != len(raw) {
		return 0, p, false
	}
	where := binary.BigEndian.Uint32(raw[2:])
	p.Loop, p.Slot = uint8(where>>24), where&(slotsMax-1)
	p.Gen = uint64(binary.BigEndian.Uint16(raw[6:]))<<32 | uint64(binary.BigEndian.Uint32(raw[8:]))
	return binary.BigEndian.Uint16(raw[0:]), p, true
}
