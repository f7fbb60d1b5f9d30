package ledger

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/parleyd/parley/protocol/ident"
)

// Streams can vanish under workers that use them: a NATS server restarted with an empty disk, a directory that was
// emptied, an operator's `stream rm` or `purge`. What is in them is a copy: each worker knows its own sessions and seats, and
// all know the created rooms and the dead. So the workers make the streams again, and write anew what they know.
//
//	origin   a record in each stream; its id tells one stream from the one that takes its place, and is gone after a purge.
//	         Whoever misses it makes the stream, if need be, and writes an origin; one of all that try succeeds
//	rewrite  a worker that finds another id than the one it went by writes all that it has to say once more
//	mark     a record of each worker in sessions and in seats: all that it has to say is in this stream. Until the mark of
//	         the worker that a token names is there, a session that is not found may yet come: its claimants get ErrAway.
//	         Until the marks of all workers are there nobody takes a seat that he did not have
//
// The origin is looked at once a second, when the connection has come back, and when a request finds no stream, or not what
// must be there. A worker that takes seats looks after each write that takes some: else it could take, in an empty stream,
// what others have.
//
// What cannot be written anew: sessions whose connections had ended, and those of workers that were dead.

const originKey = "origin"

// origin is the record.
type origin struct {
	Epoch  int64  `json:"epoch"`
	ID     string `json:"id"`
	Before uint64 `json:"before,omitempty"` // the last sequence that an earlier start of the server has left
}

// bucket is a stream as this worker knows it.
//
// Owner: the ledger's goroutine.
type bucket struct {
	l       *Ledger
	name    string
	id      string // of the origin that we go by; empty before the first
	turn    int    // how many there have been
	before  uint64
	marked  bool // what we have to say is in it
	whole   bool // what others have to say is in it, too, as far as that matters
	problem string

	checking bool
	found    found    // the origin, as the check saw it
	asked    []func() // those who want to know whether the origin is the same, from the next check
	asking   []func() // from the one that runs
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

// confirm tells whether the stream is still the one that it was at the time of the call.
func (b *bucket) confirm(f func(same bool)) {
	turn := b.turn
	b.asked = append(b.asked, func() { f(b.turn == turn) })
	b.check()
}

// check looks at the origin.
func (b *bucket) check() {
	if b.checking {
		return
	}
	b.checking, b.began, b.asking, b.asked = true, b.l.now, b.asked, nil
	b.look()
}

func (b *bucket) checked() {
	b.checking, b.wait, b.problem = false, 0, ""
	told := b.asking
	b.asking = nil
	for _, f := range told {
		f()
	}
	if len(b.asked) > 0 {
		b.check()
	}
	b.l.assess()
}

const checkWaitMax = time.Second

// later begins the check anew after a while.
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

// settle writes an origin into a stream that is as it must be. Only where an earlier start of the server has left one can it
// be told what else is of earlier starts; last is the last sequence then.
func (b *bucket) settle(last uint64) {
	o := origin{Epoch: b.l.opts.Epoch, ID: b.l.mark().String()}
	if b.found.payload != nil && b.id == "" {
		o.Before = last
	}
	text, _ := json.Marshal(o) // nothing in it cannot be encoded
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

// adopt goes by an origin from now on.
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
			b.l.Seats.anew(b)
			b.l.life.sweepEarlier(b)
		default:
			b.l.rewriteShared()
		}
	}
	b.checked()
}

// mark says in the stream that all that we have to say is in it. Another one of ours, which was on its way when the stream was
// lost, may have arrived before: it has another id, and says nothing.
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

// complete says that everything is in the stream.
func (b *bucket) complete() {
	b.whole = true
	b.l.assess()
}

// sessionMark and seatMark are keys that no session and no room has.
func sessionMark(instance ident.Worker) string { return strconv.Itoa(int(instance)) + ".mark" }

func seatMark(instance ident.Worker) string { return "mark." + strconv.Itoa(int(instance)) }

// marked goes on when all that we have to say is in a stream.
func (l *Ledger) marked(b *bucket) {
	if b.name == seatBucket {
		l.awaitMarks(b, b.turn)
	} else {
		b.complete()
	}
	l.opened()
}

const marksAgain = 50 * time.Millisecond

// awaitMarks waits until all other workers have written their seats anew. One that does not is frozen, and will be killed.
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

// checkAll looks at all origins.
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
	// silentMax is after how long without an answer that is said.
	silentMax = 2 * time.Second
	// doubtTime is how often at most one looks because a request found no stream.
	doubtTime = 50 * time.Millisecond
)

// suspect looks at all origins, since something was not there.
func (l *Ledger) suspect() {
	if l.now.Sub(l.doubts) > doubtTime {
		l.doubts = l.now
		l.checkAll()
	}
}

// say tells what an operator should know, and what is no fault of ours.
func (l *Ledger) say(err error) {
	if l.opts.Say != nil {
		l.opts.Say(err)
	}
}

// assess finds out whether sessions, seats and created rooms can be used, and why not.
func (l *Ledger) assess() {
	why := ""
	for _, b := range l.kept {
		switch {
		case b.problem != "":
			why = b.problem
		case b.whole:
		case why == "":
			why = fmt.Sprintf("what was in stream %s is being written anew", streamOf(b.name))
		}
	}
	l.why.Store(&why)
}

// Why says why sessions, seats or created rooms cannot be used at the moment, as far as that is known; empty where they can
// be. Any goroutine.
func (l *Ledger) Why() string {
	if why := l.why.Load(); why != nil {
		return *why
	}
	return ""
}
