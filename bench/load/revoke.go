//go:build linux

package load

import (
	"bytes"
	"errors"
	"fmt"
	"time"
)

// revoke makes a backend revoke the tokens of the one user of all clients, and waits until each of them was told to close with
// 4001.
//
// Owner: the generator's thread.
type revoke struct {
	idle
	closed int
}

// closeRevoked is the beginning of a close frame with the code 4001.
var closeRevoked = []byte{4001 >> 8, 4001 & 0xff}

const revokeFor = 20 * time.Second

func (s *revoke) play(g *generator) error {
	backends, err := g.dialBackends()
	if err != nil {
		return err
	}
	g.spin(g.plan.Warmup)
	begun := time.Now()
	backends[0].send(g, 1, nil)
	for s.closed < g.plan.Conns && g.failed == nil {
		if g.turn(); g.now.Sub(begun) > revokeFor {
			return fmt.Errorf("%d of %d clients were closed", s.closed, g.plan.Conns)
		}
	}
	took := time.Since(begun)
	for backends[0].answered == 0 && g.failed == nil {
		if g.turn(); g.now.Sub(begun) > revokeFor {
			return errors.New("the request was not answered")
		}
	}
	g.result.Messages, g.result.Seconds, g.result.Reach = uint64(s.closed), took.Seconds(), took.Seconds()*1e3
	return g.failed
}

// end takes a close frame.
func (s *revoke) end(c *conn, payload []byte) error {
	if !bytes.HasPrefix(payload, closeRevoked) || c.state == stateClosed {
		return fmt.Errorf("told to close: %q", payload)
	}
	c.state = stateClosed
	s.closed++
	return nil
}

// newRevocation is the request of the one backend.
func (a *api) newRevocation(p *Plan) template {
	body := `{"user":"user-0"}`
	return template{text: fmt.Appendf(nil, "POST /v1/tokens/revoke HTTP/1.1\r\nHost: %s\r\n%s%s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		p.API, a.key, p.Key, len(body), body)}
}
