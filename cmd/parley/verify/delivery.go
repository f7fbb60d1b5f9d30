package verify

import (
	"bytes"
	"fmt"
	"slices"
	"time"
)

// The messages that each member must get.
//
// A connection's messages are numbered, over all rooms; those of one room form a lane. A member of the room that
// read message j of a lane must have read all earlier ones that were sent after it had read `joined`: one publisher's
// messages come in order. An earlier message that is missing is a hole. A hole that is filled later was a message out of
// order. A hole that remains at the quiet point was a lost message, if the server had accepted it. The last messages of a
// lane, behind which no other came, are checked at the quiet point.
//
// Settled messages are forgotten, so that memory is bounded by the traffic between two quiet points.

// fate is the outcome of a published message.
type fate uint8

const (
	pending   fate = iota // no answer yet
	accepted              // the server has accepted it
	refused               // the server has refused it: no member may get it
	uncertain             // the connection ended before the answer, or its server was killed
	repeated              // a backend sent it again to another api process: it may come twice, or not at all
)

// record is one published message.
//
// Owner: its publisher's log.
type record struct {
	room  *room
	place int // in the room's lane
	fate  fate
	bulk  bool   // it is a large one
	sent  uint64 // in the order of events
	acked uint64

	numbered bool // it is to take a number; place is of no use then
	when     time.Time
	key      string // for conflation
	copies   int    // how often it was sent, under one idempotency key
}

// publishing are the messages of a connection that are not settled.
type publishing struct {
	base int // the number of log[0]
	log  []record
}

func (p *publishing) next() int { return p.base + len(p.log) }

// at is message n; nil if it is settled, or was never sent.
func (p *publishing) at(n int) *record {
	if n < p.base || n >= p.next() {
		return nil
	}
	return &p.log[n-p.base]
}

// lane is the list of messages that one connection has published in one room.
type lane struct {
	base    int   // the place of numbers[0]
	numbers []int // messages, by place
}

// hole is a message that was overtaken.
type hole struct {
	reader, publisher *conn
	n                 int
}

// publish sends the next message into a room, and expects the answer; want are error codes, one of which it must be.
func (c *conn) publish(r *room, want ...string) *request {
	k := c.k
	if c.past != nil && c.actor.rng.IntN(ephemeralEach) > 0 {
		return c.past.publish(r, want)
	}
	l := r.lanes[c]
	if l == nil {
		l = &lane{}
		r.lanes[c] = l
	}
	n := c.sent.next()
	k.evt++
	c.sent.log = append(c.sent.log, record{room: r, place: l.base + len(l.numbers), sent: k.evt, bulk: k.bulky})
	l.numbers = append(l.numbers, n)
	payload := c.payloadOf(n)
	if !k.speaks.refs {
		c.note(step{what: "publishes", room: r, n: int64(n)})
		c.say(k.speaks.publish(r.name, payload, nil))
		return nil
	}
	q := c.expect(&request{kind: "broadcast", room: r, n: n, want: want})
	c.note(step{what: "publishes", room: r, n: int64(n)})
	text := k.speaks.publish(r.name, payload, q.ref)
	if k.remembers() {
		text = append(text[:len(text)-1], `,"history":false}`...)
	}
	c.say(text)
	return q
}

// relayed checks a message from a room.
func (c *conn) relayed(m *body) {
	k := c.k
	k.report.Checked["deliveries"]++
	complain := func(kind, format string, args ...any) {
		k.found(kind, k.byName[m.Room], []*conn{c}, fmt.Sprintf("%v reads ", c)+fmt.Sprintf(format, args...))
	}
	serial, n, ok := payloadNames(m.Payload, k.run)
	if !ok {
		complain("altered", "data that no client sent: %.100q", m.Payload)
		return
	}
	if s := k.api.seriesOf(serial); s != nil {
		s.deliver(c, m, n)
		return
	}
	r, p := k.byName[m.Room], k.bySerial[serial]
	switch {
	case r == nil:
		complain("leak", "a message of room %q, which is none of this run", m.Room)
		return
	case p == nil && c.mode == frozen:
		return
	case p == nil && serial <= k.serial:
		complain("twice", "message %d of a connection whose messages were all settled (%d), in %s", n, serial, r.name)
		return
	case p == nil || n >= p.sent.next():
		complain("altered", "message %d of connection %d, which no client sent", n, serial)
		return
	}
	rec := p.sent.at(n)
	if rec != nil && rec.numbered {
		k.found("number", r, []*conn{c, p}, fmt.Sprintf("%v reads message %d of %v in %s without a number", c, n, p, r.name))
		return
	}
	if rec == nil {
		if c.mode == frozen {
			return // it reads now messages that came while it was frozen
		}
		k.found("twice", r, []*conn{c, p}, fmt.Sprintf("%v reads message %d of %v in %s, which was settled before", c, n, p, r.name))
		return
	}
	c.note(step{what: "reads message of", room: r, from: p, n: int64(n)})
	payload := p.payloadOf(n)
	if !bytes.Equal(m.Payload, payload) || k.speaks.greets && string(m.From) != p.id {
		k.found("altered", r, []*conn{c, p}, fmt.Sprintf("%v reads message %d of %v changed: from %s (%s), data %.100q, sent %.100q",
			c, n, p, m.From, p.id, m.Payload, payload))
	}
	if s := c.mayRead(r, p, n); s != nil {
		s.inOrder(p, n, rec)
	}
}

// mayRead checks that a message may reach c, and returns the stay in which c reads it.
func (c *conn) mayRead(r *room, p *conn, n int) *stay {
	rec, s := p.sent.at(n), c.stays[r]
	complain := func(kind, format string, args ...any) *stay {
		c.k.found(kind, r, []*conn{c, p}, fmt.Sprintf("%v reads message %d of %v in %s, ", c, n, p, r.name)+fmt.Sprintf(format, args...))
		return nil
	}
	switch {
	case rec.room != r:
		return complain("leak", "which was published in %s", rec.room.name)
	case rec.fate == refused:
		return complain("leak", "which was refused")
	case p == c:
		return complain("own", "its own")
	case s == nil:
		return complain("leak", "where it is no member")
	case s.state == out:
		return complain("late", "which it has left")
	case s.state == joining:
		return complain("early", "before it is told that it joined")
	case c.k.opt.ExactCounts && rec.acked != 0 && rec.acked < s.asked:
		return complain("older", "which was accepted before it asked to join")
	}
	return s
}

// inOrder checks that a message comes once and in its publisher's order, and records the messages that it has overtaken.
func (s *stay) inOrder(p *conn, n int, rec *record) {
	c, k := s.conn, s.conn.k
	l := s.room.lanes[p]
	expected, known := s.next[p]
	if !known {
		expected = l.after(p, s.joined)
	}
	if last, some := c.seen[p]; some && n <= last {
		h := hole{c, p, n}
		_, overtaken := k.holes[h]
		delete(k.holes, h)
		kind, text := "twice", "again"
		if overtaken || rec.place >= expected {
			kind, text = "order", fmt.Sprintf("after message %d", last)
		}
		k.found(kind, s.room, []*conn{c, p}, fmt.Sprintf("%v reads message %d of %v in %s %s", c, n, p, s.room.name, text))
		return
	}
	c.seen[p] = n
	for place := expected; place < rec.place; place++ {
		missed := l.numbers[place-l.base]
		if p.sent.at(missed).fate != refused {
			k.holes[hole{c, p, missed}] = s
		}
	}
	s.next[p] = rec.place + 1
}

// after is the place of a lane's first message that was sent after an event.
func (l *lane) after(p *conn, evt uint64) int {
	i, _ := slices.BinarySearchFunc(l.numbers, evt, func(n int, evt uint64) int {
		if p.sent.at(n).sent <= evt {
			return -1
		}
		return 1
	})
	return l.base + i
}

// owed finds a message that s should have read by the quiet point.
func (s *stay) owed() (p *conn, n int, is bool) {
	for p, l := range s.room.lanes {
		if p == s.conn {
			continue
		}
		place, known := s.next[p]
		if !known {
			place = l.after(p, s.joined)
		}
		for ; place < l.base+len(l.numbers); place++ {
			n := l.numbers[place-l.base]
			if s.conn.k.promised(p.sent.at(n)) {
				return p, n, true
			}
		}
	}
	return nil, 0, false
}

// promised reports whether a message must reach the members. In a dialect without answers, a message counts as
// accepted while its publisher's connection lives.
func (k *checker) promised(rec *record) bool {
	return rec.fate == accepted || rec.fate == pending && !k.speaks.refs
}

// lostHoles reports messages that were overtaken and never came.
func (k *checker) lostHoles() {
	for h, s := range k.holes {
		if rec := h.publisher.sent.at(h.n); rec != nil && k.promised(rec) {
			k.found("lost", s.room, []*conn{h.reader, h.publisher}, fmt.Sprintf("%v never reads message %d of %v in %s, but later ones",
				h.reader, h.n, h.publisher, s.room.name))
		}
	}
	clear(k.holes)
}

// settleDeliveries forgets all messages: each has come or was reported.
func (k *checker) settleDeliveries() {
	for _, r := range k.rooms {
		for p, l := range r.lanes {
			if p.phase == ended {
				delete(r.lanes, p)
				continue
			}
			l.base += len(l.numbers)
			l.numbers = l.numbers[:0]
		}
		for s := range r.members {
			clear(s.next)
		}
	}
	for serial, c := range k.bySerial {
		c.sent.base += len(c.sent.log)
		c.sent.log = c.sent.log[:0]
		clear(c.seen)
		if c.phase == ended && c.gone.Before(k.settled) { // kept for one quiet point: late messages may name it
			delete(k.bySerial, serial)
			delete(k.byID, c.id)
		}
	}
}
