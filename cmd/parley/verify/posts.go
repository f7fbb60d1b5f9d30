package verify

import (
	"bytes"
	"fmt"
	"time"

	"github.com/parleyd/parley/cmd/parley/verify/history"
)

// The messages of backends. A backend numbers its messages; as long as all of them are answered they are one series, which
// every member reads in order. A message goes to rooms, to a user or to a connection. When it is sent, the checker
// notes the connections that must get it: those that are certainly among its receivers, and are still when the message has had
// its time. If such a connection reads a later message of the series first, it has missed the message.

// An audience is the set of receivers of a message: rooms, a user or a connection.
//
// Owner: immutable.
type audience struct {
	field string // of the request
	rooms []*room
	user  string
	conn  *conn
}

// post is one message of a backend.
//
// Owner: its series.
type post struct {
	series  *series
	by      *ask
	n       int
	to      audience
	typed   bool  // it is an object with a type of its own, and not data
	except  *conn // does not get it
	fate    fate
	sent    uint64 // in the order of events
	when    time.Time
	delayed bool            // the bus was away when the server accepted it
	owed    map[*conn]*stay // must get it while they stay
	got     map[*conn]bool  // have it
	passed  map[*conn]bool  // have read a later one first
}

// series are the messages of a backend since its latest unanswered request.
//
// Owner: the checker.
type series struct {
	serial int
	name   string
	reads  string // for traces
	base   int    // the number of log[0]
	log    []*post
	ended  bool
	quiet  int // quiet points since its end
}

// newSeries begins a series.
func (x *backends) newSeries(b *backend) *series {
	k := b.k
	k.serial++
	name := fmt.Sprintf("backend%d/%d", b.index, k.serial)
	s := &series{serial: k.serial, name: name, reads: "reads message of " + name}
	x.series[s.serial] = s
	return s
}

// seriesOf is the series with a number; nil if there is none.
func (x *backends) seriesOf(serial int) *series {
	if x == nil {
		return nil
	}
	return x.series[serial]
}

func (s *series) next() int { return s.base + len(s.log) }

// at is message n; nil if it is settled, or was never sent.
func (s *series) at(n int) *post {
	if s == nil || n < s.base || n >= s.next() {
		return nil
	}
	return s.log[n-s.base]
}

// post adds a message to the series.
func (s *series) post(k *checker, to audience, except *conn) *post {
	k.evt++
	p := &post{series: s, n: s.next(), to: to, except: except, sent: k.evt, when: k.now, owed: map[*conn]*stay{}, got: map[*conn]bool{}, passed: map[*conn]bool{}}
	s.log = append(s.log, p)
	if p.numbered(k) {
		return p // the numbers tell who must get it
	}
	owe := func(c *conn, of *stay) {
		if c != except && c.sure() {
			p.owed[c] = of
		}
	}
	for _, r := range to.rooms {
		for m := range r.members {
			if m.certain {
				owe(m.conn, m)
			}
		}
	}
	if to.conn != nil {
		owe(to.conn, nil)
	}
	for _, a := range k.api.byUser[to.user] {
		for c := range a.conns {
			owe(c, nil)
		}
	}
	return p
}

// payload is the data of the message. It is good until the next call.
func (p *post) payload(k *checker) []byte {
	k.payload = appendPayload(k.payload[:0], messageName{k.run, p.series.serial, p.n}, (p.series.serial*7+p.n*13)%padMax)
	return k.payload
}

// keeps reports whether a connection that was to get a message is still to get it. of is its membership then, nil for none.
func keeps(c *conn, of *stay) bool {
	return c.sure() && (of == nil || of.state == in && c.stays[of.room] == of)
}

// reach says why a message must not reach a connection: the kind of the finding and the words; "" if it may.
func (p *post) reach(c *conn) (kind, why string) {
	switch {
	case p.fate == refused:
		return "leak", "which was refused"
	case p.except == c:
		return "leak", "from which it was excepted"
	case p.to.conn == c, p.to.user != "" && p.to.user == c.actor.user:
		return "", ""
	}
	kind, why = "leak", "which is not for it"
	for _, r := range p.to.rooms {
		s := c.stays[r]
		switch {
		case s == nil:
		case s.state == in || s.state == leaving:
			return "", ""
		case s.state == joining:
			kind, why = "early", "before it is told that it joined"
		case kind == "leak":
			kind, why = "late", "whose room it has left"
		}
	}
	return kind, why
}

// deliver checks message n of the series, which c reads.
func (s *series) deliver(c *conn, m *body, n int) {
	k := c.k
	k.report.Checked["deliveries of backends"]++
	p := s.at(n)
	if p == nil {
		if c.mode != frozen { // else it reads now messages that came while it was frozen
			k.found("twice", nil, []*conn{c}, fmt.Sprintf("%v reads message %d of %s, which was settled before or never sent", c, n, s.name))
		}
		return
	}
	var r *room
	if len(p.to.rooms) > 0 {
		r = p.to.rooms[0]
	}
	c.note(step{what: s.reads, room: r, n: int64(n)})
	complain := func(kind, format string, args ...any) {
		k.found(kind, r, []*conn{c}, fmt.Sprintf("%v reads message %d of %s, to %s in %s, ", c, n, s.name, p.to.field, p.by)+fmt.Sprintf(format, args...))
	}
	if p.numbered(k) {
		complain("number", "without a number")
		return
	}
	typ, name := p.typ(), ""
	if r != nil && !p.typed {
		name = r.name
	}
	if !bytes.Equal(m.Payload, p.payload(k)) || m.Type != typ || m.Room != name || m.From != "" {
		complain("altered", "changed: type %s, room %q, from %q, data %.100q", m.Type, m.Room, m.From, m.Payload)
	}
	if kind, why := p.reach(c); kind != "" {
		complain(kind, "%s", why)
		return
	}
	p.take(c, complain)
}

// take checks that a message comes once and in its backend's order, and records the messages that it has overtaken.
func (p *post) take(c *conn, complain func(kind, format string, args ...any)) {
	if p.fate == repeated {
		return
	}
	last, some := c.heardOf[p.series]
	switch {
	case p.got[c]:
		complain("twice", "again")
		return
	case some && p.n < last:
		complain("order", "after message %d", last)
		delete(p.passed, c)
		delete(p.owed, c)
		p.got[c] = true
		return
	}
	p.got[c] = true
	delete(p.owed, c)
	c.heardOf[p.series] = p.n
	if !some {
		last = p.series.base - 1
	}
	for n := last + 1; n < p.n; n++ {
		q := p.series.at(n)
		if q == nil {
			continue
		}
		if of, owed := q.owed[c]; owed && keeps(c, of) {
			delete(q.owed, c)
			q.passed[c] = true
		}
	}
}

// owed finds a message of a backend that a connection should have read by the quiet point.
func (x *backends) owed() (p *post, c *conn) {
	if x == nil {
		return nil, nil
	}
	for _, s := range x.series {
		for _, p := range s.log {
			if p.fate != accepted {
				continue
			}
			for c, of := range p.owed {
				if keeps(c, of) {
					return p, c
				}
				delete(p.owed, c)
			}
		}
	}
	return nil, nil
}

// settle reports the messages that were overtaken and never came, and forgets all.
func (x *backends) settle(k *checker) {
	if x == nil {
		return
	}
	for serial, s := range x.series {
		for _, p := range s.log {
			for c := range p.passed {
				if p.fate == accepted {
					k.found("lost", nil, []*conn{c}, fmt.Sprintf("%v never reads message %d of %s, to %s in %s, but later ones", c, p.n, s.name, p.to.field, p.by))
				}
			}
		}
		s.base += len(s.log)
		s.log = s.log[:0]
		if s.ended {
			if s.quiet++; s.quiet > seriesKept {
				delete(x.series, serial)
			}
		}
	}
	for c := range k.living {
		clear(c.heardOf)
	}
}

// numbered reports whether a message is to take a number, in each of its rooms.
func (p *post) numbered(k *checker) bool { return k.remembers() && len(p.to.rooms) > 0 }

// typ is the type of the message.
func (p *post) typ() string {
	if p.typed {
		return "verify"
	}
	return "broadcast"
}

// known is what is known of the message in a room with history. p is nil if it is settled.
func (p *post) known(room string) history.Message {
	if p == nil {
		return history.Message{Backend: true}
	}
	m := history.Message{Known: true, Backend: true, Room: p.to.field, Elsewhere: true, Sent: p.sent, When: p.when, Refused: p.fate == refused, Repeated: p.fate == repeated}
	for _, r := range p.to.rooms {
		m.Elsewhere = m.Elsewhere && r.name != room
	}
	if p.except != nil {
		m.Except = p.except.serial
	}
	return m
}

// takesNumber checks the position that the answer to a publish tells, and that a refused message has none.
func (b *backend) takesNumber(a *ask, p *post, m *apiAnswer) {
	of := history.Name{Serial: p.series.serial, N: p.n}
	switch {
	case !p.numbered(b.k):
	case p.fate == refused && len(p.to.rooms) > 1 && m.Code == "overloaded":
		p.fate = uncertain // the first of its rooms may have taken it
	case p.fate == refused:
		for _, r := range p.to.rooms {
			r.history.Refused(b, of)
		}
	case p.fate == accepted && len(p.to.rooms) == 1 && m.Seq == nil:
		b.complain(a, "wants a number")
	case p.fate == accepted && len(p.to.rooms) == 1:
		p.to.rooms[0].history.Numbers(b, history.Position{Seq: *m.Seq, Epoch: m.Epoch}, of)
	}
}

// seriesKept is for how many quiet points an ended series is known: late messages may name it.
const seriesKept = 2

// doubtDelayed makes messages uncertain that the api process alone may have had when it was killed.
func (x *backends) doubtDelayed() {
	for _, s := range x.series {
		for _, p := range s.log {
			if p.fate == accepted && p.delayed {
				p.fate = uncertain
			}
		}
	}
}
