package connect

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

// arrival is a frame of the server, or a whole message if it came in several frames; or the end of the connection.
//
// Owner: immutable.
type arrival struct {
	op      ws.OpCode
	payload []byte
	code    ws.StatusCode // of a close frame
	reason  string
	err     error // the connection has ended without a close frame
}

// fault is a breach of RFC 6455 by the server, with the code that it is told.
type fault struct {
	code ws.StatusCode
	text string
}

func (f *fault) Error() string { return f.text }

// link is one connection. A goroutine reads it, one message ahead at most.
//
// Owner: the conversation; the goroutine that reads owns in.
type link struct {
	conn     net.Conn
	in       *bufio.Reader
	arrivals chan arrival
	done     chan struct{} // closed when nothing is read from arrivals any more
	write    time.Duration
	closing  bool // a close frame was sent
	broken   bool // a frame could not be written
}

func newLink(conn net.Conn, in *bufio.Reader, write time.Duration) *link {
	l := &link{conn: conn, in: in, arrivals: make(chan arrival), done: make(chan struct{}), write: write}
	go l.read()
	return l
}

// end closes the connection.
func (l *link) end() {
	close(l.done)
	l.conn.Close()
}

// send writes a frame. If that fails, the goroutine that reads finds the end of the connection, behind what the server has sent.
func (l *link) send(op ws.OpCode, payload []byte) {
	if l.broken || l.closing {
		return
	}
	l.closing = op == ws.OpClose
	frame, err := ws.CompileFrame(ws.MaskFrame(ws.NewFrame(op, true, payload)))
	l.conn.SetWriteDeadline(time.Now().Add(l.write))
	if err == nil {
		_, err = l.conn.Write(frame)
	}
	if err != nil {
		l.broken = true
		l.conn.SetReadDeadline(time.Now().Add(brokenWait))
	}
}

// drain reads what the server still sends, behind the last arrival: if bytes were left unread, the kernel would reset the connection,
// and the server might not read our close frame.
func (l *link) drain(d time.Duration) {
	l.conn.SetReadDeadline(time.Now().Add(d))
	io.Copy(io.Discard, l.in)
}

const (
	brokenWait  = time.Second // for what the server has sent before it ended the connection
	interrupted = time.Second // that a write may take when the person has interrupted the client
)

// hurry ends a write that hangs when ctx is done.
func (l *link) hurry(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, func() { l.conn.SetWriteDeadline(time.Now().Add(interrupted)) })
}

// bye sends a close frame.
func (l *link) bye(code ws.StatusCode, reason string) {
	l.send(ws.OpClose, ws.NewCloseFrameBody(code, reason))
}

func (l *link) read() {
	defer close(l.arrivals)
	r := reader{in: l.in}
	for {
		a := r.next()
		select {
		case l.arrivals <- a:
		case <-l.done:
			return
		}
		if a.err != nil || a.op == ws.OpClose {
			return
		}
	}
}

// reader takes messages out of frames.
//
// Owner: the goroutine that reads.
type reader struct {
	in       *bufio.Reader
	op       ws.OpCode // of the message that has begun
	begun    bool
	fragment []byte
}

// next reads a control frame or a whole message.
func (r *reader) next() arrival {
	for {
		state := ws.StateClientSide
		if r.begun {
			state = state.Set(ws.StateFragmented)
		}
		h, err := ws.ReadHeader(r.in)
		switch {
		case errors.Is(err, ws.ErrHeaderLengthMSB), errors.Is(err, ws.ErrHeaderLengthUnexpected):
			return broke(ws.StatusProtocolError, "a frame has an impossible length")
		case err != nil:
			return arrival{err: err}
		}
		switch err := ws.CheckHeader(h, state); {
		case errors.Is(err, ws.ErrProtocolNonZeroRsv):
			return broke(ws.StatusProtocolError, "a frame is compressed, or has another extension, which was not agreed")
		case err != nil:
			return broke(ws.StatusProtocolError, err.Error())
		}
		if h.Length > messageBytesMax-int64(len(r.fragment)) {
			return broke(ws.StatusMessageTooBig, fmt.Sprintf("a message has more than %d bytes", messageBytesMax))
		}
		var payload bytes.Buffer // grows with what arrives, not with what the header promises
		if _, err := io.CopyN(&payload, r.in, h.Length); err != nil {
			return arrival{err: err}
		}
		if a, whole := r.take(h, payload.Bytes()); whole {
			return a
		}
	}
}

func broke(code ws.StatusCode, text string) arrival { return arrival{err: &fault{code, text}} }

// take adds a frame to the message. whole is false if further frames follow.
func (r *reader) take(h ws.Header, payload []byte) (a arrival, whole bool) {
	switch {
	case h.OpCode == ws.OpClose:
		return closed(payload), true
	case h.OpCode.IsControl():
		return arrival{op: h.OpCode, payload: payload}, true
	case h.OpCode != ws.OpContinuation:
		r.op = h.OpCode
	}
	r.begun = !h.Fin
	if !h.Fin {
		r.fragment = append(r.fragment, payload...)
		return a, false
	}
	if r.fragment != nil {
		payload = append(r.fragment, payload...)
		r.fragment = nil
	}
	if r.op == ws.OpText && !utf8.Valid(payload) {
		return broke(ws.StatusInvalidFramePayloadData, "a text is not valid UTF-8"), true
	}
	return arrival{op: r.op, payload: payload}, true
}

// closed reads a close frame.
func closed(payload []byte) arrival {
	if len(payload) == 0 {
		return arrival{op: ws.OpClose, code: ws.StatusNoStatusRcvd}
	}
	code, reason := ws.ParseCloseFrameData(payload)
	if len(payload) == 1 || code < 1000 || code > 4999 || code == ws.StatusNoStatusRcvd || code == ws.StatusAbnormalClosure || !utf8.ValidString(reason) {
		return broke(ws.StatusProtocolError, "a close frame is malformed")
	}
	return arrival{op: ws.OpClose, code: code, reason: reason}
}
