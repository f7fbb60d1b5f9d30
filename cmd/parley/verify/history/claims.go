package history

import (
	"fmt"
	"time"
)

// What the server says of numbers that a client does not get is judged when the book is settled: by then the clients know which
// messages these were, and which messages the server can have had when it said so.

// claimKind is what the server says.
type claimKind uint8

const (
	claimGone      claimKind = iota // the history does not keep it any more
	claimOwn                        // the client's session has published it
	claimConflated                  // a later message has the same key
	claimExcluded                   // a backend has excepted the client
	claimTwice                      // a backend's message has two numbers: from and to
)

// claim is what the server says of numbers of a room.
//
// Owner: the book.
type claim struct {
	kind     claimKind
	reader   *Reader
	of       *chronicle
	from, to uint64
	evt      uint64 // when the client read so
	at       time.Time
	top      uint64 // the newest number then; 0: not known
	what     string

	by   fmt.Stringer // of claimTwice
	name Name
}

// claims notes what the server tells r.
func (r *Reader) claims(x claim) {
	x.reader = r
	x.at, x.evt = r.book.Clock()
	r.book.claims = append(r.book.claims, x)
}

// notKept notes that the server has told that number n of a room, whose newest was top, is not kept.
func (r *Reader) notKept(h *chronicle, n, top uint64, what string) {
	if n == 0 {
		return
	}
	if !r.book.Exact { // another process may be further on, and may have judged
		top = 0
	}
	r.claims(claim{kind: claimGone, of: h, from: n, to: n, top: top, what: what})
}

// judgeClaims judges all claims, and forgets them.
func (b *Book) judgeClaims() {
	for i := range b.claims {
		switch x := &b.claims[i]; x.kind {
		case claimGone:
			x.judgeGone(b)
		case claimTwice:
			if m := b.Message(x.name, x.of.room.name); !m.Repeated {
				x.of.room.found(Finding{Kind: "twice", By: x.by, Others: []int{x.name.Serial}}, "is told that message %d of connection %d is number %d of %s: it is number %d, too", x.name.N, x.name.Serial, x.to, x.of.room.name, x.from)
			}
		default:
			x.judgeSkip(b)
		}
	}
	b.claims = b.claims[:0]
}

// judgeSkip reports a number that was skipped for a reason that does not hold.
func (x *claim) judgeSkip(b *Book) {
	for n := max(x.from, x.of.base+1); n <= x.to; n++ {
		e := x.of.at(n)
		if e == nil || e.Serial == 0 {
			continue
		}
		why := ""
		switch {
		case x.kind == claimOwn && !x.reader.owns(e.Serial):
			why = "is its own"
		case x.kind == claimExcluded && (e.of.Known || !e.of.Backend) && !x.reader.owns(e.of.Except):
			why = "excepts it"
		case x.kind == claimConflated && (e.of.Known || e.of.Backend) && !x.of.conflates(n, e.of.Key):
			why = fmt.Sprintf("with key %q was replaced by a later one", e.of.Key)
		}
		if why != "" {
			x.of.room.found(Finding{Kind: "number", By: x.reader, Others: []int{e.Serial}}, "is told that number %d of %s %s, and it is not so: it is message %d of connection %d", n, x.of.room.name, why, e.N, e.Serial)
		}
	}
}

// conflates reports whether a message behind n has a key.
func (h *chronicle) conflates(n uint64, key string) bool {
	for n++; key != "" && n <= h.top; n++ {
		if e := h.at(n); e != nil && e.of.Key == key {
			return true
		}
	}
	return false
}

// judgeGone reports a number that the server certainly kept when it said that it did not.
func (x *claim) judgeGone(b *Book) {
	top := x.top
	if top == 0 {
		top = x.of.topBefore(x.to, x.evt)
	}
	if x.of.keeps(x.to, top, x.at) {
		x.of.room.found(Finding{Kind: "gap", By: x.reader}, "%s: number %d of %s, and the server must have kept that: the newest was at most %d", x.what, x.to, x.of.room.name, top)
	}
}

// topBefore is the highest number, from n on, that the server can have given before an event: the next one was sent later.
func (h *chronicle) topBefore(n, evt uint64) uint64 {
	for n++; n <= h.top; n++ {
		if e := h.at(n); e != nil && e.of.Sent > evt {
			return n - 1
		}
	}
	return h.top
}

// keeps reports whether a history whose newest message is top certainly keeps number n at a time.
func (h *chronicle) keeps(n, top uint64, at time.Time) bool {
	b, bytes := h.room.book, 0
	if n == 0 || n > top || top-n >= uint64(b.Messages) {
		return false
	}
	for i := n; i <= top; i++ {
		e := h.at(i)
		if e == nil || e.bytes == 0 || e.of.When.IsZero() || at.Sub(e.of.When) >= b.Age {
			return false
		}
		if bytes += e.bytes; bytes > b.Bytes {
			return false
		}
	}
	return true
}
