package membership

import (
	"context"
	"errors"

	"github.com/parleyd/parley/engine/internal/fanout"
	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/engine/internal/session"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/protocol/message"
)

// Questions about one connection, which any worker may have.

// ErrConnectionUnknown says that no worker has an open connection with an id.
var ErrConnectionUnknown = errors.New("there is no open connection with this id")

// Question is a question about one connection.
//
// Owner: the goroutine that asks.
type Question struct {
	Verb fleet.Verb
	ID   string
	With func(w *fleet.Writer)       // what goes along; may be nil
	Take func(r *fleet.Reader) error // the answer, where it is more than an error; may be nil
}

// Ask asks the connection's worker, and waits. Errors: [ErrConnectionUnknown]; those of [fleet.Link.One], and of the answer.
func (w *Worker) Ask(ctx context.Context, q Question) error {
	worker, question, ok := q.ask(w.Link)
	if !ok {
		return ErrConnectionUnknown
	}
	answer, err := w.Link.One(ctx, worker, q.Verb, question)
	if err != nil {
		return err
	}
	return q.outcome(answer)
}

// AskThen is Ask for a server in lockstep: it calls done instead of waiting.
func (w *Worker) AskThen(q Question, done func(error)) {
	worker, question, ok := q.ask(w.Link)
	if !ok {
		done(ErrConnectionUnknown)
		return
	}
	w.GatherThen(q.Verb, []fleet.Part{{Worker: worker, Bytes: question}}, func(answers []fleet.Part, missing []ident.Worker) {
		switch {
		case len(missing) > 0:
			done(fleet.ErrUnanswered)
		case len(answers) == 0:
			done(ErrConnectionUnknown)
		default:
			done(q.outcome(answers[0].Bytes))
		}
	})
}

// EachThen asks every worker, this one too, for a server in lockstep.
func (w *Worker) EachThen(v fleet.Verb, question []byte, done func(answers []fleet.Part, missing []ident.Worker)) {
	w.GatherThen(v, w.Link.ToAll(question), done)
}

// GatherThen asks workers for a server in lockstep. A question of this worker to itself has a timer of its own.
func (w *Worker) GatherThen(v fleet.Verb, questions []fleet.Part, done func(answers []fleet.Part, missing []ident.Worker)) {
	wait := fleet.WaitOf(v)
	g := w.Link.Gather(v, questions, wait, done)
	w.Rooms.Loops[0].PostAfter(wait+fleet.GatherGrace, g.GiveUp)
}

// ask is what is asked of the connection's worker; ok is false where the id is none.
func (q *Question) ask(l *fleet.Link) (worker ident.Worker, question []byte, ok bool) {
	id, whose := l.Locate(q.ID)
	w := new(fleet.Writer)
	w.Place(id.Place)
	if q.With != nil {
		q.With(w)
	}
	return id.Worker, w.B, whose != fleet.Nobodys
}

// outcome is the worker's answer; nil: the worker is gone, and its connection with it.
func (q *Question) outcome(answer []byte) error {
	if answer == nil {
		return ErrConnectionUnknown
	}
	r := &fleet.Reader{Rest: answer}
	if err := ReadOutcome(r); err != nil {
		return err
	}
	if q.Take != nil {
		return q.Take(r)
	}
	return nil
}

// AppendOutcome writes the outcome of a question about one connection.
func AppendOutcome(err error) []byte {
	var w fleet.Writer
	outcome := func(o fleet.Outcome) *fleet.Writer { return w.Number(uint64(o)) }
	refused, ok := errors.AsType[*message.Error](err)
	switch {
	case err == nil:
		outcome(fleet.Done)
	case err == fanout.ErrNotOpen:
		outcome(fleet.NotOpen)
	case err == session.ErrAttributesFull:
		outcome(fleet.TooMuch)
	case ok:
		outcome(fleet.Refused).Text(refused.Code).Text(refused.Message)
	default:
		outcome(fleet.Refused).Text(message.Internal.String()).Text(err.Error())
	}
	return w.B
}

// ReadOutcome returns the answering worker's error in a form that errors.Is finds.
func ReadOutcome(r *fleet.Reader) error {
	switch fleet.Outcome(r.Number()) {
	case fleet.Done:
		if r.Bad {
			return fleet.ErrEntry
		}
		return nil
	case fleet.Unknown:
		return ErrConnectionUnknown
	case fleet.NotOpen:
		return fanout.ErrNotOpen
	case fleet.TooMuch:
		return session.ErrAttributesFull
	}
	refused := &message.Error{Code: string(r.Bytes()), Message: string(r.Bytes())}
	if r.Bad {
		return fleet.ErrEntry
	}
	for _, known := range []*message.Error{message.ErrRoomFull, message.ErrTooManyRooms, message.ErrNotInRoom, message.ErrOverloaded, message.ErrUnavailable} {
		if known.Code == refused.Code {
			return known
		}
	}
	return refused
}
