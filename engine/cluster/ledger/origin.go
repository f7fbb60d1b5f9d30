package ledger

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/parleyd/parley/protocol/ident"
)

// Streams can vanish while workers use them: a NATS server restarts with an empty disk, a directory is emptied, an operator
// runs `stream rm` or `purge`. Their records are copies: each worker knows its own sessions and seats, and all know the
// created rooms and the deaths. So the workers make the streams again, and rewrite the records that they know.
//
//	origin   a record in each stream. Its id tells a stream from its successor, and a purge deletes it. A worker that
//	         finds none makes the stream, if there is none, and writes an origin; of several workers one succeeds
//	rewrite  a worker that finds another id than before writes all its records again
//	mark     a record of each worker in sessions and in seats: all its records are in this stream. Without the mark of the
//	         worker that made it, a missing session may still be written: its claimants get ErrAway. Until the marks of
//	         all workers are there, no worker takes a seat that it did not have before
//
// A worker reads the origin once a second, when the connection is back, and when a request finds no stream or misses a
// record that must be there. It also reads it after each write that takes seats: else it could take, in an empty stream,
// seats that others have.
//
// These are lost for good: sessions whose connections had ended, and those of dead workers.

const originKey = "origin"

// origin is the record.
type origin struct {
	Epoch  int64  `json:"epoch"`
	ID     string `json:"id"`
	Before uint64 `json:"before,omitempty"` // the last sequence of earlier starts of the server
}

// bucket is a stream as this worker knows it.
//
// Owner: the ledger's goroutine.
type bucket struct {
	l       *Ledger
	name    string
	id      string // of the adopted origin; empty before the first
	turn    int    // how many origins were adopted
	before  uint64
	marked  bool // this worker's records are in it
	whole   bool // the other workers' records are in it too, where that matters
	problem string

	checking bool
	found    found    // the origin, as the check read it
	asked    []func() // callers of confirm, for the next check
	asking   []func() // callers of confirm, for the check that runs
	began    time.Time
	wait     time.Duration
}

func (l *Ledger) bucket(name string) *bucket {
	switch name {
	case sessionBucket:
		return l.kept[0]
	case seatBucket:
		return l.kept[1]
	}
	return l.kept[2]
}

func newBucket(l *Ledger, name string) *bucket { return &bucket{l: l, name: name} }

// confirm reports to f whether the stream is still the same as at the time of the call.
func (b *bucket) confirm(f func(same bool)) {
	turn := b.turn
	b.asked = append(b.asked, func() { f(b.turn == turn) })
	b.check()
}

// check reads the origin.
func (b *bucket) check() {
	if b.checking {
		return
	}
	b.checking, b.began, b.asking, b.asked = true, b.l.now, b.asked, nil
	b.look()
}

func (b *bucket) checked() {
	b.checking, b.wait, b.problem = false, 0, ""
	callers := b.asking
	b.asking = nil
	for _, f := range callers {
		f()
	}
	if len(b.asked) > 0 {
		b.check()
	}
	b.l.assess()
}

const checkWaitMax = time.Second

// later starts the check again after a while.
func (b *bucket) later(problem string) {
	b.wait = min(max(2*b.wait, restTime), checkWaitMax)
	b.problem = problem
	b.l.assess()
	b.l.after(b.wait, b.look)
}

func (b *bucket) look() {
	b.ask(&nats.Msg{Subject: "$JS.API.DIRECT.GET." + streamOf(b.name) + "." + subjectOf(b.name, originKey)}, func(m *nats.Msg) {
		switch status := m.Header.Get("Status"); status {
		case "":
			b.saw(stored(m))
		case "404", "503":
			b.found = found{}
			b.make()
		default:
			b.later(fmt.Sprintf("read origin: bus answers %s %s", status, m.Header.Get("Description")))
		}
	})
}

func (b *bucket) saw(f found) {
	var o origin
	err := json.Unmarshal(f.payload, &o)
	switch {
	case err == nil && o.Epoch == b.l.opts.Epoch:
		b.adopt(o)
	case err == nil && o.Epoch > b.l.opts.Epoch:
		b.later(ErrOutdated.Error())
	default:
		b.found = f
		b.make()
	}
}

// settle writes an origin into a stream with the right settings. If an earlier start has left an origin, all records up to
// last are of earlier starts.
func (b *bucket) settle(last uint64) {
	o := origin{Epoch: b.l.opts.Epoch, ID: b.l.mark().String()}
	if b.found.payload != nil && b.id == "" {
		o.Before = last
	}
	text, _ := json.Marshal(o) // cannot fail
	m := (&set{bucket: b.name, key: originKey, expect: b.found.revision, payload: text}).message()
	b.ask(m, func(answer *nats.Msg) {
		if answer.Header.Get("Status") != "" {
			b.later("the stream has gone again")
			return
		}
		switch _, err := acknowledged(answer.Data); err {
		case nil:
			b.adopt(o)
		case errConflict: // another worker came first
			b.look()
		default:
			b.later(fmt.Sprintf("write origin of %s: %v", streamOf(b.name), err))
		}
	})
}

// adopt takes an origin as the stream's, and rewrites this worker's records if it is a new one.
func (b *bucket) adopt(o origin) {
	first := b.id == ""
	if b.id != o.ID {
		b.id, b.before, b.turn = o.ID, o.Before, b.turn+1
		b.marked, b.whole = false, false
		b.l.assess()
		if !first {
			b.l.say(fmt.Errorf("stream %s has lost its records: the workers write them again", streamOf(b.name)))
		}
		switch b.name {
		case sessionBucket:
			b.l.Sessions.rewrite(b, first)
			b.l.life.sweepEarlier(b)
		case seatBucket:
			b.l.Seats.restart(b)
			b.l.life.sweepEarlier(b)
		default:
			b.l.rewriteShared()
		}
	}
	b.checked()
}

// mark writes this worker's mark: all its records are in the stream. An earlier mark, which was on its way when the stream
// was lost, may have arrived before: it has another id, and means nothing.
func (b *bucket) mark(key string) { b.markAt(key, found{}, b.turn) }

func (b *bucket) markAt(key string, f found, turn int) {
	if b.turn != turn {
		return
	}
	if string(f.payload) == b.id {
		b.marked = true
		b.l.marked(b)
		return
	}
	b.l.set(&set{bucket: b.name, key: key, expect: f.revision, payload: []byte(b.id), done: func(revision uint64, err error) {
		switch err {
		case nil:
			b.markAt(key, found{revision, []byte(b.id)}, turn)
		case errConflict:
			b.l.get(b.name, key, func(f found) { b.markAt(key, f, turn) })
		default:
			b.l.fault(err)
			b.l.after(refusedTime, func() { b.markAt(key, f, turn) })
		}
	}})
}

// complete says that the records of all workers are in the stream.
func (b *bucket) complete() {
	b.whole = true
	b.l.assess()
}

// sessionMark and seatMark are the keys of marks. No session and no room has such a key.
func sessionMark(instance ident.Worker) string { return strconv.Itoa(int(instance)) + ".mark" }

func seatMark(instance ident.Worker) string { return "mark." + strconv.Itoa(int(instance)) }

// marked goes on when this worker's records are in a stream.
func (l *Ledger) marked(b *bucket) {
	if b.name == seatBucket {
		l.awaitMarks(b, b.turn)
	} else {
		b.complete()
	}
	l.opened()
}

const marksAgain = 50 * time.Millisecond

// awaitMarks waits until all other workers have rewritten their seats. A worker that does not is frozen, and the supervisor
// will kill it.
func (l *Ledger) awaitMarks(b *bucket, turn int) {
	if b.turn != turn || b.whole {
		return
	}
	left := 1
	missing := false
	counted := func() {
		if left--; left > 0 || b.turn != turn {
			return
		}
		if missing {
			l.after(marksAgain, func() { l.awaitMarks(b, turn) })
			return
		}
		b.complete()
		l.Seats.serveAll()
	}
	for _, peer := range l.peers {
		if peer == l.opts.Instance || l.Seats.isGone(peer) {
			continue
		}
		left++
		l.get(seatBucket, seatMark(peer), func(f found) {
			missing = missing || string(f.payload) != b.id && !l.Seats.isGone(peer)
			counted()
		})
	}
	counted()
}

// Peers names the workers that serve, besides this one. Any goroutine.
func (l *Ledger) Peers(ready []ident.Worker) {
	l.post(func() { l.peers = ready })
}

// checkAll reads all origins.
func (l *Ledger) checkAll() {
	for _, b := range l.kept {
		b.check()
	}
}

func (l *Ledger) watch() {
	for _, b := range l.kept {
		if b.checking && b.problem == "" && l.now.Sub(b.began) > silentMax {
			b.problem = "the bus does not answer"
		}
	}
	l.assess()
	l.checkAll()
	l.after(pollTime, l.watch)
}

const (
	// silentMax is the time without an answer after which Why says so.
	silentMax = 2 * time.Second
	// suspectTime bounds how often suspect reads the origins.
	suspectTime = 50 * time.Millisecond
)

// suspect reads all origins, because a request has missed a stream or a record.
func (l *Ledger) suspect() {
	if l.now.Sub(l.suspected) > suspectTime {
		l.suspected = l.now
		l.checkAll()
	}
}

// say passes news that is no fault of ours on to the operator.
func (l *Ledger) say(err error) {
	if l.opts.Say != nil {
		l.opts.Say(err)
	}
}

// assess decides whether sessions, seats and created rooms can be used, and sets the reason why not.
func (l *Ledger) assess() {
	why := ""
	for _, b := range l.kept {
		switch {
		case b.problem != "":
			why = b.problem
		case b.whole:
		case why == "":
			why = fmt.Sprintf("the workers are writing the records of stream %s again", streamOf(b.name))
		}
	}
	l.why.Store(&why)
}

// Why is the reason why sessions, seats or created rooms cannot be used at the moment; empty if they can, or if no reason
// is known. Any goroutine.
func (l *Ledger) Why() string {
	if why := l.why.Load(); why != nil {
		return *why
	}
	return ""
}
