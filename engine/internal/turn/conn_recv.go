package turn

import (
	"github.com/gobwas/ws"

	"github.com/parleyd/parley/engine/internal/rate"
	"github.com/parleyd/parley/protocol/deflate"
	"github.com/parleyd/parley/protocol/frame"
)

// The way in. A chunk is borrowed from the reactor and consumed whole: handshake, frames, messages. A message that lies in
// one chunk is passed on in place. A message in pieces is gathered in a buffer that the loop lends and takes back, so that
// an idle connection holds no buffer.

// input takes a chunk in the phase that the connection is in.
func (l *Loop) input(c *Conn, chunk []byte) {
	if c.Behindhand() {
		c.keepInput(chunk)
		return
	}
	for len(chunk) > 0 {
		switch c.Phase {
		case phasePreface:
			chunk = l.preface(c, chunk)
		case phaseHead:
			chunk = l.head(c, chunk)
		case PhaseVerdict:
			c.holdEarly(chunk)
			return
		case PhaseOpen:
			chunk = l.frames(c, chunk)
		case PhaseClosing:
			if c.Has(flagNoHandshake) {
				return // no further frame of the peer is awaited
			}
			chunk = l.frames(c, chunk)
		default:
			return // input during a refusal or a linger is discarded
		}
	}
}

// frames decodes until the chunk is exhausted, the turn is sated, or the connection takes no more frames.
func (l *Loop) frames(c *Conn, chunk []byte) []byte {
	var part frame.Part
	for c.Phase == PhaseOpen || c.Phase == PhaseClosing {
		part, chunk = c.decoder.Next(chunk)
		switch part.Kind {
		case frame.None:
			return nil
		case frame.Data:
			l.onData(c, &part)
		case frame.Ping:
			if c.Phase != PhaseClosing {
				c.emit(ws.OpPong, part.Payload)
			}
		case frame.Pong:
			l.Owner.Pong(c, part.Payload)
		case frame.Close:
			c.closeReceived(part.Payload)
		case frame.Broken:
			c.violate(part.Violation)
			return nil
		}
		switch {
		case len(chunk) == 0:
		case l.fresh(c):
			l.SinceLook++
		case c.Sated():
			c.keepInput(chunk)
			return nil
		}
	}
	return chunk
}

// onData gathers the parts of a message.
func (l *Loop) onData(c *Conn, part *frame.Part) {
	if c.Phase == PhaseClosing {
		return
	}
	payload := part.Payload
	if !part.First || !part.Last {
		if c.Buf == nil {
			l.Partial = append(l.Partial, c)
		}
		c.Buf = l.gatherInput(c.Buf, payload)
		if !part.Last {
			return
		}
		payload = c.Buf
	}
	if part.Compressed {
		l.inflate(c, part.Op, payload)
	} else {
		l.onMessage(c, part.Op == ws.OpBinary, payload)
	}
	if c.Buf != nil {
		c.freeInput()
	}
}

// inflate decompresses a message and passes it on. The result is bounded as every message is.
func (l *Loop) inflate(c *Conn, op ws.OpCode, compressed []byte) {
	var window *deflate.Window
	if c.Rare != nil {
		window = c.Rare.window
	}
	payload, outcome := deflate.Inflate(l.inflated[:0], compressed, int(l.Ground.Limits.Frame.MessageBytes), window)
	switch {
	case outcome == deflate.TooBig:
		c.violate(frame.TooBig)
	case outcome == deflate.TooMany:
		c.End(CauseProtocol, ws.StatusPolicyViolation, "a compressed message of too many parts")
	case outcome != deflate.OK:
		c.violate(frame.Damaged)
	case op == ws.OpText && !frame.ValidUTF8(payload):
		c.violate(frame.InvalidUTF8)
	default:
		l.onMessage(c, op == ws.OpBinary, payload)
	}
	l.inflated = payload[:0]
	if cap(payload) > CorkBytesKept {
		l.inflated = nil
	}
}

// onMessage passes one whole message to the owner. payload is borrowed.
func (l *Loop) onMessage(c *Conn, binary bool, payload []byte) {
	l.tally[CountReceived]++
	c.Received++
	l.Owner.Message(c, binary, payload)
}

// Weigh holds a message of c to the rate of messages, on c's loop. An owner calls it once for each message that comes.
//
// The record is in the rare part, which c gets with its first message, and loses at a heartbeat when it has been silent: a
// server without a rate has no byte of it, and neither has a connection that idles. Control frames are not messages. A flood
// of them costs what any input may cost: a turn's share of time, and no input is taken while the client does not read the
// answers.
func (l *Loop) Weigh(c *Conn) rate.Verdict {
	rule := l.Ground.Rate.Load()
	if rule == nil {
		return rate.Passes
	}
	v := c.Extra().record.Take(rule, cameSince(l), l.Now)
	if v != rate.Passes {
		l.Count[CountRateExceeded].Add(1)
	}
	return v
}

// gatherInput appends a piece to the buffer of a partial message, lending one first.
func (l *Loop) gatherInput(buf, piece []byte) []byte {
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
func (c *Conn) freeInput() {
	l := c.Loop
	if cap(c.Buf) > 0 && cap(c.Buf) <= inputBytesKept && len(l.buffers) < inputsKept {
		l.buffers = append(l.buffers, c.Buf[:0])
	}
	c.Buf = nil
}

const (
	inputBytesMin  = 512
	inputBytesKept = 64 << 10
	inputsKept     = 64
)
