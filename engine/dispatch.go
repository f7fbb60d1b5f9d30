package engine

import (
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/engine/internal/guard"
	"github.com/parleyd/parley/engine/internal/membership"
	"github.com/parleyd/parley/engine/internal/pending"
	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/frame"
	"github.com/parleyd/parley/protocol/message"
)

// A message meets its handler here: built-in, or the application's. Handlers of the application run under guard
// (engine/internal/guard).

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
type Error = message.Error

// ErrOverloaded is the error for a full mailbox of a loop: the message was sent to no connection. Try again.
var ErrOverloaded error = message.ErrOverloaded

// ErrOnLoop says that a call would wait for an event loop, and was made on one: by a handler or a listener. Register the
// handler with [Offload], or make the call on a goroutine of its own.
var ErrOnLoop = membership.ErrOnLoop

// ErrUnavailable is the error when the bus or the store that workers share did not answer in time. Try again.
var ErrUnavailable error = message.ErrUnavailable

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
		return message.Mismatch(m.typ, m.payload, v)
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
			c.wire.EndBy(CauseUnsupported)
		}
	case c.wire.Unnumbered() && (code != message.OK || opaque || !l.srv.rooms.Order.TakesNumber(e)):
		c.wire.AwaitNumbers()
		c.wire.Hold(pending.Item{Binary: binary, Payload: append([]byte(nil), payload...)})
	case c.wire.Has(flagAuth) && (opaque || code == message.OK && !e.BeforeAuth()):
		c.wire.Complain(message.ErrorOf(message.AuthRequired), ref)
	case opaque:
		l.raw(c, *raw, binary, payload)
	case code == message.OK:
		l.routed(c, e, payload)
	case message.IsBarePong(payload):
	default:
		c.wire.Complain(message.ErrorOf(code), ref)
	}
}

// routed takes a well-formed message to its handler.
func (l *loop) routed(c *Conn, e *message.Envelope, payload []byte) {
	r := (*l.srv.routes.list.Load())[string(e.Type)]
	if l.srv.emitter.hears(EventMessage) {
		m := Message{typ: string(e.Type), room: e.Room, ref: e.Ref, payload: payload}
		l.srv.emit(Event{Kind: EventMessage, Conn: c, Message: &m})
	}
	switch {
	case r == nil && string(e.Type) == "history" && l.srv.rooms.Index.AnyHistory():
		l.onHistory(c, e) // the application has no handler of its own for it
	case r == nil:
		c.wire.Complain(&Error{Code: message.UnknownType.String(),
			Message: fmt.Sprintf("no handler for messages of type %q", message.Clip(e.Type))}, e.Ref)
	case r.handler == nil:
		r.builtin(l, c, e)
	default:
		l.Announce() // announce members that joined before this message before its handler broadcasts
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
	begun, posts := l.srv.time.Now(), l.Mail.Posts.Load()
	out := l.srv.run(c, r, m)
	took := l.srv.time.Now() - begun
	if took > int64(turn.DrainBudget)/turn.LookEvery {
		l.SinceLook = turn.LookEvery // look at the clock before the next message
	}
	if took > int64(handlerSlow) {
		l.Held(r.name, took)
	}
	if l.Mail.Posts.Load() != posts {
		// The handler's broadcasts are in the mailbox: the reply goes behind them.
		c.wire.AnswerPosted(func() { l.reply(c, r.name, m.ref, out) })
		return
	}
	l.reply(c, r.name, m.ref, out)
}

// run runs the handler of a message and checks its result. m is borrowed.
func (s *Server) run(c *Conn, r *route, m *Message) guard.Outcome {
	return s.guard.Handler(r.name, c.pending(), r.offload, func() (any, error) { return r.handler(c, m, s) })
}

// reply answers with a handler's outcome. ref is borrowed.
func (l *loop) reply(c *Conn, name string, ref []byte, out guard.Outcome) {
	if out.Failed != nil {
		l.srv.log.Warn("a handler returned an error", "handler", name, "conn", c.ID(), "err", out.Failed)
		l.srv.emit(Event{Kind: EventError, Conn: c, Err: out.Failed})
	}
	switch {
	case out.Panicked:
		c.wire.EndBy(CausePanic)
		return
	case out.Refusal != nil:
		c.wire.Complain(out.Refusal, ref)
		return
	case out.Reply == nil:
		return
	}
	raw := out.Reply
	if ref != nil && len(raw) > 1 && raw[0] == '{' {
		l.Text = message.AppendRef(append(l.Text[:0], raw...), ref) // the bytes may be the application's
		raw = l.Text
	}
	c.wire.Answer(raw)
}

// raw passes a message that is no JSON object to the application.
func (l *loop) raw(c *Conn, handler RawHandler, binary bool, payload []byte) {
	op := ws.OpText
	if binary {
		op = ws.OpBinary
	}
	l.Announce()
	posts := l.Mail.Posts.Load()
	reply, err := l.guardRaw(c, handler, binary, payload)
	switch {
	case err != nil:
		c.wire.EndBy(CausePanic)
	case reply == nil:
	case !binary && !frame.ValidUTF8(reply):
		l.reply(c, "raw", nil, guard.Outcome{Refusal: message.ErrorOf(message.Internal), Failed: fmt.Errorf("send reply: %w", ErrInvalidUTF8)})
	case l.Mail.Posts.Load() != posts:
		c.wire.AnswerPosted(func() { c.wire.AnswerAs(op, reply) })
	default:
		c.wire.AnswerAs(op, reply)
	}
}

// handlerSlow is how long a handler may hold its loop before it is counted and logged.
const handlerSlow = 50 * time.Millisecond

// guardRaw is guard for raw handlers, which are too frequent for a closure.
func (l *loop) guardRaw(c *Conn, handler RawHandler, binary bool, payload []byte) (reply []byte, err error) {
	returned := false
	defer func() {
		if !returned {
			err = l.srv.guard.Caught("raw", c.pending(), recover())
		}
	}()
	reply = handler(c, payload, binary)
	returned = true
	return reply, nil
}

// routes are the handlers by the type of their messages. Any goroutine.
//
// Owner: shared (mutex: mu).
type routes struct {
	mu   sync.Mutex
	list atomic.Pointer[map[string]*route]
}

// of is the route of a type; nil for none.
func (x *routes) of(typ string) *route { return (*x.list.Load())[typ] }

// replace registers next in place of old, and reports false if another route has replaced old meanwhile.
func (x *routes) replace(old, next *route) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if old != nil && x.of(next.name) != old {
		return false
	}
	all := maps.Clone(*x.list.Load())
	all[next.name] = next
	x.list.Store(&all)
	return true
}

// wrap puts middleware around the handler of a type.
func (x *routes) wrap(typ string, m Middleware) {
	for {
		old := x.of(typ)
		if old == nil {
			panic(fmt.Sprintf("engine: Use: no handler for %q; register it first", typ))
		}
		if x.replace(old, wrapped(old, m)) {
			return
		}
	}
}
