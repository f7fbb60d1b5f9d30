package sim

import (
	"bytes"
	"compress/flate"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/engine"
)

// person is a user that connects, talks, disappears and comes back.
type person struct {
	name  string
	known []string // tokens, the latest last
	now   *client  // nil: not connected
}

// client is a person's end of one connection. It knows only the bytes that it has read from the server.
//
// Owner: the simulation.
type client struct {
	reader
	w      *World
	person *person
	loop   int
	wire   *socket
	truth  *conn // nil: not admitted yet

	in        []byte
	head      bool   // the answer to the handshake is awaited
	unsent    string // of the request
	hurried   bool   // it sends without waiting for the answer, and ignores it
	refused   bool
	authAsked bool
	spoilt    bool // it has broken a rule: later input and answers are not checked
	goneAt    time.Duration
	open      bool
	closing   bool // a close frame was sent
	closed    bool // a close frame was read
	frozen    bool
	deflated  bool
	window    []byte // the window of the server's context takeover
	asked     []*request
	refs      int
	heardAt   time.Duration // when the server last took bytes
}

// request is a message that is owed exactly one answer.
//
// Owner: the simulation.
type request struct {
	ref       int
	typ, room string
	token     string
	must      bool        // it must reach a handler, however the stream ends
	taken     bool        // it has reached one
	members   int         // the least number that the answer may name
	most      int         // and the greatest
	entered   *membership // begun by a join, or ended by a leave
	inherited []*membership
	published *telling                   // by a broadcast
	since     *since                     // of a join
	last      map[string]engine.Position // of a reconnect
	then      map[string]extent          // the histories when it was carried out
}

func (q *request) String() string { return fmt.Sprintf("%s %s #%d", q.typ, q.room, q.ref) }

// request finds an open request by its number; nil if it is answered or was never made.
func (k *client) request(ref int) *request {
	for _, q := range k.asked {
		if q.ref == ref {
			return q
		}
	}
	return nil
}

// dial connects and asks for the upgrade.
func (w *World) dial(p *person) {
	s := &socket{wire: len(w.sockets), room: w.plan.wire}
	w.sockets = append(w.sockets, s)
	k := &client{w: w, person: p, wire: s, head: true, reader: w.truth.reader(fmt.Sprintf("%s/%d", p.name, s.wire)),
		loop: w.rand.IntN(w.plan.config.Loops)}
	s.client, p.now = k, k
	w.clients = append(w.clients, k)
	w.tracef("%s dials: wire %d on loop %d", k.name, s.wire, k.loop)
	head := "GET /chat HTTP/1.1\r\nHost: sim\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
	if w.chance(0.5) {
		head += "Sec-WebSocket-Extensions: permessage-deflate\r\n"
	}
	if w.plan.config.ProxyProtocol {
		head = pick(w.rand, "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", "PROXY UNKNOWN\r\n") + head
	}
	k.unsent, k.hurried = head+"\r\n", w.chance(w.plan.hurries)
	n := len(k.unsent)
	if w.chance(w.plan.halves) {
		n = w.rand.IntN(n)
	}
	k.sendHead(n)
	s.conn = w.server.Open(k.loop, s.wire)
}

// sendHead sends n more bytes of the request.
func (k *client) sendHead(n int) {
	k.wire.up = append(k.wire.up, k.unsent[:n]...)
	k.unsent = k.unsent[n:]
}

// ask sends a message that is owed an answer.
func (k *client) ask(typ, room, more string) *request {
	k.refs++
	q := &request{ref: k.refs, typ: typ, room: room}
	k.asked = append(k.asked, q)
	k.authAsked = k.authAsked || typ == "auth"
	q.must = typ != "auth" && !k.spoilt && (!k.w.plan.authHandler || k.authAsked)
	text := fmt.Sprintf(`{"type":%q,"ref":%d`, typ, q.ref)
	if room != "" {
		text += fmt.Sprintf(`,"room":%q`, room)
	}
	k.send(ws.OpText, []byte(text+more+"}"))
	k.w.tracef("%s asks %v%.200s", k.name, q, more)
	return q
}

// send puts a message on the wire, perhaps in fragments, perhaps compressed.
func (k *client) send(op ws.OpCode, payload []byte) {
	header := ws.Header{Fin: true, OpCode: op, Masked: true}
	if k.deflated && !op.IsControl() && k.w.chance(0.3) {
		payload = shrink(payload)
		header.Rsv = ws.Rsv(true, false, false)
	}
	for !op.IsControl() && len(payload) > 1 && k.w.chance(0.1) {
		n := 1 + k.w.rand.IntN(len(payload)-1)
		header.Fin = false
		k.frame(header, payload[:n])
		payload = payload[n:]
		header.OpCode, header.Rsv = ws.OpContinuation, 0
		if k.w.chance(0.3) {
			k.frame(ws.Header{Fin: true, OpCode: ws.OpPing, Masked: true}, []byte("between"))
		}
	}
	header.Fin = true
	k.frame(header, payload)
}

func (k *client) frame(h ws.Header, payload []byte) {
	if k.wire.cut || k.wire.upEnd {
		return
	}
	h.Length = int64(len(payload))
	h.Mask = [4]byte{1, 2, 3, byte(k.w.rand.IntN(256))}
	var buf bytes.Buffer
	ws.WriteHeader(&buf, h)
	masked := slices.Clone(payload)
	ws.Cipher(masked, h.Mask, 0)
	k.wire.up = append(append(k.wire.up, buf.Bytes()...), masked...)
}

func shrink(payload []byte) []byte {
	var buf bytes.Buffer
	z, _ := flate.NewWriter(&buf, flate.BestSpeed)
	z.Write(payload)
	z.Flush()
	return bytes.TrimSuffix(buf.Bytes(), []byte{0, 0, 0xff, 0xff})
}

// hear takes bytes that have arrived.
func (k *client) hear(p []byte) {
	k.in = append(k.in, p...)
	if k.head {
		end := bytes.Index(k.in, []byte("\r\n\r\n"))
		if end < 0 {
			return
		}
		head := string(k.in[:end])
		k.in, k.head = k.in[end+4:], false
		if !strings.HasPrefix(head, "HTTP/1.1 101 ") {
			k.in, k.refused = nil, true
			k.w.tracef("%s is refused: %.12s", k.name, head)
			return
		}
		k.open = true
		k.deflated = strings.Contains(head, "permessage-deflate")
	}
	for k.open && k.nextFrame() {
	}
}

// nextFrame takes one whole frame off the bytes that have arrived.
func (k *client) nextFrame() bool {
	r := bytes.NewReader(k.in)
	h, err := ws.ReadHeader(r)
	if err != nil || h.Length > int64(r.Len()) {
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			k.w.complain("stream", "%s cannot read a header: %v", k.name, err)
		}
		return false
	}
	at := len(k.in) - r.Len()
	payload := k.in[at : at+int(h.Length)]
	k.in = k.in[at+int(h.Length):]
	switch {
	case k.closed:
		k.w.complain("stream", "%s reads a frame after the close frame", k.name)
	case h.Masked || !h.Fin || h.Rsv != 0 && (!k.deflated || h.Rsv != ws.Rsv(true, false, false)):
		k.w.complain("stream", "%s reads a frame that is not as it should be: %+v", k.name, h)
	case h.OpCode == ws.OpText:
		if h.Rsv != 0 {
			payload = k.inflate(payload)
		}
		k.message(payload, h.Rsv != 0)
	case h.OpCode == ws.OpPing:
		if !k.closing {
			k.pong()
			k.frame(ws.Header{Fin: true, OpCode: ws.OpPong, Masked: true}, payload)
		}
	case h.OpCode == ws.OpPong:
	case h.OpCode == ws.OpClose:
		k.closed = true
		code, reason := ws.ParseCloseFrameData(payload)
		k.w.tracef("%s is told to close: %d %s", k.name, code, reason)
		if !k.closing && !k.w.chance(0.2) {
			k.frame(ws.Header{Fin: true, OpCode: ws.OpClose, Masked: true}, payload[:min(2, len(payload))])
		}
		k.closing = true
	default:
		k.w.complain("stream", "%s reads a frame of opcode %d", k.name, h.OpCode)
	}
	return true
}

func (k *client) inflate(payload []byte) []byte {
	tail := []byte{0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff}
	z := flate.NewReaderDict(io.MultiReader(bytes.NewReader(payload), bytes.NewReader(tail)), k.window)
	plain, err := io.ReadAll(z)
	if err != nil {
		k.w.complain("stream", "%s cannot inflate a message: %v", k.name, err)
	}
	k.window = append(k.window, plain...)
	k.window = k.window[max(0, len(k.window)-32<<10):]
	return plain
}

// message checks one message against the truth.
func (k *client) message(text []byte, compressed bool) {
	var b body
	if err := json.Unmarshal(text, &b); err != nil {
		k.w.complain("stream", "%s reads %q: %v", k.name, text, err)
		return
	}
	k.w.tracef("%s reads %s %s #%d m%d%s", k.name, b.Type, b.Room, b.Ref, b.number(), b.place())
	c, t := k.truth, k.w.truth
	switch b.Type {
	case "connected", "ping", "announcements", "goodbye":
		return
	case "reconnect_token":
		k.person.known = append(k.person.known, b.Token)
		t.sessions[b.Token] = &session{of: c}
		return
	}
	if c == nil {
		if b.Ref != 0 {
			k.answered(&b)
			return
		}
		k.w.complain("delivery", "%s reads %s before it is admitted", k.name, text)
		return
	}
	if b.Seq != nil && b.Type != "joined" {
		k.numbered(&b, text, compressed)
		if b.Type != "broadcast_sent" {
			return
		}
	}
	switch b.Type {
	case "broadcast":
		t.read(c, b.Data.M)
	case "app":
		t.read(c, b.M)
	case "member_joined", "member_left":
		t.noticed(c, b.Room, b.ID, b.Type == "member_joined")
	case "left":
		if b.Ref == 0 { // the room was deleted, or the application took it out
			delete(k.stands, b.Room)
			c.toldLeft(b.Room)
			return
		}
		k.answered(&b)
	case "joined":
		k.placed(&b)
		if b.Ref != 0 { // otherwise the application made it a member
			k.answered(&b)
		}
	default:
		k.answered(&b)
	}
}

var answers = map[string]string{"join": "joined", "leave": "left", "broadcast": "broadcast_sent", "ping": "pong",
	"members": "members", "reconnect": "reconnected", "work": "worked", "note": "noted", "say": "said", "auth": "authenticated",
	"history": "history"}

// answered checks an answer: it belongs to the oldest request, and its content is true.
func (k *client) answered(b *body) {
	w, c := k.w, k.truth
	i := k.turnOf(b.Ref)
	if i < 0 {
		w.complain("answers", "%s reads %s #%d out of turn; it waits for %v", k.name, b.Type, b.Ref, k.asked)
		return
	}
	q := k.asked[i]
	k.asked = slices.Delete(k.asked, i, i+1)
	if c != nil && c.current == q {
		c.current = nil
	}
	if b.Type == "error" {
		if q.entered != nil { // otherwise the application made the change
			q.entered.announced, q.entered.strict = true, false
		}
		if b.Code == "not_in_room" && q.members > 0 {
			w.complain("answers", "%s is in the room and told otherwise: %v", k.name, q)
		}
		k.refusedMessage(q, b)
		return
	}
	if b.Type != answers[q.typ] {
		w.complain("answers", "%s asked %v and reads %s", k.name, q, b.Type)
		return
	}
	switch q.typ {
	case "join":
		if q.entered == nil {
			return // it was a member already
		}
		q.entered.announced = true
		if string(b.Members) != fmt.Sprint(q.members) {
			w.complain("answers", "%s joins %s and is told of %s members, there were %d", k.name, q.room, b.Members, q.members)
		}
	case "leave":
		delete(k.stands, q.room)
		if q.entered != nil {
			q.entered.over = true
		}
	case "history":
		k.paged(q, b)
	case "broadcast":
		k.sent(q, b)
		if b.Duplicate == nil && (b.Recipients < q.members || b.Recipients > q.most) {
			w.complain("answers", "%s broadcasts to %s and is told of %d recipients, there were %d", k.name, q.room, b.Recipients, q.members)
		}
	case "reconnect":
		k.resumed(q, b, c)
	}
}

// resumed checks the state that a token restored.
func (k *client) resumed(q *request, b *body, c *conn) {
	for _, ms := range q.inherited {
		ms.announced = true
	}
	s := k.w.truth.sessions[q.token]
	if s == nil {
		k.w.complain("sessions", "%s resumes with a token that nobody was given", k.name)
		return
	}
	k.restarted(q, b, s.of)
	s.used++
	if s.used > 1 {
		k.w.complain("sessions", "%s resumes with a token that was used before", k.name)
	}
	got := slices.Clone(b.Rooms)
	for _, lost := range b.Lost {
		got = append(got, lost.Room)
	}
	slices.Sort(got)
	slices.Sort(s.of.final)
	if !s.of.unsure && !slices.Equal(slices.Compact(got), slices.Compact(slices.Clone(s.of.final))) {
		k.w.complain("sessions", "%s resumes %s and gets the rooms %v, the session had %v", k.name, s.of.id, got, s.of.final)
	}
}

var _ engine.World = (*World)(nil)

// socket is one simulated connection: two byte streams and the kernel's knowledge of them.
//
// Owner: the simulation.
type socket struct {
	wire   int
	conn   *engine.Conn
	client *client

	up   []byte // on its way to the server
	down []byte // taken from the server, not yet read by the client
	room int    // bytes that down may hold

	watched  bool // the server waits for down to take bytes again
	cut      bool // reset: writes fail, nothing arrives any more
	upEnd    bool // the client's half is ended, behind up
	downEnd  bool // the server's half is ended, behind down
	dropped  bool // the server closed it
	departed bool // and was told so
	torn     bool // some bytes never arrive
}

// Write is the kernel's side of a write: it takes as many bytes as fit, or fewer.
func (w *World) Write(wire int, p []byte) (n int, alive bool) {
	s := w.sockets[wire]
	switch {
	case s.dropped || s.departed:
		w.complain("stream", "%d bytes are written to wire %d after it was closed", len(p), wire)
		return 0, false
	case s.downEnd:
		w.complain("stream", "%d bytes are written to wire %d after its half was shut", len(p), wire)
		return 0, false
	case s.cut:
		return 0, false
	}
	n = min(len(p), s.room-len(s.down))
	if n > 0 && w.chance(w.plan.shortWrites) {
		n = w.rand.IntN(n + 1)
	}
	s.down = append(s.down, p[:n]...)
	w.meanwhile()
	return n, true
}

// Shutdown ends the server's half.
func (w *World) Shutdown(wire int) { w.sockets[wire].downEnd = true }

// Drop closes the wire: at once, or in a later step.
func (w *World) Drop(wire int) {
	s := w.sockets[wire]
	s.dropped = true
	if w.chance(0.5) {
		w.depart(s)
	}
}

// Watch makes the world tell the server, in a step of its own, when down takes bytes again.
func (w *World) Watch(wire int) { w.sockets[wire].watched = true }

// depart tells the server that a wire is closed.
func (w *World) depart(s *socket) {
	if !s.departed {
		s.departed = true
		s.client.goneAt = w.now
		s.up, s.watched = nil, false
		w.tracef("wire %d is closed", s.wire)
		w.server.Gone(s.conn)
	}
}

// takes reports whether a watched wire would take bytes, or fail at once.
func (s *socket) takes() bool {
	return s.watched && !s.departed && !s.dropped && (s.cut || len(s.down) < s.room)
}
