package sim

import (
	"fmt"
	"strconv"
	"time"

	"github.com/parleyd/parley/engine"
)

// In some worlds each connection shows a grant, as a token would be: it names a user, the rooms that the user may join and publish
// in, and perhaps an end. A client shows another grant at times, and all of a user's grants are revoked at times. The policy decides
// at once or later.

// grant is what a connection may do, and for how long.
//
// Owner: immutable, except revoked.
type grant struct {
	number        int
	user          string
	join, publish map[string]bool
	expires       time.Duration // 0: never
	revoked       bool
}

const graceTime = 200 * time.Millisecond

// issue makes a grant for a person.
func (f *Fleet) issue(p *fleetPerson) *grant {
	g := &grant{number: len(f.grants), user: p.name, join: map[string]bool{}, publish: map[string]bool{}}
	for i := range f.plan.rooms {
		g.join[roomOf(i)], g.publish[roomOf(i)] = f.chance(0.8), f.chance(0.8)
	}
	if f.fault(0.3) {
		g.expires = f.now + f.span(10*time.Millisecond, 3*time.Second)
	}
	f.grants = append(f.grants, g)
	return g
}

// identity is the identity of a connection with the grant.
func (g *grant) identity() engine.Identity {
	id := engine.Identity{User: g.user, Grant: g, Grace: graceTime}
	if g.expires != 0 {
		id.Expires = time.Unix(1_000_000_000, int64(g.expires))
	}
	return id
}

// grantOf is the grant that a connection has; nil for none.
func grantOf(c *engine.Conn) *grant {
	g, _ := c.Identity().Grant.(*grant)
	return g
}

// serveGrants makes a worker ask for grants.
func (w *worker) serveGrants() {
	s := w.server.Server
	s.OnConnect(func(c *engine.Conn, r *engine.Request) error { return w.admit(c, r.Header("X-Grant")) })
	s.OnAuthOptional(w.admit)
	s.SetPolicy(w)
}

// admit gives a connection a grant.
func (w *worker) admit(c *engine.Conn, token string) error {
	n, _ := strconv.Atoi(token)
	g, before := w.f.grants[n], grantOf(c)
	switch {
	case g.revoked && before == nil:
		return engine.Refuse(engine.StatusUnauthorized, "revoked")
	case g.revoked, before != nil && before.user != g.user:
		return &engine.Error{Code: "unauthorized", Message: "the grant is revoked, or another user's"}
	}
	w.f.tracef("%s has grant %d", c.ID(), n)
	c.SetIdentity(g.identity())
	return nil
}

// Allow implements [engine.Policy].
func (w *worker) Allow(c *engine.Conn, act engine.Act, room string, member bool) engine.Decision {
	room = string([]byte(room)) // it is borrowed
	decide := func() error {
		if g := grantOf(c); act == engine.ActJoin && !g.join[room] || act == engine.ActPublish && !g.publish[room] {
			return errForbidden
		}
		return nil
	}
	if err := decide(); err != nil || member && act == engine.ActJoin || !w.f.chance(w.f.plan.ponders) {
		return engine.Decision{Refuse: err}
	}
	return engine.Decision{Ask: func(done func(error)) {
		if x := w.f.truth.conns[c.ID()]; x.current != nil && x.current.published != nil {
			x.current.published.refused = true // until the answer says otherwise
		}
		w.f.later(w.f.span(0, 100*time.Millisecond), func() { done(decide()) })
	}}
}

var errForbidden error = &engine.Error{Code: "forbidden", Message: "the grant does not allow this"}

// renew makes a client show another grant, seldom that of another person.
func (f *Fleet) renew(k *fleetClient) {
	p := k.person
	if f.fault(0.05) {
		p = f.people[f.rand.IntN(len(f.people))]
	}
	k.ask("auth", "", fmt.Sprintf(`,"token":"%d"`, f.issue(p).number))
}

// revoke revokes all grants of a person. Workers learn of it one after the other.
func (f *Fleet) revoke(p *fleetPerson) {
	f.tracef("the grants of %s are revoked", p.name)
	for _, g := range f.grants {
		g.revoked = g.revoked || g.user == p.name
	}
	for _, w := range f.slots {
		if w == nil {
			continue
		}
		f.later(f.span(0, 50*time.Millisecond), func() {
			if w.dead {
				return
			}
			for c := range w.server.Server.Connections() {
				if g := grantOf(c); g != nil && g.revoked {
					c.CloseWith(engine.StatusUnauthorized, "revoked")
				}
			}
		})
	}
}

// mayJoin checks that a connection that enters a room may.
func (t *fleetTruth) mayJoin(c *fleetConn, room string) {
	if g := grantOf(c.conn); t.f.plan.auth && !g.join[room] && !c.taken[room] {
		t.f.complain("rights", "%s enters %s, and grant %d forbids that", c.id, room, g.number)
	}
}

// lawful checks the connections at rest: each is in rooms that its grant allows, and none outlives its grant.
func (t *fleetTruth) lawful() {
	for _, c := range t.ordered {
		g := grantOf(c.conn)
		if c.ended != 0 || g == nil {
			continue
		}
		if g.revoked || g.expires != 0 && t.f.now > g.expires+graceTime+time.Second {
			t.f.complain("rights", "%s lives on with grant %d, which has ended: it was revoked: %v", c.id, g.number, g.revoked)
		}
		for _, s := range c.stays {
			if s.out == 0 && s.room != "*" && s.room[0] != '@' {
				t.mayJoin(c, s.room)
			}
		}
	}
}

// mayResume checks that a session was one of the same user, and was not ended with 4001.
func (t *fleetTruth) mayResume(k *fleetClient, s *fleetSession) {
	switch {
	case !t.f.plan.auth:
	case k.person != s.of.client.person:
		t.f.complain("rights", "%s resumes the session of %s", k.name, s.of.client.name)
	case s.of.conn.Cause() == engine.CauseUnauthorized && t.f.plan.soundBus() && !s.of.client.w.dead && t.f.store.turn == 0:
		t.f.complain("rights", "%s resumes a session of %s that was ended with 4001", k.name, s.of.id)
	}
}

// foreign reports whether a session is another user's, or was ended with 4001.
func (t *fleetTruth) foreign(k *fleetClient, s *fleetSession) bool {
	return t.f.plan.auth && (k.person != s.of.client.person || s.of.conn.Cause() == engine.CauseUnauthorized)
}
