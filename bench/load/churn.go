//go:build linux

package load

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// churn makes clients come, join, and go, as planned, beside others that stay. One message of the result is one client
// that came and went. Clients that stay publish to each other as in the scenario rooms, at a rate.
//
// Owner: the generator's thread.
type churn struct {
	rooms
	to   unix.Sockaddr
	came uint64
}

func (s *churn) begin(g *generator) error {
	addr, err := netip.ParseAddrPort(g.plan.Addr)
	if err != nil {
		return err
	}
	s.to = &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}
	return s.rooms.begin(g)
}

const churnRate = 4000 // clients a second

func (s *churn) poll(g *generator) {
	s.rooms.poll(g)
	if g.plan.Window == 0 || s.to == nil {
		return
	}
	for ; float64(s.came) < g.now.Sub(s.begun).Seconds()*churnRate; s.came++ {
		if err := g.dial(s.to); err != nil {
			g.failed = err
			return
		}
	}
	for at := g.plan.Conns; at < len(g.conns); {
		c := g.conns[at]
		if c.state != stateReady {
			at++
			continue
		}
		unix.Close(c.fd)
		g.byFD[c.fd] = nil
		g.conns[at] = g.conns[len(g.conns)-1]
		g.conns = g.conns[:len(g.conns)-1]
		g.deliveries++
	}
}

func (s *churn) message(g *generator, c *conn, n uint64, payload []byte) {
	if c.index >= g.plan.Conns {
		return // it leaves before it has all its messages
	}
	s.rooms.message(g, c, n, payload)
	g.deliveries-- // checked, but only visits count here
}
