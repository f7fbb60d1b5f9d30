package sim

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/protocol/ident"
)

// fleetTruth is the expected state over several workers, as their events tell it. Workers see the messages of different
// publishers in different orders; the messages of one publisher have one order on all workers.
//
// Owner: the simulation.
type fleetTruth struct {
	f        *Fleet
	now      int // grows with every note
	conns    map[string]*fleetConn
	ordered  []*fleetConn
	messages map[int]*fleetMessage
	said     map[[2]string][]*fleetMessage // by room and publisher
	speakers map[string][]string           // by room: the publishers
	lost     map[[2]ident.Worker]int       // by receiver and publisher: when messages were last declared lost
	sessions map[string]*fleetSession
	resumed  int
	deleted  map[string]time.Duration // by room: when the application last asked for its deletion
	events   map[string][]happening   // by connection
}

// fleetConn is a connection that was admitted.
//
// Owner: the simulation.
type fleetConn struct {
	id            string
	client        *fleetClient
	conn          *engine.Conn
	admittedAt    time.Duration
	stays         []*fleetStay
	sessions      []*fleetSession // of its tokens
	current       *fleetRequest
	ended         int // when: 0 while it lives
	endedAt       time.Duration
	note          string
	notedAt       time.Duration
	inherited     string
	marks         []*marking
	taken         map[string]bool // by room: the application wanted it in
	inheritedMark string
	last          map[string]int
	speaker       speaker
	refusedAt     map[string]time.Duration // by room: when its client read that a join or leave was refused
}

// fleetStay is a connection's stay in a room, among its own direct messages ("@" and its id), or among all ("*").
//
// Owner: the simulation.
type fleetStay struct {
	conn      *fleetConn
	room      string
	in, out   int // when it entered and left; 0: it goes on
	announced bool
	byMessage bool              // it was begun by a join of the client
	over      bool              // the client knows that it has left
	final     bool              // it lasted until the connection's end
	unsure    bool              // it ended in the connection's last turn, perhaps for another cause than the connection's end
	asked     bool              // its client asked for the end
	leftIn    int               // the turn in which it ended
	next      map[string]int    // by publisher: the next message to read
	view      map[string]belief // in who is in the room
	inAt      time.Duration
	outAt     time.Duration
}

// belief is what a member knows of another connection.
type belief uint8

const (
	unheard belief = iota
	assumed        // it was a member when this member came
	present        // the member was told that it joined
	gone           // the member was told that it left
)

// fleetMessage is a published message.
//
// Owner: the simulation.
type fleetMessage struct {
	m         int
	room      string
	publisher string
	from      *worker
	except    *fleetConn
	at        int
	index     int // among those of its publisher in its room
	refused   bool
	forbidden bool // by its publisher's grant
}

func newFleetTruth(f *Fleet) *fleetTruth {
	return &fleetTruth{f: f, conns: map[string]*fleetConn{}, messages: map[int]*fleetMessage{}, said: map[[2]string][]*fleetMessage{},
		speakers: map[string][]string{}, lost: map[[2]ident.Worker]int{}, sessions: map[string]*fleetSession{},
		deleted: map[string]time.Duration{}, events: map[string][]happening{}}
}

// tick advances the truth's clock.
func (t *fleetTruth) tick() int {
	t.now++
	return t.now
}

// listen updates the truth with a worker's events.
func (t *fleetTruth) listen(w *worker) {
	e := w.server.Server.Emitter()
	for _, kind := range wanted {
		e.On(kind, t.happened)
	}
	e.On(engine.EventConnect, func(ev engine.Event) { t.connected(w, ev) })
	e.On(engine.EventMessage, func(ev engine.Event) { t.message(w, ev) })
	e.On(engine.EventRoomJoin, func(ev engine.Event) { t.joined(ev) })
	e.On(engine.EventRoomLeave, func(ev engine.Event) { t.left(ev) })
	e.On(engine.EventReconnect, func(ev engine.Event) {
		c := t.of(ev)
		c.note, _ = engine.Attribute[string](c.conn, "note")
		c.notedAt, c.inherited = t.f.now, c.note
		c.inheritedMark, _ = engine.Attribute[string](c.conn, "mark")
		t.marksBegin(c)
		if old := t.conns[ev.Session.PreviousConnectionID]; old != nil {
			c.speaker.follow(&old.speaker)
		}
		t.f.tracef("%s resumes %s", c.id, ev.Session.PreviousConnectionID)
	})
	e.On(engine.EventDisconnect, func(ev engine.Event) { t.disconnected(ev) })
	e.On(engine.EventError, func(ev engine.Event) {
		if _, ok := ev.Err.(*engine.MissedError); !ok {
			t.f.complain("errors", "worker %d: %v", w.instance, ev.Err)
		}
	})
}

func (t *fleetTruth) connected(w *worker, ev engine.Event) {
	for _, k := range t.f.clients {
		if k.conn != ev.Conn && (k.w != w || k.conn != nil || k.truth != nil) {
			continue
		}
		c := &fleetConn{id: ev.Conn.ID(), client: k, conn: ev.Conn, admittedAt: t.f.now, last: map[string]int{}, refusedAt: map[string]time.Duration{}, taken: map[string]bool{}}
		if t.conns[c.id] != nil {
			t.f.complain("events", "two connections have the id %s", c.id)
		}
		c.speaker = speaker{id: c.id}
		c.speaker.began = &c.speaker
		t.conns[c.id], k.truth, k.as = c, c, &c.speaker
		t.marksBegin(c)
		t.ordered = append(t.ordered, c)
		t.enter(c, "@"+c.id).announced = true
		t.enter(c, "*").announced = true
		t.f.tracef("%s is admitted as %s", k.name, c.id)
		return
	}
	t.f.complain("events", "a connection of nobody is admitted")
}

// of is the connection of an event.
func (t *fleetTruth) of(ev engine.Event) *fleetConn { return t.conns[ev.Conn.ID()] }

func (t *fleetTruth) enter(c *fleetConn, room string) *fleetStay {
	s := &fleetStay{conn: c, room: room, in: t.tick(), next: map[string]int{}, view: map[string]belief{}, inAt: t.f.now}
	for _, other := range t.members(room) {
		s.view[other.id] = assumed
	}
	c.stays = append(c.stays, s)
	return s
}

// stay is the present stay of c in a room; nil for none.
func (c *fleetConn) stay(room string) *fleetStay {
	for _, s := range c.stays {
		if s.room == room && s.out == 0 {
			return s
		}
	}
	return nil
}

func (t *fleetTruth) message(w *worker, ev engine.Event) {
	var b body
	if json.Unmarshal(ev.Message.Payload(), &b) != nil {
		return
	}
	c := t.of(ev)
	for _, q := range c.client.asked {
		if q.ref == b.Ref {
			c.current = q
		}
	}
	switch {
	case c.current == nil || b.Type != "broadcast":
	case c.current.numbers != nil:
		t.f.annals.submitted(c, c.current.numbers)
	case c.stay(b.Room) != nil:
		t.f.annals.overtakes(c)
		p := t.publish(w, b.number(), b.Room, c)
		p.forbidden = t.f.plan.auth && !grantOf(c.conn).publish[b.Room]
		p.refused = p.forbidden
		c.current.published = p
	}
}

// publish notes a message, of a connection or (nil) of the application on a worker.
func (t *fleetTruth) publish(w *worker, m int, room string, by *fleetConn) *fleetMessage {
	publisher := fmt.Sprintf("the application of worker %d", w.instance)
	if by != nil {
		publisher = by.id
	}
	key := [2]string{room, publisher}
	p := &fleetMessage{m: m, room: room, publisher: publisher, from: w, except: by, at: t.tick(), index: len(t.said[key])}
	if p.index == 0 {
		t.speakers[room] = append(t.speakers[room], publisher)
	}
	t.said[key] = append(t.said[key], p)
	t.messages[m] = p
	t.f.tracef("%s publishes %d in %s", publisher, m, room)
	return p
}

func (t *fleetTruth) joined(ev engine.Event) {
	c := t.of(ev)
	if c.stay(ev.Room) != nil {
		t.f.complain("events", "%s enters %s, where it is", c.id, ev.Room)
	}
	s := t.enter(c, ev.Room)
	if q := c.current; q != nil && q.typ == "join" && q.room == ev.Room {
		if q.entered != nil { // otherwise it was the application
			q.entered.byMessage = false
		}
		q.entered, s.byMessage = s, true
	}
	t.f.tracef("%s enters %s", c.id, ev.Room)
	t.limits(ev.Room)
	t.mayJoin(c, ev.Room)
	t.f.meanwhile()
}

// limits checks that a room has no more members than its limit.
func (t *fleetTruth) limits(room string) {
	limit, n := t.f.plan.config.MaxConnectionsPerRoom, 0
	for _, c := range t.ordered {
		if c.ended == 0 && c.stay(room) != nil {
			n++
		}
	}
	if limit > 0 && n > limit {
		t.f.complain("limits", "%s has %d members, %d are allowed", room, n, limit)
	}
}

func (t *fleetTruth) left(ev engine.Event) {
	c := t.of(ev)
	s := c.stay(ev.Room)
	if s == nil {
		t.f.complain("events", "%s leaves room %s, where it is not", c.id, ev.Room)
		return
	}
	s.out, s.outAt = t.tick(), t.f.now
	s.asked = c.conn.Cause() == engine.CauseNone && c.current != nil && c.current.typ == "leave" && c.current.room == ev.Room
	s.leftIn = c.client.turn()
	t.f.tracef("%s leaves %s", c.id, ev.Room)
	t.hadToLeave(c, s)
	t.f.meanwhile()
}

func (t *fleetTruth) disconnected(ev engine.Event) {
	c := t.of(ev)
	for _, s := range c.stays {
		now := s.out != 0 && s.leftIn == c.client.turn()
		s.final = now && !s.asked
		s.unsure = now && (s.asked || t.deletedLately(s.room) || c.client.asksToLeave(s.room) || t.forbids(c, s.room))
		if s.out == 0 && s.room != "*" && s.room[0] != '@' {
			t.f.complain("events", "%s has ended, and is still in room %s", c.id, s.room)
		}
	}
	t.marked(c)
	t.end(c)
	t.f.tracef("%s has ended: %v", c.id, ev.Cause)
	t.f.meanwhile()
}

// forbids reports whether the token that the connection showed last does not allow a room.
func (t *fleetTruth) forbids(c *fleetConn, room string) bool {
	return t.f.plan.auth && !grantOf(c.conn).join[room]
}

// asksToLeave reports whether the client has asked to leave a room and has no answer: a session that ends then may have it or not.
func (k *fleetClient) asksToLeave(room string) bool {
	return slices.ContainsFunc(k.asked, func(q *fleetRequest) bool { return q.typ == "leave" && q.room == room })
}

// deletedLately reports whether workers may be about to learn of a deletion of the room.
func (t *fleetTruth) deletedLately(room string) bool {
	at, ever := t.deleted[room]
	return ever && t.f.now-at < 3*time.Second
}

func (t *fleetTruth) end(c *fleetConn) {
	for _, s := range c.stays {
		if s.out == 0 {
			s.out, s.outAt, s.final = t.tick(), t.f.now, true
		}
	}
	c.ended, c.endedAt, c.speaker.ended = t.tick(), t.f.now, true
}

// died ends the connections of a worker that was killed.
func (t *fleetTruth) died(w *worker) {
	for _, c := range t.ordered {
		if c.client.w == w && c.ended == 0 {
			t.end(c)
		}
	}
}

// missed notes that a worker has learned that it lost messages of another.
func (t *fleetTruth) missed(w *worker, from ident.Worker) {
	t.lost[lossOf(w, from)] = t.tick()
}

// turnEnded clears the present message of a loop's connections, unless it may go on in a later turn.
func (t *fleetTruth) turnEnded(w *worker, loop int) {
	for _, k := range t.f.clients {
		if c := k.truth; c != nil && k.w == w && k.loop == loop && c.current != nil && c.current.typ == "broadcast" {
			c.current = nil
		}
	}
}

// owed reports whether a stay must have been given a message for certain.
func (t *fleetTruth) owed(s *fleetStay, p *fleetMessage) bool {
	w := s.conn.client.w
	switch {
	case p.refused || p.except == s.conn || p.at < s.in:
		return false
	case w != p.from && (p.from.dead && !(p.from.left && t.f.plan.soundBus()) || p.at < t.lost[lossOf(w, p.from.instance)]):
		return false
	}
	return true
}

// read checks that a client may read message m now.
func (t *fleetTruth) read(c *fleetConn, m int) {
	p := t.messages[m]
	if p == nil {
		t.f.complain("delivery", "%s reads message %d, which nobody sent", c.id, m)
		return
	}
	if c.last[p.publisher] >= m {
		t.f.complain("order", "%s reads message %d of %s after %d", c.id, m, p.publisher, c.last[p.publisher])
	}
	c.last[p.publisher] = m
	if p.forbidden {
		t.f.complain("rights", "%s reads message %d of %s in %s, which its grant forbids", c.id, m, p.publisher, p.room)
	}
	fits := false
	for _, s := range c.stays {
		if s.room != p.room || s.over || !s.announced || s.out != 0 && s.out < p.at || p.except == c {
			continue
		}
		fits = true
		list := t.said[[2]string{p.room, p.publisher}]
		for _, before := range list[min(s.next[p.publisher], p.index):p.index] {
			if s.out == 0 && t.owed(s, before) {
				t.f.complain("gap", "%s reads message %d of %s in %s, and has not read %d", c.id, m, p.publisher, p.room, before.m)
			}
		}
		s.next[p.publisher] = p.index + 1
	}
	if !fits {
		t.f.complain("delivery", "%s reads message %d of %s, which is not for it", c.id, m, p.room)
	}
}

// announce notes that a client knows of its stay in a room by another message than the answer to its own join.
func (c *fleetConn) announce(room string) {
	var next *fleetStay
	for _, s := range c.stays {
		if s.room != room || s.announced {
			continue
		}
		if next == nil || next.byMessage && !s.byMessage {
			next = s
		}
	}
	if next != nil {
		next.announced = true
	}
}

// toldLeft notes that a client knows of the end of its stay.
func (c *fleetConn) toldLeft(room string) {
	for _, s := range c.stays {
		if s.room == room && s.announced && s.out != 0 && !s.over {
			s.over = true
			return
		}
	}
}

// noticed checks a member_joined or member_left.
func (t *fleetTruth) noticed(c *fleetConn, room, id string, joined bool) {
	for _, s := range c.stays {
		switch {
		case s.room != room || s.over || !s.announced:
		case id == c.id:
			t.f.complain("notices", "%s is told about itself in room %s", c.id, room)
		case joined && s.view[id] == present && t.heardAll(c.client.w, t.conns[id], s.in):
			t.f.complain("notices", "%s is told twice that %s joined %s", c.id, id, room)
		case joined:
			s.view[id] = present
		default:
			s.view[id] = gone
		}
	}
}

// refused checks an error that answers a request.
func (t *fleetTruth) refused(k *fleetClient, q *fleetRequest, code string) {
	if q.numbers != nil {
		t.f.annals.refused(k, q, code)
	}
	if q.published != nil {
		q.published.refused = true
		if !t.f.plan.creates && !(code == "forbidden" && q.published.forbidden) { // else the room may just have been deleted
			t.f.complain("answers", "%s is in %s, and its broadcast is answered with %s", k.name, q.room, code)
		}
	}
	switch q.typ {
	case "reconnect":
		t.spurned(k, q, code)
	case "join", "leave":
		k.truth.refusedAt[q.room] = t.f.now
	}
}

// members are the connections in a room, over all workers.
func (t *fleetTruth) members(room string) (list []*fleetConn) {
	for _, c := range t.ordered {
		if c.ended == 0 && c.stay(room) != nil {
			list = append(list, c)
		}
	}
	return list
}

func idsOf(list []*fleetConn) (ids []string) {
	for _, c := range list {
		ids = append(ids, c.id)
	}
	slices.Sort(ids)
	return ids
}

// heardAll reports whether a worker has reported no loss of messages from another connection's worker.
func (t *fleetTruth) heardAll(w *worker, other *fleetConn, since int) bool {
	return other != nil && t.lost[lossOf(w, other.client.w.instance)] < since
}

// lossOf is the key in lost of a receiver and a publisher.
func lossOf(w *worker, from ident.Worker) [2]ident.Worker { return [2]ident.Worker{w.instance, from} }
