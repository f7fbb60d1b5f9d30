package engine

import (
	"net/netip"
	"time"
	"unsafe"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/engine/internal/fanout"
	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/engine/internal/pending"
	"github.com/parleyd/parley/engine/internal/rate"
	"github.com/parleyd/parley/engine/internal/session"
	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/ident"
)

// Conn is one live WebSocket connection. A Conn stays valid after its end and keeps its values; its id is never used again.
// The methods are for any goroutine unless they say otherwise. A nil *Conn, which [Server.Connection] returns for an unknown
// id, behaves as a connection that has ended: its methods return zero values, and [ErrConnectionUnknown] where they can
// fail.
//
// Owner: loop, except what is atomic or under a mutex.
type Conn struct {
	wire    session.Conn  // the transport, the rooms and the session: the floors below
	buckets *rate.Buckets // under the mutex of the rooms; nil before the first rate-limited message
}

// flagAuth marks a connection whose first message must authenticate.
const flagAuth = session.FlagsOfOwner

// connOf is the connection whose transport c is; nil for nil.
func connOf(c *turn.Conn) *Conn { return (*Conn)(unsafe.Pointer(c)) }

// place is the connection's place on its worker. Any goroutine.
func (c *Conn) place() ident.Place { return c.wire.Place() }

// loop is the loop that the connection lives on.
func (c *Conn) loop() *loop { return loopOf(c.wire.Wire().Loop) }

// ID names the connection, for as long as it lives, to clients and to the server's calls.
func (c *Conn) ID() string {
	if c == nil {
		return ""
	}
	var buf [ident.TextBytes]byte
	return string(c.appendID(buf[:0]))
}

func (c *Conn) appendID(dst []byte) []byte {
	return c.wire.ID().Append(dst)
}

// Server is the server that the connection belongs to.
func (c *Conn) Server() *Server {
	if c == nil {
		return nil
	}
	return c.loop().srv
}

// Facts describes a connection.
//
// Owner: the caller.
type Facts struct {
	ID            string    `json:"id"`
	RemoteAddress string    `json:"remote_address"`
	ConnectedAt   int64     `json:"connected_at"` // seconds since the epoch
	LastActivity  time.Time `json:"last_activity"`
	Rooms         []string  `json:"rooms"`
	Principal     string    `json:"principal,omitempty"`
}

// Facts returns the connection's id, remote address, start and rooms: the seed's getInfo.
func (c *Conn) Facts() Facts {
	if c == nil {
		return Facts{Rooms: []string{}}
	}
	return Facts{
		ID:            c.ID(),
		RemoteAddress: c.wire.AddressText(),
		ConnectedAt:   int64(c.wire.ConnectedAt),
		LastActivity:  c.LastActivity(),
		Rooms:         c.Rooms(),
		Principal:     c.Principal(),
	}
}

// RemoteAddr is the peer's address as the kernel reports it. If the peer is a trusted proxy, it is the client's address as
// the proxy names it, with port 0 if the proxy names none. Zero on a Unix socket.
func (c *Conn) RemoteAddr() netip.AddrPort {
	if c == nil {
		return netip.AddrPort{}
	}
	return c.wire.RemoteAddr()
}

// Rooms lists the rooms that the connection is in.
func (c *Conn) Rooms() []string {
	if c == nil {
		return []string{}
	}
	return c.wire.RoomNames()
}

// LastActivity is the time of the peer's latest input. Messages of the server do not count. A stall of the server (it was
// stopped, or a handler held the loop) shifts it forward.
func (c *Conn) LastActivity() time.Time {
	if c == nil {
		return time.Time{}
	}
	return c.loop().srv.time.Wall(c.wire.LastActive.Load())
}

// Touch counts as activity of the peer: the seed's updateActivity.
func (c *Conn) Touch() {
	if c == nil {
		return
	}
	c.wire.LastActive.Store(c.loop().srv.time.Now())
}

// Alive reports whether the connection is open and was heard within the heartbeat timeout.
func (c *Conn) Alive() bool {
	if c == nil {
		return false
	}
	return c.Cause() == CauseNone && c.loop().srv.time.Now()-c.wire.LastActive.Load() < c.loop().Ground.Beats.Load().Timeout
}

// isOpen reports whether the connection was admitted and has not ended. Any goroutine.
func (c *Conn) isOpen() bool { return c != nil && c.wire.IsOpen() }

// Cause says why the connection ended; CauseNone while it lives.
func (c *Conn) Cause() Cause {
	if c == nil {
		return CausePeerGone
	}
	return c.wire.Ended()
}

// Send queues a text message: v encoded as JSON, or v itself if it is a []byte, which is copied. A string is encoded, too,
// and arrives in quotes: pass text that is already JSON as a []byte or a json.RawMessage. Send does not wait and does not
// report delivery; a connection that has ended is no error. Errors: v cannot be encoded; [ErrInvalidUTF8]; [ErrOverloaded].
func (c *Conn) Send(v any) error {
	if c == nil {
		return ErrConnectionUnknown
	}
	f, err := turn.EncodeFrame(v)
	if err != nil {
		return err
	}
	return c.wire.Send(f)
}

// SendBinary queues a binary message, which is copied. Otherwise it is as [Conn.Send].
func (c *Conn) SendBinary(payload []byte) error {
	if c == nil {
		return ErrConnectionUnknown
	}
	return c.wire.Send(turn.NewFrame(ws.OpBinary, payload))
}

// Close ends the connection with 1000, after the queued messages have left. Its session can still be resumed.
func (c *Conn) Close() { c.CloseWith(ws.StatusNormalClosure, "") }

// CloseWith ends the connection with a close code for the peer (1000, 1001, 1008, 1011 to 1013, or 3000 to 4999) and a
// reason of at most 123 bytes of UTF-8. 4001 ends the session, too. In a connect handler the upgrade takes place first, so
// that the code arrives. The server replaces a code that must not be sent by 1011, cuts a reason that is too long, replaces
// invalid UTF-8 in it, and logs each of these [RFC 6455 §7.4].
func (c *Conn) CloseWith(code ws.StatusCode, reason string) {
	if c == nil {
		return
	}
	c.wire.CloseWith(code, reason)
}

// ErrMessageTooLarge is the error for a message that cannot reach other workers: it has more than 8,323,072 bytes, or more
// than the NATS server of BusURL takes less 64 KiB. It was sent to no connection.
var ErrMessageTooLarge = fleet.ErrMessageTooLarge

// ErrInvalidUTF8 is the error for a text message that is not valid UTF-8: clients close the connection for it [RFC 6455
// §8.1]. [Conn.SendBinary] takes any bytes.
var ErrInvalidUTF8 = turn.ErrInvalidUTF8

// member is the part of the connection that is in rooms; nil for nil.
func (c *Conn) member() *fanout.Conn {
	if c == nil {
		return nil
	}
	return &c.wire.Conn
}

// pending is the part of the connection that waits; nil for nil.
func (c *Conn) pending() *pending.Conn {
	if c == nil {
		return nil
	}
	return &c.wire.Conn.Conn
}

// Identity is who a connection belongs to.
//
// Owner: the caller.
type Identity struct {
	User string // such as an account's name; "" for none
	// Grant is for the server's [Policy]: what a token allows, for example. The server does not look at it.
	Grant any
	// Expires is when the identity ends, zero for never: the client is told before, and Grace after it the connection is
	// closed with 4006, unless it has authenticated again.
	Expires time.Time
	Grace   time.Duration
}

// SetIdentity sets who the connection belongs to. A connect or auth handler that tells users apart must call it, or
// [Conn.SetPrincipal]: only a connection of the same user can resume a session, and a session without a user is resumed by a
// connection without one. If no handler calls them, the token alone is enough.
func (c *Conn) SetIdentity(id Identity) {
	if c == nil {
		return
	}
	c.wire.SetIdentity((*session.Identity)(&id))
	l := c.loop()
	l.PostCall(func() { l.WatchToken(&c.wire) })
}

// Identity is the value of SetIdentity, or zero.
func (c *Conn) Identity() Identity {
	if c == nil || c.wire.Identity() == nil {
		return Identity{}
	}
	return Identity(*c.wire.Identity())
}

// SetPrincipal sets the user of the connection, and nothing else of its identity: see [Conn.SetIdentity].
func (c *Conn) SetPrincipal(principal string) {
	if c == nil {
		return
	}
	c.wire.SetIdentity(&session.Identity{User: principal})
}

// Principal is the user of the connection, or "".
func (c *Conn) Principal() string {
	if c == nil {
		return ""
	}
	return c.wire.User()
}
