package bus

import (
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/parleyd/parley/engine/internal/invariant"
	"github.com/parleyd/parley/protocol/ident"
)

// Receiver gets the batches of the other workers. Its functions are called one after the other, never two at once, on a
// goroutine of the link; they must not block for long, and must not call the link's Forget or Close. Calls start before
// Dial returns.
//
// Owner: immutable after Dial.
type Receiver struct {
	// Batch gets the entries of one publisher's next batch. The bytes of the entries, and the sequence
	// itself, are borrowed until it returns.
	Batch func(from ident.Worker, entries iter.Seq[[]byte])
	// Lost says that a publisher's batches first to last are gone for good: their place is between the batches delivered
	// before the call and those delivered after it.
	Lost func(from ident.Worker, first, last uint64)
	// Gone says that no more calls follow for a forgotten instance. It may be nil.
	Gone func(from ident.Worker)
}

// The inbox turns the batches that arrive, some missing, double or late, into one ordered stream for each publisher.
//
// Problem: a batch can be missing because the bus restarted, because we were too slow for it, or because the connection
// broke; it can come twice, if we asked for it and it had only been late; and the publisher can die before it answers.
//
// Invariant: of each publisher, next is the only batch that is delivered, and it grows by one with each delivery or
// declared loss. So no batch is delivered twice or out of order, and none is missing without a call of Lost.
//
// Steps: the next batch is delivered; a newer one is held, or dropped beyond a bound (then it is a hole like any other);
// the first hole is asked for; an answer increases next.
//
// It does no I/O and reads no clock.
//
// Owner: Link (mutex: mu).
type inbox struct {
	to      Receiver
	ask     func(from ident.Worker, first, last uint64)
	arm     func(time.Duration) // call tick after this time
	streams map[ident.Worker]*stream
	dead    [1 << 16 / 64]uint64 // forgotten instances
	unheard int                  // streams that Dial waits for
	settled chan struct{}        // closed when there are none
	held    int                  // bytes in all streams
	count   inboxCount
}

// inboxCount counts arrivals.
//
// Owner: inbox.
type inboxCount struct {
	batches, entries, bytes uint64
	gaps                    uint64 // times that a hole was found where none was known
	repaired                uint64 // batches that came in answers
	lost                    uint64 // batches declared lost
	doubles                 uint64 // batches that had arrived before
	refused                 uint64 // newer batches beyond heldBytesMax
	malformed               uint64
}

const (
	// heldBytesMax bounds the batches that wait for older ones, of all publishers together.
	heldBytesMax = 16 << 20
	// heldCost is the memory of a held batch besides its bytes.
	heldCost = 256
	// forgetGrace is how long a dead publisher's last batches may still be on their way through the bus.
	forgetGrace = 250 * time.Millisecond
)

func newInbox(to Receiver, peers []ident.Worker) *inbox {
	in := &inbox{to: to, streams: map[ident.Worker]*stream{}, settled: make(chan struct{})}
	for _, p := range peers {
		if in.streams[p] == nil {
			in.streams[p] = &stream{from: p}
			in.unheard++
		}
	}
	if in.unheard == 0 {
		close(in.settled)
	}
	return in
}

// stream finds a publisher's stream. An instance that was not listed is younger than we are: its stream is made here, and
// starts at its first batch. It is nil for a forgotten instance.
func (in *inbox) stream(from ident.Worker) *stream {
	if in.dead[from/64]&(1<<(from%64)) != 0 {
		return nil
	}
	s := in.streams[from]
	if s == nil {
		s = &stream{from: from, known: true, next: 1}
		in.streams[from] = s
	}
	return s
}

// meet sets where a listed publisher's stream starts for us: after top.
func (in *inbox) meet(s *stream, top uint64) {
	if s.known {
		return
	}
	s.known, s.next, s.seen = true, top+1, top
	if s.late && top > 0 {
		in.count.lost += top
		in.to.Lost(s.from, 1, top)
	}
	in.settle(s)
}

// settle takes a stream off the list of those that Dial waits for.
func (in *inbox) settle(s *stream) {
	if !s.late {
		if in.unheard--; in.unheard == 0 {
			close(in.settled)
		}
	}
}

// stopWaiting is called when Dial stops waiting for peers. It marks those that are not known yet as late, and returns them.
func (in *inbox) stopWaiting() (silent []ident.Worker) {
	for _, s := range in.streams {
		if !s.known && !s.late {
			s.late = true
			silent = append(silent, s.from)
		}
	}
	return silent
}

// batch takes a batch that came in the publisher's stream, or (repair) in an answer.
func (in *inbox) batch(from ident.Worker, raw []byte, repair bool, now time.Time) {
	s := in.stream(from)
	if s == nil {
		return
	}
	seq, entries, ok := parseBatch(raw)
	if !ok {
		// No worker publishes such a batch on purpose. Asking again would bring it again.
		in.count.malformed++
		in.gone(from, seq, seq, now)
		return
	}
	if !repair {
		in.meet(s, seq-1)
	}
	if !s.known || seq < s.next {
		in.count.doubles++
		return
	}
	if repair {
		in.count.repaired++
	}
	if seq == s.next {
		s.seen = max(s.seen, seq)
		in.deliver(s, raw, entries)
		in.deliverHeld(s)
	} else {
		in.keep(s, seq, raw)
	}
	in.chase(s, now)
}

func (in *inbox) keep(s *stream, seq uint64, raw []byte) {
	if !s.missing() {
		in.count.gaps++
	}
	s.seen = max(s.seen, seq)
	switch {
	case in.held+len(raw)+heldCost > heldBytesMax:
		in.count.refused++
	case s.hold(seq, raw):
		in.held += len(raw) + heldCost
	default:
		in.count.doubles++
	}
}

func (in *inbox) deliver(s *stream, raw []byte, entries int) {
	s.next++
	in.count.batches++
	in.count.entries += uint64(entries)
	in.count.bytes += uint64(len(raw))
	in.to.Batch(s.from, eachEntry(raw))
	invariant.Scribble(raw)
}

func (in *inbox) deliverHeld(s *stream) {
	for {
		raw, ok := s.ready()
		if !ok {
			return
		}
		in.held -= len(raw) + heldCost
		_, entries, _ := parseBatch(raw)
		in.deliver(s, raw, entries)
	}
}

// chase asks for the first missing batches, unless a recent question is still out.
func (in *inbox) chase(s *stream, now time.Time) {
	if s.shouldAsk(now) {
		first, last := s.gap()
		in.ask(s.from, first, last)
	}
	if !s.asked.IsZero() {
		in.arm(s.asked.Add(s.wait).Sub(now))
	}
}

// top takes an announcement: the publisher has sent all batches up to top, so those that are not here are missing.
func (in *inbox) top(from ident.Worker, top uint64, now time.Time) {
	s := in.stream(from)
	if s == nil {
		return
	}
	in.meet(s, top)
	if top > s.seen {
		if !s.missing() {
			in.count.gaps++
		}
		s.seen = top
	}
	in.chase(s, now)
}

// gone takes the publisher's statement that it no longer has first to last.
func (in *inbox) gone(from ident.Worker, first, last uint64, now time.Time) {
	s := in.stream(from)
	if s == nil || !s.known || first > s.next || last < s.next {
		return
	}
	s.seen = max(s.seen, last)
	in.skipTo(s, last)
	in.chase(s, now)
}

// skipTo declares the missing batches up to last as lost, and delivers those held in between and right after.
func (in *inbox) skipTo(s *stream, last uint64) {
	for s.next <= last {
		first, end := s.next, last
		if len(s.held) > 0 {
			end = min(end, s.held[0].seq-1)
		}
		s.next = end + 1
		in.count.lost += end - first + 1
		in.to.Lost(s.from, first, end)
		in.deliverHeld(s)
	}
}

// done takes the end of an answer.
func (in *inbox) done(from ident.Worker, now time.Time) {
	if s := in.stream(from); s != nil {
		s.answered()
		in.chase(s, now)
	}
}

// forget accepts a dead publisher's batches for forgetGrace more, and asks it no more questions.
func (in *inbox) forget(from ident.Worker, now time.Time) {
	s := in.stream(from)
	if s == nil || !s.dying.IsZero() {
		return
	}
	s.dying = now.Add(forgetGrace)
	in.arm(forgetGrace)
}

// bury declares the missing batches of a dead publisher as lost, delivers those held, and deletes its stream.
func (in *inbox) bury(s *stream) {
	if s.known {
		in.skipTo(s, s.seen)
	} else {
		in.settle(s)
	}
	delete(in.streams, s.from)
	in.dead[s.from/64] |= 1 << (s.from % 64)
	if in.to.Gone != nil {
		in.to.Gone(s.from)
	}
}

// tick repeats questions and ends streams that are due. It is called when the time given to arm has passed, or earlier.
func (in *inbox) tick(now time.Time) {
	for _, from := range slices.Sorted(maps.Keys(in.streams)) {
		switch s := in.streams[from]; {
		case s.dying.IsZero():
			in.chase(s, now)
		case now.Before(s.dying):
			in.arm(s.dying.Sub(now))
		default:
			in.bury(s)
		}
	}
}
