package engine

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/parleyd/parley/protocol/handshake"
	"github.com/parleyd/parley/protocol/message"
)

// Request is the opening handshake as a connect handler sees it: Header, Query, Cookie, Origin,
// Protocols. It is the handler's to keep.
type Request = handshake.Request

// ConnectHandler decides whether a connection may come in: the seed's on('connect'). It runs on a pool,
// before the upgrade, and may be slow. nil admits; [RefuseStatus] and [Refuse] say how to refuse, as does
// Conn.CloseWith; any other error is HTTP 401.
type ConnectHandler func(c *Conn, r *Request) error

// AuthHandler looks at the token of an auth message. It runs on the pool and may be slow; it calls
// Conn.SetPrincipal. An error is told to the client, which is closed with 4001.
type AuthHandler func(c *Conn, token string) error

// Option changes how a handler is registered.
type Option func(*registration)

// registration is a handler on its way into the routes.
//
// Owner: who registers.
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

// On registers the handler of a message type: the seed's on(type, handler). A later one replaces an
// earlier one. Any goroutine, at any time. It panics for a nil handler, and for the types that the server handles
// itself; those can be wrapped with [Server.Use].
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
	s.addRoute(r.route)
}

// On registers a handler whose messages are decoded into a T first. Where the fields do not fit, or where
// T has a method Validate() error that refuses, the client is answered with invalid_message.
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
			if err := checked.Validate(); !isNil(err) {
				return nil, invalid(err)
			}
		}
		return h(c, v, s)
	}, opts...)
}

// invalid is the refusal of a message that a check did not pass. An *Error stays what it is.
func invalid(err error) error {
	if e := coded(err); e != nil {
		return e
	}
	return &Error{Code: message.InvalidMessage.String(), Message: err.Error()}
}

// Use wraps the handlers of the named types, built-in ones too, in middleware, the first outermost.
// Any goroutine, but meant to be called before the start. It panics for a type without a handler.
func (s *Server) Use(m Middleware, types ...string) {
	for _, typ := range types {
		for old := s.routeFor(typ); !s.replaceRoute(old, wrapped(old, m)); old = s.routeFor(typ) {
		}
	}
}

// routeFor is the route of a type, for Use.
func (s *Server) routeFor(typ string) *route {
	r := (*s.routes.Load())[typ]
	if r == nil {
		panic(fmt.Sprintf("engine: Use: no handler for %q; register it first", typ))
	}
	return r
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

// errHandled is what a built-in handler returns under middleware: it has answered already.
var errHandled = errors.New("answered already")

// builtinHandler lets a built-in type be wrapped. It runs on the loop, within the turn of its message.
func builtinHandler(f func(*loop, *Conn, *message.Envelope)) Handler {
	return func(c *Conn, m *Message, _ *Server) (any, error) {
		l := c.loop()
		if code := message.Route(m.payload, &l.envelope); code != message.OK {
			return nil, wireError(code)
		}
		f(l, c, &l.envelope)
		return nil, errHandled
	}
}

func chain(h Handler, middleware []Middleware) Handler {
	for _, m := range slices.Backward(middleware) {
		h = m(h)
	}
	return h
}

// OnConnect adds a connect handler, behind those there are. Before the start.
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

// OnAuth makes connections authenticate by their first message, unless a connect handler has set a
// principal. Before the start.
func (s *Server) OnAuth(h AuthHandler) { s.authHandler.Store(&h) }

// OnRaw registers the handler of what is no JSON object. Before the start.
func (s *Server) OnRaw(h RawHandler) { s.rawHandler.Store(&h) }

// Validate is middleware that lets check look at a message first. Its error is told to the client, with
// the code invalid_message unless it is an [Error].
func Validate(check func(c *Conn, m *Message) error) Middleware {
	return func(next Handler) Handler {
		return func(c *Conn, m *Message, s *Server) (any, error) {
			if err := check(c, m); !isNil(err) {
				return nil, invalid(err)
			}
			return next(c, m, s)
		}
	}
}

// Rate is how often a connection may send what a RateLimit guards.
type Rate struct {
	PerSecond float64
	Burst     int // messages at once; at least 1
	Strikes   int // refusals in a row after which the connection ends with 4005; 0 means never
}

// bucket is one connection's share of one rate limit.
//
// Owner: under the connection's mu.
type bucket struct {
	limiter *Rate
	at      int64 // when it was full at the latest, on the server's clock
	strikes int32
}

// RateLimit is middleware that answers with rate_limited what comes too often from one connection.
func RateLimit(rate Rate) Middleware {
	if !(rate.PerSecond > 0) {
		panic("engine: RateLimit: PerSecond must be positive")
	}
	rate.Burst = max(rate.Burst, 1)
	limiter := &rate
	return func(next Handler) Handler {
		return func(c *Conn, m *Message, s *Server) (any, error) {
			ok, strikes := c.admits(limiter, s.clock())
			switch {
			case ok:
				return next(c, m, s)
			case limiter.Strikes > 0 && strikes >= limiter.Strikes:
				c.endSoon(CauseRateLimited)
				return nil, errHandled
			}
			return nil, wireError(message.RateLimited)
		}
	}
}

// admits takes a message out of the connection's bucket for a limit. A bucket is one time: that at which
// it would be empty of what was taken (the generic cell rate algorithm).
func (c *Conn) admits(limiter *Rate, now int64) (ok bool, strikes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.buckets == nil {
		c.buckets = new([]bucket)
	}
	list := *c.buckets
	i := slices.IndexFunc(list, func(b bucket) bool { return b.limiter == limiter })
	if i < 0 {
		i = len(list)
		list = append(list, bucket{limiter: limiter})
		*c.buckets = list
	}
	b := &list[i]
	const longest = math.MaxInt64 / 2 // some 146 years; half as much again, and now, fit
	each := int64(min(float64(time.Second)/limiter.PerSecond, longest/2))
	burst := int64(min(float64(each)*float64(limiter.Burst-1), longest))
	at := max(b.at, now)
	if at-now > burst {
		b.strikes++
		return false, int(b.strikes)
	}
	b.at, b.strikes = at+each, 0
	return true, 0
}

// endSoon ends the connection by its cause. Any goroutine.
func (c *Conn) endSoon(cause Cause) {
	c.loop().postCall(func(l *loop) { l.endBy(c, cause) })
}
