//go:build linux

package load

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// spread is one process's part of rooms whose members are in several processes. Members publish as planned, in an open
// loop: one after the other, or, with Together, one in each room at once. A message contains its planned time and its
// publisher's worker, so that its receiver can tell its latency, and whether it came over the bus.
//
// Owner: the generator's thread.
type spread struct {
	pad        []byte
	frame      []byte
	publishers []*sender
	every      float64 // nanoseconds from one planned time to the next
	offset     int64   // of the monotonic clock from zero
	zero       time.Time
	begun      int64
	from       int64 // messages planned in [from, until) are measured
	until      int64 // 0: not begun, or over
	planned    uint64

	total   uint64
	local   *hdrhistogram.Histogram // microseconds
	away    *hdrhistogram.Histogram
	reached map[uint64]Reach // with Together
}

// sender is a member that publishes.
//
// Owner: the generator's thread.
type sender struct {
	conn  *conn
	room  int
	index int // among the room's publishers of all parts
	round uint64
}

// A message's stamp follows its number.
var (
	timeKey   = []byte(`","bench_t":"`)
	workerKey = []byte(`","bench_w":"`)
)

const (
	timeDigits   = 19
	workerDigits = 5
)

func newSpread(p Plan) *spread {
	s := &spread{pad: padding(p.Size), zero: time.Now(), reached: map[uint64]Reach{},
		local: hdrhistogram.New(1, 60_000_000, 3), away: hdrhistogram.New(1, 60_000_000, 3)}
	s.offset = monotonic()
	return s
}

// clock is the monotonic clock at t, without asking the kernel again.
func (s *spread) clock(t time.Time) int64 { return s.offset + int64(t.Sub(s.zero)) }

// publishes reports whether this part does: all do, but with Together only the first, which times each round.
func (p *Plan) publishes() bool { return p.Part == 0 || !p.Together }

func (s *spread) begin(g *generator) error {
	each := max(1, g.plan.Publishers)
	for _, c := range g.conns {
		c.nexts = make([]uint64, each*g.plan.Parts)
	}
	if !g.plan.publishes() {
		return nil
	}
	for i := range each { // a room's second publisher comes after every room's first
		for at, r := range g.rooms {
			if len(r.members) <= i {
				return fmt.Errorf("room %s has %d members", r.name, len(r.members))
			}
			s.publishers = append(s.publishers, &sender{conn: r.members[i], room: at, index: g.plan.Part*each + i})
		}
	}
	return nil
}

func (s *spread) start(g *generator, begin int64) {
	atOnce, parts := 1, g.plan.Parts
	if g.plan.Together {
		atOnce, parts = len(s.publishers), 1
	}
	g.busy = 0
	s.every = float64(atOnce*parts) / g.plan.Rate * 1e9
	s.from = begin + int64(g.plan.Warmup)
	s.until = s.from + int64(g.plan.Measure)
	s.begun = begin
	if !g.plan.Together {
		s.begun += int64(s.every / float64(parts) * float64(g.plan.Part)) // parts take turns
	}
}

// poll publishes the messages that are planned until now.
func (s *spread) poll(g *generator) {
	if s.until == 0 || len(s.publishers) == 0 {
		return
	}
	for g.failed == nil {
		at := s.begun + int64(float64(s.planned)*s.every)
		if at >= s.until || s.clock(g.now) < at {
			return
		}
		if g.plan.Together {
			for _, p := range s.publishers {
				s.publish(g, p, at)
			}
		} else {
			s.publish(g, s.publishers[s.planned%uint64(len(s.publishers))], at)
		}
		s.planned++
	}
}

func (s *spread) publish(g *generator, p *sender, at int64) {
	data := appendNumber([]byte(`{"bench_n":"`), uint64(p.index)*numbersEach+p.round)
	data = fmt.Appendf(append(data, timeKey...), "%0*d", timeDigits, at)
	data = fmt.Appendf(append(data, workerKey...), "%0*d", workerDigits, p.conn.worker)
	data = append(append(append(data, `","pad":"`...), s.pad...), `"}`...)
	p.round++
	s.frame = appendFrame(s.frame[:0], 1, g.dialect.publish(g.rooms[p.room].name, data))
	if err := p.conn.write(s.frame); err != nil {
		g.failed = err
	}
}

var errStamp = errors.New("a message has lost its stamp")

// stamp reads a message's planned time, and the worker of its publisher.
func (c *conn) stamp(payload []byte) (at int64, worker uint16, err error) {
	rest := payload[c.offset+digits:]
	if len(rest) < len(timeKey)+timeDigits+len(workerKey)+workerDigits || !bytes.HasPrefix(rest, timeKey) {
		return 0, 0, errStamp
	}
	rest = rest[len(timeKey):]
	for _, d := range rest[:timeDigits] {
		at = at*10 + int64(d-'0')
	}
	rest = rest[timeDigits+len(workerKey):]
	for _, d := range rest[:workerDigits] {
		worker = worker*10 + uint16(d-'0')
	}
	return at, worker, nil
}

func (s *spread) message(g *generator, c *conn, n uint64, payload []byte) {
	k := n / numbersEach
	n %= numbersEach
	if k >= uint64(len(c.nexts)) || n != c.nexts[k] {
		g.failed = fmt.Errorf("client %d gets message %d of publisher %d, %v were next", c.index, n, k, c.nexts)
		return
	}
	c.nexts[k]++
	s.total++
	at, worker, err := c.stamp(payload)
	if err != nil {
		g.failed = err
		return
	}
	if at < s.from {
		return
	}
	g.deliveries++
	took := s.clock(g.now) - at
	h := s.away
	if worker == c.worker {
		h = s.local
	}
	h.RecordValue(max(1, took/1000))
	if g.plan.Together {
		r := s.reached[n]
		s.reached[n] = Reach{r.Arrived + 1, max(r.Last, took)}
	}
}

// answer voids the run at an error: a refused message would be missing.
func (s *spread) answer(g *generator, c *conn, payload []byte) {
	if bytes.Contains(payload, []byte(`"type":"error"`)) {
		g.failed = fmt.Errorf("client %d is told: %s", c.index, payload)
	}
}

// sent is the number of messages of each of this part's publishers.
func (s *spread) sent() (list [][]uint64) {
	for _, p := range s.publishers {
		for len(list) <= p.room {
			list = append(list, nil)
		}
		for len(list[p.room]) <= p.index {
			list[p.room] = append(list[p.room], 0)
		}
		list[p.room][p.index] = p.round
	}
	return list
}

// settle waits until every member has all its messages.
func (s *spread) settle(g *generator, owed [][]uint64) error {
	mute := map[*conn]int{} // publishers, which do not get their own messages
	for _, p := range s.publishers {
		mute[p.conn] = p.index
	}
	look := time.Time{}
	for deadline := time.Now().Add(settleFor + g.plan.Measure); g.failed == nil; g.turn() {
		now := time.Now()
		if now.Before(look) {
			continue
		}
		look = now.Add(settleLook)
		c, missing := lacking(g, owed, mute)
		if c == nil {
			return nil
		}
		if now.After(deadline) {
			return fmt.Errorf("messages are missing: client %d lacks %d", c.index, missing)
		}
	}
	return g.failed
}

// lacking is a member with too few or too many messages, and the number that it lacks.
func lacking(g *generator, owed [][]uint64, mute map[*conn]int) (*conn, int64) {
	for _, c := range g.conns {
		own, speaks := mute[c]
		for k, n := range owed[c.index%len(g.rooms)] {
			if speaks && k == own {
				n = 0
			}
			if c.nexts[k] != n {
				return c, int64(n) - int64(c.nexts[k])
			}
		}
	}
	return nil, 0
}

func (s *spread) drained(*generator) bool { return true }
