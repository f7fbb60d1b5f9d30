package ledger

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// feed follows sharedBucket: it reads the records in the order of their sequences, from where it stopped. The bus
// republishes what it stores; that only says that there is something to read, so that one lost hint costs no more
// than pollTime. After an absence, in which deletions may have come and gone, it reads everything anew.
//
// Owner: the ledger's goroutine.
type feed struct {
	l        *Ledger
	next     uint64 // the first sequence that has not been read
	reading  bool
	again    bool            // something changed while reading
	seen     map[string]bool // rooms seen while everything is read; nil otherwise
	synced   bool            // everything has been read once
	polling  bool
	lastRead time.Time
}

const (
	pollTime  = time.Second
	pageRecs  = 256
	absentMax = sharedMarkerTime / 2
)

func newFeed(l *Ledger) *feed {
	f := &feed{l: l}
	f.restart()
	return f
}

// hint says that something was stored.
func (f *feed) hint(*nats.Msg) { f.read() }

// begin reads everything, and goes on from there.
func (f *feed) begin() {
	f.restart()
	if !f.polling {
		f.polling = true
		f.poll()
		return
	}
	f.read()
}

func (f *feed) poll() {
	f.read()
	f.l.after(pollTime, f.poll)
}

// restart reads everything anew.
func (f *feed) restart() {
	f.next, f.seen, f.lastRead = 1, make(map[string]bool), f.l.now
}

func (f *feed) read() {
	if !f.polling {
		return
	}
	if f.reading {
		f.again = true
		return
	}
	if f.l.now.Sub(f.lastRead) > absentMax && f.seen == nil {
		f.restart()
	}
	f.reading, f.again = true, false
	f.l.scan(sharedBucket, f.next, f.record, f.end)
}

func (f *feed) record(key string, r found) {
	f.next = r.revision + 1
	kind, rest, _ := strings.Cut(key, ".")
	if kind == "room" {
		if f.seen != nil && r.payload != nil {
			f.seen[rest] = true
		}
		f.l.Rooms.changed(rest, r)
		return
	}
	f.l.life.changed(key, r.payload)
}

func (f *feed) end() {
	f.reading = false
	if f.l.now.Sub(f.lastRead) > absentMax && f.seen == nil { // the bus went away in the middle of it
		f.restart()
		f.read()
		return
	}
	f.lastRead = f.l.now
	if f.seen != nil {
		f.l.Rooms.retain(f.seen, f.next)
		f.seen = nil
	}
	f.synced = true
	f.l.opened()
	if f.again {
		f.read()
	}
}

// scan reads the records of a bucket from a sequence on, page by page. It goes on until the bus has answered, so
// a record may be told twice.
func (l *Ledger) scan(bucket string, from uint64, each func(key string, f found), end func()) {
	next := from
	var page *call
	more := func() { l.scan(bucket, next, each, end) }
	body := fmt.Appendf(nil, `{"seq":%d,"next_by_subj":%q,"batch":%d}`, from, subjectOf(bucket, ">"), pageRecs)
	page = &call{lost: more, msg: &nats.Msg{Subject: "$JS.API.DIRECT.GET." + streamOf(bucket), Data: body}}
	page.done = func(m *nats.Msg) {
		switch m.Header.Get("Status") {
		case "":
			f := stored(m)
			next = f.revision + 1
			each(strings.TrimPrefix(m.Header.Get("Nats-Subject"), subjectOf(bucket, "")), f)
		case "204":
			l.wire.hangUp(page)
			if left, _ := strconv.Atoi(m.Header.Get("Nats-Num-Pending")); left > 0 {
				more()
				return
			}
			end()
		case "404":
			l.wire.hangUp(page)
			end()
		default:
			l.wire.hangUp(page)
			l.suspect()
			l.wire.rest()
			more()
		}
	}
	l.wire.enqueue(page)
}
