package engine

import (
	"fmt"
	"slices"

	"github.com/parleyd/parley/engine/internal/guard"
	"github.com/parleyd/parley/engine/internal/rate"
	"github.com/parleyd/parley/protocol/handshake"
	"github.com/parleyd/parley/protocol/message"
)

// Request is the opening handshake as a connect handler sees it: Header, Query, Cookie, Origin, Protocols. The handler may
// keep it.
type Request = handshake.Request

// ConnectHandler decides whether a connection is admitted: the seed's on('connect'). It runs on a pool, before the upgrade,
// and may be slow. nil admits; [RefuseStatus] and [Refuse] make refusals, as does Conn.CloseWith; any other error is HTTP
// 401.
type ConnectHandler func(c *Conn, r *Request) error

// AuthHandler checks the token of an auth message. It runs on the pool and may be slow; it calls [Conn.SetIdentity] or
// [Conn.SetPrincipal]. The client gets its error and is closed with 4001. A client that has authenticated may do so again, to
// renew its rights: then an error changes nothing, and the third in a row closes with 4001. A handler that returns an error
// must leave the identity as it is. [ErrUnavailable], or an error with its code, closes with 1013, and does not count.
type AuthHandler func(c *Conn, token string) error

// Option changes how a handler is registered.
type Option func(*registration)

// registration is a handler on its way into the routes.
//
// Owner: the caller of On.
type registration struct {
	route      *route
	middleware []Middleware
}

// Offload runs the handler on a bounded pool of goroutines, so that it may block. The connection's later
// messages wait for it.
func Offload() Option { return func(r *registration) { r.route.offload = true } }

// With wraps the handler in middleware, the first outermost.
func With(m ...Middleware) Option {
	return func(r *registration) { r.middleware = append(r.middleware, m...) }
}

// On registers the handler of a message type: the seed's on(type, handler). A later handler replaces an earlier one. Any
// goroutine, at any time. It panics for a nil handler, and for the built-in types; wrap those with [Server.Use].
func (s *Server) On(typ string, h Handler, opts ...Option) {
	if _, ok := builtinRoutes()[typ]; ok {
		panic(fmt.Sprintf("engine: the server handles %q itself; wrap it with Server.Use", typ))
	}
	r := &registration{route: &route{name: typ}}
	for _, opt := range opts {
		opt(r)
	}
	if r.route.handler = chain(h, r.middleware); h == nil || r.route.handler == nil {
		panic(fmt.Sprintf("engine: On: the handler of %q, or what its middleware makes of it, is nil", typ))
	}
	s.routes.replace(nil, r.route)
}

// On registers a handler whose messages are decoded into a T first. If the fields do not fit, or T's method Validate() error
// refuses, the client is answered with invalid_message.
//
// A field's key is its json tag, else its name; keys are compared exactly, letter case included, so that one message
// cannot mean two things to two readers.
func On[T any](s *Server, typ string, h func(c *Conn, m T, s *Server) (any, error), opts ...Option) {
	message.Pretouch[T]()
	s.On(typ, func(c *Conn, m *Message, s *Server) (any, error) {
		var v T
		if err := m.Decode(&v); err != nil {
			return nil, err
		}
		if checked, ok := any(&v).(interface{ Validate() error }); ok {
			if err := checked.Validate(); !message.IsNone(err) {
				return nil, message.CodedOr(message.InvalidMessage, err)
			}
		}
		return h(c, v, s)
	}, opts...)
}

// Use wraps the handlers of the named types, built-in ones too, in middleware, the first outermost. Any goroutine; usually
// called before the start. It panics for a type without a handler.
func (s *Server) Use(m Middleware, types ...string) {
	for _, typ := range types {
		s.routes.wrap(typ, m)
	}
}

// wrapped is a route whose handler has m around it.
func wrapped(old *route, m Middleware) *route {
	r := *old
	if r.handler == nil {
		r.handler = builtinHandler(r.builtin)
	}
	if r.handler = m(r.handler); r.handler == nil {
		panic(fmt.Sprintf("engine: Use: the middleware makes nil of the handler of %q", r.name))
	}
	return &r
}

// builtinHandler makes a handler of a built-in one, so that middleware can wrap it. It runs on the loop, within the turn of
// its message.
func builtinHandler(f func(*loop, *Conn, *message.Envelope)) Handler {
	return func(c *Conn, m *Message, _ *Server) (any, error) {
		l := c.loop()
		if code := message.Route(m.payload, &l.envelope); code != message.OK {
			return nil, message.ErrorOf(code)
		}
		f(l, c, &l.envelope)
		return nil, guard.ErrHandled
	}
}

func chain(h Handler, middleware []Middleware) Handler {
	for _, m := range slices.Backward(middleware) {
		h = m(h)
	}
	return h
}

// OnConnect adds a connect handler, behind the earlier ones. Before the start.
func (s *Server) OnConnect(h ConnectHandler) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []ConnectHandler
	if old := s.connectHandlers.Load(); old != nil {
		list = slices.Clone(*old)
	}
	list = append(list, h)
	s.connectHandlers.Store(&list)
}

// OnAuth makes connections authenticate by their first message, unless a connect handler has set an identity. Before the
// start.
func (s *Server) OnAuth(h AuthHandler) { s.authHandler.Store(&h) }

// OnAuthOptional is OnAuth for clients that may authenticate, at any time, and need not. Before the start.
func (s *Server) OnAuthOptional(h AuthHandler) {
	s.OnAuth(h)
	s.authOptional.Store(true)
}

// OnRaw registers the handler of messages that are no JSON object. Before the start.
func (s *Server) OnRaw(h RawHandler) { s.rawHandler.Store(&h) }

// Validate is middleware that calls check on a message first. The client gets its error, with the code invalid_message
// unless it is an [Error].
func Validate(check func(c *Conn, m *Message) error) Middleware {
	return func(next Handler) Handler {
		return func(c *Conn, m *Message, s *Server) (any, error) {
			if err := check(c, m); !message.IsNone(err) {
				return nil, message.CodedOr(message.InvalidMessage, err)
			}
			return next(c, m, s)
		}
	}
}

// Rate is how often a connection may send the messages that a RateLimit guards.
type Rate = rate.Limit

// RateLimit is middleware that answers rate_limited to messages that one connection sends too often.
func RateLimit(r Rate) Middleware {
	if !(r.PerSecond > 0) {
		panic("engine: RateLimit: PerSecond must be positive")
	}
	r.Burst = max(r.Burst, 1)
	limiter := &r
	return func(next Handler) Handler {
		return func(c *Conn, m *Message, s *Server) (any, error) {
			ok, strikes := c.admits(limiter, s.time.Now())
			switch {
			case ok:
				return next(c, m, s)
			case limiter.Strikes > 0 && strikes >= limiter.Strikes:
				c.endSoon(CauseRateLimited)
				return nil, guard.ErrHandled
			}
			return nil, message.ErrorOf(message.RateLimited)
		}
	}
}

// admits takes a message out of the connection's bucket for a limit.
func (c *Conn) admits(limiter *Rate, now int64) (ok bool, strikes int) {
	c.wire.Mu.Lock()
	defer c.wire.Mu.Unlock()
	if c.buckets == nil {
		c.buckets = new(rate.Buckets)
	}
	return c.buckets.Take(limiter, now)
}

// endSoon ends the connection for a cause, in a later turn. Any goroutine.
func (c *Conn) endSoon(cause Cause) {
	c.loop().PostCall(func() { c.wire.EndBy(cause) })
}
