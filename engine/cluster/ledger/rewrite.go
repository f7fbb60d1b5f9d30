package ledger

import "github.com/parleyd/parley/protocol/ident"

// A worker rewrites its records into streams that have lost them: see origin.go.

// rewrite begins to write all sessions of this worker again. The engine has their values. The lost stream had the record of
// which sessions were used, and a version of such a session may be on its way here. So nothing is written before the engine has
// said which sessions to forget, which it does before Lost returns.
func (s *Sessions) rewrite(b *bucket, first bool) {
	s.lost = 0
	for _, o := range s.owned {
		o.revision, o.piled, o.late = 0, 0, 0
		if o.parked { // it has no connection, and another worker may have used it
			s.giveUp(o)
		}
		if o.lost = !o.gone && (o.known || o.lost); !o.lost {
			continue
		}
		o.known = false
		s.lost++
		s.l.timers.stop(o.timer)
		o.timer = nil
	}
	turn := b.turn
	s.resaving = true
	done := func() {
		if b.turn == turn {
			s.resaved()
		}
	}
	if first || s.l.opts.Lost == nil {
		done()
		return
	}
	s.asking++
	s.l.opts.Lost(func() { s.l.post(done) })
	s.l.post(s.asked)
}

// asked goes on with the versions that have waited for Lost.
func (s *Sessions) asked() {
	if s.asking--; s.asking > 0 {
		return
	}
	for key, o := range s.owned {
		s.schedule(key, o)
	}
	s.l.wire.pump()
}

// resaved says that the engine has saved all sessions again.
func (s *Sessions) resaved() {
	s.resaving = false
	for key, o := range s.owned {
		switch {
		case o.next != nil || o.sent != nil:
			o.forgotten = false
		case o.forgotten:
			delete(s.owned, key)
		default:
			s.found(o) // it has no connection at the moment; a later connection saves it
		}
	}
	s.rewritten()
}

// retry writes a version into the stream that has replaced a lost one, unless Lost has made the engine forget the session.
func (s *Sessions) retry(key Key, o *owned) {
	s.l.post(func() {
		if o.gone && o.sent.state != 0 {
			s.unwritten(key, o, ErrUnknown)
			return
		}
		s.try(key, o)
	})
}

// found says that a session is on the bus again, or does not have to be.
func (s *Sessions) found(o *owned) {
	if o.lost {
		o.lost = false
		s.lost--
		s.rewritten()
	}
}

func (s *Sessions) rewritten() {
	if b := s.l.bucket(sessionBucket); s.lost == 0 && !s.resaving && !b.marked {
		b.mark(sessionMark(s.l.opts.Instance))
	}
}

// missing decides about a claim that finds no session. It fails with ErrUnknown, unless the worker that made the session
// has not yet rewritten its lost records: then with ErrAway.
func (c *claim) missing() {
	l, inst := c.s.l, c.at.Key.Instance
	if !l.serves(inst) {
		c.end(ErrUnknown)
		return
	}
	l.get(sessionBucket, sessionMark(inst), func(mark found) {
		b := l.bucket(sessionBucket)
		if string(mark.payload) != b.id {
			b.check()
			c.end(ErrAway)
			return
		}
		l.get(sessionBucket, c.at.Key.subject(), func(f found) {
			if f.payload == nil {
				c.end(ErrUnknown)
				return
			}
			c.saw(f)
		})
	})
}

// serves reports whether an instance is a live worker.
func (l *Ledger) serves(instance ident.Worker) bool {
	if instance == l.opts.Instance {
		return true
	}
	for _, p := range l.peers {
		if p == instance {
			return !l.life.isDead(worker{l.opts.Epoch, instance})
		}
	}
	return false
}

// unclaimed decides about the release of a session whose record does not have our claim any more. If the record was lost
// since we claimed it, the claim is still valid, and a record that is there now was rewritten by the owner: the session is
// spent, or parked. Unclaim has nothing to do then: only the owner can write the session as it was.
func (r *release) unclaimed(rec session, f found) {
	b := r.s.l.bucket(sessionBucket)
	b.confirm(func(bool) {
		turn, won := r.s.won[r.at]
		switch {
		case !won || turn == b.turn || rec.state == claimed:
			if f.payload == nil {
				r.end(ErrUnknown)
				return
			}
			r.end(ErrClaimed)
		case r.park && f.payload == nil:
			r.put(session{state: claimed, before: Parked, owner: r.s.l.opts.Epoch}, f.revision)
		case r.park, r.spend && f.payload != nil:
			rec.before = rec.state
			r.put(rec, f.revision)
		case r.spend && f.revision != 0:
			r.end(ErrClaimed)
		case r.spend:
			r.vanished()
		default:
			r.end(nil)
		}
	})
}

// vanished decides about a spend that finds no record, since the stream was lost. It waits until the owner has rewritten its
// sessions: if it rewrites this one, too, the token would be valid again. A record that was deleted since the loss was claimed and
// spent by another worker, or dropped by its owner.
func (r *release) vanished() {
	l, inst := r.s.l, r.at.Key.Instance
	if !l.serves(inst) {
		r.end(nil)
		return
	}
	l.get(sessionBucket, sessionMark(inst), func(mark found) {
		if string(mark.payload) != l.bucket(sessionBucket).id {
			l.after(marksAgain, r.look)
			return
		}
		l.get(sessionBucket, r.at.Key.subject(), func(f found) {
			switch {
			case f.payload != nil:
				r.saw(f)
			case f.revision != 0:
				r.end(ErrClaimed)
			default:
				r.end(nil)
			}
		})
	})
}

// restart begins to write the seats of this worker again, but only those in use. Until all workers have done so, none takes
// further seats.
func (s *Seats) restart(b *bucket) {
	for _, r := range s.rooms {
		r.view, r.revision, r.stage = seatRecord{epoch: s.l.opts.Epoch}, 0, begun
		r.count, r.held, r.target, r.stray = 0, 0, -1, true
		r.serve()
	}
	s.rewritten(b.turn)
}

// rewritten marks the stream once it has all seats in use.
func (s *Seats) rewritten(turn int) {
	b := s.l.bucket(seatBucket)
	if b.turn != turn {
		return
	}
	for _, r := range s.rooms {
		if r.used > r.count {
			s.l.after(marksAgain, func() { s.rewritten(turn) })
			return
		}
	}
	b.mark(seatMark(s.l.opts.Instance))
}

// serveAll goes on with the rooms that want seats.
func (s *Seats) serveAll() {
	for _, r := range s.rooms {
		r.serve()
	}
}
