//go:build linux

package load

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// backend is a program that publishes over the server's API: by HTTP, one request at a time, or by messages on a socket.
//
// Owner: the generator's thread.
type backend struct {
	conn     *conn
	socket   bool
	request  template
	prefix   uint64 // of its publishes' numbers: its index, times numbersEach
	sent     uint64 // publishes
	answered uint64
	arrived  uint64 // at the member
	planned  uint64 // open loop: the request under way
}

// template is a request with the numbers of its publishes left open, so that a request costs the generator little.
type template struct {
	text    []byte
	numbers []int // offsets
	masks   []int // by number: the place of its first digit in the mask; nil: the text is not masked
}

// api is the HTTP API of a server.
//
// Owner: immutable.
type api struct {
	publish, batch string // paths
	key            string // header field
	one            func(room string, data []byte) []byte
	several        func(one []byte, n int) []byte
	message        func(one []byte) []byte // on the socket; nil: it has none
	result         []byte                  // a part of the answer to a message that was carried out
}

const socketPath = "/v1/socket"

// newRequest makes the template of a plan's requests.
func (a *api) newRequest(p *Plan) template {
	data := append(appendNumber([]byte("{"+string(marker)), 0), `","pad":"`...)
	if p.Scenario == "revoke" {
		return a.newRevocation(p)
	}
	one := a.one("room-0", append(append(data, padding(max(0, p.Size-len(data)-2))...), `"}`...))
	path, body := a.publish, one
	switch {
	case p.Socket:
		return a.newMessage(one)
	case p.Batch > 1:
		path, body = a.batch, a.several(one, p.Batch)
	}
	head := fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\n%s%s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n",
		path, p.API, a.key, p.Key, len(body))
	t := template{text: append(head, body...)}
	t.find(t.text, 0)
	return t
}

func (a *api) newMessage(one []byte) template {
	payload := a.message(one)
	t := template{text: appendFrame(nil, 1, payload)}
	t.find(payload, len(t.text)-len(payload))
	for _, at := range t.numbers {
		t.masks = append(t.masks, at-(len(t.text)-len(payload)))
	}
	return t
}

// find notes the places of the numbers in a text that begins at an offset.
func (t *template) find(text []byte, offset int) {
	for at := 0; ; {
		i := bytes.Index(text[at:], marker)
		if i < 0 {
			return
		}
		at += i + len(marker)
		t.numbers = append(t.numbers, offset+at)
	}
}

// append appends a request whose publishes are numbered from n on.
func (t *template) append(dst []byte, n uint64) []byte {
	base := len(dst)
	dst = append(dst, t.text...)
	for k, at := range t.numbers {
		rest := n + uint64(k)
		for i := digits - 1; i >= 0; i-- {
			d := byte('0' + rest%10)
			if t.masks != nil {
				d ^= mask[(t.masks[k]+i)%4]
			}
			dst[base+at+i] = d
			rest /= 10
		}
	}
	return dst
}

// dialBackends connects the plan's backends, and waits until they are ready.
func (g *generator) dialBackends() (list []*backend, err error) {
	addr, err := netip.ParseAddrPort(g.plan.API)
	if err != nil {
		return nil, err
	}
	to := &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}
	request := g.dialect.api.newRequest(&g.plan)
	for i := range g.plan.Backends {
		if err := g.dial(to); err != nil {
			return nil, err
		}
		b := &backend{conn: g.conns[len(g.conns)-1], socket: g.plan.Socket, request: request, prefix: uint64(i) * numbersEach}
		b.conn.backend = b
		list = append(list, b)
	}
	for g.ready < g.plan.Conns+g.plan.Backends && g.failed == nil {
		g.turn()
	}
	return list, g.failed
}

// open is called when the connection is there.
func (b *backend) open(g *generator) error {
	if !b.socket {
		return g.becomesReady(b.conn)
	}
	b.conn.state = stateHead
	return b.conn.write(handshake(g.plan.API, socketPath, g.dialect.api.key+g.plan.Key+"\r\n"))
}

// each is the number of publishes in a request. A request that publishes nothing counts as one.
func (b *backend) each() uint64 { return max(1, uint64(len(b.request.numbers))) }

// under is the number of publishes under way.
func (b *backend) under() int { return int(b.sent - min(b.answered, b.arrived)) }

// send sends requests in one write.
func (b *backend) send(g *generator, requests int, dst []byte) []byte {
	dst = dst[:0]
	for range requests {
		dst = b.request.append(dst, b.prefix+b.sent)
		b.sent += b.each()
	}
	if err := b.conn.write(dst); err != nil {
		g.failed = err
	}
	return dst
}

// answers takes HTTP answers.
func (b *backend) answers(chunk []byte) error {
	for len(chunk) > 0 {
		size, err := answerAt(chunk)
		if err != nil {
			return err
		}
		if size == 0 {
			break
		}
		chunk = chunk[size:]
		if b.answered += b.each(); b.answered > b.sent {
			return errors.New("an answer to no request")
		}
	}
	b.conn.keep(chunk)
	return nil
}

// answer takes an answer on a socket.
func (b *backend) answer(g *generator, payload []byte) error {
	if !bytes.Contains(payload, g.dialect.api.result) {
		return fmt.Errorf("refused: %.300q", payload)
	}
	b.answered++
	return nil
}

var lengthField = []byte("Content-Length: ")

// answerAt reads an HTTP answer. size is 0 if it is incomplete. A client has one request under way, so that the last chunk of
// a chunked answer ends the input.
func answerAt(b []byte) (size int, err error) {
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		return 0, nil
	}
	head, body := b[:end], end+4
	if !bytes.HasPrefix(head, []byte("HTTP/1.1 200")) {
		return 0, fmt.Errorf("refused: %.300q", b)
	}
	i := bytes.Index(head, lengthField)
	if i < 0 {
		if bytes.HasSuffix(b[body:], []byte("\r\n0\r\n\r\n")) {
			return len(b), nil
		}
		return 0, nil
	}
	n := 0
	for _, d := range head[i+len(lengthField):] {
		if d < '0' || d > '9' {
			break
		}
		n = n*10 + int(d-'0')
	}
	if len(b) < body+n {
		return 0, nil
	}
	return body + n, nil
}
