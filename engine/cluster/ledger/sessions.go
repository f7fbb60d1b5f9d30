package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"
)

// Sessions are what tokens restore, over all workers.
//
// A worker writes the sessions that it made (Save, Park, Drop), each at the revision that it knows; a claim by
// anybody moves the revision, so that the owner's next write fails, and it learns that the session is no longer
// its own. One write of a session is on its way at a time. What is saved meanwhile, and within the coalescing
// time, leaves as one write of the latest value.
//
// Owner: the ledger's goroutine.
type Sessions struct {
	l      *Ledger
	owned  map[Key]*owned
	due    []Key // whose next version may leave when there is room on the way to the bus, the first first
	claims map[Claim]*claim
	won    map[Claim]int // claims of this worker that have not ended, and in which stream they were won
	trials int           // sets sent, for tests

	lost    int  // sessions that are to be written anew
	handing bool // not all of them have been saved again
}

// owned is a session that this worker made and has not parked, dropped or forgotten.
//
// Owner: the ledger's goroutine.
type owned struct {
	revision uint64
	late     uint64 // hash of what was written after its saver was told ErrAway; 0 for none
	next     *draft // not sent yet
	sent     *draft
	timer    *timer   // until next is due
	idle     []func() // claims of this worker, which wait until nothing is on its way
	known    bool     // the record has been written, or seen
	due      bool     // next may leave
	gone     bool     // somebody has used it: nothing is written any more, or it would come back to life
	lost     bool     // gone from the bus, and to be written anew
	piled    uint8    // earlier versions that the bus may still have
}

// draft is a version of a session to be written.
//
// Owner: the ledger's goroutine.
type draft struct {
	state    State // 0 to delete
	value    []byte
	ttl      time.Duration
	mark     mark
	promises []*promise
}

func newSessions(l *Ledger) *Sessions {
	return &Sessions{l: l, owned: make(map[Key]*owned), claims: make(map[Claim]*claim), won: make(map[Claim]int)}
}

var errForeign = errors.New("session is another instance's: only its owner may write it")

// ValueBytesMax is the largest session that is kept: one that is larger would hold up others on its way.
const ValueBytesMax = 512 << 10

func checkValue(value []byte) error {
	if len(value) > ValueBytesMax {
		return fmt.Errorf("store session of %d bytes, %d at most: %w", len(value), ValueBytesMax, ErrTooLarge)
	}
	return nil
}

// Save stores a session whose connection lives. The first save of a key is written at once, later ones within the
// coalescing time. value belongs to the ledger from here on. done gets ErrClaimed while somebody holds a claim (with this
// value or the one before): he may put the session back, so save it again later. It gets ErrUnknown where the session is
// no more, or another's: then further saves are in vain; Forget it. After ErrAway the ledger goes on trying to write the
// latest value, until the session is dropped; who saves the same value again learns what became of it, and costs the bus
// nothing. Any goroutine.
func (s *Sessions) Save(key Key, value []byte, done func(error)) error {
	return s.write(key, &draft{state: Live, value: value}, done)
}

// Park stores a session whose connection has ended, at once, until ttl is over (at most the ledger's SessionTTL).
// Otherwise it is like Save. Any goroutine.
func (s *Sessions) Park(key Key, value []byte, ttl time.Duration, done func(error)) error {
	return s.write(key, &draft{state: Parked, value: value, ttl: min(max(ttl, time.Second), s.l.opts.SessionTTL)}, done)
}

func (s *Sessions) write(key Key, d *draft, done func(error)) error {
	if key.Instance != s.l.opts.Instance {
		return errForeign
	}
	if err := checkValue(d.value); err != nil {
		return err
	}
	return s.l.accept(func() {
		d.promises = []*promise{s.l.promise(done)}
		s.revise(key, d)
	})
}

// Drop deletes a session that this worker made, unless somebody has claimed it. It is never refused. done may be nil; it is
// called with nil, ErrClaimed or ErrUnknown, with ErrAway, after which the ledger goes on trying, or with ErrClosed. Any
// goroutine.
func (s *Sessions) Drop(key Key, done func(error)) {
	if done == nil {
		s.l.post(func() { s.revise(key, &draft{}) })
		return
	}
	s.l.pending.Add(1)
	if !s.l.post(func() { s.revise(key, &draft{promises: []*promise{s.l.promise(done)}}) }) {
		s.l.pending.Add(-1)
		done(ErrClosed)
	}
}

// Forget says that this worker will not write a session any more, whose it is now. Nothing is deleted. Any goroutine.
func (s *Sessions) Forget(key Key) {
	s.l.post(func() {
		o := s.owned[key]
		if o == nil {
			return
		}
		o.gone = true
		if o.next != nil {
			s.l.timers.stop(o.timer)
			promises := o.next.promises
			o.timer, o.next, o.due = nil, nil, false
			keepAll(promises, ErrUnknown)
		}
		s.found(o)
		if o.sent == nil {
			delete(s.owned, key)
			s.settle(key, o)
		}
	})
}

func keepAll(promises []*promise, err error) {
	for _, p := range promises {
		p.keep(err)
	}
}

// Owned is the number of sessions that this worker may write; done runs on the ledger's goroutine.
func (s *Sessions) Owned(done func(int)) {
	s.l.post(func() { done(len(s.owned)) })
}

// revise makes d the next version, in the place of one that has not left yet.
func (s *Sessions) revise(key Key, d *draft) {
	o := s.owned[key]
	if o == nil {
		o = &owned{}
		s.owned[key] = o
	}
	if o.gone {
		if d.state == 0 && o.sent == nil {
			delete(s.owned, key)
		}
		keepAll(d.promises, ErrUnknown)
		return
	}
	if o.repeats(d) {
		return
	}
	if o.next != nil {
		d.promises = append(waiting(o.next.promises), d.promises...)
	}
	o.next = d
	s.schedule(key, o)
}

// repeats reports whether d is what is on its way already, or was written after whoever saved it had been told ErrAway:
// then that counts. On a bus that is behind by more than a caller waits, to write it again would keep it behind for ever.
func (o *owned) repeats(d *draft) bool {
	latest := o.next
	if latest == nil {
		latest = o.sent
	}
	switch {
	case d.state != Live:
	case latest == nil && o.late != 0 && o.late == xxhash.Sum64(d.value):
		o.late = 0 // whoever saves it a third time wants to know what holds by then
		keepAll(d.promises, nil)
		return true
	case latest != nil && latest.state == Live && bytes.Equal(latest.value, d.value):
		latest.promises = append(waiting(latest.promises), d.promises...)
		return true
	}
	return false
}

// waiting leaves out those at the head who have been told ErrAway: the bus is away for long.
func waiting(promises []*promise) []*promise {
	for len(promises) > 0 && promises[0].kept {
		promises = promises[1:]
	}
	return promises
}

// schedule sends the next version when its time has come: the first one and the last at once.
func (s *Sessions) schedule(key Key, o *owned) {
	switch {
	case o.sent != nil || o.next == nil:
	case o.lost && o.next.state == Live && len(o.idle) == 0: // there are many, and what others wait for goes first
		if !o.due {
			o.due = true
			s.due = append(s.due, key)
			s.l.wire.pump()
		}
	case !o.known || o.next.state != Live || len(o.idle) > 0:
		s.send(key, o)
	case o.timer == nil && !o.due:
		o.timer = s.l.after(s.l.opts.Coalesce, func() {
			o.timer, o.due = nil, true
			s.due = append(s.due, key)
			s.l.wire.pump()
		})
	}
}

// sendDue sends the latest version of the session that has been due for longest; false where there is none.
func (s *Sessions) sendDue() bool {
	for len(s.due) > 0 {
		key := s.due[0]
		s.due = s.due[1:]
		if o := s.owned[key]; o != nil && o.due { // it may have left meanwhile
			s.send(key, o)
			return true
		}
	}
	s.due = nil
	return false
}

func (s *Sessions) send(key Key, o *owned) {
	s.l.timers.stop(o.timer)
	o.timer, o.due, o.sent, o.next, o.late = nil, false, o.next, nil, 0
	o.sent.mark = s.l.mark()
	s.try(key, o)
}

// pileMax is how many earlier versions of a live session the bus keeps: removing one costs it as much as storing one.
const pileMax = 7

// try sends the version that is on its way, at the revision that is known by now.
func (s *Sessions) try(key Key, o *owned) {
	d, turn := o.sent, s.l.bucket(sessionBucket).turn
	c := &set{bucket: sessionBucket, key: key.subject(), expect: o.revision, ttl: d.ttl}
	c.pile = d.state == Live && o.piled < pileMax
	if d.state != 0 {
		rec := session{state: d.state, owner: s.l.opts.Epoch, mark: d.mark, value: d.value}
		if d.ttl > 0 {
			rec.expires = s.l.unix() + d.ttl.Milliseconds()
		}
		c.payload = rec.encode()
	}
	c.done = func(revision uint64, err error) {
		if err == nil && turn != s.l.bucket(sessionBucket).turn {
			err = errConflict // it may have landed in the stream that was lost
		}
		switch err {
		case nil:
			s.written(key, o, revision)
		case errConflict:
			s.l.get(sessionBucket, key.subject(), func(f found) { s.overtaken(key, o, turn, f) })
		default:
			s.lose(key, o, err)
		}
	}
	s.trials++
	s.l.set(c)
}

func (s *Sessions) written(key Key, o *owned, revision uint64) {
	d := o.sent
	if o.piled++; o.piled > pileMax {
		o.piled = 0
	}
	o.revision, o.known, o.sent, o.late = revision, true, nil, 0
	s.found(o)
	if d.state == Live && slices.ContainsFunc(d.promises, func(p *promise) bool { return p.kept }) {
		o.late = xxhash.Sum64(d.value)
	}
	if o.gone || d.state != Live && o.next == nil {
		delete(s.owned, key) // parked or deleted: nothing of it need be remembered
	}
	keepAll(d.promises, nil)
	s.settle(key, o)
}

// overtaken finds out why a write failed. The record may carry our own mark (an attempt had landed and its answer
// was lost), or have been put back by a claimant who could not use it: then it is still ours.
func (s *Sessions) overtaken(key Key, o *owned, turn int, f found) {
	d, b := o.sent, s.l.bucket(sessionBucket)
	if f.payload == nil {
		switch {
		case b.turn != turn: // it was sent to a stream that has been lost since
			o.revision = f.revision
			s.try(key, o)
		case d.state != 0 && o.known && f.revision == 0: // a claimant has used it and dropped it, or all is lost
			b.confirm(func(same bool) {
				if same {
					s.lose(key, o, ErrUnknown)
					return
				}
				s.try(key, o)
			})
		case d.state == 0:
			s.written(key, o, f.revision)
		case !o.known && o.revision != f.revision: // the marker of an earlier session with this key
			o.revision = f.revision
			s.try(key, o)
		default:
			s.lose(key, o, ErrUnknown) // a claimant has used it and dropped it
		}
		return
	}
	rec, err := decodeSession(f.payload)
	switch {
	case err != nil:
		s.lose(key, o, err)
	case rec.mark == d.mark:
		s.written(key, o, f.revision)
	case rec.state == Live && rec.owner == s.l.opts.Epoch, d.state == 0 && rec.state == Parked:
		o.revision, o.known = f.revision, true
		s.try(key, o)
	case rec.state == claimed:
		o.known = true // the revision stays what it was, so that the next write finds out, and never overwrites the claim
		s.lose(key, o, ErrClaimed)
	default:
		s.lose(key, o, ErrUnknown)
	}
}

// lose tells that a version could not be written. Where the session is gone this is remembered until it is forgotten.
func (s *Sessions) lose(key Key, o *owned, err error) {
	dropped := o.sent.state == 0 || o.gone
	promises := o.sent.promises
	if o.next != nil {
		dropped = dropped || o.next.state == 0
		promises = append(promises, o.next.promises...)
	}
	s.l.timers.stop(o.timer)
	o.timer, o.due, o.sent, o.next = nil, false, nil, nil
	o.gone = o.gone || err == ErrUnknown
	s.found(o)
	if dropped || err != ErrUnknown && err != ErrClaimed {
		delete(s.owned, key)
	}
	keepAll(promises, err)
	s.settle(key, o)
}

// settle goes on with what waits: the next version, or claims of this worker.
func (s *Sessions) settle(key Key, o *owned) {
	if o.next != nil || o.sent != nil {
		s.schedule(key, o)
		return
	}
	for len(o.idle) > 0 {
		f := o.idle[0]
		o.idle = o.idle[1:]
		f()
	}
}

// whenIdle runs f once nothing of this session is on its way: at once, where it is not ours.
func (s *Sessions) whenIdle(key Key, f func()) {
	o := s.owned[key]
	if o == nil || o.next == nil && o.sent == nil {
		f()
		return
	}
	o.idle = append(o.idle, f)
	s.schedule(key, o)
}
