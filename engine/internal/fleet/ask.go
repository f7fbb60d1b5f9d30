package fleet

import (
	"cmp"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/parleyd/parley/protocol/ident"
)

// A worker asks another worker with a request entry that has a number; the answer's entry carries the number back. Both
// travel as all entries do: a request arrives behind the earlier entries of the asking worker, and an answer behind the
// earlier entries of the answering one. The bus repeats lost entries. A question without an answer in time counts as
// unanswered.

// Errors of Ask.
var (
	// ErrUnanswered is the error of a question to a worker that did not answer in time.
	ErrUnanswered = errors.New("the worker did not answer in time")
	// ErrWorkerGone is the error of a question to a worker that has ended or never existed.
	ErrWorkerGone = errors.New("there is no such worker any more")
)

// asks are the questions that wait for an answer.
//
// Owner: shared (mutex: mu).
type asks struct {
	mu   sync.Mutex
	last uint64
	open map[uint64]*waiting
}

// waiting is a question that waits for its answer.
//
// Owner: immutable.
type waiting struct {
	target ident.Worker
	until  int64 // on the server's clock
	done   func(answer []byte, err error)
}

// Question is a question for another worker. The payload is borrowed.
type Question struct {
	Verb    Verb
	Payload []byte
	Wait    time.Duration
}

// Ask asks another worker and calls done with the answer (borrowed), with [ErrUnanswered] when the wait is over, or with
// [ErrWorkerGone]. done runs once, on any goroutine, perhaps before Ask returns, and must not block. Loop 0 checks the waits
// once a tick, so a wait may last one tick longer.
func (l *Link) Ask(target ident.Worker, q Question, done func(answer []byte, err error)) {
	if target == l.Self {
		l.above.Answer(q.Verb, q.Payload, func(b []byte) { done(b, nil) })
		return
	}
	if !l.Lives(target) {
		done(nil, ErrWorkerGone)
		return
	}
	a := &l.asks
	a.mu.Lock()
	if a.open == nil {
		a.open = map[uint64]*waiting{}
	}
	a.last++
	number := a.last
	a.open[number] = &waiting{target, l.above.Clock() + int64(q.Wait), done}
	a.mu.Unlock()
	l.Say(true, &Entry{Kind: Request, Target: target, Body: Body{Number: number, Verb: q.Verb, Payload: q.Payload}})
	if !l.Lives(target) { // it may have ended in between, and Peers may have missed the question
		l.forgetAsks(target)
	}
}

// Expect opens a question to every worker, this one too, that reaches the workers by another way than a request, and has the
// ticket with it. Each answers by [Link.AnswerExpected]. done is as of [Link.Gather]. A worker that the question does not reach
// counts as one that does not answer.
func (l *Link) Expect(wait time.Duration, done func(answers []Part, missing []ident.Worker)) (ticket uint64) {
	g := &Gathering{open: map[ident.Worker]bool{}, done: done}
	workers := append([]ident.Worker{l.Self}, l.Others()...)
	for _, w := range workers {
		g.open[w] = true
	}
	a := &l.asks
	a.mu.Lock()
	if a.open == nil {
		a.open = map[uint64]*waiting{}
	}
	ticket = a.last + 1
	a.last += ticketNumbers
	until := l.above.Clock() + int64(wait)
	for _, w := range workers {
		a.open[ticket+uint64(w.Instance())] = &waiting{w, until, func(answer []byte, err error) { g.add(w, answer, err) }}
	}
	a.mu.Unlock()
	for _, w := range workers[1:] {
		if !l.Lives(w) {
			l.forgetAsks(w)
		}
	}
	return ticket
}

// ticketNumbers are the numbers of questions that a ticket stands for: one for each worker that can exist.
const ticketNumbers = 1 << 16

// AnswerExpected answers the question of a ticket. answer is borrowed.
func (l *Link) AnswerExpected(asker ident.Worker, ticket uint64, answer []byte) {
	own := Body{Number: ticket + uint64(l.Self.Instance()), Payload: answer}
	if asker == l.Self {
		l.HearAnswer(l.Self, &Heard{Body: own})
		return
	}
	l.Say(true, &Entry{Kind: Answer, Target: asker, Body: own})
}

// HearRequest answers another worker, and reports false for an unknown verb.
func (l *Link) HearRequest(from ident.Worker, h *Heard) (known bool) {
	number := h.Number
	return l.above.Answer(h.Verb, h.Payload, func(answer []byte) {
		l.Say(true, &Entry{Kind: Answer, Target: from, Body: Body{Number: number, Payload: answer}})
	})
}

// HearAnswer passes an answer to its question.
func (l *Link) HearAnswer(from ident.Worker, h *Heard) {
	a := &l.asks
	a.mu.Lock()
	q := a.open[h.Number]
	if q != nil && q.target == from {
		delete(a.open, h.Number)
	} else {
		q = nil
	}
	a.mu.Unlock()
	if q != nil {
		q.done(h.Payload, nil)
	}
}

// endAsks ends the questions that over selects with an error; the others go on waiting.
func (l *Link) endAsks(err error, over func(*waiting) bool) {
	type ended struct {
		number uint64
		q      *waiting
	}
	var list []ended
	a := &l.asks
	a.mu.Lock()
	for number, q := range a.open {
		if over(q) {
			delete(a.open, number)
			list = append(list, ended{number, q})
		}
	}
	a.mu.Unlock()
	slices.SortFunc(list, func(x, y ended) int { return cmp.Compare(x.number, y.number) }) // as they were asked
	for _, x := range list {
		x.q.done(nil, err)
	}
}

// ExpireAsks ends the questions whose wait is over. Loop 0 calls it with each tick.
func (l *Link) ExpireAsks(now int64) {
	l.endAsks(ErrUnanswered, func(q *waiting) bool { return q.until <= now })
}

// forgetAsks ends the questions to a worker that is gone.
func (l *Link) forgetAsks(gone ident.Worker) {
	l.endAsks(ErrWorkerGone, func(q *waiting) bool { return q.target == gone })
}
