package sim

import (
	"slices"
	"time"

	"github.com/parleyd/parley/engine"
)

// truth is the expected state, as the events tell it: the members of each room, the order of its messages, and so the
// messages that each client must get.
//
// Owner: the simulation.
type truth struct {
	w        *World
	rooms    map[string]*room
	conns    map[*engine.Conn]*conn
	byID     map[string]*conn
	everyone *room // what is broadcast to all
	messages map[int]*published
	sessions map[string]*session

	chronicles map[string]*chronicle // the latest of each room
	epochs     map[string]*chronicle
}

// room is one incarnation of a room: a deleted room and a later one of the same name are two. A connection's own messages
// and those to all connections are rooms of their own here.
//
// Owner: the simulation.
type room struct {
	name    string
	log     []entry
	members []*membership // that entered and have not left, in order
	deleted bool
}

// entry is a message in a room.
type entry struct {
	m      int
	except *conn
}

// published has the places of a message.
type published struct {
	publisher string
	places    map[*room]int
}

// conn is a connection that was admitted.
//
// Owner: the simulation.
type conn struct {
	speaker
	conn       *engine.Conn
	client     *client
	shown      []*membership // in the order in which they began, ended ones too
	direct     *room
	endedAt    time.Duration
	final      []string // the rooms that it was in when it ended
	attribute  string
	current    *request
	heardAt    time.Duration
	claims     *conn          // the connection whose session it asked for last
	claimedAt  time.Duration  // when its own session was first asked for; 0: never
	leaves     map[string]int // asked for by the application, not done yet
	holds      map[*room]int  // seats taken by the application: the room's log then
	handedOver map[*room]int  // rooms that it left to an heir: the room's log then
	unsure     bool           // of the rooms that its session restores
	last       map[string]int // the latest message of each publisher, of those without a number
}

// membership is a stay in a room, and how many of its messages have been read.
//
// Owner: the simulation.
type membership struct {
	conn      *conn
	room      *room
	start     int // the first place that is owed
	latest    int // the first place that is owed for certain
	end       int // -1: it goes on
	next      int // the place that must be read next
	begun     bool
	announced bool // the client knows of it, or need not know
	over      bool // the client read that it has left
	strict    bool // view is exact from the start
	view      map[string]bool
}

// session is the expected state behind a token.
type session struct {
	of   *conn
	used int
}

func newTruth(w *World) *truth {
	return &truth{w: w, rooms: map[string]*room{}, conns: map[*engine.Conn]*conn{}, byID: map[string]*conn{},
		everyone: &room{name: "everyone"}, messages: map[int]*published{}, sessions: map[string]*session{},
		chronicles: map[string]*chronicle{}, epochs: map[string]*chronicle{}}
}

// reader is the place of a new client in the rooms with history.
func (t *truth) reader(name string) reader {
	return reader{scene: t.w, name: name, epochs: t.epochs, stands: map[string]*stand{}}
}

func (t *truth) room(name string) *room {
	r := t.rooms[name]
	if r == nil {
		r = &room{name: name}
		t.rooms[name] = r
	}
	return r
}

// begin starts a membership. at is the place from which on messages are owed.
func (t *truth) begin(c *conn, r *room, at int) *membership {
	ms := &membership{conn: c, room: r, start: at, latest: len(r.log), next: at, end: -1, view: map[string]bool{}}
	r.members = append(r.members, ms)
	c.shown = append(c.shown, ms)
	for _, other := range r.members {
		ms.view[other.conn.id] = true
	}
	return ms
}

func (t *truth) finish(ms *membership) {
	ms.end = len(ms.room.log)
	ms.room.members = slices.DeleteFunc(ms.room.members, func(other *membership) bool { return other == ms })
	if h := t.chronicles[ms.room.name]; h != nil {
		h.usedAt = t.w.now
	}
}

// publish gives message m its place in each of some rooms.
func (t *truth) publish(m int, publisher string, except *conn, list ...*room) {
	p := &published{publisher: publisher, places: map[*room]int{}}
	t.messages[m] = p
	for _, r := range list {
		t.w.tracef("%s publishes %d in %s", publisher, m, r.name)
		p.places[r] = len(r.log)
		r.log = append(r.log, entry{m, except})
	}
}

// owed is the next place of which ms must read the message; the log's length if there is none.
func (ms *membership) owed() int {
	i := ms.next
	for i < len(ms.room.log) && ms.room.log[i].except == ms.conn {
		i++
	}
	return i
}

// covers reports whether the message at a place of the room is for ms.
func (ms *membership) covers(r *room, at int) bool {
	return ms.room == r && at >= ms.start && (ms.end < 0 || at < ms.end) && r.log[at].except != ms.conn
}

// read checks that a client may read message m now.
func (t *truth) read(c *conn, m int) {
	p := t.messages[m]
	if p == nil {
		t.w.complain("delivery", "%s reads message %d, which nobody sent", c.id, m)
		return
	}
	if c.last[p.publisher] >= m {
		t.w.complain("order", "%s reads message %d of %s after %d", c.id, m, p.publisher, c.last[p.publisher])
	}
	c.last[p.publisher] = m
	var fits, stale *membership
	for _, ms := range c.shown {
		at, ok := p.places[ms.room]
		if !ok || !ms.covers(ms.room, at) {
			continue
		}
		if len(p.places) > 1 && (ms.over || !ms.announced || ms.end >= 0 && ms.owed() != at) {
			stale = ms
			continue
		}
		if fits != nil && fits.room == ms.room {
			continue // the end of a stay and the uncertain beginning of the next
		}
		fits = ms
		t.advance(ms, at, m)
	}
	if fits == nil && stale == nil {
		t.w.complain("delivery", "%s reads message %d, which is not for it", c.id, m)
	}
}

func (t *truth) advance(ms *membership, at, m int) {
	owed := ms.owed()
	switch {
	case ms.over:
		t.w.complain("delivery", "%s reads message %d of room %s after it left", ms.conn.id, m, ms.room.name)
	case !ms.announced:
		t.w.complain("delivery", "%s reads message %d of room %s before it was told that it joined", ms.conn.id, m, ms.room.name)
	case at < owed && at < ms.next:
		t.w.complain("order", "%s reads message %d of room %s again, or too late", ms.conn.id, m, ms.room.name)
	case at > owed && (ms.begun || owed >= ms.latest || at > ms.sure()):
		t.w.complain("gap", "%s reads message %d of room %s before %d", ms.conn.id, m, ms.room.name, ms.room.log[owed].m)
	}
	ms.begun = true
	ms.next = at + 1
}

// sure is the first place whose message is owed for certain.
func (ms *membership) sure() int {
	i := ms.latest
	for i < len(ms.room.log) && ms.room.log[i].except == ms.conn {
		i++
	}
	return i
}

// missing is a message that ms should have read when the world is at rest.
func (ms *membership) missing() (m int, is bool) {
	at := ms.owed()
	if !ms.begun {
		at = max(at, ms.sure())
	}
	if ms.end >= 0 || at >= len(ms.room.log) {
		return 0, false
	}
	return ms.room.log[at].m, true
}

// stays are the memberships that a client may believe to have in a room of that name: several if the application removed and
// added it without a message to the client.
func (c *conn) stays(name string) (list []*membership) {
	for _, ms := range c.shown {
		if ms.room.name == name && ms.announced && !ms.over {
			list = append(list, ms)
		}
	}
	return list
}

// toldLeft notes that a client knows of a room's end, or of its removal from the room.
func (c *conn) toldLeft(name string) {
	for _, ms := range c.stays(name) {
		if ms.end >= 0 {
			ms.over = true
			return
		}
	}
}

// open is a membership that goes on, in the living room of that name or in a deleted one.
func (c *conn) open(name string, deleted bool) *membership {
	for _, ms := range c.shown {
		if ms.room.name == name && ms.end < 0 && ms.room.deleted == deleted {
			return ms
		}
	}
	return nil
}

// noticed checks a member_joined or member_left.
func (t *truth) noticed(c *conn, name, id string, joined bool) {
	stays := c.stays(name)
	switch {
	case t.w.plan.config.AnnounceMembersMax < 0:
		t.w.complain("notices", "%s is told who comes and goes, although that is off", c.id)
	case len(stays) == 0:
		t.w.complain("notices", "%s is told about %s in room %s, where it is not", c.id, id, name)
	case id == c.id:
		t.w.complain("notices", "%s is told about itself in room %s", c.id, name)
	}
	for _, ms := range stays {
		ms.strict = ms.strict && len(stays) == 1
		if ms.strict && ms.view[id] == joined {
			t.w.complain("notices", "%s is told in room %s that %s joined: %v, which it knew", c.id, name, id, joined)
		}
		if joined {
			ms.view[id] = true
		} else {
			delete(ms.view, id)
		}
	}
}

// settled checks that an open client has read all its messages when nothing can move. A claimant of the session of a
// connection that does not read waits up to heirsWait for that connection's messages.
func (t *truth) settled(c *conn) {
	for _, ms := range c.shown {
		if m, is := ms.missing(); is {
			t.w.complain("gap", "%s never reads message %d of room %s", c.id, m, ms.room.name)
		}
		if ms.end < 0 && !ms.room.deleted {
			t.atTop(c, ms.room.name)
		}
		if !ms.strict || ms.end >= 0 || ms.over || t.w.plan.config.AnnounceMembersMax < 0 || ms.room.deleted {
			continue
		}
		present := map[string]bool{}
		for _, other := range ms.room.members {
			present[other.conn.id] = true
			if !ms.view[other.conn.id] {
				t.w.complain("notices", "%s never learns that %s is in room %s", c.id, other.conn.id, ms.room.name)
			}
		}
		for id := range ms.view {
			if !present[id] {
				t.w.complain("notices", "%s still believes that %s is in room %s", c.id, id, ms.room.name)
			}
		}
	}
	if n := len(c.client.asked); n > 0 && !(c.claims != nil && !c.claims.ended && c.claims.client.frozen) {
		t.w.complain("answers", "%s waits for %d answers, the first to %v", c.id, n, c.client.asked[0])
	}
}
