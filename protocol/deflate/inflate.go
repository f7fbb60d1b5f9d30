package deflate

import (
	"io"
	"sync"

	"github.com/klauspost/compress/flate"
)

// Outcome says how inflating went. It is deliberately no error: it costs no allocation.
type Outcome uint8

// Outcomes.
const (
	OK      Outcome = iota
	Corrupt         // the input is not deflate data
	TooBig          // the output exceeds the limit; inflating stopped there
	TooMany         // the input has more final blocks than a message of its length may have
)

// A block marked as the last ends a part of a message, and each part costs the copy of a window, however short it is. So
// a message may have partsLeast parts, and one more for each partBytes of compressed input.
const (
	partsLeast = 4
	partBytes  = 1024
)

// Window is the end of a client's earlier messages, to which its next message may refer back if the client keeps its
// context.
//
// Owner: the connection's loop.
type Window struct {
	size int
	kept []byte
}

// NewWindow makes a window of 2^bits bytes. Its memory grows as messages come.
func NewWindow(bits uint8) *Window { return &Window{size: 1 << bits} }

// keep remembers the end of out, a message's inflated bytes.
func (w *Window) keep(out []byte) {
	if len(out) >= w.size {
		w.kept = append(w.kept[:0], out[len(out)-w.size:]...)
		return
	}
	if over := len(w.kept) + len(out) - w.size; over > 0 {
		w.kept = w.kept[:copy(w.kept, w.kept[over:])]
	}
	w.kept = append(w.kept, out...)
}

// source is a message followed by the flush marker that the sender left out, and by an empty last block, so that
// the reader finds an end.
type source struct {
	message, end []byte
}

const messageEnd = flushMarker + "\x01\x00\x00\xff\xff"

var messageEndBytes = []byte(messageEnd)

func (s *source) ReadByte() (byte, error) {
	if len(s.message) == 0 {
		s.message, s.end = s.end, nil
		if len(s.message) == 0 {
			return 0, io.EOF
		}
	}
	b := s.message[0]
	s.message = s.message[1:]
	return b, nil
}

func (s *source) Read(p []byte) (int, error) {
	if len(s.message) == 0 {
		s.message, s.end = s.end, nil
		if len(s.message) == 0 {
			return 0, io.EOF
		}
	}
	n := copy(p, s.message)
	s.message = s.message[n:]
	return n, nil
}

// inflater is a reader and its source.
//
// Owner: the goroutine that took it out of the pool.
type inflater struct {
	source  source
	reader  io.ReadCloser
	history []byte // earlier output, to which the next part may refer back
	copied  int    // bytes of windows, for tests
}

var inflaters = sync.Pool{New: func() any {
	i := new(inflater)
	i.reader = flate.NewReader(&i.source)
	return i
}}

// step is the number of bytes by which inflating first grows its output.
const step = 4096

// Inflate appends a whole message, inflated, to dst: at most limit bytes of it, and one more with [TooBig]. w is the
// client's context, nil if the client keeps none. compressed is borrowed. Any goroutine, one at a time for one w.
func Inflate(dst, compressed []byte, limit int, w *Window) ([]byte, Outcome) {
	i := inflaters.Get().(*inflater)
	defer inflaters.Put(i)
	return i.inflate(dst, compressed, limit, w)
}

func (i *inflater) inflate(dst, compressed []byte, limit int, w *Window) ([]byte, Outcome) {
	begun := len(dst)
	i.source = source{compressed, messageEndBytes}
	defer func() { i.source = source{} }()
	var dict []byte
	if w != nil {
		dict = w.kept
	}
	for parts := partsLeast + len(compressed)/partBytes; ; parts-- {
		if parts == 0 {
			return dst, TooMany
		}
		i.reader.(flate.Resetter).Reset(&i.source, dict)
		i.copied += len(dict)
		before := len(dst)
		var outcome Outcome
		if dst, outcome = i.read(dst, begun+limit); outcome != OK {
			return dst, outcome
		}
		if len(i.source.message) == 0 {
			break
		}
		// The sender marked a block as its last and went on behind it [RFC 7692 §7.2.3.4].
		if len(dst) > before {
			i.remember(w, dst[begun:])
			dict = i.history
		}
	}
	if w != nil && len(dst) > begun {
		w.keep(dst[begun:])
	}
	return dst, OK
}

// read inflates up to the end of a part. It stops once dst is longer than most.
func (i *inflater) read(dst []byte, most int) ([]byte, Outcome) {
	for {
		if cap(dst)-len(dst) < step/4 {
			grown := make([]byte, len(dst), min(max(2*cap(dst), step), max(most+1+step/4, len(dst)+step/4)))
			copy(grown, dst)
			dst = grown
		}
		n, err := i.reader.Read(dst[len(dst):min(cap(dst), most+1)])
		dst = dst[:len(dst)+n]
		switch {
		case len(dst) > most:
			return dst, TooBig
		case err == io.EOF:
			return dst, OK
		case err != nil:
			return dst, Corrupt
		}
	}
}

// remember makes history the end of the window and of out, the message's output before the next part.
func (i *inflater) remember(w *Window, out []byte) {
	const most = 1 << bitsMax
	out = out[max(0, len(out)-most):]
	i.history = i.history[:0]
	if w != nil {
		i.history = append(i.history, w.kept[max(0, len(w.kept)+len(out)-most):]...)
	}
	i.history = append(i.history, out...)
	i.copied += len(i.history)
}
