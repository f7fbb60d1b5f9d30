package bus

import (
	"sync"
	"time"

	"github.com/parleyd/parley/protocol/ident"
)

// The sender is the only goroutine of a link that writes to the bus: batches, announcements, questions and
// answers.
//
// Problem: nats.Conn.Publish blocks, with the connection's lock held, when the server does not read (it is frozen, or
// far behind). A loop that ends its turn must never wait for that.
//
// So Flush only wakes the sender. The sender takes all entries at once, so that under load the turns of many loops share
// a batch. The price is one more wake-up before a lone entry leaves.
//
// Owner: its goroutine, except requests.
type sender struct {
	wire     wire
	out      *outbox
	instance ident.Worker
	stream   string // the subject of our batches
	buf      []byte
	requests requests
	wake     chan struct{}
	stop     chan struct{}
	stopped  chan struct{}

	announced uint64        // the last top that was announced
	repeats   int           // announcements left at the short interval
	due       time.Duration // until announceOnTime, counted from when it was last set
	dueSet    bool          // due was set, and the goroutine has not armed its timer
	slow      bool          // due is announceRarely
}

// wire is the part of a *nats.Conn that the sender uses.
type wire struct {
	publish   func(subject string, payload []byte) error
	connected func() bool
}

// requests is the work for the sender besides batches. Each list holds at most one entry for a peer: a newer question
// replaces the older.
//
// Owner: shared (mutex: mu).
type requests struct {
	mu        sync.Mutex
	hello     bool                      // ask all for their highest sequence
	top       bool                      // announce our highest sequence
	questions map[ident.Worker]seqRange // by the worker that we ask
	answers   map[ident.Worker]seqRange // by the worker that asked us
	handed    []handedOver              // in no order
}

type seqRange struct{ first, last uint64 }

const (
	// announceSoon is how long the loss of the newest batches stays unnoticed at most while the bus is up.
	announceSoon = 200 * time.Millisecond
	// announceRarely is the interval of an idle publisher, in case the earlier announcements were lost too.
	announceRarely = 2 * time.Second
	announceTimes  = 5
	// answerBytesMax bounds the answer to one question; the receiver asks again for the rest.
	answerBytesMax = 256 << 10
	// batchesPerRound bounds how long a request waits behind our own batches.
	batchesPerRound = 16
)

func newSender(w wire, out *outbox, instance ident.Worker) *sender {
	return &sender{
		wire: w, out: out, instance: instance,
		stream:   subject("p", instance),
		buf:      make([]byte, 0, batchBytesMax),
		requests: requests{questions: map[ident.Worker]seqRange{}, answers: map[ident.Worker]seqRange{}},
		wake:     make(chan struct{}, 1),
		stop:     make(chan struct{}),
		stopped:  make(chan struct{}),
		due:      announceSoon,
		repeats:  announceTimes,
	}
}

// ring wakes the sender. Any goroutine; never blocks.
func (s *sender) ring() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// want changes the requests and wakes the sender. Any goroutine.
func (s *sender) want(change func(*requests)) {
	s.requests.mu.Lock()
	change(&s.requests)
	s.requests.mu.Unlock()
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

// round sends some batches and serves some requests. It reports whether there may be more to do. While the bus is away
// it reports false: the sender is woken when the bus is back.
func (s *sender) round() bool {
	if !s.wire.connected() {
		return false
	}
	more, up := s.batches()
	s.tellHandedOver()
	if !up {
		return false
	}
	hello, top, question, answer := s.requests.take()
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

// request is a question or an answer that is due.
type request struct {
	to ident.Worker
	seqRange
}

func (r *requests) take() (hello, top bool, question, answer request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	hello, top = r.hello, r.top
	r.hello, r.top = false, false
	return hello, top, takeOne(r.questions), takeOne(r.answers)
}

func takeOne(list map[ident.Worker]seqRange) request {
	var first request
	for to, r := range list {
		if first.to == 0 || to < first.to {
			first = request{to, r}
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

// announceOnTime announces our highest sequence: every announceSoon, announceTimes after the last batch, then rarely.
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

// answer sends the batches of a question again, up to answerBytesMax.
func (s *sender) answer(r request) (up bool) {
	subject := subjectTo("a", s.instance, r.to)
	// Newer batches are still to be sent to all.
	last := min(r.last, s.out.top())
	seq, sent := r.first, 0
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
	return s.say(subject, note{kindDone, r.first, seq - 1})
}
