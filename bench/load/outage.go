//go:build linux

package load

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"
)

// outage kills the server's bus process under a steady load of publishes to rooms with history. The result's Reach is the time from
// the kill until each publisher has an answer to a publish that it sent after the kill, ReachMost the longest wait of a publish.
//
// A publish that is answered `unavailable` is sent again with the same key. In the end all must be answered, each member must have
// all of the others once, and all members of a room must have been told the same message under the same number. Messages that the
// server says are gone (`gap`) are lost; a number that it does not tell voids the run.
//
// Owner: the generator's thread.
type outage struct {
	idle
	clients    []witness     // by the client's index
	publishers []*petitioner // the first of each room, then the second of each
	of         map[*conn]*petitioner
	order      map[place]uint64 // the message under each number
	pad        []byte
	begun      time.Time // zero: nobody publishes
	planned    uint64
	killed     time.Time
	again      int // publishes that were sent again
	unanswered int
	owed       int // deliveries
	arrived    int // messages at members, each once
	doubled    uint64
	resets     uint64
}

// witness is a member's position in its room, and the messages that it has.
//
// Owner: the generator's thread.
type witness struct {
	seq   uint64
	epoch string
	has   map[uint64]bool // by the message's number
}

// petitioner is a member that publishes.
//
// Owner: the generator's thread.
type petitioner struct {
	conn   *conn
	prefix uint64      // of its messages' numbers
	due    []time.Time // of each publish
	done   []bool
	late   int           // the first publish after the kill
	back   time.Duration // from the kill to the answer to one of those; 0: none yet
}

// place is a number of a room's epoch.
type place struct {
	room  *room
	epoch string
	seq   uint64
}

func (s *outage) play(g *generator) error {
	if err := s.choose(g); err != nil {
		return err
	}
	bus, err := g.bus()
	if err != nil {
		return err
	}
	g.result.histogram = hdrhistogram.New(1, 60_000_000, 3)
	s.begun = time.Now()
	g.spin(g.plan.Warmup)
	if err := unix.Kill(bus, unix.SIGKILL); err != nil {
		return fmt.Errorf("kill the bus: %w", err)
	}
	s.killed = time.Now()
	for _, p := range s.publishers {
		p.late = len(p.due)
	}
	before := s.arrived
	g.busy = 0
	g.spin(g.plan.Measure)
	s.begun = time.Time{}
	g.result.Busy = g.busy.Seconds() / g.plan.Measure.Seconds()
	g.result.Messages, g.result.Seconds = uint64(s.arrived-before), g.plan.Measure.Seconds()
	g.result.Rate = float64(g.result.Messages) / g.result.Seconds
	return s.settle(g, bus)
}

// choose makes members publishers.
func (s *outage) choose(g *generator) error {
	s.pad, s.of, s.order = padding(g.plan.Size), map[*conn]*petitioner{}, map[place]uint64{}
	for k := range g.plan.Publishers {
		for _, r := range g.rooms {
			if len(r.members) < max(2, g.plan.Publishers) {
				return fmt.Errorf("room %s has %d members", r.name, len(r.members))
			}
			p := &petitioner{conn: r.members[k], prefix: uint64(k) * numbersEach}
			s.publishers, s.of[p.conn] = append(s.publishers, p), p
		}
	}
	workers := map[uint16]int{}
	for _, c := range g.conns {
		workers[c.worker]++
	}
	for _, n := range workers {
		g.result.Workers = append(g.result.Workers, n)
	}
	slices.SortFunc(g.result.Workers, func(a, b int) int { return cmp.Compare(b, a) })
	return nil
}

// bus is the process id of the server's bus, which is one of its children.
func (g *generator) bus() (int, error) {
	answer, err := http.Get("http://" + g.plan.Stats + "/stats")
	if err != nil {
		return 0, fmt.Errorf("read the server's figures: %w", err)
	}
	defer answer.Body.Close()
	var x struct {
		Bus struct{ PID int } `json:"bus_process"`
	}
	if err := json.NewDecoder(answer.Body).Decode(&x); err != nil {
		return 0, fmt.Errorf("read the server's figures: %w", err)
	}
	if !slices.Contains(family(g.plan.PID)[1:], x.Bus.PID) {
		return 0, fmt.Errorf("the server has no bus process: it names %d", x.Bus.PID)
	}
	return x.Bus.PID, nil
}

// settle waits for what is owed, and makes the figures.
func (s *outage) settle(g *generator, killed int) error {
	until := func(ready func() bool) bool {
		for deadline := time.Now().Add(settleFor + g.plan.Measure); g.failed == nil && !ready() && g.now.Before(deadline); {
			g.turn()
		}
		return ready()
	}
	if !until(func() bool { return s.unanswered == 0 }) && g.failed == nil {
		return fmt.Errorf("%d publishes are not answered", s.unanswered)
	}
	if !until(func() bool { return s.level(g) }) && g.failed == nil {
		return errors.New("messages are missing")
	}
	g.spin(calmFor) // for what may come twice
	if g.failed != nil {
		return g.failed
	}
	if bus, err := g.bus(); err != nil {
		return err
	} else if bus == killed {
		return errors.New("the bus was not replaced")
	}
	r := &g.result
	r.Lost, r.Doubled, r.Resets, r.Again = uint64(s.owed-s.arrived), s.doubled, s.resets, s.again
	for _, p := range s.publishers {
		if p.back == 0 {
			return fmt.Errorf("client %d has published nothing after the kill", p.conn.index)
		}
		r.Reach = max(r.Reach, p.back.Seconds()*1e3)
	}
	g.summarize()
	r.ReachMost = float64(r.histogram.Max()) / 1e3
	return nil
}

// level reports whether all members of each room are at the same place: publishers know the numbers of what they published.
func (s *outage) level(g *generator) bool {
	for _, r := range g.rooms {
		first := &s.clients[r.members[0].index]
		for _, c := range r.members[1:] {
			if w := &s.clients[c.index]; w.seq != first.seq || w.epoch != first.epoch {
				return false
			}
		}
	}
	return true
}

// poll publishes what is planned until now.
func (s *outage) poll(g *generator) {
	for !s.begun.IsZero() && g.failed == nil {
		due := g.plan.timeOf(s.begun, s.planned)
		if g.now.Before(due) {
			return
		}
		p := s.publishers[s.planned%uint64(len(s.publishers))]
		p.due, p.done = append(p.due, due), append(p.done, false)
		s.planned++
		s.unanswered++
		s.owed += len(p.conn.room.members) - 1
		s.publish(g, p, len(p.due)-1)
	}
}

// publish sends a publish, for the first time or again: its key is its number.
func (s *outage) publish(g *generator, p *petitioner, n int) {
	data := append(appendNumber([]byte(`{"bench_n":"`), p.prefix+uint64(n)), `","pad":"`...)
	text := g.dialect.publish(p.conn.room.name, append(append(data, s.pad...), `"}`...))
	text = fmt.Appendf(text[:len(text)-1], `,"ref":%d,"idempotency_key":"%d"}`, n, n)
	if err := p.conn.write(appendFrame(nil, 1, text)); err != nil {
		g.failed = err
	}
}

// notice is a text of the server other than a broadcast.
//
// Owner: the receiver.
type notice struct {
	Type, Code, Epoch string
	Seq, From         uint64
	Ref               *int
	Duplicate         *struct{}
	Reset             bool
}

// hear takes every text of the server before the generator does.
func (s *outage) hear(g *generator, c *conn, payload []byte) (taken bool, err error) {
	w := &s.clients[c.index]
	if c.state == stateReady && bytes.HasPrefix(payload, []byte(`{"type":"broadcast",`)) {
		n, ok := c.number(payload)
		if !ok {
			return true, fmt.Errorf("a message without a number: %q", payload)
		}
		return true, s.broadcast(g, c, n, payload)
	}
	if c.state != stateReady && c.state != stateJoining {
		return false, nil
	}
	var m notice
	if err := json.Unmarshal(payload, &m); err != nil {
		return true, fmt.Errorf("%w: %q", err, payload)
	}
	switch {
	case c.state == stateJoining:
		if m.Type == "joined" {
			w.seq, w.epoch, w.has = m.Seq, m.Epoch, map[uint64]bool{}
		}
		return false, c.greeted(payload)
	case m.Type == "broadcast_sent" || m.Type == "error":
		return true, s.answered(g, c, &m, payload)
	case m.Type == "gap":
		if m.Reset {
			s.resets++
		}
		w.seq, w.epoch = m.Seq, m.Epoch
	case m.Type == "skip":
		return true, w.step(cmp.Or(m.From, m.Seq), m.Seq, m.Epoch)
	}
	return true, nil
}

// broadcast takes a message of another member.
func (s *outage) broadcast(g *generator, c *conn, n uint64, payload []byte) error {
	k := int(n/numbersEach)*len(g.rooms) + c.index%len(g.rooms)
	if k >= len(s.publishers) || n%numbersEach >= uint64(len(s.publishers[k].due)) || s.publishers[k].conn == c {
		return fmt.Errorf("gets message %d, which no other client sent", n)
	}
	w := &s.clients[c.index]
	seq, epoch := placeOf(payload)
	if err := w.step(seq, seq, epoch); err != nil {
		return err
	}
	if w.has[n] {
		s.doubled++
	} else {
		w.has[n] = true
		s.arrived++
	}
	return s.agree(c.room, w, n)
}

// answered takes the answer to a publish.
func (s *outage) answered(g *generator, c *conn, m *notice, payload []byte) error {
	p, w := s.of[c], &s.clients[c.index]
	if p == nil || m.Ref == nil || *m.Ref >= len(p.done) || p.done[*m.Ref] || m.Type == "error" && m.Code != "unavailable" {
		return fmt.Errorf("is told: %q", payload)
	}
	n := *m.Ref
	if m.Type == "error" {
		s.again++
		s.publish(g, p, n)
		return nil
	}
	p.done[n] = true
	s.unanswered--
	g.result.histogram.RecordValue(max(1, g.now.Sub(p.due[n]).Microseconds()))
	if !s.killed.IsZero() && n >= p.late && p.back == 0 {
		p.back = g.now.Sub(s.killed)
	}
	if m.Duplicate != nil {
		return nil // its number came before
	}
	if err := w.step(m.Seq, m.Seq, m.Epoch); err != nil {
		return err
	}
	return s.agree(c.room, w, p.prefix+uint64(n))
}

// step moves a member on over the numbers from one to another.
func (w *witness) step(from, to uint64, epoch string) error {
	if from != w.seq+1 || epoch != w.epoch {
		return fmt.Errorf("number %d of epoch %s comes after %d of %s", from, epoch, w.seq, w.epoch)
	}
	w.seq = to
	return nil
}

// agree notes the message under a member's number, which other members must have been told, too.
func (s *outage) agree(r *room, w *witness, n uint64) error {
	at := place{r, w.epoch, w.seq}
	if was, ok := s.order[at]; ok && was != n {
		return fmt.Errorf("under number %d in %s is message %d, and message %d for another member", w.seq, r.name, n, was)
	}
	s.order[at] = n
	return nil
}

// placeOf reads the number and the epoch with which a message ends.
func placeOf(payload []byte) (seq uint64, epoch string) {
	end := payload[max(0, len(payload)-numberWithin):]
	_, end, _ = bytes.Cut(end, []byte(`"seq":`))
	number, end, _ := bytes.Cut(end, []byte(`,"epoch":"`))
	seq, _ = strconv.ParseUint(string(number), 10, 64)
	return seq, string(bytes.TrimSuffix(end, []byte(`"}`)))
}
