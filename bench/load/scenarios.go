//go:build linux

package load

import (
	"fmt"
	"time"
)

// room is a room of the load.
//
// Owner: the generator's thread.
type room struct {
	name    string
	members []*conn
	round   uint64 // messages published
	whole   uint64 // messages that everybody has
	counts  []int  // by number modulo the window: members that have not got it yet
}

// rooms has one member of each room publish; a message is done when every other member has it.
//
// Owner: the generator's thread.
type rooms struct {
	pad      []byte
	frame    []byte
	held     []*room // would be too far ahead
	inFlight int
	slowest  uint64
}

func (s *rooms) begin(g *generator) error {
	s.pad = padding(g.plan.Size)
	for _, r := range g.rooms {
		if len(r.members) < 2 {
			return fmt.Errorf("room %s has %d members", r.name, len(r.members))
		}
		r.counts = make([]int, max(1, g.plan.Window))
	}
	for range g.plan.Window {
		for _, r := range g.rooms {
			s.publish(g, r)
		}
	}
	return nil
}

// publish sends the next message of a room, unless the room is too far ahead of the others.
func (s *rooms) publish(g *generator, r *room) {
	if !g.plan.Unfair && r.round >= s.slowest+uint64(g.plan.Window)+leadMax {
		s.held = append(s.held, r)
		return
	}
	payload := fmt.Appendf(nil, `{"type":"broadcast","room":%q,"data":{"bench_n":"`, r.name)
	payload = append(appendNumber(payload, r.round), `","pad":"`...)
	payload = append(append(payload, s.pad...), `"}}`...)
	s.frame = appendFrame(s.frame[:0], 1, payload)
	r.counts[r.round%uint64(len(r.counts))] = len(r.members) - 1
	r.round++
	s.inFlight++
	if err := r.members[0].write(s.frame); err != nil {
		g.failed = err
	}
}

func (s *rooms) message(g *generator, c *conn, n uint64, _ []byte) {
	if n != c.next {
		g.failed = fmt.Errorf("client %d in %s gets message %d, %d was next", c.index, c.room.name, n, c.next)
		return
	}
	c.next++
	g.deliveries++
	r := c.room
	at := n % uint64(len(r.counts))
	r.counts[at]--
	if r.counts[at] > 0 {
		return
	}
	s.inFlight--
	r.whole++
	if g.plan.Window > 0 {
		s.publish(g, r)
	}
}

// poll lets those go on that were held.
func (s *rooms) poll(g *generator) {
	if len(s.held) == 0 || g.plan.Window == 0 {
		return
	}
	s.slowest = g.rooms[0].whole
	first := s.slowest
	for _, r := range g.rooms {
		s.slowest = min(s.slowest, r.whole)
		first = max(first, r.whole)
	}
	g.result.Lead = max(g.result.Lead, first-s.slowest)
	held := s.held
	s.held = nil
	for _, r := range held {
		s.publish(g, r)
	}
}

func (s *rooms) drained(*generator) bool { return s.inFlight == 0 }

// echo sends numbered messages and expects each back, in order: a window of them for each client, or, at a rate, a
// window at a time for one client after the other.
//
// Owner: the generator's thread.
type echo struct {
	frame   []byte // masked, with the number 0
	at      int    // of the number's digits
	length  int    // of a payload
	out     []byte
	owed    int
	begun   time.Time
	planned uint64 // open loop: windows sent
}

func (s *echo) begin(g *generator) error {
	payload := appendNumber(append([]byte(nil), marker...), 0)
	payload = append(append(payload, '"'), padding(max(0, g.plan.Size-len(payload)-1))...)
	s.frame = appendFrame(nil, 1, payload)
	s.at, s.length = len(s.frame)-len(payload)+len(marker), len(payload)
	if g.plan.Rate > 0 {
		s.begun = time.Now()
		return nil
	}
	for _, c := range g.conns {
		s.send(g, c, g.plan.Window)
	}
	return nil
}

// send writes some messages of a client at once.
func (s *echo) send(g *generator, c *conn, n int) {
	s.out = s.out[:0]
	for range n {
		at := len(s.out) + s.at
		s.out = append(s.out, s.frame...)
		number := c.sent
		for i := digits - 1; i >= 0; i-- {
			s.out[at+i] = byte('0'+number%10) ^ mask[(len(marker)+i)%4]
			number /= 10
		}
		c.sent++
	}
	s.owed += n
	if err := c.write(s.out); err != nil {
		g.failed = err
	}
}

func (s *echo) message(g *generator, c *conn, n uint64, payload []byte) {
	if n != c.next || len(payload) != s.length {
		g.failed = fmt.Errorf("client %d gets echo %d of %d bytes, %d was next", c.index, n, len(payload), c.next)
		return
	}
	c.next++
	g.deliveries++
	s.owed--
	if g.plan.Rate > 0 {
		if h := g.result.histogram; h != nil {
			k := uint64(c.index) + n/uint64(g.window)*uint64(len(g.conns))
			h.RecordValue(max(1, g.now.Sub(s.timeOf(g, k)).Microseconds()))
		}
		return
	}
	if c.due == 0 {
		g.dueConns = append(g.dueConns, c)
	}
	c.due++
}

// timeOf is when window k is planned for.
func (s *echo) timeOf(g *generator, k uint64) time.Time {
	return s.begun.Add(time.Duration(float64(k) * float64(g.window) / g.plan.Rate * 1e9))
}

// poll sends what is due: as many as have come back, or as many as are planned for by now.
func (s *echo) poll(g *generator) {
	if g.plan.Window == 0 {
		g.dueConns = g.dueConns[:0]
		return
	}
	for _, c := range g.dueConns {
		n := c.due
		c.due = 0
		s.send(g, c, n)
	}
	g.dueConns = g.dueConns[:0]
	for g.plan.Rate > 0 && !s.begun.IsZero() && !g.now.Before(s.timeOf(g, s.planned)) {
		s.send(g, g.conns[s.planned%uint64(len(g.conns))], g.window)
		s.planned++
	}
}

func (s *echo) drained(*generator) bool { return s.owed == 0 }

// idle does nothing.
type idle struct{}

func (*idle) begin(*generator) error                    { return nil }
func (*idle) message(*generator, *conn, uint64, []byte) {}
func (*idle) poll(*generator)                           {}
func (*idle) drained(*generator) bool                   { return true }

func padding(n int) []byte {
	pad := make([]byte, n)
	for i := range pad {
		pad[i] = 'a' + byte(i%26)
	}
	return pad
}
