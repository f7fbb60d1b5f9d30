package conformance

import (
	"bufio"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"
)

// signal is an event for the player from the reading goroutine: a message or a control frame, the server's close frame, or
// the end of the stream.
//
// Owner: the player.
type signal struct {
	kind       kind
	payload    []byte
	compressed bool
	closing    bool  // a close frame; payload is its body
	ended      bool  // the stream is over
	err        error // a fault of the server that has ended it
}

func (s signal) String() string {
	switch {
	case s.err != nil:
		return "(" + s.err.Error() + ")"
	case s.ended:
		return "(end of stream)"
	case s.closing && len(s.payload) >= 2:
		return fmt.Sprintf("close %d %q", s.code(), s.payload[2:])
	case s.closing:
		return "close without a code"
	}
	return s.kind.String() + " " + shorten(s.payload, len(s.payload))
}

// code is the close frame's code, 0 if it has none.
func (s signal) code() int {
	if len(s.payload) < 2 {
		return 0
	}
	return int(s.payload[0])<<8 | int(s.payload[1])
}

// signalsMax is more than any row makes the server send before the player takes signals: if the reading goroutine waited
// for the player, and so the server for that goroutine, while the player writes, all would wait for each other.
const signalsMax = 4096

// conn is a simple WebSocket connection that shares no code with the server.
//
// Owner: the player, except inbound: the reading goroutine.
type conn struct {
	tcp      net.Conn
	chunk    int
	deadline time.Time
	terms    *terms // nil: no compression
	deflate  *compressor
	signals  chan signal
	quit     chan struct{}
}

// dial connects, makes the opening handshake and starts reading. The caller must call hangUp.
func dial(addr string, r row, chunk int, deadline time.Time) (*conn, error) {
	tcp, err := net.DialTimeout("tcp", addr, time.Until(deadline))
	if err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	if err = tcp.SetDeadline(deadline); err != nil {
		return nil, errors.Join(err, tcp.Close())
	}
	c := &conn{tcp: tcp, chunk: chunk, deadline: deadline, signals: make(chan signal, signalsMax), quit: make(chan struct{})}
	in := bufio.NewReaderSize(tcp, 64<<10)
	if err = c.shakeHands(in, addr, r); err != nil {
		return nil, errors.Join(fmt.Errorf("handshake: %w", err), tcp.Close())
	}
	inbound := &inbound{in: in}
	if c.terms != nil {
		c.deflate = newCompressor(c.terms.clientBits, c.terms.clientForgets)
		inbound.inflate = newDecompressor(c.terms.serverBits, c.terms.serverForgets)
	}
	go c.listen(inbound)
	return c, nil
}

// hangUp ends the reading goroutine and the connection.
func (c *conn) hangUp() {
	close(c.quit)
	_ = c.tcp.Close()
}

// write writes octets in pieces of chunk. The caller has already cut them as the case demands.
func (c *conn) write(octets []byte) error {
	for len(octets) > 0 {
		n := len(octets)
		if c.chunk > 0 {
			n = min(n, c.chunk)
		}
		if _, err := c.tcp.Write(octets[:n]); err != nil {
			return err
		}
		octets = octets[n:]
	}
	return nil
}

// shakeHands makes the opening handshake, and checks the answer as strictly as RFC 6455 §4.1 demands of a client.
func (c *conn) shakeHands(in *bufio.Reader, addr string, r row) error {
	var nonce [16]byte
	_, _ = rand.Read(nonce[:])
	key := base64.StdEncoding.EncodeToString(nonce[:])
	request := "GET /conformance?case=" + r.number + " HTTP/1.1\r\nHost: " + addr +
		"\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: " + key + "\r\nSec-WebSocket-Version: 13\r\n"
	if r.offer != "" {
		request += "Sec-WebSocket-Extensions: " + r.offer + "\r\n"
	}
	if err := c.write([]byte(request + "\r\n")); err != nil {
		return err
	}
	response, err := http.ReadResponse(in, nil)
	if err != nil {
		return err
	}
	h := response.Header
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	switch {
	case response.StatusCode != http.StatusSwitchingProtocols:
		return fmt.Errorf("status %s", response.Status)
	case !strings.EqualFold(h.Get("Upgrade"), "websocket"), !strings.EqualFold(h.Get("Connection"), "upgrade"):
		return fmt.Errorf("Upgrade: %q, Connection: %q", h.Get("Upgrade"), h.Get("Connection"))
	case h.Get("Sec-WebSocket-Accept") != base64.StdEncoding.EncodeToString(sum[:]):
		return fmt.Errorf("wrong Sec-WebSocket-Accept %q", h.Get("Sec-WebSocket-Accept"))
	case h.Get("Sec-WebSocket-Protocol") != "":
		return fmt.Errorf("server chose subprotocol %q, none was offered", h.Get("Sec-WebSocket-Protocol"))
	}
	c.terms, err = agree(r.offer, strings.Join(h.Values("Sec-WebSocket-Extensions"), ", "))
	if err != nil {
		return err
	}
	if r.decline && c.terms != nil {
		return fmt.Errorf("server accepts %q, which it must decline", r.offer)
	}
	if r.offer != "" && !r.decline && c.terms == nil {
		return fmt.Errorf("server declines %q (UNIMPLEMENTED in the public suite)", r.offer)
	}
	return nil
}

// listen turns frames into signals until the stream ends or the player hangs up.
func (c *conn) listen(in *inbound) {
	for {
		s, err := in.next()
		var network net.Error
		switch {
		case err == nil:
		case errors.As(err, &network) && network.Timeout():
			return // the player has the same deadline, and reports it
		case errors.As(err, new(breach)):
			s = signal{ended: true, err: err}
		case in.closed, err == io.EOF:
			// A reset after the close frame counts as an end: a message that it cost would be missed.
			s = signal{ended: true}
		default:
			s = signal{ended: true, err: err}
		}
		select {
		case c.signals <- s:
		case <-c.quit:
			return
		}
		if s.ended {
			return
		}
	}
}

// inbound assembles messages from frames and checks that the server keeps the RFC.
//
// Owner: the reading goroutine.
type inbound struct {
	in         *bufio.Reader
	inflate    *decompressor
	closed     bool
	open       bool // a message has begun
	kind       kind
	compressed bool
	message    []byte
}

// breach is a violation of the protocol by the server.
type breach string

func (b breach) Error() string { return "server breaks the protocol: " + string(b) }

// next reads up to the next message or control frame.
func (in *inbound) next() (signal, error) {
	for {
		h, err := readFrame(in.in)
		if err != nil {
			return signal{}, err
		}
		if in.closed {
			return signal{}, breach("a frame after its close frame")
		}
		if h.op >= opClose {
			return in.control(h)
		}
		if whole, err := in.part(h); err != nil || whole {
			if err != nil {
				return signal{}, err
			}
			return in.finish()
		}
	}
}

func (in *inbound) control(h heard) (signal, error) {
	switch {
	case !h.fin || len(h.payload) > 125:
		return signal{}, breach("a control frame in fragments or above 125 octets")
	case h.rsv != 0:
		return signal{}, breach("a control frame with a reserved bit")
	case h.op == opPing:
		return signal{kind: ping, payload: h.payload}, nil
	case h.op == opPong:
		return signal{kind: pong, payload: h.payload}, nil
	case h.op != opClose:
		return signal{}, breach("a reserved control opcode")
	}
	in.closed = true
	s := signal{closing: true, payload: h.payload}
	code := s.code()
	switch {
	case len(h.payload) == 0:
		return s, nil
	case len(h.payload) == 1 || !utf8.Valid(h.payload[2:]):
		return s, breach("a close frame with half a code, or a text that is no UTF-8")
	case code < 1000, code >= 1004 && code <= 1006, code >= 1015 && code < 3000, code > 4999:
		return s, breach(fmt.Sprintf("close code %d on the wire (RFC 6455 §7.4)", code))
	}
	return s, nil
}

// part takes one data frame; whole says whether it was the message's last.
func (in *inbound) part(h heard) (whole bool, err error) {
	switch {
	case h.op > opBinary:
		return false, breach("a reserved opcode")
	case in.open != (h.op == opContinuation):
		return false, breach("a continuation with nothing to continue, or none where one is due")
	case h.rsv&^rsv1 != 0, h.rsv != 0 && (in.inflate == nil || in.open):
		return false, breach("a reserved bit that was not negotiated")
	}
	if !in.open {
		in.compressed, in.kind, in.message = h.rsv != 0, text, nil
		if h.op == opBinary {
			in.kind = binaryMessage
		}
	}
	in.message = append(in.message, h.payload...)
	in.open = !h.fin
	return h.fin, nil
}

func (in *inbound) finish() (signal, error) {
	message := in.message
	if in.compressed {
		var err error
		if message, err = in.inflate.decompress(message); err != nil {
			return signal{}, breach(err.Error())
		}
	}
	if in.kind == text && !utf8.Valid(message) {
		return signal{}, breach("a text that is no UTF-8")
	}
	return signal{kind: in.kind, payload: message, compressed: in.compressed}, nil
}
