package turn

import (
	"sync"
	"sync/atomic"

	"github.com/parleyd/parley/protocol/ident"
)

// The mailbox is the one way into a loop from other goroutines.
//
// Problem: any goroutine may have a letter for a loop, and must never wait for the loop. Letters keep their order. A loop
// that is behind must not let letters grow without bound.
//
// Invariant: letters of one poster are opened in the order in which they were posted. At most one wake-up is outstanding.
// Letters that can be refused (a publisher's) hold a reserved place. Letters that must arrive (leave, close, take-over,
// writable) need no reservation: their number per connection is bounded.
//
// Steps: a publisher reserves a place in every mailbox concerned, or in none, and only then posts. The loop swaps the slice
// for an empty one and opens the letters outside the lock.
//
// What lost: gnet's own task queue (not FIFO beyond 1,024 tasks), a channel (blocks, or drops silently), a lock-free list
// (one allocation a letter, no faster at one loop per core).
//
// Owner: shared (mutex: Mu).
type Mailbox struct {
	Mu      sync.Mutex
	Letters []Letter

	Rung    atomic.Bool   // a wake-up is on its way
	Posts   atomic.Uint64 // letters ever posted
	Waiting atomic.Int64  // refusable letters that are reserved or posted, and not yet opened
	Bytes   atomic.Int64  // bytes of the frames of those letters
}

// Bounds of a mailbox for the letters of publishers.
const (
	MailboxLettersMax = 1 << 16
	MailboxBytesMax   = 64 << 20
)

type letterKind uint8

const (
	LetterDirect   letterKind = iota // a frame for one connection
	LetterWritable                   // the kernel takes bytes for a connection again
	letterCall                       // a function for the loop; rare
	LettersOfFloor                   // the kinds from here on are the floor's
)

// Letter is one item in a mailbox. Its kind decides which fields are used.
//
// Owner: the loop, once posted.
type Letter struct {
	Kind  letterKind
	Frame *Frame
	Conn  *Conn // of LetterDirect and LetterWritable
	call  func()

	// For the floor.
	To     any
	Seq    uint64
	Except ident.Place
}

// Reserve takes a place for a letter with a frame of n bytes. Any goroutine.
func (m *Mailbox) Reserve(n int) bool { return m.reserveWithin(n, MailboxLettersMax, MailboxBytesMax) }

// ReserveForeign takes a place for a frame of another worker. The other worker cannot be told to try again, so the bounds
// are higher than a publisher's here. Any goroutine.
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

// Cancel frees reserved places, or those of opened letters. Any goroutine.
func (m *Mailbox) Cancel(letters, bytes int) {
	m.Waiting.Add(-int64(letters))
	m.Bytes.Add(-int64(bytes))
}

// force takes a place beyond the first bounds, for an answer whose question was let in. It refuses only on a loop that has
// very many of them.
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
