package fanout

import (
	"cmp"
	"slices"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/protocol/message"
	"github.com/parleyd/parley/rooms"
)

// Historic are the rooms with history, for the application's publishes. Its methods are for any goroutine.
type Historic struct{ *Rooms }

// Publish is a message that the application publishes to one room.
//
// Owner: the caller.
type Publish struct {
	Text     []byte // the message, JSON
	Except   []ident.ID
	Out      []ident.Place // further exceptions, on this worker
	OutUsers []string      // and users
	From     string        // the scope of the idempotency key
	Options  message.Options
	Counted  bool // Done wants to know for how many connections the message was queued, on all workers
	// Done is called once, perhaps before Publish returns, on any goroutine, unless Publish returns an error; nil: the caller does
	// not ask. It must not block.
	Done func(Published, error)
}

// Published is what became of a message of the application.
//
// Owner: immutable.
type Published struct {
	rooms.Position      // zero in a room without history, and of a message without a number
	Members        int  // that the room had; of those on other workers, the best known figure
	Recipients     int  // the members without the exceptions
	Duplicate      bool // nothing was published: the position is that of the first message with the key
	// Partial is nil, or says which workers have not told in time for how many connections they have queued the message.
	Partial *fleet.PartialError
}

// Publish publishes a message of the application to a room, if it has history; ok is false if it has none. Where a sequencer
// numbers it, n has no position, and the members as they are known now. Errors: [message.ErrOverloaded]; [ErrNotObject]. Any
// goroutine.
func (x Historic) Publish(room string, m Publish) (n Published, ok bool, err error) {
	if x.Order != nil {
		return x.submit(room, m)
	}
	n, ok, err = x.publishHere(room, m)
	if ok && err == nil && m.Done != nil {
		m.Done(n, nil)
	}
	return n, ok, err
}

// submit is Publish where a sequencer numbers the message.
func (x Historic) submit(room string, m Publish) (n Published, ok bool, err error) {
	if !x.Index.Keeps([]byte(room)) {
		return n, false, nil
	}
	body, ok := message.Numberable(m.Text)
	if !ok {
		return n, true, ErrNotObject
	}
	if err = x.Order.submitApp(room, body, &m); err == nil {
		n.Members = x.Index.Known(room)
		n.Recipients = max(n.Members-len(m.Except)-len(m.Out), 0)
	}
	return n, true, err
}

// publishHere is Publish where this process numbers the message.
func (x Historic) publishHere(room string, m Publish) (n Published, ok bool, err error) {
	m.Out = x.Users.PlacesOf(m.Out, m.OutUsers)
	var body []byte
	for {
		r := x.Index.FindString(room)
		if r == nil && !x.Index.Keeps([]byte(room)) || r != nil && r.History() == nil {
			return n, false, nil
		}
		if body == nil { // a message that is refused makes no room
			if body, ok = message.Numberable(m.Text); !ok {
				return n, true, ErrNotObject
			}
		}
		if r == nil {
			r = x.Index.Make(room, x.Ground.Seconds(x.Ground.Clock()))
		}
		if n, err = x.publish(r, body, m); err != rooms.ErrDead { // a room that is just being deleted has a successor
			return n, true, err
		}
	}
}

// publish publishes a message without its last brace.
func (x Historic) publish(r *rooms.Room, body []byte, m Publish) (Published, error) {
	about := rooms.NumberedMessage{}
	for _, id := range m.Except {
		about.Out = append(about.Out, rooms.Who(id))
	}
	for _, at := range m.Out {
		about.Out = append(about.Out, rooms.Who(ident.ID{Worker: x.Link.Self, Place: at}))
	}
	out := distinct(append(x.Link.Own(m.Except), m.Out...))
	p := &numbering{publication: publication{rooms: x.Rooms, room: r, except: Nowhere}, body: body, out: out}
	n, err := p.publishNumbered(about, &m.Options, m.From)
	return Published{Position: n.Position, Members: n.Members, Recipients: max(n.Members-p.excepted, 0), Duplicate: n.Duplicate}, err
}

// distinct drops places that stand twice. The order is lost.
func distinct(places []ident.Place) []ident.Place {
	if len(places) < 2 {
		return places
	}
	slices.SortFunc(places, func(a, b ident.Place) int {
		return cmp.Or(cmp.Compare(a.Loop, b.Loop), cmp.Compare(a.Slot, b.Slot), cmp.Compare(a.Gen, b.Gen))
	})
	return slices.Compact(places)
}

// publishAll publishes a message to those of several rooms that have history, each by itself: a broadcast names the room that it
// is in. It returns the others, and the recipients in those rooms. A room that refuses the message ends it: the rooms in front
// have it.
func (x Historic) publishAll(names []string, m Publish) (others []string, recipients int, err error) {
	if !x.Index.AnyHistory() {
		return names, 0, nil
	}
	seen, text := map[string]bool{}, m.Text
	for _, name := range names {
		if seen[name] {
			continue
		}
		seen[name] = true
		m.Text = message.Readdressed(text, names[0], name)
		n, ok, err := x.Publish(name, m)
		if err != nil {
			return nil, recipients, err
		}
		if recipients += n.Recipients; !ok {
			others = append(others, name)
		}
	}
	return others, recipients, nil
}

// begun has the members of a room that begins to number its messages told their position. It runs under the room's lock, so
// that each of them is told before it is given a number.
func (x Historic) begun(r *rooms.Room, at rooms.Position) {
	f := turn.BuildFrame(ws.OpText, len(r.Name())+noticeBytes, func(dst []byte) []byte {
		return message.AppendPosition(dst, r.Name(), at)
	})
	for _, l := range x.Loops {
		l.PostCall(func() {
			for _, i := range r.History().Untold(l.Index) {
				l.Slab.At(r.Roster(l.Index)[i].Slot).Queue(f)
			}
		})
	}
}

// AnswerDelivered says how many members of a room have a message for certain, on this worker. Members of an earlier epoch, who are
// yet to be told, have it not.
func (x Historic) AnswerDelivered(r *fleet.Reader) []byte {
	room, epoch, seq := r.Bytes(), string(r.Bytes()), r.Number()
	h := (*rooms.History)(nil)
	if found := x.Index.Find(room); found != nil {
		h = found.History()
	}
	w := new(fleet.Writer)
	if r.Bad || h == nil || h.Epoch() != epoch {
		return w.Flag(false).Number(0).Number(0).B
	}
	have, members := h.Delivered(seq)
	return w.Flag(true).Number(uint64(have)).Number(uint64(members)).B
}

// Bounds of an answer with messages of a history.
const (
	HistoryLimit       = 50 // messages, where the client names no limit
	HistoryAnswerBytes = 256 << 10
)

// PayloadOf is the message in a kept frame.
func PayloadOf(frame []byte) []byte {
	header, _ := fleet.FrameSize(frame)
	return frame[header:]
}

// SinceFor is what a question for messages needs to have here: one message more than it asks for tells whether there are more.
func SinceFor(since, before *rooms.Position, limit int) rooms.Since {
	switch {
	case since != nil:
		return rooms.Since{Named: true, Position: *since}
	case before != nil:
		at := *before
		at.Seq -= min(at.Seq, uint64(limit)+2) // and one message more, so that it is known whether there are more
		return rooms.Since{Named: true, Position: at}
	}
	return rooms.Since{Last: uint64(limit) + 1}
}

// sinceOf is SinceFor a client's question; the zero Since where the question is malformed.
func sinceOf(e *message.Envelope) (since rooms.Since) {
	o, ok := e.Options()
	if !ok {
		return since
	}
	if o.Limit == 0 {
		o.Limit = HistoryLimit
	}
	if e.Since == nil {
		return SinceFor(nil, o.Before, o.Limit)
	}
	if p, ok := message.ParsePosition(e.Since); ok {
		return SinceFor(&p, nil, o.Limit)
	}
	return since
}

// AnswerHistory answers a client's question for messages of a room that it is in. e is borrowed.
func (l *Loop) AnswerHistory(c *Conn, r *rooms.Room, e *message.Envelope) {
	h := r.History()
	if h == nil {
		c.Complain(message.ErrorOf(message.NoHistory), e.Ref)
		return
	}
	o, ok := e.Options()
	q := rooms.PartQuery{Before: o.Before, Limit: o.Limit, BytesMax: HistoryAnswerBytes}
	if e.Since != nil && ok {
		var since rooms.Position
		since, ok = message.ParsePosition(e.Since)
		q.Since = &since
	}
	if !ok || q.Since != nil && q.Before != nil {
		c.Complain(errHistoryFields, e.Ref)
		return
	}
	if q.Limit == 0 {
		q.Limit = HistoryLimit
	}
	m := h.Part(q, l.Now)
	answer := message.History{Room: e.Room, Low: m.Low, Top: m.Top, More: m.More, Start: m.Start, Ref: e.Ref}
	for _, frame := range m.Frames {
		answer.Messages = append(answer.Messages, PayloadOf(frame))
	}
	l.Paged = true
	l.Text = message.AppendHistory(l.Text[:0], answer)
	c.Answer(l.Text)
}

var errHistoryFields = &message.Error{Code: message.InvalidMessage.String(), Message: `"since" and "before" must be positions, {"seq":N,"epoch":E}, and only one of them may be given; "limit" is 1 to 100; none may be named twice`}
