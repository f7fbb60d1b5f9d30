package fanout

import (
	"context"
	"slices"
	"sync/atomic"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/engine/internal/order"
	"github.com/parleyd/parley/engine/internal/pending"
	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/protocol/message"
	"github.com/parleyd/parley/rooms"
)

// Publishes on their way to the sequencer, and their answers.
//
// What a client sends behind such a publish waits, except further ones, so that one sender's messages keep their order in all
// rooms.

// clientPublish is a client's publish without a number.
//
// Owner: immutable.
type clientPublish struct {
	at   ident.Place
	room string
	ref  []byte
}

// appPublish is the application's.
//
// Owner: immutable.
type appPublish struct {
	room     string
	excepted int
	done     func(Published, error)
}

func clientPublishOf(s *order.Submission) *clientPublish {
	if s == nil {
		return nil
	}
	own, _ := s.Of.(*clientPublish)
	return own
}

// submit submits a message of c, a member.
func (o *Ordering) submit(c *Conn, m ClientMessage) error {
	if c.unnumbered() >= owedMax {
		return o.rooms.orOverloaded(rooms.ErrOverloaded)
	}
	if m.Room.Dead() {
		return rooms.ErrDead
	}
	name := m.Room.Name()
	own := &clientPublish{at: c.Place(), room: name}
	if m.Ref != nil {
		own.ref = append([]byte{}, m.Ref...)
	}
	err := o.follower.Submit(&order.Submission{Of: own}, &order.Message{Room: name, Body: m.Body, By: c.ID(), Key: m.Options.Key,
		Scope: m.Scope, Once: m.Options.IdempotencyKey, Options: o.options(name)})
	if err != nil {
		return o.rooms.orOverloaded(rooms.ErrOverloaded)
	}
	c.withRare().unnumbered++
	return nil
}

// unnumbered is the number of the connection's publishes without a number.
func (c *Conn) unnumbered() int {
	if c.rare() == nil {
		return 0
	}
	return c.rare().unnumbered
}

// TakesNumber reports whether a message is one for a room with history, so that it need not wait for the numbers of those in
// front of it. e is borrowed.
func (o *Ordering) TakesNumber(e *message.Envelope) bool {
	if string(e.Type) != "broadcast" || !o.rooms.Index.Keeps(e.Room) {
		return false
	}
	options, ok := e.Options()
	return ok && !options.Ephemeral
}

// Unnumbered reports whether publishes of c wait for their numbers.
func (c *Conn) Unnumbered() bool { return c.unnumbered() > 0 }

// AwaitNumbers makes the later messages of c wait until all its publishes have their numbers. It reports false if they have.
func (c *Conn) AwaitNumbers() bool {
	if c.unnumbered() == 0 {
		return false
	}
	c.Await(pending.Numbers, "broadcast", nil)
	return true
}

// numberedOne counts an answer to a client's publish, behind the letters that are posted for the connection.
func (o *Ordering) numberedOne(own *clientPublish) {
	l := o.rooms.Loops[own.at.Loop]
	l.PostCall(func() {
		if c := ConnOf(l.ConnAt(own.at)); c != nil {
			countNumber(c)
		}
	})
}

// countNumber lets the messages go on that waited for the numbers of the publishes in front of them.
func countNumber(c *Conn) {
	r := c.rare()
	if r == nil || r.unnumbered == 0 {
		return
	}
	if r.unnumbered--; r.unnumbered > 0 {
		return
	}
	if p := r.Pending; p != nil && p.Kind == pending.Numbers && c.Settled(p) {
		c.GoOnAfter(p)
	}
}

// answerInPlace prepares the answer to a client's publish, which the client gets in place of the message. It returns nil where
// the client is gone.
func (o *Ordering) answerInPlace(own *clientPublish, n *numbered, at rooms.Position) *Conn {
	if own == nil {
		return nil
	}
	c := o.rooms.ConnAt(own.at)
	if c == nil {
		return nil
	}
	n.instead = o.sentFrame(own, n.room, at, false)
	n.answers = true
	c.Posted.Add(1)
	return c
}

// sentFrame is the answer broadcast_sent.
func (o *Ordering) sentFrame(own *clientPublish, r *rooms.Room, at rooms.Position, duplicate bool) *turn.Frame {
	sent := message.BroadcastSent{Room: []byte(own.room), Position: at, Duplicate: duplicate, Ref: own.ref}
	if !duplicate {
		sent.Recipients = o.rooms.Index.Away(own.room)
		if r != nil {
			sent.Recipients += max(r.Len()-1, 0)
		}
	}
	return turn.BuildFrame(ws.OpText, len(own.room)+len(own.ref)+noticeBytes, func(dst []byte) []byte {
		return message.AppendBroadcastSent(dst, sent)
	})
}

// answerLate answers a client whose loop has no letter with the message: it missed it, or the client has left the room.
func (o *Ordering) answerLate(own *clientPublish, n *numbered, at rooms.Position) {
	l, f := o.rooms.Loops[own.at.Loop], o.sentFrame(own, n.room, at, false)
	l.PostCall(func() {
		c := ConnOf(l.ConnAt(own.at))
		if c == nil {
			return
		}
		if g := l.lagIn(c, n.room); g != nil && g.next <= n.number {
			g.owe(at, f)
			c.MarkDirty()
		} else {
			c.Queue(f)
		}
		countNumber(c)
	})
}

// settleOwn tells the outcome of a publish whose message this process does not deliver by itself.
func (o orderedFloor) settleOwn(m *order.Ordered, at rooms.Position) {
	if m.Own != nil {
		o.Settle(m.Own, order.Outcome{Position: at})
	}
}

// Settle is of [order.Floor].
func (o orderedFloor) Settle(s *order.Submission, out order.Outcome) {
	switch own := s.Of.(type) {
	case *clientPublish:
		o.settleClient(own, out)
	case *appPublish:
		o.settleApp(own, out)
	}
}

func (o *Ordering) settleClient(own *clientPublish, out order.Outcome) {
	l := o.rooms.Loops[own.at.Loop]
	l.PostCall(func() {
		c := ConnOf(l.ConnAt(own.at))
		if c == nil {
			return
		}
		if e, ok := out.Err.(*message.Error); ok {
			c.Complain(e, own.ref)
		} else {
			c.Queue(o.sentFrame(own, o.rooms.Index.FindString(own.room), out.Position, out.Duplicate))
		}
		countNumber(c)
	})
}

func (o *Ordering) settleApp(own *appPublish, out order.Outcome) {
	if own.done == nil {
		return
	}
	p := Published{Position: out.Position, Duplicate: out.Duplicate}
	if out.Err == nil && !out.Duplicate {
		p.Members = o.rooms.Index.Known(own.room)
		p.Recipients = max(p.Members-own.excepted, 0)
	}
	o.calls = append(o.calls, func() { own.done(p, out.Err) })
}

// submitApp submits a message of the application. done may be nil.
func (o *Ordering) submitApp(room string, body []byte, m *Publish) error {
	x := o.rooms
	own := &appPublish{room: room, excepted: len(m.Except) + len(m.Out), done: m.Done}
	out := m.Except
	for _, at := range m.Out {
		out = append(out[:len(out):len(out)], ident.ID{Worker: x.Link.Self, Place: at})
	}
	var ticket uint64
	if m.Counted && m.Done != nil {
		ticket = countRecipients(x, own)
	}
	err := o.follower.Submit(&order.Submission{Of: own}, &order.Message{Room: room, Body: body, Out: out, OutUsers: m.OutUsers,
		Key: m.Options.Key, Scope: m.From, Once: m.Options.IdempotencyKey, Options: o.options(room), Ticket: ticket})
	switch err {
	case nil:
		return nil
	case order.ErrTooLarge:
		return fleet.ErrMessageTooLarge
	}
	return o.rooms.orOverloaded(rooms.ErrOverloaded)
}

// Keeps reports whether a sequencer numbers the messages of a room. Any goroutine; room is not kept.
func (o *Ordering) Keeps(room []byte) bool {
	return o != nil && o.rooms.Index.AnyHistory() && o.rooms.Index.Keeps(room)
}

// Await waits until a room is here with what since needs. Errors: that of [message.NoHistory]; [message.ErrUnavailable]; the error
// of ctx.
func (o *Ordering) Await(ctx context.Context, room string, since rooms.Since) error {
	if o == nil {
		return nil
	}
	here := make(chan error, 1)
	o.Prepare(room, since, func(err error) { here <- err })
	select {
	case err := <-here:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// WhenHere runs then, on the loop, when the messages are here that a client's question is for. e is borrowed, also by then.
func (o *Ordering) WhenHere(c *Conn, e *message.Envelope, then func(e *message.Envelope)) {
	if !o.Keeps(e.Room) {
		then(e)
		return
	}
	later := e.Clone()
	need := Followed{Room: later.Room, Since: sinceOf(later), Name: "history", Ref: later.Ref}
	o.WhenFollowed(c, need, func(_ Followed, err error) {
		if err != nil {
			c.Complain(SeatError(err), later.Ref)
			return
		}
		then(later)
	})
}

// Followed is a room that a connection needs, and why.
//
// Owner: the caller.
type Followed struct {
	Room  []byte
	Since rooms.Since
	Name  string // of the message that needs it, for the log
	Ref   []byte
}

// WhenFollowed runs then, on the loop, when a room with history is here with what since needs: in this turn if it is, else later,
// and until then the later messages of c wait. err is for the client. Room and Ref are borrowed, also by then. The
// sequencer numbers the room's messages.
func (o *Ordering) WhenFollowed(c *Conn, about Followed, then func(about Followed, err error)) {
	l := c.loop()
	var one atomic.Bool // set by the first of two: the answer, and the return of Prepare. The second goes on
	var answer error
	var p *pending.Pending
	o.Prepare(string(about.Room), about.Since, func(err error) {
		answer = err
		if one.Swap(true) {
			l.PostCall(func() { followed(c, p, func() { then(about, answer) }) })
		}
	})
	if one.Load() {
		then(about, answer)
		return
	}
	p = c.Await(pending.Rooms, about.Name, about.Ref)
	about.Room, about.Ref = slices.Clone(about.Room), p.Ref
	if one.Swap(true) {
		l.PostCall(func() { followed(c, p, func() { then(about, answer) }) })
	}
}

// followed goes on behind the letters that are posted for c.
func followed(c *Conn, p *pending.Pending, then func()) {
	if turn.Expects(c.Wire()) {
		c.Loop.PostCall(func() { followed(c, p, then) })
		return
	}
	if c.Settled(p) {
		then()
		c.GoOnAfter(p)
	}
}

// AllFollowed runs then, on the loop in a later turn, when all rooms are here or were refused. errs are in their order.
func (o *Ordering) AllFollowed(l *Loop, list []Followed, then func(errs []error)) {
	errs := make([]error, len(list))
	var left atomic.Int32
	left.Store(int32(len(list)))
	for i := range list {
		o.Prepare(string(list[i].Room), list[i].Since, func(err error) {
			errs[i] = err
			if left.Add(-1) == 0 {
				l.PostCall(func() { then(errs) })
			}
		})
	}
}
