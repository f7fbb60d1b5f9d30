package engine

import (
	"context"
	"errors"
	"time"

	"github.com/parleyd/parley/engine/internal/fanout"
	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/engine/internal/session"
	"github.com/parleyd/parley/engine/internal/settings"
	"github.com/parleyd/parley/protocol/message"
	"github.com/parleyd/parley/rooms"
)

// Rooms with history: the application's side, and the clients' messages that only such rooms know.

// SlowPolicy is what happens to a member that cannot keep up, once the room's history no longer has its next message.
type SlowPolicy = rooms.SlowPolicy

// The policies.
const (
	SlowDrop       = rooms.SlowDrop       // the member is told which messages are missing
	SlowDisconnect = rooms.SlowDisconnect // its connection is closed with 4003, and it is told when it resumes its session
	SlowConflate   = rooms.SlowConflate   // as SlowDrop; of unread messages with the same key it gets the newest alone
)

// HistoryOptions bound the history of a room. Each bound holds by itself: the oldest message goes first.
//
// Owner: the caller.
type HistoryOptions struct {
	Messages int           // 0 means 100, at most 100,000; less than 0: no history
	Bytes    int           // of the frames as sent; 0 means 256 KiB, at most 64 MiB
	Age      time.Duration // 0 means 300 s, at most 30 days
	Slow     SlowPolicy
}

// bounded are the options as a room takes them.
func (o *HistoryOptions) bounded() rooms.HistoryOptions {
	return settings.BoundHistory(rooms.HistoryOptions{Messages: o.Messages, Bytes: o.Bytes, Age: o.Age, Slow: o.Slow})
}

// Position is a place in the messages of a room with history: behind the message with the number Seq. Numbers of two epochs
// cannot be compared.
type Position = message.Position

// BroadcastOptions say how a message is published.
//
// Owner: the caller.
type BroadcastOptions struct {
	Except         []string               // ids of connections that do not get it
	ExceptUsers    []string               // users whose connections do not get it
	IdempotencyKey string                 // at most 64 bytes; a repeated key publishes nothing, within 5 minutes
	Scope          string                 // of IdempotencyKey: one key in two scopes is two
	Key            string                 // at most 64 bytes, for SlowConflate
	Ephemeral      bool                   // it takes no number and is not kept; members that are behind may get it early
	Count          bool                   // with a number: Done waits for each worker to say for how many connections it is queued
	Done           func(Published, error) // called once, perhaps before Publish returns; must not block
}

// Published is what became of a message.
type Published = fanout.Published

// Errors of rooms with history.
var (
	ErrNoHistory error = message.ErrorOf(message.NoHistory)
	ErrNotObject       = fanout.ErrNotObject
	// ErrHistoryShared is the error of [Rooms.Create] and [Rooms.Update] where several workers have no sequencer.
	ErrHistoryShared = errors.New("these workers do not share rooms with history: start them with package cluster")
	ErrKey           = errors.New("a key of a message has at most 64 bytes")
)

// Publish sends v, encoded as JSON once, to the members of a room. If the room has history, or gets one because the setting
// history names it, the message takes the next number, and is kept. nil means that it was accepted; with several workers Done says
// later that it has its number, or [ErrUnavailable] after 2 s: then v may appear or not. Cost: as of [Server.Broadcast]; in a room
// with history also a copy of v. Any goroutine. Errors, which Done gets, too: those of Broadcast; [ErrNotObject], [ErrNoHistory]
// (an idempotency key in a room without history), [ErrKey]: no member gets v.
//
// Scope: all workers.
func (s *Server) Publish(room string, v any, o BroadcastOptions) error {
	p, told, err := publish(s, room, v, &o)
	if o.Done != nil && !told {
		o.Done(p, err)
	}
	return err
}

// publish publishes; told: Done was called, or will be.
func publish(s *Server, room string, v any, o *BroadcastOptions) (p Published, told bool, err error) {
	if len(o.Key) > message.KeyBytesMax || len(o.IdempotencyKey) > message.KeyBytesMax {
		return p, false, ErrKey
	}
	f, err := s.link.EncodeFrame(v)
	if err != nil {
		return p, false, err
	}
	except := fleet.ParseIDs(o.Except)
	if !o.Ephemeral {
		n, ok, err := fanout.Historic{Rooms: s.rooms}.Publish(room, fanout.Publish{Text: f.Plain[f.Payload:], Except: except,
			OutUsers: o.ExceptUsers, From: "server " + o.Scope, Done: o.Done, Counted: o.Count,
			Options: message.Options{IdempotencyKey: o.IdempotencyKey, Key: o.Key}})
		if ok {
			return n, err == nil, err
		}
	}
	if o.IdempotencyKey != "" {
		return p, false, ErrNoHistory
	}
	p.Members = s.rooms.Index.Known(room)
	p.Recipients, err = s.worker.PostFrame(&fleet.Address{Rooms: []string{room}, Except: except, ExceptUsers: o.ExceptUsers, Ephemeral: true}, f)
	p.Recipients += s.rooms.Index.Away(room)
	return p, false, err
}

// HasHistory reports whether a room of this name has history, or gets one with its first message or member.
//
// Scope: this worker.
func (x *Rooms) HasHistory(name string) bool {
	return x.srv.rooms.Index.AnyHistory() && x.srv.rooms.Index.Keeps([]byte(name))
}

// HistoryQuery asks for a part of a room's history: the messages behind Since, those before Before, or the newest ones.
//
// Owner: the caller.
type HistoryQuery struct {
	Since, Before *Position
	Limit         int // 1 to 100; 0 means 50
}

// HistoryPage is a part of a room's history, in ascending order.
//
// Owner: the caller.
type HistoryPage struct {
	Epoch    string
	Low, Top uint64 // the numbers of the oldest kept message and of the newest one; Low is Top + 1 where none is kept
	Messages []HistoryMessage
	More     bool // there are further messages in the direction that was asked for
	// Gap says that messages behind Since, or before Before, are missing: those from MissingFrom to MissingTo, or, where these
	// are 0, it is not known which.
	Gap                    bool
	MissingFrom, MissingTo uint64
}

// HistoryMessage is one message of a history.
type HistoryMessage struct {
	Seq     uint64
	Message []byte // JSON, as it was sent; must not be changed
}

// History reads a part of a room's history, of 256 KiB at most, but at least one message. Any goroutine. Errors:
// [ErrNoHistory], also for a room that does not exist; the error of ctx.
//
// Scope: all workers.
func (s *Server) History(ctx context.Context, room string, q HistoryQuery) (page HistoryPage, err error) {
	if err := ctx.Err(); err != nil {
		return page, err
	}
	if q.Limit <= 0 {
		q.Limit = fanout.HistoryLimit
	}
	if err := s.rooms.Order.Await(ctx, room, fanout.SinceFor(q.Since, q.Before, q.Limit)); err != nil {
		return page, err
	}
	r := s.rooms.Index.FindString(room)
	if r == nil || r.History() == nil {
		return page, ErrNoHistory
	}
	m := r.History().Part(rooms.PartQuery{Since: q.Since, Before: q.Before, Limit: min(q.Limit, message.HistoryLimitMax),
		BytesMax: fanout.HistoryAnswerBytes}, s.time.Now())
	page = HistoryPage{Epoch: m.Epoch, Low: m.Low, Top: m.Top, More: m.More, Gap: m.Gap, MissingFrom: m.MissingFrom, MissingTo: m.MissingTo}
	for i, frame := range m.Frames {
		page.Messages = append(page.Messages, HistoryMessage{m.First + uint64(i), fanout.PayloadOf(frame)})
	}
	return page, nil
}

// Delivered counts the members of a room that have received a message for certain, by their receipts, and all members. A
// receipt comes within two receipt_interval, without code of the client. Cost: a question to each worker, and a walk through the
// members. Errors: [ErrNoHistory], also for a position of another epoch; [*PartialError]; the error of ctx.
//
// Scope: all workers.
func (x *Everywhere) Delivered(ctx context.Context, room string, p Position) (have, members int, err error) {
	have, members, known, err := x.srv.worker.Delivered(ctx, room, p)
	if err == nil && !known {
		err = ErrNoHistory
	}
	return have, members, err
}

// onHistory answers the question for a part of a room's history.
func (l *loop) onHistory(c *Conn, e *message.Envelope) {
	if l.ownRoom(c, e) != nil && l.permit(c, ActHistory, e, (*loop).historyPermitted) {
		l.historyPermitted(c, e)
	}
}

func (l *loop) historyPermitted(c *Conn, e *message.Envelope) {
	if l.ownRoom(c, e) == nil {
		return
	}
	l.Rooms.Order.WhenHere(&c.wire.Conn, e, func(e *message.Envelope) {
		if r := l.ownRoom(c, e); r != nil {
			l.AnswerHistory(&c.wire.Conn, r, e)
		}
	})
}

// since reads where a client that joins wants to start. It returns false if the client was answered, or waits: then the
// join goes on by itself.
func (l *loop) since(c *Conn, e *message.Envelope) (since session.Since, ok bool) {
	if e.Since == nil {
		return since, true
	}
	since.Asked = true
	if !l.srv.rooms.Index.Keeps(e.Room) {
		return since, true
	}
	if since.Since, ok = message.ParseSince(e.Since); !ok {
		c.wire.Complain(errSince, e.Ref)
		return since, false
	}
	policy := settings.Held(&l.srv.policy)
	if policy == nil {
		return since, true
	}
	d := policy.Allow(c, ActHistory, string(e.Room), true)
	if d.Ask == nil {
		return since.Unless(d.Refuse), true
	}
	l.askSince(c, e, since, d)
	return since, false
}

// askSince joins when the policy has decided whether the client may read the history.
func (l *loop) askSince(c *Conn, e *message.Envelope, since session.Since, d Decision) {
	var refused error
	decide := c.wire.AwaitDecision(e, func(e *message.Envelope) { l.joinSince(c, e, since.Unless(refused)) })
	err := l.srv.guard.Run("policy", c.pending(), func() error {
		d.Ask(func(err error) { refused = err; decide(nil) })
		return nil
	})
	if err != nil {
		c.wire.EndBy(CausePanic)
	}
}

var errSince = &Error{Code: message.InvalidMessage.String(), Message: `"since" must be a position, {"seq":N,"epoch":E}, or {"last":M} with M of at least 1`}

// broadcastNumbered publishes a client's message to a room with history, or refuses it, and reports false if it takes no number.
func (l *loop) broadcastNumbered(c *Conn, r *rooms.Room, e *message.Envelope) (done bool) {
	o, numbered, answered := l.Numbers(&c.wire.Conn, r, e)
	if !numbered {
		return answered
	}
	l.BroadcastNumbered(&c.wire.Conn, fanout.ClientMessage{Room: r, Body: l.BroadcastBody(&c.wire, e.Room, e.Data), Options: o,
		Scope: c.wire.Scope(o.IdempotencyKey), Ref: e.Ref})
	return true
}
