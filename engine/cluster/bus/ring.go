package bus

// ring keeps the newest batches of a publisher, by sequence, in one piece of memory of a fixed size: new batches
// overwrite the oldest. A batch is contiguous; one that would cross the end starts at the front.
//
// Owner: outbox (mutex: mu).
type ring struct {
	arena []byte
	spans []span                     // of batch seq at seq % len(spans); a power of two
	first uint64                     // the oldest batch that is kept
	top   uint64                     // the newest; first-1 where none is kept
	head  uint32                     // the offset of the next batch
	gone  func(seq uint64, size int) // called for each batch that is dropped
}

type span struct{ off, size uint32 }

const (
	// ringUnit is the space of the smallest batch, in bytes. It bounds the spans: 8 bytes for each 64 of the ring.
	ringUnit = 64
	// RingBytesMin and RingBytesMax bound LinkOptions.RingBytes.
	RingBytesMin = 4 << 10
	RingBytesMax = 1 << 30 // see RingBytesMin

	spansMin = 64
)

func newRing(size int, gone func(seq uint64, size int)) ring {
	return ring{arena: make([]byte, size), spans: make([]span, spansMin), first: 1, gone: gone}
}

// padded is the space of a batch in the ring.
func padded(size int) uint32 { return uint32((size + ringUnit - 1) / ringUnit * ringUnit) }

// place numbers the next batch, of at most len(arena) bytes, and returns the space for its bytes.
func (r *ring) place(size int) (dst []byte) {
	need := padded(size)
	if int(r.head)+int(need) > len(r.arena) {
		// The batches behind the head are the oldest: they are dropped before any at the front.
		for r.first <= r.top && r.span(r.first).off >= r.head {
			r.drop()
		}
		r.head = 0
	}
	for r.first <= r.top {
		oldest := r.span(r.first)
		if oldest.off >= r.head+need || oldest.off+padded(int(oldest.size)) <= r.head {
			break
		}
		r.drop()
	}
	r.top++
	if int(r.top-r.first) >= len(r.spans) {
		r.grow()
	}
	r.spans[r.top%uint64(len(r.spans))] = span{r.head, uint32(size)}
	dst = r.arena[r.head:][:size]
	r.head += need
	return dst
}

func (r *ring) drop() {
	r.gone(r.first, int(r.span(r.first).size))
	r.first++
}

func (r *ring) span(seq uint64) span { return r.spans[seq%uint64(len(r.spans))] }

func (r *ring) grow() {
	spans := make([]span, 2*len(r.spans))
	for seq := r.first; seq < r.top; seq++ {
		spans[seq%uint64(len(spans))] = r.span(seq)
	}
	r.spans = spans
}

// at returns a batch that is kept. The bytes are valid until the next place.
func (r *ring) at(seq uint64) []byte {
	s := r.span(seq)
	return r.arena[s.off:][:s.size]
}
