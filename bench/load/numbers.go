//go:build linux

package load

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
)

// numbers checks the numbers that the server gives to messages: each client must be told every one of them, in order, from the
// one on that it was told first.
type numbers struct{}

// numberWithin is the length of the end of a text in which a number stands, in a room with history.
const numberWithin = 64

func (numbers) hear(g *generator, c *conn, payload []byte) (taken bool, err error) {
	if c.state != stateJoining && c.state != stateReady {
		return false, nil
	}
	text := payload
	if c.state == stateReady { // messages are long, and there are many
		text = payload[max(0, len(payload)-numberWithin):]
	}
	i := bytes.LastIndex(text, []byte(g.dialect.seq))
	if i < 0 {
		return false, nil
	}
	var n uint64
	for _, d := range text[i+len(g.dialect.seq):] {
		if d < '0' || d > '9' {
			break
		}
		n = n*10 + uint64(d-'0')
	}
	if c.state == stateReady && n != c.seq+1 {
		return false, fmt.Errorf("number %d comes after %d: %q", n, c.seq, payload)
	}
	c.seq = n
	return false, nil
}

// fill passes the first messages of a plan, as fast as they are read, so that the measurement begins with full sockets where
// clients do not read.
func (g *generator) fill() error {
	s, ok := g.scenario.(*rooms)
	if !ok || g.plan.First == 0 {
		return nil
	}
	rate, window := g.plan.Rate, g.plan.Window
	g.plan.Rate = 0
	if err := g.pass(g.plan.First); err != nil {
		return err
	}
	g.plan.Rate, g.plan.Window, g.deliveries = rate, window, 0
	*s = rooms{}
	for _, c := range g.conns {
		c.next = 0
	}
	return nil
}

// readStats reads the server's figures. A run in which a member that does not read was closed, or was not behind, does not count.
func (g *generator) readStats() error {
	if g.plan.Stats == "" {
		return nil
	}
	answer, err := http.Get("http://" + g.plan.Stats + "/stats")
	if err != nil {
		return fmt.Errorf("read the server's figures: %w", err)
	}
	defer answer.Body.Close()
	var x struct {
		Connections int                `json:"connections"`
		Behind      int                `json:"behind"`
		Parts       map[string]float64 `json:"memory_parts"`
		Limit       float64            `json:"memory_limit"`
	}
	if err := json.NewDecoder(answer.Body).Decode(&x); err != nil {
		return fmt.Errorf("read the server's figures: %w", err)
	}
	for _, bytes := range x.Parts {
		g.result.Counted += bytes / x.Limit * 100
	}
	if x.Connections != g.plan.Conns || x.Behind < g.plan.Stalled {
		return fmt.Errorf("%d of %d connections are left, and %d members are behind", x.Connections, g.plan.Conns, x.Behind)
	}
	return nil
}
