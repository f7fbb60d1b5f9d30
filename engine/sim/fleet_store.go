package sim

import (
	"slices"
	"time"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/protocol/ident"
)

// sessionBook is a simulated store of sessions, with the promises of the ledger and its adapter in package cluster, and no
// others. One claimant of several wins. One worker's calls for one session happen in order. Every call takes time, and none
// happens while the bus is away. Calls that a worker sent before it was killed may still happen.
//
// Owner: the simulation.
type sessionBook struct {
	f       *Fleet
	records map[engine.SessionKey]*sessionRecord
	away    time.Duration // for all workers, until then
}

// sessionRecord is a session in the store.
//
// Owner: the simulation.
type sessionRecord struct {
	parked  bool
	value   []byte
	taker   *worker // the worker with the claim; nil: none
	nonce   [16]byte
	expires time.Duration // of a parked one, and of a claim; 0: never
	until   time.Duration // its expires, while a parked one is claimed
}

// shelves are the store as one worker uses it.
//
// Owner: the simulation.
type shelves struct {
	book  *sessionBook
	w     *worker
	under map[engine.SessionKey][]*storing // by session: the first is on its way
	known map[engine.SessionKey]bool       // it was stored, and is this worker's
	gone  map[engine.SessionKey]bool       // it no longer belongs to this worker
}

// storing is a call on its way.
//
// Owner: the simulation.
type storing struct {
	what    string
	since   time.Duration
	gathers bool                              // later calls of its kind may join it
	apply   func() (err error)                // the change in the store
	told    func(err error)                   // called with the result; nil: no caller waits
	away    bool                              // the caller gets an error when the call takes too long
	late    bool                              // and has got it
	undo    func()                            // runs if the call succeeded after that
	again   func(err error) (d time.Duration) // when to try again; 0: not
}

const (
	claimTime = 1500 * time.Millisecond
	awayTime  = 1500 * time.Millisecond
	gathering = 10 * time.Millisecond
)

func newShelves(w *worker) *shelves {
	return &shelves{w.f.store, w, map[engine.SessionKey][]*storing{}, map[engine.SessionKey]bool{}, map[engine.SessionKey]bool{}}
}

// reached reports whether the worker reaches the bus.
func (w *worker) reached() bool { return w.link.Up() && w.f.now >= w.f.store.away }

// call puts a call behind the other calls for the same session.
func (s *shelves) call(key engine.SessionKey, x *storing) {
	x.since = s.w.f.now
	s.under[key] = append(s.under[key], x)
	if x.away {
		d := awayTime
		if x.again != nil {
			d += claimTime // each attempt has its own time
		}
		s.w.f.later(d, func() {
			if !x.late && x.told != nil && slices.Contains(s.under[key], x) && !s.w.dead {
				x.late = true
				x.told(engine.ErrSessionsAway)
			}
		})
	}
	if len(s.under[key]) == 1 {
		s.send(key)
	}
}

// send lets the first call for a session arrive.
func (s *shelves) send(key engine.SessionKey) {
	x, f := s.under[key][0], s.w.f
	d := f.span(200*time.Microsecond, f.plan.storeDelay)
	if x.gathers {
		d += gathering
	}
	f.later(d, func() { s.arrive(key, x) })
}

func (s *shelves) arrive(key engine.SessionKey, x *storing) {
	f := s.w.f
	switch {
	case s.w.dead:
		if f.chance(0.5) {
			x.apply()
		}
		return
	case !s.w.reached():
		f.later(20*time.Millisecond, func() { s.arrive(key, x) })
		return
	}
	err := x.apply()
	f.tracef("worker %d %s session %x of worker %d: %v", s.w.instance, x.what, key.Hash[:3], key.Instance, err)
	if x.again != nil {
		if d := x.again(err); d > 0 {
			f.later(d, func() { s.arrive(key, x) })
			return
		}
	}
	f.later(f.span(100*time.Microsecond, f.plan.storeDelay), func() { s.land(key, x, err) })
}

// land returns a call's result, and sends the next call.
func (s *shelves) land(key engine.SessionKey, x *storing, err error) {
	if s.w.dead {
		return
	}
	list := s.under[key][1:]
	s.under[key] = list
	if len(list) == 0 {
		delete(s.under, key)
	} else {
		s.send(key)
	}
	switch {
	case x.late:
		if x.undo != nil && err == nil {
			x.undo()
		}
	case x.told != nil:
		x.told(err)
	}
}

// record finds a session that is not over.
func (b *sessionBook) record(key engine.SessionKey) *sessionRecord {
	r := b.records[key]
	if r != nil && r.expires != 0 && r.expires <= b.f.now {
		delete(b.records, key)
		return nil
	}
	return r
}

// Save is of [engine.SessionStore].
func (s *shelves) Save(key engine.SessionKey, value engine.SessionValue, done func(error)) error {
	return s.write(key, &sessionRecord{value: value.Bytes()}, done)
}

// Park is of [engine.SessionStore].
func (s *shelves) Park(key engine.SessionKey, value engine.SessionValue, ttl time.Duration, done func(error)) error {
	return s.write(key, &sessionRecord{parked: true, value: value.Bytes(), expires: ttl}, done)
}

func (s *shelves) write(key engine.SessionKey, next *sessionRecord, done func(error)) error {
	if s.w.f.fault(s.w.f.plan.storeBusy) {
		return engine.ErrSessionsAway
	}
	what := "saves"
	if next.parked {
		what = "parks"
	}
	s.call(key, &storing{what: what, gathers: !next.parked && s.known[key], away: true, told: done, apply: func() error {
		r := s.book.record(key)
		switch {
		case s.gone[key]:
			return engine.ErrSessionUnknown
		case r == nil && s.known[key], r != nil && r.taker == nil && r.parked:
			s.gone[key] = true
			return engine.ErrSessionUnknown
		case r != nil && r.taker != nil:
			s.known[key] = true
			return engine.ErrSessionClaimed
		}
		if next.parked {
			next.expires += s.w.f.now
		}
		s.book.records[key] = next
		s.known[key] = !next.parked
		return nil
	}})
	return nil
}

// Drop is of [engine.SessionStore].
func (s *shelves) Drop(key engine.SessionKey, done func(error)) {
	s.call(key, &storing{what: "drops", away: true, told: done, apply: func() error {
		r := s.book.record(key)
		switch {
		case s.gone[key]:
			return engine.ErrSessionUnknown
		case r != nil && r.taker != nil:
			return engine.ErrSessionClaimed
		}
		delete(s.book.records, key)
		return nil
	}})
}

// Forget is of [engine.SessionStore]. Calls that have not left yet are dropped.
func (s *shelves) Forget(key engine.SessionKey) {
	s.w.f.tracef("worker %d forgets session %x", s.w.instance, key.Hash[:3])
	s.gone[key] = true
}

// Claim is of [engine.SessionStore].
func (s *shelves) Claim(at engine.SessionClaim, done func(engine.ClaimedSession, error)) error {
	if s.w.f.fault(s.w.f.plan.storeBusy) {
		return engine.ErrSessionsAway
	}
	var got engine.ClaimedSession
	x := &storing{what: "claims", away: true, told: func(err error) { done(got, err) }, undo: func() { s.Unclaim(at) }}
	x.again = func(err error) time.Duration {
		if err == engine.ErrSessionClaimed && !x.late && s.w.f.now-x.since < claimTime {
			return 20 * time.Millisecond
		}
		return 0
	}
	x.apply = func() error {
		r := s.book.record(at.Key)
		owner := s.w.f.of(at.Key.Instance)
		died, dead := s.w.deaths[at.Key.Instance]
		switch {
		case r == nil, owner == nil, !r.parked && dead && died+s.w.f.plan.config.ReconnectionTTL <= s.w.f.now:
			return engine.ErrSessionUnknown
		case r.taker != nil && s.w.alive(r.taker):
			return engine.ErrSessionClaimed
		}
		if r.taker == nil {
			r.until = r.expires
		}
		r.taker, r.nonce = s.w, at.Nonce
		r.expires = s.w.f.now + s.w.f.plan.config.ReconnectionTTL
		got = engine.ClaimedSession{Value: slices.Clone(r.value), OwnerAlive: !r.parked && !dead}
		return nil
	}
	s.call(at.Key, x)
	return nil
}

// alive reports whether this worker believes that another one lives.
func (w *worker) alive(other *worker) bool {
	_, dead := w.deaths[other.instance]
	return !dead
}

// of is the worker of an instance; nil for none.
func (f *Fleet) of(instance ident.Worker) *worker {
	if instance == 0 || int(instance) > len(f.workers) {
		return nil
	}
	return f.workers[instance-1]
}

// Unclaim is of [engine.SessionStore].
func (s *shelves) Unclaim(at engine.SessionClaim) {
	s.release("unclaims", at, nil, func(r *sessionRecord) { r.taker, r.expires = nil, r.until })
}

// Restore is of [engine.SessionStore].
func (s *shelves) Restore(at engine.SessionClaim, value engine.SessionValue, ttl time.Duration) {
	s.release("restores", at, nil, func(r *sessionRecord) {
		*r = sessionRecord{parked: true, value: value.Bytes(), expires: s.w.f.now + ttl}
	})
}

// Spend is of [engine.SessionStore].
func (s *shelves) Spend(at engine.SessionClaim, done func(error)) error {
	s.release("spends", at, done, func(*sessionRecord) { delete(s.book.records, at.Key) })
	return nil
}

// release ends a claim, however long that takes.
func (s *shelves) release(what string, at engine.SessionClaim, done func(error), end func(*sessionRecord)) {
	s.call(at.Key, &storing{what: what, told: done, apply: func() error {
		r := s.book.record(at.Key)
		switch {
		case r == nil:
			return engine.ErrSessionUnknown
		case r.taker != s.w || r.nonce != at.Nonce:
			return engine.ErrSessionClaimed
		}
		end(r)
		return nil
	}})
}

// released checks, when all has been calm for a while, that no session is still claimed.
func (b *sessionBook) released() {
	for key := range b.records {
		if r := b.record(key); r != nil && r.taker != nil && !r.taker.dead {
			b.f.complain("leaks", "worker %d has claimed session %x of worker %d, and does not come to an end", r.taker.instance, key.Hash[:3], key.Instance)
		}
	}
}

// leftovers checks that no session outlives its time.
func (b *sessionBook) leftovers() {
	for key := range b.records {
		r := b.record(key)
		if owner := b.f.of(key.Instance); r != nil && !owner.dead {
			b.f.complain("leaks", "the store holds session %x of worker %d: claimed %v, parked %v", key.Hash[:3], key.Instance, r.taker != nil, r.parked)
		}
	}
}
