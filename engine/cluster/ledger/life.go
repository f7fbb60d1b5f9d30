package ledger

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/parleyd/parley/protocol/ident"
)

// life knows the dead workers. Instances of this start of the server die one by one, each death a record that all workers
// follow. Those of earlier starts count as dead since the start after theirs, and their sessions as parked since then: no
// client could come back while the server was down, so that time does not count.
//
// Owner: the ledger's goroutine.
type life struct {
	l      *Ledger
	self   worker
	deaths map[worker]int64 // when, in milliseconds since 1970
	starts []int64          // recorded epochs
}

func newLife(l *Ledger) *life {
	return &life{l: l, self: worker{l.opts.Epoch, l.opts.Instance}, deaths: make(map[worker]int64)}
}

// died reports whether a worker is dead, and since when.
func (f *life) died(w worker) (at int64, dead bool) {
	if at, dead = f.deaths[w]; dead || w.epoch == f.self.epoch {
		return at, dead
	}
	at = f.self.epoch
	for _, start := range f.starts {
		if start > w.epoch && start < at {
			at = start
		}
	}
	return at, true
}

func (f *life) isDead(w worker) bool {
	_, dead := f.died(w)
	return dead
}

// Dead records that an instance of this start was reaped. Its sessions count as parked from at on (zero means now), and
// are deleted when their time is over. Every worker may call it; the first call counts. Any goroutine.
func (l *Ledger) Dead(instance ident.Worker, at time.Time, done func(error)) error {
	return l.accept(func() {
		p := l.promise(done)
		if at.IsZero() {
			at = l.now
		}
		w := worker{l.opts.Epoch, instance}
		l.life.note(w, at.UnixMilli())
		l.life.putDeath(w, at.UnixMilli(), p.keep)
	})
}

// note notes a death, and schedules two sweeps: a late write of the dead worker may arrive after the first.
func (f *life) note(w worker, at int64) {
	if _, known := f.deaths[w]; known {
		return
	}
	f.deaths[w] = at
	if w.epoch != f.self.epoch {
		return
	}
	end := time.UnixMilli(at).Add(f.l.opts.SessionTTL)
	for _, later := range []time.Duration{0, f.l.opts.SessionTTL} {
		wait := max(0, end.Add(later).Sub(f.l.now)) + time.Duration(rand.Int64N(int64(sweepSpread)))
		f.l.after(wait, func() { f.sweepInstance(w) })
	}
}

const sweepSpread = 500 * time.Millisecond

// sweepEarlier deletes the records of earlier starts from a stream: seats at once, sessions when their time is over.
func (f *life) sweepEarlier(b *bucket) {
	switch {
	case b.before == 0:
	case b.name == seatBucket:
		f.purgeUpTo(b.name, b.before)
	default:
		turn, wait := b.turn, time.UnixMilli(f.self.epoch).Add(f.l.opts.SessionTTL).Sub(f.l.now)
		f.l.after(max(0, wait)+time.Duration(rand.Int64N(int64(sweepSpread))), func() {
			if b.turn == turn {
				f.purgeUpTo(b.name, b.before)
			}
		})
	}
}

// rewrite writes the record of the start of the server, and those of known deaths, again.
func (f *life) rewrite() {
	f.put(fmt.Sprintf("epoch.%d", f.self.epoch), []byte("{}"), func(err error) {
		if err != nil {
			f.l.fault(fmt.Errorf("record start: %w", err))
		}
	})
	for w, at := range f.deaths {
		if w.epoch == f.self.epoch && f.l.unix()-at < deathKept*f.l.opts.SessionTTL.Milliseconds() {
			f.putDeath(w, at, func(error) {})
		}
	}
}

// deathKept is for how many times SessionTTL starts and deaths stay on record.
const deathKept = 4

func (f *life) putDeath(w worker, at int64, done func(error)) {
	f.put(fmt.Sprintf("dead.%d.%d", w.epoch, w.instance), strconv.AppendInt(nil, at, 10), done)
}

// put writes a record, unless another worker has written it.
func (f *life) put(key string, payload []byte, done func(error)) {
	f.l.set(&set{bucket: sharedBucket, key: key, payload: payload, ttl: deathKept * f.l.opts.SessionTTL, done: func(_ uint64, err error) {
		if err == errConflict {
			err = nil
		}
		done(err)
	}})
}

func (f *life) sweepInstance(w worker) {
	f.l.purge(sessionBucket, fmt.Sprintf(`{"filter":%q}`, subjectOf(sessionBucket, strconv.Itoa(int(w.instance))+".>")))
}

// purgeUpTo deletes the records of a bucket up to a sequence, inclusive.
func (f *life) purgeUpTo(bucket string, last uint64) {
	f.l.purge(bucket, fmt.Sprintf(`{"filter":%q,"seq":%d}`, subjectOf(bucket, ">"), last+1))
}

// changed takes a record of a death or of a start.
func (f *life) changed(key string, payload []byte) {
	if payload == nil {
		return // expired long after it mattered
	}
	kind, rest, _ := strings.Cut(key, ".")
	if kind == originKey {
		return
	}
	epoch, instance, _ := strings.Cut(rest, ".")
	e, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		f.l.fault(fmt.Errorf("decode key %q: %w", key, err))
		return
	}
	if kind == "epoch" {
		if !slices.Contains(f.starts, e) {
			f.starts = append(f.starts, e)
		}
		return
	}
	i, err := strconv.ParseUint(instance, 10, 16)
	at, bad := strconv.ParseInt(string(payload), 10, 64)
	if err != nil || bad != nil {
		f.l.fault(fmt.Errorf("decode death %q: %q", key, payload))
		return
	}
	f.note(worker{e, ident.On(0, uint16(i))}, at)
}
