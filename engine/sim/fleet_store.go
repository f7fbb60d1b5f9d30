package sim

import (
	"errors"
	"slices"
	"time"

	sessions "github.com/parleyd/parley/engine/internal/session"
	"github.com/parleyd/parley/protocol/ident"
)

// sessionBook is a simulated store of sessions, with the promises of the ledger and its adapter in package cluster, and no
// others. One claimant of several wins. One worker's calls for one session happen in order. Every call takes time, and none
// happens while the bus is away. Calls that a worker sent before it was killed may still happen.
//
// Owner: the simulation.
type sessionBook struct {
	f       *Fleet
	records map[sessions.Key]*sessionRecord
	away    time.Duration // for all workers, until then
	losses
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
	book    *sessionBook
	w       *worker
	under   map[sessions.Key][]*storing // by session: the first is on its way
	known   map[sessions.Key]bool       // it was stored, and is this worker's
	late    map[[16]byte]time.Duration  // by the session's hash: when a change was last not stored
	gone    map[sessions.Key]bool       // it no longer belongs to this worker
	won     map[sessions.Claim]int      // claims of this worker that have not ended: the store's turn then
	turn    int                         // of the store, as this worker knows it
	lost    map[sessions.Key]bool       // to be written anew
	refused map[[16]byte]time.Duration  // by the session's hash: when the store was last too busy for it
}

// storing is a call on its way.
//
// Owner: the simulation.
type storing struct {
	what    string
	write   bool // of the session's owner
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
	return &shelves{w.f.store, w, map[sessions.Key][]*storing{}, map[sessions.Key]bool{}, map[[16]byte]time.Duration{},
		map[sessions.Key]bool{}, map[sessions.Claim]int{}, w.f.store.turn, map[sessions.Key]bool{}, map[[16]byte]time.Duration{}}
}

// reached reports whether the worker reaches the bus.
func (w *worker) reached() bool { return w.link.Up() && w.f.now >= w.f.store.away }

// call puts a call behind the other calls for the same session.
func (s *shelves) call(key sessions.Key, x *storing) {
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
				x.told(sessions.ErrAway)
			}
		})
	}
	if len(s.under[key]) == 1 {
		s.send(key)
	}
}

// send lets the first call for a session arrive.
func (s *shelves) send(key sessions.Key) {
	x, f := s.under[key][0], s.w.f
	d := f.span(200*time.Microsecond, f.plan.storeDelay)
	if x.gathers {
		d += gathering
	}
	f.later(d, func() { s.arrive(key, x) })
}

func (s *shelves) arrive(key sessions.Key, x *storing) {
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
	s.learn()
	err := x.apply()
	f.tracef("worker %d %s session %x of worker %d: %v", s.w.instance, x.what, key.Hash[:3], key.Instance, err)
	if x.again != nil {
		if d := x.again(err); d > 0 {
			f.later(d, func() { s.arrive(key, x) })
			return
		}
	}
	if x.what == "claims" && err == nil && f.fault(3*f.plan.storeLosses) {
		f.later(f.span(0, 2*f.plan.storeDelay), f.lose) // in the middle of a resume
	}
	f.later(f.span(100*time.Microsecond, f.plan.storeDelay), func() { s.land(key, x, err) })
}

// land returns a call's result, and sends the next call.
func (s *shelves) land(key sessions.Key, x *storing, err error) {
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
func (b *sessionBook) record(key sessions.Key) *sessionRecord {
	r := b.records[key]
	if r != nil && r.expires != 0 && r.expires <= b.f.now {
		delete(b.records, key)
		return nil
	}
	return r
}

// Save is of [sessions.Store].
func (s *shelves) Save(key sessions.Key, value sessions.Value, done func(error)) error {
	return s.write(key, &sessionRecord{value: value.Bytes()}, done)
}

// Park is of [sessions.Store].
func (s *shelves) Park(key sessions.Key, value sessions.Value, ttl time.Duration, done func(error)) error {
	return s.write(key, &sessionRecord{parked: true, value: value.Bytes(), expires: ttl}, done)
}

func (s *shelves) write(key sessions.Key, next *sessionRecord, done func(error)) error {
	if s.w.f.fault(s.w.f.plan.storeBusy) {
		s.w.f.tracef("worker %d cannot store session %x: the store is busy", s.w.instance, key.Hash[:3])
		s.late[key.Hash], s.refused[key.Hash] = s.w.f.now, s.w.f.now
		return sessions.ErrAway
	}
	what := "saves"
	if next.parked {
		what = "parks"
	}
	s.call(key, &storing{what: what, write: true, gathers: !next.parked && s.known[key], away: true, told: done, apply: func() error {
		r := s.book.record(key)
		switch {
		case s.gone[key]:
			return sessions.ErrUnknown
		case r == nil && s.known[key], r != nil && r.taker == nil && r.parked:
			s.gone[key] = true
			return sessions.ErrUnknown
		case r != nil && r.taker != nil:
			s.known[key], s.late[key.Hash] = true, s.w.f.now
			return sessions.ErrClaimed
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

// Drop is of [sessions.Store].
func (s *shelves) Drop(key sessions.Key, done func(error)) {
	s.call(key, &storing{what: "drops", write: true, away: true, told: done, apply: func() error {
		r := s.book.record(key)
		switch {
		case s.gone[key]:
			return sessions.ErrUnknown
		case r != nil && r.taker != nil:
			return sessions.ErrClaimed
		}
		s.book.remove(key)
		return nil
	}})
}

// Forget is of [sessions.Store]. Calls that have not left yet are dropped.
func (s *shelves) Forget(key sessions.Key) {
	s.w.f.tracef("worker %d forgets session %x", s.w.instance, key.Hash[:3])
	s.gone[key] = true
}

// Claim is of [sessions.Store].
func (s *shelves) Claim(at sessions.Claim, done func(sessions.Claimed, error)) error {
	if s.w.f.fault(s.w.f.plan.storeBusy) {
		return sessions.ErrAway
	}
	var got sessions.Claimed
	x := &storing{what: "claims", away: true, told: func(err error) { done(got, err) }, undo: func() { s.Unclaim(at) }}
	x.again = func(err error) time.Duration {
		if err == sessions.ErrClaimed && !x.late && s.w.f.now-x.since < claimTime {
			return 20 * time.Millisecond
		}
		return 0
	}
	x.apply = func() error {
		r := s.book.record(at.Key)
		owner := s.w.f.of(at.Key.Instance)
		died, dead := s.w.deaths[at.Key.Instance]
		switch {
		case r == nil && s.book.unwritten(owner):
			return sessions.ErrAway
		case r == nil, owner == nil, !r.parked && dead && died+s.w.f.plan.config.ReconnectionTTL <= s.w.f.now:
			return sessions.ErrUnknown
		case r.taker != nil && s.w.alive(r.taker):
			return sessions.ErrClaimed
		}
		if r.taker == nil {
			r.until = r.expires
		}
		r.taker, r.nonce = s.w, at.Nonce
		r.expires = s.w.f.now + s.w.f.plan.config.ReconnectionTTL
		s.won[at] = s.turn
		got = sessions.Claimed{Value: slices.Clone(r.value), OwnerAlive: !r.parked && !dead}
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

// Unclaim is of [sessions.Store].
func (s *shelves) Unclaim(at sessions.Claim) {
	s.release("unclaims", at, nil, func(r *sessionRecord) {
		if r.taker != nil { // else the store has lost the claim
			r.taker, r.expires = nil, r.until
		}
	})
}

// Restore is of [sessions.Store].
func (s *shelves) Restore(at sessions.Claim, value sessions.Value, ttl time.Duration) {
	s.release("restores", at, nil, func(*sessionRecord) {
		s.book.records[at.Key] = &sessionRecord{parked: true, value: value.Bytes(), expires: s.w.f.now + ttl}
	})
}

// Spend is of [sessions.Store].
func (s *shelves) Spend(at sessions.Claim, done func(error)) error {
	s.release("spends", at, done, func(*sessionRecord) { s.book.remove(at.Key) })
	return nil
}

// release ends a claim, however long that takes.
func (s *shelves) release(what string, at sessions.Claim, done func(error), end func(*sessionRecord)) {
	x := &storing{what: what, told: done}
	x.apply = func() error {
		r := s.book.record(at.Key)
		turn, won := s.won[at]
		deleted, was := s.book.deleted[at.Key]
		switch {
		case won && turn != s.book.turn && (r == nil || r.taker == nil):
			switch {
			case what != "spends" || r != nil:
			case was && s.w.f.now-deleted < markerTime: // by a later claimant
				delete(s.won, at)
				return sessions.ErrClaimed
			case s.book.unwritten(s.w.f.of(at.Key.Instance)):
				return errUnwritten
			}
			if r == nil {
				r = &sessionRecord{}
			}
		case r == nil:
			return sessions.ErrUnknown
		case r.taker != s.w || r.nonce != at.Nonce:
			return sessions.ErrClaimed
		}
		delete(s.won, at)
		end(r)
		return nil
	}
	x.again = func(err error) time.Duration {
		if err == errUnwritten {
			return 50 * time.Millisecond
		}
		return 0
	}
	s.call(at.Key, x)
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

// The stores can lose all of their records at once, as when the bus comes back with an empty disk. A worker learns of that
// with its next call, or within a second, and writes anew what it knows: the sessions of its live connections, its seats, the
// created rooms. Sessions without a connection are lost, and seats that were given and not taken yet.

// losses are the losses of the stores.
//
// Owner: the simulation.
type losses struct {
	turn    int                            // how many there were
	lostAt  []time.Duration                // when
	changes int                            // of created rooms, before the latest
	deleted map[sessions.Key]time.Duration // when each was last deleted, since the latest loss
	marks   map[*worker]int                // the turn in which a worker has written all of its sessions anew
}

// markerTime is for how long the store knows that a record was deleted.
const markerTime = time.Second

// remove deletes a session's record.
func (b *sessionBook) remove(key sessions.Key) {
	delete(b.records, key)
	b.deleted[key] = b.f.now
}

var errUnwritten = errors.New("the session's owner has not written its sessions anew")

// lose wipes the stores.
func (f *Fleet) lose() {
	f.tracef("the stores lose all records")
	s := f.store
	s.turn, s.lostAt, s.changes = s.turn+1, append(s.lostAt, f.now), len(f.created.changes)
	clear(s.records)
	clear(s.deleted)
	clear(f.created.rooms)
	for _, r := range f.seats.rooms {
		r.gifts = nil
		for w := range r.used {
			if w.dead {
				delete(r.used, w)
			}
		}
	}
	for _, w := range f.slots {
		if w != nil {
			f.later(f.span(0, time.Second), w.notice)
		}
	}
}

// notice makes a worker look at the stores.
func (w *worker) notice() {
	switch {
	case w.dead:
	case !w.reached() || !w.serving:
		w.f.later(20*time.Millisecond, w.notice)
	default:
		w.shelves.learn()
	}
}

// learn makes a worker write its records anew, if the stores have lost them.
func (s *shelves) learn() {
	if s.turn == s.book.turn {
		return
	}
	s.turn = s.book.turn
	f := s.w.f
	f.tracef("worker %d writes its records anew", s.w.instance)
	for key, known := range s.known {
		if known {
			s.lost[key], s.late[key.Hash] = true, f.now
		}
	}
	clear(s.known)
	f.created.rewrite(s.w)
	turn := s.turn
	s.w.server.Server.Worker().Sessions.SaveSessions(func() { s.rewritten(turn) })
}

// rewritten sets the worker's mark once its sessions are in the store.
func (s *shelves) rewritten(turn int) {
	if s.w.dead || s.turn != turn {
		return
	}
	for key := range s.lost {
		if slices.ContainsFunc(s.under[key], func(x *storing) bool { return x.write }) {
			s.w.f.later(20*time.Millisecond, func() { s.rewritten(turn) })
			return
		}
		s.late[key.Hash] = s.w.f.now
	}
	clear(s.lost)
	s.book.marks[s.w] = turn
	s.w.f.tracef("worker %d has written its records anew", s.w.instance)
}

// unwritten reports whether a live worker has not yet written all of its sessions anew.
func (b *sessionBook) unwritten(owner *worker) bool {
	return owner != nil && !owner.dead && owner.serving && b.marks[owner] != b.turn
}

// written reports whether all workers have written their seats anew.
func (f *Fleet) written() bool {
	for _, w := range f.slots {
		if w != nil && w.serving && w.shelves.turn != f.store.turn {
			return false
		}
	}
	return true
}

// mayBeLost reports whether the stores may have lost a session for good: its connection had ended before, or its worker was killed
// before it had written its sessions anew. A worker counts as having done so although the busy store has refused a session without a
// connection, which it tries to park again a second later.
func (t *fleetTruth) mayBeLost(s *fleetSession) bool {
	c, w := s.of, s.of.client.w
	for i, at := range t.f.store.lostAt {
		refused, busy := w.shelves.refused[s.hash]
		if c.ended != 0 && (c.endedAt <= at || busy && refused >= at) || w.dead && w.died >= at && t.f.store.marks[w] <= i {
			return true
		}
	}
	return false
}
