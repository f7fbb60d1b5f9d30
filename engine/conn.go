package engine

import (
	"errors"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"
	"unsafe"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/frame"
	"github.com/parleyd/parley/protocol/message"
	"github.com/parleyd/parley/rooms"
)

// Conn is one live WebSocket connection. A Conn stays valid after its end and keeps its values; its id is never used again.
// The methods are for any goroutine unless they say otherwise. A nil *Conn, which [Server.Connection] returns for an unknown
// id, behaves as a connection that has ended: its methods return zero values, and [ErrConnectionUnknown] where they can
// fail.
//
// Owner: loop, except what is atomic or under mu.
type Conn struct {
	wire     turn.Conn
	seats    atomic.Int32 // rooms, and places held in rooms
	admitted atomic.Bool  // upgraded, and authenticated if an auth handler is set

	rare      *rare
	attrs     atomic.Pointer[attributes]
	userData  atomic.Pointer[userData]
	principal atomic.Pointer[string]
	token     token // of the connection's session

	mu      sync.Mutex
	rooms   []*rooms.Room // written by the loop under mu, read by it without
	buckets *[]bucket     // under mu; nil before the first rate-limited message
}

// rare holds state that few connections need, and those for a short time.
//
// Owner: loop.
type rare struct {
	pending   *pending   // an answer of the application that is awaited
	closing   *closeCall // Conn.Close called by the connect handler
	answerBy  int64      // deadline of the authentication, or of claimants that wait for its session
	attempts  int        // resumes in a row up to this connection
	resumedAt int64
	leftover  *parked       // state for a claimant that came while the connection ended
	heirs     []func(*loop) // claimants that wait until the held messages have been carried out
	arrivals  []*admission  // that wait for a shared seat
	departure *departure
	revival   *revival
	roomAt    map[*rooms.Room]int // the index of each room in the list, if there are many
}

// idle reports whether no field is in use.
func (r *rare) idle() bool {
	return r.pending == nil && r.closing == nil && r.answerBy == 0 && r.attempts == 0 && r.leftover == nil &&
		r.heirs == nil && r.arrivals == nil && r.departure == nil && r.revival == nil && r.roomAt == nil
}

// closeCall is a close that waits for the upgrade.
type closeCall struct {
	cause  Cause
	code   ws.StatusCode
	reason string
}

// extra returns the rare part, making it on first use.
func (c *Conn) extra() *rare {
	if c.rare == nil {
		c.rare = new(rare)
	}
	return c.rare
}

// Flags of the owner.
const (
	flagResumed = turn.FlagsOfOwner << iota
	flagUnsaved // its session has changed since it was saved: the connection is in the loop's list
	flagTold    // the client knows the session's token
	flagAuth    // the first message must authenticate
)

// connOf is the connection whose transport c is; nil for nil.
func connOf(c *turn.Conn) *Conn { return (*Conn)(unsafe.Pointer(c)) }

// loop is the loop that the connection lives on.
func (c *Conn) loop() *loop { return loopOf(c.wire.Loop) }

// ID names the connection, for as long as it lives, to clients and to the server's calls.
func (c *Conn) ID() string {
	if c == nil {
		return ""
	}
	var buf [idSize]byte
	return string(c.appendID(buf[:0]))
}

func (c *Conn) appendID(dst []byte) []byte {
	return c.loop().srv.idOf(c.place()).Append(dst)
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
		RemoteAddress: addressText(c.wire.Remote),
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
	c.mu.Lock()
	defer c.mu.Unlock()
	names := make([]string, len(c.rooms))
	for i, r := range c.rooms {
		names[i] = r.Name()
	}
	return names
}

// LastActivity is the time of the peer's latest input. Messages of the server do not count. A stall of the server (it was
// stopped, or a handler held the loop) shifts it forward.
func (c *Conn) LastActivity() time.Time {
	if c == nil {
		return time.Time{}
	}
	return c.loop().srv.wall(c.wire.LastActive.Load())
}

// Touch counts as activity of the peer: the seed's updateActivity.
func (c *Conn) Touch() {
	if c == nil {
		return
	}
	c.wire.LastActive.Store(c.loop().srv.clock())
}

// Alive reports whether the connection is open and was heard within the heartbeat timeout.
func (c *Conn) Alive() bool {
	if c == nil {
		return false
	}
	return c.Cause() == CauseNone && c.loop().srv.clock()-c.wire.LastActive.Load() < c.loop().Ground.Beats.Load().Timeout
}

// isOpen reports whether the connection was admitted and has not ended. Any goroutine.
func (c *Conn) isOpen() bool { return c != nil && c.admitted.Load() && c.Cause() == CauseNone }

// Cause says why the connection ended; CauseNone while it lives.
func (c *Conn) Cause() Cause {
	if c == nil {
		return CausePeerGone
	}
	return c.wire.Ended()
}

// SetPrincipal sets the user of the connection, such as an account's name. A connect or auth handler that tells users apart
// must call it: only a connection of the same principal can resume a session, and a session without a principal is resumed
// by a connection without one. If no handler calls it, the token alone is enough.
func (c *Conn) SetPrincipal(principal string) {
	if c == nil {
		return
	}
	c.principal.Store(&principal)
	c.postChanged()
}

// Principal is the value of SetPrincipal, or "".
func (c *Conn) Principal() string {
	if c == nil {
		return ""
	}
	if p := c.principal.Load(); p != nil {
		return *p
	}
	return ""
}

// Send queues a text message: v encoded as JSON, or v itself if it is a []byte, which is copied. A string is encoded, too,
// and arrives in quotes: pass text that is already JSON as a []byte or a json.RawMessage. Send does not wait and does not
// report delivery; a connection that has ended is no error. Errors: v cannot be encoded; [ErrInvalidUTF8]; [ErrOverloaded].
func (c *Conn) Send(v any) error {
	if c == nil {
		return ErrConnectionUnknown
	}
	f, err := encodeFrame(v)
	if err != nil {
		return err
	}
	return c.sendFrame(f)
}

// SendBinary queues a binary message, which is copied. Otherwise it is as [Conn.Send].
func (c *Conn) SendBinary(payload []byte) error {
	if c == nil {
		return ErrConnectionUnknown
	}
	return c.sendFrame(turn.NewFrame(ws.OpBinary, payload))
}

func (c *Conn) sendFrame(f *turn.Frame) error {
	if !c.loop().PostDirect(&c.wire, f) {
		c.loop().srv.count[countOverloaded].Add(1)
		return ErrOverloaded
	}
	return nil
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

	code, reason = c.farewell(code, reason)
	cause := CauseApplication
	if code == StatusUnauthorized {
		cause = CauseUnauthorized
	}
	c.loop().postCall(func(l *loop) {
		if c.wire.Phase == turn.PhaseVerdict {
			c.extra().closing = &closeCall{cause, code, reason}
			return
		}
		l.end(c, cause, code, reason)
	})
}

// farewell turns an application's code and reason into ones that may be sent. Any goroutine.
func (c *Conn) farewell(code ws.StatusCode, reason string) (ws.StatusCode, string) {
	log := c.loop().srv.log
	if !frame.MayBeSent(code) {
		log.Error("a close code is not allowed, and the server sends 1011 instead; use 1000, 1001, 1008, 1011 to 1013, or 3000 to 4999",
			"code", int(code), "conn", c.ID())
		code = ws.StatusInternalServerError
	}
	if !utf8.ValidString(reason) {
		log.Error("a close reason is not valid UTF-8, and the server replaces the invalid bytes", "reason", reason, "conn", c.ID())
		reason = strings.ToValidUTF8(reason, "\uFFFD")
	}
	if len(reason) > frame.ReasonBytesMax {
		log.Warn("a close reason is cut", "bytes", len(reason), "bytes_max", frame.ReasonBytesMax, "conn", c.ID())
	}
	return code, reason
}

// ErrMessageTooLarge is the error for a message that cannot reach other workers: it has more than 8,323,072 bytes, or more
// than the NATS server of BusURL takes less 64 KiB. It was sent to no connection.
var ErrMessageTooLarge = errors.New("the message is larger than one worker can send to another")

// ErrInvalidUTF8 is the error for a text message that is not valid UTF-8: clients close the connection for it [RFC 6455
// §8.1]. [Conn.SendBinary] takes any bytes.
var ErrInvalidUTF8 = errors.New("a text message must be valid UTF-8; send binary data with SendBinary")

// encodeShared makes a text frame of v that also fits on the bus.
func (s *Server) encodeShared(v any) (*turn.Frame, error) {
	f, err := encodeFrame(v)
	if err == nil && s.peers != nil && len(f.Plain)-int(f.Payload) > s.peers.BytesMax {
		return nil, ErrMessageTooLarge
	}
	return f, err
}

// encodeFrame makes a text frame of v.
func encodeFrame(v any) (*turn.Frame, error) {
	if raw, ok := v.([]byte); ok {
		if !frame.ValidUTF8(raw) {
			return nil, ErrInvalidUTF8
		}
		return turn.NewFrame(ws.OpText, raw), nil
	}
	raw, err := message.Encode(make([]byte, ws.MaxHeaderSize, 256), v)
	if err != nil {
		return nil, err
	}
	return turn.FrameInPlace(ws.OpText, raw), nil
}

// addressText is an address in the form of Facts; "" for none.
func addressText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
