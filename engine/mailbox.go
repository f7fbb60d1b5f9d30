package engine

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
type mailbox struct {
	mu      sync.Mutex
	letters []letter

	rung    atomic.Bool   // a wake-up is on its way
	posts   atomic.Uint64 // letters ever posted
	waiting atomic.Int64  // refusable letters: reserved or posted, and not yet opened
	bytes   atomic.Int64  // frame bytes behind them
}

const (
	mailboxLettersMax = 1 << 16
	mailboxBytesMax   = 64 << 20
)

type letterKind uint8

const (
	letterDirect   letterKind = iota // a frame for one connection
	letterWritable                   // the kernel takes bytes for a connection again
	letterCall                       // anything that is rare
	lettersOfFloor                   // the kinds from here on are the floor's
)

// letter is what passes through a mailbox. Which fields count depends on its kind.
//
// Owner: the loop, once posted.
type letter struct {
	kind  letterKind
	frame *outFrame
	conn  *turnConn // direct, writable
	call  func()

	// For the floor.
	to     any
	seq    uint64
	except ident.Place
}

// reserve takes a place for a letter with a frame of n bytes. Any goroutine.
func (m *mailbox) reserve(n int) bool { return m.reserveWithin(n, mailboxLettersMax, mailboxBytesMax) }

// reserveForeign takes a place for what another worker said. It cannot be told to try again, so it may come when a
// publisher of ours would be refused already. Any goroutine.
func (m *mailbox) reserveForeign(n int) bool {
	return m.reserveWithin(n, 2*mailboxLettersMax, 3*mailboxBytesMax/2)
}

func (m *mailbox) reserveWithin(n int, letters, bytes int64) bool {
	if m.waiting.Add(1) > letters {
		m.waiting.Add(-1)
		return false
	}
	if m.bytes.Add(int64(n)) > bytes {
		m.cancel(1, n)
		return false
	}
	return true
}

// cancel gives a reserved place back, or an opened letter's. Any goroutine.
func (m *mailbox) cancel(letters, bytes int) {
	m.waiting.Add(-int64(letters))
	m.bytes.Add(-int64(bytes))
}

// force takes a place beyond the first bounds, for an answer: the message that it answers was let in.
// Only a loop that is drowning in them refuses.
func (m *mailbox) force(n int) bool {
	if m.waiting.Load() > 4*mailboxLettersMax || m.bytes.Load() > 2*mailboxBytesMax {
		return false
	}
	m.waiting.Add(1)
	m.bytes.Add(int64(n))
	return true
}

// post adds a letter and reports whether the loop must be woken. Any goroutine; never blocks for long.
func (m *mailbox) post(x letter) (ring bool) {
	m.mu.Lock()
	m.letters = append(m.letters, x)
	m.mu.Unlock()
	m.posts.Add(1)
	return !m.rung.Swap(true)
}

// take returns all letters and leaves the empty slice in their place. Loop-only.
func (m *mailbox) take(empty []letter) []letter {
	m.rung.Store(false)
	m.mu.Lock()
	letters := m.letters
	m.letters = empty[:0]
	m.mu.Unlock()
	return letters
}

// quiet reports whether no letter has been posted since the last take. Any goroutine.
func (m *mailbox) quiet() bool { return !m.rung.Load() }
