package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"
)

// Sessions are the sessions of all workers.
//
// A worker writes the sessions that it made (Save, Park, Drop), each at the revision that it knows. A claim by any worker
// changes the revision, so that the owner's next write fails, and the owner learns that it has lost the session. One write
// of a session is on its way at a time. Saves meanwhile, and within the coalescing time, become one write of the latest
// value.
//
// Owner: the ledger's goroutine.
type Sessions struct {
	l      *Ledger
	owned  map[Key]*owned
	due    []Key // sessions with a version to send when fewer than inFlightMax requests are on their way, in order
	claims map[Claim]*claim
	won    map[Claim]int // claims of this worker that have not ended, with the turn of the bucket in which they succeeded

	lost     int  // sessions to be rewritten
	resaving bool // Options.Lost has not finished
	asking   int  // calls of Options.Lost whose Forgets have not been carried out: no version leaves until then
}

// owned is a session that this worker made and has not parked, dropped or forgotten.
//
// Owner: the ledger's goroutine.
type owned struct {
	revision uint64
	late     uint64 // hash of the value that was written after its caller got ErrAway; 0 for none
	next     *draft // not sent yet
	sent     *draft
	timer    *timer   // until next is due
	idle     []func() // claims of this worker, which wait until no write is on its way
	known    bool     // the record has been written, or read
	due      bool     // next is in Sessions.due
	gone     bool     // a claimant has used it: a further write would restore a used session
	lost     bool     // gone from the bus, and to be rewritten
	parked   bool     // it was parked after its caller got ErrAway, and the caller will repeat that
	piled    uint8    // how many earlier versions the bus may still have
	// forgotten is set by Forget while the engine saves all sessions again: a version that the engine gave just before may follow.
	forgotten bool
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

// ValueBytesMax is the size of the largest session that is kept: a larger one would delay others on its way.
const ValueBytesMax = 512 << 10

func checkValue(value []byte) error {
	if len(value) > ValueBytesMax {
		return fmt.Errorf("store session of %d bytes, %d at most: %w", len(value), ValueBytesMax, ErrTooLarge)
	}
	return nil
}

// Save stores a session whose connection lives. The first save of a key is written at once, later ones within the
// coalescing time. value belongs to the ledger from here on. done gets ErrClaimed while a claim holds the session (with
// this value or the one before): the claimant may restore it, so save again later. It gets ErrUnknown if the session is
// gone, or has another owner: further saves fail too; call Forget. After ErrAway the ledger goes on trying to write the
// latest value, until the session is dropped; a repeated Save of the same value gets the outcome, and costs no further
// write. Any goroutine.
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

// Drop deletes a session that this worker made, unless it is claimed. It is never refused. done may be nil; it gets nil,
// ErrClaimed or ErrUnknown, or ErrAway, after which the ledger goes on trying, or ErrClosed. Any goroutine.
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

// Forget says that this worker will not write a session any more, because it has another owner. No record is deleted. Any
// goroutine.
func (s *Sessions) Forget(key Key) {
	s.l.post(func() {
		o := s.owned[key]
		if o == nil {
			return
		}
		s.giveUp(o)
		o.forgotten = s.resaving
		s.found(o)
		if o.sent == nil {
			s.remove(key, o)
			s.settle(key, o)
		}
	})
}

// giveUp says that a session has another owner: the next version is not written.
func (s *Sessions) giveUp(o *owned) {
	o.gone = true
	if o.next != nil {
		s.l.timers.stop(o.timer)
		promises := o.next.promises
		o.timer, o.next, o.due = nil, nil, false
		keepAll(promises, ErrUnknown)
	}
}

// remove ends the ledger's knowledge of a session that needs no further write.
func (s *Sessions) remove(key Key, o *owned) {
	if !o.forgotten {
		delete(s.owned, key)
	}
}

func keepAll(promises []*promise, err error) {
	for _, p := range promises {
		p.keep(err)
	}
}

// revise makes d the next version, in place of one that has not been sent.
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

// repeats reports whether the value of d is on its way already, or was written after its caller got ErrAway: then d needs no
// write. If a bus takes longer than a caller waits, repeated writes would keep it late for ever.
func (o *owned) repeats(d *draft) bool {
	latest := o.next
	if latest == nil {
		latest = o.sent
	}
	switch {
	case d.state != Live:
	case latest == nil && o.late != 0 && o.late == xxhash.Sum64(d.value):
		o.late = 0 // a third Save of the value writes again
		keepAll(d.promises, nil)
		return true
	case latest != nil && latest.state == Live && bytes.Equal(latest.value, d.value):
		latest.promises = append(waiting(latest.promises), d.promises...)
		return true
	}
	return false
}

// waiting omits the promises at the head that have got ErrAway.
func waiting(promises []*promise) []*promise {
	for len(promises) > 0 && promises[0].kept {
		promises = promises[1:]
	}
	return promises
}

// schedule sends the next version when it is due: the first and the last of a session at once.
func (s *Sessions) schedule(key Key, o *owned) {
	switch {
	case o.sent != nil || o.next == nil || s.asking > 0:
	case o.lost && o.next.state == Live && len(o.idle) == 0: // lost sessions are many: awaited requests go first
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

// sendDue sends the latest version of the session that has been due for longest; false if there is none.
func (s *Sessions) sendDue() bool {
	for len(s.due) > 0 && s.asking == 0 {
		key := s.due[0]
		s.due = s.due[1:]
		if o := s.owned[key]; o != nil && o.due { // it may have been sent meanwhile
			s.send(key, o)
			return true
		}
	}
	if len(s.due) == 0 {
		s.due = nil
	}
	return false
}

func (s *Sessions) send(key Key, o *owned) {
	s.l.timers.stop(o.timer)
	o.timer, o.due, o.sent, o.next, o.late = nil, false, o.next, nil, 0
	o.sent.mark = s.l.mark()
	s.try(key, o)
}

// pileMax is how many earlier versions of a live session the bus keeps: to remove one costs as much as to store one.
const pileMax = 7

// try sends the version in o.sent, at the latest known revision.
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
			err = errConflict // it may have been stored in the lost stream
		}
		switch err {
		case nil:
			s.written(key, o, revision)
		case errConflict:
			s.l.get(sessionBucket, key.subject(), func(f found) { s.overtaken(key, o, turn, f) })
		default:
			s.unwritten(key, o, err)
		}
	}
	s.l.set(c)
}

func (s *Sessions) written(key Key, o *owned, revision uint64) {
	d := o.sent
	if o.piled++; o.piled > pileMax {
		o.piled = 0
	}
	o.revision, o.known, o.sent, o.late = revision, true, nil, 0
	s.found(o)
	late := slices.ContainsFunc(d.promises, func(p *promise) bool { return p.kept })
	if d.state == Live && late {
		o.late = xxhash.Sum64(d.value)
	}
	o.parked = d.state == Parked && late
	if o.gone || d.state != Live && o.next == nil && !o.parked {
		s.remove(key, o) // parked or deleted: the owner has no more to write
	}
	keepAll(d.promises, nil)
	s.settle(key, o)
}

// overtaken finds out why a write failed. The record may have our own mark (an earlier attempt had succeeded), or a
// claimant may have restored it: then it is still ours.
func (s *Sessions) overtaken(key Key, o *owned, turn int, f found) {
	d, b := o.sent, s.l.bucket(sessionBucket)
	if f.payload == nil {
		switch {
		case b.turn != turn && (!o.lost || f.revision == 0): // the stream that it was sent to is lost
			o.revision = f.revision
			s.retry(key, o)
		case d.state != 0 && o.known && f.revision == 0: // a claimant has used and deleted it, or the stream is lost
			b.confirm(func(same bool) {
				if same {
					s.unwritten(key, o, ErrUnknown)
					return
				}
				s.retry(key, o)
			})
		case d.state == 0:
			s.written(key, o, f.revision)
		case !o.known && !o.lost && o.revision != f.revision: // the marker of an earlier session with this key
			o.revision = f.revision
			s.try(key, o)
		default:
			s.unwritten(key, o, ErrUnknown) // a claimant has used and deleted it
		}
		return
	}
	rec, err := decodeSession(f.payload)
	switch {
	case err != nil:
		s.unwritten(key, o, err)
	case rec.mark == d.mark:
		s.written(key, o, f.revision)
	case o.gone && d.state != 0:
		s.unwritten(key, o, ErrUnknown)
	case rec.state == Live && rec.owner == s.l.opts.Epoch, d.state == 0 && rec.state == Parked:
		o.revision, o.known = f.revision, true
		s.try(key, o)
	case rec.state == claimed:
		o.known = true // the revision stays the same, so that the next write fails too, and never overwrites the claim
		s.unwritten(key, o, ErrClaimed)
	default:
		s.unwritten(key, o, ErrUnknown)
	}
}

// unwritten says that a version could not be written. A session that is gone stays marked so until Forget.
func (s *Sessions) unwritten(key Key, o *owned, err error) {
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
		s.remove(key, o)
	}
	keepAll(promises, err)
	s.settle(key, o)
}

// settle goes on after a write: with the next version, or with claims of this worker.
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

// whenIdle runs f once no write of this session is waiting or on its way: at once, if this worker does not own it.
func (s *Sessions) whenIdle(key Key, f func()) {
	o := s.owned[key]
	if o == nil || o.next == nil && o.sent == nil {
		f()
		return
	}
	o.idle = append(o.idle, f)
	s.schedule(key, o)
}
