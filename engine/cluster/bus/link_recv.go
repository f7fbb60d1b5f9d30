package bus

import (
	"time"

	"github.com/nats-io/nats.go"

	"github.com/parleyd/parley/protocol/ident"
)

// NATS calls the on... functions, each subscription on a goroutine of its own; mu lets one of them run at a time.

// onStream takes a batch or an announcement of a publisher to all.
func (l *Link) onStream(m *nats.Msg) {
	from, ok := publisher(m.Subject)
	if !ok || len(m.Data) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.inbox.said(from, m.Data, time.Now())
}

// said takes a batch or an announcement of a publisher to all.
func (in *inbox) said(from ident.Worker, data []byte, now time.Time) {
	if data[0] == kindBatch {
		in.batch(from, data, false, now)
	} else if n, ok := parseNote(data); ok && n.kind == kindTop {
		in.top(from, n.last, now)
	}
}

// onAnswer takes a publisher's answer to a question of ours.
func (l *Link) onAnswer(m *nats.Msg) {
	from, ok := publisher(m.Subject)
	if !ok || len(m.Data) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.inbox.answer(from, m.Data, time.Now())
}

// answer takes a publisher's answer to a question of ours.
func (in *inbox) answer(from ident.Worker, data []byte, now time.Time) {
	if data[0] == kindBatch {
		in.batch(from, data, true, now)
		return
	}
	n, ok := parseNote(data)
	switch {
	case ok && n.kind == kindGone:
		in.gone(from, n.first, n.last, now)
	case ok && n.kind == kindDone:
		in.done(from, now)
	}
}

// onQuestion takes another worker's question. It does not wait for the receiver: a worker with a slow receiver still
// answers.
func (l *Link) onQuestion(m *nats.Msg) {
	if from, ok := publisher(m.Subject); ok {
		l.sender.asked(from, m.Data)
	}
}

// asked takes another worker's question. Any goroutine.
func (s *sender) asked(from ident.Worker, data []byte) {
	n, whole := parseNote(data)
	switch {
	case !whole:
	case n.kind == kindHello:
		s.want(func(r *requests) { r.top = true })
	case n.kind == kindQuestion:
		s.want(func(r *requests) { r.answers[from] = seqRange{n.first, n.last} })
	}
}

// ask passes a question on to the sender. The caller holds mu.
func (l *Link) ask(from ident.Worker, first, last uint64) {
	l.sender.want(func(r *requests) { r.questions[from] = seqRange{first, last} })
}

// arm makes tick run after d, or earlier. The caller holds mu.
func (l *Link) arm(d time.Duration) {
	at := time.Now().Add(d)
	switch {
	case l.closed || !l.due.IsZero() && !at.Before(l.due):
		return
	case l.timer == nil:
		l.timer = time.AfterFunc(d, l.tick)
	default:
		l.timer.Reset(d)
	}
	l.due = at
}

func (l *Link) tick() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.due = time.Time{}
	l.inbox.tick(time.Now())
}
