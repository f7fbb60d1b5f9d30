package ledger

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/parleyd/parley/protocol/ident"
)

// refusedTime is the pause after the bus has refused a record.
const refusedTime = time.Second

// write sets our holding to count seats.
func (r *seatRoom) write(count int) { r.writeWith(count, r.view.gifts) }

// writeWith sets our holding and the gifts. Until the outcome, held is what both the old and the new count allow; seats in
// going are used until then, and not held any more after success.
func (r *seatRoom) writeWith(count int, gifts []gift) {
	l, b := r.s.l, r.s.l.bucket(seatBucket)
	turn := b.turn
	r.busy, r.target = true, count
	r.held = min(r.held, count+len(r.going))
	next := seatRecord{epoch: l.opts.Epoch, limit: uint32(r.limit), holdings: r.view.with(l.opts.Instance, count), gifts: gifts}
	c := &set{bucket: seatBucket, key: r.key, expect: r.revision, payload: next.payload()}
	c.done = func(revision uint64, err error) {
		landed := func(same bool) {
			if !same {
				r.look(looked)
				return
			}
			r.busy, r.revision, r.view, r.stage = false, revision, next, max(r.stage, looked)
			r.counted(count)
			r.serve()
		}
		switch {
		case err == nil && turn == b.turn && count > r.count:
			b.confirm(landed)
		case err == nil:
			landed(turn == b.turn)
		case err == errConflict:
			r.look(max(r.stage, looked))
		default:
			r.busy = false
			r.gave(false)
			l.fault(err)
			r.fail(err)
			l.after(refusedTime, func() { // the record must still get what it lacks
				if r.s.rooms[r.key] == r {
					r.serve()
				}
			})
		}
	}
	l.set(c)
}

// counted takes our holding in the record. If it is the last write's, that write has succeeded.
func (r *seatRoom) counted(count int) {
	landed := count == r.target
	if landed {
		r.held = count
	}
	r.count, r.held, r.target = count, min(r.held, count), -1
	r.gave(landed)
}

// look reads the record. Our own holding in it shows whether a write whose answer was lost has succeeded.
func (r *seatRoom) look(next stage) {
	r.busy, r.fresh = true, true
	b := r.s.l.bucket(seatBucket)
	turn := b.turn
	r.s.l.get(seatBucket, r.key, func(f found) {
		if b.turn != turn {
			r.look(looked)
			return
		}
		r.busy = false
		view, err := r.s.decode(f)
		if err != nil {
			r.s.l.fault(err)
			r.fail(err)
			r.serve()
			return
		}
		r.view, r.revision, r.stage = view, f.revision, next
		r.counted(view.of(r.s.l.opts.Instance))
		r.serve()
	})
}

// decode omits the holdings and gifts of dead workers.
func (s *Seats) decode(f found) (seatRecord, error) {
	empty := seatRecord{epoch: s.l.opts.Epoch}
	if f.payload == nil {
		return empty, nil
	}
	r, err := decodeSeats(f.payload)
	switch {
	case err != nil:
		return empty, err
	case r.epoch > s.l.opts.Epoch:
		return empty, ErrOutdated
	case r.epoch < s.l.opts.Epoch:
		return empty, nil
	}
	r.holdings = slices.DeleteFunc(r.holdings, func(h holding) bool { return s.isGone(h.instance) })
	r.gifts = slices.DeleteFunc(r.gifts, func(g gift) bool { return s.isGone(g.to) || s.gone[g.from] > 1 })
	return r, nil
}

func (s *Seats) isGone(instance ident.Worker) bool {
	return s.gone[instance] > 0 || s.l.life.isDead(worker{s.l.opts.Epoch, instance})
}

// wantedSubject is where workers ask for idle seats. The payload is the room's key and the instances that hold seats.
const wantedSubject = "ledger.wanted"

// ask asks all holders to give idle seats back, and waits until all have answered.
func (r *seatRoom) ask() {
	l := r.s.l
	r.busy = true
	left, text := 0, []byte(r.key)
	for _, h := range r.view.holdings {
		if h.instance != l.opts.Instance {
			left++
			text = strconv.AppendUint(append(text, ' '), uint64(h.instance), 10)
		}
	}
	c := &call{msg: &nats.Msg{Subject: wantedSubject, Data: text}}
	var patience *timer
	over := func() {
		l.timers.stop(patience)
		l.wire.finish(c)
		r.busy, r.stage = false, asked
		r.serve()
	}
	patience = l.after(askTime, over)
	c.lost = over
	c.done = func(*nats.Msg) {
		if left--; left <= 0 {
			over()
		}
	}
	l.wire.enqueue(c)
}

func (s *Seats) wanted(m *nats.Msg) {
	asked := strings.Fields(string(m.Data))
	if len(asked) == 0 || !slices.Contains(asked[1:], strconv.Itoa(int(s.l.opts.Instance))) {
		return
	}
	r := s.rooms[asked[0]]
	if r == nil {
		s.l.wire.send(&nats.Msg{Subject: m.Reply})
		return
	}
	r.scarce = s.l.now.Add(scarceTime)
	r.askers = append(r.askers, m.Reply)
	r.serve()
}

// answer answers the askers, once no seat is idle here.
func (r *seatRoom) answer() {
	if len(r.askers) == 0 || r.count > r.used {
		return
	}
	for _, to := range r.askers {
		r.s.l.wire.send(&nats.Msg{Subject: to})
	}
	r.askers = nil
}

// Reap frees the seats of an instance that was reaped. This worker counts them as free at once; done runs when no record
// names the instance any more. A last write of the dead worker may arrive after that. It is harmless but stays, so call
// Reap again a little later; the second call also voids the gifts of the dead. Any goroutine.
func (s *Seats) Reap(instance ident.Worker, done func(error)) error {
	return s.l.accept(func() {
		s.gone[instance]++
		s.l.purge(seatBucket, fmt.Sprintf(`{"filter":%q}`, subjectOf(seatBucket, seatMark(instance))))
		p := s.l.promise(done)
		left := 1
		cleaned := func() {
			if left--; left == 0 {
				p.keep(nil)
			}
		}
		s.l.scan(seatBucket, 1, func(key string, f found) {
			if key == originKey || strings.HasPrefix(key, "mark.") {
				return
			}
			left++
			s.clean(key, f, cleaned)
		}, cleaned)
	})
}

// clean removes dead workers from a record.
func (s *Seats) clean(key string, f found, done func()) {
	s.rewrite(key, f, func(*seatRecord) {}, done)
}

// rewrite removes dead workers from a record, and calls remove for further changes.
func (s *Seats) rewrite(key string, f found, remove func(*seatRecord), done func()) {
	was, err := decodeSeats(f.payload)
	if f.payload == nil || err != nil || was.epoch > s.l.opts.Epoch {
		done()
		return
	}
	next, err := s.decode(f)
	if err == nil {
		remove(&next)
	}
	if err != nil || was.sameSize(next) {
		done()
		return
	}
	next.limit = was.limit
	c := &set{bucket: seatBucket, key: key, expect: f.revision, payload: next.payload()}
	c.done = func(_ uint64, err error) {
		if err == errConflict {
			s.l.get(seatBucket, key, func(f found) { s.rewrite(key, f, remove, done) })
			return
		}
		if err != nil {
			s.l.fault(errors.Join(errors.New("clean seats"), err))
		}
		if r := s.rooms[key]; r != nil {
			r.full = s.l.now // seats are free: the verdict ends
		}
		done()
	}
	s.l.set(c)
}
