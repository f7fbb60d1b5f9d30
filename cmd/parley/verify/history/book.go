// Package history has the promises of rooms with history, for a checker that sees only what clients are told.
//
// Problem: a message of such a room may come live, in a replay, or in a page, on connections that were away or did not read.
// So the rules for rooms without, where a message comes at once or not at all, do not fit.
//
// Steps: every position that the server tells gives a [Reader] its [Stand] in a room. From there on each number must come, once
// and in order, as a message, as an answer, in a skip or in a gap: reader.go. All that clients read of an epoch is its chronicle
// in the [Book]: under one number all must read the same bytes, and a message has one number. Where the server lets a client
// begin is judged when it is told: starts.go. Whether a gap or a skip was true can depend on messages that no client
// has read yet: claims.go judges it when the book is settled. At that time the run compares each stand with the newest number that
// any client knows.
//
// What is kept of a room is bounded by the numbers between two calls of [Book.Settle], and by those that a history keeps.
//
// What it refuses to do: send anything, know sockets, and decide who is a member.
//
// Start reading at [Book], then reader.go.
package history

import (
	"fmt"
	"time"

	"github.com/parleyd/parley/engine/canary"
)

// The server's defaults.
const (
	Age   = 5 * time.Minute
	Bytes = 256 << 10
)

// Bounds are those of the rooms' histories.
//
// Owner: immutable.
type Bounds struct {
	Messages int
	Age      time.Duration
	Bytes    int  // of the frames as sent
	Exact    bool // one process serves: what it tells is never behind
}

// Name identifies a message of the run: the number of its publisher, and its number there.
type Name struct{ Serial, N int }

// Finding is a broken promise.
//
// Owner: who gets it.
type Finding struct {
	Kind   string
	Room   string
	By     fmt.Stringer // the client or backend that was told
	Others []int        // publishers concerned
	Text   string
}

// Message is what a run knows of a message that it has published.
//
// Owner: who gets it.
type Message struct {
	Known     bool // else the other fields are of no use
	Room      string
	Elsewhere bool   // Room is one of several, or another room than that
	Sent      uint64 // in the order of events
	When      time.Time
	Key       string // for conflation
	Refused   bool
	Backend   bool
	Except    int  // the connection that a backend has excepted, by its number; 0: none
	Repeated  bool // it may have been carried out twice
}

// Run is what a book must know of the run.
//
// Owner: immutable.
type Run struct {
	Found   func(f Finding)
	Checked func(what string) // counts a check
	Clock   func() (now time.Time, event uint64)
	Name    func(payload []byte) (of Name, ok bool) // reads the name out of a message's data
	Message func(of Name, room string) Message
	// First compares a message with what was published, when the first client reads it.
	First func(r *Reader, m *Told, of Name)
}

// A Book is what the clients of a run know of rooms with history.
//
// Owner: the goroutine that runs the checker.
type Book struct {
	Bounds
	Run
	TTL        time.Duration // of sessions: for so long the numbering of an unused room goes on
	renumbered time.Time
	rooms      []*Room
	claims     []claim
}

// NewBook makes an empty book.
func NewBook(b Bounds, r Run) *Book { return &Book{Bounds: b, Run: r} }

// Renumbered notes that something happens that may end the epochs of rooms.
func (b *Book) Renumbered() { b.renumbered, _ = b.Clock() }

// A Room is a room with history, as clients know it.
//
// Owner: its book.
type Room struct {
	book    *Book
	name    string
	current *chronicle // of the epoch that was told first most recently; nil: none
	epochs  map[string]*chronicle
	resent  map[Name][]string // messages that were sent again, with the ids of the connections
}

// Room adds a room.
func (b *Book) Room(name string) *Room {
	r := &Room{book: b, name: name, epochs: map[string]*chronicle{}, resent: map[Name][]string{}}
	b.rooms = append(b.rooms, r)
	return r
}

// Resent notes that the connection with an id sends a message again.
func (r *Room) Resent(of Name, id string) { r.resent[of] = append(r.resent[of], id) }

// SentAgainBy reports whether the connection with an id has sent a message again.
func (r *Room) SentAgainBy(id string, of Name) bool {
	for _, x := range r.resent[of] {
		if x == id {
			return true
		}
	}
	return false
}

// chronicle is what the clients have read of one epoch of a room.
//
// Owner: its book.
type chronicle struct {
	room    *Room
	epoch   string
	begun   time.Time // when a client was told of it first
	used    time.Time // when a client was told a number last
	top     uint64    // the highest number that a client was told
	base    uint64    // the numbers up to here are forgotten
	log     []entry   // of the numbers from base + 1 on
	numbers map[Name]uint64
	judged  uint64      // up to here the order of each publisher was judged
	latest  map[int]int // the latest message of each publisher up to there
}

// entry is one number of a chronicle.
//
// Owner: its chronicle.
type entry struct {
	Name             // zero: not known yet
	text   string    // as it was first read; empty: it was not
	bytes  int       // of its frame; 0: not known
	known  time.Time // a client was told of it
	resent bool      // it was sent more than once
	of     Message
}

const (
	// ageSlack is the most by which a server's clock may be behind in judging a message's age: it reads the time once a turn.
	ageSlack = 250 * time.Millisecond
	// ahead bounds how far a number may lie ahead of all that were told.
	ahead    = 1 << 20
	epochMax = 22
	// recovery is how long after a disturbance a client may still be told of the epoch before it.
	recovery = 5 * time.Second
)

// found reports a finding in the room. The text says what By did.
func (r *Room) found(f Finding, format string, args ...any) {
	f.Room, f.Text = r.name, fmt.Sprintf("%v ", f.By)+fmt.Sprintf(format, args...)
	r.book.Found(f)
}

// chronicleOf finds an epoch of a room. A new one must have a cause: a disturbance that may end the numbering, or a room that no
// client has used for so long that the server may have forgotten it.
func (r *Room) chronicleOf(epoch string, by fmt.Stringer) *chronicle {
	b, old := r.book, r.current
	if h := r.epochs[epoch]; h != nil {
		return h
	}
	now, _ := b.Clock()
	if len(epoch) < 1 || len(epoch) > epochMax {
		r.found(Finding{Kind: "answer", By: by}, "is told the epoch %q", epoch)
	}
	if old != nil && !b.renumbered.After(old.begun.Add(-recovery)) && now.Sub(old.used) < max(b.Age, b.TTL) {
		r.found(Finding{Kind: "epoch", By: by}, "is told that %s is in epoch %s: it was in %s, and nothing has happened that ends an epoch", r.name, epoch, old.epoch)
	}
	h := &chronicle{room: r, epoch: epoch, begun: now, used: now, numbers: map[Name]uint64{}, latest: map[int]int{}}
	r.epochs[epoch], r.current = h, h
	return h
}

// reach notes that a client was told a number.
func (h *chronicle) reach(n uint64) {
	h.top = max(h.top, n)
	h.used, _ = h.room.book.Clock()
}

// at is a number's entry; nil if it is forgotten, or cannot be.
func (h *chronicle) at(n uint64) *entry {
	if n <= h.base || n > max(h.top, h.base)+ahead {
		return nil
	}
	for h.base+uint64(len(h.log)) < n {
		h.log = append(h.log, entry{})
	}
	return &h.log[n-h.base-1]
}

// Numbers records that a client or a backend is told the number of a message.
func (r *Room) Numbers(by fmt.Stringer, at Position, of Name) {
	h := r.chronicleOf(at.Epoch, by)
	h.reach(at.Seq)
	h.is(by, at.Seq, of)
}

// is records which message a number is. Each number is one message, and each message has one number.
func (h *chronicle) is(by fmt.Stringer, n uint64, of Name) {
	e, r, b := h.at(n), h.room, h.room.book
	if e == nil {
		return
	}
	if e.known.IsZero() {
		e.known, _ = b.Clock()
	}
	if e.Name == of {
		return
	}
	m := b.Message(of, r.name)
	switch other, known := h.numbers[of]; {
	case e.Name != Name{}:
		r.found(Finding{Kind: "number", By: by, Others: []int{of.Serial, e.Serial}}, "is told that number %d of %s is message %d of connection %d, and it is message %d of connection %d",
			n, r.name, of.N, of.Serial, e.N, e.Serial)
		return
	case known && m.Backend: // it may come twice if it was sent to two api processes, which turns out later
		b.claims = append(b.claims, claim{kind: claimTwice, by: by, name: of, of: h, from: other, to: n})
		e.Name = of
		return
	case known:
		r.found(Finding{Kind: "twice", By: by, Others: []int{of.Serial}}, "is told that message %d of connection %d is number %d of %s: it is number %d, too", of.N, of.Serial, n, r.name, other)
		return
	}
	e.Name, h.numbers[of] = of, n
	e.of, e.resent = m, len(r.resent[of]) > 0
	switch {
	case !m.Known:
	case m.Elsewhere:
		r.found(Finding{Kind: "leak", By: by, Others: []int{of.Serial}}, "is told that message %d of connection %d has number %d of %s: it was published in %s", of.N, of.Serial, n, r.name, m.Room)
	case m.Refused:
		r.found(Finding{Kind: "leak", By: by, Others: []int{of.Serial}}, "is told that message %d of connection %d has number %d of %s: it was refused", of.N, of.Serial, n, r.name)
	}
}

// Refused reports a message that was refused although it has a number.
func (r *Room) Refused(by fmt.Stringer, of Name) {
	for _, h := range r.epochs {
		if n, is := h.numbers[of]; is {
			r.found(Finding{Kind: "leak", By: by}, "is told that its message %d is refused: it is number %d of %s", of.N, n, r.name)
		}
	}
}

// aged reports whether number n was certainly too old to be kept at a time.
func (h *chronicle) aged(n uint64, at time.Time) bool {
	e := h.at(n)
	return e != nil && !e.known.IsZero() && at.Sub(e.known) >= h.room.book.Age+canary.Stretch(ageSlack)
}

// Settle judges what waited for a quiet point, and forgets the numbers that no history keeps. known reports whether a publisher
// can still be told of.
func (b *Book) Settle(known func(serial int) bool) {
	b.judgeClaims()
	for _, r := range b.rooms {
		for of := range r.resent {
			if !known(of.Serial) {
				delete(r.resent, of)
			}
		}
		for epoch, h := range r.epochs {
			h.judgeOrder(known)
			if h != r.current {
				delete(r.epochs, epoch)
				continue
			}
			if forget := h.top - min(h.top, uint64(b.Messages)); forget > h.base {
				h.forget(forget)
			}
		}
	}
}

// forget forgets the numbers up to one.
func (h *chronicle) forget(to uint64) {
	n := min(int(to-h.base), len(h.log))
	for _, e := range h.log[:n] {
		if h.numbers[e.Name] <= to {
			delete(h.numbers, e.Name)
		}
	}
	h.log = append([]entry{}, h.log[n:]...)
	h.base = to
}

// judgeOrder checks that the messages of each publisher have their numbers in the order in which it sent them.
func (h *chronicle) judgeOrder(known func(serial int) bool) {
	for n := max(h.judged, h.base) + 1; n <= h.top; n++ {
		e := h.at(n)
		if e == nil || e.Serial == 0 || e.resent {
			continue
		}
		if e.N < h.latest[e.Serial] {
			h.room.book.Found(Finding{Kind: "order", Room: h.room.name, Others: []int{e.Serial}, Text: fmt.Sprintf("number %d of %s is message %d of connection %d, and a lower one is its message %d",
				n, h.room.name, e.N, e.Serial, h.latest[e.Serial])})
		}
		h.latest[e.Serial] = max(h.latest[e.Serial], e.N)
	}
	h.judged = h.top
	for serial := range h.latest {
		if !known(serial) {
			delete(h.latest, serial)
		}
	}
}
