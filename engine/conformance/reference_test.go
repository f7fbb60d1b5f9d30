package conformance

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"
)

// reference is a strict echo server, blocking and slow, with faults that a test can plant by name. It
// proves the suite: without a fault every case passes, with one the right cases fail.
//
// Owner: immutable after startReference.
type reference struct {
	faults   []string
	listener net.Listener
	conns    sync.WaitGroup
}

// startReference serves on loopback until the test ends.
func startReference(t testing.TB, faults ...string) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &reference{faults: faults, listener: listener}
	s.conns.Go(s.accept)
	t.Cleanup(func() {
		_ = listener.Close()
		s.conns.Wait()
	})
	return listener.Addr().String()
}

func (s *reference) has(fault string) bool { return slices.Contains(s.faults, fault) }

func (s *reference) accept() {
	for {
		tcp, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.conns.Go(func() {
			defer tcp.Close()
			// A player gives up long before; this deadline ends connections that a planted fault leaves open.
			_ = tcp.SetDeadline(time.Now().Add(3 * time.Minute))
			c := &refConn{reference: s, tcp: tcp.(*net.TCPConn), in: bufio.NewReaderSize(tcp, 64<<10)}
			if c.shakeHands() == nil {
				c.serve()
			}
		})
	}
}

// refConn is one connection of the reference.
//
// Owner: its goroutine.
type refConn struct {
	*reference
	tcp      *net.TCPConn
	in       *bufio.Reader
	out      []byte
	terms    *terms
	deflate  *compressor
	inflate  *decompressor
	begun    bool
	op       byte
	squeezed bool
	message  []byte
	valid    int // octets of message known to be UTF-8, up to a code point's end
	owed     [][]byte
}

// errOver ends a connection whose close frame has been sent.
var errOver = errors.New("over")

func (c *refConn) shakeHands() error {
	request, err := http.ReadRequest(c.in)
	if err != nil {
		return err
	}
	sum := sha1.Sum([]byte(request.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	answer := "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " +
		base64.StdEncoding.EncodeToString(sum[:]) + "\r\n"
	if extension := c.accepts(request.Header.Get("Sec-WebSocket-Extensions")); extension != "" {
		answer += "Sec-WebSocket-Extensions: " + extension + "\r\n"
	}
	_, err = c.tcp.Write([]byte(answer + "\r\n"))
	return err
}

// accepts takes the first valid alternative.
func (c *refConn) accepts(offer string) (extension string) {
	for _, alternative := range strings.Split(offer, ",") {
		asked, err := parameters(alternative)
		if err != nil && !(c.has("accepts nonsense") && strings.Contains(alternative, "permessage-deflate")) {
			continue
		}
		extension = "permessage-deflate"
		c.terms = &terms{serverBits: 15, clientBits: 15}
		if _, wanted := asked[serverForgets]; wanted {
			c.terms.serverForgets = !c.has("context kept")
			extension += "; " + serverForgets
		}
		if value := asked[serverBits]; value != "" {
			if !c.has("window overrun") {
				_, _ = fmt.Sscan(value, &c.terms.serverBits)
			}
			extension += "; " + serverBits + "=" + value
		}
		if _, allowed := asked[clientBits]; allowed && c.has("small client window") {
			c.terms.clientBits = 9
			extension += "; " + clientBits + "=9"
		}
		if c.has("client forgets") {
			c.terms.clientForgets = true
			extension += "; " + clientForgets
		}
		c.deflate = newCompressor(c.terms.serverBits, c.terms.serverForgets)
		c.inflate = newDecompressor(c.terms.clientBits, c.terms.clientForgets || c.has("client's context lost"))
		return extension
	}
	return ""
}

// serve reads frames until the end, then lingers: closing with octets unread would reset the connection
// and could take the close frame with it.
func (c *refConn) serve() {
	for {
		if err := c.frame(); err != nil {
			break
		}
		if c.in.Buffered() == 0 && c.flush() != nil {
			return
		}
	}
	if c.has("no close frame") {
		return
	}
	if c.flush() != nil || c.has("never ends the stream") {
		_, _ = io.Copy(io.Discard, c.in)
		return
	}
	_ = c.tcp.CloseWrite()
	_, _ = io.Copy(io.Discard, c.in)
}

func (c *refConn) flush() error {
	out := c.out
	c.out = nil
	_, err := c.tcp.Write(out)
	return err
}

// fail ends the connection with a close frame.
func (c *refConn) fail(code int) error {
	if c.has("failing drops what is owed") {
		c.out = nil
	}
	c.say(opClose, []byte(closeBody(code, "")))
	return errOver
}

// say queues one frame.
func (c *refConn) say(first byte, payload []byte) {
	first |= 0x80
	if c.has("masks") {
		c.out = appendFrame(c.out, first, payload)
		return
	}
	switch n := len(payload); {
	case n <= 125 && !c.has("long lengths"):
		c.out = append(c.out, first, byte(n))
	case n <= 0xffff && !(n == 0xffff && c.has("65535 in 64 bits")):
		c.out = binary.BigEndian.AppendUint16(append(c.out, first, 126), uint16(n))
	default:
		c.out = binary.BigEndian.AppendUint64(append(c.out, first, 127), uint64(n))
	}
	c.out = append(c.out, payload...)
}

// frame reads one frame and acts on it.
func (c *refConn) frame() error {
	var head [2]byte
	if _, err := io.ReadFull(c.in, head[:]); err != nil {
		return err
	}
	fin, bits, op := head[0]&0x80 != 0, head[0]>>4&7, head[0]&15
	if c.has("header judged late") {
		_, _ = c.in.Peek(4)
	}
	if code := c.judge(fin, bits, op, head[1]); code != 0 {
		return c.fail(code)
	}
	length, err := c.length(head[1] & 0x7f)
	if err != nil {
		return err
	}
	var key [4]byte
	if head[1]&0x80 != 0 {
		if _, err = io.ReadFull(c.in, key[:]); err != nil {
			return err
		}
	}
	if op >= opClose {
		payload := make([]byte, length)
		if _, err = io.ReadFull(c.in, payload); err != nil {
			return err
		}
		unmask(payload, key, 0)
		return c.control(op, payload)
	}
	if op > opBinary { // only a planted fault lets it through
		_, err = c.in.Discard(length)
		return err
	}
	return c.part(fin, bits, op, length, key)
}

// judge checks the first two octets of a header.
func (c *refConn) judge(fin bool, bits, op, second byte) (code int) {
	compressible := c.terms != nil && bits == rsv1 && (op == opText || op == opBinary)
	switch {
	case bits != 0 && !compressible && !c.has("reserved bits pass") &&
		!(c.has("RSV2 passes with deflate") && c.terms != nil && bits&rsv1 != 0 && op == opText):
	case second&0x80 == 0 && !c.has("unmasked passes"):
	case (op > opBinary && op < opClose || op > opPong) && !c.has("reserved opcodes pass"):
	case op >= opClose && !fin && !c.has("control in fragments passes"):
	case op >= opClose && second&0x7f > 125 && !c.has("large control passes"):
	case op == opContinuation && !c.begun && !c.has("stray continuation passes"):
	case (op == opText || op == opBinary) && c.begun && !c.has("new message passes"):
	default:
		return 0
	}
	return 1002
}

func (c *refConn) length(short byte) (int, error) {
	width, least := 0, uint64(0)
	switch short {
	case 126:
		width, least = 2, 126
	case 127:
		width, least = 8, 1<<16
	default:
		return int(short), nil
	}
	var octets [8]byte
	if _, err := io.ReadFull(c.in, octets[8-width:]); err != nil {
		return 0, err
	}
	length := binary.BigEndian.Uint64(octets[:])
	switch {
	case length >= 1<<63, length < least && !c.has("long lengths pass"):
		return 0, c.fail(1002)
	case length > 32<<20 && !c.has("any length passes"):
		return 0, c.fail(1009)
	}
	return int(length), nil
}

func unmask(payload []byte, key [4]byte, at int) {
	for i := range payload {
		payload[i] ^= key[(at+i)&3]
	}
}

func (c *refConn) control(op byte, payload []byte) error {
	if c.has("control ends a message") && c.begun {
		c.begun, c.message = false, nil
	}
	switch op {
	case opPing:
		switch {
		case c.has("empty pongs"):
			payload = nil
		case c.has("one pong for many") && c.in.Buffered() > 0:
			return nil
		case c.has("pong after the message") && c.begun:
			c.owed = append(c.owed, payload)
			return nil
		}
		c.say(opPong, payload)
		return nil
	case opClose:
		return c.closing(payload)
	case opPong:
		if c.has("answers pongs") {
			c.say(opPong, payload)
		}
	}
	return nil
}

func (c *refConn) closing(payload []byte) error {
	if len(payload) == 0 {
		if c.has("1005 on the wire") {
			return c.fail(1005)
		}
		c.say(opClose, nil)
		return c.answered()
	}
	if len(payload) == 1 && !c.has("half a code passes") {
		return c.fail(1002)
	}
	code := int(payload[0]) << 8
	if len(payload) > 1 {
		code |= int(payload[1])
	} else {
		code = 1000
	}
	legal := code >= 1000 && code <= 1014 && (code < 1004 || code > 1006) || code >= 3000 && code <= 4999 ||
		code > 4999 && c.has("5000 passes") || code == 1005 && c.has("1005 passes") || code == 1016 && c.has("1016 passes")
	switch {
	case !legal, code == 3000 && c.has("3000 fails"):
		return c.fail(1002)
	case len(payload) > 2 && !utf8.Valid(payload[2:]) && !c.has("close text unchecked"):
		return c.fail(1007)
	case code == 1005 || code == 1016:
		code = 1000
	}
	if err := c.fail(code); !c.has("goes on after close") {
		return err
	}
	return c.answered()
}

// answered ends the connection after a close, unless a fault keeps it open.
func (c *refConn) answered() error {
	if !c.has("goes on after close") {
		return errOver
	}
	for c.in.Buffered() > 0 && c.frame() == nil {
		continue
	}
	return errOver
}

// part reads a data frame's payload as it comes in, and checks text as it comes in.
func (c *refConn) part(fin bool, bits, op byte, length int, key [4]byte) error {
	if op != opContinuation || !c.begun {
		c.op, c.squeezed, c.message, c.valid = op, bits&rsv1 != 0 && c.terms != nil, nil, 0
		if op == opContinuation {
			c.op = opText
		}
	}
	c.begun = true
	piece := make([]byte, min(length, 64<<10))
	for at := 0; at < length; {
		n, err := c.in.Read(piece[:min(len(piece), length-at)])
		if err != nil {
			return err
		}
		unmask(piece[:n], key, at)
		at += n
		c.message = append(c.message, piece[:n]...)
		if !c.squeezed && !c.utf8SoFar(false) {
			return c.fail(1007)
		}
	}
	if !fin {
		return nil
	}
	c.begun = false
	return c.whole()
}

// utf8SoFar checks the text added since the last call; until the end, its last code point may be incomplete.
func (c *refConn) utf8SoFar(end bool) bool {
	if c.op != opText || c.has("no UTF-8 check") || !end && c.has("UTF-8 checked at the end") {
		return true
	}
	for c.valid < len(c.message) {
		r, size := utf8.DecodeRune(c.message[c.valid:])
		if r == utf8.RuneError && size == 1 {
			rest := c.message[c.valid:]
			return !end && !utf8.FullRune(rest)
		}
		c.valid += size
	}
	return true
}

// whole echoes a message.
func (c *refConn) whole() error {
	message := c.message
	if c.squeezed {
		var err error
		if message, err = c.inflate.decompress(message); err != nil && !c.has("broken deflate passes") {
			return c.fail(1007)
		}
		c.message, c.valid = message, 0
	}
	if !c.utf8SoFar(true) {
		return c.fail(1007)
	}
	if c.has("echo loses its last octet above 64 KB") && len(message) > 64<<10 {
		message = message[:len(message)-1]
	}
	op := c.op
	if c.has("text comes back as binary") {
		op = opBinary
	}
	if c.terms != nil && !c.has("never compresses") {
		message, op = c.deflate.compress(message), op|rsv1<<4
	}
	c.say(op, message)
	for _, payload := range c.owed {
		c.say(opPong, payload)
	}
	c.owed, c.message = nil, nil
	return nil
}
