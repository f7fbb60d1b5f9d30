package api

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/parleyd/parley/protocol/frame"
	"github.com/parleyd/parley/protocol/message"
)

// A backend with much to say sends its requests as messages on a WebSocket. One goroutine reads and carries out in order; one
// writes, and waits for the bus once for all answers that are ready. What the backend does not read fills the queue between
// them; then its messages are not read.

const (
	socketsMax     = 256
	unansweredMax  = 10_000  // messages
	unreadBytesMax = 8 << 20 // of answers
	socketPing     = 20 * time.Second
	socketSilence  = 60 * time.Second // without a frame, or for one message to arrive
	refBytesMax    = 128
	nonceBytes     = 16 // of a handshake
)

// socket is a backend's WebSocket.
//
// Owner: the reading goroutine, except the queue.
type socket struct {
	server  *Server
	conn    net.Conn
	in      *wsutil.Reader
	ctx     context.Context
	cancel  context.CancelFunc
	key     *key
	request string
	queue   answerQueue
	call    call               // of all messages: one that was carried out needs it no more
	watch   context.CancelFunc // ends the watch; nil: there is none
}

// queued is a frame on its way to the backend.
//
// Owner: the goroutine that has it.
type queued struct {
	op   ws.OpCode
	text []byte
	sent bool // the text is a result that waits for the bus
	ref  []byte
	size int // that counts in the queue: a text grows when it is settled
}

// answerQueue is between the goroutines of a socket.
//
// Owner: shared (mutex: mu).
type answerQueue struct {
	mu    sync.Mutex
	moved sync.Cond // its mutex is mu
	list  []queued
	count int // of those that the writer has taken and not written, too
	bytes int
	ended bool
}

// put adds a frame. It waits for space where the caller can; else a frame that finds none is dropped. It reports whether the
// frame was taken.
func (q *answerQueue) put(one queued, waits bool) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for waits && !q.ended && (q.count >= unansweredMax || q.bytes >= unreadBytesMax) {
		q.moved.Wait()
	}
	if q.ended || !waits && q.count > 0 {
		return false
	}
	one.size = len(one.text)
	q.list = append(q.list, one)
	q.count++
	q.bytes += one.size
	q.moved.Broadcast()
	return true
}

// take waits for frames, and takes all; none means the end. The frames taken before are written.
func (q *answerQueue) take(written []queued) []queued {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.count -= len(written)
	for i := range written {
		q.bytes -= written[i].size
	}
	q.moved.Broadcast()
	for len(q.list) == 0 && !q.ended {
		q.moved.Wait()
	}
	list := q.list
	q.list = nil
	return list
}

func (q *answerQueue) end() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ended = true
	q.moved.Broadcast()
}

// finish ends the queue behind a close frame.
func (q *answerQueue) finish(code ws.StatusCode, reason string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.ended {
		q.list = append(q.list, queued{op: ws.OpClose, text: ws.NewCloseFrameBody(code, reason)})
		q.count++
	}
	q.ended = true
	q.moved.Broadcast()
}

// checkHandshake refuses a handshake that the upgrader would refuse, which knows no problem documents [RFC 6455 §4.2.1].
func checkHandshake(r *http.Request) *problem {
	upgrades := false
	for option := range strings.SplitSeq(r.Header.Get("Connection"), ",") {
		upgrades = upgrades || strings.EqualFold(strings.TrimSpace(option), "upgrade")
	}
	nonce, err := base64.StdEncoding.DecodeString(r.Header.Get("Sec-WebSocket-Key"))
	switch {
	case r.Method != http.MethodGet, !r.ProtoAtLeast(1, 1), !upgrades, !strings.EqualFold(r.Header.Get("Upgrade"), "websocket"):
		return &problem{code: invalidRequest, detail: "the path is for WebSocket clients: ask for an upgrade"}
	case r.Header.Get("Sec-WebSocket-Version") != "13":
		return &problem{code: invalidRequest, detail: "Sec-WebSocket-Version: give 13"}
	case err != nil || len(nonce) != nonceBytes:
		return &problem{code: invalidRequest, detail: "Sec-WebSocket-Key: give 16 random bytes in base64"}
	}
	return nil
}

// serveSocket upgrades a request, and serves the socket until it ends.
func (s *Server) serveSocket(v *visit) *problem {
	if wrong := checkHandshake(v.r); wrong != nil {
		return wrong
	}
	select {
	case s.sockets.places <- struct{}{}:
		defer func() { <-s.sockets.places }()
	default:
		return &problem{code: overloaded, detail: strconv.Itoa(socketsMax) + " sockets are open"}
	}
	conn, rw, _, err := ws.HTTPUpgrader{Timeout: headTimeout, Header: http.Header{"Parley-Request": {v.request}}}.Upgrade(v.r, v.w)
	if err != nil {
		s.log.Debug("api socket refused", "request", v.request, "err", err)
		if conn != nil {
			conn.Close()
		}
		return nil // the upgrader has answered
	}
	defer conn.Close()
	k := &socket{server: s, conn: conn, key: v.key, request: v.request}
	k.ctx, k.cancel = context.WithCancel(context.WithoutCancel(v.r.Context()))
	defer k.cancel()
	k.queue.moved.L = &k.queue.mu
	k.in = &wsutil.Reader{Source: rw, State: ws.StateServerSide, MaxFrameSize: s.socketMessageMax(), OnIntermediate: k.control}
	if !s.sockets.add(k) {
		return nil // the server ends
	}
	defer s.sockets.remove(k)
	defer k.queue.end()
	wrote := make(chan struct{})
	go func() {
		defer close(wrote)
		k.writeAll()
	}()
	code, reason := k.readAll()
	if k.watch != nil {
		k.watch()
	}
	k.queue.finish(code, reason)
	<-wrote
	return nil
}

func (s *Server) socketMessageMax() int64 {
	return max(s.publishMax.bytes, batchBytesMax) + refBytesMax
}

// errClosed says that the backend has closed its socket.
var errClosed = errors.New("closed by the backend")

// control answers a control frame.
func (k *socket) control(h ws.Header, r io.Reader) error {
	payload := make([]byte, h.Length) // 125 bytes at most: the reader checks headers
	if _, err := io.ReadFull(r, payload); err != nil {
		return err
	}
	switch h.OpCode {
	case ws.OpPing:
		k.queue.put(queued{op: ws.OpPong, text: payload}, true)
	case ws.OpClose:
		return errClosed
	}
	return nil
}

// readAll carries out messages until the socket ends, and says how.
func (k *socket) readAll() (code ws.StatusCode, reason string) {
	var text bytes.Buffer
	for {
		k.conn.SetReadDeadline(time.Now().Add(socketSilence))
		h, err := k.in.NextFrame()
		switch {
		case err == nil && h.OpCode.IsControl():
			err = k.control(h, k.in)
		case err == nil:
			text.Reset()
			_, err = text.ReadFrom(io.LimitReader(k.in, k.server.socketMessageMax()+1))
		}
		switch {
		case errors.Is(err, wsutil.ErrFrameTooLarge), err == nil && int64(text.Len()) > k.server.socketMessageMax():
			return ws.StatusMessageTooBig, "a message has at most " + strconv.FormatInt(k.server.socketMessageMax(), 10) + " bytes"
		case errors.As(err, new(ws.ProtocolError)), errors.Is(err, ws.ErrHeaderLengthMSB):
			return ws.StatusProtocolError, err.Error()
		case err != nil:
			return ws.StatusNormalClosure, ""
		case h.OpCode.IsControl():
			continue
		case h.OpCode != ws.OpText:
			return ws.StatusUnsupportedData, "send text"
		case !frame.ValidUTF8(text.Bytes()): // wsutil looks at one byte after the other
			return ws.StatusInvalidFramePayloadData, "the message is not valid UTF-8"
		}
		if k.key = k.server.keys.Load().again(k.key, time.Now()); k.key == nil {
			return ws.StatusPolicyViolation, "the key is not good any more"
		}
		if !k.queue.put(k.carryOut(text.Bytes()), true) {
			return ws.StatusGoingAway, ""
		}
	}
}

// again finds the same key after a reload; nil if it is gone or its time has come.
func (all *Keys) again(old *key, now time.Time) *key {
	for _, one := range all.byID[old.id] {
		if one.sum == old.sum && !one.over(now) {
			return one
		}
	}
	return nil
}

// carryOut carries out one message.
func (k *socket) carryOut(text []byte) queued {
	c := &k.call
	*c = call{object: object{raw: text, named: true, noted: true}, ctx: k.ctx, now: time.Now(), key: k.key, request: k.request,
		publish: c.publish}
	var ref []byte
	did := false // the name of the operation stands in front, so that the rest need not be read for the ref
	message.EachMember(text, func(name, value []byte) bool {
		switch string(name) {
		case "ref":
			ref = bytes.Clone(value)
		case "do":
			did = true
		}
		return ref == nil || !did
	})
	result, wrong := []byte(nil), (*problem)(nil)
	if len(ref) > refBytesMax {
		ref, wrong = nil, invalid([]fault{{"/ref", "a ref has at most " + strconv.Itoa(refBytesMax) + " bytes"}})
	} else {
		result, wrong = k.operate(c)
	}
	if wrong != nil {
		return queued{op: ws.OpText, text: envelope(ref, "problem", wrong.append(nil, k.request))}
	}
	if c.sent {
		return queued{op: ws.OpText, text: result, sent: true, ref: ref}
	}
	return queued{op: ws.OpText, text: envelope(ref, "result", result)}
}

// envelope is an answer with the ref of its message.
func envelope(ref []byte, word string, value []byte) []byte {
	dst := make([]byte, 0, len(ref)+len(value)+24)
	dst = append(dst, '{')
	if ref != nil {
		dst = append(append(append(dst, `"ref":`...), ref...), ',')
	}
	dst = append(append(append(dst, '"'), word...), `":`...)
	return append(append(dst, value...), '}')
}

// writeAll writes frames until the queue ends, and pings.
func (k *socket) writeAll() {
	defer k.cancel()
	defer k.conn.Close() // so that the reader ends
	defer k.queue.end()
	var ping *time.Timer
	ping = time.AfterFunc(socketPing, func() {
		k.queue.put(queued{op: ws.OpPing}, false)
		ping.Reset(socketPing)
	})
	defer ping.Stop()
	var out bytes.Buffer
	for list := k.queue.take(nil); len(list) > 0; list = k.queue.take(list) {
		k.settle(list)
		for i := range list {
			f := ws.NewFrame(list[i].op, true, list[i].text)
			if ws.WriteFrame(&out, f) != nil || out.Len() >= chunkBytes && !k.flush(&out) {
				return
			}
		}
		if !k.flush(&out) {
			return
		}
	}
}

// settle waits for the bus once for all publishes in a list, and makes their answers.
func (k *socket) settle(list []queued) {
	var results []*[]byte
	for i := range list {
		if list[i].sent {
			results = append(results, &list[i].text)
		}
	}
	if results == nil {
		return
	}
	k.server.settle(&call{ctx: k.ctx}, results...)
	for i := range list {
		if one := &list[i]; one.sent {
			one.text = envelope(one.ref, "result", one.text)
		}
	}
}

func (k *socket) flush(out *bytes.Buffer) bool {
	k.conn.SetWriteDeadline(time.Now().Add(k.server.lineTimeout))
	_, err := out.WriteTo(k.conn)
	return err == nil
}
