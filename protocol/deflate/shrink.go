package deflate

import (
	"sync"

	"github.com/klauspost/compress/flate"
)

// level is the compressor's effort with a window of 32 KiB. Measured by BenchmarkShrink
// (docs/decisions/compression.md).
const level = flate.BestSpeed

// flushMarker ends a flushed block; it is left out on the wire [RFC 7692 §7.2.1].
const flushMarker = "\x00\x00\xff\xff"

// sink takes a compressor's output in a slice that grows.
type sink struct{ buf []byte }

func (s *sink) Write(p []byte) (int, error) {
	s.buf = append(s.buf, p...)
	return len(p), nil
}

// compressor is a writer and its sink.
type compressor struct {
	sink   sink
	writer *flate.Writer
}

func newCompressor(bits uint8) *compressor {
	c := new(compressor)
	var err error
	if bits >= bitsMax {
		c.writer, err = flate.NewWriter(&c.sink, level)
	} else {
		c.writer, err = flate.NewWriterWindow(&c.sink, 1<<bits)
	}
	if err != nil {
		panic("deflate: " + err.Error()) // only a level or a window out of range is an error
	}
	return c
}

// run appends one message, compressed, to dst.
func (c *compressor) run(dst, src []byte) []byte {
	c.sink.buf = dst
	c.writer.Write(src) // writing into a slice does not fail
	c.writer.Flush()
	dst = c.sink.buf
	c.sink.buf = nil
	return dst[:len(dst)-len(flushMarker)]
}

// pools lend compressors by window size.
var pools [bitsMax + 1]sync.Pool

// Shrink appends src, compressed as a whole message that needs no earlier one and refers back by less than
// 2^bits bytes. Any goroutine.
func Shrink(dst, src []byte, bits uint8) []byte {
	c, _ := pools[bits].Get().(*compressor)
	if c == nil {
		c = newCompressor(bits)
	}
	c.writer.Reset(&c.sink)
	dst = c.run(dst, src)
	pools[bits].Put(c)
	return dst
}

// Shrinker compresses one connection's messages, each with the help of the earlier ones. It keeps their end as a
// dictionary and shares the compressors of all connections: 8 KiB a connection, not the 800 of a compressor.
// References go back by up to 32 KiB: the client's window must be as large.
//
// Owner: the connection's loop.
type Shrinker struct {
	dictionary []byte
	sink       sink
}

// dictionaryMax is the most that the compressor makes use of, in bytes.
const dictionaryMax = 8 << 10

// Shrink appends src, compressed. Messages must be sent in the order in which they were compressed.
func (s *Shrinker) Shrink(dst, src []byte) []byte {
	s.sink.buf = dst
	flate.StatelessDeflate(&s.sink, src, false, s.dictionary) // writing into a slice does not fail
	dst = s.sink.buf
	s.sink.buf = nil
	s.dictionary = append(s.dictionary, src[max(0, len(src)-dictionaryMax):]...)
	if excess := len(s.dictionary) - dictionaryMax; excess > 0 {
		s.dictionary = append(s.dictionary[:0], s.dictionary[excess:]...)
	}
	return dst[:len(dst)-len(flushMarker)]
}
