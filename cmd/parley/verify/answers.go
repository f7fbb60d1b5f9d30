package verify

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/parleyd/parley/cmd/parley/verify/history"
)

// request is a message of a connection that awaits its answer.
//
// Owner: its connection.
type request struct {
	kind    string
	ref     []byte
	room    *room
	n       int // of a message
	evt     uint64
	at      time.Time
	granted time.Duration // by the machine at that time
	marks   marks
	already bool          // a join of a room in which the connection is
	gap     bool          // it asked for missed messages: the server keeps none, and the answer must tell a gap
	token   *session      // of a claim
	want    []string      // error codes, one of which must be the answer; nil: no error
	count   func(m *body) // gets the answer; nil for an error, or if no answer will come

	start   *history.Asked           // where it asks to begin, in a room with history
	lasts   map[*room]*history.Asked // of a claim
	says    *utterance               // the message that is to take a number; nil: none
	repeats bool                     // it was sent before
}

// answerOf is the type of the answer to each kind of request.
var answerOf = map[string]string{"join": "joined", "leave": "left", "broadcast": "broadcast_sent", "ping": "pong",
	"members": "members", "reconnect": "reconnected", "history": "history"}

// temporary are the codes of refusals that a client must expect at any time.
var temporary = []string{"overloaded", "unavailable", "rate_limited"}

// expect records a request, and gives it a ref and its place in the order of events.
func (c *conn) expect(q *request) *request {
	k := c.k
	c.refs++
	k.evt++
	q.evt, q.at, q.granted = k.evt, k.now, k.granted
	if k.speaks.refs && q.kind != "junk" {
		if c.refs%3 == 0 {
			q.ref = []byte(strconv.Itoa(c.refs))
		} else {
			q.ref = fmt.Appendf(nil, `"%s-%d"`, q.kind[:1], c.refs)
		}
	}
	if q.room != nil {
		q.marks = q.room.marks()
	}
	key := string(q.ref)
	if key == "" {
		key = fmt.Sprintf("%s %06d", q.kind, c.refs)
	}
	c.asked[key] = q
	return q
}

// ping asks for an answer, which proves that the connection is alive.
func (c *conn) ping() {
	if c.phase != open || c.mode != lively {
		return
	}
	if c.k.speaks.refs {
		q := c.expect(&request{kind: "ping"})
		c.say(withRef([]byte(`{"type":"ping"`), q.ref))
	}
}

// oldest finds the request for an answer without a ref. An error belongs to nonsense if any was sent.
func (c *conn) oldest(typ string) (key string, q *request) {
	for other, r := range c.asked {
		fits := answerOf[r.kind] == typ || typ == "error"
		better := q == nil || r.kind == q.kind && r.evt < q.evt || r.kind == "junk" && q.kind != "junk" ||
			q.kind != "junk" && r.evt < q.evt
		if fits && better {
			key, q = other, r
		}
	}
	return key, q
}

// answered matches an answer with its request, and checks it.
func (c *conn) answered(m *body) {
	k := c.k
	key := string(m.Ref)
	q := c.asked[key]
	if q == nil && c.stays[k.byName[m.Room]].taken(m) {
		return
	}
	if q == nil {
		var found string
		found, q = c.oldest(m.Type)
		switch {
		case !k.speaks.refs && q == nil:
			return // a dialect that promises no answers may send any
		case q == nil:
			k.found("answer", k.byName[m.Room], []*conn{c}, fmt.Sprintf("%v reads %s %s (ref %s) that it asked nothing for", c, m.Type, m.Code, m.Ref))
			return
		case q.ref != nil:
			k.found("ref", q.room, []*conn{c}, fmt.Sprintf("%v asked %s with ref %s and reads %s %s with ref %q", c, q.kind, q.ref, m.Type, m.Code, m.Ref))
		}
		key = found
	}
	delete(c.asked, key)
	k.report.Checked["answers"]++
	c.prove(q)
	if m.Type != "pong" && m.Type != "broadcast_sent" {
		c.note(step{what: "reads " + m.Type + " " + m.Code, room: q.room, n: int64(c.shown(m))})
	}
	if q.room != nil && m.Type != "error" && m.Room != q.room.name {
		k.found("answer", q.room, []*conn{c}, fmt.Sprintf("%v asked %s of %s and is answered about %q", c, q.kind, q.room.name, m.Room))
	}
	switch {
	case m.Type == "error":
		c.refusedWith(q, m.Code)
	case m.Type != answerOf[q.kind]:
		k.found("answer", q.room, []*conn{c}, fmt.Sprintf("%v asked %s and reads %s", c, q.kind, m.Type))
	case q.want != nil && c.admittedSince(q):
		if s := c.stays[q.room]; q.kind == "leave" && s.state != out {
			s.moving = false
			s.become(out)
		}
		if q.kind == "broadcast" && c.past != nil {
			c.past.published(q, m)
		}
	case q.want != nil:
		kind := "answer"
		switch {
		case q.kind == "reconnect":
			kind = "session"
		case slices.Contains(q.want, "forbidden"):
			kind = "rights"
		}
		k.found(kind, q.room, []*conn{c}, fmt.Sprintf("%v asked %s, which must be refused with %v, and reads %s", c, q.kind, q.want, m.Type))
		if q.kind == "reconnect" {
			c.hang()
		}
	default:
		c.granted(q, m)
	}
}

// shown is an answer's number for a trace.
func (c *conn) shown(m *body) int {
	switch {
	case m.Recipients != nil:
		return *m.Recipients
	case m.Count != nil:
		return *m.Count
	}
	return m.count()
}

// prove records that c was alive when it sent q.
func (c *conn) prove(q *request) {
	c.proved = max(c.proved, q.evt)
	if c.unsure {
		c.unsure = false
		c.reckon()
	}
}

// granted handles an answer that is no error.
func (c *conn) granted(q *request, m *body) {
	k := c.k
	switch q.kind {
	case "join":
		s := c.stays[q.room]
		if s != nil && s.state == out && s.expelled && q.already { // a backend took it out before the server read the request
			s = c.stayIn(q.room, joining)
		}
		if s != nil && s.state == joining {
			s.become(in)
		}
		if q.gap && !m.Gap {
			k.found("gap", q.room, []*conn{c}, fmt.Sprintf("%v asked %s for messages of an epoch that never existed, and the answer says no gap", c, q.room.name))
		}
		if s != nil && s.state != out && c.past != nil {
			c.past.joined(s, q, m)
		}
		k.counted(c, q, m.count())
	case "leave":
		if s := c.stays[q.room]; s != nil && s.state == leaving {
			s.become(out)
		}
	case "history":
		c.past.paged(q, m)
	case "broadcast":
		if rec := q.record(c); rec != nil {
			k.evt++
			rec.fate, rec.acked = accepted, k.evt
			if s := c.stays[q.room]; s == nil || s.state == out {
				rec.fate = uncertain
			}
		}
		if m.Recipients == nil {
			k.found("answer", q.room, []*conn{c}, fmt.Sprintf("%v is not told the number of recipients", c))
			return
		}
		if c.past == nil || !c.past.published(q, m) {
			k.counted(c, q, *m.Recipients)
		}
	case "members":
		if m.Count == nil {
			k.found("answer", q.room, []*conn{c}, fmt.Sprintf("%v asked for the members and is told no count", c))
			return
		}
		k.counted(c, q, *m.Count)
	case "reconnect":
		c.reconnected(q, m)
	}
	if q.count != nil {
		q.count(m)
	}
}

// refusedWith handles an error.
func (c *conn) refusedWith(q *request, code string) {
	k := c.k
	complain := func(why string) {
		kind := "answer"
		if q.kind == "reconnect" {
			kind = "session"
		}
		k.found(kind, q.room, []*conn{c}, fmt.Sprintf("%v asked %s and is refused with %s%s", c, q.kind, code, why))
	}
	if slices.Contains(temporary, code) {
		k.report.Done["refused "+code]++
		if code == "unavailable" {
			c.unavailable(q)
		}
	} else if q.want != nil && !slices.Contains(q.want, code) {
		complain(fmt.Sprintf(", want %v", q.want))
	}
	switch q.kind {
	case "join":
		k.report.Done["refused joins"]++
		if s := c.stays[q.room]; s != nil && s.state == joining {
			s.late = slices.Contains(temporary, code)
			s.become(out)
		}
		most := k.mostIn(q)
		if code == "room_full" && (k.opt.RoomLimit == 0 || most-1 < k.opt.RoomLimit) && !k.disturbed() {
			complain(fmt.Sprintf(", but at most %d can have been in", most-1))
		} else if q.want == nil && code != "room_full" && !slices.Contains(temporary, code) {
			complain("")
		}
	case "broadcast":
		q.notPublished(c, code)
		if q.want == nil && !slices.Contains(temporary, code) && !c.expelledSince(q, code) {
			complain(", though it is a member")
		}
	case "leave", "members", "history":
		if q.want == nil && !slices.Contains(temporary, code) && !c.expelledSince(q, code) {
			complain("")
		}
		if s := c.stays[q.room]; q.kind == "leave" && s != nil && s.state == leaving {
			s.become(in)
			s.left = 0
		}
	case "reconnect":
		c.claimRefused(q, code)
	case "ping":
		complain("")
	}
	if q.count != nil {
		q.count(nil)
	}
}

// expelledSince reports whether a request is refused because a backend took c out of the room meanwhile.
func (c *conn) expelledSince(q *request, code string) bool {
	s := c.stays[q.room]
	return code == "not_in_room" && s != nil && (s.expelled || c.k.api != nil && s.asked > q.evt)
}

// admittedSince reports whether a request about a room in which c was not may have been carried out because a backend took c
// in meanwhile.
func (c *conn) admittedSince(q *request) bool {
	s := c.stays[q.room]
	return slices.Contains(q.want, "not_in_room") && s != nil && s.asked > q.evt && c.k.api != nil
}

// forsake gives up the requests of an ended connection: their outcome stays unknown.
func (c *conn) forsake() {
	for key, q := range c.asked {
		if rec := q.record(c); q.kind == "broadcast" && rec != nil && rec.fate == pending {
			rec.fate = uncertain
		}
		c.past.leavesOpen(q)
		if q.count != nil {
			q.count(nil)
		}
		delete(c.asked, key)
	}
	for i := range c.sent.log {
		if c.sent.log[i].fate == pending {
			c.sent.log[i].fate = uncertain
		}
	}
}
