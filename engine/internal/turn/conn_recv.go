package turn

import (
	"github.com/gobwas/ws"

	"github.com/parleyd/parley/protocol/deflate"
	"github.com/parleyd/parley/protocol/frame"
)

// The way in. A chunk is borrowed from the reactor and consumed whole: handshake, frames, messages. A message that lies in
// one chunk is passed on in place. A message in pieces is gathered in a buffer that the loop lends and takes back, so that
// an idle connection holds no buffer.

// input takes a chunk in the phase that the connection is in.
func (l *Loop) input(c *Conn, chunk []byte) {
	if c.Behindhand() {
		l.keepInput(c, chunk)
		return
	}
	for len(chunk) > 0 {
		switch c.Phase {
		case phasePreface:
			chunk = l.preface(c, chunk)
		case phaseHead:
			chunk = l.head(c, chunk)
		case PhaseVerdict:
			l.holdEarly(c, chunk)
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
			l.SinceLook++
		case l.Sated(c):
			l.keepInput(c, chunk)
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
		l.freeInput(c)
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
		l.violate(c, frame.TooBig)
	case outcome == deflate.TooMany:
		l.End(c, CauseProtocol, ws.StatusPolicyViolation, "a compressed message of too many parts")
	case outcome != deflate.OK:
		l.violate(c, frame.Damaged)
	case op == ws.OpText && !frame.ValidUTF8(payload):
		l.violate(c, frame.InvalidUTF8)
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
	l.Owner.Message(c, binary, payload)
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
func (l *Loop) freeInput(c *Conn) {
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
