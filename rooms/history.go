package rooms

import (
	"math"
	"slices"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/protocol/message"
)

// A room with history numbers its messages, and keeps the newest ones.
//
// Problem: a member that was away, or that reads slowly, must get each message of the room exactly once and in order, or be told
// exactly which are missing; and the members that keep up must not pay for it.
//
// Invariant: the kept messages are the newest ones without a hole, so that three numbers describe them: low, top, and the
// epoch. A message gets its number, its place in the history and its letters in one step, under the room's lock. Each member
// has a stand: the number up to which letters are not for it. For a member that is behind that is the highest number there
// is: it reads the history in pieces, with Read. The piece that reaches the top sets the stand to the top, in the same
// step: from then on the letters are for it, and no message lies between.
//
// Joins and leaves do not take these numbers. They have the room's other order (room.go), which every room has, and notices
// keep to it: a member that is behind gets them all the same.
//
// What lost: the frames themselves in the history (a short frame takes 320 bytes, and a connection with compression would get
// other bytes than on the first delivery), one history for each loop (L times the memory), and a number in each letter in
// place of the stand (rooms without history would pay for it).

// SlowPolicy is what happens to a member that is behind once the history no longer has its next message.
type SlowPolicy uint8

// The policies.
const (
	SlowDrop       SlowPolicy = iota // it is told the gap
	SlowDisconnect                   // its connection ends, and its session can be resumed
	SlowConflate                     // as SlowDrop; of unread messages with the same key it gets the newest alone
)

// HistoryOptions bound what a room keeps. Each bound holds by itself; the oldest message goes first.
//
// Owner: immutable.
type HistoryOptions struct {
	Messages int
	Bytes    int // of the frames as sent
	Age      time.Duration
	Slow     SlowPolicy
}

// Position is a place in a room's messages. Numbers of two epochs cannot be compared.
type Position = message.Position

// Since is where a client wants to start.
type Since = message.Since

// Behind is the stand of a member that reads the history.
const Behind = math.MaxUint64

// Stand is a member's place in a room's messages.
type Stand struct {
	From uint64 // letters with this number and lower ones are not for the member; Behind: none are
	Base uint64 // what the client has: the position that it was told last, or, with the bit proven, that a receipt proved
}

func (s *Stand) base() uint64 { return s.Base &^ (proven | untold | fresh) }

const (
	// proven is the bit of a Base that a receipt proved. A number has 53 bits.
	proven = 1 << 63
	// untold is the bit of the Base of a member that was in the room before its history. Such a member is yet to be told.
	untold = 1 << 62
	// fresh is the bit of the Base of a member that came in the room's present epoch, while others of its loop are yet to be told
	// that this epoch has begun.
	fresh = 1 << 61
)

// Stored is one kept message.
//
// Owner: immutable.
type Stored struct {
	frame *byte
	about int64  // the bytes of the frame, and above sizeBits when it was published, in milliseconds: a slice and a time take twice as much
	by    uint64 // the publisher, by [Who]; 0 for none
	more  *storedMore
}

// sizeBits holds the largest frame, of 64 MiB and its header. The other 37 bits are two years of milliseconds, before and after the
// start of the clock.
const sizeBits = 27

// stored is a message as a history keeps it.
func stored(m *NumberedMessage, frame []byte) Stored {
	s := Stored{frame: unsafe.SliceData(frame), by: m.By}
	s.about = m.Now/int64(time.Millisecond)<<sizeBits | int64(len(frame))
	if m.ConflateKey != 0 || len(m.Out) > 0 {
		s.more = &storedMore{m.ConflateKey, m.Out}
	}
	return s
}

// storedMore is what few messages have.
type storedMore struct {
	key uint64   // for conflation; 0 for none
	out []uint64 // connections that the message is not for, by [Who]
}

// Who is a short name for a connection, in a history.
func Who(id ident.ID) uint64 { return id.Place.Gen<<16 | uint64(id.Worker.Instance()) }

// By is the publisher, by [Who]; 0 for none.
func (s *Stored) By() uint64 { return s.by }

// At is when the message was published, on the clock of [NumberedMessage], in whole milliseconds.
func (s *Stored) At() int64 { return s.about >> sizeBits * int64(time.Millisecond) }

// Frame is the message as sent, without compression. Nobody changes it.
func (s *Stored) Frame() []byte { return unsafe.Slice(s.frame, s.size()) }

func (s *Stored) size() int { return int(s.about & (1<<sizeBits - 1)) }

// Key is the key for conflation; 0 for none.
func (s *Stored) Key() uint64 {
	if s.more == nil {
		return 0
	}
	return s.more.key
}

// Out are the connections that the message is not for, by [Who].
func (s *Stored) Out() []uint64 {
	if s.more == nil {
		return nil
	}
	return s.more.out
}

// History is the numbering of a room, and its newest messages, in a ring.
//
// Owner: shared (mutex: the room's).
type History struct {
	HistoryOptions
	room  *Room
	epoch string
	top   uint64
	ring  []Stored
	head  int // of the oldest
	n     int
	bytes int
	keys  recentKeys
	last  int64 // when the newest message was published
	idle  int64 // since when the room has neither members nor new messages; 0: it is in use
	uses  int   // workers that follow the room

	// In a room that is followed.
	generation atomic.Uint32 // counts the epochs; set under mu
	begins     uint64        // top when the epoch began here
}

// low is the number of the oldest kept message; top + 1 where none is.
func (h *History) low() uint64 { return h.top - uint64(h.n) + 1 }

func (h *History) at(number uint64) *Stored {
	return &h.ring[(h.head+int(number-h.low()))%len(h.ring)]
}

// store takes the message with the number top.
func (h *History) store(x *Index, s Stored) {
	if h.n == h.Messages {
		h.drop(x, DroppedMessages)
	}
	if h.n == len(h.ring) {
		h.grow()
	}
	h.ring[(h.head+h.n)%len(h.ring)] = s
	h.n++
	h.bytes += s.size()
	x.histories.bytes.Add(int64(s.size()))
	x.histories.messages.Add(1)
	h.fit(x)
	h.trim(x, s.At())
}

// fit forgets the oldest messages that are beyond the bounds.
func (h *History) fit(x *Index) {
	for h.n > h.Messages {
		h.drop(x, DroppedMessages)
	}
	for h.bytes > h.Bytes {
		why := DroppedBytes
		if h.n == 1 {
			why = DroppedSize
		}
		h.drop(x, why)
	}
}

func (h *History) grow() {
	ring := make([]Stored, min(max(4, 2*len(h.ring)), h.Messages))
	for i := range h.n {
		ring[i] = h.ring[(h.head+i)%len(h.ring)]
	}
	h.ring, h.head = ring, 0
}

// drop forgets the oldest message.
func (h *History) drop(x *Index, why Dropped) {
	s := &h.ring[h.head]
	h.bytes -= s.size()
	x.histories.bytes.Add(-int64(s.size()))
	x.histories.messages.Add(-1)
	x.histories.dropped[why].Add(1)
	*s = Stored{}
	h.head = (h.head + 1) % len(h.ring)
	if h.n--; h.n == 0 {
		h.head = 0
	}
}

// trim forgets the messages that are too old.
func (h *History) trim(x *Index, now int64) {
	for h.n > 0 && now-h.ring[h.head].At() >= int64(h.Age) {
		h.drop(x, DroppedAge)
	}
	if h.n == 0 && len(h.ring) > 4 {
		h.ring, h.head = nil, 0
	}
}

// History is the room's history; nil for none. Any goroutine.
func (r *Room) History() *History { return r.history.Load() }

// begin gives the room a history, or other bounds, and reports whether it had none. Options without messages end a history
// that has had none. Under mu.
func (r *Room) begin(o *HistoryOptions) (begun bool) {
	h := r.history.Load()
	switch {
	case o == nil:
	case r.index.follows != nil:
		bound(r, o, true)
	case o.Messages > 0 && h == nil:
		r.slow.Store(uint32(o.Slow))
		r.history.Store(&History{HistoryOptions: *o, room: r, epoch: r.index.newEpoch()})
		r.setStands(func(members int) []Stand { return slices.Repeat([]Stand{{Base: untold}}, members) })
		r.index.histories.add(r)
		return true
	case o.Messages > 0:
		r.slow.Store(uint32(o.Slow))
		h.HistoryOptions = *o
		h.fit(r.index)
	case h != nil && h.top == 0:
		r.index.histories.rooms.Add(-1)
		r.history.Store(nil)
		r.setStands(func(int) []Stand { return nil })
	}
	return false
}

// setStands gives each roster the stands for its members. Under mu.
func (r *Room) setStands(of func(members int) []Stand) {
	for i := range r.rosters {
		if s := r.rosters[i].Load(); s != nil {
			s.stands = of(len(s.members))
		}
	}
}

// end forgets the history of a room that goes. Under mu.
func (r *Room) end() {
	if h := r.history.Load(); h != nil {
		for h.n > 0 {
			h.drop(r.index, DroppedAge)
		}
		h.forgetKeys()
		h.ring = nil
	}
}

// Stands are the stands of the members in Roster, in the same order. Only the loop may call it, for a letter with a number; the
// slice is borrowed as Roster's is.
func (h *History) Stands(loop uint8) []Stand { return h.room.rosters[loop].Load().stands }

// SetBehind makes the member at an index of a loop's roster one that is behind. Only the loop may call it.
func (h *History) SetBehind(loop uint8, at int) {
	h.room.mu.Lock()
	h.room.rosters[loop].Load().stands[at].From = Behind
	h.room.mu.Unlock()
}

// stand is a member's stand; nil where there is none.
func (h *History) stand(p Place) *Stand {
	if s := h.room.rosters[p.Loop].Load(); s != nil && s.stands != nil {
		if i := s.find(p); i >= 0 {
			return &s.stands[i]
		}
	}
	return nil
}

// Untold are the loop's members, by their index in Roster, that were in the room before its history and were told no position
// since. They count as told from now on. Only the loop may call it.
func (h *History) Untold(loop uint8) (list []int) {
	h.room.mu.Lock()
	defer h.room.mu.Unlock()
	s := h.room.rosters[loop].Load()
	if s == nil {
		return nil
	}
	for i := range s.stands {
		if s.stands[i].Base&untold != 0 {
			s.stands[i].Base &^= untold
			list = append(list, i)
		}
	}
	return list
}

// Known is what is known of a member's client: the position that it has for certain, whether a receipt proved that, and the
// newest message, which it may have been given.
type Known struct {
	Base   Position
	Proven bool
	Top    uint64
}

// KnownOf is what is known of the client of a member; ok is false if p is no member. Any goroutine.
func (h *History) KnownOf(p Place) (k Known, ok bool) {
	h.room.mu.Lock()
	defer h.room.mu.Unlock()
	s := h.stand(p)
	if s == nil || !h.told(p.Loop, s) {
		return k, false
	}
	return Known{Position{Seq: s.base(), Epoch: h.epoch}, s.Base&proven != 0, h.top}, true
}

// Given notes the newest number that a loop has delivered. Only the loop may call it.
func (h *History) Given(loop uint8, number uint64) { h.room.rosters[loop].Load().given = number }

// Cover notes what a receipt covers that is asked for now, and reports whether it would prove anything: to a member that is
// behind, unread is the next number; else 0. Only p's loop may call it.
func (h *History) Cover(p Place, unread uint64) bool {
	h.room.mu.Lock()
	defer h.room.mu.Unlock()
	s := h.stand(p)
	if s == nil || !h.told(p.Loop, s) {
		return false
	}
	if s.From == Behind {
		return unread > s.base()+1
	}
	s.From = max(s.From, h.room.rosters[p.Loop].Load().given)
	return s.From > s.base()
}

// Prove notes that the receipt has come; to a member that is behind, covered is the number that it was given last. Only p's
// loop may call it.
func (h *History) Prove(p Place, covered uint64) {
	h.room.mu.Lock()
	defer h.room.mu.Unlock()
	s := h.stand(p)
	if s == nil || !h.told(p.Loop, s) {
		return
	}
	if s.From != Behind {
		covered = s.From
	}
	if covered > s.base() {
		s.Base = covered | proven
	}
}

// Delivered counts the members that have a message for certain, and all members. Any goroutine.
func (h *History) Delivered(number uint64) (have, members int) {
	h.room.mu.Lock()
	defer h.room.mu.Unlock()
	for i := range h.room.rosters {
		if s := h.room.rosters[i].Load(); s != nil {
			members += len(s.members)
			for j := range s.stands {
				if h.told(uint8(i), &s.stands[j]) && s.stands[j].base() >= number {
					have++
				}
			}
		}
	}
	return have, members
}

// Top is the position of the newest message. Any goroutine.
func (h *History) Top() Position {
	top, _ := h.Kept()
	return top
}

// Kept is [History.Top], and the number of messages that are kept. Any goroutine.
func (h *History) Kept() (top Position, messages int) {
	h.room.mu.Lock()
	defer h.room.mu.Unlock()
	return Position{Seq: h.top, Epoch: h.epoch}, h.n
}

// Policy is what happens to members that cannot keep up. Any goroutine.
func (h *History) Policy() SlowPolicy { return SlowPolicy(h.room.slow.Load()) }

// Start lets a member begin at a place. Where messages are to be replayed it is behind from then on, and its loop must read.
// ok is false if p is no member. Only p's loop may call it.
func (h *History) Start(p Place, since Since, now int64) (s message.Start, ok bool) {
	h.room.mu.Lock()
	defer h.room.mu.Unlock()
	stand := h.stand(p)
	if stand == nil {
		return s, false
	}
	h.trim(h.room.index, now)
	s = h.start(since)
	stand.Base, stand.From = h.freshly(p.Loop, s.Seq), h.top
	if s.Seq < h.top {
		stand.From = Behind
	}
	return s, true
}

// start judges where a client starts [wire protocol, history].
func (h *History) start(since Since) message.Start {
	s := message.Start{Position: Position{Seq: h.top, Epoch: h.epoch}, Until: h.top, Replays: since != Since{}, Judged: since.Named}
	at, oldest := since.Position.Seq, h.top-uint64(h.n)
	switch {
	case since.Last > 0:
		s.Seq = h.top - min(since.Last, uint64(h.n))
	case !since.Named:
	case since.Position.Epoch != h.epoch || at > h.top:
		s.Gap = true
	case at >= oldest:
		s.Seq, s.Recovered = at, true
	default:
		s.Seq, s.Gap, s.MissingFrom, s.MissingTo = oldest, true, at+1, oldest
	}
	return s
}

// NumberedMessage is a message that takes a number.
//
// Owner: the caller.
type NumberedMessage struct {
	Now         int64
	By          uint64   // the publisher, by [Who]; 0 for none
	Out         []uint64 // connections that the message is not for, by [Who]; kept
	ConflateKey uint64   // of [Index.Hash]; 0 for none
	Idempotency Key      // of [Index.Key]; the zero Key is none
}

// NumberedPoster posts letters with a message that takes a number.
type NumberedPoster interface {
	Poster
	// Number completes the message and returns its frame, which is never changed. It runs under the room's lock.
	Number(p Position) (frame []byte)
}

// Numbered is a message that has its number.
type Numbered struct {
	Position
	Members   int  // and held seats
	Duplicate bool // of an earlier message, whose position this is: nothing was published
}

// Publish is [Room.Publish] of a message that takes a number. [ErrDead]: the room is out of the index. Any goroutine.
func (h *History) Publish(p NumberedPoster, m NumberedMessage) (Numbered, error) {
	r := h.room
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dead || r.history.Load() != h {
		return Numbered{}, ErrDead
	}
	if m.Idempotency != (Key{}) {
		if number := h.keys.find(r.index, m.Idempotency, m.Now); number > 0 {
			r.index.histories.duplicates.Add(1)
			h.idle = 0
			return Numbered{Position: Position{Seq: number, Epoch: h.epoch}, Duplicate: true}, nil
		}
	}
	number := h.top + 1
	frame := p.Number(Position{Seq: number, Epoch: h.epoch})
	if !r.reserve(p) {
		return Numbered{}, ErrOverloaded
	}
	h.top, h.idle, h.last = number, 0, m.Now
	h.store(r.index, stored(&m, frame))
	if m.Idempotency != (Key{}) {
		h.keys.add(r.index, keyed{m.Idempotency, m.Now}, number)
	}
	r.seq++
	r.post(p, r.seq)
	return Numbered{Position: Position{Seq: number, Epoch: h.epoch}, Members: int(r.taken.Load())}, nil
}
