//go:build linux

package load

import (
	"fmt"
	"time"
)

// publishes makes backends publish to a room with one member. Closed loop: each has as many publishes under way as the plan's
// window, and at least one request. Open loop: the next request goes to a backend that has none under way, as planned.
//
// A publish is done when it was answered and the member has it.
//
// Owner: the generator's thread.
type publishes struct {
	backends []*backend
	out      []byte
	next     int // the backend that sends next
	begun    time.Time
	planned  uint64 // open loop: requests sent
}

func (s *publishes) begin(g *generator) (err error) {
	s.backends, err = g.dialBackends()
	s.begun = time.Now()
	return err
}

func (s *publishes) message(g *generator, c *conn, n uint64, _ []byte) {
	i := n / numbersEach
	if i >= uint64(len(s.backends)) || n%numbersEach != s.backends[i].arrived {
		g.failed = fmt.Errorf("the member gets message %d, which is not the next one of a backend", n)
		return
	}
	b := s.backends[i]
	b.arrived++
	g.deliveries++
	if h := g.result.histogram; h != nil && g.plan.Rate > 0 {
		h.RecordValue(max(1, g.now.Sub(g.plan.timeOf(s.begun, b.planned)).Microseconds()))
	}
}

func (s *publishes) poll(g *generator) {
	switch {
	case g.plan.Window == 0 || s.begun.IsZero():
	case g.plan.Rate > 0:
		s.sendPlanned(g)
	default:
		s.sendMore(g)
	}
}

// sendMore fills the windows of backends. A socket's is filled when a quarter is free: many messages in one write.
func (s *publishes) sendMore(g *generator) {
	each := max(1, g.plan.Batch)
	for _, b := range s.backends {
		if free := g.plan.Window*each - b.under(); free >= max(each, g.plan.Window/4) {
			s.out = b.send(g, free/each, s.out)
		}
	}
}

func (s *publishes) sendPlanned(g *generator) {
	for tries := 0; tries < len(s.backends) && g.failed == nil && !g.now.Before(g.plan.timeOf(s.begun, s.planned)); s.next++ {
		b := s.backends[s.next%len(s.backends)]
		if b.under() > 0 {
			tries++
			continue
		}
		tries, b.planned = 0, s.planned
		s.planned++
		s.out = b.send(g, 1, s.out)
	}
}

func (s *publishes) drained(*generator) bool {
	for _, b := range s.backends {
		if b.under() > 0 {
			return false
		}
	}
	return true
}
