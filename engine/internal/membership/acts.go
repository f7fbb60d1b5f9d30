package membership

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/engine/internal/fanout"
	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/engine/internal/reactor"
	"github.com/parleyd/parley/engine/internal/session"
	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/frame"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/protocol/message"
)

// What a backend does to connections on all workers. Each worker carries it out on the loops of its connections, and answers
// when it is done; so these calls are refused on a loop.

// ErrOnLoop says that a call would wait for an event loop, and was made on one.
var ErrOnLoop = errors.New("the call would wait for the event loop that it is made on: register the handler with engine.Offload()")

// ErrCloseCode is the error for a close code that must not be sent.
var ErrCloseCode = errors.New("a close code is 1000, 1001, 1008, 1011 to 1013, or 3000 to 4999")

// Farewell says how connections end.
type Farewell struct {
	Code   ws.StatusCode // as for Conn.CloseWith of package engine; 4001 ends the sessions of the connections, too
	Reason string        // at most 123 bytes are sent
	// EndSessions says that no token of before is good any more: neither those of the connections, nor those of sessions that
	// wait for a connection and would be at the address with one. An id addresses the session whose latest connection had it.
	EndSessions bool
}

// CloseWhere ends the connections at an address, and returns how many there were, when their loops have ended them. Cost: a
// question to each worker. With EndSessions each worker also looks through the sessions that wait in its memory, and this
// worker through those in the store, where there is one: some 10 us each. Errors: [ErrAddress]; [ErrCloseCode]; [ErrOnLoop];
// [*fleet.PartialError]; [message.ErrUnavailable]: the store has not deleted all sessions within two seconds, and goes on.
func (w *Worker) CloseWhere(ctx context.Context, at Address, how Farewell) (closed int, err error) {
	a, err := at.wire()
	switch {
	case err != nil:
		return 0, err
	case !frame.MayBeSent(how.Code):
		return 0, ErrCloseCode
	case reactor.OnLoop():
		return 0, ErrOnLoop
	}
	q := fleet.CloseQuestion{At: a, Code: uint64(how.Code), Reason: strings.ToValidUTF8(how.Reason, "\uFFFD"), Session: how.EndSessions}
	err = w.Link.Each(ctx, fleet.CloseAt, q.AppendTo(nil), func(_ ident.Worker, r *fleet.Reader) { closed += int(r.Number()) })
	if !how.EndSessions {
		return closed, err
	}
	if stored := w.voidStored(&a); stored != nil {
		w.Rooms.Ground.Log.Warn("sessions that wait for a connection are not all ended yet", "err", stored)
		return closed, errors.Join(err, message.ErrUnavailable)
	}
	return closed, err
}

// EndSessions ends the sessions of the connections at an address and those that wait for a connection: no token of before is
// good any more. The connections are closed with 4001, and counted. Cost and errors as of [Worker.CloseWhere].
func (w *Worker) EndSessions(ctx context.Context, at Address) (ended int, err error) {
	return w.CloseWhere(ctx, at, Farewell{Code: turn.StatusUnauthorized, Reason: "the session has been ended", EndSessions: true})
}

// JoinAt takes the connections at an address into a room, and returns how many are in, those that were before too. The error
// is that of a connection that got not in: the first of a worker. Cost: a question to each worker, which asks the bus for each
// seat of a limited room. Errors: [ErrAddress]; those of Rooms.JoinThen of package engine; [ErrOnLoop]; [*fleet.PartialError],
// within 2.5 s: those of its workers may be in or not.
func (w *Worker) JoinAt(ctx context.Context, at Address, room string) (joined int, err error) {
	a, err := at.wire()
	if err != nil {
		return 0, err
	}
	if code := message.ValidRoom([]byte(room)); code != message.OK {
		return 0, message.ErrorOf(code)
	}
	var refused error
	err = w.atAddress(ctx, &a, move{fleet.JoinAt, room}, func(r *fleet.Reader) {
		joined += int(r.Number())
		if err := ReadOutcome(r); err != nil && refused == nil {
			refused = err
		}
	})
	switch {
	case err == nil:
		return joined, refused
	case refused == nil:
		return joined, err
	}
	return joined, errors.Join(err, refused)
}

// LeaveAt takes the connections at an address out of a room, and returns how many were in. Cost: a question to each worker.
// Errors: [ErrAddress]; [ErrOnLoop]; [*fleet.PartialError].
func (w *Worker) LeaveAt(ctx context.Context, at Address, room string) (left int, err error) {
	a, err := at.wire()
	if err != nil {
		return 0, err
	}
	err = w.atAddress(ctx, &a, move{fleet.LeaveAt, room}, func(r *fleet.Reader) { left += int(r.Number()) })
	return left, err
}

// move is a join or a leave of connections at an address.
type move struct {
	verb fleet.Verb
	room string
}

func (w *Worker) atAddress(ctx context.Context, a *fleet.Address, m move, take func(r *fleet.Reader)) error {
	if reactor.OnLoop() {
		return ErrOnLoop
	}
	question := fleet.Writer{B: a.AppendTo(nil)}
	return w.Link.Each(ctx, m.verb, question.Text(m.room).B, func(_ ident.Worker, r *fleet.Reader) { take(r) })
}

// SetAttributes sets and removes attributes of a connection in one step, and returns all that it has then. A value that is
// null is kept as null. Cost and errors as of [Worker.Ask], and [session.ErrAttributesFull]: nothing has changed; a value
// that is no JSON.
func (w *Worker) SetAttributes(ctx context.Context, id string, set map[string]json.RawMessage, remove []string) (all map[string]json.RawMessage, err error) {
	change := fleet.AttributesChange{Remove: remove}
	for _, key := range slices.Sorted(maps.Keys(set)) {
		if !json.Valid(set[key]) {
			return nil, fmt.Errorf("encode attribute %q: the value is no JSON", key)
		}
		value, err := message.Encode(nil, set[key])
		if err != nil {
			return nil, fmt.Errorf("encode attribute %q: %w", key, err)
		}
		change.Keys, change.Values = append(change.Keys, key), append(change.Values, value)
	}
	err = w.Ask(ctx, Question{Verb: fleet.Attributes, ID: id, With: func(q *fleet.Writer) { q.B = change.AppendTo(q.B) },
		Take: func(r *fleet.Reader) error { return message.Decode(r.Rest, &all) }})
	return all, err
}

// voidStored ends the sessions that wait in the store, and waits.
func (w *Worker) voidStored(a *fleet.Address) error {
	answer := make(chan error, 1)
	w.Sessions.VoidStored(a, func(err error) { answer <- err })
	return <-answer
}

// answerCloseAt ends connections.
func (w *Worker) answerCloseAt(question []byte, answer func([]byte)) {
	var q fleet.CloseQuestion
	r := &fleet.Reader{Rest: slices.Clone(question)}
	if q.Read(r); r.Bad {
		answer(nil)
		return
	}
	how := session.Closing{Cause: turn.CauseApplication, Code: ws.StatusCode(min(q.Code, math.MaxUint16)), Reason: q.Reason}
	if how.Code == turn.StatusUnauthorized {
		how.Cause = turn.CauseUnauthorized
	}
	w.Sessions.CloseAt(&q, how, w.Above.Later, func(closed int) { answer(new(fleet.Writer).Number(uint64(closed)).B) })
}

// answerAttributes changes the attributes of a connection.
func (w *Worker) answerAttributes(question []byte, answer func([]byte)) {
	r := &fleet.Reader{Rest: slices.Clone(question)}
	c := w.Rooms.ConnAt(r.Place())
	var change fleet.AttributesChange
	change.Read(r)
	switch {
	case r.Bad:
		answer(nil)
	case c == nil:
		answer(new(fleet.Writer).Number(uint64(fleet.Unknown)).B)
	default:
		raw, err := session.ConnOf(c.Wire()).ChangeAttributes(change)
		answer(append(AppendOutcome(err), raw...))
	}
}

// answerMoveAt takes connections into a room, or out of it.
func (w *Worker) answerMoveAt(v fleet.Verb, question []byte, answer func([]byte)) {
	r := &fleet.Reader{Rest: slices.Clone(question)}
	var a fleet.Address
	a.Read(r)
	room := string(r.Bytes())
	if r.Bad {
		answer(nil)
		return
	}
	var first atomic.Pointer[error]
	var n, left atomic.Int64
	left.Store(1)
	done := func() {
		if left.Add(-1) > 0 {
			return
		}
		number := new(fleet.Writer).Number(uint64(n.Load())).B
		if v == fleet.LeaveAt {
			answer(number)
			return
		}
		var refused error
		if one := first.Load(); one != nil {
			refused = *one
		}
		answer(append(number, AppendOutcome(refused)...))
	}
	w.Sessions.EachAt(&a, func(c *session.Conn) {
		if v == fleet.LeaveAt {
			if c.LeaveRoom(room) {
				n.Add(1)
			}
			return
		}
		left.Add(1)
		w.Rooms.JoinThen(&c.Conn, room, func(err error) {
			switch {
			case err == nil:
				n.Add(1)
			case !errors.Is(err, fanout.ErrNotOpen): // it is at no address any more
				first.CompareAndSwap(nil, &err)
			}
			done()
		})
	}, done)
}
