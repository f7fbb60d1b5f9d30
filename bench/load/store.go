//go:build linux

package load

import (
	"bytes"
	"errors"
	"strconv"
	"time"
)

// store fills very many rooms with messages. Each client but the last is a member of its share of them and publishes to them; the
// last one is in the first room, too, and tells how long a frame is. One message of the result is one that was published.
//
// Owner: the generator's thread.
type store struct {
	idle
	answer string // a part of the answers that are awaited
	done   []int  // by client: answers
	frame  int
}

const (
	storeWindow = 64 // requests of a client under way
	storeFor    = 5 * time.Minute
)

func (s *store) play(g *generator) error {
	publishers := g.conns[:len(g.conns)-1]
	each := g.plan.Visited / len(publishers)
	name := func(i, k int) string { return "stored-" + strconv.Itoa(k%each*len(publishers)+i) }
	if err := g.conns[len(publishers)].write(appendFrame(nil, 1, g.dialect.join(name(0, 0)))); err != nil {
		return err
	}
	s.answer = g.dialect.joined
	if err := s.ask(g, publishers, each, func(i, k int) []byte { return g.dialect.join(name(i, k)) }); err != nil {
		return err
	}
	g.spin(g.plan.Measure)
	before := residentBytes(g.plan.PID)
	data := append(append([]byte(`{"bench_n":"0000000000","pad":"`), padding(max(0, g.plan.Size-33))...), `"}`...)
	s.answer = g.dialect.sent
	if err := s.ask(g, publishers, each*g.plan.Each, func(i, k int) []byte { return g.dialect.publish(name(i, k), data) }); err != nil {
		return err
	}
	g.spin(g.plan.Measure)
	g.result.Messages, g.result.Frame = uint64(each*g.plan.Each*len(publishers)), float64(s.frame)
	g.result.Memory = (residentBytes(g.plan.PID) - before) / float64(g.result.Messages)
	return g.failed
}

// ask sends a number of requests of each client, and waits for the answers.
func (s *store) ask(g *generator, clients []*conn, each int, request func(i, k int) []byte) error {
	asked := make([]int, len(clients))
	s.done = make([]int, len(g.conns))
	begun := time.Now()
	for open := true; open && g.failed == nil; g.turn() {
		open = false
		for i, c := range clients {
			open = open || s.done[i] < each
			if asked[i]-s.done[i] > storeWindow/2 || asked[i] == each {
				continue
			}
			var out []byte
			for ; asked[i] < each && asked[i]-s.done[i] < storeWindow; asked[i]++ {
				out = appendFrame(out, 1, request(i, asked[i]))
			}
			if err := c.write(out); err != nil {
				return err
			}
		}
		if g.now.Sub(begun) > storeFor {
			return errors.New("requests are not answered")
		}
	}
	return g.failed
}

func (s *store) hear(g *generator, c *conn, payload []byte) (taken bool, err error) {
	switch {
	case c.state != stateReady || s.done == nil:
		return false, nil
	case bytes.Contains(payload, []byte(s.answer)):
		s.done[c.index]++
	case c.index == len(g.conns)-1 && bytes.Contains(payload, marker):
		s.frame = len(payload) + 4 // the header of one with more than 125 bytes
	}
	return true, nil
}
