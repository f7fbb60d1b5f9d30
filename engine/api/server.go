package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/engine/access"
	"github.com/parleyd/parley/protocol/proxy"
)

// Options are the settings of the API.
//
// Owner: immutable once given.
type Options struct {
	Keys    *Keys        // nil: none, so that only open paths are served
	Trusted *proxy.Trust // proxies whose word about a client's address counts; nil: none
	Log     *slog.Logger // nil means slog's default
	// Tokens revokes the tokens of clients. It must be installed in the server. Nil: no client has a token.
	Tokens *access.Guard
	// Operator is needed.
	Operator Operator
	// Settings are those in force, without secrets: what is encoded as a JSON object. Any goroutine. It is needed.
	Settings func() any
}

// Server is the HTTP API of one engine.
//
// Owner: immutable after New, besides what has a lock of its own.
type Server struct {
	engine      *engine.Server
	tokens      *access.Guard // nil: no client has a token
	operator    Operator
	places      places
	settings    func() any
	log         *slog.Logger
	keys        atomic.Pointer[Keys]
	trusted     *proxy.Trust
	routes      map[string]*route
	publishMax  bound
	failures    failures
	answers     answers
	asks        chan struct{} // a place for each request that asks workers
	streams     chan struct{} // a place for each stream of lines
	lineTimeout time.Duration
	health      healthMemory
	sockets     sockets
	batched     operations // that a batch may have
	spoken      operations // that a message on a socket may be
	http        *http.Server
}

const (
	headTimeout  = 5 * time.Second
	readTimeout  = 30 * time.Second // of a whole request: a batch over a slow line takes some
	writeTimeout = 30 * time.Second // bounds how long a client that does not read keeps a goroutine
	idleTimeout  = 2 * time.Minute
	// headBytesMax makes 16 KiB of all header fields: net/http adds 4 KiB to it.
	headBytesMax = 12 << 10
	// envelopeBytes is what the body of a publish may have besides its message.
	envelopeBytes = 64 << 10
)

// New makes the API of a server. It serves nothing before [Server.Serve].
func New(srv *engine.Server, o Options) *Server {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	cfg := srv.Config()
	most := int64(cfg.MessageBytesMax) + envelopeBytes
	s := &Server{
		engine: srv, tokens: o.Tokens, operator: o.Operator, settings: o.Settings, log: o.Log, trusted: o.Trusted, routes: map[string]*route{}, asks: make(chan struct{}, asksMax),
		streams: make(chan struct{}, streamsMax), lineTimeout: lineTimeout,
		publishMax: bound{most, fmt.Sprintf("a publish has at most %d bytes: message_bytes_max and 64 KiB", most)},
	}
	s.SetKeys(o.Keys)
	for i := range routes {
		r := routes[i]
		if r.path == "/v1/batch" {
			r.run = batch
		}
		if first := s.routes[r.path]; first != nil {
			first.get = &r
			continue
		}
		s.routes[r.path] = &r
		name := strings.TrimPrefix(r.path, "/v1/")
		if r.batched {
			s.batched.add(name, &r)
		}
		if r.batched || r.reads != nil || name == "batch" {
			s.spoken.add(name, &r)
		}
	}
	s.spoken.add("watch", nil)
	s.spoken.add("unwatch", nil)
	s.sockets.places = make(chan struct{}, socketsMax)
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	s.http = &http.Server{
		Handler: s, Protocols: &protocols, DisableGeneralOptionsHandler: true, MaxHeaderBytes: headBytesMax,
		ReadHeaderTimeout: headTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		ErrorLog: slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug),
	}
	s.http.RegisterOnShutdown(s.sockets.end)
	return s
}

// SetKeys replaces the keys: requests that begin from now on need one of these. Any goroutine.
func (s *Server) SetKeys(keys *Keys) {
	if keys == nil {
		keys = &Keys{}
	}
	s.keys.Store(keys)
}

// Serve serves the API on a listener until [Server.Shutdown], and closes the listener.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the API: %w", err)
	}
	return nil
}

// Shutdown takes no new requests and waits for those under way until ctx is done; then it cuts them off. Any goroutine.
func (s *Server) Shutdown(ctx context.Context) error {
	if err := s.http.Shutdown(ctx); err != nil {
		return errors.Join(err, s.http.Close())
	}
	return s.sockets.wait(ctx)
}

// visit is one HTTP request on its way through the server.
//
// Owner: one goroutine.
type visit struct {
	w       http.ResponseWriter
	r       *http.Request
	request string
	now     time.Time
	route   *route
	key     *key
	query   url.Values
	replay  bool
	stream  *stream
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v := &visit{w: w, r: r, request: newRequest(), now: time.Now()}
	w.Header().Set("Parley-Request", v.request)
	w.Header().Set("Cache-Control", "no-store")
	defer s.rescue(v)
	var got answer
	if wrong := s.admit(v); wrong != nil {
		got = v.refuse(wrong)
	} else if v.route.path == "/v1/socket" {
		if wrong = s.serveSocket(v); wrong == nil {
			return
		}
		got = v.refuse(wrong)
	} else {
		got = s.answer(v)
	}
	s.note(v, got.status)
	s.giveTime(v)
	v.write(got)
}

// giveTime lets an answer take as long as any, where the body or the work has used up most of the time: net/http counts it from
// the head of the request on.
func (s *Server) giveTime(v *visit) {
	if most := s.http.WriteTimeout; time.Since(v.now) > most/2 {
		http.NewResponseController(v.w).SetWriteDeadline(time.Now().Add(most)) // if it fails, the client is gone
	}
}

// newRequest is a request's id. It is no secret.
func newRequest() string { return "r_" + strconv.FormatUint(rand.Uint64()|1<<63, 16) }

// rescue answers 500 if the server's code panicked before it answered.
func (s *Server) rescue(v *visit) {
	switch cause := recover(); cause {
	case nil:
	case http.ErrAbortHandler:
		panic(cause) // net/http's own way to break an answer off
	default:
		s.log.Error("the server's own code panicked; please report this", "where", "api "+v.r.URL.Path, "request", v.request, "panic", cause, "stack", string(debug.Stack()))
		v.write(v.refuse(&problem{code: internal}))
	}
}

// note logs the request. Actions that change something have a line of their own.
func (s *Server) note(v *visit, status int) {
	if !s.log.Enabled(v.r.Context(), slog.LevelDebug) {
		return
	}
	id := ""
	if v.key != nil {
		id = v.key.id
	}
	s.log.Debug("api request", "request", v.request, "method", v.r.Method, "path", clip([]byte(v.r.URL.Path)), "key", id, "status", status)
}

// admit finds the key and the route of a request.
func (s *Server) admit(v *visit) *problem {
	query, wrong := readQuery(v.r.URL)
	if wrong != nil {
		return wrong
	}
	if v.r.URL.RawPath == "" { // no path of ours needs escapes
		v.route = s.routes[v.r.URL.Path]
	}
	if v.route == nil && holdsKey(v.r.URL.Path) {
		v.r.URL.Path = "REDACTED" // for the log
		return &problem{code: invalidRequest, detail: "a key in a path is a mistake: proxies and logs keep paths. " + keyPlace}
	}
	if v.route == nil || !v.route.open {
		if wrong = s.authenticate(v); wrong != nil {
			return wrong
		}
	}
	if v.route == nil {
		return &problem{code: notFound, detail: "there is nothing at " + strconv.Quote(clip([]byte(v.r.URL.Path))) + "; /openapi.json lists the paths"}
	}
	served := v.route.serves(v.r.Method)
	if served == nil {
		allow := v.route.methods()
		return &problem{code: methodNotAllowed, detail: "the path is served for " + allow, allow: allow}
	}
	v.route = served
	v.query = query
	for name := range query {
		if v.route.reads != nil {
			break // they are read as fields
		}
		return &problem{code: invalidRequest, detail: "there is no parameter " + strconv.Quote(clip([]byte(name))) + " in the query of this path"}
	}
	return nil
}

// serves is the route of the path for a method; nil if there is none.
func (r *route) serves(method string) *route {
	if method == http.MethodHead {
		method = http.MethodGet
	}
	switch {
	case r.method == method:
		return r
	case r.get != nil && method == http.MethodGet:
		return r.get
	}
	return nil
}

// methods is the value of the header field Allow.
func (r *route) methods() string {
	const read = "GET, HEAD"
	switch {
	case r.method == http.MethodGet:
		return read
	case r.get != nil:
		return r.method + ", " + read
	}
	return r.method
}

// readQuery refuses a key in a query: proxies and browsers keep queries.
func readQuery(u *url.URL) (url.Values, *problem) {
	if u.RawQuery == "" {
		return nil, nil
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, &problem{code: invalidRequest, detail: "the query is malformed"}
	}
	for name, values := range query {
		mistake := keyNames[strings.ToLower(name)]
		for _, value := range values {
			_, isKey := parseKey(value)
			mistake = mistake || isKey
		}
		if _, isKey := parseKey(name); isKey || mistake {
			return nil, &problem{code: invalidRequest, detail: "a key in a query is a mistake: proxies and logs keep queries. " + keyPlace}
		}
	}
	return query, nil
}

const keyPlace = "Send it as Authorization: Bearer pk_..., and replace the key that was sent"

// holdsKey reports whether a part of a path is a key.
func holdsKey(path string) bool {
	for part := range strings.SplitSeq(path, "/") {
		if _, isKey := parseKey(part); isKey {
			return true
		}
	}
	return false
}

// keyNames are parameters in which programs put keys.
var keyNames = map[string]bool{"key": true, "api_key": true, "apikey": true, "access_token": true, "token": true, "authorization": true}

// authenticate finds the key of a request.
func (s *Server) authenticate(v *visit) *problem {
	from := s.address(v.r)
	if wait := s.failures.refused(from, v.now); wait > 0 {
		seconds := int((wait + time.Second - 1) / time.Second)
		return &problem{code: rateLimited, wait: seconds, detail: fmt.Sprintf("%d requests from this address had no good key: try again in %d seconds", failuresMax, seconds)}
	}
	k, why := s.keyOf(v.r.Header.Values("Authorization"), v.now)
	if why == "" {
		v.key = k
		return nil
	}
	s.failures.add(from, v.now)
	s.log.Warn("a request to the HTTP API has no valid key", "request", v.request, "address", from, "path", clip([]byte(v.r.URL.Path)), "why", why)
	return &problem{code: unauthenticated, detail: why}
}

// keyOf finds the key in the header fields; why says what is wrong.
func (s *Server) keyOf(values []string, now time.Time) (k *key, why string) {
	if len(values) != 1 {
		return nil, "send the key once, as Authorization: Bearer pk_..."
	}
	scheme, text, _ := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return nil, "send the key as Authorization: Bearer pk_..."
	}
	k = s.keys.Load().find(strings.TrimSpace(text))
	switch {
	case k == nil:
		return nil, "the key is not known, or its secret is wrong"
	case k.over(now):
		return nil, "the key was good until " + k.until.Format(time.RFC3339)
	}
	return k, ""
}

// address is the client's, as far as trusted proxies tell it. Those that tell it badly are one address together.
func (s *Server) address(r *http.Request) netip.Addr {
	peer, _ := netip.ParseAddrPort(r.RemoteAddr) // a Unix socket's peer has none
	from := peer.Addr().Unmap()
	if s.trusted == nil || !s.trusted.Includes(from) {
		return from
	}
	client, ignored := s.trusted.Client(&proxy.Fields{
		ForwardedFor: bytesOf(r.Header.Values("X-Forwarded-For")), RealIP: bytesOf(r.Header.Values("X-Real-Ip")), Forwarded: bytesOf(r.Header.Values("Forwarded"))})
	if client.IsValid() || ignored > 0 {
		return client.Addr()
	}
	return from
}

func bytesOf(values []string) (list [][]byte) {
	for _, value := range values {
		list = append(list, []byte(value))
	}
	return list
}

const (
	jsonType    = "application/json"
	problemType = "application/problem+json"
)

// refuse makes an answer of a problem.
func (v *visit) refuse(p *problem) answer {
	h := v.w.Header()
	if wait := p.retryAfter(); wait != "" {
		h.Set("Retry-After", wait)
	}
	if p.allow != "" {
		h.Set("Allow", p.allow)
	}
	if p.code == unauthenticated {
		h.Set("WWW-Authenticate", "Bearer")
	}
	return answer{p.status(), p.append(nil, v.request), problemType}
}

func (v *visit) write(a answer) {
	h := v.w.Header()
	h.Set("Content-Type", a.kind)
	if v.stream != nil {
		defer v.stream.release()
		v.w.WriteHeader(a.status)
		if v.r.Method != http.MethodHead {
			v.stream.write(v.w)
		}
		return
	}
	h.Set("Content-Length", strconv.Itoa(len(a.body)))
	if v.replay {
		h.Set("Idempotent-Replay", "true")
	}
	v.w.WriteHeader(a.status)
	v.w.Write(a.body) // if it fails, the client is gone
}

// answer reads the body of a POST, and carries the request out or finds the answer that it got before.
func (s *Server) answer(v *visit) answer {
	if v.route.method != http.MethodPost {
		return s.run(v.r.Context(), v, nil)
	}
	if wrong := checkType(v.r.Header); wrong != nil {
		return v.refuse(wrong)
	}
	text, wrong := idempotencyKey(v.r.Header.Values("Idempotency-Key"))
	if wrong != nil {
		return v.refuse(wrong)
	}
	body, wrong := readBody(v.w, v.r, v.route.body(s))
	if wrong != nil {
		return v.refuse(wrong)
	}
	defer done(body)
	if text == "" {
		return s.run(v.r.Context(), v, body.Bytes())
	}
	m, first, wrong := s.answers.begin(identity{v.key.id, text}, digestOf(v.route.path, body.Bytes()), v.now)
	switch {
	case wrong != nil:
		return v.refuse(wrong)
	case first != nil:
		v.replay = true
		return *first
	}
	var got answer
	defer func() { s.answers.end(m, got, time.Now()) }() // after a panic it has no status
	// A client that hangs up asks again with its key: the request goes on, so that its answer is there then.
	got = s.run(context.WithoutCancel(v.r.Context()), v, body.Bytes())
	return got
}

func (s *Server) run(ctx context.Context, v *visit, body []byte) answer {
	if v.route.reads != nil {
		var wrong *problem
		if body, wrong = objectOf(v.query); wrong != nil {
			return v.refuse(wrong)
		}
	}
	c := call{object: object{raw: body}, ctx: ctx, now: v.now, route: v.route, key: v.key, request: v.request}
	c.lines = v.route.lists && wantsLines(v.r.Header.Values("Accept"))
	result, wrong := s.carryOut(&c)
	switch {
	case wrong != nil:
		return v.refuse(wrong)
	case c.stream != nil:
		v.stream = c.stream
		return answer{http.StatusOK, nil, linesType}
	case c.sent:
		s.settle(&c, &result)
	}
	return answer{cmp.Or(v.route.status, http.StatusOK), result, jsonType}
}
