package ledger

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// feed follows sharedBucket: it reads the records in the order of their sequences, each time from where it stopped. The
// bus republishes each stored record as a hint that there is something to read; a lost hint costs at most pollTime. After
// an absence, in which the markers of deletions may have expired, the feed reads all records anew.
//
// Owner: the ledger's goroutine.
type feed struct {
	l        *Ledger
	next     uint64 // the first sequence that has not been read
	reading  bool
	again    bool            // a hint came while reading
	seen     map[string]bool // rooms seen while all records are read; nil otherwise
	synced   bool            // all records have been read once
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

// hint says that the bus has stored a record.
func (f *feed) hint(*nats.Msg) { f.read() }

// begin reads all records, and follows the changes from then on.
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

// restart makes the next read begin at the first record.
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
	if f.l.now.Sub(f.lastRead) > absentMax && f.seen == nil { // the bus was away in the middle of the read
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

// scan reads the records of a bucket from a sequence on, page by page. It repeats a page until the bus has answered, so
// each may get a record twice.
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
			l.wire.finish(page)
			if left, _ := strconv.Atoi(m.Header.Get("Nats-Num-Pending")); left > 0 {
				more()
				return
			}
			end()
		case "404":
			l.wire.finish(page)
			end()
		default:
			l.wire.finish(page)
			l.suspect()
			l.wire.rest()
			more()
		}
	}
	l.wire.enqueue(page)
}
