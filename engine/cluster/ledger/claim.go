package ledger

import "time"

// Nonce tells one claim from all others. A claim that is repeated after ErrAway keeps its nonce.
type Nonce [16]byte

// Claimed is the result of a successful claim.
//
// Owner: the caller.
type Claimed struct {
	// Value is the latest that the owner has written.
	Value []byte
	// State is the session's state before the claim: Live or Parked.
	State State
	// OwnerAlive is true for a live session whose owner is not known to be dead: ask it to hand over.
	OwnerAlive bool
	// Expires is when a parked session ends, in milliseconds since 1970; 0 for a live one.
	Expires int64
}

// Claim is one attempt to take a session.
type Claim struct {
	Key   Key
	Nonce Nonce
}

// claim is one claim on its way. If it succeeds after its caller got ErrAway, the ledger undoes it, unless the caller has
// repeated it meanwhile: otherwise the session would be lost.
//
// Owner: the ledger's goroutine.
type claim struct {
	s       *Sessions
	at      Claim
	promise *promise
	tell    func(Claimed, error)
	sent    bool     // a set has left: its outcome matters even after ErrAway
	undoing bool     // the claim succeeded too late, and is being undone
	queue   []func() // the same claim, repeated meanwhile
}

// Claim takes a session, exactly once over all workers. It fails with ErrClaimed, or with ErrUnknown if there is no such
// session or its time is over. A live session may be claimed too: OwnerAlive then says that its owner must be asked to
// hand over. If the taker dies before it has spent the claim, another may claim the session. After ErrAway the caller may
// repeat the claim with the same nonce; if it does not, and the claim turns out to have succeeded, the ledger undoes it.
// Any goroutine.
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

// look reads the record. The read may be stale, and only decides which set to try.
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
		c.end(ErrUnknown) // of another version: a repeated read does not help
		return
	}
	life := c.s.l.life
	switch {
	case rec.state == claimed && rec.mark == mark(c.at.Nonce):
		c.won(rec)
		return
	case c.promise.kept:
		c.end(ErrAway) // the caller has this error already, and no set has succeeded
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
		p := &promise{l: c.s.l, kept: true} // it has no callback
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

// end gives the outcome, and starts the repeated claims.
func (c *claim) end(err error) {
	delete(c.s.claims, c.at)
	c.promise.keep(err)
	for _, f := range c.queue {
		f()
	}
}

// over reports whether a session's time is over, so that no claim may take it.
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

// Unclaim restores a claimed session as it was, for a claimant that could not use it. ErrClaimed or ErrUnknown mean that
// the caller no longer holds the claim. Any goroutine.
func (s *Sessions) Unclaim(at Claim, done func(error)) error {
	return s.release(&release{s: s, at: at}, done)
}

// Restore parks a claimed session with another value, for ttl (at most the ledger's SessionTTL). Errors are those of
// Unclaim. Any goroutine.
func (s *Sessions) Restore(at Claim, value []byte, ttl time.Duration, done func(error)) error {
	if err := checkValue(value); err != nil {
		return err
	}
	ttl = min(max(ttl, time.Second), s.l.opts.SessionTTL)
	return s.release(&release{s: s, at: at, park: true, value: value, ttl: ttl}, done)
}

// Spend deletes a claimed session, which its successor replaces. Call it once the successor is stored, and before the
// client gets its answer: a claim that is not spent can be repeated by others when its taker has died. Errors are those of
// Unclaim. Any goroutine.
func (s *Sessions) Spend(at Claim, done func(error)) error {
	return s.release(&release{s: s, at: at, spend: true}, done)
}

// release ends a claim: by Unclaim, Restore or Spend.
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

// look reads the claimed record.
func (r *release) look() {
	r.mark = r.s.l.mark()
	r.s.l.get(sessionBucket, r.at.Key.subject(), r.saw)
}

// saw decides by the present record. While the taker lives, no other worker changes a claimed record: if a set of ours has
// left, and the claim is not in the record any more, that set has succeeded.
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
