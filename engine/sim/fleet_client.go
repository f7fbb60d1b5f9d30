package sim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/engine"
)

// fleetPerson is a user that connects to any worker, talks, disappears and comes back on another.
type fleetPerson struct {
	name  string
	known []string     // tokens, the latest last
	now   *fleetClient // nil: not connected
}

// fleetClient is a person's end of one connection, and the connection's wire, which takes all bytes, unless the client is slow.
//
// Owner: the simulation.
type fleetClient struct {
	reader
	f      *Fleet
	person *fleetPerson
	w      *worker
	loop   int
	wire   int
	conn   *engine.Conn
	truth  *fleetConn // nil: not admitted yet

	up, down []byte // on their way to the server, and from it
	in       []byte
	head     bool // the answer to the handshake is awaited
	open     bool
	frozen   bool
	closing  bool // a close frame was sent
	closed   bool // a close frame was read
	goodbye  bool // a goodbye was read
	cut      bool // reset, or its worker is dead
	upEnd    bool // its half is ended, behind up
	hungUp   bool // by itself
	downEnd  bool // the server's half is ended
	dropped  bool // the server closed it
	departed bool // and was told so
	asked    []*fleetRequest
	shown    []*asking
	refs     int

	slowUntil time.Duration // until then it reads nothing
	watched   bool          // the server waits until the wire takes bytes again
}

// fleetRequest is a message that is owed one answer.
//
// Owner: the simulation.
type fleetRequest struct {
	ref       int
	typ, room string
	token     string
	published *fleetMessage
	entered   *fleetStay                 // begun by this join
	numbers   *fleetTelling              // by this broadcast to a room with history
	since     *since                     // of a join
	last      map[string]engine.Position // of a reconnect
	then      map[string]extent          // the histories when it was made
	at        int                        // when it was made: see fleetTruth.clock
}

func (q *fleetRequest) String() string { return fmt.Sprintf("%s %s #%d", q.typ, q.room, q.ref) }

// dial connects to a worker that serves, and asks for the upgrade.
func (f *Fleet) dial(p *fleetPerson) {
	var serving []*worker
	for _, w := range f.slots {
		if w != nil && w.serving && !w.draining {
			serving = append(serving, w)
		}
	}
	if len(serving) == 0 {
		return
	}
	w := serving[f.rand.IntN(len(serving))]
	k := &fleetClient{f: f, person: p, w: w, wire: len(f.clients), loop: f.rand.IntN(f.plan.config.Loops), head: true}
	k.reader = f.annals.reader(fmt.Sprintf("%s/%d", p.name, k.wire))
	f.clients, p.now = append(f.clients, k), k
	f.tracef("%s dials worker %d, loop %d", k.name, w.instance, k.loop)
	k.up = []byte("GET /chat HTTP/1.1\r\nHost: sim\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n")
	if f.plan.auth {
		k.up = fmt.Appendf(k.up, "X-Grant: %d\r\n", f.issue(p).number)
	}
	k.up = append(k.up, "\r\n"...)
	k.conn = w.server.Open(k.loop, k.wire)
}

// next is the next event of the client's wire; nil for none.
func (k *fleetClient) next() func() {
	var can []func()
	if len(k.down) > 0 && !k.frozen && !k.slow() {
		can = append(can, k.read)
	}
	if !k.departed && !k.w.dead && !k.w.busy[k.loop] {
		switch {
		case k.dropped, (k.cut || k.upEnd) && len(k.up) == 0:
			can = append(can, func() { k.w.turn(k.loop, k.depart) })
		case len(k.up) > 0:
			can = append(can, k.serve)
		}
		if k.watched && !k.dropped && (k.cut || k.takes() > 0) {
			can = append(can, k.writable)
		}
	}
	if (k.downEnd || k.dropped || k.cut) && len(k.down) == 0 && !k.frozen && (!k.upEnd || k.person.now == k) {
		can = append(can, k.notice)
	}
	if len(can) == 0 {
		return nil
	}
	return can[k.f.rand.IntN(len(can))]
}

func (k *fleetClient) read() {
	n := len(k.down)
	if k.f.chance(0.2) {
		n = 1 + k.f.rand.IntN(n)
	}
	k.in = append(k.in, k.down[:n]...)
	k.down = k.down[n:]
	k.hear()
}

func (k *fleetClient) serve() {
	n := len(k.up)
	if k.f.chance(0.2) {
		n = 1 + k.f.rand.IntN(n)
	}
	chunk := slices.Clone(k.up[:n])
	k.up = k.up[n:]
	k.w.turn(k.loop, func() {
		k.w.server.Serve(k.conn, chunk)
		if k.w.server.Ended(k.conn) {
			k.departed, k.dropped = true, true
		}
	})
}

// depart tells the server that the wire is closed.
func (k *fleetClient) depart() {
	if !k.departed {
		k.departed, k.up = true, nil
		k.w.server.Gone(k.conn)
	}
}

// notice is the client's reaction to the end of its stream.
func (k *fleetClient) notice() {
	k.upEnd = true
	if k.person.now == k {
		k.person.now = nil
	}
}

// hangUp ends the client's half behind its last message.
func (k *fleetClient) hangUp() {
	if !k.upEnd {
		k.frozen, k.hungUp = false, true
		k.notice()
	}
}

// reset cuts the connection. Bytes on their way are lost.
func (k *fleetClient) reset() {
	k.f.tracef("%s is cut", k.name)
	k.cut, k.down = true, nil
	if k.f.chance(0.5) {
		k.up = nil
	}
	k.notice()
}

// bereave is the end of the client's worker. Bytes that the worker had written may still arrive.
func (k *fleetClient) bereave() {
	k.cut, k.up = true, nil
	if k.f.chance(0.5) {
		k.down = nil
	}
	if k.person.now == k && len(k.down) == 0 {
		k.notice()
	}
}

// ask sends a message that is owed an answer.
func (k *fleetClient) ask(typ, room, more string) *fleetRequest {
	k.refs++
	q := &fleetRequest{ref: k.refs, typ: typ, room: room, at: k.f.truth.tick()}
	k.asked = append(k.asked, q)
	k.f.annals.foresee(q)
	text := fmt.Sprintf(`{"type":%q,"ref":%d`, typ, q.ref)
	if room != "" {
		text += fmt.Sprintf(`,"room":%q`, room)
	}
	k.send(ws.OpText, []byte(text+more+"}"))
	k.f.tracef("%s asks %v%s", k.name, q, more)
	return q
}

func (k *fleetClient) send(op ws.OpCode, payload []byte) {
	if !k.cut && !k.upEnd {
		var buf bytes.Buffer
		ws.WriteFrame(&buf, ws.MaskFrame(ws.NewFrame(op, true, payload))) // into memory
		k.up = append(k.up, buf.Bytes()...)
	}
}

// hear takes bytes that have arrived.
func (k *fleetClient) hear() {
	if k.head {
		end := bytes.Index(k.in, []byte("\r\n\r\n"))
		if end < 0 {
			return
		}
		if !bytes.HasPrefix(k.in, []byte("HTTP/1.1 101 ")) {
			if k.w.draining && bytes.HasPrefix(k.in, []byte("HTTP/1.1 503 ")) {
				k.in = nil
				k.notice()
				return
			}
			k.f.complain("stream", "%s is refused: %.12s", k.name, k.in)
			return
		}
		k.in, k.head, k.open = k.in[end+4:], false, true
	}
	for k.nextFrame() {
	}
}

// nextFrame takes one whole frame off the bytes that have arrived.
func (k *fleetClient) nextFrame() bool {
	r := bytes.NewReader(k.in)
	h, err := ws.ReadHeader(r)
	if err != nil || h.Length > int64(r.Len()) {
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			k.f.complain("stream", "%s cannot read a header: %v", k.name, err)
		}
		return false
	}
	at := len(k.in) - r.Len()
	payload := k.in[at : at+int(h.Length)]
	k.in = k.in[at+int(h.Length):]
	switch {
	case k.closed:
		k.f.complain("stream", "%s reads a frame after the close frame", k.name)
	case h.Masked || !h.Fin || h.Rsv != 0:
		k.f.complain("stream", "%s reads a frame that is not as it should be: %+v", k.name, h)
	case h.OpCode == ws.OpText:
		k.message(payload)
	case h.OpCode == ws.OpPing:
		if !k.closing {
			k.send(ws.OpPong, payload)
		}
	case h.OpCode == ws.OpClose:
		k.closed = true
		code, reason := ws.ParseCloseFrameData(payload)
		k.f.tracef("%s is told to close: %d %s", k.name, code, reason)
		k.sentAway(code)
		if !k.closing {
			k.send(ws.OpClose, payload[:min(2, len(payload))])
		}
		k.closing = true
	case h.OpCode != ws.OpPong:
		k.f.complain("stream", "%s reads a frame of opcode %d", k.name, h.OpCode)
	}
	return true
}

// message checks one message against the truth.
func (k *fleetClient) message(text []byte) {
	var b body
	if err := json.Unmarshal(text, &b); err != nil {
		k.f.complain("stream", "%s reads %q: %v", k.name, text, err)
		return
	}
	if b.Type == "ping" {
		return
	}
	k.f.tracef("%s reads %s %s%s #%d m%d %s%s", k.name, b.Type, b.Room, b.ID, b.Ref, b.number(), b.Code, b.place())
	t, c := k.f.truth, k.truth
	if c != nil && k.isNumbered(&b, text) {
		return
	}
	switch {
	case b.Type == "connected" || b.Type == "announcements" || b.Type == "auth_expiring":
	case b.Type == "goodbye":
		k.goodbye = true
	case c == nil:
		k.f.complain("delivery", "%s reads %s before it is admitted", k.name, text)
	case b.Type == "reconnect_token":
		t.given(k, b.Token)
	case b.Type == "broadcast" || b.Type == "app":
		t.read(c, b.number())
	case b.Type == "member_joined" || b.Type == "member_left":
		t.noticed(c, b.Room, b.ID, b.Type == "member_joined")
	case b.Type == "joined" && b.Ref == 0:
		k.placed(&b, nil)
		c.announce(b.Room)
	case b.Type == "left" && b.Ref == 0:
		delete(k.stands, b.Room)
		c.toldLeft(b.Room)
	default:
		k.answered(&b)
	}
}

// answered checks an answer: it belongs to the oldest request.
func (k *fleetClient) answered(b *body) {
	f, c := k.f, k.truth
	i := k.turnOf(b.Ref)
	if i < 0 {
		f.complain("answers", "%s reads %s #%d out of turn; it waits for %v", k.name, b.Type, b.Ref, k.asked)
		return
	}
	q := k.asked[i]
	k.asked = slices.Delete(k.asked, i, i+1)
	if c.current == q {
		c.current = nil
	}
	if b.Type == "error" {
		f.truth.refused(k, q, b.Code)
		return
	}
	if b.Type != answers[q.typ] {
		f.complain("answers", "%s asked %v and reads %s", k.name, q, b.Type)
		return
	}
	switch q.typ {
	case "join":
		k.placed(b, q)
		if q.entered != nil { // otherwise it was a member already
			q.entered.announced = true
		}
	case "leave":
		delete(k.stands, q.room)
		c.toldLeft(q.room)
	case "broadcast":
		if q.published != nil {
			q.published.refused = false
		}
		if q.numbers != nil {
			k.f.annals.told(k.name, q.numbers, b)
		}
	case "reconnect":
		f.truth.restored(k, q, b)
		k.restarted(q, b)
	}
}

// turn is the number of the latest turn of the client's loop.
func (k *fleetClient) turn() int { return k.w.turns[k.loop] }
