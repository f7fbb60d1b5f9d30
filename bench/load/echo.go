//go:build linux

package load

import (
	"bytes"
	"fmt"
	"time"
)

// echo sends numbered messages and expects each back, in order: a window of them for each client, or, at a rate, a
// window at a time for one client after the other.
//
// Owner: the generator's thread.
type echo struct {
	frame   []byte // masked, with the number 0
	digits  int    // their offset in a payload
	at      int    // their offset in the frame
	length  int    // of a payload
	out     []byte
	owed    int
	begun   time.Time
	planned uint64 // open loop: windows sent
}

func (s *echo) begin(g *generator) error {
	payload := appendNumber(append([]byte("{"), marker...), 0)
	payload = append(append(payload, `","pad":"`...), padding(max(0, g.plan.Size-len(payload)-len(`","pad":""}`)))...)
	payload = g.dialect.echo(append(payload, `"}`...))
	s.frame = appendFrame(nil, 1, payload)
	s.digits = bytes.Index(payload, marker) + len(marker)
	s.at, s.length = len(s.frame)-len(payload)+s.digits, len(payload)
	if g.plan.Rate > 0 {
		s.begun = time.Now()
		return nil
	}
	for _, c := range g.conns {
		s.send(g, c, g.plan.Window)
	}
	return nil
}

// send writes n messages of a client at once.
func (s *echo) send(g *generator, c *conn, n int) {
	s.out = s.out[:0]
	for range n {
		at := len(s.out) + s.at
		s.out = append(s.out, s.frame...)
		number := c.sent
		for i := digits - 1; i >= 0; i-- {
			s.out[at+i] = byte('0'+number%10) ^ mask[(s.digits+i)%4]
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
	if n != c.next || len(payload) != s.length && !g.dialect.own {
		g.failed = fmt.Errorf("client %d gets echo %d of %d bytes, %d was next", c.index, n, len(payload), c.next)
		return
	}
	c.next++
	g.deliveries++
	s.owed--
	if g.plan.Rate > 0 {
		if h := g.result.histogram; h != nil {
			k := uint64(c.index) + n/uint64(g.window)*uint64(len(g.conns))
			h.RecordValue(max(1, g.now.Sub(g.plan.timeOf(s.begun, k)).Microseconds()))
		}
		return
	}
	if c.due == 0 {
		g.dueConns = append(g.dueConns, c)
	}
	c.due++
}

// poll sends new messages: one for each that has come back, or all that the plan has until now.
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
	for g.plan.Rate > 0 && !s.begun.IsZero() && !g.now.Before(g.plan.timeOf(s.begun, s.planned)) {
		s.send(g, g.conns[s.planned%uint64(len(g.conns))], g.window)
		s.planned++
	}
}

func (s *echo) drained(*generator) bool { return s.owed == 0 }

func padding(n int) []byte {
	pad := make([]byte, n)
	for i := range pad {
		pad[i] = 'a' + byte(i%26)
	}
	return pad
}
