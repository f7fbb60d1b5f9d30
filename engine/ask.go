package engine

import (
	"cmp"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/protocol/ident"
)

// A worker asks another worker with a request entry that has a number; the answer's entry carries the number back. Both
// travel as all entries do: a request arrives behind the earlier entries of the asking worker, and an answer behind the
// earlier entries of the answering one. The bus repeats lost entries. A question without an answer in time counts as
// unanswered.

// answerer answers the questions of one verb. It runs on the goroutine that receives entries and must not block; payload is
// borrowed. It calls answer once, at once or later, on any goroutine; answer copies its argument.
type answerer func(s *Server, payload []byte, answer func([]byte))

func answererOf(v fleet.Verb) answerer {
	if v == fleet.HandOver {
		return (*Server).answerHandOver
	}
	return everywhereAnswerer(v)
}

// Errors of ask.
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
	open map[uint64]*question
}

// question is one that waits for its answer.
//
// Owner: immutable.
type question struct {
	target ident.Worker
	until  int64 // on the server's clock
	done   func(answer []byte, err error)
}

// asking is a question for another worker. The payload is borrowed.
type asking struct {
	verb    fleet.Verb
	payload []byte
	wait    time.Duration
}

// ask asks another worker and calls done with the answer (borrowed), with [ErrUnanswered] when the wait is over, or with
// [ErrWorkerGone]. done runs once, on any goroutine, perhaps before ask returns, and must not block. Loop 0 checks the waits
// once a tick, so a wait may last one tick longer. Any goroutine.
func (s *Server) ask(target ident.Worker, x asking, done func(answer []byte, err error)) {
	if target == s.instance {
		answererOf(x.verb)(s, x.payload, func(b []byte) { done(b, nil) })
		return
	}
	if !s.lives(target) {
		done(nil, ErrWorkerGone)
		return
	}
	a := &s.peers.asks
	a.mu.Lock()
	if a.open == nil {
		a.open = map[uint64]*question{}
	}
	a.last++
	number := a.last
	a.open[number] = &question{target, s.clock() + int64(x.wait), done}
	a.mu.Unlock()
	s.peers.say(true, &fleet.Entry{Kind: fleet.Request, Target: target, Body: fleet.Body{Number: number, Verb: x.verb, Payload: x.payload}})
	if !s.lives(target) { // it may have ended in between, and Peers may have missed the question
		s.settleAsks(func(q *question) error {
			if q.target == target {
				return ErrWorkerGone
			}
			return nil
		})
	}
}

// receiveRequest answers another worker.
func (s *Server) receiveRequest(from ident.Worker, h *fleet.Heard) {
	number, by := h.Number, answererOf(h.Verb)
	if by == nil {
		s.count[countSkipped].Add(1)
		return
	}
	by(s, h.Payload, func(answer []byte) {
		s.peers.say(true, &fleet.Entry{Kind: fleet.Answer, Target: from, Body: fleet.Body{Number: number, Payload: answer}})
	})
}

// receiveAnswer passes an answer to its question.
func (s *Server) receiveAnswer(from ident.Worker, h *fleet.Heard) {
	a := &s.peers.asks
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

// settleAsks ends the questions for which why returns an error; the others go on waiting.
func (s *Server) settleAsks(why func(*question) error) {
	a := &s.peers.asks
	type told struct {
		number uint64
		q      *question
		err    error
	}
	var list []told
	a.mu.Lock()
	for number, q := range a.open {
		if err := why(q); err != nil {
			delete(a.open, number)
			list = append(list, told{number, q, err})
		}
	}
	a.mu.Unlock()
	slices.SortFunc(list, func(x, y told) int { return cmp.Compare(x.number, y.number) }) // as they were asked
	for _, x := range list {
		x.q.done(nil, x.err)
	}
}

// expireAsks is called with each tick.
func (s *Server) expireAsks(now int64) {
	s.settleAsks(func(q *question) error {
		if q.until <= now {
			return ErrUnanswered
		}
		return nil
	})
}

// forgetAsks ends the questions to a worker that is gone.
func (s *Server) forgetAsks(gone ident.Worker) {
	s.settleAsks(func(q *question) error {
		if q.target == gone {
			return ErrWorkerGone
		}
		return nil
	})
}
