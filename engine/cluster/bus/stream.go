package bus

import (
	"slices"
	"time"

	"github.com/parleyd/parley/protocol/ident"
)

// stream is what one publisher says, as one receiver sees it: which batch is next, which newer ones wait
// for it, and what has been asked.
//
// Owner: inbox.
type stream struct {
	from   ident.Worker
	known  bool      // next means something; else the first word of the publisher sets it
	late   bool      // it was to be known when Dial returned, and was not
	next   uint64    // the batch to deliver next
	seen   uint64    // the highest that is known to exist
	held   []heldRaw // newer ones, in order, without doubles
	dying  time.Time // when what is missing is given up; zero while the publisher lives
	asked  time.Time // zero while no question is out
	askedN uint64    // next, when it was asked
	wait   time.Duration
}

// heldRaw is a batch that waits for older ones.
type heldRaw struct {
	seq uint64
	raw []byte
}

// missing reports whether a batch is known to exist that has not come.
func (s *stream) missing() bool { return s.known && s.next <= s.seen }

// gap is the first range that is missing.
func (s *stream) gap() (first, last uint64) {
	if len(s.held) > 0 {
		return s.next, s.held[0].seq - 1
	}
	return s.next, s.seen
}

// hold keeps a batch for later. It reports false where it is there already.
func (s *stream) hold(seq uint64, raw []byte) bool {
	i, found := slices.BinarySearchFunc(s.held, seq, func(h heldRaw, seq uint64) int {
		switch {
		case h.seq < seq:
			return -1
		case h.seq > seq:
			return 1
		}
		return 0
	})
	if !found {
		s.held = slices.Insert(s.held, i, heldRaw{seq, raw})
	}
	return !found
}

// ready takes the next batch out of those that are held.
func (s *stream) ready() (raw []byte, ok bool) {
	if len(s.held) == 0 || s.held[0].seq != s.next {
		return nil, false
	}
	raw = s.held[0].raw
	s.held[0].raw = nil
	if s.held = s.held[1:]; len(s.held) == 0 {
		s.held = nil
	}
	return raw, true
}

const (
	askWaitMin = 50 * time.Millisecond
	askWaitMax = time.Second
)

// shouldAsk decides whether the gap is asked for now, and remembers that it was.
func (s *stream) shouldAsk(now time.Time) bool {
	if !s.missing() || !s.dying.IsZero() {
		s.asked, s.wait = time.Time{}, 0
		return false
	}
	if !s.asked.IsZero() && now.Sub(s.asked) < s.wait {
		return false
	}
	if s.asked.IsZero() || s.next != s.askedN {
		s.wait = askWaitMin
	} else {
		s.wait = min(2*s.wait, askWaitMax)
	}
	s.asked, s.askedN = now, s.next
	return true
}

// answered says that an answer has come to its end: if it brought anything, more can be asked for at once.
func (s *stream) answered() {
	if s.next != s.askedN {
		s.asked = time.Time{}
	}
}
