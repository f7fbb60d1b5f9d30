package rooms

import (
	"errors"
	"iter"
	"math"
	"sync"
	"sync/atomic"

	"github.com/parleyd/parley/protocol/ident"
)

// A room has one roster per event loop.
//
// Problem: fan-out must walk through the members without a lock, on every loop at once, while members come
// and go on all of them, limits hold exactly, and all loops see the messages in one order.
//
// Invariant: a roster has one writer, its loop, which changes it under the room's lock and reads it without.
// All other goroutines read it under the lock. taken counts members and held seats and never exceeds the limit.
// Messages are numbered, and their letters posted to all loops, under the lock: every mailbox gets them in
// the order of their numbers.
//
// Joins and leaves take a number in the room's order, too. The notices follow at the end of the turn, when the
// joins and leaves of one member have cancelled; the number says which members were in the room at that point.
//
// Steps: Enter takes the seat and the roster entry in one step, on the member's loop. From any other
// goroutine, Hold takes the seat, with the number that the room has reached, and EnterHeld makes the entry on
// the member's loop; messages published in between are posted to that loop, behind the entry.
//
// What lost: one list of members under a read-write lock (fan-out holds it for as long as the writes
// take), a copy of the list for each change (quadratic while a room fills), one map per room (twice the
// memory, and iteration in random order).
//
// Where seats are shared with other processes, see seats.go.

// Place is where a member's connection lives. No member has the zero Place.
type Place = ident.Place

// Member is an entry in a roster. Messages numbered JoinSeq or lower are not delivered to it: JoinSeq is the
// number of its join, or of the step that held its seat.
type Member struct {
	Slot    uint32
	Gen     uint64
	JoinSeq uint64
}

// Errors of rooms.
var (
	ErrFull       = errors.New("room is full")
	ErrExists     = errors.New("room exists already")
	ErrUnknown    = errors.New("no room of this name was created")
	ErrOverloaded = errors.New("a loop has no place for the message")
	ErrNotHeld    = errors.New("no seat is held")
	ErrDead       = errors.New("the room is out of the index, or has no history")
)

// Room is a named, ordered stream and its members.
//
// Owner: shared (mutex: mu); a roster is read by its loop without.
type Room struct {
	name  string
	id    uint64 // orders the locks of several rooms
	index *Index

	mu        sync.Mutex
	createdAt int64
	rosters   []atomic.Pointer[roster] // by loop; nil until the loop has had a member
	held      map[Place]uint64
	metadata  []byte
	seq       uint64
	limit     int32
	explicit  bool
	dead      bool // out of the index: it takes no members
	quiet     atomic.Bool
	taken     atomic.Int32 // written under mu

	remotes    map[ident.Worker]*remote // members on other workers; nil for none
	away       atomic.Int32             // their number, written under mu
	counted    atomic.Bool
	introduced bool
	share      share

	history atomic.Pointer[History]   // nil for none; set under mu
	slow    atomic.Uint32             // its SlowPolicy; set under mu
	bounds  atomic.Pointer[ownBounds] // of the history that the room has or is to have, where rooms are followed; set under mu
}

// Entry is the outcome of entering a room.
//
// Owner: the caller.
type Entry struct {
	Room    *Room
	Members int    // the new one included, held seats not
	JoinSeq uint64 // the number of the join; from a held seat, delivery may begin with older messages
	Already bool   // it was a member before: nothing has changed
	Limit   int    // with [ErrSeat]: the room's
	Base    uint64 // in a room with history: the number of the newest message that the member does not get
	Epoch   string // and its epoch
}

// Position is where the member starts; the zero Position in a room without history.
func (e Entry) Position() Position { return Position{Seq: e.Base, Epoch: e.Epoch} }

// Name is the room's name. Any goroutine.
func (r *Room) Name() string { return r.name }

// CreatedAt is when the room was made, in seconds since the epoch. Any goroutine.
func (r *Room) CreatedAt() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.createdAt
}

// Len is the number of members and held seats. Any goroutine.
func (r *Room) Len() int { return int(r.taken.Load()) }

// Limit is the most members that the room takes, 0 for no limit. Any goroutine.
func (r *Room) Limit() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return int(r.limit)
}

// Metadata is the application's data of a created room. The caller must not change it. Any goroutine.
func (r *Room) Metadata() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.metadata
}

// Explicit reports whether the room was created, and so stays when it is empty. Any goroutine.
func (r *Room) Explicit() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.explicit
}

// Dead reports whether the room is out of the index: it takes no members. Any goroutine.
func (r *Room) Dead() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.dead
}

// Quiet reports whether the room announces no joins and leaves. Any goroutine.
func (r *Room) Quiet() bool { return r.quiet.Load() }

// SetQuiet sets Quiet, and reports whether this call changed it. Any goroutine.
func (r *Room) SetQuiet(quiet bool) bool { return r.quiet.CompareAndSwap(!quiet, quiet) }

// Roster returns the members on a loop. Only that loop may call it. The slice is borrowed until the loop changes
// the roster, and must not be written to.
func (r *Room) Roster(loop uint8) []Member {
	if s := r.rosters[loop].Load(); s != nil {
		return s.members
	}
	return nil
}

// Has reports whether p is a member. Only p's loop may call it, or a [Poster] under the room's lock. A place that a caller made
// up is none.
func (r *Room) Has(p Place) bool {
	if int(p.Loop) >= len(r.rosters) {
		return false
	}
	s := r.rosters[p.Loop].Load()
	return s != nil && s.find(p) >= 0
}

// IsMember is Has for any goroutine.
func (r *Room) IsMember(p Place) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.Has(p)
}

// Contains reports whether p is a member or holds a seat. Any goroutine.
func (r *Room) Contains(p Place) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.contains(p)
}

func (r *Room) contains(p Place) bool {
	if _, ok := r.held[p]; ok {
		return true
	}
	s := r.rosters[p.Loop].Load()
	return s != nil && s.find(p) >= 0
}

// Members appends the places of all members. Any goroutine.
func (r *Room) Members(dst []Place) []Place {
	r.mu.Lock()
	defer r.mu.Unlock()
	for loop := range r.rosters {
		s := r.rosters[loop].Load()
		if s == nil {
			continue
		}
		for _, m := range s.members {
			dst = append(dst, Place{Loop: uint8(loop), Slot: m.Slot, Gen: m.Gen})
		}
	}
	return dst
}

// Cursor is a place between the pages of a room's members.
type Cursor struct {
	Loop uint8
	Left uint32 // members of the loop on this page and later ones; a number above their count means all
}

// FirstPage is the cursor to begin with.
var FirstPage = Cursor{Left: math.MaxUint32}

// Page appends the places of up to n members. next is where the next page begins; more is false on the last page.
// It reads each roster from its end, because the entry that fills a leaver's place comes from the end: a member
// that stays during the whole listing appears at least once. One that joins meanwhile may be missing. Any
// goroutine.
func (r *Room) Page(dst []Place, from Cursor, n int) (page []Place, next Cursor, more bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	left := from.Left
	for loop := int(from.Loop); loop < len(r.rosters); loop++ {
		if s := r.rosters[loop].Load(); s != nil {
			for i := min(left, uint32(len(s.members))); i > 0; i-- {
				if n == 0 {
					return dst, Cursor{uint8(loop), i}, true
				}
				n--
				m := &s.members[i-1]
				dst = append(dst, Place{Loop: uint8(loop), Slot: m.Slot, Gen: m.Gen})
			}
		}
		left = math.MaxUint32
	}
	return dst, Cursor{}, false
}

// PageMax is the most places that one call of Page should read, because it holds the room's lock.
const PageMax = 10_000

// Places are the places of all members, read in pages: a member that stays is among them, perhaps twice. Any goroutine.
func (r *Room) Places() iter.Seq[Place] {
	return func(yield func(Place) bool) {
		for at, more := FirstPage, true; more; {
			var page []Place
			page, at, more = r.Page(nil, at, PageMax)
			for _, p := range page {
				if !yield(p) {
					return
				}
			}
		}
	}
}

// Entered is the number of members, without held seats. Any goroutine.
func (r *Room) Entered() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.entered()
}

// Miscount is the count of members and held seats less their true number; a value other than 0 is a bug. Any
// goroutine.
func (r *Room) Miscount() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.entered()
	for loop := range r.rosters {
		if s := r.rosters[loop].Load(); s != nil {
			n -= len(s.members)
		}
	}
	return n
}

// full reports whether all seats are taken. Under mu.
func (r *Room) full() bool { return r.limit > 0 && r.taken.Load() >= r.limit }

// on returns a loop's roster, making it on first use. Under mu.
func (r *Room) on(loop uint8) *roster {
	s := r.rosters[loop].Load()
	if s == nil {
		s = new(roster)
		r.rosters[loop].Store(s)
	}
	return s
}

// enter takes a seat and makes the entry. alive is false if the room is out of the index.
func (r *Room) enter(p Place) (e Entry, alive bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.dead:
		return e, false, nil
	case r.Has(p):
		return Entry{Room: r, Members: r.entered(), JoinSeq: r.seq, Already: true}, true, nil
	}
	since, held := r.unhold(p)
	if !held {
		if r.shared() {
			return Entry{Limit: int(r.limit)}, true, ErrSeat
		}
		if r.full() {
			return e, true, ErrFull
		}
		r.taken.Add(1)
		since = r.seq + 1
	}
	return r.add(p, since), true, nil
}

// add makes the entry of a member that gets the messages numbered above since. Its join takes a number of its
// own: members that joined while the seat was held learn of this join as a later one. In a room with history the member
// begins at the top, even from a held seat: its loop may have opened a letter already that was posted since. Under mu.
func (r *Room) add(p Place, since uint64) Entry {
	r.seq++
	s := r.on(p.Loop)
	s.add(Member{Slot: p.Slot, Gen: p.Gen, JoinSeq: since})
	e := Entry{Room: r, Members: r.entered(), JoinSeq: r.seq}
	if h := r.history.Load(); h != nil {
		e.Base, e.Epoch = h.top, h.epoch
		if len(s.members) == 1 {
			s.told = h.generation.Load()
		}
		s.stands = append(s.stands, Stand{From: h.top, Base: h.freshly(p.Loop, h.top)})
		h.idle = 0
	}
	r.recount()
	return e
}

// entered is the number of members without held seats. Under mu.
func (r *Room) entered() int { return r.Len() - len(r.held) }

// EnterHeld turns a held seat into a roster entry. Only p's loop may call it. Already is set if p has become a
// member meanwhile; [ErrNotHeld]: there is no seat for p, or the room is out of the index.
func (r *Room) EnterHeld(p Place) (Entry, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.Has(p) {
		return Entry{Room: r, Members: r.entered(), JoinSeq: r.seq, Already: true}, nil
	}
	since, held := r.unhold(p)
	if !held {
		return Entry{}, ErrNotHeld
	}
	if r.dead {
		r.unseat()
		return Entry{}, ErrNotHeld
	}
	return r.add(p, since), nil
}

// hold keeps a seat for p. Under mu.
func (r *Room) hold(p Place) {
	if r.held == nil {
		r.held = make(map[Place]uint64, 1)
	}
	r.seq++
	r.held[p] = r.seq
	r.on(p.Loop).held++
	r.recount()
}

// unhold takes p's seat out of the held ones, without freeing it. Under mu.
func (r *Room) unhold(p Place) (seq uint64, was bool) {
	seq, was = r.held[p]
	if was {
		delete(r.held, p)
		r.rosters[p.Loop].Load().held--
		if len(r.held) == 0 {
			r.held = nil
		}
	}
	return seq, was
}

// Poster posts letters. Its methods run under the room's lock.
type Poster interface {
	// Reserve takes a place in a loop's mailbox, and reports whether there was one.
	Reserve(loop uint8) bool
	// Cancel gives a place back.
	Cancel(loop uint8)
	// Post posts the letter with its number.
	Post(loop uint8, seq uint64)
}

// Publish numbers a message and posts it to every loop that has members or held seats; members is the number of
// both. [ErrOverloaded]: a loop has no place for it, and nothing was posted. Any goroutine.
func (r *Room) Publish(p Poster) (seq uint64, members int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.reserve(p) {
		return 0, 0, ErrOverloaded
	}
	r.seq++
	r.post(p, r.seq)
	return r.seq, int(r.taken.Load()), nil
}

// Tell posts a notice with the number that its join or leave took. It is for the members at that point of the
// order. [ErrOverloaded]: a loop has no place for it, and nothing was posted. Any goroutine.
func (r *Room) Tell(p Poster, seq uint64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.reserve(p) {
		return ErrOverloaded
	}
	r.post(p, seq)
	return nil
}

// reserve takes a place on every loop that has members or held seats, or on none. Under mu.
func (r *Room) reserve(p Poster) bool {
	for i := range r.rosters {
		if r.rosters[i].Load().present() && !p.Reserve(uint8(i)) {
			for j := range i {
				if r.rosters[j].Load().present() {
					p.Cancel(uint8(j))
				}
			}
			return false
		}
	}
	return true
}

func (r *Room) post(p Poster, seq uint64) {
	for i := range r.rosters {
		if r.rosters[i].Load().present() {
			p.Post(uint8(i), seq)
		}
	}
}
