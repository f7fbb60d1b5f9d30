package turn

import (
	"net/netip"
	"sync/atomic"

	"github.com/parleyd/parley/protocol/deflate"
	"github.com/parleyd/parley/protocol/frame"
	"github.com/parleyd/parley/protocol/ident"
)

// Conn is the transport of one WebSocket connection. Its owner has it as the first field of a type of its own, so that
// each is found from the other without a pointer.
//
// Owner: loop, except what is atomic.
type Conn struct {
	// What delivering and flushing touch, in one cache line: with thousands of members, each line is a miss.
	First   *Frame     // the queue: first, then more
	More    *FrameList // nil while at most one frame waits
	Rare    *rare
	Loop    *Loop
	Taken   int // bytes of first that the kernel has
	Backlog int // bytes that the kernel has not
	Fd      int // -1: the transport is gone
	Phase   phase
	Bits    uint8 // window of outgoing compressed frames, 0 for none
	Blocked bool  // the kernel refused bytes; the writable letter is awaited
	Doomed  bool  // in the loop's list of those to end
	port    uint16
	Flags   ConnFlags

	Gen        uint64
	Slot       uint32
	Posted     atomic.Int32 // frames for this connection that are in the mailbox
	LastActive atomic.Int64 // nanoseconds on the server's clock
	decoder    frame.Decoder
	Buf        []byte // a partial head or message; nil while nothing is partial
	nextBeat   int64  // when to look at the silence; 0: never

	Remote      netip.Addr
	Handle      any    // the reactor's
	ConnectedAt uint32 // seconds since the epoch, until 2106
	cause       atomic.Uint32
}

// turnRare is what few connections need, and those not for long.
//
// Owner: loop.
type rare struct {
	softSince int64             // backlog above the soft bound since; 0: it is not
	deadline  int64             // of the current phase, where it has one
	Alarm     int64             // of the owner
	shrinker  *deflate.Shrinker // context takeover, ours
	window    *deflate.Window   // context takeover, the peer's
	scanned   int               // bytes of the head already searched for its end
	lastLook  bool              // the handshake's time is over; it is read once more
	Listed    bool              // in the loop's list of those behindhand
	welcome   []*Frame          // given before the upgrade
	accepted  *acceptance       // what the handshake agreed on, until the verdict
	rest      []byte            // input that waits for a later turn
}

// idle reports whether nothing of it is in use.
func (r *rare) idle() bool {
	return r.softSince == 0 && r.deadline == 0 && r.Alarm == 0 && r.shrinker == nil && r.window == nil &&
		r.welcome == nil && r.accepted == nil && r.rest == nil && !r.Listed
}

type phase uint8

const (
	phaseHead    phase = iota // the opening handshake arrives
	phasePreface              // before that, the header of the PROXY protocol, where it is on
	PhaseVerdict              // the application decides whether to let it in
	PhaseOpen                 // upgraded
	PhaseClosing              // a close frame is queued, or the peer's is awaited
	phaseRefused              // an HTTP error is queued; frames were never spoken, and what comes is thrown away
	phaseLinger               // our half is shut; waiting for the peer's
	PhaseGone                 // over, and its slot is free unless FlagKept says otherwise
)

// ConnFlags are what is true or not of a connection.
type ConnFlags uint16

const (
	flagCloseReceived ConnFlags = 1 << iota
	flagNoHandshake             // the ending owes the peer no close frame of its own
	FlagDropping                // the reactor was told to close the descriptor
	FlagRefusal                 // over max_connections: it gets 503
	FlagMute                    // a write has failed, or the transport is gone: what it is given is thrown away
	FlagDiverted                // its owner takes the frames that it is given
	FlagKept                    // its owner still needs its slot
	FlagMore                    // its owner has put off input
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

// Place is where the connection lives.
func (c *Conn) Place() ident.Place {
	return ident.Place{Loop: c.Loop.Index, Slot: c.Slot, Gen: c.Gen}
}

// Ended says why the connection ended; CauseNone while it lives. Any goroutine.
func (c *Conn) Ended() Cause { return Cause(c.cause.Load()) }

// RemoteAddr is the address of the peer, or of the client that a trusted proxy named.
func (c *Conn) RemoteAddr() netip.AddrPort { return netip.AddrPortFrom(c.Remote, c.port) }

// SetRemote notes the address of the peer, or of the client that a trusted proxy names.
func (c *Conn) SetRemote(a netip.AddrPort) { c.Remote, c.port = a.Addr(), a.Port() }
