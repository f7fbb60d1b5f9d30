package verify

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"github.com/parleyd/parley/cmd/parley/verify/history"
)

// Rooms with history: what clients do there, and what they hand to package history to be judged.

const (
	ephemeralEach = 10 // one message of so many takes no number
	conflateKeys  = 3
	pageLimit     = 100
	sayAgainAfter = 300 * time.Millisecond
)

// rememberingActs are the acts of clients in such rooms.
var rememberingActs = append(slices.Clip(acts), []act{
	{"history", 30, false, (*actor).askHistory},
	{"flood a reader of the history", 15, false, (*actor).flood},
	{"publish again", 10, false, (*actor).publishAgain},
}...)

// remembers reports whether the rooms have history.
func (k *checker) remembers() bool { return k.book != nil }

// newBook makes the book of a run.
func newBook(k *checker) *history.Book {
	o := k.opt
	return history.NewBook(history.Bounds{Messages: o.HistoryMessages, Age: o.HistoryAge, Bytes: o.HistoryBytes, Exact: o.ExactCounts}, history.Run{
		Clock:   func() (time.Time, uint64) { return k.now, k.evt },
		Checked: func(what string) { k.report.Checked[what]++ },
		Found: func(f history.Finding) {
			c, _ := f.By.(*history.Reader)
			var conns []*conn
			if c != nil {
				conns = append(conns, c.Stringer.(*conn))
			}
			for _, serial := range f.Others {
				conns = append(conns, k.bySerial[serial])
			}
			k.found(f.Kind, k.byName[f.Room], conns, f.Text)
		},
		Name: func(payload []byte) (of history.Name, ok bool) {
			of.Serial, of.N, ok = payloadNames(payload, k.run)
			return of, ok
		},
		Message: func(of history.Name, room string) history.Message { return messageOf(k, of, room) },
		First:   func(r *history.Reader, m *history.Told, of history.Name) { firstRead(r.Stringer.(*conn), m, of) },
	})
}

// messageOf is what is known of a message.
func messageOf(k *checker, of history.Name, room string) history.Message {
	p := k.bySerial[of.Serial]
	if p == nil {
		return k.api.seriesOf(of.Serial).at(of.N).known(room)
	}
	rec := p.sent.at(of.N)
	if rec == nil {
		return history.Message{}
	}
	return history.Message{Known: true, Room: rec.room.name, Elsewhere: rec.room.name != room, Sent: rec.sent, When: rec.when, Key: rec.key, Refused: rec.fate == refused}
}

// firstRead compares a message with what was published.
func firstRead(c *conn, m *history.Told, of history.Name) {
	k, p, s := c.k, c.k.bySerial[of.Serial], c.k.api.seriesOf(of.Serial)
	complain := func(format string, args ...any) {
		k.found("altered", k.byName[m.Room], []*conn{c, p}, fmt.Sprintf("%v reads number %d of %s, message %d of connection %d, ", c, *m.Seq, m.Room, of.N, of.Serial)+fmt.Sprintf(format, args...))
	}
	switch {
	case s != nil:
		if x := s.at(of.N); x != nil && (!bytes.Equal(m.Payload, x.payload(k)) || m.Type != x.typ() || m.From != "") {
			complain("changed: type %s, from %q, data %.100q", m.Type, m.From, m.Payload)
		}
	case p == nil && of.Serial > k.serial, p != nil && of.N >= p.sent.next():
		complain("which no client sent")
	case p == nil || p.sent.at(of.N) == nil: // it was settled before any client had read it: its data is not known any more
	case !bytes.Equal(m.Payload, p.payloadOf(of.N)) || m.From != p.id && !k.byName[m.Room].history.SentAgainBy(m.From, of) || m.Type != "broadcast":
		complain("changed: from %s (%s), data %.100q, sent %.100q", m.From, p.id, m.Payload, p.payloadOf(of.N))
	}
}

// told is the message as package history reads it.
func (b *body) told() *history.Told {
	return &history.Told{Placing: b.Placing, Type: b.Type, Room: b.Room, From: string(b.From), Gap: b.Gap, Recipients: b.Recipients, Payload: b.Payload, Text: b.text}
}

// A historian is a connection in rooms with history.
//
// Owner: its connection.
type historian struct {
	*conn
	reader  *history.Reader
	unknown []*utterance // published with a key, and never answered
}

// numbered takes something that has a number: a message, an answer, a skip or a gap.
func (h *historian) numbered(m *body) {
	c, k, r := h.conn, h.k, h.k.byName[m.Room]
	k.report.Checked["numbers"]++
	complain := func(kind, why string) {
		k.found(kind, r, []*conn{c}, fmt.Sprintf("%v reads %s %d of %q, epoch %s, %s", c, m.Type, *m.Seq, m.Room, m.Epoch, why))
	}
	s := c.stays[r]
	switch {
	case r == nil:
		complain("leak", "which is no room of this run")
	case m.Type == "broadcast_sent" && (s == nil || s.stand == nil || s.state == out): // the client has left since
	case s == nil:
		complain("leak", "where it is no member")
	case s.state == out:
		complain("late", "which it has left")
	case s.state == joining || s.stand == nil:
		complain("early", "before it is told its position")
	case m.Type == "gap" && m.Reset:
		h.stands(s, h.reader.Placed(r.history, m.told()))
	default:
		of := h.reader.Read(s.stand, m.told())
		c.note(step{what: fmt.Sprintf("reads %s %s number %d, message of", m.Type, m.Why, *m.Seq), room: r, from: k.bySerial[of.Serial], n: int64(of.N)})
	}
}

// stands gives the client its position in a room.
func (h *historian) stands(s *stay, x *history.Stand) {
	s.stand, s.rebased = x, false
	h.note(step{what: "is told its position in", room: s.room, n: int64(x.At().Seq)})
}

// placed takes a position, a gap or a skip.
func (h *historian) placed(m *body) {
	s := h.stays[h.k.byName[m.Room]]
	switch {
	case m.Seq == nil:
		h.k.found("answer", h.k.byName[m.Room], []*conn{h.conn}, fmt.Sprintf("%v reads %s without a number: %.100q", h.conn, m.Type, m.text))
	case m.Type != "position":
		h.numbered(m)
	case s != nil && s.state != out:
		h.stands(s, h.reader.Placed(s.room.history, m.told()))
	}
}

// joined takes the position that `joined` tells. q is nil if the client did not ask to join.
func (h *historian) joined(s *stay, q *request, m *body) {
	var a *history.Asked
	if q != nil {
		a = q.start
	}
	if m.Seq == nil {
		h.nowhere(s.room, "`joined`")
		return
	}
	h.stands(s, h.reader.Joined(s.room.history, a, m.told()))
}

// nowhere reports that the server told no position. If it never told one, the operator has not given the rooms a history.
func (h *historian) nowhere(r *room, what string) {
	k := h.k
	if k.report.Checked["starts"] == 0 {
		k.fatal = fmt.Errorf("%w: the rooms have no history, since %s of %s shows no seq; start the server with --history 'verify-**=messages:%d', or leave out --history-messages",
			ErrUnreachable, what, r.name, k.opt.HistoryMessages)
		return
	}
	k.found("number", r, []*conn{h.conn}, fmt.Sprintf("%v reads %s of %s without a position", h.conn, what, r.name))
}

// resumed takes the positions that `reconnected` tells, and sends the messages again whose answers the old connection never got.
func (h *historian) resumed(q *request, m *body) {
	k, old := h.k, q.token.conn
	h.reader.Follow(old.past.reader)
	gaps := map[string]bool{}
	for _, room := range m.Gaps {
		gaps[room] = true
	}
	for _, room := range m.Rooms {
		r := k.byName[room]
		if r == nil || h.stays[r] == nil {
			continue // restored has reported it
		}
		was := old.stays[r]
		x := history.Resumption{Asked: q.lasts[r], Old: old, At: q.at, Gap: gaps[room], Repeats: m.Repeats[room]}
		if was != nil && !k.mayBeForgotten(was) {
			x.Before = was.knownStand()
		}
		if stand, told := h.reader.Resumed(r.history, x, m.told()); told {
			h.stands(h.stays[r], stand)
		} else {
			h.nowhere(r, "`reconnected`")
		}
	}
	h.sayAgain(old.past)
}

// knownStand is the position that a connection is known to have in a room; nil if the server may have told it another.
func (s *stay) knownStand() *history.Stand {
	if s.rebased {
		return nil
	}
	for _, q := range s.conn.asked {
		if q.kind == "reconnect" || q.kind == "join" && q.room == s.room {
			return nil
		}
	}
	return s.stand
}

// drawStart draws where an actor asks to begin in a room; nil: in one of the ways of a room without history.
func (a *actor) drawStart(c *conn, r *room) *history.Asked {
	at, told := a.places[r]
	if s := c.stays[r]; s != nil && s.stand != nil && s.state == in {
		at, told = s.stand.At(), true
	}
	kept := uint64(a.k.opt.HistoryMessages)
	switch draw := a.rng.IntN(10); {
	case draw < 2:
		return &history.Asked{Last: 1 + a.rng.Uint64N(2*kept)}
	case draw < 6 && told:
		return &history.Asked{Since: &at, Told: true}
	case draw < 7 && told: // as one that has been away for long
		at.Seq -= min(at.Seq, a.rng.Uint64N(2*kept))
		return &history.Asked{Since: &at, Told: true}
	}
	return nil
}

// leaves keeps the position of a stay that is over.
func (a *actor) leaves(s *stay) {
	if s.stand != nil {
		a.places[s.room] = s.stand.At()
	}
}

// namePlaces appends the positions of the session's connection to a claim, where the client does so.
func (h *historian) namePlaces(q *request, text []byte) []byte {
	rng := h.actor.rng
	if rng.IntN(2) == 0 {
		return text
	}
	q.lasts = map[*room]*history.Asked{}
	text = append(text, `,"last":{`...)
	for _, r := range h.k.rooms {
		s := q.token.conn.stays[r]
		if s == nil || s.stand == nil || rng.IntN(8) == 0 { // the client forgets a few
			continue
		}
		if len(q.lasts) > 0 {
			text = append(text, ',')
		}
		at := s.stand.At()
		q.lasts[r] = r.history.Asks(history.Asked{Since: &at, Told: true})
		text = at.Append(fmt.Appendf(text, "%q:", r.name))
	}
	return append(text, '}')
}

// askHistory asks for a part of the history of a room.
func (a *actor) askHistory(c *conn) bool {
	s := a.stayOf(c)
	if s == nil || s.stand == nil {
		return false
	}
	x := history.Asked{Limit: 1 + a.rng.IntN(pageLimit), Told: true}
	at, kept := s.stand.At(), uint64(a.k.opt.HistoryMessages)
	switch draw := a.rng.IntN(6); {
	case draw < 3:
		at.Seq -= min(at.Seq, a.rng.Uint64N(2*kept))
		x.Since = &at
	case draw < 5:
		at.Seq -= min(at.Seq, a.rng.Uint64N(kept))
		x.Before = &at
	}
	q := c.expect(&request{kind: "history", room: s.room, start: s.room.history.Asks(x)})
	text := fmt.Appendf(nil, `{"type":"history","room":%q,"limit":%d`, s.room.name, x.Limit)
	c.note(step{what: "asks for the history of", room: s.room, n: -1})
	c.say(withRef(x.Append(text), q.ref))
	return true
}

// paged checks a part of a history.
func (h *historian) paged(q *request, m *body) {
	h.reader.Page(q.room.history, q.start, m.told(), func(text []byte) (*history.Told, error) {
		var x body
		err := readBody(text, &x)
		return x.told(), err
	})
}

// utterance is a message with an idempotency key, which can be sent again.
//
// Owner: immutable.
type utterance struct {
	of     history.Name
	by     *conn // the first to send it
	room   *room
	fields []byte // of the request, without its ref
	keyed  bool
	want   []string
}

// publish publishes a message that is to take a number.
func (h *historian) publish(r *room, want []string) *request {
	c, k, rng := h.conn, h.k, h.actor.rng
	n := c.sent.next()
	k.evt++
	rec := record{room: r, sent: k.evt, bulk: k.bulky, numbered: true, when: k.now}
	if rng.IntN(5) == 0 {
		rec.key = fmt.Sprintf("key %d", rng.IntN(conflateKeys))
	}
	c.sent.log = append(c.sent.log, rec)
	u := &utterance{of: history.Name{Serial: c.serial, N: n}, by: c, room: r, want: want, keyed: rng.IntN(3) == 0}
	u.fields = fmt.Appendf(nil, `{"type":"broadcast","room":%q,"data":%s`, r.name, c.payloadOf(n))
	if rec.key != "" {
		u.fields = fmt.Appendf(u.fields, `,"key":%q`, rec.key)
	}
	if u.keyed {
		u.fields = fmt.Appendf(u.fields, `,"idempotency_key":"verify-%d-%d"`, h.keyScope(), n)
	}
	return h.utter(u, false)
}

// keyScope is a number that no other connection with the scope of c's keys has: the scope is the session, or the user. In
// other scopes there are equal keys.
func (h *historian) keyScope() int {
	if h.actor.user != "" {
		return h.serial
	}
	return h.chain
}

// utter sends a message, for the first time or again.
func (h *historian) utter(u *utterance, again bool) *request {
	q := h.expect(&request{kind: "broadcast", room: u.room, n: -1, says: u, want: u.want, repeats: again})
	if rec := u.by.sent.at(u.of.N); rec != nil {
		rec.copies++
	}
	if again {
		u.room.history.Resent(u.of, h.id)
	}
	h.note(step{what: "publishes", room: u.room, from: u.by, n: int64(u.of.N)})
	h.say(withRef(append([]byte{}, u.fields...), q.ref))
	return q
}

// publishAgain publishes a message twice, with one key.
func (a *actor) publishAgain(c *conn) bool {
	s := a.stayOf(c)
	if s == nil || !a.mayPublish(s.room) {
		return false
	}
	for range 3 {
		if q := c.past.publish(s.room, nil); q.says.keyed {
			c.past.utter(q.says, true)
			break
		}
	}
	return true
}

// publishUnread publishes on a connection that does not read: the answers must wait for their places.
func (s *stay) publishUnread() {
	if c := s.conn; c.phase == open && c.mode == stalled && s.state == in && !c.k.calm && c.actor.mayPublish(s.room) {
		c.publish(s.room)
		c.publish(s.room)
	}
}

// resumeFrozen resumes the session of a connection that froze a while ago, unless the actor has another one by now.
func (a *actor) resumeFrozen(s *session) {
	switch {
	case a.k.over || a.due || len(a.conns) > 0:
	case a.k.calm:
		a.k.in(calmWait, func() { a.resumeFrozen(s) })
	default:
		a.connect(func(heir *conn) { a.claim(heir, s) })
	}
}

// record is the message of a request, which its connection or an earlier one has sent; nil if there is none, or it is settled.
func (q *request) record(c *conn) *record {
	if q.says != nil {
		return q.says.by.sent.at(q.says.of.N)
	}
	return c.sent.at(q.n)
}

// published checks the answer to a broadcast. It reports whether the server has published nothing, and so counted no recipients.
func (h *historian) published(q *request, m *body) (duplicate bool) {
	if q.says == nil {
		if m.Seq != nil || m.Duplicate != nil {
			h.k.found("number", q.room, []*conn{h.conn}, fmt.Sprintf("%v publishes message %d in %s, which is to have no number, and is told one", h.conn, q.n, q.room.name))
		}
		return false
	}
	duplicate = h.reader.Sent(q.room.history, q.says.of, q.repeats, m.told())
	if m.Seq != nil {
		h.numbered(m)
	}
	return duplicate
}

// notPublished records that a broadcast was refused. With history, "unavailable" says nothing about what became of it.
func (q *request) notPublished(c *conn, code string) {
	rec := q.record(c)
	unknown := q.says != nil && code == "unavailable"
	switch {
	case rec != nil && rec.fate != accepted && (unknown || rec.copies > 1): // another copy may be published
		rec.fate = uncertain
	case rec != nil && rec.fate != accepted:
		rec.fate = refused
	}
	switch {
	case unknown:
		if c.past.leavesOpen(q); q.says.keyed {
			c.k.in(sayAgainAfter, func() { c.past.sayAgain(c.past) })
		}
	case q.says != nil && rec != nil && rec.copies == 1:
		q.room.history.Refused(c.past.reader, q.says.of)
	}
}

// leavesOpen keeps what a session's client must know of a request whose answer it does not get.
func (h *historian) leavesOpen(q *request) {
	if h == nil {
		return
	}
	if q.says != nil && q.says.keyed && q.want == nil {
		h.unknown = append(h.unknown, q.says)
	}
	for r, s := range h.stays {
		if q.kind == "reconnect" || q.kind == "join" && q.room == r {
			s.rebased = true
		}
	}
}

// sayAgain sends the messages again of which a connection of the session does not know what became of them.
func (h *historian) sayAgain(old *historian) {
	list := old.unknown
	old.unknown = nil
	for _, u := range list {
		if s := h.stays[u.room]; h.phase == open && s != nil && s.state == in {
			h.utter(u, true)
			h.k.report.Done["published again"]++
		}
	}
}
