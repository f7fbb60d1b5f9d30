package ledger

import "time"

// Nonce tells one claim from all others. Whoever repeats a claim after ErrAway repeats its nonce.
type Nonce [16]byte

// Claimed is what a successful claim gives.
//
// Owner: the caller's.
type Claimed struct {
	// Value is the owner's, as it was last written.
	Value []byte
	// State is what the session was in before: Live or Parked.
	State State
	// OwnerAlive is true for a live session whose owner is not known to be dead: ask it to hand over.
	OwnerAlive bool
	// Expires is when a session without a connection is over, in milliseconds since 1970; 0 for a live one.
	Expires int64
}

// Claim is one attempt to take a session.
type Claim struct {
	Key   Key
	Nonce Nonce
}

// claim is one claim on its way. Its outcome may come after its caller was told ErrAway: then, so that the
// session is not lost, the ledger takes the claim back, unless the caller has repeated it meanwhile.
//
// Owner: the ledger's goroutine.
type claim struct {
	s       *Sessions
	at      Claim
	promise *promise
	tell    func(Claimed, error)
	sent    bool     // a set has left: the outcome matters even when nobody waits any more
	undoing bool     // the claim was won too late, and is being taken back
	queue   []func() // repeated claims, and what came for this key meanwhile
}

// Claim takes a session, exactly once over all workers. It fails with ErrClaimed, or with ErrUnknown where there is
// none or its time is over. A live session may be claimed too: OwnerAlive then says that its owner must be asked to
// hand over. A claim whose taker died before it spent it can be taken again. After ErrAway either the same claim
// may be repeated with the same nonce, or the ledger takes back what it turns out to have won. Any goroutine.
func (s *Sessions) Claim(at Claim, done func(Claimed, error)) error {
	return s.l.accept(func() {
		c := &claim{s: s, at: at, tell: done}
		c.promise = s.l.promise(func(err error) { done(Claimed{}, err) })
		c.start()
	})
}

func (c *claim) start() {
	s := c.s
	if before := s.claims[c.at]; before != nil {
		before.queue = append(before.queue, c.start)
		return
	}
	s.claims[c.at] = c
	s.whenIdle(c.at.Key, c.look)
}

// look reads the record; what it sees may be old, and only decides what to try.
func (c *claim) look() {
	c.s.l.get(sessionBucket, c.at.Key.subject(), c.saw)
}

func (c *claim) saw(f found) {
	if f.payload == nil {
		c.missing()
		return
	}
	rec, err := decodeSession(f.payload)
	if err != nil {
		c.s.l.fault(err)
		c.end(ErrUnknown) // of another version: it will not get better
		return
	}
	life := c.s.l.life
	switch {
	case rec.state == claimed && rec.mark == mark(c.at.Nonce):
		c.won(rec)
		return
	case c.promise.kept:
		c.end(ErrAway) // nobody waits, and what was sent has come to nothing
		return
	case rec.state == claimed && !life.isDead(rec.taker):
		c.end(ErrClaimed)
		return
	case c.s.over(c.at.Key, rec):
		c.end(ErrUnknown)
		return
	}
	if rec.state != claimed {
		rec.before = rec.state
	}
	rec.state, rec.mark = claimed, mark(c.at.Nonce)
	rec.taker = life.self
	c.take(rec, f.revision)
}

func (c *claim) take(rec session, expect uint64) {
	c.sent = true
	l := c.s.l
	ttl := l.opts.SessionTTL
	if rec.expires != 0 {
		ttl = max(ttl, time.Duration(rec.expires-l.unix())*time.Millisecond)
	}
	l.set(&set{bucket: sessionBucket, key: c.at.Key.subject(), expect: expect, payload: rec.encode(), ttl: ttl, done: func(_ uint64, err error) {
		switch err {
		case nil:
			c.won(rec)
		case errConflict:
			c.look()
		default:
			c.end(err)
		}
	}})
}

func (c *claim) won(rec session) {
	c.s.won[c.at] = c.s.l.bucket(sessionBucket).turn
	if c.promise.kept && len(c.queue) == 0 {
		c.undoing = true
		p := &promise{l: c.s.l, kept: true} // nobody waits for it
		r := &release{s: c.s, at: c.at, promise: p, after: func() { c.end(ErrAway) }}
		r.look()
		return
	}
	owner := worker{rec.owner, c.at.Key.Instance}
	got := Claimed{Value: rec.value, State: rec.before, Expires: rec.expires}
	got.OwnerAlive = rec.before == Live && !c.s.l.life.isDead(owner)
	c.promise.keepWith(func() { c.tell(got, nil) })
	c.end(nil)
}

// end lets the next claim of this key and nonce go on.
func (c *claim) end(err error) {
	delete(c.s.claims, c.at)
	c.promise.keep(err)
	for _, f := range c.queue {
		f()
	}
}

// over reports whether nobody may claim a session any more.
func (s *Sessions) over(key Key, rec session) bool {
	before := rec.state
	if before == claimed {
		before = rec.before
	}
	if before == Parked {
		return rec.expires <= s.l.unix()
	}
	died, dead := s.l.life.died(worker{rec.owner, key.Instance})
	return dead && died+s.l.opts.SessionTTL.Milliseconds() <= s.l.unix()
}

// Unclaim puts a claimed session back as it was, for a claimant that could not use it. ErrClaimed or ErrUnknown
// mean that the claim is no longer the caller's. Any goroutine.
func (s *Sessions) Unclaim(at Claim, done func(error)) error {
	return s.release(&release{s: s, at: at}, done)
}

// Restore parks a claimed session with another value, for ttl (at most the ledger's SessionTTL); errors as with
// Unclaim. Any goroutine.
func (s *Sessions) Restore(at Claim, value []byte, ttl time.Duration, done func(error)) error {
	if err := checkValue(value); err != nil {
		return err
	}
	ttl = min(max(ttl, time.Second), s.l.opts.SessionTTL)
	return s.release(&release{s: s, at: at, park: true, value: value, ttl: ttl}, done)
}

// Spend deletes a claimed session: it has become another one. Call it once that one is stored, and before the client
// is told: a claim that is not spent can be taken again when its taker has died. Errors as with Unclaim.
// Any goroutine.
func (s *Sessions) Spend(at Claim, done func(error)) error {
	return s.release(&release{s: s, at: at, spend: true}, done)
}

// release is what ends a claim.
//
// Owner: the ledger's goroutine.
type release struct {
	s       *Sessions
	at      Claim
	spend   bool
	park    bool
	value   []byte
	ttl     time.Duration
	mark    mark
	sent    bool
	promise *promise
	after   func()
}

func (s *Sessions) release(r *release, done func(error)) error {
	return s.l.accept(func() {
		r.promise = s.l.promise(done)
		r.look()
	})
}

// look reads the record that is to be let go.
func (r *release) look() {
	r.mark = r.s.l.mark()
	r.s.l.get(sessionBucket, r.at.Key.subject(), r.saw)
}

// saw decides what to do about what is there now. As long as its taker lives nobody else changes a claimed record:
// where it is not as we left it, and we have tried to change it, it was us.
func (r *release) saw(f found) {
	var rec session
	var err error
	if f.payload != nil {
		rec, err = decodeSession(f.payload)
	}
	switch ours := rec.state == claimed && rec.mark == mark(r.at.Nonce); {
	case err != nil:
		r.end(err)
	case ours:
		r.put(rec, f.revision)
	case r.sent:
		r.end(nil)
	default:
		r.unclaimed(rec, f)
	}
}

func (r *release) put(rec session, expect uint64) {
	l := r.s.l
	c := &set{bucket: sessionBucket, key: r.at.Key.subject(), expect: expect}
	rec.state, rec.before, rec.taker, rec.mark = rec.before, 0, worker{}, r.mark
	if r.park {
		rec.state, rec.value, rec.expires = Parked, r.value, l.unix()+r.ttl.Milliseconds()
	}
	if rec.state == Parked {
		c.ttl = max(time.Second, time.Duration(rec.expires-l.unix())*time.Millisecond)
	}
	if !r.spend {
		c.payload = rec.encode()
	}
	r.sent = true
	c.done = func(_ uint64, err error) {
		if err == errConflict {
			r.s.l.get(sessionBucket, r.at.Key.subject(), r.saw)
			return
		}
		r.end(err)
	}
	l.set(c)
}

func (r *release) end(err error) {
	delete(r.s.won, r.at)
	r.promise.keep(err)
	if r.after != nil {
		r.after()
	}
}
