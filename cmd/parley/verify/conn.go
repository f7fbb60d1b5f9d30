package verify

import (
	"encoding/binary"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/protocol/frame"
)

// phase is the progress of a connection.
type phase uint8

const (
	dialing phase = iota
	shaking       // waits for the answer to the handshake
	greeted       // waits for `connected` and its token
	open
	ended
)

// mode is the behaviour of a client.
type mode uint8

const (
	lively  mode = iota
	stalled      // does not read for a while
	frozen       // neither reads nor writes: a half-open connection
	muted        // reads, and sends nothing
)

var modeNames = [...]string{"lively", "stalled", "frozen", "mute"}

// A conn is one connection to the server, with the checker's knowledge of it.
//
// Owner: the goroutine that runs the checker.
type conn struct {
	k      *checker
	serial int // names it in its messages
	actor  *actor
	wire   wire
	phase  phase
	mode   mode
	id     string // given by the server
	begun  time.Time
	hello  []byte // its opening handshake

	stays  map[*room]*stay
	asked  map[string]*request
	refs   int
	proved uint64 // place in the order of the latest request that was answered

	session   *session      // that its token restores
	claim     *session      // that it has asked for; the answer is awaited
	tokenDue  time.Duration // granted when its token was due
	tokenLate bool          // a finding has told that its token is late
	resumed   bool
	chain     int  // resumes in a row that led here
	claimed   bool // an actor has shown its token: the server may end it any moment
	unsure    bool // the server may have ended it, unread by us: nothing is certain until an answer proves it alive
	stalls    int
	killed    bool      // it ended while a worker, perhaps its own, stood still or had just been killed
	cut       bool      // the checker ended it
	cutAt     uint64    // place in the order at which it was cut; 0 if the server may have ended it before
	then      func()    // called once it is ready; nil: it becomes the main connection
	quietFrom time.Time // when it last sent a byte
	pings     int       // from the server, since then
	gone      time.Time
	goodbye   bool // the server has announced a close after which clients come back
	code      int  // of the server's close frame

	sent    publishing
	seen    map[*conn]int   // the latest message of each publisher
	heardOf map[*series]int // and of each backend
	past    *historian      // nil: the rooms have no history

	dismissed  int               // the code with which a backend has it disconnected; 0: none does
	attributes map[string]string // that backends have set
	marked     time.Time         // when the latest of them was set
	marking    bool              // one is being set
	blurred    bool              // it is not known which it has

	steps []step
	step  int
}

// String names a connection in findings, by its actor and its serial number.
func (c *conn) String() string { return fmt.Sprintf("client%d/%d", c.actor.index, c.serial) }

// sure reports whether c is certainly connected in the server's view.
func (c *conn) sure() bool {
	return c.phase == open && c.mode == lively && !c.claimed && !c.unsure && c.dismissed == 0
}

// reckon renews the certainty of all stays of c.
func (c *conn) reckon() {
	for _, s := range c.stays {
		s.reckon()
	}
}

// dial opens a connection for an actor.
func (k *checker) dial(a *actor) (*conn, error) {
	fd, err := k.poll.dial()
	if err != nil {
		return nil, err
	}
	k.serial++
	c := &conn{k: k, serial: k.serial, actor: a, begun: k.now, stays: map[*room]*stay{}, asked: map[string]*request{},
		seen: map[*conn]int{}, hello: a.hello, heardOf: map[*series]int{}, quietFrom: k.now}
	if k.remembers() {
		c.past = &historian{conn: c, reader: k.book.Reader(c, c.serial)}
	}
	c.wire = wire{fd: fd, watching: watchBoth}
	k.byFD[fd] = c
	k.bySerial[c.serial] = c
	k.living[c] = true
	k.report.Done["connections"]++
	return c, nil
}

// ready reads and writes as far as c's socket allows.
func (c *conn) ready(r ready) {
	if c.phase == dialing && r.writable {
		if err := c.k.poll.connected(c.wire.fd); err != nil {
			c.k.refused(c, err)
			return
		}
		c.phase = shaking
		c.push(c.hello)
		c.watch()
	}
	if r.writable && len(c.wire.out) > 0 {
		c.flush()
	}
	if r.readable && c.phase != dialing {
		c.readAll(readsPerTurn)
	}
}

// readsPerTurn bounds what one socket may take of a turn.
const readsPerTurn = 4

// readAll reads up to n times, and handles the bytes. It reports whether the stream has ended.
func (c *conn) readAll(n int) (over bool) {
	k := c.k
	for range n {
		got, again, err := k.poll.read(c.wire.fd, k.buffer)
		if again {
			return false
		}
		if got == 0 || err != nil {
			c.end(err)
			return true
		}
		k.bytes += int64(got)
		c.take(k.buffer[:got])
		if c.phase == ended {
			return true
		}
		if got < len(k.buffer) {
			return false
		}
	}
	return false
}

// take handles bytes. b is borrowed.
func (c *conn) take(b []byte) {
	if len(c.wire.in) > 0 {
		c.wire.in = append(c.wire.in, b...)
		b = c.wire.in
	}
	if c.phase == shaking {
		rest, done, err := admission(b)
		if err != nil {
			c.k.refused(c, err)
			return
		}
		if !done {
			c.keep(b)
			return
		}
		b = rest
		c.phase = greeted
		if !c.k.speaks.greets {
			c.welcome("")
		}
	}
	for c.phase != ended {
		f, size, err := nextFrame(b)
		if err != nil {
			c.k.found("frame", nil, []*conn{c}, fmt.Sprintf("%v: %v", c, err))
			c.finish()
			return
		}
		if size == 0 {
			break
		}
		c.frame(f)
		b = b[size:]
	}
	if c.phase != ended {
		c.keep(b)
	}
}

// keep keeps the bytes of an incomplete frame.
func (c *conn) keep(b []byte) {
	if len(b) == 0 {
		c.wire.in = nil
		return
	}
	c.wire.in = append(c.wire.in[:0:0], b...)
}

func (c *conn) frame(f arrived) {
	switch f.op {
	case ws.OpPing:
		c.pinged(f.payload)
	case ws.OpPong:
	case ws.OpClose:
		c.closeRead(f.payload)
	case ws.OpText, ws.OpBinary, ws.OpContinuation:
		if (f.op == ws.OpContinuation) != c.wire.partial {
			c.k.found("frame", nil, []*conn{c}, fmt.Sprintf("%v reads a fragment out of place", c))
		}
		c.wire.partial = !f.final
		if !f.final || len(c.wire.message) > 0 {
			c.wire.message = append(c.wire.message, f.payload...)
			f.payload = c.wire.message
		}
		if f.final {
			c.wire.message = nil
			c.text(f.payload)
		}
	default:
		c.k.found("frame", nil, []*conn{c}, fmt.Sprintf("%v reads a frame of unknown kind %d", c, f.op))
	}
}

// text handles a whole message. b is borrowed.
func (c *conn) text(b []byte) {
	m := &c.k.body
	if !utf8.Valid(b) {
		c.k.found("frame", nil, []*conn{c}, fmt.Sprintf("%v reads text that is not UTF-8: %.60q", c, b))
		return
	}
	if err := c.k.speaks.read(b, m); err != nil {
		c.k.found("frame", nil, []*conn{c}, fmt.Sprintf("%v reads text that is no message: %.60q: %v", c, b, err))
		return
	}
	if c.phase == greeted && m.Type != "connected" {
		c.k.found("early", nil, []*conn{c}, fmt.Sprintf("%v reads %s before it is greeted", c, m.Type))
	}
	if !c.k.speaks.understands(m.Type) {
		return
	}
	switch m.Type {
	case "broadcast", "verify":
		if c.past != nil && m.Seq != nil {
			c.past.numbered(m)
			return
		}
		c.relayed(m)
	case "skip", "gap", "position":
		if c.past == nil { // none of these is of a room without history
			c.answered(m)
			return
		}
		c.past.placed(m)
	case "connected":
		if c.phase != greeted || m.ID == "" {
			c.k.found("answer", nil, []*conn{c}, fmt.Sprintf("%v is greeted twice, or without an id: %.100q", c, b))
			return
		}
		c.welcome(m.ID)
	case "reconnect_token":
		c.tokenRead(m.Token, m.TTL)
	case "ping":
		c.pings++
		if c.mode == lively && c.k.speaks.beats {
			c.say([]byte(`{"type":"pong"}`))
		}
	case "member_joined", "member_left":
		c.noticed(m)
	case "announcements":
		c.announcing(m)
	case "goodbye":
		c.goodbye = true
		c.note(step{what: "reads goodbye", n: m.RetryAfter})
	default:
		c.answered(m)
	}
}

// say sends a message.
func (c *conn) say(text []byte) {
	c.quietFrom, c.pings = c.k.now, 0
	c.send(ws.OpText, text)
}

// welcome records that the server has greeted c.
func (c *conn) welcome(id string) {
	c.note(step{what: "connects as " + id, n: -1})
	c.phase, c.id, c.tokenDue = open, id, c.k.granted
	if id != "" {
		if other := c.k.byID[id]; other != nil {
			c.k.found("answer", nil, []*conn{c, other}, fmt.Sprintf("%v is given the id %s, which %v has", c, id, other))
		}
		c.k.byID[id] = c
	}
	if !c.k.speaks.tokens {
		c.actor.up(c)
	}
}

// pinged answers a protocol PING.
func (c *conn) pinged(payload []byte) {
	if c.mode == lively {
		c.quietFrom, c.pings = c.k.now, 0
		c.send(ws.OpPong, payload)
	}
}

// closeRead handles the server's close frame.
func (c *conn) closeRead(payload []byte) {
	code, why, violation := frame.ParseClose(payload)
	if violation != 0 {
		c.k.found("frame", nil, []*conn{c}, fmt.Sprintf("%v reads a close frame that is none: %x", c, payload))
	}
	c.code = int(code)
	c.note(step{what: "reads close " + string(why), n: int64(code)})
	if !c.wire.closing && c.mode != frozen {
		c.send(ws.OpClose, binary.BigEndian.AppendUint16(nil, uint16(code)))
	}
	c.closed()
	c.finish()
}

// close sends a close frame, and waits for the answer.
func (c *conn) close() {
	c.note(step{what: "sends close", n: 1000})
	c.send(ws.OpClose, binary.BigEndian.AppendUint16(nil, 1000))
	c.wire.closing, c.cut = true, true
	if c.sure() {
		c.cutAt = c.k.evt
	}
	c.mode = muted // the server may end it any moment
	c.reckon()
	c.k.within(c.k.opt.Patience, func() {
		if c.phase == ended {
			return
		}
		if !c.k.disturbed() {
			c.k.found("silent", nil, []*conn{c}, fmt.Sprintf("%v has closed and is not answered", c))
		}
		c.hang()
	})
}

// hang ends the connection from our side without a close frame.
func (c *conn) hang() {
	c.note(step{what: "is cut", n: -1})
	c.cut = true
	if c.sure() {
		c.cutAt = c.k.evt
	}
	c.finish()
}

// finish is the end of a connection, by either side.
func (c *conn) finish() {
	if c.phase == ended {
		return
	}
	c.phase, c.gone, c.killed = ended, c.k.now, c.k.disturbed()
	c.hangUp()
	delete(c.k.living, c)
	c.forsake()
	for _, s := range c.stays {
		if s.state != out {
			c.actor.leaves(s)
		}
	}
	c.reckon()
	if c.claim != nil {
		c.claim.unanswered()
		c.claim = nil
	}
	c.actor.down(c)
}
