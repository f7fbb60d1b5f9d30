package engine

import (
	"errors"
	"fmt"
	"maps"
	"unicode/utf8"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/frame"
	"github.com/parleyd/parley/protocol/message"
)

// A message meets its handler here: built-in, or the application's. Handlers of the application run under guard (guard.go).

// M is a JSON object, for replies and broadcasts that need no type of their own.
type M = map[string]any

// Handler handles messages of one type. Its result is the reply, encoded as JSON, with the client's ref put in. A []byte is
// the reply itself; the handler may use its bytes again after the return. nil, or a nil pointer, means no reply. An error is
// answered with an `error` message: an [Error] with its code, any other with the code "internal" and its text; a nil pointer
// in an error is no error. A panic, also in a method of the result, costs the connection (1011). runtime.Goexit, which
// testing.T.FailNow calls, costs the connection if the handler was offloaded, and the process if it runs on a loop.
//
// It runs on the connection's loop and must not block, unless registered with [Offload]. m is borrowed until it returns.
type Handler func(c *Conn, m *Message, s *Server) (any, error)

// Middleware wraps a handler: it may check the message before, change the outcome after, or refuse.
type Middleware func(Handler) Handler

// RawHandler handles messages that are no JSON object: binary messages, and other text. Its result is the reply, of the same
// kind as the message; nil means none. payload is borrowed until it returns; it runs on the loop and must not block. A reply
// to text must be valid UTF-8.
type RawHandler func(c *Conn, payload []byte, binary bool) (reply []byte)

// Error is a refusal with a code for the client; the connection lives on.
type Error struct {
	Code    string // one of the wire protocol's codes, or one of the application's
	Message string // for a person: the fault and its correction
}

func (e *Error) Error() string {
	if e == nil {
		return "no error" // a nil pointer in a chain of errors
	}
	return e.Code + ": " + e.Message
}

func wireError(code message.Code) *Error { return &Error{Code: code.String(), Message: code.Text()} }

var (
	errOverloaded  = wireError(message.Overloaded)
	errUnavailable = wireError(message.Unavailable)
)

// ErrOverloaded is the error for a full mailbox of a loop: the message was sent to no connection. Try again.
var ErrOverloaded error = errOverloaded

// ErrOnLoop says that a call would wait for an event loop, and was made on one: by a handler or a listener. Register the
// handler with [Offload], or make the call on a goroutine of its own.
var ErrOnLoop = errors.New("the call would wait for the event loop that it is made on: register the handler with engine.Offload()")

// ErrUnavailable is the error when the bus or the store that workers share did not answer in time. Try again.
var ErrUnavailable error = errUnavailable

// Message is a client's message as a handler sees it. All of it is borrowed until the handler returns.
//
// Owner: the handler, until it returns.
type Message struct {
	typ     string
	room    []byte
	ref     []byte
	payload []byte
}

// Type is the message's type.
func (m *Message) Type() string { return m.typ }

// Room is the message's room, or "".
func (m *Message) Room() string { return string(m.room) }

// Payload is the whole message, a JSON object. Borrowed.
func (m *Message) Payload() []byte { return m.payload }

// Decode fills v from the message's JSON. The caller may keep v. The error is an *[Error] that names the wrong field and its
// type for the client.
func (m *Message) Decode(v any) error {
	if err := message.Decode(m.payload, v); err != nil {
		return mismatch(m, v)
	}
	return nil
}

func (m *Message) clone() *Message {
	own := &Message{typ: m.typ, room: append([]byte(nil), m.room...), payload: append([]byte(nil), m.payload...)}
	if m.ref != nil {
		own.ref = append([]byte(nil), m.ref...)
	}
	return own
}

// route is the handling of messages of one type.
//
// Owner: immutable once registered.
type route struct {
	name    string
	builtin func(l *loop, c *Conn, e *message.Envelope)
	handler Handler // with its middleware; nil for a built-in type without middleware
	offload bool
}

// dispatch takes a message to its handler. payload is borrowed.
func (l *loop) dispatch(c *Conn, binary bool, payload []byte) {
	raw, e := l.srv.rawHandler.Load(), &l.envelope
	opaque, code := binary, message.OK
	var ref []byte
	if !opaque {
		code = message.Route(payload, e)
		opaque = code == message.InvalidJSON && raw != nil && !message.IsBarePong(payload)
		ref = e.Ref
	}
	switch {
	case opaque && raw == nil:
		if binary {
			l.endBy(c, CauseUnsupported)
		}
	case c.has(flagAuth) && (opaque || code == message.OK && !beforeAuth(e.Type)):
		l.complain(c, wireError(message.AuthRequired), ref)
	case opaque:
		l.raw(c, *raw, binary, payload)
	case code == message.OK:
		l.routed(c, e, payload)
	case message.IsBarePong(payload):
	default:
		l.complain(c, wireError(code), ref)
	}
}

// beforeAuth reports whether a message of a type is taken from a connection that has not authenticated [wire protocol,
// authentication]. No other message of it reaches a handler, with a type or without.
func beforeAuth(typ []byte) bool {
	switch string(typ) {
	case "auth", "ping", "pong":
		return true
	}
	return false
}

// routed takes a well-formed message to its handler.
func (l *loop) routed(c *Conn, e *message.Envelope, payload []byte) {
	r := (*l.srv.routes.Load())[string(e.Type)]
	if l.srv.emitter.hears(EventMessage) {
		m := Message{typ: string(e.Type), room: e.Room, ref: e.Ref, payload: payload}
		l.srv.emit(Event{Kind: EventMessage, Conn: c, Message: &m})
	}
	switch {
	case r == nil:
		l.complain(c, &Error{Code: message.UnknownType.String(),
			Message: fmt.Sprintf("no handler for messages of type %q", clip(e.Type))}, e.Ref)
	case r.handler == nil:
		r.builtin(l, c, e)
	default:
		l.announce() // announce members that joined before this message before its handler broadcasts
		m := Message{typ: r.name, room: e.Room, ref: e.Ref, payload: payload}
		if r.offload {
			l.runOffloaded(c, r, &m)
			return
		}
		l.runHandler(c, r, &m)
	}
}

// runHandler runs a handler on the loop, in this turn.
func (l *loop) runHandler(c *Conn, r *route, m *Message) {
	begun, posts := l.srv.clock(), l.Mail.Posts.Load()
	out := l.srv.run(c, r, m)
	took := l.srv.clock() - begun
	if took > int64(turn.DrainBudget)/turn.LookEvery {
		l.SinceLook = turn.LookEvery // look at the clock before the next message
	}
	if took > int64(handlerSlow) {
		l.Held(r.name, took)
	}
	if l.Mail.Posts.Load() != posts {
		// The handler's broadcasts are in the mailbox: the reply goes behind them.
		l.afterLetters(c, func() { l.reply(c, r.name, m.ref, out) })
		return
	}
	l.reply(c, r.name, m.ref, out)
}

// afterLetters sends the answers of f through the mailbox.
func (l *loop) afterLetters(c *Conn, f func()) {
	c.wire.Posted.Add(1)
	f()
	c.wire.Posted.Add(-1)
}

// reply answers with a handler's outcome. ref is borrowed.
func (l *loop) reply(c *Conn, name string, ref []byte, out outcome) {
	if out.failed != nil {
		l.srv.log.Warn("a handler failed", "handler", name, "conn", c.ID(), "err", out.failed)
		l.srv.emit(Event{Kind: EventError, Conn: c, Err: out.failed})
	}
	switch {
	case out.panicked:
		l.endBy(c, CausePanic)
		return
	case out.refusal != nil:
		l.complain(c, out.refusal, ref)
		return
	case out.reply == nil:
		return
	}
	raw := out.reply
	if ref != nil && len(raw) > 1 && raw[0] == '{' {
		l.Text = message.AppendRef(append(l.Text[:0], raw...), ref) // the bytes may be the application's
		raw = l.Text
	}
	l.answer(c, raw)
}

// complain answers with an error message. ref is borrowed.
func (l *loop) complain(c *Conn, e *Error, ref []byte) {
	l.Count[countErrors].Add(1)
	l.Text = message.AppendError(l.Text[:0], e.Code, e.Message, ref)
	l.answer(c, l.Text)
}

// raw passes a message that is no JSON object to the application.
func (l *loop) raw(c *Conn, handler RawHandler, binary bool, payload []byte) {
	op := ws.OpText
	if binary {
		op = ws.OpBinary
	}
	l.announce()
	posts := l.Mail.Posts.Load()
	reply, err := l.guardRaw(c, handler, binary, payload)
	switch {
	case err != nil:
		l.endBy(c, CausePanic)
	case reply == nil:
	case !binary && !frame.ValidUTF8(reply):
		l.reply(c, "raw", nil, outcome{refusal: wireError(message.Internal), failed: fmt.Errorf("send reply: %w", ErrInvalidUTF8)})
	case l.Mail.Posts.Load() != posts:
		l.afterLetters(c, func() { l.answerAs(c, op, reply) })
	default:
		l.answerAs(c, op, reply)
	}
}

// clip shortens a client's text to a length that fits into a sentence.
func clip(b []byte) []byte {
	n := min(len(b), 64)
	for n > 0 && n < len(b) && !utf8.RuneStart(b[n]) {
		n--
	}
	return b[:n]
}

// replaceRoute registers next in place of old, and reports false if another route has replaced old meanwhile.
func (s *Server) replaceRoute(old, next *route) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if (*s.routes.Load())[next.name] != old {
		return false
	}
	s.setRoute(next)
	return true
}

// addRoute registers r under its name.
func (s *Server) addRoute(r *route) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setRoute(r)
}

// setRoute is addRoute under mu.
func (s *Server) setRoute(r *route) {
	routes := maps.Clone(*s.routes.Load())
	routes[r.name] = r
	s.routes.Store(&routes)
}
