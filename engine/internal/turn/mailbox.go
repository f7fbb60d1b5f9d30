package turn

import (
	"sync"
	"sync/atomic"

	"github.com/parleyd/parley/protocol/ident"
)

// The mailbox is the one door into a loop.
//
// Problem: any goroutine may have something for a loop, in order, without ever waiting for it, and a
// loop that is behind must not let letters grow without bound.
//
// Invariant: letters of one poster are opened in the order in which they were posted. At most one
// wake-up is outstanding. Letters that can be refused (what a publisher sends) hold a reserved place;
// letters that must arrive (leave, close, take-over, writable) have places of their own: there are only
// so many per connection.
//
// Steps: a publisher reserves a place in every mailbox concerned, or in none, and only then posts.
// The loop swaps the slice for an empty one and works through it outside the lock.
//
// What lost: gnet's own task queue (not FIFO beyond 1,024 tasks), a channel (blocks, or drops without
// a word), a lock-free list (one allocation a letter, no faster at one loop per core).
//
// Owner: shared (mutex: mu).
type Mailbox struct {
	Mu      sync.Mutex
	Letters []Letter

	Rung    atomic.Bool   // a wake-up is on its way
	Posts   atomic.Uint64 // letters ever posted
	Waiting atomic.Int64  // refusable letters: reserved or posted, and not yet opened
	Bytes   atomic.Int64  // frame bytes behind them
}

// Bounds of a mailbox for what a publisher sends.
const (
	MailboxLettersMax = 1 << 16
	MailboxBytesMax   = 64 << 20
)

type letterKind uint8

const (
	LetterDirect   letterKind = iota // a frame for one connection
	LetterWritable                   // the kernel takes bytes for a connection again
	letterCall                       // anything that is rare
	LettersOfFloor                   // the kinds from here on are the floor's
)

// Letter is what passes through a mailbox. Which fields count depends on its kind.
//
// Owner: the loop, once posted.
type Letter struct {
	Kind  letterKind
	Frame *Frame
	Conn  *Conn // direct, writable
	call  func()

	// For the floor.
	To     any
	Seq    uint64
	Except ident.Place
}

// Reserve takes a place for a letter with a frame of n bytes. Any goroutine.
func (m *Mailbox) Reserve(n int) bool { return m.reserveWithin(n, MailboxLettersMax, MailboxBytesMax) }

// ReserveForeign takes a place for what another worker said. It cannot be told to try again, so it may come when a
// publisher of ours would be refused already. Any goroutine.
func (m *Mailbox) ReserveForeign(n int) bool {
	return m.reserveWithin(n, 2*MailboxLettersMax, 3*MailboxBytesMax/2)
}

func (m *Mailbox) reserveWithin(n int, letters, bytes int64) bool {
	if m.Waiting.Add(1) > letters {
		m.Waiting.Add(-1)
		return false
	}
	if m.Bytes.Add(int64(n)) > bytes {
		m.Cancel(1, n)
		return false
	}
	return true
}

// Cancel gives a reserved place back, or an opened letter's. Any goroutine.
func (m *Mailbox) Cancel(letters, bytes int) {
	m.Waiting.Add(-int64(letters))
	m.Bytes.Add(-int64(bytes))
}

// force takes a place beyond the first bounds, for an answer: the message that it answers was let in.
// Only a loop that is drowning in them refuses.
func (m *Mailbox) force(n int) bool {
	if m.Waiting.Load() > 4*MailboxLettersMax || m.Bytes.Load() > 2*MailboxBytesMax {
		return false
	}
	m.Waiting.Add(1)
	m.Bytes.Add(int64(n))
	return true
}

// Post adds a letter and reports whether the loop must be woken. Any goroutine; never blocks for long.
func (m *Mailbox) Post(x Letter) (ring bool) {
	m.Mu.Lock()
	m.Letters = append(m.Letters, x)
	m.Mu.Unlock()
	m.Posts.Add(1)
	return !m.Rung.Swap(true)
}

// Take returns all letters and leaves the empty slice in their place. Loop-only.
func (m *Mailbox) Take(empty []Letter) []Letter {
	m.Rung.Store(false)
	m.Mu.Lock()
	letters := m.Letters
	m.Letters = empty[:0]
	m.Mu.Unlock()
	return letters
}

// quiet reports whether no letter has been posted since the last take. Any goroutine.
func (m *Mailbox) quiet() bool { return !m.Rung.Load() }
