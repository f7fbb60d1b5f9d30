//go:build linux

package load

import (
	"bytes"
	"fmt"
	"strconv"
)

// many has very many rooms. The first half of the clients are sitters: each is a member of its share of the rooms. The
// second half are visitors: each joins a room, publishes to its sitter, leaves, and goes on to another. One message of
// the result is one visit.
//
// Owner: the generator's thread.
type many struct {
	sitters  int
	visitors []*visitor
	of       map[*conn]*visitor
	seated   int // rooms
	asked    int
	inFlight int
}

// visitor is a client of the second half. No other visits its rooms.
//
// Owner: the generator's thread.
type visitor struct {
	conn    *conn
	sitter  *conn
	rooms   []string
	at      int
	rounds  uint64
	arrived bool // at the sitter
	left    bool
}

func (s *many) begin(g *generator) error {
	s.sitters, s.of = len(g.conns)/2, map[*conn]*visitor{}
	for i, c := range g.conns[s.sitters:] {
		v := &visitor{conn: c, sitter: g.conns[i]}
		for n := i; n < g.plan.Visited; n += s.sitters {
			v.rooms = append(v.rooms, "visited-"+strconv.Itoa(n))
		}
		s.visitors = append(s.visitors, v)
		s.of[c], s.of[v.sitter] = v, v
	}
	for s.seated < g.plan.Visited {
		for _, v := range s.visitors {
			for i := 0; i < len(v.rooms) && i < 64 && v.at < len(v.rooms); i++ {
				if err := v.sitter.write(appendFrame(nil, 1, g.dialect.join(v.rooms[v.at]))); err != nil {
					return err
				}
				v.at++
				s.asked++
			}
		}
		for s.seated < s.asked {
			if g.turn(); g.failed != nil {
				return g.failed
			}
		}
	}
	for _, v := range s.visitors {
		v.at = 0
		s.visit(g, v)
	}
	return nil
}

// visit joins, publishes and leaves, in one write.
func (s *many) visit(g *generator, v *visitor) {
	// Far from the last one, so that caches do not help.
	v.at = (v.at + 7919) % len(v.rooms)
	room := v.rooms[v.at]
	data := append(appendNumber([]byte(`{"bench_n":"`), v.rounds), `"}`...)
	out := appendFrame(nil, 1, g.dialect.join(room))
	out = appendFrame(out, 1, g.dialect.publish(room, data))
	out = appendFrame(out, 1, fmt.Appendf(nil, `{"type":"leave","room":%q}`, room))
	v.arrived, v.left = false, false
	s.inFlight++
	if err := v.conn.write(out); err != nil {
		g.failed = err
	}
}

func (s *many) message(g *generator, c *conn, n uint64, _ []byte) {
	v := s.of[c]
	if v == nil || c != v.sitter || n != v.rounds || v.arrived {
		g.failed = fmt.Errorf("client %d gets message %d, %d was its visitor's", c.index, n, v.rounds)
		return
	}
	v.arrived = true
	s.ended(g, v)
}

func (s *many) answer(g *generator, c *conn, payload []byte) {
	switch {
	case bytes.Contains(payload, []byte(`"type":"joined"`)):
		if c.index < s.sitters {
			s.seated++
		}
	case bytes.Contains(payload, []byte(`"type":"left"`)):
		v := s.of[c]
		v.left = true
		s.ended(g, v)
	case bytes.Contains(payload, []byte(`"type":"error"`)):
		g.failed = fmt.Errorf("client %d is told: %s", c.index, payload)
	}
}

// ended begins the next visit once the present one has ended for visitor and sitter.
func (s *many) ended(g *generator, v *visitor) {
	if !v.arrived || !v.left {
		return
	}
	v.rounds++
	g.deliveries++
	s.inFlight--
	if g.plan.Window > 0 {
		s.visit(g, v)
	}
}

func (s *many) poll(*generator)         {}
func (s *many) drained(*generator) bool { return s.inFlight == 0 }
