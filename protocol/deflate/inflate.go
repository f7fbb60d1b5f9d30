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
	Corrupt         // this is no deflate data
	TooBig          // it is more than the limit; inflating stopped there
	TooMany         // it is in more parts, each marked as the last, than a message of its length may be
)

// A part that ends with a block marked as the last costs the copy of a window, however short it is. So a message may be
// partsLeast of them, and one more for each partBytes of it.
const (
	partsLeast = 4
	partBytes  = 1024
)

// Window is what a client's next message may refer back to, where it takes its context over.
//
// Owner: the connection's loop.
type Window struct {
	size int
	kept []byte
}

// NewWindow makes one of 2^bits bytes. It grows as messages come.
func NewWindow(bits uint8) *Window { return &Window{size: 1 << bits} }

// keep remembers the end of what was inflated.
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

// source is a message followed by what the sender left out, and by an empty last block, so that the
// reader finds an end.
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
// Owner: who took it out of the pool.
type inflater struct {
	source  source
	reader  io.ReadCloser
	history []byte // what the next part may refer back to
	copied  int    // bytes of windows, for tests
}

var inflaters = sync.Pool{New: func() any {
	i := new(inflater)
	i.reader = flate.NewReader(&i.source)
	return i
}}

// step is how much room inflating asks for at a time.
const step = 4096

// Inflate appends a whole message, inflated, to dst: at most limit bytes of it. w is the client's context,
// nil where it takes none over. compressed is borrowed. Any goroutine, one at a time for one w.
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

// read inflates up to a last block, stopping once dst is longer than most.
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

// remember notes what the next part may refer back to: the end of what came before it.
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
