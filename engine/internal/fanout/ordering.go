package fanout

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/engine/internal/order"
	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/protocol/message"
	"github.com/parleyd/parley/rooms"
)

// Rooms with history, where several workers are one server. A publish is submitted to the sequencer, and is delivered when it
// comes back with its number; what is delivered, and how members that are behind read, is as in a server that is alone.
//
// Problem: a message that has its number must reach every member, however far behind a loop is, and nothing may block.
//
// Invariant: a room's messages are posted in the order of their numbers, by one goroutine at a time. A loop whose mailbox has no
// place for one misses it, and with it, for the room, a call that makes the room's members on that loop read on from there: the
// call is posted in front of the room's next letter, and is never refused.
//
// What lost: a queue of messages for each loop that is behind (it grows as long as the loop is held).

// Ordering is a process's side of the order.
//
// Owner: shared (mutex: hearing).
type Ordering struct {
	rooms    *Rooms
	follower *order.Follower
	hearing  sync.Mutex
	calls    []func()      // of the application, to be made under no lock
	from     atomic.Uint32 // the sequencer, as a member of the bus; 0: not heard yet
}

// itemSlack is what a publish may have besides its message: the room's name, keys, exceptions. The bus takes 64 KiB besides it.
const itemSlack = 48 << 10

// unusedFor is how long a worker follows a room on that none of its members are in.
const unusedFor = int64(30e9)

// ShareOrder has the sequencer number the messages of rooms with history, before the server starts. ring: see package membership.
func ShareOrder(x *Rooms, ring func()) {
	o := &Ordering{rooms: x}
	o.follower = order.NewFollower(order.FollowerOptions{Self: x.Link.Self, Floor: orderedFloor{o}, Ring: ring, Clock: x.Ground.Clock,
		Most: x.Link.BytesMax + itemSlack})
	x.Index.Follow(rooms.FollowOptions{Release: o.follower.Leave, Unused: unusedFor})
	x.Order = o
}

// hear begins the work on something heard, and the function that it returns ends it: then the application's functions are called
// that wait for it.
func (o *Ordering) hear() (end func()) {
	o.hearing.Lock()
	return func() {
		calls := o.calls
		o.calls = nil
		o.hearing.Unlock()
		for _, call := range calls {
			call()
		}
	}
}

// HearOrder takes an entry of the sequencer's stream.
func (o *Ordering) HearOrder(from ident.Worker, h *fleet.Heard) error {
	if o == nil {
		return nil
	}
	defer o.hear()()
	if o.follower.Newest(h.Payload) { // not the last words of an earlier one
		o.from.Store(uint32(from))
	}
	return o.follower.Hear(h.Payload)
}

// HearPiece takes the sequencer's answer to a read. answer is borrowed. Any goroutine.
func (o *Ordering) HearPiece(answer []byte) error {
	defer o.hear()()
	return o.follower.Piece(answer)
}

// Missed notes that a part of a worker's stream is lost, and reports whether it was the sequencer's. Any goroutine.
func (o *Ordering) Missed(from ident.Worker) bool {
	known := ident.Worker(o.from.Load())
	if known != 0 && known != from {
		return false
	}
	defer o.hear()()
	o.follower.Lost()
	return known != 0
}

// Tick repeats what was not answered; every 100 ms. Any goroutine.
func (o *Ordering) Tick() {
	defer o.hear()()
	o.follower.Tick()
}

// Outgoing appends the next batch for the sequencer to dst: see [order.Follower.Outgoing].
func (o *Ordering) Outgoing(dst []byte) []byte { return o.follower.Outgoing(dst) }

// Counts are the figures of the order; zero where this process numbers its rooms itself. Any goroutine.
func (o *Ordering) Counts() (c order.Counts) {
	if o != nil {
		c = o.follower.Counts()
	}
	return c
}

// Prepare calls done once, perhaps before it returns, on any goroutine: with nil when the room is here with what since needs; with
// an error for the client. Rooms without history need nothing. Any goroutine.
func (o *Ordering) Prepare(room string, since rooms.Since, done func(error)) {
	if o == nil || !o.rooms.Index.Keeps([]byte(room)) {
		done(nil)
		return
	}
	o.follower.Prepare(room, o.options(room), since, done)
}

// followMembers follows a room that has members and is to have a history from now on.
func (o *Ordering) followMembers(r *rooms.Room) {
	if o == nil || r.Len() == 0 || r.History() != nil {
		return
	}
	o.Prepare(r.Name(), rooms.Since{}, func(err error) {
		if err != nil {
			o.rooms.Ground.Log.Warn("the sequencer does not answer for a room, whose history begins later", "room", r.Name(), "err", err)
		}
	})
}

// joinFollowed is [Rooms.Join] when the room's history is here.
func (o *Ordering) joinFollowed(c *Conn, name string, done func(error)) {
	if done == nil {
		done = func(error) {}
	}
	answer := func(err error) { c.loop().PostCall(func() { o.rooms.Above.Answer(c, done, err) }) }
	o.Prepare(name, rooms.Since{}, func(err error) {
		if err != nil {
			answer(SeatError(err))
			return
		}
		if later, err := o.rooms.Join(c, name, done); !later {
			answer(err)
		}
	})
}

// end tells the sequencer that a room is deleted.
func (o *Ordering) end(room string) {
	if o != nil && o.rooms.Index.AnyHistory() {
		o.follower.End(room)
	}
}

// dropped notes that a room was deleted here: whoever joins a room of its name follows it anew.
func (o *Ordering) dropped(room string) {
	if o != nil && o.rooms.Index.AnyHistory() {
		defer o.hear()()
		o.follower.Dropped(room)
	}
}

// options are the bounds that the application gave a room; nil where it has those of the settings.
func (o *Ordering) options(room string) *rooms.HistoryOptions {
	r := o.rooms.Index.FindString(room)
	if r == nil {
		return nil
	}
	if bounds, own := r.Bounds(); own {
		return bounds
	}
	return nil
}

// orderedFloor is the Ordering as the follower calls it.
type orderedFloor struct{ *Ordering }

// Begin is of [order.Floor].
func (o orderedFloor) Begin(room string, at rooms.Position) {
	now := o.rooms.Ground.Clock()
	r, members := o.rooms.Index.Begin(room, now, o.rooms.Ground.Seconds(now), at)
	switch members {
	case rooms.FollowsNew:
		Historic{o.rooms}.begun(r, at)
	case rooms.FollowsHole:
		o.readOn(r)
	case rooms.FollowsAnew:
		o.tellReset(r)
	}
}

// At is of [order.Floor].
func (o orderedFloor) At(room string) (at rooms.Position, low uint64, ok bool) {
	h := o.history(room)
	if h == nil {
		return at, 0, false
	}
	at, low = h.Where(o.rooms.Ground.Clock())
	return at, low, true
}

func (o *Ordering) history(room string) *rooms.History {
	if r := o.rooms.Index.FindString(room); r != nil {
		return r.History()
	}
	return nil
}

// Keys is of [order.Floor].
func (o orderedFloor) Keys(room string) []rooms.KeyedNumber {
	if h := o.history(room); h != nil {
		return h.Keys(o.rooms.Ground.Clock())
	}
	return nil
}

// TakeKeys is of [order.Floor].
func (o orderedFloor) TakeKeys(room, epoch string, keys []rooms.KeyedNumber) {
	if h := o.history(room); h != nil {
		h.TakeKeys(epoch, keys, o.rooms.Ground.Clock())
	}
}

// Kept is of [order.Floor].
func (o orderedFloor) Kept(room, epoch string, first, last uint64) []order.Kept {
	h, now := o.history(room), o.rooms.Ground.Clock()
	if h == nil {
		return nil
	}
	e := h.Last(first, last, order.PieceBytes, now)
	if e.Epoch != epoch {
		return nil
	}
	return order.KeptOf(&e, now)
}

// Skip is of [order.Floor].
func (o orderedFloor) Skip(room string, to uint64) {
	if h := o.history(room); h != nil && h.Skip(to) {
		o.rooms.Count[CountGapsLost].Add(1)
		o.readOn(h.Room())
	}
}

// Reset is of [order.Floor].
func (o orderedFloor) Reset(room string, at rooms.Position) {
	if h := o.history(room); h != nil && h.Restart(at) {
		o.tellReset(h.Room())
	}
}

// Fill is of [order.Floor].
func (o orderedFloor) Fill(room, epoch string, list []order.Kept) {
	if h := o.history(room); h != nil {
		order.FillHistory(h, epoch, list, o.rooms.Ground.Clock())
	}
}

// readOn has the members of a room read on, on loops that have missed a message.
func (o *Ordering) readOn(r *rooms.Room) {
	for _, l := range o.rooms.Loops {
		l.PostCall(func() { readMissed(l, r) })
	}
}

// readMissed makes the members of a room, of which the loop has missed a message, read on from there.
func readMissed(l *Loop, r *rooms.Room) {
	h := r.History()
	if h == nil {
		return
	}
	list, next := h.Behind(l.Index)
	for i, at := range list {
		c := ConnOf(l.Slab.At(r.Roster(l.Index)[at].Slot))
		l.Receipts.Forget(c)
		l.Count[CountBehind].Add(1)
		l.addLag(c, &lag{room: r, next: next[i], conflate: next[i]})
		c.MarkDirty() // the reading begins after the write
	}
}

// tellReset tells the members of a room that its epoch is new.
func (o *Ordering) tellReset(r *rooms.Room) {
	for _, l := range o.rooms.Loops {
		l.PostCall(func() { resetMembers(l, r) })
	}
}

// resetMembers tells the members of a room on this loop that its epoch is new. What they have not read of the old one is gone.
func resetMembers(l *Loop, r *rooms.Room) {
	h := r.History()
	if h == nil {
		return
	}
	list, at := h.Restarted(l.Index)
	if len(list) == 0 {
		return
	}
	f := turn.BuildFrame(ws.OpText, len(r.Name())+noticeBytes, func(dst []byte) []byte { return message.AppendReset(dst, r.Name(), at) })
	for _, i := range list {
		c := ConnOf(l.Slab.At(r.Roster(l.Index)[i].Slot))
		l.Receipts.Forget(c)
		if g := l.lagIn(c, r); g != nil {
			g.payAll(c)
			l.dropLag(c, g)
		}
		c.Queue(f)
		l.Count[CountGapsEpoch].Add(1)
	}
}

// payAll gives c all answers that it is owed in an epoch that is over, and tells it which messages in front of each are gone.
func (g *lag) payAll(c *Conn) {
	for _, x := range g.owed {
		if g.next < x.Seq {
			c.Queue(turn.BuildFrame(ws.OpText, len(g.room.Name())+noticeBytes, func(dst []byte) []byte {
				return message.AppendGap(dst, g.room.Name(), g.next, rooms.Position{Seq: x.Seq - 1, Epoch: x.Epoch})
			}))
			c.loop().Count[CountGapsEpoch].Add(1)
		}
		c.Queue(x.frame)
		g.next = max(g.next, x.Seq+1)
	}
	g.owed = nil
}

// arrival posts a message that the sequencer has numbered.
//
// Owner: the goroutine that hears.
type arrival struct {
	rooms  *Rooms
	room   *rooms.Room
	to     *numbered
	except ident.Place
	ring   loopBits
	posted loopBits
	missed loopBits
	read   loopBits // of missed: loops whose members are to be made to read

	counts     bool // recipients is needed
	recipients int
}

// Number is of [rooms.NumberedPoster].
func (p *arrival) Number(rooms.Position) []byte {
	if p.counts {
		p.recipients = p.room.Len()
		for _, at := range p.to.except {
			if p.room.Has(at) {
				p.recipients--
			}
		}
	}
	return p.to.frame.Plain
}

// Reserve is of [rooms.Poster]. It never refuses.
func (p *arrival) Reserve(loop uint8) bool {
	if !p.rooms.Loops[loop].Mail.ReserveForeign(len(p.to.frame.Plain)) {
		p.missed.add(loop)
		if p.room.History().Missed(loop, p.to.number) {
			p.read.add(loop)
		}
	}
	return true
}

// Cancel is of [rooms.Poster].
func (p *arrival) Cancel(uint8) {}

// Post is of [rooms.Poster].
func (p *arrival) Post(loop uint8, seq uint64) {
	if p.missed.has(loop) {
		return
	}
	p.posted.add(loop)
	if p.rooms.Loops[loop].Mail.Post(turn.Letter{Kind: letterPublish, Frame: &p.to.frame, Seq: seq, Except: p.except, To: p.to}) {
		p.ring.add(loop)
	}
}

// take gives a room its next message. The frame in raw is copied.
func (p *arrival) take(about rooms.NumberedMessage, at rooms.Position, raw []byte) (ok bool) {
	header, _ := fleet.FrameSize(raw)
	h := p.room.History()
	if h == nil || header == 0 {
		return false
	}
	p.to.frame.Init(slices.Clone(raw), header)
	p.to.generation = h.Generation()
	ok = h.Take(p, about, at)
	for _, l := range p.rooms.Loops {
		if p.ring.has(l.Index) {
			l.Wires.Ring()
		}
		if p.read.has(l.Index) {
			l.PostCall(func() { readMissed(l, p.room) })
		}
	}
	return ok
}

// TakeKept is of [order.Floor].
func (o orderedFloor) TakeKept(room string, m *order.Kept) {
	r := o.rooms.Index.FindString(room)
	if r == nil || r.History() == nil {
		return
	}
	at := rooms.Position{Seq: m.Seq, Epoch: r.History().Epoch()}
	p := &arrival{rooms: o.rooms, room: r, except: Nowhere, to: &numbered{room: r, number: m.Seq, epoch: at.Epoch, by: m.By, outs: m.Out, unplaced: true}}
	p.take(m.About(o.rooms.Ground.Clock()), at, m.Frame)
}

func skipFrame(r *rooms.Room, at rooms.Position, why string) *turn.Frame {
	return turn.BuildFrame(ws.OpText, len(r.Name())+noticeBytes, func(dst []byte) []byte {
		return message.AppendSkip(dst, r.Name(), message.Skip{From: at.Seq, Position: at, Why: why})
	})
}

// Take is of [order.Floor].
func (o orderedFloor) Take(m *order.Ordered) {
	x, at := o.rooms, rooms.Position{Seq: m.Seq, Epoch: m.Epoch}
	r := x.Index.FindString(m.Room)
	if r == nil || r.History() == nil {
		if m.Ticket != 0 {
			o.Count(m.From, m.Ticket, 0)
		}
		o.settleOwn(m, at)
		return
	}
	n := &numbered{room: r, number: m.Seq, epoch: m.Epoch}
	p := &arrival{rooms: x, room: r, except: Nowhere, to: n, counts: m.Ticket != 0}
	about := rooms.NumberedMessage{Now: x.Ground.Clock(), ConflateKey: m.Key, Idempotency: m.Once}
	if m.By != (ident.ID{}) {
		about.By = rooms.Who(m.By)
		n.by = about.By
	}
	if m.By.Worker == x.Link.Self {
		p.except = m.By.Place
	}
	if len(m.Out)+len(m.OutUsers) > 0 {
		o.exclude(n, m, &about, at)
	}
	own := clientPublishOf(m.Own)
	c := o.answerInPlace(own, n, at)
	if p.except != Nowhere && n.instead == nil { // nobody waits for the answer any more
		n.instead = skipFrame(r, at, message.WhyOwn)
	}
	ok := p.take(about, at, m.Frame)
	if p.counts {
		o.Count(m.From, m.Ticket, p.recipients)
	}
	switch {
	case m.Own == nil:
	case own == nil:
		o.settleOwn(m, at)
	case !ok || !p.posted.has(own.at.Loop):
		if c != nil {
			n.answers = false
			c.Posted.Add(-1)
		}
		o.answerLate(own, n, at)
	default:
		o.numberedOne(own)
	}
}

// exclude notes the connections that a message is not for.
func (o *Ordering) exclude(n *numbered, m *order.Ordered, about *rooms.NumberedMessage, at rooms.Position) {
	x := o.rooms
	n.except = distinct(x.Users.PlacesOf(x.Link.Own(m.Out), m.OutUsers))
	n.instead = skipFrame(n.room, at, message.WhyExcluded)
	for _, id := range m.Out {
		if id.Worker != x.Link.Self {
			about.Out = append(about.Out, rooms.Who(id))
		}
	}
	for _, place := range n.except {
		about.Out = append(about.Out, rooms.Who(ident.ID{Worker: x.Link.Self, Place: place}))
	}
	n.outs = about.Out
}
