package ledger

import "github.com/parleyd/parley/protocol/ident"

// What a worker writes anew into streams that have lost what was in them: see origin.go.

// rewrite begins to write all sessions of this worker once more. The engine has their values.
func (s *Sessions) rewrite(b *bucket, first bool) {
	s.lost = 0
	for key, o := range s.owned {
		o.revision, o.piled, o.late = 0, 0, 0
		if o.lost = !o.gone && (o.known || o.lost); !o.lost {
			continue
		}
		o.known = false
		s.lost++
		if o.next != nil {
			s.l.timers.stop(o.timer)
			o.timer = nil
			s.schedule(key, o)
		}
	}
	turn := b.turn
	s.handing = true
	done := func() {
		if b.turn == turn {
			s.handing = false
			for _, o := range s.owned {
				if o.next == nil && o.sent == nil {
					s.found(o) // no connection has it at the moment; it is saved when one does
				}
			}
			s.rewritten()
		}
	}
	if first || s.l.opts.Lost == nil {
		done()
		return
	}
	s.l.opts.Lost(func() { s.l.post(done) })
}

// found says that a session is on the bus again, or need not be.
func (s *Sessions) found(o *owned) {
	if o.lost {
		o.lost = false
		s.lost--
		s.rewritten()
	}
}

func (s *Sessions) rewritten() {
	if b := s.l.bucket(sessionBucket); s.lost == 0 && !s.handing && !b.marked {
		b.mark(sessionMark(s.l.opts.Instance))
	}
}

// missing decides about a claim that finds no session: it is over, unless the worker that it names has not yet written anew
// what was lost.
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

// serves reports whether an instance is a worker that lives.
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

// unclaimed decides about a claimed session that is to be let go, and is not claimed by us any more. Where it was lost since we
// claimed it, it is ours still: it is spent, or parked once more. Put back as it was it can only be by its owner. What is there
// by now, if anything, its owner has written anew.
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
		default:
			r.end(nil)
		}
	})
}

// anew begins to write all seats of this worker once more: those that are in use, and nothing else. Until all workers have
// done so nobody takes any.
func (s *Seats) anew(b *bucket) {
	for _, r := range s.rooms {
		r.view, r.revision, r.stage = seatRecord{epoch: s.l.opts.Epoch}, 0, begun
		r.count, r.held, r.target, r.stray = 0, 0, -1, true
		r.serve()
	}
	s.rewritten(b.turn)
}

// rewritten marks the stream once all seats that are in use are in it.
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

// serveAll goes on with the rooms in which seats are wanted.
func (s *Seats) serveAll() {
	for _, r := range s.rooms {
		r.serve()
	}
}
