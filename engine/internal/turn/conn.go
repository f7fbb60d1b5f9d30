package turn

import (
	"net/netip"
	"sync/atomic"

	"github.com/parleyd/parley/engine/internal/rate"
	"github.com/parleyd/parley/protocol/deflate"
	"github.com/parleyd/parley/protocol/frame"
	"github.com/parleyd/parley/protocol/ident"
)

// Conn is the transport of one WebSocket connection. The owner's type has it as the first field, so that each is found from
// the other without a pointer.
//
// Owner: loop, except the atomic fields.
type Conn struct {
	// The fields that delivering and flushing touch, in one cache line: with thousands of members, each line is a cache
	// miss.
	First   *Frame     // the queue: first, then more
	More    *FrameList // nil while at most one frame waits
	Rare    *rare
	Loop    *Loop
	Backlog int    // bytes that the kernel has not taken
	Taken   uint32 // bytes of First that the kernel has taken
	Fd      int32  // -1: the transport is gone
	// Messages, modulo 2^32: with a million a second they begin anew after an hour.
	Received, Sent uint32
	Phase          phase
	Bits           uint8 // window of outgoing compressed frames, 0 for none
	Blocked        bool  // the kernel refused bytes; the writable letter is awaited
	Doomed         bool  // in the loop's list of connections to end
	port           uint16
	Flags          ConnFlags

	Gen        uint64
	Slot       uint32
	Posted     atomic.Int32 // frames for this connection that are in the mailbox
	LastActive atomic.Int64 // nanoseconds on the server's clock
	decoder    frame.Decoder
	Buf        []byte // a partial head or message; nil while nothing is partial
	nextBeat   int64  // when to look for silence; 0: never

	Remote      netip.Addr
	Handle      any    // the reactor's
	ConnectedAt uint32 // seconds since the epoch, until 2106; 0: not greeted
	cause       atomic.Uint32
}

// rare holds state that few connections need, and those for a short time.
//
// Owner: loop.
type rare struct {
	record    rate.Record       // of messages, where their rate is limited
	softSince int64             // backlog above the soft bound since; 0: it is not
	deadline  int64             // of the current phase, where it has one
	Alarm     int64             // of the owner
	shrinker  *deflate.Shrinker // context takeover, ours
	window    *deflate.Window   // the owner's alarm
	scanned   int               // bytes of the head that were already searched for its end
	lastLook  bool              // the handshake's time is over; the socket is read once more
	Listed    bool              // in the loop's list of behindhand connections
	Reads     bool              // the owner has more for the connection when its queue is empty
	welcome   []*Frame          // frames queued before the upgrade
	accepted  *acceptance       // the handshake's agreement, until the verdict
	rest      []byte            // input that waits for a later turn
}

// idle reports whether no field is in use.
func (r *rare) idle() bool {
	return r.record == rate.Record{} && r.softSince == 0 && r.deadline == 0 && r.Alarm == 0 && r.shrinker == nil && r.window == nil &&
		r.welcome == nil && r.accepted == nil && r.rest == nil && !r.Listed && !r.Reads
}

type phase uint8

const (
	phaseHead    phase = iota // the opening handshake arrives
	phasePreface              // before the head: the header of the PROXY protocol, where it is required
	PhaseVerdict              // the application decides whether to admit the connection
	PhaseOpen                 // upgraded
	PhaseClosing              // our close frame is queued, or the peer's is awaited
	phaseRefused              // an HTTP error is queued; no frame was ever spoken, and input is discarded
	phaseLinger               // our half is shut; the peer's half is awaited
	PhaseGone                 // the connection has ended; its slot is free unless FlagKept is set
)

// ConnFlags are yes-or-no facts about a connection.
type ConnFlags uint16

const (
	flagCloseReceived ConnFlags = 1 << iota
	flagNoHandshake             // the close owes the peer no closing handshake
	FlagDropping                // the reactor was told to close the descriptor
	FlagRefusal                 // over max_connections: it gets 503
	FlagCrowded                 // its address has too many connections: it gets 503
	flagCounted                 // among the connections of its address
	FlagMute                    // a write has failed, or the transport is gone: frames for it are discarded
	FlagDiverted                // the owner takes the frames for this connection
	FlagKept                    // the owner still needs the slot
	FlagMore                    // the owner has put off input
	FlagDirty                   // in the loop's dirty list
	FlagsOfOwner                // the flags from here on are the owner's
)

// Has reports whether one of the flags f is set.
func (c *Conn) Has(f ConnFlags) bool { return c.Flags&f != 0 }

// Extra returns the rare part, making it on first use.
func (c *Conn) Extra() *rare {
	if c.Rare == nil {
		c.Rare = new(rare)
	}
	return c.Rare
}

// Place is the connection's worker, loop, slot and generation.
func (c *Conn) Place() ident.Place {
	return ident.Place{Loop: c.Loop.Index, Slot: c.Slot, Gen: c.Gen}
}

// Ended is the cause of the connection's end; CauseNone while it lives. Any goroutine.
func (c *Conn) Ended() Cause { return Cause(c.cause.Load()) }

// RemoteAddr is the address of the peer, or of the client that a trusted proxy named.
func (c *Conn) RemoteAddr() netip.AddrPort { return netip.AddrPortFrom(c.Remote, c.port) }

// SetRemote sets the address of the peer, or of the client that a trusted proxy names.
func (c *Conn) SetRemote(a netip.AddrPort) { c.Remote, c.port = a.Addr(), a.Port() }
