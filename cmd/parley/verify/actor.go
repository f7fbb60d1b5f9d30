package verify

import (
	"math/rand/v2"
	"time"
)

// An actor is one client as a person would see it: a succession of connections, of which one is its main one.
// Sometimes it has more, when it takes over its own session, or shows one token twice.
//
// Owner: the goroutine that runs the checker.
type actor struct {
	k     *checker
	index int
	rng   *rand.Rand // its decisions follow from the seed, whatever the others do
	main  *conn      // nil: it has none at the moment
	conns map[*conn]bool
	last  *session // of the main connection that ended
	due   bool     // it is about to come back
}

func newActor(k *checker, index int) *actor {
	return &actor{k: k, index: index, rng: rand.New(rand.NewPCG(k.opt.Seed, uint64(index)+1)), conns: map[*conn]bool{}}
}

// between draws a time.
func (a *actor) between(low, high time.Duration) time.Duration {
	return low + time.Duration(a.rng.Int64N(int64(high-low)))
}

// return comes back after a while.
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

// arrive connects, to go on with what was or to begin anew.
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
	// chainMax is how often in a row an actor resumes: a server may refuse more than a handful.
	chainMax = 4
)

// claim shows a token on a connection that has just come up, unless it is spent by now.
func (a *actor) claim(c *conn, s *session) {
	if s.asking == 0 && !s.usable(a.k.now) {
		a.adopt(c)
		return
	}
	c.resume(s)
}

// connect opens a connection; then is what to do once it is up, nil for nothing special.
func (a *actor) connect(then func(c *conn)) {
	c, err := a.k.dial(a)
	if err != nil {
		a.k.refused(nil, err)
		a.comeBack(time.Second)
		return
	}
	a.conns[c] = true
	if then != nil {
		c.then = func() { then(c) }
	}
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

// turnedDown goes on when a claim was refused: with this connection where no other is left.
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
