//go:build linux

package load

import (
	"bytes"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// dials makes clients come as planned, with tokens or without, and go once they are greeted, beside others that publish to each
// other at a rate. One message of the result is a client that was let in; latencies are those of the others.
//
// Owner: the generator's thread.
type dials struct {
	rooms
	to      unix.Sockaddr
	started time.Time
	came    uint64
	open    int
}

// openDials is the most clients under way. Where the server does not keep up, fewer come than planned.
const openDials = 256

// clients is the number of all clients of a run; with dials, a bound: a run may take somewhat longer than planned.
func (p *Plan) clients() int {
	return p.Conns + int(p.Dials*(p.Warmup+p.Measure).Seconds()*1.5)
}

func (s *dials) begin(g *generator) error {
	addr, err := netip.ParseAddrPort(g.plan.Addr)
	if err != nil {
		return err
	}
	s.to = &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}
	s.started = time.Now()
	return s.rooms.begin(g)
}

func (s *dials) poll(g *generator) {
	s.rooms.poll(g)
	if g.plan.Window == 0 || s.to == nil {
		return
	}
	for float64(s.came) < g.now.Sub(s.started).Seconds()*g.plan.Dials && s.open < openDials && g.failed == nil {
		g.failed = s.dial(g)
		s.came++
		s.open++
	}
}

// dial makes the next client. It has no place in g.conns, since it leaves soon.
func (s *dials) dial(g *generator) error {
	if err := g.dial(s.to); err != nil {
		return err
	}
	last := len(g.conns) - 1
	g.conns[last].guest = s
	g.conns = g.conns[:last]
	return nil
}

var tokenTaken = []byte(`"expires_in":`)

// greeted takes the first message to a client. A server that awaits no token greets without a time.
func (s *dials) greeted(g *generator, c *conn, payload []byte) error {
	if c.state == stateClosed {
		return nil
	}
	if bytes.Contains(payload, tokenTaken) != (g.plan.Tokens != "") {
		return fmt.Errorf("greeted otherwise than planned: %.200q", payload)
	}
	unix.Close(c.fd)
	g.byFD[c.fd], c.state = nil, stateClosed
	s.open--
	g.deliveries++
	return nil
}

func (s *dials) message(g *generator, c *conn, n uint64, payload []byte) {
	s.rooms.message(g, c, n, payload)
	g.deliveries-- // checked, but only clients that come count here
}

func (s *dials) drained(g *generator) bool { return s.open == 0 && s.rooms.drained(g) }
