package bus

import (
	"sync"
	"time"

	"github.com/parleyd/parley/protocol/ident"
)

// The sender is the only goroutine of a link that writes to the bus: batches, announcements, questions and
// answers.
//
// Problem: nats.Conn.Publish blocks, with the connection's lock held, when the server does not read (it is
// frozen, or far behind). A loop that ends its turn must never wait for that.
//
// So Flush only rings; the sender takes what is there, which also makes one batch of the turns of many
// loops when it has more to do than it can. The price is one more wake-up before a lone entry leaves.
//
// Owner: its goroutine, errands apart.
type sender struct {
	wire     wire
	out      *outbox
	instance ident.Worker
	stream   string // the subject of our batches
	buf      []byte
	errands  errands
	wake     chan struct{}
	stop     chan struct{}
	stopped  chan struct{}

	announced uint64        // the last top that was announced
	repeats   int           // announcements that follow quickly
	due       time.Duration // until announceOnTime, counted from when it was last set
	dueSet    bool          // since the goroutine looked
	slow      bool          // due is announceRarely
}

// wire is what the sender needs of a *nats.Conn.
type wire struct {
	publish   func(subject string, payload []byte) error
	connected func() bool
}

// errands are what others want from the sender. Each list holds at most one entry a peer: a newer question
// replaces the older.
//
// Owner: shared (mutex: mu).
type errands struct {
	mu        sync.Mutex
	hello     bool                      // ask all how far they got
	top       bool                      // say how far we got
	questions map[ident.Worker]seqRange // whom we ask
	answers   map[ident.Worker]seqRange // who asked us
}

type seqRange struct{ first, last uint64 }

const (
	// announceSoon is how long a lost tail goes unnoticed at most while the bus is up.
	announceSoon = 200 * time.Millisecond
	// announceRarely is for a publisher that has nothing to say, in case the quick ones were lost too.
	announceRarely = 2 * time.Second
	announceTimes  = 5
	// answerBytesMax is how much one question brings; the asker asks on.
	answerBytesMax = 256 << 10
	// batchesPerRound bounds how long an errand waits behind our own batches.
	batchesPerRound = 16
)

func newSender(w wire, out *outbox, instance ident.Worker) *sender {
	return &sender{
		wire: w, out: out, instance: instance,
		stream:  subject("p", instance),
		buf:     make([]byte, 0, batchBytesMax),
		errands: errands{questions: map[ident.Worker]seqRange{}, answers: map[ident.Worker]seqRange{}},
		wake:    make(chan struct{}, 1),
		stop:    make(chan struct{}),
		stopped: make(chan struct{}),
		due:     announceSoon,
		repeats: announceTimes,
	}
}

// ring wakes the sender. Any goroutine; never blocks.
func (s *sender) ring() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// want changes the errands and rings. Any goroutine.
func (s *sender) want(change func(*errands)) {
	s.errands.mu.Lock()
	change(&s.errands)
	s.errands.mu.Unlock()
	s.ring()
}

// run works until stop is closed.
func (s *sender) run() {
	defer close(s.stopped)
	timer := time.NewTimer(s.due)
	defer timer.Stop()
	for {
		if s.dueSet {
			s.dueSet = false
			timer.Reset(s.due)
		}
		select {
		case <-s.stop:
			return
		case <-s.wake:
			for s.round() {
			}
		case <-timer.C:
			s.announceOnTime()
		}
	}
}

// round sends some batches and runs the errands. It reports whether there may be more to do; while the bus
// is away there is not: its return rings.
func (s *sender) round() bool {
	if !s.wire.connected() {
		return false
	}
	more, up := s.batches()
	if !up {
		return false
	}
	hello, top, question, answer := s.errands.take()
	if hello {
		up = s.say(subjectTo("q", s.instance, 0), note{kind: kindHello})
	}
	if top {
		up = up && s.announce()
	}
	if question.to != 0 {
		up = up && s.say(subjectTo("q", s.instance, question.to), note{kindQuestion, question.first, question.last})
	}
	if answer.to != 0 {
		up = up && s.answer(answer)
	}
	return up && (more || hello || top || question.to != 0 || answer.to != 0)
}

// errand is a question or an answer that is due.
type errand struct {
	to ident.Worker
	seqRange
}

func (e *errands) take() (hello, top bool, question, answer errand) {
	e.mu.Lock()
	defer e.mu.Unlock()
	hello, top = e.hello, e.top
	e.hello, e.top = false, false
	return hello, top, takeOne(e.questions), takeOne(e.answers)
}

func takeOne(list map[ident.Worker]seqRange) errand {
	var first errand
	for to, r := range list {
		if first.to == 0 || to < first.to {
			first = errand{to, r}
		}
	}
	delete(list, first.to)
	return first
}

// batches hands over up to batchesPerRound.
func (s *sender) batches() (more, up bool) {
	for range batchesPerRound {
		raw, seq := s.out.next(s.buf)
		s.buf = raw[:0]
		if seq == 0 {
			return false, true
		}
		if s.wire.publish(s.stream, raw) != nil {
			return false, false
		}
		s.out.commit(seq)
		if s.slow {
			s.slow = false
			s.announceIn(announceSoon)
		}
	}
	return true, true
}

// announceOnTime says how far we got: soon after something was said, a few times, then rarely.
func (s *sender) announceOnTime() {
	if s.out.top() != s.announced {
		s.repeats = announceTimes
	}
	s.announce()
	s.slow = s.repeats == 0
	if s.slow {
		s.announceIn(announceRarely)
		return
	}
	s.repeats--
	s.announceIn(announceSoon)
}

// announceIn sets when announceOnTime is due.
func (s *sender) announceIn(d time.Duration) { s.due, s.dueSet = d, true }

func (s *sender) announce() (up bool) {
	top := s.out.top()
	up = s.say(s.stream, note{kind: kindTop, last: top})
	if up {
		s.announced = top
	}
	return up
}

func (s *sender) say(subject string, n note) (up bool) {
	s.buf = n.appendTo(s.buf[:0])
	return s.wire.publish(subject, s.buf) == nil
}

// answer sends what was asked for again, as much as one question brings.
func (s *sender) answer(e errand) (up bool) {
	subject := subjectTo("a", s.instance, e.to)
	// What was not handed over yet comes by itself.
	last := min(e.last, s.out.top())
	seq, sent := e.first, 0
	for seq <= last && sent < answerBytesMax {
		raw, oldest := s.out.again(seq, s.buf)
		s.buf = raw[:0]
		if len(raw) == 0 {
			oldest = min(oldest, last+1)
			if oldest <= seq {
				break
			}
			if !s.say(subject, note{kindGone, seq, oldest - 1}) {
				return false
			}
			seq = oldest
			continue
		}
		if s.wire.publish(subject, raw) != nil {
			return false
		}
		sent += len(raw)
		seq++
	}
	return s.say(subject, note{kindDone, e.first, seq - 1})
}
