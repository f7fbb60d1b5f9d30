package fanout

import (
	"errors"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/engine/internal/pending"
	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/engine/internal/users"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/protocol/message"
	"github.com/parleyd/parley/rooms"
)

// Rooms are the rooms of a server, as they live on its loops and on other workers. Its methods are for any goroutine.
//
// Owner: immutable once the server runs, except Open, Crowd and the fields behind Above.
type Rooms struct {
	Ground   *turn.Ground
	Index    *rooms.Index
	Users    *users.Index // the open connections of each user
	Open     atomic.Int64 // connections that are admitted and have not ended
	Crowd    atomic.Int64 // those when the server sent all away
	Loops    []*Loop
	Link     *fleet.Link
	Seats    Seats
	Created  Created
	Order    *Ordering      // of rooms with history; nil: this process numbers them itself
	Count    *turn.Counters // of no single loop
	RoomsMax int            // of a connection; 0 or less: any number
	Above    Above

	Behind atomic.Int64 // members that read the history
	Liars  Liars

	changed    changedRooms
	emptying   atomic.Int32 // deletions of rooms that may still have members on a loop
	untoldSaid atomic.Int64 // when the log last said that other workers miss an entry
}

// Above are the functions of the floors above.
//
// Owner: immutable once the server runs.
type Above struct {
	AnnounceMax func() int                   // members up to which a room announces joins and leaves
	ShowUsers   func() bool                  // clients learn the users of other connections
	User        func(c *Conn) string         // the user of a connection, "" for none; any goroutine
	Stopped     func() bool                  // the server shuts down
	Missed      func(from ident.Worker)      // messages of another worker are lost here
	Entered     func(c *Conn, r *rooms.Room) // on the loop of c
	Left        func(c *Conn, r *rooms.Room) // on the loop of c
	Proved      func(c *Conn)                // on the loop of c: it has proven what it has received
	Figures     func() fleet.FigureSet       // this worker's
	Entropy     func([]byte)                 // fills a slice with unguessable bytes
	// HasAttribute makes a choice of the connections whose attribute of a name has a value; any goroutine.
	HasAttribute func(key string, value []byte) func(*Conn) bool
	Answer       func(c *Conn, done func(error), err error) // calls done, which is the application's, on the loop of c
}

// Conn is a connection that can be in rooms.
//
// Owner: loop, except what is atomic or under Mu.
type Conn struct {
	pending.Conn
	RoomsTaken atomic.Int32 // rooms, and places held in rooms
	Admitted   atomic.Bool  // upgraded, and authenticated if an auth handler is set
	Mu         sync.Mutex
	Rooms      []*rooms.Room // written by the loop under Mu, read by it without
}

// Rare is state that few connections need.
//
// Owner: loop.
type Rare struct {
	pending.Rare
	arrivals   []*Admission        // that wait for a shared seat
	roomAt     map[*rooms.Room]int // the index of each room in the list, if there are many
	lags       []*lag              // rooms in which the connection is behind
	unnumbered int                 // publishes that wait for their numbers
	Earlier    []uint64            // the earlier connections of the session, by [rooms.Who], the newest last
}

// EarlierMax is the number of earlier connections of a session whose messages are not replayed to it.
const EarlierMax = 7

// Idle reports whether no field is in use.
func (r *Rare) Idle() bool {
	return r.Rare.Idle() && r.arrivals == nil && r.roomAt == nil && r.lags == nil && r.unnumbered == 0 && r.Earlier == nil
}

// Loop is a loop whose connections can be in rooms.
//
// Owner: loop.
type Loop struct {
	pending.Loop
	Rooms    *Rooms
	notices  []notice
	stamps   []uint32 // of deliverSpread: the last stamp that reached a slot
	stamp    uint32
	outgoing publication

	numbering numbering
	piece     []byte  // of a history, on its way to a connection
	readers   []*Conn // whose queue is empty, and who are behind
	reading   bool    // a job gives them their pieces
	Receipts  Receipts
}

// ConnOf is the connection whose transport is c; nil for nil.
func ConnOf(c *turn.Conn) *Conn { return (*Conn)(unsafe.Pointer(c)) }

// loop is the loop that the connection lives on.
func (c *Conn) loop() *Loop { return (*Loop)(unsafe.Pointer(c.Loop)) }

// rare returns the rare part; nil if it is not in use.
func (c *Conn) rare() *Rare { return (*Rare)(unsafe.Pointer(c.Conn.Rare)) }

// withRare returns the rare part, making it on first use.
func (c *Conn) withRare() *Rare { return (*Rare)(unsafe.Pointer(c.WithRare())) }

// IsOpen reports whether the connection was admitted and has not ended. Any goroutine.
func (c *Conn) IsOpen() bool { return c != nil && c.Admitted.Load() && c.Ended() == turn.CauseNone }

// shown is the user of a connection as other clients learn it; "" for none. Any goroutine.
func (x *Rooms) shown(c *Conn) string {
	if !x.Above.ShowUsers() {
		return ""
	}
	return x.Above.User(c)
}

// Send queues a frame, behind all frames that were posted before. Any goroutine. Errors: [message.ErrOverloaded].
func (c *Conn) Send(f *turn.Frame) error {
	if !c.Post(f, false) {
		c.loop().Rooms.Count[CountOverloaded].Add(1)
		return message.ErrOverloaded
	}
	return nil
}

// Nowhere is the place of no connection.
var Nowhere ident.Place

// ConnAt finds an open connection of this worker.
func (x *Rooms) ConnAt(p ident.Place) *Conn {
	if int(p.Loop) >= len(x.Loops) {
		return nil
	}
	if c := ConnOf(x.Loops[p.Loop].ConnAt(p)); c != nil && c.IsOpen() {
		return c
	}
	return nil
}

// ErrNotOpen is the error for a connection that has ended, or that was not admitted yet.
var ErrNotOpen = errors.New("the connection is not open: it has ended, or its connect handlers have not admitted it yet")

// ErrNotObject is the error for a message to a room with history that cannot take a number.
var ErrNotObject = errors.New("a message to a room with history must be a JSON object without the keys seq and epoch at its top: they are its number")

// ErrForeignConn is the error for a connection of another server.
var ErrForeignConn = errors.New("the connection belongs to another server: use the Rooms of c.Server()")

// Counts of this floor.
const (
	CountOverloaded = pending.CountersOfOwner + iota
	CountMissed
	CountUntold
	CountBehind
	CountConflated
	CountGapsSlow
	CountGapsExpired
	CountGapsEpoch
	CountGapsLost
	CountReplayed
	CountReplayedBytes
	CountRecovered
	CountRecoveredGap
	CountRecoveredEpoch
	CountReceiptsSent
	CountReceiptsProven
	CountReceiptsOther
	CountReceiptsFalse
	CountersOfOwner // the kinds from here on are the floors' above
)
