package access

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/engine"
)

// Subprotocol is the one that a server with tokens speaks; a client that cannot set header fields offers it beside
// TokenProtocol and its token.
const (
	Subprotocol   = "parley.v1"
	TokenProtocol = "parley.token."
)

// GuardOptions are the settings of a Guard.
//
// Owner: immutable once given.
type GuardOptions struct {
	Auth     Auth
	Verifier *Verifier // nil with Off
	Rules    []Entry
	Grace    time.Duration // after the end of a token, until its connection is closed
	Cookie   string        // that may have a token; "": none
	Query    bool          // whether ?token= is looked at
	Log      *slog.Logger
	// File keeps revocations over a restart; "": they end with the last process. Every process reads it at its start.
	File string
	// Keeper is set in the one process that revokes, and writes File.
	Keeper bool
}

// Guard holds a server's clients to their tokens and to the rules: who connects, what each may do, and for how long.
//
// Owner: immutable once installed, except saving (mutex: saving), rules and verifier (atomic).
type Guard struct {
	o        GuardOptions
	verifier atomic.Pointer[Verifier]
	rules    atomic.Pointer[Rules]
	revoked  Revocations
	rights   common
	srv      *engine.Server
	tell     func(change []byte)
	waits    chan struct{} // has an element for each token that waits for keys
	saving   sync.Mutex
}

// grant is what a connection's identity keeps of its token: much less than all claims, for there are as many as connections.
//
// Owner: immutable.
type grant struct {
	rights *Rights // many tokens'
	before *Who    // what the connection was until it showed the token; nil: nobody
	id     string
	issued int64 // as [Claims.issued]
	more   *extra
}

// extra is what few tokens have.
type extra struct {
	auto       []string
	attributes []string // names
}

// identity is who a connection is with a token, and was before.
func (g *Guard) identity(claims *Claims, before Who) engine.Identity {
	held := &grant{rights: g.rights.share(claims.Rights), id: claims.ID, issued: claims.issued()}
	if before != (Who{}) {
		held.before = &before
	}
	if len(claims.Auto)+len(claims.Attributes) > 0 {
		held.more = &extra{claims.Auto, slices.Collect(maps.Keys(claims.Attributes))}
	}
	return engine.Identity{User: claims.User, Grant: held, Expires: claims.Expires, Grace: g.o.Grace}
}

// names are the attributes of the token; none without a token.
func (g *grant) names() []string {
	if g == nil || g.more == nil {
		return nil
	}
	return g.more.attributes
}

// NewGuard checks the rules, and reads the file of revocations. An error of a rule is an *EntryError.
func NewGuard(o GuardOptions) (*Guard, error) {
	rules, err := ParseRules(o.Rules, o.Auth)
	if err != nil {
		return nil, err
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	g := &Guard{o: o}
	g.rules.Store(rules)
	g.verifier.Store(o.Verifier)
	return g, nil
}

// Change replaces the rules and, unless it is nil, the verifier: for tokens that are shown, and acts that are asked for, from now on.
// Connections leave the rooms that the former rules let them join and the new ones do not. Whether clients must authenticate, and where
// tokens are looked for, stays. An error of a rule is an *EntryError, and changes nothing.
func (g *Guard) Change(v *Verifier, rules []Entry) error {
	parsed, err := ParseRules(rules, g.o.Auth)
	if err != nil {
		return err
	}
	before := g.rules.Swap(parsed)
	if v != nil {
		g.verifier.Store(v)
	}
	if g.srv == nil || reflect.DeepEqual(before, parsed) {
		return nil
	}
	g.srv.Rooms().Review(func(c *engine.Conn, room string) error {
		now, earlier := whoIs(c)
		if g.rules.Load().Join(now, room) == Allowed {
			return nil
		}
		// A renewal that meets the change has compared what both tokens may do by the new rules alone.
		if before.Join(now, room) == Allowed || before.Join(earlier, room) == Allowed {
			return errForbidden
		}
		return nil
	})
	return nil
}

// Install makes the guard that of a server: before the start, or with Off at any time.
func (g *Guard) Install(srv *engine.Server) {
	g.srv = srv
	srv.SetPolicy(g)
	if g.o.Auth == Off {
		return
	}
	if url := g.o.Verifier.o.URL; url != nil {
		srv.SetKeys(engine.Keys{Missing: url.Missing, Age: url.Age})
	}
	g.waits = make(chan struct{}, max(1, srv.Config().OffloadWorkers/2))
	srv.OnConnect(g.connect)
	if g.o.Auth == Required {
		srv.OnAuth(g.authenticate)
	} else {
		srv.OnAuthOptional(g.authenticate)
	}
	srv.Emitter().On(engine.EventConnect, func(e engine.Event) { g.enter(e.Conn) })
	g.tell = srv.Share("revocations", g)
	srv.RegisterFilter(revokedFilter, revokedBy)
	if g.o.File == "" {
		return
	}
	if err := g.revoked.Load(g.o.File, time.Now()); err != nil {
		g.o.Log.Error("revocations of an earlier run are lost, at least in part: revoke again the tokens that must not be valid", "err", err)
	}
	if !g.o.Keeper {
		return
	}
	srv.Emitter().On(engine.EventStarted, func(engine.Event) {
		for _, part := range g.Parts() {
			g.tell(part)
		}
	})
}

// tokenOf is the token of a request: the first that is found.
func (g *Guard) tokenOf(r *engine.Request) string {
	if scheme, token, _ := strings.Cut(r.Header("Authorization"), " "); strings.EqualFold(scheme, "Bearer") {
		return strings.TrimSpace(token)
	}
	for _, offered := range r.Protocols() {
		if token, ok := strings.CutPrefix(offered, TokenProtocol); ok {
			return token
		}
	}
	if g.o.Cookie != "" {
		if token := r.Cookie(g.o.Cookie); token != "" {
			return token
		}
	}
	if g.o.Query {
		return r.Query("token")
	}
	return ""
}

// connect admits a request with a good token, or without any: then the client authenticates by message, if it must.
func (g *Guard) connect(c *engine.Conn, r *engine.Request) error {
	token := g.tokenOf(r)
	switch {
	case token == "" && g.o.Auth == Required && g.verifier.Load().blind():
		return errNoKeys // it could not authenticate by message either
	case token == "":
		return nil
	}
	claims, err := g.verify(token)
	if err != nil {
		return g.refuse(c, err)
	}
	if err := g.admit(c, claims); err != nil {
		return g.refuse(c, err)
	}
	return nil
}

// refuse says no to a handshake. The upgrade takes place first, so that the code arrives: pages cannot see an HTTP status.
func (g *Guard) refuse(c *engine.Conn, err error) error {
	var bad *TokenError
	if !errors.As(err, &bad) {
		return err
	}
	g.o.Log.Info("a token is refused", "address", c.RemoteAddr().Addr(), "why", bad.Problem)
	switch bad.Refusal {
	case Expired:
		return engine.Refuse(engine.StatusTokenExpired, bad.Refusal.Code())
	case Unauthorized:
		return engine.Refuse(engine.StatusUnauthorized, bad.Refusal.Code())
	}
	return errNoKeys
}

// The same refusal, of a handshake and of a message.
var (
	errNoKeys           = engine.RefuseStatus(503, "tokens cannot be verified now: try again")
	errUnverified error = &engine.Error{Code: Unavailable.Code(), Message: "tokens cannot be verified now: try again"}
)

// verifyWait is the longest time until a reading of keys has ended that began after a token came: a shorter wait would refuse good tokens
// of a new key, if a stranger's unknown key has just caused a reading.
const verifyWait = readPause + readWait

// verify verifies a token, and asks whether it was revoked.
func (g *Guard) verify(token string) (*Claims, error) {
	now := time.Now()
	claims, err := g.verifier.Load().Verify(token, now)
	var bad *TokenError
	if errors.As(err, &bad) && bad.Refusal == KeyUnknown {
		claims, err = g.verifyLater(token, now)
	}
	switch {
	case err != nil:
		return nil, err
	case g.revoked.Revoked(claims, now):
		return nil, &TokenError{Unauthorized, "the token was revoked"}
	}
	return claims, nil
}

// verifyLater waits for keys that fit a token, unless too many tokens wait: anyone can make tokens with unknown keys, and these must
// not keep the goroutines from the tokens that can be verified at once.
func (g *Guard) verifyLater(token string, now time.Time) (*Claims, error) {
	select {
	case g.waits <- struct{}{}:
		defer func() { <-g.waits }()
	default:
		return nil, refuse(Unavailable, "wait for keys: %v", errCrowded)
	}
	bounded, cancel := context.WithTimeout(context.Background(), verifyWait)
	defer cancel()
	return g.verifier.Load().VerifyWait(bounded, token, now)
}

// admit gives a connection what its token says, or changes nothing. Attributes of an earlier token that this one does not have
// are removed. An error is a *TokenError.
func (g *Guard) admit(c *engine.Conn, claims *Claims) error {
	var gone []string
	for _, name := range grantIn(c.Identity()).names() {
		if _, stays := claims.Attributes[name]; !stays {
			gone = append(gone, name)
		}
	}
	if err := c.GrantAttributes(claims.Attributes, gone); err != nil {
		return &TokenError{Unauthorized, fmt.Sprintf("keep the attributes of a token: %v", err)}
	}
	before, _ := whoIs(c)
	c.SetIdentity(g.identity(claims, before))
	if g.revoked.Revoked(claims, time.Now()) { // meanwhile: the walk of a merge may have passed this connection
		c.CloseWith(engine.StatusUnauthorized, "revoked")
	}
	return nil
}

// grantIn is what an identity keeps of a token; nil without one.
func grantIn(id engine.Identity) *grant {
	held, _ := id.Grant.(*grant)
	return held
}

// whoIs is a connection as rules see it, and as they saw it until it showed its token.
func whoIs(c *engine.Conn) (now, before Who) {
	id := c.Identity()
	now.User = id.User
	if held := grantIn(id); held != nil {
		now.Rights = held.rights
		if held.before != nil {
			before = *held.before
		}
	}
	return now, before
}

// authenticate takes the token of an auth message, the first or a further one of the same user.
func (g *Guard) authenticate(c *engine.Conn, token string) error {
	claims, err := g.verify(token)
	if err != nil {
		var bad *TokenError
		if !errors.As(err, &bad) {
			return err
		}
		g.o.Log.Info("a token is refused", "conn", c.ID(), "why", bad.Problem)
		if bad.Refusal == Unavailable {
			return errUnverified // the problem names our hosts
		}
		return &engine.Error{Code: bad.Refusal.Code(), Message: bad.Problem}
	}
	before := c.Principal()
	if before != "" && before != claims.User {
		return &engine.Error{Code: Unauthorized.Code(), Message: "the token is of another user"}
	}
	if err := g.admit(c, claims); err != nil {
		return &engine.Error{Code: Unauthorized.Code(), Message: err.Error()}
	}
	if before != "" || g.o.Auth == Optional { // else the event of the connect follows
		g.enter(c)
	}
	return nil
}

// enter takes a connection into the rooms that its token names.
func (g *Guard) enter(c *engine.Conn) {
	held := grantIn(c.Identity())
	if held == nil || held.more == nil {
		return
	}
	for _, room := range held.more.auto {
		if d := g.Allow(c, engine.ActJoin, room, false); d.Refuse != nil {
			g.o.Log.Info("a client cannot enter a room that its token names in auto", "conn", c.ID(), "room", room, "err", d.Refuse)
			continue
		}
		if err := g.srv.Rooms().Join(c, room); err != nil && !errors.Is(err, engine.ErrNotOpen) {
			g.o.Log.Info("a client cannot enter a room that its token names in auto", "conn", c.ID(), "room", room, "err", err)
		}
	}
}

// Allow implements [engine.Policy].
func (g *Guard) Allow(c *engine.Conn, act engine.Act, room string, member bool) engine.Decision {
	who, before := whoIs(c)
	verdict, rules := Forbidden, g.rules.Load()
	switch act {
	case engine.ActJoin:
		verdict = rules.Join(who, room)
		if member && rules.Join(before, room) != Allowed {
			verdict = Allowed // a program has put it there, which passes no rule
		}
	case engine.ActPublish:
		verdict = rules.Publish(who, room, member)
	case engine.ActMembers:
		verdict = rules.Members(who, room, member)
	case engine.ActHistory:
		verdict = rules.History(who, room, member)
	}
	switch {
	case verdict == Allowed:
		return engine.Decision{}
	case !member && act != engine.ActJoin:
		return engine.Decision{Refuse: engine.ErrNotInRoom}
	}
	return engine.Decision{Refuse: errForbidden}
}

var errForbidden error = &engine.Error{Code: "forbidden", Message: "neither the token nor a rule allows this"}

// RevokeUser makes a user's tokens that were issued before a time good no more, on all workers: connections with such a token
// are closed with 4001. It returns their number, and asks all workers for it; any goroutine that may block.
func (g *Guard) RevokeUser(ctx context.Context, user string, before time.Time) (closed int, err error) {
	change, err := g.revoked.RevokeUser(user, before, time.Now())
	return g.changed(ctx, change, err)
}

// RevokeID makes the token with a jti good no more, and is to be forgotten at a time. Otherwise it is as RevokeUser.
func (g *Guard) RevokeID(ctx context.Context, jti string, until time.Time) (closed int, err error) {
	change, err := g.revoked.RevokeID(jti, until, time.Now())
	return g.changed(ctx, change, err)
}

// LiftUser takes RevokeUser back.
func (g *Guard) LiftUser(ctx context.Context, user string) error {
	change, err := g.revoked.LiftUser(user, time.Now())
	_, err = g.changed(ctx, change, err)
	return err
}

// LiftID takes RevokeID back.
func (g *Guard) LiftID(ctx context.Context, jti string) error {
	change, err := g.revoked.LiftID(jti, time.Now())
	_, err = g.changed(ctx, change, err)
	return err
}

// Revocations lists those in force.
func (g *Guard) Revocations() []Revocation { return g.revoked.List(time.Now()) }

// changed keeps a change, tells the other workers, and closes connections.
func (g *Guard) changed(ctx context.Context, change []byte, err error) (closed int, _ error) {
	if err != nil || change == nil {
		return 0, err
	}
	if g.o.File != "" && g.o.Keeper {
		g.saving.Lock()
		err = g.revoked.Save(g.o.File)
		g.saving.Unlock()
	}
	found, partial := g.srv.Everywhere().FindFiltered(ctx, revokedFilter, change)
	g.tell(change)
	g.closeRevoked()
	return len(found), errors.Join(err, partial, g.srv.Confirm(ctx))
}

// revokedFilter finds the connections whose tokens a change revokes.
const revokedFilter = "parley.revoked"

// revokes reports whether the token of a connection is revoked.
func revokes(r *Revocations, c *engine.Conn, now time.Time) bool {
	id := c.Identity()
	held := grantIn(id)
	return held != nil && r.revoked(id.User, held.id, held.issued, now)
}

func revokedBy(c *engine.Conn, change []byte) bool {
	var r Revocations
	now := time.Now()
	_, err := r.Merge(change, now)
	return err == nil && revokes(&r, c, now)
}

// Merge implements [engine.Shared].
func (g *Guard) Merge(part []byte) error {
	changed, err := g.revoked.Merge(part, time.Now())
	if changed {
		go g.closeRevoked() // a walk through all connections
	}
	return err
}

const partBytesMax = 512 << 10

// Parts implements [engine.Shared].
func (g *Guard) Parts() [][]byte { return slices.Clip(g.revoked.EncodeParts(partBytesMax)) }

// closeRevoked closes the connections of this worker whose tokens are revoked.
func (g *Guard) closeRevoked() {
	now := time.Now()
	for c := range g.srv.Connections() {
		if revokes(&g.revoked, c, now) {
			c.CloseWith(ws.StatusCode(engine.StatusUnauthorized), "revoked")
		}
	}
}
