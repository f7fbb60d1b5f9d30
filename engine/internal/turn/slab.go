package turn

import (
	"sync/atomic"

	"github.com/parleyd/parley/protocol/ident"
)

// slab holds a loop's connections by slot. The loop takes and frees slots. Any goroutine may look a slot up, so that finding
// a connection by its id is arithmetic instead of a map.
//
// Owner: loop; At, Each and From are for any goroutine.
type slab struct {
	chunks atomic.Pointer[[]*slabChunk]
	free   []uint32
	Size   uint32 // slots ever used
	Live   int
}

const slabChunkSlots = 512

type slabChunk [slabChunkSlots]atomic.Pointer[Conn]

// SlotsMax is the number of slots that a connection's id can name.
const SlotsMax = ident.SlotsMax

// take puts c, whose generation is set, into a slot, and reports false if no slot is left. The slot that was freed last is
// used first: it is still in the cache.
func (s *slab) take(c *Conn) bool {
	var slot uint32
	if n := len(s.free); n > 0 {
		slot = s.free[n-1]
		s.free = s.free[:n-1]
	} else {
		if s.Size == SlotsMax {
			return false
		}
		slot = s.Size
		s.Size++
		if slot%slabChunkSlots == 0 {
			s.grow()
		}
	}
	s.Live++
	c.Slot = slot
	(*s.chunks.Load())[slot/slabChunkSlots][slot%slabChunkSlots].Store(c) // from here on other goroutines may see it
	return true
}

func (s *slab) grow() {
	var chunks []*slabChunk
	if old := s.chunks.Load(); old != nil {
		chunks = append(chunks, *old...)
	}
	chunks = append(chunks, new(slabChunk))
	s.chunks.Store(&chunks)
}

func (s *slab) release(slot uint32) {
	(*s.chunks.Load())[slot/slabChunkSlots][slot%slabChunkSlots].Store(nil)
	s.free = append(s.free, slot)
	s.Live--
}

// At returns the connection in a slot; nil for an empty or unknown slot. Any goroutine.
func (s *slab) At(slot uint32) *Conn {
	chunks := s.chunks.Load()
	if chunks == nil || slot/slabChunkSlots >= uint32(len(*chunks)) {
		return nil
	}
	return (*chunks)[slot/slabChunkSlots][slot%slabChunkSlots].Load()
}

// Each calls f for every connection, slot by slot, until f returns false. Any goroutine. A connection that comes or goes
// meanwhile may be seen or missed.
func (s *slab) Each(f func(*Conn) bool) bool {
	chunks := s.chunks.Load()
	if chunks == nil {
		return true
	}
	for _, chunk := range *chunks {
		for i := range chunk {
			if c := chunk[i].Load(); c != nil && !f(c) {
				return false
			}
		}
	}
	return true
}

// From calls f for every connection from a slot on until f returns false. It returns the slot to continue at. As for Each,
// any goroutine may call it.
func (s *slab) From(slot uint32, f func(*Conn) bool) (next uint32, more bool) {
	chunks := s.chunks.Load()
	if chunks == nil {
		return 0, false
	}
	for ; slot < uint32(len(*chunks))*slabChunkSlots; slot++ {
		if c := (*chunks)[slot/slabChunkSlots][slot%slabChunkSlots].Load(); c != nil && !f(c) {
			return slot + 1, true
		}
	}
	return 0, false
}
