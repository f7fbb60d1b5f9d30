package bus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
)

// ErrEntryTooLarge is the error of Append for an entry beyond EntryBytesMax, or beyond half the ring.
var ErrEntryTooLarge = errors.New("entry is too large for the bus")

// outbox holds the batch that a worker is filling, and the ring of its numbered batches. It never waits for the bus: if
// the bus is away or slower than its publishers, the ring drops its oldest batches, and receivers see the gap in the
// sequence.
//
// Owner: shared (mutex: mu).
type outbox struct {
	entryMax   int // bytes; half the ring at most, so that any batch fits into it
	batchLimit int

	mu       sync.Mutex
	batch    []byte // being filled; its header is blank
	entries  uint32 // in it
	due      bool   // Flush was called: the sender takes it as it is
	ring     ring
	sent     uint64 // the newest batch that was handed to NATS, or that the ring dropped before
	unsent   int    // bytes of the batches after sent
	overrun  uint64 // batches that the ring dropped before they were handed over
	appended uint64 // entries ever
	bytes    uint64 // of all batches ever sealed
}

func newOutbox(ringBytes int) *outbox {
	o := &outbox{
		batch:      make([]byte, batchHeaderBytes, batchBytesMax),
		entryMax:   min(EntryBytesMax, ringBytes/2),
		batchLimit: min(batchBytesMax, ringBytes/2),
	}
	o.ring = newRing(ringBytes, o.gone)
	return o
}

// limit bounds entries and batches by the largest message that the server takes. Before the first append.
func (o *outbox) limit(payload int) {
	o.entryMax = min(o.entryMax, payload-batchSlack)
	o.batchLimit = min(o.batchLimit, payload)
}

// append copies an entry into the batch. It reports whether a batch got full.
func (o *outbox) append(entry []byte) (full bool, err error) {
	size := len(entry)
	if size > o.entryMax {
		return false, fmt.Errorf("append entry of %d bytes, %d at most: %w", size, o.entryMax, ErrEntryTooLarge)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.entries > 0 && len(o.batch)+binary.MaxVarintLen32+size > o.batchLimit {
		o.seal()
		full = true
	}
	o.batch = binary.AppendUvarint(o.batch, uint64(size))
	if n := len(o.batch); cap(o.batch)-n < size {
		o.batch = append(make([]byte, 0, n+size), o.batch...)
	}
	o.batch = append(o.batch, entry...)
	o.entries++
	o.appended++
	return full, nil
}

// flush marks the batch for sending. It reports whether the batch has entries.
func (o *outbox) flush() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.due = o.entries > 0
	return o.due
}

// flushAll is flush, and returns the number of the newest batch, the flushed one included, and how many batches were dropped
// so far before they were handed over.
func (o *outbox) flushAll() (seq, overrun uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.due = o.entries > 0
	if o.due {
		return o.ring.top + 1, o.overrun
	}
	return o.ring.top, o.overrun
}

// seal numbers the batch and moves it into the ring. The caller holds mu.
func (o *outbox) seal() {
	size := len(o.batch)
	dst := o.ring.place(size)
	sealBatch(o.batch, o.ring.top, o.entries)
	copy(dst, o.batch)
	o.unsent += size
	o.bytes += uint64(size)
	o.entries, o.due = 0, false
	if cap(o.batch) > 2*batchBytesMax {
		o.batch = make([]byte, batchHeaderBytes, batchBytesMax)
	}
	o.batch = o.batch[:batchHeaderBytes]
}

// gone accounts for a batch that the ring drops.
func (o *outbox) gone(seq uint64, size int) {
	if seq > o.sent {
		o.sent = seq
		o.unsent -= size
		o.overrun++
	}
}

// next copies the next batch to hand over into buf. Its sequence is 0 where there is none.
func (o *outbox) next(buf []byte) (raw []byte, seq uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.due {
		o.seal()
	}
	if o.sent == o.ring.top {
		return buf[:0], 0
	}
	return append(buf[:0], o.ring.at(o.sent+1)...), o.sent + 1
}

// commit says that a batch was handed over.
func (o *outbox) commit(seq uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if seq > o.sent {
		o.unsent -= int(o.ring.span(seq).size)
		o.sent = seq
	}
}

// top is the highest sequence that receivers can expect.
func (o *outbox) top() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.sent
}

// again copies a batch that was sent before into buf. If the ring no longer has it, raw is empty, and oldest is the first
// batch that the ring has, or will have.
func (o *outbox) again(seq uint64, buf []byte) (raw []byte, oldest uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if seq < o.ring.first || seq > o.sent {
		return buf[:0], o.ring.first
	}
	return append(buf[:0], o.ring.at(seq)...), o.ring.first
}
