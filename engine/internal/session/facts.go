package session

import (
	"cmp"
	"container/heap"
	"encoding/json"
	"slices"
	"sync/atomic"
	"time"

	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/protocol/message"
	"github.com/parleyd/parley/rooms"
)

// This worker's part of lists of connections. Most facts of a connection can be read on any goroutine; its backlog and its
// session's name are read on its loop, which gets one letter for all of its connections on a page. The facts are encoded on
// the pool.

const (
	factsMax     = 256      // connections in one answer
	answerBytes  = 64 << 10 // the size at which an answer ends
	examineMax   = 50_000   // connections that are looked at for one answer
	lookedAtOnce = 256      // connections between two looks at the clock of a loop
)

// Facts describes a connection, for lists.
//
// Owner: the caller.
type Facts struct {
	ID           string                     `json:"id"`
	User         string                     `json:"user,omitempty"`
	Address      string                     `json:"address"`
	ConnectedAt  int64                      `json:"connected_at"`  // milliseconds since the epoch, in whole seconds
	LastActivity int64                      `json:"last_activity"` // milliseconds since the epoch: the peer's latest input
	Rooms        []string                   `json:"rooms"`
	Attributes   map[string]json.RawMessage `json:"attributes"`
	BacklogBytes int                        `json:"backlog_bytes"` // that the kernel has not taken
	Received     uint32                     `json:"received"`      // messages of the client, modulo 2^32
	Sent         uint32                     `json:"sent"`          // messages to the client, modulo 2^32
	Worker       uint16                     `json:"worker"`        // its instance
	Session      string                     `json:"session"`       // the id of the connection with which the session began
	Generation   int                        `json:"generation"`    // connections of the session up to this one; 1: not resumed
	TokenUntil   int64                      `json:"token_until"`   // milliseconds since the epoch, when the identity ends; 0: never
}

// onLoop is what is read on a connection's loop.
//
// Owner: the connection's loop, then the goroutine that encodes.
type onLoop struct {
	open           bool
	backlog        int
	received, sent uint32
	began          ident.ID
	generation     int
}

// Page is a question for connections that is being answered. Later runs a function on a goroutine that may encode. Answer is
// called once, unless the loops do not answer.
type Page struct {
	Sessions *Sessions
	Later    func(func()) bool
	Answer   func([]byte)
}

// Conns answers with the facts of the connections that a filter accepts.
func (p Page) Conns(q *fleet.ConnsQuestion) {
	list, next := p.Sessions.choose(q)
	p.Sessions.onLoops(list, func(states []onLoop) {
		p.Later(func() { p.Answer(p.Sessions.encodeFacts(list, states, next)) })
	})
}

// encodeFacts encodes a page; where it would become too large, the next page begins earlier.
func (s *Sessions) encodeFacts(list []*Conn, states []onLoop, next fleet.FindPage) []byte {
	var found fleet.Writer
	for i, c := range list {
		if !states[i].open {
			continue
		}
		raw, err := message.Encode(nil, s.facts(c, states[i]))
		if err != nil {
			s.Rooms.Ground.Log.Error("the description of a connection cannot be encoded; its attributes may hold what JSON has not", "conn", c.ID().String(), "err", err)
			continue
		}
		if found.Bytes(raw); len(found.B) >= answerBytes && i+1 < len(list) {
			at := c.Place()
			next = fleet.FindPage{More: true, Loop: uint64(at.Loop), Slot: uint64(at.Slot) + 1}
			break
		}
	}
	return append(next.AppendTo(nil), found.B...)
}

func (s *Sessions) facts(c *Conn, x onLoop) Facts {
	f := Facts{ID: c.ID().String(), User: c.User(), Address: c.AddressText(), ConnectedAt: int64(c.ConnectedAt) * 1000,
		LastActivity: s.Wall(c.LastActive.Load()).UnixMilli(), Rooms: c.RoomNames(), Attributes: map[string]json.RawMessage{},
		BacklogBytes: x.backlog, Received: x.received, Sent: x.sent, Worker: s.Rooms.Link.Self.Instance(), Session: x.began.String(), Generation: x.generation}
	if id := c.Identity(); id != nil && !id.Expires.IsZero() {
		f.TokenUntil = id.Expires.UnixMilli()
	}
	for key, value := range c.Attributes() {
		f.Attributes[key] = value
	}
	return f
}

// AddressText is the address of the client as Facts has it; "" for none. Any goroutine.
func (c *Conn) AddressText() string {
	if !c.Remote.IsValid() {
		return ""
	}
	return c.Remote.String()
}

// onLoops reads what is read on the loops of connections, which are in the order of their loops. then gets it on the last
// loop that answers, or at once where there is none.
func (s *Sessions) onLoops(list []*Conn, then func([]onLoop)) {
	states := make([]onLoop, len(list))
	left := new(atomic.Int32)
	left.Store(1)
	done := func() {
		if left.Add(-1) == 0 {
			then(states)
		}
	}
	for i := 0; i < len(list); {
		from, l := i, list[i].loop()
		for i < len(list) && list[i].loop() == l {
			i++
		}
		here, states := list[from:i], states[from:i]
		left.Add(1)
		l.PostCall(func() {
			for i, c := range here {
				began, generation := c.Name()
				states[i] = onLoop{c.IsOpen(), c.Backlog, c.Received, c.Sent, began, generation}
			}
			done()
		})
	}
	done()
}

// choose lists connections that a filter accepts, in the order of loops and slots, and says where to continue.
func (s *Sessions) choose(q *fleet.ConnsQuestion) (list []*Conn, next fleet.FindPage) {
	most := int(min(max(q.Max, 1), factsMax))
	room := s.Rooms.Index.FindString(q.Room)
	if q.Room != "" && room == nil {
		return nil, next
	}
	examined := 0
	look := func(c *Conn) (goOn bool) {
		if examined++; c.IsOpen() && c.passes(q, room) {
			list = append(list, c)
		}
		return len(list) < most && examined < examineMax
	}
	places, some := s.candidates(q, room)
	if !some {
		return s.walk(q, look, &list)
	}
	for i, at := range places {
		c := s.Rooms.ConnAt(at)
		if c != nil && !look(ConnOf(c.Wire())) && i+1 < len(places) {
			return list, fleet.FindPage{More: true, Loop: uint64(at.Loop), Slot: uint64(at.Slot) + 1}
		}
	}
	return list, next
}

// walk looks at all connections from a place on.
func (s *Sessions) walk(q *fleet.ConnsQuestion, look func(*Conn) bool, list *[]*Conn) ([]*Conn, fleet.FindPage) {
	from := q.Slot
	for loop := q.Loop; loop < uint64(len(s.Rooms.Loops)); loop++ {
		slot, more := s.Rooms.Loops[loop].Slab.From(uint32(from), func(t *turn.Conn) bool { return look(ConnOf(t)) })
		if more {
			return *list, fleet.FindPage{More: true, Loop: loop, Slot: uint64(slot)}
		}
		from = 0
	}
	return *list, fleet.FindPage{}
}

// candidates are the places that can pass, from a place on, in order; some is false where all connections can.
func (s *Sessions) candidates(q *fleet.ConnsQuestion, room *rooms.Room) (places []ident.Place, some bool) {
	switch {
	case len(q.IDs) > 0:
		places = s.Rooms.Link.Own(q.IDs)
	case q.User != "":
		places = s.Rooms.Users.Places(nil, q.User)
	case room != nil:
		places = slices.Collect(room.Places())
	default:
		return nil, false
	}
	places = slices.DeleteFunc(places, func(p ident.Place) bool {
		return uint64(p.Loop) < q.Loop || uint64(p.Loop) == q.Loop && uint64(p.Slot) < q.Slot
	})
	slices.SortFunc(places, func(a, b ident.Place) int {
		return cmp.Or(cmp.Compare(a.Loop, b.Loop), cmp.Compare(a.Slot, b.Slot), cmp.Compare(a.Gen, b.Gen))
	})
	return slices.Compact(places), true
}

// passes reports whether the filter accepts the connection. Any goroutine.
func (c *Conn) passes(q *fleet.ConnsQuestion, room *rooms.Room) bool {
	switch {
	case q.User != "" && c.User() != q.User:
	case q.Address != "" && c.AddressText() != q.Address:
	case q.Key != "" && !c.HasAttribute(q.Key, q.Value):
	case room != nil && !c.in(room):
	default:
		return true
	}
	return false
}

func (c *Conn) in(room *rooms.Room) bool {
	c.Mu.Lock()
	defer c.Mu.Unlock()
	return slices.Contains(c.Rooms, room)
}

// RoomNames lists the rooms that the connection is in. Any goroutine.
func (c *Conn) RoomNames() []string {
	c.Mu.Lock()
	defer c.Mu.Unlock()
	names := make([]string, len(c.Rooms))
	for i, r := range c.Rooms {
		names[i] = r.Name()
	}
	return names
}

// Order is an order of connections: those with the greatest figure come first.
type Order uint64

// The orders.
const (
	ByBacklog Order = iota // bytes
	ByIdle                 // milliseconds since the peer's latest input
	ByAge                  // seconds since the connection began
	ordersEnd
)

// figure is what the order compares, at now on the server's clock. Loop only.
func (o Order) figure(c *Conn, now int64) uint64 {
	switch o {
	case ByIdle:
		return uint64(max(now-c.LastActive.Load(), 0) / int64(time.Millisecond))
	case ByAge:
		return uint64(max(c.loop().Ground.Seconds(now)-int64(c.ConnectedAt), 0))
	}
	return uint64(max(c.Backlog, 0))
}

// topHeap has the first connections of an order that were seen so far, the last of them at the top.
type topHeap []fleet.TopRow

func (h topHeap) Len() int           { return len(h) }
func (h topHeap) Less(i, j int) bool { return CompareTop(h[i], h[j]) > 0 }
func (h topHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push is of [heap.Interface].
func (h *topHeap) Push(x any) { *h = append(*h, x.(fleet.TopRow)) }

// Pop is of [heap.Interface].
func (h *topHeap) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	*h = (*h)[:last]
	return x
}

// CompareTop orders rows: the greatest figure first, then by place.
func CompareTop(a, b fleet.TopRow) int {
	return cmp.Or(cmp.Compare(b.By, a.By), cmp.Compare(a.Place.Loop, b.Place.Loop), cmp.Compare(a.Place.Slot, b.Place.Slot))
}

// keep adds a row, and drops the last one where there are more than most.
func (h *topHeap) keep(row fleet.TopRow, most int) {
	if len(*h) < most {
		heap.Push(h, row)
	} else if CompareTop(row, (*h)[0]) < 0 {
		(*h)[0] = row
		heap.Fix(h, 0)
	}
}

// Top answers with the first connections of this worker in an order, at most most: each loop looks through its own, some in
// each turn.
func (p Page) Top(o Order, most int) {
	if o >= ordersEnd || most < 1 {
		p.Answer(nil)
		return
	}
	loops := p.Sessions.Rooms.Loops
	tops, left := make([]topHeap, len(loops)), new(atomic.Int32)
	left.Store(int32(len(loops)))
	for i, l := range loops {
		look := lookThrough(LoopOf(l.Base()), o, most, &tops[i])
		l.PostCall(func() {
			l.Work(func(until int64) bool {
				if !look(until) {
					return false
				}
				if left.Add(-1) == 0 {
					p.Later(func() { p.Answer(merged(tops, most)) })
				}
				return true
			})
		})
	}
}

// lookThrough makes a job: it gathers the first connections of a loop.
func lookThrough(l *Loop, o Order, most int, top *topHeap) func(until int64) (done bool) {
	slot := uint32(0)
	return func(until int64) bool {
		for {
			n := 0
			next, more := l.Slab.From(slot, func(t *turn.Conn) bool {
				if c := ConnOf(t); c.IsOpen() {
					top.keep(fleet.TopRow{By: o.figure(c, l.Now), Place: c.Place()}, most)
				}
				n++
				return n < lookedAtOnce
			})
			if slot = next; !more {
				return true
			}
			if l.Ground.Clock() > until {
				return false
			}
		}
	}
}

// merged encodes the first rows of all loops.
func merged(tops []topHeap, most int) (b []byte) {
	var all []fleet.TopRow
	for _, h := range tops {
		all = append(all, h...)
	}
	slices.SortFunc(all, CompareTop)
	for _, row := range all[:min(len(all), most)] {
		b = row.AppendTo(b)
	}
	return b
}
