package bus

import (
	"encoding/binary"
	"iter"
	"strconv"
	"strings"

	"github.com/parleyd/parley/protocol/ident"
)

// Every message on the bus starts with its kind, one byte. Numbers are little endian.
//
//	batch     kind, sequence (8), entries (4), then each entry: its length (uvarint), its bytes
//	others    kind, first (8), last (8)
const (
	kindBatch    byte = 'b'
	kindTop      byte = 't' // last: the publisher's highest sequence so far
	kindHello    byte = 'h' // asks for an announcement
	kindQuestion byte = 'q' // asks for first to last again
	kindGone     byte = 'g' // first to last have left the ring
	kindDone     byte = 'd' // the end of an answer; its last batch was last
)

const (
	batchHeaderBytes = 1 + 8 + 4
	noteBytes        = 1 + 8 + 8
	// batchBytesMax is where a batch is split. Only a single larger entry makes a larger batch.
	batchBytesMax = 64 << 10
	// batchSlack is more than a batch of one entry needs besides the entry.
	batchSlack = 1 << 10
	// EntryBytesMax bounds one entry, in bytes. A small ring bounds it further, to half its size.
	EntryBytesMax = payloadBytesMax - batchSlack
	// payloadBytesMax is the largest message that the server takes.
	payloadBytesMax = 8 << 20
)

// note is any message but a batch.
type note struct {
	kind        byte
	first, last uint64
}

func (n note) appendTo(dst []byte) []byte {
	dst = append(dst, n.kind)
	dst = binary.LittleEndian.AppendUint64(dst, n.first)
	return binary.LittleEndian.AppendUint64(dst, n.last)
}

func parseNote(raw []byte) (n note, ok bool) {
	if len(raw) != noteBytes {
		return note{}, false
	}
	return note{raw[0], binary.LittleEndian.Uint64(raw[1:]), binary.LittleEndian.Uint64(raw[9:])}, true
}

// sealBatch fills in the header of a batch whose entries are in place.
func sealBatch(raw []byte, seq uint64, entries uint32) {
	raw[0] = kindBatch
	binary.LittleEndian.PutUint64(raw[1:], seq)
	binary.LittleEndian.PutUint32(raw[9:], entries)
}

// parseBatch checks a whole batch, so that eachEntry needs no checks. If the header is complete, the sequence is returned
// even where the rest is wrong.
func parseBatch(raw []byte) (seq uint64, entries int, ok bool) {
	if len(raw) < batchHeaderBytes || raw[0] != kindBatch {
		return 0, 0, false
	}
	seq = binary.LittleEndian.Uint64(raw[1:])
	left := raw[batchHeaderBytes:]
	for len(left) > 0 {
		size, n := binary.Uvarint(left)
		if n <= 0 || size > uint64(len(left)-n) {
			return seq, 0, false
		}
		left = left[n+int(size):]
		entries++
	}
	return seq, entries, seq > 0 && uint32(entries) == binary.LittleEndian.Uint32(raw[9:])
}

// eachEntry walks a checked batch.
func eachEntry(raw []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for left := raw[batchHeaderBytes:]; len(left) > 0; {
			size, n := binary.Uvarint(left)
			end := n + int(size)
			if !yield(left[n:end:end]) {
				return
			}
			left = left[end:]
		}
	}
}

func subject(kind string, from ident.Worker) string { return kind + "." + strconv.Itoa(int(from)) }

func subjectTo(kind string, from, to ident.Worker) string {
	return subject(kind, from) + "." + strconv.Itoa(int(to))
}

// publisher reads the instance out of a subject: the second token, which the server has checked.
func publisher(subject string) (from ident.Worker, ok bool) {
	_, rest, _ := strings.Cut(subject, ".")
	digits, _, _ := strings.Cut(rest, ".")
	n, err := strconv.ParseUint(digits, 10, 16)
	return ident.On(0, uint16(n)), err == nil && n != 0
}
