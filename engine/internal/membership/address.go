package membership

import (
	"context"
	"errors"

	"github.com/parleyd/parley/engine/internal/fanout"
	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/protocol/message"
)

// An Address names the connections, on all workers, that a message is for: those of one of the fields from Rooms to
// Everybody, less the exceptions.
//
// Owner: the caller.
type Address struct {
	Rooms       []string // the members of these rooms, once each
	Users       []string // the connections of these users
	Connections []string // the connections with these ids; invalid ids are skipped
	Attribute   string   // the connections whose attribute of this name has Value, compared as JSON
	Value       any
	Everybody   bool // all open connections

	Except      []string // ids
	ExceptUsers []string

	Ephemeral bool // rooms with history neither number the message nor keep it
}

// ErrAddress is the error for an [Address] that names no connections, or names them in two ways.
var ErrAddress = errors.New("an address has one of rooms, users, connections, an attribute and everybody")

// wire checks the address and encodes its value.
func (a *Address) wire() (out fleet.Address, err error) {
	ways := 0
	for _, given := range []bool{len(a.Rooms) > 0, len(a.Users) > 0, len(a.Connections) > 0, a.Attribute != "", a.Everybody} {
		if given {
			ways++
		}
	}
	if ways != 1 {
		return out, ErrAddress
	}
	out = fleet.Address{Everybody: a.Everybody, Rooms: a.Rooms, Users: a.Users, Conns: fleet.ParseIDs(a.Connections), Key: a.Attribute,
		Except: fleet.ParseIDs(a.Except), ExceptUsers: a.ExceptUsers, Ephemeral: a.Ephemeral}
	if a.Attribute != "" {
		out.Value, err = message.Encode(nil, a.Value)
	}
	return out, err
}

// Post sends v to the connections at an address, once to each. Cost: one entry on the bus. Any goroutine. Errors:
// [ErrAddress]; v or the value cannot be encoded; [fleet.ErrMessageTooLarge]; [message.ErrOverloaded]: no connection gets it.
func (w *Worker) Post(to Address, v any) error {
	a, err := to.wire()
	if err != nil {
		return err
	}
	f, err := w.Link.EncodeFrame(v)
	if err != nil {
		return err
	}
	_, err = w.PostFrame(&a, f)
	return err
}

// PostFrame is [Worker.Post] of a frame, and returns how many connections of this worker it was queued for.
func (w *Worker) PostFrame(a *fleet.Address, f *turn.Frame) (here int, err error) {
	if here, err = w.Rooms.Post(a, f); err != nil || w.Link.Alone() {
		return here, err
	}
	w.Link.Say(true, &fleet.Entry{Kind: fleet.Post, Frame: f.Plain, Body: fleet.Body{Payload: a.AppendTo(nil)}})
	return here, nil
}

// PostCounted is [Worker.Post], and returns how many connections the message was queued for. Cost: a question to each worker.
// Errors: also [*fleet.PartialError]: those workers have not answered, and their connections may have the message.
func (w *Worker) PostCounted(ctx context.Context, to Address, v any) (recipients int, err error) {
	a, err := to.wire()
	if err != nil {
		return 0, err
	}
	f, err := w.Link.EncodeFrame(v)
	if err != nil {
		return 0, err
	}
	if len(a.Rooms) > 0 {
		if a.Rooms, recipients, err = (fanout.Historic{Rooms: w.Rooms}).PostNumbered(ctx, &a, f); len(a.Rooms) == 0 {
			return recipients, err
		}
		if _, partial := errors.AsType[*fleet.PartialError](err); err != nil && !partial {
			return recipients, err
		}
	}
	question := append(a.AppendTo(nil), f.Plain...)
	var refused error
	missing := new(fleet.PartialError)
	missing.Gather(err)
	missing.Gather(w.Link.Each(ctx, fleet.PostCounted, question, func(_ ident.Worker, r *fleet.Reader) {
		if err := ReadOutcome(r); err != nil {
			refused = err
			return
		}
		recipients += int(r.Number())
	}))
	return recipients, errors.Join(missing.OrNil(), refused)
}
