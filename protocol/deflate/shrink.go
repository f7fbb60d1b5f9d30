package deflate

import (
	"sync"

	"github.com/klauspost/compress/flate"
)

// level is the compressor's effort where the window is whole. Measured by BenchmarkShrink
// (docs/decisions/compression.md).
const level = flate.BestSpeed

// flushMarker ends a flushed block; it is left out on the wire [RFC 7692 §7.2.1].
const flushMarker = "\x00\x00\xff\xff"

// sink is where a compressor writes: a slice that grows.
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
		panic("deflate: " + err.Error()) // only a level or a window out of range gives one
	}
	return c
}

// run compresses one message behind what dst holds.
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

// Shrinker compresses one connection's messages, each with the help of the earlier ones.
//
// Owner: the connection's loop.
type Shrinker struct{ c *compressor }

// NewShrinker makes one for a window of 2^bits bytes.
func NewShrinker(bits uint8) *Shrinker { return &Shrinker{newCompressor(bits)} }

// Shrink appends src, compressed. Messages must be sent in the order in which they were compressed.
func (s *Shrinker) Shrink(dst, src []byte) []byte { return s.c.run(dst, src) }
