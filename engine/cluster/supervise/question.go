package supervise

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"
)

// The api process asks the supervisor: how the wards are, and to drain a worker.

// question is what a ward asks. Each is answered once.
//
// Owner: the holder.
type question struct {
	ID    uint64         `json:"id"`
	Drain *drainQuestion `json:"drain,omitempty"` // nil: how the wards are
}

type drainQuestion struct {
	Worker int           `json:"worker"`
	Over   time.Duration `json:"over"`
}

// answer is the supervisor's. Either Show, or nothing, or Refused.
//
// Owner: the holder.
type answer struct {
	ID      uint64          `json:"id"`
	Show    json.RawMessage `json:"show,omitempty"`
	Refused refusal         `json:"refused,omitempty"`
	State   string          `json:"state,omitempty"` // of the worker that cannot drain
}

// refusal says why a worker does not drain.
type refusal string

const (
	refusedUnknown refusal = "unknown"
	refusedState   refusal = "state"
	refusedLast    refusal = "last"
)

// Errors of Control.DrainWorker.
var (
	ErrWorkerUnknown = errors.New("there is no such worker")
	ErrWorkerState   = errors.New("a worker drains only while it is ready")
	ErrLastWorker    = errors.New("no other worker is ready: the clients would have no place to go")
	// ErrSupervisor is the error of questions that are not answered.
	ErrSupervisor = errors.New("the supervisor does not answer")
)

// asked are the questions that wait for their answers.
//
// Owner: shared (mutex: mu).
type asked struct {
	mu      sync.Mutex
	last    uint64
	waiting map[uint64]chan answer
}

func (a *asked) add() (id uint64, got chan answer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.waiting == nil {
		a.waiting = map[uint64]chan answer{}
	}
	a.last++
	got = make(chan answer, 1)
	a.waiting[a.last] = got
	return a.last, got
}

func (a *asked) answered(said answer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if got := a.waiting[said.ID]; got != nil {
		got <- said
	}
}

func (a *asked) forget(id uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.waiting, id)
}

// ask asks the supervisor, and waits for its answer until ctx is done or the supervisor is gone.
func (c *Control) ask(ctx context.Context, q question) (answer, error) {
	var got chan answer
	q.ID, got = c.asked.add()
	defer c.asked.forget(q.ID)
	c.say(report{Question: &q})
	select {
	case said := <-got:
		return said, nil
	case <-c.orphaned:
		return answer{}, ErrSupervisor
	case <-ctx.Done():
		return answer{}, fmt.Errorf("%w: %w", ErrSupervisor, ctx.Err())
	}
}

// Overview is what Plan.Show says now. It blocks until the supervisor has answered. Errors: ErrSupervisor.
func (c *Control) Overview(ctx context.Context) (json.RawMessage, error) {
	said, err := c.ask(ctx, question{})
	return said.Show, err
}

// DrainWorker makes a worker send its clients away one by one, over a time, and end; it is started again. It returns once the
// supervisor has told the worker. Errors: ErrWorkerUnknown, ErrWorkerState, ErrLastWorker, ErrSupervisor.
func (c *Control) DrainWorker(ctx context.Context, worker int, over time.Duration) error {
	said, err := c.ask(ctx, question{Drain: &drainQuestion{worker, over}})
	switch {
	case err != nil:
		return err
	case said.Refused == refusedUnknown:
		return ErrWorkerUnknown
	case said.Refused == refusedState:
		return fmt.Errorf("worker %d is %s: %w", worker, said.State, ErrWorkerState)
	case said.Refused == refusedLast:
		return ErrLastWorker
	}
	return nil
}

// asked answers a question of p.
func (s *Supervisor) asked(p *process, q question) {
	if q.Drain != nil {
		said := s.drainWorker(*q.Drain)
		said.ID = q.ID
		s.say(p, command{Answer: &said})
		return
	}
	if s.plan.Show == nil {
		s.say(p, command{Answer: &answer{ID: q.ID}})
		return
	}
	go func() { // what is shown may take a while to add up
		show, err := s.plan.Show()
		if err != nil {
			s.log.Error("the figures for the status cannot be added up; please report this", "err", err)
		}
		s.post(func() {
			if p.ward.process == p {
				s.say(p, command{Answer: &answer{ID: q.ID, Show: show}})
			}
		})
	}()
}

// drainWorker tells a worker to drain, if another one serves.
func (s *Supervisor) drainWorker(ask drainQuestion) answer {
	if ask.Worker < 0 || ask.Worker >= len(s.workers) {
		return answer{Refused: refusedUnknown}
	}
	w := s.workers[ask.Worker]
	if state := s.wardStatus(w).State; state != "ready" || s.leaving != nil {
		return answer{Refused: refusedState, State: state}
	}
	others := 0
	for _, other := range s.workers {
		if other != w && s.wardStatus(other).State == "ready" {
			others++
		}
	}
	if others == 0 {
		return answer{Refused: refusedLast}
	}
	p := w.process
	ask.Over = max(ask.Over, time.Millisecond) // a drain over no time is the end of the whole server
	p.draining, p.drainAt, p.over, p.ordered = true, s.age, ask.Over, true
	s.say(p, command{Drain: &Drain{Within: s.plan.DrainTimeout, Over: ask.Over}})
	s.log.Info(title(w.role, w.index)+" is told to drain", p.attrs("over", ask.Over)...)
	return answer{}
}
