package bus

import (
	"time"

	"github.com/nats-io/nats.go"

	"github.com/parleyd/parley/protocol/ident"
)

// What arrives: NATS calls these, each subscription on a goroutine of its own; mu makes one line of them.

// onStream takes what a publisher says to all.
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
	if m.Data[0] == kindBatch {
		l.inbox.batch(from, m.Data, false, time.Now())
	} else if n, ok := parseNote(m.Data); ok && n.kind == kindTop {
		l.inbox.top(from, n.last, time.Now())
	}
}

// onAnswer takes what a publisher says to us, because we asked.
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
	if m.Data[0] == kindBatch {
		l.inbox.batch(from, m.Data, true, time.Now())
		return
	}
	n, ok := parseNote(m.Data)
	switch {
	case ok && n.kind == kindGone:
		l.inbox.gone(from, n.first, n.last, time.Now())
	case ok && n.kind == kindDone:
		l.inbox.done(from, time.Now())
	}
}

// onQuestion takes what others want from us. It does not wait for the receiver: a worker whose receiver is
// slow still answers.
func (l *Link) onQuestion(m *nats.Msg) {
	from, ok := publisher(m.Subject)
	n, whole := parseNote(m.Data)
	switch {
	case !ok || !whole:
	case n.kind == kindHello:
		l.sender.want(func(e *errands) { e.top = true })
	case n.kind == kindQuestion:
		l.sender.want(func(e *errands) { e.answers[from] = seqRange{n.first, n.last} })
	}
}

// ask passes a question on to the sender. The caller holds mu.
func (l *Link) ask(from ident.Worker, first, last uint64) {
	l.sender.want(func(e *errands) { e.questions[from] = seqRange{first, last} })
}

// arm has tick called after d, or earlier. The caller holds mu.
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
