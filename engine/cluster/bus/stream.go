package bus

import (
	"slices"
	"time"

	"github.com/parleyd/parley/protocol/ident"
)

// stream is one publisher's stream as one receiver sees it: the number of the next batch, the newer batches that wait
// for it, and the question that is out.
//
// Owner: inbox.
type stream struct {
	from   ident.Worker
	known  bool      // next is valid; else the publisher's first message sets it
	late   bool      // it was not known when Dial stopped waiting
	next   uint64    // the batch to deliver next
	seen   uint64    // the highest batch that is known to exist
	held   []heldRaw // newer batches, in order, without doubles
	dying  time.Time // when the missing batches are declared lost; zero while the publisher lives
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

// hold keeps a batch for later. It reports false if it has the batch already.
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

// shouldAsk decides whether to ask for the gap now. If so, the caller must ask.
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

// answered ends a question: if the answer brought anything, the next question may follow at once.
func (s *stream) answered() {
	if s.next != s.askedN {
		s.asked = time.Time{}
	}
}
