package fanout

import (
	"slices"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/frame"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/protocol/message"
	"github.com/parleyd/parley/rooms"
)

// Messages of rooms with history. A room numbers such a message, keeps it, and posts its letters in one step. The frame ends
// with the number, so it is completed in that step, under the room's lock.
//
// Every member is given something for each number: the message, or, if the message is not for it, another one with that number.
// So the publisher gets its broadcast_sent in place of the message, where the message stands in the room's order.

// numbered is a message with its number, on its way to the members.
//
// Owner: immutable once posted, except instead and answered (the loop of the excepted connection).
type numbered struct {
	frame    turn.Frame
	room     *rooms.Room
	number   uint64
	epoch    string
	notice   turn.Frame    // the memory of most of the other messages
	instead  *turn.Frame   // what excepted connections get
	except   []ident.Place // several; one stands in the letter
	answers  bool          // instead is an answer: the publisher gets it even if it has left the room meanwhile
	answered bool

	// Of a message that came from a sequencer.
	generation uint32   // of the room's epoch
	by         uint64   // the publisher, by [rooms.Who]; 0 for none
	outs       []uint64 // the excepted connections, by [rooms.Who]
	unplaced   bool     // by and outs alone tell who gets something else; else only for sessions that have resumed meanwhile
}

// whyNot is why a connection that is not known by its place gets something else than the message; "" if it gets the message. A
// session may resume while its publish is on its way to the sequencer: then the message is its own.
func (n *numbered) whyNot(c *Conn) string {
	switch {
	case n.by == 0 && n.outs == nil, !n.unplaced && !c.hasEarlier():
		return ""
	case c.isOwn(n.by):
		return message.WhyOwn
	case slices.ContainsFunc(n.outs, c.isOwn):
		return message.WhyExcluded
	}
	return ""
}

// numbering is the publication of a message that takes a number.
//
// Owner: the goroutine that publishes.
type numbering struct {
	publication
	body     []byte // the message without its last brace; borrowed until it has its number
	out      []ident.Place
	excepted int // members among out
	to       *numbered
}

// Number is of [rooms.NumberedPoster].
func (p *numbering) Number(at rooms.Position) []byte {
	n := &numbered{room: p.room, number: at.Seq, epoch: at.Epoch, except: p.out}
	size := message.NumberedBytes(p.body, at)
	raw := frame.AppendHeader(make([]byte, 0, frame.HeaderSize(size)+size), ws.OpText, size)
	header := len(raw)
	raw = message.AppendNumber(raw, p.body, at)
	n.frame.Init(raw, header)
	for _, at := range p.out {
		if p.room.Has(at) {
			p.excepted++
		}
	}
	if len(p.out) > 0 {
		n.instead = turn.BuildFrame(ws.OpText, len(p.room.Name())+noticeBytes, func(dst []byte) []byte {
			return message.AppendSkip(dst, p.room.Name(), message.Skip{From: at.Seq, Position: at, Why: message.WhyExcluded})
		})
	}
	p.frame, p.to = &n.frame, n
	return raw
}

// Post is of [rooms.Poster].
func (p *numbering) Post(loop uint8, seq uint64) {
	if p.rooms.Loops[loop].Mail.Post(turn.Letter{Kind: letterPublish, Frame: p.frame, Seq: seq, Except: p.except, To: p.to}) {
		p.ring.add(loop)
	}
}

// publishNumbered gives the message its number, and posts it. scope is that of its idempotency key.
func (p *numbering) publishNumbered(m rooms.NumberedMessage, o *message.Options, scope string) (rooms.Numbered, error) {
	m.Now = p.rooms.Ground.Clock()
	if o.Key != "" {
		m.ConflateKey = p.rooms.Index.Hash(o.Key)
	}
	if o.IdempotencyKey != "" {
		m.Idempotency = p.rooms.Index.Key(scope, o.IdempotencyKey)
	}
	h := p.room.History()
	if h == nil {
		return rooms.Numbered{}, rooms.ErrDead
	}
	n, err := h.Publish(p, m)
	p.wake()
	if err == rooms.ErrOverloaded {
		return n, p.rooms.orOverloaded(err)
	}
	return n, err
}

// ClientMessage is a message that a client publishes to a room with history. Its slices are borrowed.
//
// Owner: the caller.
type ClientMessage struct {
	Room    *rooms.Room
	Body    []byte // the message for the members, without its last brace
	Options message.Options
	Scope   string // of the idempotency key; empty without one
	Ref     []byte
}

// Numbers reads the options of a broadcast message that c, a member, sends to a room. numbered is false if the message takes no
// number: the room has no history, or the client wants none. answered: it is refused, and c was told. e is borrowed.
func (l *Loop) Numbers(c *Conn, r *rooms.Room, e *message.Envelope) (o message.Options, numbered, answered bool) {
	if !l.Rooms.Index.AnyHistory() {
		return o, false, false
	}
	o, ok := e.Options()
	has := r.History() != nil || l.Rooms.Order.Keeps([]byte(r.Name())) // the sequencer numbers it before the room is here
	switch {
	case !has && ok && o.IdempotencyKey != "":
		c.Complain(message.ErrorOf(message.NoHistory), e.Ref)
		return o, false, true
	case !has:
		return o, false, false
	case !ok:
		c.Complain(errOptions, e.Ref)
		return o, false, true
	}
	return o, !o.Ephemeral, false
}

var errOptions = &message.Error{Code: message.InvalidMessage.String(), Message: `"idempotency_key" and "key" must be strings of 1 to 64 bytes, and "history" true or false; none may be named twice`}

// BroadcastNumbered publishes a message of c, a member, and has it answered.
func (l *Loop) BroadcastNumbered(c *Conn, m ClientMessage) {
	err := l.broadcastNumbered(c, m)
	switch {
	case err == rooms.ErrDead:
		c.Complain(message.ErrNotInRoom, m.Ref) // the room is just being deleted
	case err != nil:
		c.Complain(message.ErrOverloaded, m.Ref)
	}
}

func (l *Loop) broadcastNumbered(c *Conn, m ClientMessage) error {
	if l.Rooms.Order != nil {
		return l.Rooms.Order.submit(c, m)
	}
	g := l.lagIn(c, m.Room)
	if g != nil && len(g.owed) >= owedMax {
		return l.Rooms.orOverloaded(rooms.ErrOverloaded)
	}
	p := &l.numbering
	*p = numbering{publication: publication{rooms: l.Rooms, room: m.Room, except: c.Place()}, body: m.Body}
	n, err := p.publishNumbered(rooms.NumberedMessage{By: rooms.Who(c.ID())}, &m.Options, m.Scope)
	to := p.to
	*p = numbering{}
	if err != nil {
		return err
	}
	sent := message.BroadcastSent{Room: []byte(m.Room.Name()), Recipients: max(n.Members-1, 0), Position: n.Position, Duplicate: n.Duplicate, Ref: m.Ref}
	if n.Duplicate {
		sent.Recipients = 0
		l.Text = message.AppendBroadcastSent(l.Text[:0], sent)
		c.Answer(l.Text)
		return nil
	}
	l.Text = message.AppendBroadcastSent(l.Text[:0], sent)
	header := frame.HeaderSize(len(l.Text))
	to.notice.Init(frame.Append(make([]byte, 0, header+len(l.Text)), ws.OpText, l.Text), header)
	to.instead = &to.notice
	if g != nil {
		g.owe(n.Position, to.instead)
		return nil
	}
	to.answers = true
	c.Posted.Add(1) // later answers come behind this one
	return nil
}

// fanOutNumbered fans a message out to the room's members on this loop. A member that cannot keep up is behind from then on.
func (l *Loop) fanOutNumbered(x *turn.Letter, n *numbered) {
	h := n.room.History()
	if h == nil { // followed no longer: nobody is in
		l.answerPublisher(x, n)
		return
	}
	roster, stands := n.room.Roster(l.Index), h.Stands(l.Index)
	full := fullAt(l, h)
	if len(roster) == 0 || n.generation != h.Told(l.Index) { // the members were told of a newer epoch
		l.answerPublisher(x, n)
		return
	}
	h.Given(l.Index, n.number)
	for i := range roster {
		if n.number > stands[i].From && !stands[i].Fresh() {
			l.deliverNumbered(x, &roster[i], i, full)
		}
	}
	l.answerPublisher(x, n)
}

// deliverNumbered gives a member what it gets for a number.
func (l *Loop) deliverNumbered(x *turn.Letter, m *rooms.Member, at, full int) {
	n := x.To.(*numbered)
	c := l.Slab.At(m.Slot)
	switch {
	case c.Blocked && c.Backlog+len(n.frame.Plain) > full:
		l.fallBehind(ConnOf(c), n, at)
	case isExcepted(x, m):
		if n.answers {
			n.answered = true
			c.Posted.Add(-1)
		}
		c.Queue(n.instead)
	case n.except != nil && slices.Contains(n.except, c.Place()):
		c.Queue(n.instead)
	default:
		if why := n.whyNot(ConnOf(c)); why != "" {
			c.Queue(skipFrame(n.room, rooms.Position{Seq: n.number, Epoch: n.room.History().Epoch()}, why))
			return
		}
		c.Queue(&n.frame)
	}
}

// answerPublisher gives the publisher the answer to its message, if that was not done in its place: the publisher is behind,
// or has left the room.
func (l *Loop) answerPublisher(x *turn.Letter, n *numbered) {
	if x.Except.Loop != l.Index || !n.answers || n.answered { // another loop must not read what that loop may just be writing
		return
	}
	n.answered = true
	c := ConnOf(l.ConnAt(x.Except))
	if c == nil {
		return
	}
	c.Posted.Add(-1)
	if g := l.lagIn(c, n.room); g != nil {
		g.owe(rooms.Position{Seq: n.number, Epoch: n.epoch}, n.instead)
		c.MarkDirty() // the reading, or input that waits for answers that are posted, goes on after the write
		return
	}
	c.Queue(n.instead)
}
