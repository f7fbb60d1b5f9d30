package engine

import (
	"github.com/gobwas/ws"

	"github.com/parleyd/parley/protocol/deflate"
	"github.com/parleyd/parley/protocol/frame"
)

// The way in. A chunk is borrowed from the reactor and consumed whole: handshake, frames, messages. A
// message that lies in one chunk is handed on where it lies; one that comes in pieces is gathered in a
// buffer that the loop lends and takes back, so that a connection that idles holds none.

// input takes a chunk through whatever phase the connection is in.
func (l *turnLoop) input(c *turnConn, chunk []byte) {
	if c.behindhand() {
		l.keepInput(c, chunk)
		return
	}
	for len(chunk) > 0 {
		switch c.phase {
		case phasePreface:
			chunk = l.preface(c, chunk)
		case phaseHead:
			chunk = l.head(c, chunk)
		case phaseVerdict:
			l.holdEarly(c, chunk)
			return
		case phaseOpen:
			chunk = l.frames(c, chunk)
		case phaseClosing:
			if c.has(flagNoHandshake) {
				return // nothing is awaited of the peer
			}
			chunk = l.frames(c, chunk)
		default:
			return // what comes while a refusal leaves, or while we linger, is thrown away
		}
	}
}

// frames decodes until the chunk is exhausted, the turn has enough, or the connection is past frames.
func (l *turnLoop) frames(c *turnConn, chunk []byte) []byte {
	var part frame.Part
	for c.phase == phaseOpen || c.phase == phaseClosing {
		part, chunk = c.decoder.Next(chunk)
		switch part.Kind {
		case frame.None:
			return nil
		case frame.Data:
			l.onData(c, &part)
		case frame.Ping:
			if c.phase != phaseClosing {
				l.emit(c, ws.OpPong, part.Payload)
			}
		case frame.Close:
			l.closeReceived(c, part.Payload)
		case frame.Broken:
			l.violate(c, part.Violation)
			return nil
		}
		switch {
		case len(chunk) == 0:
		case l.fresh(c):
			l.sinceLook++
		case l.sated(c):
			l.keepInput(c, chunk)
			return nil
		}
	}
	return chunk
}

// onData gathers the parts of a message.
func (l *turnLoop) onData(c *turnConn, part *frame.Part) {
	if c.phase == phaseClosing {
		return
	}
	payload := part.Payload
	if !part.First || !part.Last {
		c.buf = l.gatherInput(c.buf, payload)
		if !part.Last {
			return
		}
		payload = c.buf
	}
	if part.Compressed {
		l.inflate(c, part.Op, payload)
	} else {
		l.onMessage(c, part.Op == ws.OpBinary, payload)
	}
	if c.buf != nil {
		l.freeInput(c)
	}
}

// inflate hands on a compressed message. The outcome is bounded like any message.
func (l *turnLoop) inflate(c *turnConn, op ws.OpCode, compressed []byte) {
	var window *deflate.Window
	if c.rare != nil {
		window = c.rare.window
	}
	payload, outcome := deflate.Inflate(l.inflated[:0], compressed, int(l.ground.limits.frame.MessageBytes), window)
	switch {
	case outcome == deflate.TooBig:
		l.violate(c, frame.TooBig)
	case outcome == deflate.TooMany:
		l.end(c, CauseProtocol, ws.StatusPolicyViolation, "a compressed message of too many parts")
	case outcome != deflate.OK:
		l.violate(c, frame.Damaged)
	case op == ws.OpText && !frame.ValidUTF8(payload):
		l.violate(c, frame.InvalidUTF8)
	default:
		l.onMessage(c, op == ws.OpBinary, payload)
	}
	l.inflated = payload[:0]
	if cap(payload) > corkBytesKept {
		l.inflated = nil
	}
}

// onMessage takes one whole message. payload is borrowed.
func (l *turnLoop) onMessage(c *turnConn, binary bool, payload []byte) {
	l.tally[countReceived]++
	l.owner.message(c, binary, payload)
}

// gatherInput appends a piece to the buffer of a partial message, lending one first.
func (l *turnLoop) gatherInput(buf, piece []byte) []byte {
	if buf == nil {
		if n := len(l.buffers); n > 0 {
			buf = l.buffers[n-1]
			l.buffers = l.buffers[:n-1]
		} else {
			buf = make([]byte, 0, max(len(piece), inputBytesMin))
		}
	}
	return append(buf, piece...)
}

// freeInput takes the buffer of a partial message back.
func (l *turnLoop) freeInput(c *turnConn) {
	if cap(c.buf) > 0 && cap(c.buf) <= inputBytesKept && len(l.buffers) < inputsKept {
		l.buffers = append(l.buffers, c.buf[:0])
	}
	c.buf = nil
}

const (
	inputBytesMin  = 512
	inputBytesKept = 64 << 10
	inputsKept     = 64
)
