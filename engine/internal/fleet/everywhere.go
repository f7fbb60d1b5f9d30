package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/parleyd/parley/protocol/ident"
)

// Questions whose asker waits: on a goroutine of the application, never on a loop.

// ErrPartial is what errors.Is finds in a [*PartialError].
var ErrPartial = errors.New("a worker did not answer in time")

// PartialError says whose part is missing in a result.
type PartialError struct {
	Workers []uint16 // their instances
	cause   error
}

func (e *PartialError) Error() string {
	text := fmt.Sprintf("workers %v did not answer in time: their part is missing", e.Workers)
	if e.cause != nil {
		text += ": " + e.cause.Error()
	}
	return text
}

// Unwrap gives [ErrPartial], and the context's error where that was the cause.
func (e *PartialError) Unwrap() []error {
	if e.cause != nil {
		return []error{ErrPartial, e.cause}
	}
	return []error{ErrPartial}
}

// One asks a worker about one of its connections. answer is nil if the worker is gone. Errors: that of ctx; [ErrUnanswered].
func (l *Link) One(ctx context.Context, worker ident.Worker, v Verb, question []byte) (answer []byte, err error) {
	answers, partial := l.Collect(ctx, v, []Part{{worker, question}})
	switch {
	case partial != nil && ctx.Err() != nil:
		return nil, ctx.Err()
	case partial != nil:
		return nil, ErrUnanswered
	case len(answers) == 0:
		return nil, nil
	}
	return answers[0].Bytes, nil
}

// WaitOf is how long an answer is waited for.
func WaitOf(v Verb) time.Duration {
	if v == Join || v == JoinAt {
		return JoinWait
	}
	return GatherWait
}

// Each asks every worker the same, this one too.
func (l *Link) Each(ctx context.Context, v Verb, question []byte, take func(worker ident.Worker, r *Reader)) error {
	return l.Pages(ctx, v, question, func(worker ident.Worker, r *Reader) []byte {
		take(worker, r)
		return nil
	})
}

// Pages asks every worker, and asks on those whose answer names what to ask next. An answer that makes no sense counts as
// none.
func (l *Link) Pages(ctx context.Context, v Verb, first []byte, take func(worker ident.Worker, r *Reader) (next []byte)) error {
	return l.PagesOf(ctx, v, l.ToAll(first), take)
}

// ToAll is one question to each worker, the own one first.
func (l *Link) ToAll(question []byte) []Part {
	questions := []Part{{Worker: l.Self, Bytes: question}}
	for _, worker := range l.Others() {
		questions = append(questions, Part{Worker: worker, Bytes: question})
	}
	return questions
}

// PagesOf is Pages for some workers, each with a question of its own.
func (l *Link) PagesOf(ctx context.Context, v Verb, questions []Part, take func(worker ident.Worker, r *Reader) (next []byte)) error {
	partial := new(PartialError)
	for len(questions) > 0 {
		answers, err := l.Collect(ctx, v, questions)
		if err != nil {
			partial.Gather(err)
		}
		questions = nil
		for _, a := range answers {
			r := &Reader{Rest: a.Bytes}
			next := take(a.Worker, r)
			switch {
			case r.Bad:
				partial.Workers = append(partial.Workers, a.Worker.Instance())
			case next != nil:
				questions = append(questions, Part{Worker: a.Worker, Bytes: next})
			}
		}
	}
	return partial.OrNil()
}

// OrNil is the error, or nil if no worker's part is missing.
func (e *PartialError) OrNil() error {
	if len(e.Workers) == 0 {
		return nil
	}
	slices.Sort(e.Workers)
	e.Workers = slices.Compact(e.Workers)
	return e
}

// Gather adds the workers of another question that has no answer.
func (e *PartialError) Gather(err error) {
	if other, ok := err.(*PartialError); ok {
		e.Add(other)
	}
}

// Add adds the workers of another error; nil has none.
func (e *PartialError) Add(other *PartialError) {
	if other != nil {
		e.Workers, e.cause = append(e.Workers, other.Workers...), cmp.Or(e.cause, other.cause)
	}
}

// Collect gathers and waits.
func (l *Link) Collect(ctx context.Context, v Verb, questions []Part) (answers []Part, partial *PartialError) {
	wait := WaitOf(v)
	if until, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(until))
	}
	var missing []ident.Worker
	ended := make(chan struct{})
	g := l.Gather(v, questions, wait, func(a []Part, m []ident.Worker) {
		answers, missing = a, m
		close(ended)
	})
	var cause error
	bounded, cancel := context.WithTimeout(ctx, wait+GatherGrace) // a worker that asks itself is not reminded
	defer cancel()
	select {
	case <-ended:
	case <-bounded.Done():
		g.GiveUp()
		<-ended
		cause = ctx.Err()
	}
	if len(missing) == 0 {
		return answers, nil
	}
	partial = Missing(missing)
	partial.cause = cause
	return answers, partial
}

// Missing is the error of a question that workers have not answered.
func Missing(workers []ident.Worker) *PartialError {
	e := new(PartialError)
	for _, w := range workers {
		e.Workers = append(e.Workers, w.Instance())
	}
	return e
}
