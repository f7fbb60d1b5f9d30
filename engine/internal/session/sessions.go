package session

import (
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/parleyd/parley/engine/internal/fanout"
	"github.com/parleyd/parley/engine/internal/pending"
	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/message"
)

// Sessions are the sessions of a server. Its methods are for any goroutine.
//
// Owner: immutable once the server runs, except the atomic fields and Memory.
type Sessions struct {
	Rooms  *fanout.Rooms
	Memory *Memory
	Store  Store
	Options
	Above Above

	apart        bool
	ownerBytes   int // in front of a token: the worker that began the session, or nothing
	saves        saveTimes
	losses       atomic.Uint64 // how often the store has lost its sessions
	unstoredSaid atomic.Int64  // when the log last said that the store takes no sessions
}

// Options are the settings of sessions, and what they are made of.
//
// Owner: immutable.
type Options struct {
	TTL                time.Duration // of a session without a connection
	AttemptsMax        int           // resumes in a row
	AttributesBytesMax int
	Entropy            func([]byte)             // fills a slice with unguessable bytes
	Wall               func(at int64) time.Time // a time on the server's clock, on the wall clock
}

// New makes the sessions of a server that is alone: their store is the worker's memory.
func New(r *fanout.Rooms, o Options, above Above) *Sessions {
	m := newMemory(o.TTL, o.AttemptsMax)
	return &Sessions{Rooms: r, Options: o, Above: above, Memory: m, Store: memoryStore{m}}
}

// Above are the functions of the floor above. They run on the loop of the connection that they are given.
//
// Owner: immutable.
type Above struct {
	Resumed  func(c *Conn, answer *message.Reconnected, attempts int)
	Ended    func(c *Conn, cause turn.Cause, token string) // out of all its rooms; token restores the session
	Dispatch func(c *Conn, binary bool, payload []byte)
	// MayReturn reports whether a session may enter one of its rooms again; the code says why not.
	MayReturn func(c *Conn, room string) (code string, ok bool)
}

// Conn is a connection that has a session.
//
// Owner: loop, except what is atomic.
type Conn struct {
	fanout.Conn
	attrs    atomic.Pointer[attributes]
	userData atomic.Pointer[userData]
	identity atomic.Pointer[known]
	token    token // of the connection's session
}

// Rare is state that few connections need.
//
// Owner: loop.
type Rare struct {
	fanout.Rare
	attempts  int // resumes in a row up to this connection
	resumedAt int64
	line      lineage // of a resumed session
	leftover  *parked // state for a claimant that came while the connection ended
	departure *departure
	revival   *revival
}

// NewRare makes the state of this floor and of those below.
func NewRare() *pending.Rare { return (*pending.Rare)(unsafe.Pointer(new(Rare))) }

// Loop is a loop whose connections have sessions.
//
// Owner: loop, except saves.
type Loop struct {
	fanout.Loop
	Sessions *Sessions
	unsaved  []*Conn // connections whose sessions have changed
	saves    savings // saves that are on their way
	ahead    ahead
}

// Flags of this floor.
const (
	flagResumed    = turn.FlagsOfOwner << iota
	flagUnsaved    // its session has changed since it was saved: the connection is in the loop's list
	flagTokenKnown // the client knows the session's token
	FlagsOfOwner   // the flags from here on are the floor's above
)

// Counts of this floor.
const (
	CountSessionsTooLarge = fanout.CountersOfOwner + iota
	CountResumed
	CountResumesRefused
	CountersOfOwner // the kinds from here on are the floor's above
)

// ConnOf is the connection whose transport is c; nil for nil.
func ConnOf(c *turn.Conn) *Conn { return (*Conn)(unsafe.Pointer(c)) }

// LoopOf is the loop whose transport is l.
func LoopOf(l *turn.Loop) *Loop { return (*Loop)(unsafe.Pointer(l)) }

// loop is the loop that the connection lives on.
func (c *Conn) loop() *Loop { return LoopOf(c.Wire().Loop) }

// rare returns the rare part; nil if it is not in use.
func (c *Conn) rare() *Rare { return (*Rare)(unsafe.Pointer(c.Rare)) }

// withRare returns the rare part, making it on first use.
func (c *Conn) withRare() *Rare { return (*Rare)(unsafe.Pointer(c.WithRare())) }

// TrimRare drops the rare part if no field is in use, and reports whether it did.
func (c *Conn) TrimRare() bool {
	r := c.rare()
	if r == nil || !r.Idle() || r.attempts != 0 || r.line != (lineage{}) || r.leftover != nil || r.departure != nil || r.revival != nil {
		return false
	}
	c.Rare = nil
	return true
}

// TokenTaken forgets the bad tokens before a good one, and frees the rare parts of an open connection if nothing in them is in use. It is
// the last act of a turn, since callers may hold these.
func (c *Conn) TokenTaken() {
	if c.Rare != nil {
		c.Rare.Token.Refusals = 0
	}
	if c.Phase == turn.PhaseOpen && c.TrimRare() {
		c.SetAlarm(0)
		c.Trim()
	}
}

// User is the user of the connection, "" for none. Any goroutine.
func (c *Conn) User() string {
	if id := c.identity.Load(); id != nil {
		return id.User
	}
	return ""
}

// Key is the store's key of the connection's session.
func (c *Conn) Key() Key { return c.loop().Sessions.keyOf(c.token) }

// Token is the token of the connection's session, as clients know it.
func (c *Conn) Token() string { return c.loop().Sessions.tokenText(c.token) }
