package fanout

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/ident"
)

// A publish to a room with history whose publisher wants to know for how many connections it was queued. What the workers tell each
// other of their members is a moment old. So the message itself carries the question through the sequencer's stream, and each
// worker answers at the message's place in the room's order.

// counting is such a publish. It waits for its number and for the answers of the workers, in either order.
//
// Owner: shared (mutex: mu).
type counting struct {
	done func(Published, error)

	mu         sync.Mutex
	published  *Published // nil until the outcome of the publish is known
	err        error
	recipients int
	partial    *fleet.PartialError
	counted    bool
	told       bool
}

// countRecipients has a publish counted, and returns the ticket that its message is to carry.
func countRecipients(x *Rooms, own *appPublish) (ticket uint64) {
	n := &counting{done: own.done}
	own.done = n.settle
	return x.Link.Expect(fleet.GatherWait, n.count)
}

// settle takes the outcome of the publish.
func (n *counting) settle(p Published, err error) {
	n.mu.Lock()
	n.published, n.err = &p, err
	n.mu.Unlock()
	n.tell()
}

// count takes the answers of the workers.
func (n *counting) count(answers []fleet.Part, missing []ident.Worker) {
	recipients := 0
	for _, a := range answers {
		r := fleet.Reader{Rest: a.Bytes}
		if recipients += int(r.Number()); r.Bad {
			missing = append(missing, a.Worker)
		}
	}
	n.mu.Lock()
	n.counted, n.recipients = true, recipients
	if len(missing) > 0 {
		n.partial = fleet.Missing(missing)
	}
	n.mu.Unlock()
	n.tell()
}

// tell tells the publisher, once nothing more is awaited.
func (n *counting) tell() {
	n.mu.Lock()
	numbered := n.published != nil && n.err == nil && !n.published.Duplicate
	tells := !n.told && n.published != nil && (n.counted || !numbered)
	n.told = n.told || tells
	n.mu.Unlock()
	if !tells {
		return
	}
	if numbered {
		n.published.Recipients, n.published.Partial = n.recipients, n.partial
	}
	n.done(*n.published, n.err)
}

// Count is of [order.Floor].
func (o orderedFloor) Count(to ident.Worker, ticket uint64, recipients int) {
	answer := new(fleet.Writer).Number(uint64(recipients)).B
	o.calls = append(o.calls, func() { o.rooms.Link.AnswerExpected(to, ticket, answer) }) // which may call the application
}

// PostNumbered publishes to those of an address's rooms that have history, where a sequencer numbers the message, and waits until
// each worker has told for how many connections the message was queued. It returns the other rooms. Errors: those of
// [Historic.Publish]; [message.ErrUnavailable]; [*fleet.PartialError]; that of ctx.
func (x Historic) PostNumbered(ctx context.Context, a *fleet.Address, f *turn.Frame) (others []string, recipients int, err error) {
	if x.Order == nil || a.Ephemeral {
		return a.Rooms, 0, nil
	}
	type outcome struct {
		Published
		err error
	}
	outcomes := make(chan outcome, len(a.Rooms))
	others, _, err = x.publishAll(a.Rooms, Publish{Text: f.Plain[f.Payload:], Except: a.Except, OutUsers: a.ExceptUsers, Counted: true,
		Done: func(p Published, err error) { outcomes <- outcome{p, err} }})
	if err != nil {
		return others, 0, err
	}
	partial := new(fleet.PartialError)
	for range len(slices.Compact(slices.Sorted(slices.Values(a.Rooms)))) - len(others) {
		select {
		case o := <-outcomes:
			recipients += o.Recipients
			partial.Add(o.Partial)
			err = cmp.Or(err, o.err)
		case <-ctx.Done():
			return others, recipients, ctx.Err()
		}
	}
	return others, recipients, cmp.Or(err, partial.OrNil())
}
