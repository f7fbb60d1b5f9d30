//go:build linux

package load

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// recovery lets all clients but one go away at once, publishes what they miss, and lets them all come back. Each must then get
// what it missed, once and in order, and after that a message that is published when all are back. Where the server keeps no
// messages, a client is back with the answer to its wish. One message of the result is one client that came back.
//
// Owner: the generator's thread.
type recovery struct {
	idle
	clients   []returner // by the client's index; the first is the publisher, which stays
	returning bool
	published uint64
	sent      uint64 // publishes that were answered
	arrived   int    // messages before the clients went
	whole     int    // clients that are back and have what they missed
	after     int    // clients that have the last message
	lost      uint64
	doubled   uint64
}

// returner is what a client remembers: what it says of itself when it comes back, and the next message that it must get.
//
// Owner: the generator's thread.
type returner struct {
	token, epoch, at []byte
	next             uint64
	answered         bool
	back             bool
}

const (
	calmFor      = 200 * time.Millisecond
	calmShare    = 0.05 // of a core, below which a server has nothing left to do
	calmPatience = 30 * time.Second
	returnFor    = 2 * time.Minute
)

func (s *recovery) play(g *generator) error {
	if err := s.goAway(g); err != nil {
		return err
	}
	for range g.plan.Missed {
		s.publish(g)
		if err := s.until(g, "a publish is not answered", func() bool { return s.sent == s.published }); err != nil {
			return err
		}
	}
	if err := g.awaitCalm(); err != nil {
		return err
	}
	s.returning = true
	clients := g.plan.Conns - 1
	begun, cpu := time.Now(), cpuSeconds(g.plan.PID)
	if err := s.comeBack(g, clients); err != nil {
		return err
	}
	took := time.Since(begun)
	g.spin(calmFor) // what the server does behind the last client's last message is a part of the cost
	g.measured(uint64(clients), took, cpuSeconds(g.plan.PID)-cpu)
	g.result.Reach = took.Seconds() * 1e3
	s.publish(g)
	if err := s.until(g, "the message after all were back is missing", func() bool { return s.after == clients }); err != nil {
		return err
	}
	g.spin(calmFor) // for what may come twice
	g.result.Lost, g.result.Doubled = s.lost, s.doubled
	return g.failed
}

// goAway publishes the first message, from which clients know their place, and closes them.
func (s *recovery) goAway(g *generator) error {
	s.publish(g)
	if err := s.until(g, "the first message is missing", func() bool { return s.arrived >= g.plan.Conns-1 && s.sent == 1 }); err != nil {
		return err
	}
	for i, c := range g.conns[1:] {
		if r := &s.clients[i+1]; len(r.token) == 0 && !g.dialect.stateless || r.next != 1 {
			return fmt.Errorf("client %d cannot come back: it has the token %q and messages up to %d", c.index, r.token, r.next)
		}
		unix.Close(c.fd)
		g.byFD[c.fd], c.state = nil, stateClosed
	}
	g.conns, g.opened, g.ready = g.conns[:1], 1, 1
	return g.awaitCalm()
}

// comeBack dials the clients again, and waits until each has what it missed. If one does not get it in time, the next message
// tells how much it has lost.
func (s *recovery) comeBack(g *generator, clients int) error {
	addr, err := netip.ParseAddrPort(g.plan.Addr)
	if err != nil {
		return err
	}
	to := &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}
	for deadline := time.Now().Add(returnFor); s.whole < clients && g.failed == nil; {
		for g.opened < g.plan.Conns && g.opened-g.ready < dialing {
			if err := g.dial(to); err != nil {
				return err
			}
		}
		if g.turn(); g.now.After(deadline) {
			break
		}
	}
	if g.failed == nil && g.ready < g.plan.Conns {
		return fmt.Errorf("only %d of %d clients came back", g.ready-1, clients)
	}
	return g.failed
}

func (s *recovery) until(g *generator, what string, ready func() bool) error {
	for deadline := time.Now().Add(returnFor); g.failed == nil && !ready(); {
		if g.turn(); g.now.After(deadline) {
			return errors.New(what)
		}
	}
	return g.failed
}

// awaitCalm waits until the server has nothing left to do.
func (g *generator) awaitCalm() error {
	for deadline := time.Now().Add(calmPatience); g.failed == nil; {
		begun, cpu := time.Now(), cpuSeconds(g.plan.PID)
		g.spin(calmFor)
		if cpuSeconds(g.plan.PID)-cpu < calmShare*time.Since(begun).Seconds() {
			break
		}
		if time.Now().After(deadline) {
			return errors.New("the server does not come to rest")
		}
	}
	return g.failed
}

func (s *recovery) publish(g *generator) {
	data := append(appendNumber([]byte(`{"bench_n":"`), s.published), `","pad":"`...)
	data = append(append(data, padding(max(0, g.plan.Size-len(data)-2))...), `"}`...)
	s.published++
	if err := g.conns[0].write(appendFrame(nil, 1, g.dialect.publish(g.rooms[0].name, data))); err != nil {
		g.failed = err
	}
}

// hear takes every text of the server before the generator does.
func (s *recovery) hear(g *generator, c *conn, payload []byte) (taken bool, err error) {
	if c.index == 0 {
		if c.state == stateReady && bytes.Contains(payload, []byte(g.dialect.sent)) {
			s.sent++
		}
		return c.state == stateReady, nil
	}
	r := &s.clients[c.index]
	if !s.returning {
		if g.dialect.remember(r, payload); c.state == stateReady {
			s.count(g, r, payload, func(uint64) { s.arrived++ })
		}
		return c.state == stateReady, nil
	}
	if c.state == stateHello {
		return false, nil
	}
	if c.state == stateJoining && bytes.Contains(payload, []byte(g.dialect.resumed)) {
		c.state, r.answered = stateReady, true
		g.ready++
	}
	s.count(g, r, payload, func(n uint64) {
		if n > uint64(g.plan.Missed) {
			s.after++
		}
	})
	if !r.back && r.answered && (!g.plan.Kept || r.next > uint64(g.plan.Missed)) {
		r.back = true
		s.whole++
	}
	return true, nil
}

// count takes the numbers of all messages in a text.
func (s *recovery) count(g *generator, r *returner, payload []byte, then func(n uint64)) {
	for rest := payload; ; {
		i := bytes.Index(rest, marker)
		if i < 0 || len(rest) < i+len(marker)+digits {
			return
		}
		rest = rest[i+len(marker):]
		n, _ := strconv.ParseUint(string(rest[:digits]), 10, 64)
		switch {
		case n < r.next:
			s.doubled++
			continue
		case g.plan.Kept && n > r.next:
			s.lost += n - r.next
		}
		r.next = n + 1
		then(n)
	}
}

// wish is what a client says when it comes back.
func (s *recovery) wish(g *generator, c *conn) []byte {
	return g.dialect.resume(g.rooms[0].name, &s.clients[c.index])
}
