package rooms

import (
	"slices"
	"time"
)

// A room of which several workers have members is numbered by a sequencer, apart from them (package order). The sequencer has
// the room without members; each worker that follows the room has its own members, and a copy of the newest messages.

// MakeHistory finds the history of a room of a sequencer, or makes the room. o gives the room bounds of its own; nil: those of
// the index. It is nil where the room has no history. Any goroutine.
func (x *Index) MakeHistory(room string, o *HistoryOptions) *History {
	r := x.lockLiving([]byte(room), 0)
	defer r.mu.Unlock()
	if h := r.history.Load(); o != nil && (h == nil || h.HistoryOptions != *o) {
		r.begin(o)
	}
	return r.history.Load()
}

// Use notes that n more workers follow the room, or fewer: a room that is followed is in use. Any goroutine.
func (h *History) Use(n int) {
	h.room.mu.Lock()
	defer h.room.mu.Unlock()
	h.uses = max(h.uses+n, 0)
	h.idle = 0
}

// Entries are messages of a history, in ascending order and without a hole.
//
// Owner: the caller.
type Entries struct {
	Epoch string
	Low   uint64 // the number of the oldest kept message
	First uint64 // that of List[0]
	List  []Stored
}

// Entries reads the kept messages from a number to another, of about bytesMax bytes at most, but at least one. Any goroutine.
func (h *History) Entries(from, to uint64, bytesMax int, now int64) Entries {
	h.room.mu.Lock()
	defer h.room.mu.Unlock()
	h.trim(h.room.index, now)
	e := Entries{Epoch: h.epoch, Low: h.low(), First: max(from, h.low())}
	for number, left := e.First, bytesMax; number <= min(to, h.top); number++ {
		s := *h.at(number)
		if left -= s.size() + storedBytes; left < 0 && len(e.List) > 0 {
			break
		}
		e.List = append(e.List, s)
	}
	return e
}

// Last is Entries, but reads the last of the messages that fit. Any goroutine.
func (h *History) Last(from, to uint64, bytesMax int, now int64) Entries {
	h.room.mu.Lock()
	defer h.room.mu.Unlock()
	h.trim(h.room.index, now)
	e := Entries{Epoch: h.epoch, Low: h.low(), First: min(to, h.top) + 1}
	for left := bytesMax; e.First > max(from, e.Low); e.First-- {
		s := *h.at(e.First - 1)
		if left -= s.size() + storedBytes; left < 0 && len(e.List) > 0 {
			break
		}
		e.List = append(e.List, s)
	}
	slices.Reverse(e.List)
	return e
}

// FollowOptions make an index one of a worker that follows a sequencer.
//
// Owner: immutable.
type FollowOptions struct {
	// Release is called for a room that has had no members for a while. If it returns true, the room is followed no longer. It runs
	// under no lock.
	Release func(room string) bool
	Unused  int64 // nanoseconds for which a room without members is followed on
}

// Follow makes the index one whose rooms with history are numbered elsewhere: a room has its history from [Index.Begin] on. Once,
// before any room has members.
func (x *Index) Follow(o FollowOptions) { x.follows = &o }

// Bounds are the bounds of the history that a room has, or is to have; nil for none. own: they are not those of the index. Any
// goroutine.
func (r *Room) Bounds() (o *HistoryOptions, own bool) {
	b := r.bounds.Load()
	if b == nil {
		return nil, false
	}
	return &b.HistoryOptions, b.own
}

// ownBounds are the bounds of a room that is followed.
//
// Owner: immutable.
type ownBounds struct {
	HistoryOptions
	own bool
}

// bound sets the bounds of a room that is followed, by the index or by the application. Under mu.
func bound(r *Room, o *HistoryOptions, own bool) {
	h := r.history.Load()
	switch {
	case o == nil:
	case o.Messages > 0:
		r.slow.Store(uint32(o.Slow))
		r.bounds.Store(&ownBounds{*o, own})
		r.index.histories.any.Store(true)
		if h != nil {
			h.HistoryOptions = *o
			h.fit(r.index)
		}
	case h == nil:
		r.bounds.Store(nil)
	}
}

// Following is what a room's members must learn.
type Following uint8

// What they must learn.
const (
	FollowsOn   Following = iota // nothing
	FollowsNew                   // those of [History.Untold] their position
	FollowsHole                  // the messages in front of the position are lost: [History.Behind] has them
	FollowsAnew                  // the epoch is new: [History.Restarted] has them
)

// Begin has a room numbered from a position on, and makes the room if there is none. r is nil where it has no history. Any
// goroutine.
func (x *Index) Begin(name string, now int64, seconds int64, at Position) (r *Room, members Following) {
	r = x.lockLiving([]byte(name), seconds)
	defer r.mu.Unlock()
	h, b := r.history.Load(), r.bounds.Load()
	switch {
	case h != nil && h.epoch != at.Epoch:
		h.restart(at)
		return r, FollowsAnew
	case h != nil && h.top < at.Seq:
		h.jump(at.Seq)
		return r, FollowsHole
	case h != nil:
		h.idle = 0
		return r, FollowsOn
	case b == nil:
		return nil, FollowsOn
	}
	h = &History{HistoryOptions: b.HistoryOptions, room: r, epoch: at.Epoch, top: at.Seq, last: now}
	r.history.Store(h)
	r.setStands(func(members int) []Stand {
		return slices.Repeat([]Stand{{From: at.Seq, Base: at.Seq | untold}}, members)
	})
	x.histories.add(r)
	return r, FollowsNew
}

// Take is [History.Publish] of a message that the sequencer has numbered. A loop whose mailbox is full misses the letter: Reserve
// must not refuse it. ok is false if the message is not the next one here. Any goroutine, one at a time.
func (h *History) Take(p NumberedPoster, m NumberedMessage, at Position) (ok bool) {
	r := h.room
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dead || r.history.Load() != h || h.epoch != at.Epoch || h.top+1 != at.Seq {
		return false
	}
	frame := p.Number(at)
	r.reserve(p)
	h.top, h.idle, h.last = at.Seq, 0, m.Now
	h.store(r.index, stored(&m, frame))
	if m.Idempotency != (Key{}) {
		h.keys.trim(r.index, m.Now)
		h.keys.add(r.index, keyed{m.Idempotency, m.Now}, at.Seq)
	}
	r.seq++
	r.post(p, r.seq)
	return true
}

// Skip notes that the messages up to a number are lost, and reports whether that was news. Any goroutine.
func (h *History) Skip(to uint64) bool {
	h.room.mu.Lock()
	defer h.room.mu.Unlock()
	if h.top >= to {
		return false
	}
	h.jump(to)
	return true
}

// jump forgets all messages, and goes on behind a number. Under mu.
func (h *History) jump(to uint64) {
	for i := range h.room.rosters {
		if s := h.room.rosters[i].Load(); s != nil && s.missed == 0 {
			s.missed = h.top + 1
		}
	}
	h.empty()
	h.top, h.idle = to, 0
}

func (h *History) empty() {
	for h.n > 0 {
		h.drop(h.room.index, DroppedAge)
	}
}

func (h *History) forgetKeys() {
	for len(h.keys.order) > 0 {
		h.keys.forget(h.room.index)
	}
}

// Restart begins a new epoch, and reports whether that was news. Any goroutine.
func (h *History) Restart(at Position) bool {
	h.room.mu.Lock()
	defer h.room.mu.Unlock()
	if h.epoch == at.Epoch {
		return false
	}
	h.restart(at)
	return true
}

func (h *History) restart(at Position) {
	h.empty()
	h.forgetKeys()
	h.epoch, h.top, h.begins, h.idle = at.Epoch, at.Seq, at.Seq, 0
	h.generation.Add(1)
	for i := range h.room.rosters {
		if s := h.room.rosters[i].Load(); s != nil {
			s.missed = 0
		}
	}
}

// Generation counts the epochs that the room has had here. Any goroutine.
func (h *History) Generation() uint32 { return h.generation.Load() }

// Told is the generation that the loop's members know of, but for those that are fresh. Letters of an earlier one are for none of
// them. Only the loop may call it.
func (h *History) Told(loop uint8) uint32 { return h.room.rosters[loop].Load().told }

// Fresh reports whether the member came in a later epoch than the other members of its loop know of. Only the loop may call it.
func (s *Stand) Fresh() bool { return s.Base&fresh != 0 }

// told reports whether a member knows of the room's epoch. Under mu.
func (h *History) told(loop uint8, s *Stand) bool {
	return s.Fresh() || h.room.rosters[loop].Load().told == h.generation.Load()
}

// freshly is a Base for a member of a loop that begins now. Under mu.
func (h *History) freshly(loop uint8, base uint64) uint64 {
	if h.room.rosters[loop].Load().told != h.generation.Load() {
		base |= fresh
	}
	return base
}

// Restarted are the loop's members, by their index in Roster, that have to be told the room's new epoch, and the position in it
// that they are at. They count as told from now on. Only the loop may call it.
func (h *History) Restarted(loop uint8) (list []int, at Position) {
	h.room.mu.Lock()
	defer h.room.mu.Unlock()
	s := h.room.rosters[loop].Load()
	if s == nil || s.told == h.generation.Load() {
		return nil, at
	}
	for i := range s.stands {
		if s.stands[i].Fresh() {
			s.stands[i].Base &^= fresh
			continue
		}
		s.stands[i] = Stand{From: h.begins, Base: h.begins}
		list = append(list, i)
	}
	s.told, s.given = h.generation.Load(), h.begins
	return list, Position{Seq: h.begins, Epoch: h.epoch}
}

// Missed notes that a loop had no place for a message, and reports whether its members must be made to read: [History.Behind].
// It runs under the room's lock, as [Poster.Post] does.
func (h *History) Missed(loop uint8, number uint64) (first bool) {
	s := h.room.rosters[loop].Load()
	if s.missed != 0 {
		return false
	}
	s.missed = number
	return true
}

// Behind makes the loop's members, by their index in Roster, read on from the number that the loop has missed; next is that of
// each. Only the loop may call it.
func (h *History) Behind(loop uint8) (list []int, next []uint64) {
	h.room.mu.Lock()
	defer h.room.mu.Unlock()
	s := h.room.rosters[loop].Load()
	if s == nil || s.missed == 0 {
		return nil, nil
	}
	for i := range s.stands {
		stand := &s.stands[i]
		if from := max(stand.From+1, s.missed); stand.From != Behind && h.told(loop, stand) && from <= h.top {
			list, next = append(list, i), append(next, from)
			stand.From = Behind
		}
	}
	s.missed = 0
	return list, next
}

// Fill takes older messages, the last of which is the one in front of the oldest that is kept. Any goroutine.
func (h *History) Fill(epoch string, first uint64, list []NumberedMessage, frames [][]byte) {
	h.room.mu.Lock()
	defer h.room.mu.Unlock()
	if h.epoch != epoch || first+uint64(len(list)) != h.low() {
		return
	}
	x := h.room.index
	ring := make([]Stored, 0, len(list)+h.n)
	for i := range list {
		ring = append(ring, stored(&list[i], frames[i]))
		h.bytes += len(frames[i])
		x.histories.bytes.Add(int64(len(frames[i])))
	}
	x.histories.messages.Add(int64(len(list)))
	for number := h.low(); number <= h.top; number++ {
		ring = append(ring, *h.at(number))
	}
	h.ring, h.head, h.n = ring, 0, len(ring)
	h.fit(x)
}

// Room is the room that the history is of. Any goroutine.
func (h *History) Room() *Room { return h.room }

// Epoch is the room's epoch. Any goroutine.
func (h *History) Epoch() string {
	h.room.mu.Lock()
	defer h.room.mu.Unlock()
	return h.epoch
}

// Low is the number of the oldest message that is kept; top + 1 where none is. Any goroutine.
func (h *History) Low() uint64 {
	h.room.mu.Lock()
	defer h.room.mu.Unlock()
	return h.low()
}

// Where is the newest message's position, and the number of the oldest message that is kept. Any goroutine.
func (h *History) Where(now int64) (at Position, low uint64) {
	h.room.mu.Lock()
	defer h.room.mu.Unlock()
	h.trim(h.room.index, now)
	return Position{Seq: h.top, Epoch: h.epoch}, h.low()
}

// KeyedNumber is an idempotency key that counts, and the number of its message.
type KeyedNumber struct {
	Key    Key
	Number uint64
	Age    time.Duration
}

// Keys are the idempotency keys that count, by age. Any goroutine.
func (h *History) Keys(now int64) (list []KeyedNumber) {
	h.room.mu.Lock()
	defer h.room.mu.Unlock()
	h.keys.trim(h.room.index, now)
	for _, k := range h.keys.order {
		list = append(list, KeyedNumber{k.key, h.keys.numbers[k.key], time.Duration(now - k.at)})
	}
	return list
}

// AnyKeys reports whether idempotency keys count. Any goroutine.
func (h *History) AnyKeys(now int64) bool {
	h.room.mu.Lock()
	defer h.room.mu.Unlock()
	h.keys.trim(h.room.index, now)
	return len(h.keys.order) > 0
}

// TakeKeys takes the idempotency keys of older messages. Any goroutine.
func (h *History) TakeKeys(epoch string, keys []KeyedNumber, now int64) {
	h.room.mu.Lock()
	defer h.room.mu.Unlock()
	if h.epoch != epoch {
		return
	}
	x, newer := h.room.index, h.keys
	h.keys = recentKeys{}
	x.histories.keys.Add(-int64(len(newer.order)))
	for _, k := range keys {
		if newer.numbers[k.Key] == 0 {
			h.keys.add(x, keyed{k.Key, now - int64(k.Age)}, k.Number)
		}
	}
	for _, k := range newer.order {
		h.keys.add(x, k, newer.numbers[k.key])
	}
}

// RestoreOptions say how a room was.
//
// Owner: the caller.
type RestoreOptions struct {
	Bounds *HistoryOptions // its own; nil: those of the index
	At     Position
	Keys   []KeyedNumber
}

// Restore makes a room of a sequencer as its followers have it, without its messages. It reports false where the room is there
// already, or has no history. Any goroutine.
func (x *Index) Restore(room string, o *RestoreOptions, now int64) bool {
	h := x.MakeHistory(room, o.Bounds)
	if h == nil {
		return false
	}
	h.room.mu.Lock()
	defer h.room.mu.Unlock()
	if h.top != 0 || h.n != 0 {
		return false
	}
	h.epoch, h.top, h.last = o.At.Epoch, o.At.Seq, now
	for _, k := range o.Keys {
		h.keys.add(x, keyed{k.Key, now - int64(k.Age)}, k.Number)
	}
	return true
}

// unfollow is sweep for a room that is followed: one without members for long enough is followed no longer.
func unfollow(r *Room, now int64) (gone bool) {
	if long, dead := unused(r, now); !long || dead || !r.index.follows.Release(r.name) {
		return dead
	}
	r.mu.Lock()
	if r.dead || r.history.Load() == nil || r.history.Load().idle == 0 {
		dead := r.dead
		r.mu.Unlock()
		return dead
	}
	r.end()
	r.history.Store(nil)
	r.setStands(func(int) []Stand { return nil })
	r.index.histories.rooms.Add(-1)
	r.dead = !r.explicit
	vanishes := r.dead
	r.mu.Unlock()
	if vanishes {
		r.index.drop(r)
	}
	return true
}

// unused reports whether a room that is followed has had no members for long enough, and whether it is dead.
func unused(r *Room, now int64) (long, dead bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.history.Load()
	if h == nil || r.dead {
		return false, true
	}
	h.trim(r.index, now)
	switch {
	case r.taken.Load() > 0:
		h.idle = 0
	case h.idle == 0:
		h.idle = max(now, 1)
	default:
		return now-h.idle >= r.index.follows.Unused, false
	}
	return false, false
}
