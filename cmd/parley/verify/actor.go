package verify

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/parleyd/parley/cmd/parley/verify/caller"
	"github.com/parleyd/parley/cmd/parley/verify/history"
)

// An actor is one client: a sequence of connections. One is its main connection. It has more while it takes over its own
// session, or shows one token twice.
//
// Owner: the goroutine that runs the checker.
type actor struct {
	k     *checker
	index int
	rng   *rand.Rand // its own: its decisions depend on the seed and not on other actors
	main  *conn      // nil: it has none at the moment
	conns map[*conn]bool
	last  *session // of the main connection that ended
	due   bool     // a timer will call arrive

	places map[*room]history.Position // that it had when it left the room, or its connection ended

	user   string // empty: the server takes no tokens
	rights rights
	issued int64  // its token, in seconds
	hello  []byte // the opening handshake, with the token
}

func newActor(k *checker, index int) *actor {
	return &actor{k: k, index: index, rng: rand.New(rand.NewPCG(k.opt.Seed, uint64(index)+1)), conns: map[*conn]bool{}, places: map[*room]history.Position{}, hello: k.hello}
}

// between draws a time.
func (a *actor) between(low, high time.Duration) time.Duration {
	return low + time.Duration(a.rng.Int64N(int64(high-low)))
}

// comeBack connects again after a while.
func (a *actor) comeBack(after time.Duration) {
	if a.due {
		return
	}
	a.due = true
	a.k.in(after, func() {
		a.due = false
		a.arrive()
	})
}

// arrive connects, to resume the last session or to begin a new one.
func (a *actor) arrive() {
	switch {
	case a.k.over || len(a.conns) > 0:
		return
	case a.k.calm:
		a.comeBack(calmWait)
		return
	}
	s, draw := a.last, a.rng.IntN(100)
	a.last = nil
	switch {
	case !s.usable(a.k.now) || s.conn.chain >= chainMax || draw < 15:
		a.connect(nil)
	case draw < 35: // the same token twice, at the same time: one of them must get it
		for range 2 {
			a.connect(func(c *conn) { a.claim(c, s) })
		}
	default:
		a.connect(func(c *conn) { a.claim(c, s) })
	}
}

const (
	calmWait = 50 * time.Millisecond
	// chainMax is the most resumes of an actor in a row: a server may refuse more than five.
	chainMax = 4
)

// claim shows a token on a connection that has just become ready, unless the token is used by now.
func (a *actor) claim(c *conn, s *session) {
	if s.asking == 0 && !s.usable(a.k.now) {
		a.adopt(c)
		return
	}
	c.resume(s)
}

// connect opens a connection and calls then once it is ready; with nil, the connection becomes the main one. It returns nil if
// the dial failed.
func (a *actor) connect(then func(c *conn)) *conn {
	c, err := a.k.dial(a)
	if err != nil {
		a.k.refused(nil, err)
		a.comeBack(time.Second)
		return nil
	}
	a.conns[c] = true
	if then != nil {
		c.then = func() { then(c) }
	}
	return c
}

// up goes on when a connection is ready.
func (a *actor) up(c *conn) {
	if c.then != nil {
		then := c.then
		c.then = nil
		then()
		return
	}
	a.adopt(c)
}

// adopt makes c the main connection. The others end.
func (a *actor) adopt(c *conn) {
	a.main = c
	for other := range a.conns {
		if other != c && other.mode == lively && !other.claimed && other.phase == open && other.claim == nil && other.then == nil {
			other.hang()
		}
	}
}

// turnedDown goes on when a claim was refused: c becomes the main connection, unless another is or may be.
func (a *actor) turnedDown(c *conn) {
	if a.main != nil && a.main != c {
		c.hang()
		return
	}
	for other := range a.conns {
		if other != c && (other.claim != nil || other.then != nil) {
			return // it may win
		}
	}
	a.adopt(c)
}

// down goes on when a connection has ended.
func (a *actor) down(c *conn) {
	delete(a.conns, c)
	if c == a.main {
		a.main = nil
		a.last = c.session
	}
	if len(a.conns) > 0 || a.k.over {
		return
	}
	a.comeBack(a.between(10*time.Millisecond, 600*time.Millisecond))
}

// Rights. With the secret of the server's tokens every client has a user, which it shares with one other client, and a token.
// The token of every client is good for the open rooms. Some rooms are closed: one half of the users may enter them, and one
// half of these may publish there. The other clients try, and must be refused.

// closedRooms is the number of rooms that not all users may enter.
const closedRooms = 3

// rights are a user's.
type rights struct{ enter, speak bool } // closed rooms

// closedName is the name of a closed room: a single star in a pattern stands for no colon.
func (k *checker) closedName(i int) string { return fmt.Sprintf("verify-%s:closed-%d", k.run, i) }

// grant gives all actors users and tokens.
func (k *checker) grant(secret []byte) {
	for i := range closedRooms {
		k.addRoom(k.closedName(i), true)
	}
	for _, a := range k.actors {
		n := a.index / 2
		a.user = fmt.Sprintf("verify-%s-%d", k.run, n)
		a.rights = rights{enter: n%2 == 0, speak: n%4 == 0}
		a.renew(secret)
	}
}

// renew signs a token for an actor, which is issued later than its token of before.
func (a *actor) renew(secret []byte) {
	open, closed := []string{"verify-" + a.k.run + "-*"}, "verify-"+a.k.run+":closed-*"
	join, publish := open, open
	if a.rights.enter {
		join = []string{open[0], closed}
	}
	if a.rights.speak {
		publish = join
	}
	now := time.Now()
	a.issued = max(a.issued+2, now.Add(-tokenAge).Unix())
	token := caller.Sign(secret, map[string]any{"sub": a.user, "iat": a.issued, "exp": now.Add(a.k.opt.For + tokenLife).Unix(),
		"parley": map[string]any{"join": join, "publish": publish}})
	a.hello = a.k.at.request("Authorization: Bearer " + token + "\r\n")
}

const (
	tokenAge  = 24 * time.Hour // of the first ones: times of issue are whole seconds, and none may lie ahead
	tokenLife = time.Hour      // beyond the run: long enough that no server asks for another token
)

func (a *actor) mayJoin(r *room) bool    { return !r.closed || a.rights.enter }
func (a *actor) mayPublish(r *room) bool { return !r.closed || a.rights.speak }
