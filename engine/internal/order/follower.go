package order

import (
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/protocol/message"
	"github.com/parleyd/parley/rooms"
)

// Floor is the part of a process that lives by the order: its rooms. A follower calls the methods in the order of the stream,
// under no lock, on the goroutine of [Follower.Hear], [Follower.Piece], [Follower.Lost] or [Follower.Tick].
type Floor interface {
	// Begin has the process follow a room from a position on. The process may have the room from before.
	Begin(room string, at rooms.Position)
	// Take takes the next message of a room.
	Take(m *Ordered)
	// TakeKept is Take of a message that was read from the sequencer, since its entry was lost. It does not say whose publish it was.
	TakeKept(room string, m *Kept)
	// Skip notes that the messages up to a number are lost.
	Skip(room string, to uint64)
	// Fill takes older messages, in ascending order, whose last one is the one in front of the oldest that the floor has.
	Fill(room, epoch string, list []Kept)
	// Reset notes that the room has a new epoch.
	Reset(room string, at rooms.Position)
	// At is where a room stands here, and the number of the oldest message that it has; ok is false where it is not followed. It
	// runs under the follower's lock.
	At(room string) (at rooms.Position, low uint64, ok bool)
	// Keys are the idempotency keys that count in a room. It runs under the follower's lock.
	Keys(room string) []rooms.KeyedNumber
	// TakeKeys takes the keys of messages that the floor has not taken, or has read.
	TakeKeys(room, epoch string, keys []rooms.KeyedNumber)
	// Kept are messages of a room: of those with two numbers and between, the last ones, of [PieceBytes] at most, but one at least.
	Kept(room, epoch string, first, last uint64) []Kept
	// Count tells the worker that has published a message for how many connections of this process the message was queued. Where a
	// Take carries the ticket, it counts by itself.
	Count(to ident.Worker, ticket uint64, recipients int)
	// Settle tells the outcome of a publish that no Take carries.
	Settle(s *Submission, o Outcome)
}

// Outcome is what became of a publish. Err is nil, [message.ErrUnavailable] or that of [message.NoHistory].
type Outcome struct {
	rooms.Position
	Duplicate bool
	Err       error
}

const (
	outstandingMax      = 16_384
	outstandingBytesMax = 4 << 20
	batchBytesMax       = 256 << 10 // one item at least

	// GiveUpAfter is how long a publish, a join or a resume waits for the sequencer.
	GiveUpAfter = 2 * time.Second
	repeatAfter = int64(300 * time.Millisecond)
)

// FollowerOptions say how a follower works.
//
// Owner: immutable.
type FollowerOptions struct {
	Self  ident.Worker
	Floor Floor
	Ring  func()       // there is something to send; any goroutine, must not block
	Clock func() int64 // nanoseconds
	Most  int          // bytes of a publish as it is submitted; 0: any number
}

// ErrTooLarge is the error for a message that does not fit on the way to the sequencer and back.
var ErrTooLarge = errors.New("the message is too large to be ordered")

// Follower is one process's side of the order.
//
// Owner: shared (mutex: mu). The caller runs Hear, Piece, Lost and Tick one at a time: they alone call the floor.
type Follower struct {
	FollowerOptions

	mu          sync.Mutex
	term        uint64
	welcomed    bool
	greetedAt   int64
	next        uint64 // number of the next publish
	outstanding []*Submission
	bytes       int    // of outstanding
	unsent      int    // index in outstanding from which on nothing was sent in this term
	unsure      uint64 // the answers to publishes with lower numbers may be lost
	sentAt      int64
	control     [][]byte // items that wait to be sent
	rooms       map[string]*followed
	questions   uint64
	effects     []func()
	past        past
	count       Counts
}

// Counts are the figures of a follower.
//
// Owner: the caller of [Follower.Counts].
type Counts struct {
	Outstanding, OutstandingBytes, Rooms int
	Publishes, Unanswered, Reads, Resets uint64
	Micros                               uint64 // the time that publishes waited for their numbers, together
	Waits                                [len(WaitBounds) + 1]uint64
}

// WaitBounds are the upper bounds of Counts.Waits in seconds; its last element counts longer times.
var WaitBounds = [...]float64{.0005, .001, .0025, .005, .01, .025, .1, .5, 2}

// NewFollower makes a follower, which greets the sequencer with its first tick.
func NewFollower(o FollowerOptions) *Follower {
	return &Follower{FollowerOptions: o, next: 1, rooms: map[string]*followed{}, greetedAt: -repeatAfter}
}

// Counts reads the figures. Any goroutine.
func (f *Follower) Counts() Counts {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.count
	c.Outstanding, c.OutstandingBytes, c.Rooms = len(f.outstanding), f.bytes, len(f.rooms)
	return c
}

// Outgoing appends the next batch for the sequencer to dst; it appends nothing where nothing is to be sent now. Any goroutine;
// one batch is sent before the next one is taken.
func (f *Follower) Outgoing(dst []byte) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	w := fleet.Writer{B: append(dst, Version)}
	w.Number(f.next - uint64(len(f.outstanding)) - 1)
	empty := len(w.B)
	now := f.Clock()
	if !f.welcomed && now-f.greetedAt >= repeatAfter {
		f.greetedAt = now
		greeting(f, &w)
	}
	fits := func(item int) bool { return len(w.B) == empty || len(w.B)-empty+item <= batchBytesMax }
	for len(f.control) > 0 && fits(len(f.control[0])) {
		w.B = append(w.B, f.control[0]...)
		f.control = f.control[1:]
	}
	if f.welcomed {
		for ; f.unsent < len(f.outstanding) && fits(len(f.outstanding[f.unsent].item)); f.unsent++ {
			f.sentAt = now
			w.B = f.outstanding[f.unsent].append(w.B)
		}
	}
	if len(w.B) == empty {
		return dst
	}
	return w.B
}

// Pending reports whether Outgoing has something. Any goroutine.
func (f *Follower) Pending() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.welcomed && f.Clock()-f.greetedAt >= repeatAfter {
		return true
	}
	return len(f.control) > 0 || f.welcomed && f.unsent < len(f.outstanding)
}

// Newest reports whether an entry is of the newest term that was heard of, or of a newer one. entry is borrowed.
func (f *Follower) Newest(entry []byte) bool {
	r := fleet.Reader{Rest: entry}
	f.mu.Lock()
	defer f.mu.Unlock()
	return head(&r) && r.Number() >= f.term
}

// Hear carries out an entry of the stream. entry is borrowed. Errors: [ErrWire].
func (f *Follower) Hear(entry []byte) error {
	r := fleet.Reader{Rest: entry}
	if !head(&r) {
		return ErrWire
	}
	at, kind := readPlace(&r), r.Byte()
	if r.Bad {
		return ErrWire
	}
	m, taken, ok := f.hearAt(at, kind, &r, entry)
	if taken && ok {
		f.Floor.Take(&m)
	}
	f.act()
	if !ok || r.Bad {
		return ErrWire
	}
	return nil
}

// hearAt is hear for an entry of any term. An older term's is for nobody any more.
func (f *Follower) hearAt(at logPlace, kind byte, r *fleet.Reader, entry []byte) (m Ordered, taken, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case at.term < f.term:
		return m, false, true
	case at.term > f.term:
		f.term, f.welcomed, f.greetedAt = at.term, false, -repeatAfter
		f.past.asked = false
		f.control = nil
		f.Ring()
	}
	if f.welcomed {
		f.heard(at, entry)
	}
	m, taken, ok = f.hear(kind, r)
	if f.welcomed && f.past.at.term != at.term { // this was the welcome
		f.heard(at, entry)
	}
	return m, taken, ok
}

// act runs what is to be done without the lock.
func (f *Follower) act() {
	for {
		f.mu.Lock()
		list := f.effects
		f.effects = nil
		f.mu.Unlock()
		if len(list) == 0 {
			return
		}
		for _, effect := range list {
			effect()
		}
	}
}

func (f *Follower) later(effect func()) { f.effects = append(f.effects, effect) }

// hear carries out an entry of this term. taken: m is a message that the floor takes next, in front of all effects. Under mu.
func (f *Follower) hear(kind byte, r *fleet.Reader) (m Ordered, taken, ok bool) {
	if f.welcomed {
		return f.entry(kind, r)
	}
	switch kind {
	case entryWelcome:
		to, next, buried := readWorker(r), r.Number(), readWorkers(r)
		if !r.Bad && to == f.Self {
			f.begin(next)
			for _, w := range buried {
				f.bury(w)
			}
		}
	case entryLog:
		if to, term, from := readWorker(r), r.Number(), r.Number(); !r.Bad && to == f.Self {
			f.sendLog(term, from)
			f.Ring()
		}
	case entryLate:
		return f.late(r)
	case entryState:
		if at := readPlace(r); !r.Bad {
			f.state(at)
		}
	}
	return m, false, true
}

// entry is hear, of a term in which the follower is welcome, or was.
func (f *Follower) entry(kind byte, r *fleet.Reader) (m Ordered, taken, ok bool) {
	switch kind {
	case entryReady, entryRebuild, entryLate, entryState:
		return m, false, true
	case entryEnded:
		if room := string(r.Bytes()); !r.Bad {
			f.ended(room)
		}
		return m, false, true
	}
	to := readWorker(r)
	switch kind {
	case entryWelcome, entryLog:
	case entryBuried:
		if !r.Bad {
			f.bury(to)
		}
	case entryKept:
		if q := readQuestion(r); !r.Bad && to == f.Self {
			f.sendKept(&q)
		}
	case entryAttached:
		if a := readAttached(r); !r.Bad && to == f.Self {
			f.attached(&a)
		}
	case entryOrdered:
		return f.ordered(to, r)
	case entryAlready:
		number, outcome, at := r.Number(), r.Byte(), rooms.Position{Seq: r.Number(), Epoch: string(r.Bytes())}
		if !r.Bad && to == f.Self {
			f.already(number, outcome, at)
		}
	case entryAgain:
		if number := r.Number(); !r.Bad && to == f.Self {
			f.again(number)
		}
	default:
		return m, false, false
	}
	return m, false, true
}

// begin begins a term: all that is outstanding is submitted again, and all rooms are asked for again. next is the number that
// the sequencer takes next.
func (f *Follower) begin(next uint64) {
	f.welcomed = true
	f.control, f.past.asked = nil, false
	f.forgoUnsure()
	f.again(next)
	f.loseAll()
}

// forgoUnsure gives up the publishes that an earlier sequencer may have numbered: this one would number them again.
func (f *Follower) forgoUnsure() {
	for _, s := range f.outstanding {
		if s.number < f.unsure && !s.done && !s.void && !s.orders {
			s.void = true
			f.forgo(s)
		}
	}
}

// loseAll asks for all rooms again.
func (f *Follower) loseAll() {
	for _, name := range slices.Sorted(maps.Keys(f.rooms)) { // in one order, so that a simulation can be repeated
		f.lose(f.rooms[name])
		f.ask(name, f.rooms[name])
	}
	f.Ring()
}

// send has an item sent. Before the welcome there is nobody to read it, and begin asks for all rooms.
func (f *Follower) send(w *fleet.Writer) {
	if f.welcomed {
		f.control = append(f.control, w.B)
	}
}

// Tick repeats what was not answered, and gives up what waits for too long. A call every 100 ms is enough.
func (f *Follower) Tick() {
	f.mu.Lock()
	now := f.Clock()
	if f.welcomed && f.unsent > 0 && now-f.sentAt > repeatAfter && len(f.outstanding) > 0 {
		f.again(f.outstanding[0].number)
	}
	for _, s := range f.outstanding {
		if now-s.at < int64(GiveUpAfter) {
			break
		}
		if !s.void && !s.done && !s.orders {
			s.void = true
			f.settle(s, Outcome{Err: message.ErrUnavailable})
		}
	}
	var waiting []string // few of the rooms: to sort all with each tick would hold the lock for long
	for name, p := range f.rooms {
		if p.waits() {
			waiting = append(waiting, name)
		}
	}
	slices.Sort(waiting)
	for _, name := range waiting {
		f.tickRoom(name, f.rooms[name], now)
	}
	if f.past.asked && !f.welcomed && now-f.past.toldAt >= repeatAfter {
		f.later(f.tellState)
	}
	f.mu.Unlock()
	f.act()
	if f.Pending() {
		f.Ring()
	}
}

// Lost notes that a part of the stream is lost: what was said about rooms must be asked for again.
func (f *Follower) Lost() {
	f.mu.Lock()
	f.unsure = f.next
	f.loseAll()
	f.again(f.next - uint64(len(f.outstanding)))
	f.mu.Unlock()
	f.act()
}
