//go:build linux

package load

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// room is a room of the load.
//
// Owner: the generator's thread.
type room struct {
	name      string
	members   []*conn // ready ones that read
	receivers int     // of a message
	first     *publisher
}

// publisher is a member that publishes.
//
// Owner: the generator's thread.
type publisher struct {
	conn   *conn
	room   *room
	index  uint64 // among all publishers
	prefix uint64 // of its messages' numbers: its index within the room, times numbersEach
	round  uint64 // messages published
	whole  uint64 // messages that all members have
	counts []int  // by number modulo the window: members that do not have it yet
}

// numbersEach is the most messages of a publisher. A message's number contains its publisher's.
const numbersEach = 10_000_000

// rooms makes members publish; a message is done when every other member has it. Closed loop: a window of messages for
// each publisher; open loop: a window at once for one publisher after the other, as planned.
//
// Owner: the generator's thread.
type rooms struct {
	pad        []byte
	frame      []byte
	publishers []*publisher
	of         map[*room][]*publisher
	held       []*publisher // waiting: they would be too far ahead
	inFlight   int
	slowest    uint64
	begun      time.Time
	planned    uint64 // open loop: windows sent
}

// openWindow is the most messages of a publisher under way in an open loop; with more, the run is void.
const openWindow = 1 << 14

func (s *rooms) begin(g *generator) error {
	s.pad = padding(g.plan.Size)
	s.of = map[*room][]*publisher{}
	window := g.plan.Window
	if g.plan.Rate > 0 {
		window = openWindow
	}
	for _, r := range g.rooms {
		r.receivers = len(r.members)
		if !g.dialect.own {
			r.receivers--
		}
		if len(r.members) < max(2, g.plan.Publishers) {
			return fmt.Errorf("room %s has %d members", r.name, len(r.members))
		}
		for i := range max(1, g.plan.Publishers) {
			p := &publisher{conn: r.members[i], room: r, index: uint64(len(s.publishers)), prefix: uint64(i) * numbersEach, counts: make([]int, max(1, window))}
			s.publishers, s.of[r] = append(s.publishers, p), append(s.of[r], p)
		}
	}
	if g.plan.Publishers > 1 {
		for _, c := range g.conns {
			c.nexts = make([]uint64, g.plan.Publishers)
		}
	}
	for _, r := range g.rooms {
		r.first = s.of[r][0]
	}
	s.begun = time.Now()
	if g.plan.Rate > 0 {
		return nil
	}
	for range g.plan.Window / s.each(g) {
		for _, p := range s.publishers {
			s.publish(g, p)
		}
	}
	return nil
}

// each is the number of messages that a publisher sends at once.
func (s *rooms) each(g *generator) int {
	if g.plan.Together {
		return g.window
	}
	return 1
}

// publish sends a publisher's next messages, or holds the publisher if it is too far ahead of the others.
func (s *rooms) publish(g *generator, p *publisher) {
	each := s.each(g)
	if !g.plan.Unfair && g.plan.Rate == 0 && p.round >= s.slowest+uint64(g.window+leadMax*each) {
		s.held = append(s.held, p)
		return
	}
	s.frame = s.frame[:0]
	for range each {
		s.frame = s.append(g, s.frame, p)
	}
	if err := p.conn.write(s.frame); err != nil {
		g.failed = err
	}
}

// append makes a publisher's next message.
func (s *rooms) append(g *generator, dst []byte, p *publisher) []byte {
	data := append(appendNumber([]byte(`{"bench_n":"`), p.prefix+p.round), `","pad":"`...)
	data = append(append(data, s.pad...), `"}`...)
	at := &p.counts[p.round%uint64(len(p.counts))]
	if *at > 0 {
		g.failed = errors.New("the server is too far behind")
	}
	*at = p.room.receivers
	p.round++
	s.inFlight++
	return appendFrame(dst, 1, g.dialect.publish(p.room.name, data))
}

func (s *rooms) message(g *generator, c *conn, n uint64, _ []byte) {
	p, next := c.room.first, &c.next
	if n >= numbersEach {
		i := n / numbersEach
		if int(i) >= len(c.nexts) {
			g.failed = fmt.Errorf("client %d gets message %d, which no client sent", c.index, n)
			return
		}
		p, next = s.of[c.room][i], &c.nexts[i]
		n %= numbersEach
	}
	if n != *next {
		g.failed = fmt.Errorf("client %d in %s gets message %d, %d was next", c.index, c.room.name, n, *next)
		return
	}
	*next++
	g.deliveries++
	if h := g.result.histogram; h != nil && g.plan.Rate > 0 {
		k := n/uint64(g.window)*uint64(len(s.publishers)) + p.index
		h.RecordValue(max(1, g.now.Sub(g.plan.timeOf(s.begun, k)).Microseconds()))
	}
	at := n % uint64(len(p.counts))
	p.counts[at]--
	if p.counts[at] > 0 {
		return
	}
	s.inFlight--
	p.whole++
	if g.plan.Rate == 0 && g.plan.Window > 0 && (!g.plan.Together || p.whole == p.round) {
		s.publish(g, p)
	}
}

// timeOf is the planned time of window k.
func (p *Plan) timeOf(begun time.Time, k uint64) time.Time {
	return begun.Add(time.Duration(float64(k) * p.every * 1e9))
}

// poll sends the messages that are planned until now, and lets held publishers go on.
func (s *rooms) poll(g *generator) {
	if g.plan.Window == 0 {
		return
	}
	for g.plan.Rate > 0 && g.failed == nil && !s.begun.IsZero() && !g.now.Before(g.plan.timeOf(s.begun, s.planned)) {
		p := s.publishers[s.planned%uint64(len(s.publishers))]
		s.frame = s.frame[:0]
		for range g.plan.Window {
			s.frame = s.append(g, s.frame, p)
		}
		if err := p.conn.write(s.frame); err != nil {
			g.failed = err
		}
		s.planned++
	}
	if len(s.held) == 0 {
		return
	}
	s.slowest = s.publishers[0].whole
	first := s.slowest
	for _, p := range s.publishers {
		s.slowest, first = min(s.slowest, p.whole), max(first, p.whole)
	}
	g.result.Lead = max(g.result.Lead, first-s.slowest)
	held := s.held
	s.held = nil
	for _, p := range held {
		s.publish(g, p)
	}
}

func (s *rooms) drained(*generator) bool { return s.inFlight == 0 }

// stall makes a client that never reads again, with a small receive buffer in the kernel.
func (g *generator) stall(c *conn) error {
	unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4096)
	return unix.EpollCtl(g.epoll, unix.EPOLL_CTL_DEL, c.fd, nil)
}

// idle sends no messages.
type idle struct{}

func (*idle) begin(*generator) error                    { return nil }
func (*idle) message(*generator, *conn, uint64, []byte) {}
func (*idle) poll(*generator)                           {}
func (*idle) drained(*generator) bool                   { return true }
