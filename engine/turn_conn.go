package engine

import (
	"net/netip"
	"sync/atomic"

	"github.com/parleyd/parley/protocol/deflate"
	"github.com/parleyd/parley/protocol/frame"
	"github.com/parleyd/parley/protocol/ident"
)

// turnConn is the transport of one WebSocket connection. Its owner has it as the first field of a type of its own, so that
// each is found from the other without a pointer.
//
// Owner: loop, except what is atomic.
type turnConn struct {
	// What delivering and flushing touch, in one cache line: with thousands of members, each line is a miss.
	first   *outFrame  // the queue: first, then more
	more    *frameList // nil while at most one frame waits
	rare    *turnRare
	loop    *turnLoop
	taken   int // bytes of first that the kernel has
	backlog int // bytes that the kernel has not
	fd      int // -1: the transport is gone
	phase   phase
	bits    uint8 // window of outgoing compressed frames, 0 for none
	blocked bool  // the kernel refused bytes; the writable letter is awaited
	doomed  bool  // in the loop's list of those to end
	port    uint16
	flags   connFlags

	gen        uint64
	slot       uint32
	posted     atomic.Int32 // frames for this connection that are in the mailbox
	lastActive atomic.Int64 // nanoseconds on the server's clock
	decoder    frame.Decoder
	buf        []byte // a partial head or message; nil while nothing is partial
	nextBeat   int64  // when to look at the silence; 0: never

	remote      netip.Addr
	handle      any    // the reactor's
	connectedAt uint32 // seconds since the epoch, until 2106
	cause       atomic.Uint32
}

// turnRare is what few connections need, and those not for long.
//
// Owner: loop.
type turnRare struct {
	softSince int64             // backlog above the soft bound since; 0: it is not
	deadline  int64             // of the current phase, where it has one
	alarm     int64             // of the owner
	shrinker  *deflate.Shrinker // context takeover, ours
	window    *deflate.Window   // context takeover, the peer's
	scanned   int               // bytes of the head already searched for its end
	lastLook  bool              // the handshake's time is over; it is read once more
	listed    bool              // in the loop's list of those behindhand
	welcome   []*outFrame       // given before the upgrade
	accepted  *acceptance       // what the handshake agreed on, until the verdict
	rest      []byte            // input that waits for a later turn
}

// idle reports whether nothing of it is in use.
func (r *turnRare) idle() bool {
	return r.softSince == 0 && r.deadline == 0 && r.alarm == 0 && r.shrinker == nil && r.window == nil &&
		r.welcome == nil && r.accepted == nil && r.rest == nil && !r.listed
}

type phase uint8

const (
	phaseHead    phase = iota // the opening handshake arrives
	phasePreface              // before that, the header of the PROXY protocol, where it is on
	phaseVerdict              // the application decides whether to let it in
	phaseOpen                 // upgraded
	phaseClosing              // a close frame is queued, or the peer's is awaited
	phaseRefused              // an HTTP error is queued; frames were never spoken, and what comes is thrown away
	phaseLinger               // our half is shut; waiting for the peer's
	phaseGone
)

type connFlags uint16

const (
	flagCloseReceived connFlags = 1 << iota
	flagNoHandshake             // the ending owes the peer no close frame of its own
	flagDropping                // the reactor was told to close the descriptor
	flagRefusal                 // over max_connections: it gets 503
	flagMute                    // a write has failed, or the transport is gone: what it is given is thrown away
	flagDiverted                // its owner takes the frames that it is given
	flagKept                    // its owner still needs its slot
	flagMore                    // its owner has put off input
	flagDirty                   // in the loop's dirty list
	flagsOfOwner                // the flags from here on are the owner's
)

func (c *turnConn) has(f connFlags) bool { return c.flags&f != 0 }

// extra returns the rare part, making it on first use.
func (c *turnConn) extra() *turnRare {
	if c.rare == nil {
		c.rare = new(turnRare)
	}
	return c.rare
}

// place is where the connection lives.
func (c *turnConn) place() ident.Place {
	return ident.Place{Loop: c.loop.index, Slot: c.slot, Gen: c.gen}
}

// ended says why the connection ended; CauseNone while it lives. Any goroutine.
func (c *turnConn) ended() Cause { return Cause(c.cause.Load()) }

// remoteAddr is the address of the peer, or of the client that a trusted proxy named.
func (c *turnConn) remoteAddr() netip.AddrPort { return netip.AddrPortFrom(c.remote, c.port) }

func (c *turnConn) setRemote(a netip.AddrPort) { c.remote, c.port = a.Addr(), a.Port() }
