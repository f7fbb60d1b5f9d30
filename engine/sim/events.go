package sim

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/parleyd/parley/engine"
)

// body has the fields of the simulation's messages, in both directions.
//
// Owner: the simulation.
type body struct {
	Type     string          `json:"type"`
	Room     string          `json:"room"`
	Ref      int             `json:"ref"`
	M        int             `json:"m"`
	Data     *body           `json:"data"`
	ID       string          `json:"connection_id"`
	Previous string          `json:"previous_connection_id"`
	From     json.RawMessage `json:"from"`
	Token    string          `json:"token"`
	Members  json.RawMessage `json:"members"`
	Code     string          `json:"code"`
	Rooms    []string        `json:"rooms"`
	Lost     []struct {
		Room string `json:"room"`
	} `json:"lost"`
	Recipients int `json:"recipients"`
	placing
}

// number is the number of the message that b carries, 0 for none.
func (b *body) number() int {
	if b.Data != nil {
		return b.Data.M
	}
	return b.M
}

// from is a from that is a text.
func (b *body) from() string { return strings.Trim(string(b.From), `"`) }

// listen updates the truth with the server's events. Each event comes on a loop, in the middle of its turn.
func (t *truth) listen(e *engine.Emitter) {
	e.On(engine.EventConnect, t.connected)
	e.On(engine.EventMessage, t.message)
	e.On(engine.EventRoomJoin, t.joined)
	e.On(engine.EventRoomLeave, t.left)
	e.On(engine.EventReconnect, t.resumed)
	e.On(engine.EventDisconnect, t.disconnected)
	e.On(engine.EventError, func(ev engine.Event) { t.w.complain("errors", "%v", ev.Err) })
}

func (t *truth) connected(ev engine.Event) {
	k := t.w.clientOf(ev.Conn)
	c := &conn{speaker: speaker{id: ev.Conn.ID()}, conn: ev.Conn, client: k, direct: &room{name: "direct"}, heardAt: t.w.now,
		leaves: map[string]int{}, holds: map[*room]int{}, handedOver: map[*room]int{}, last: map[string]int{}}
	c.began = &c.speaker
	if t.w.plan.authHandler {
		c.heardAt = k.heardAt
	}
	t.conns[ev.Conn], t.byID[c.id] = c, c
	k.truth, k.as = c, &c.speaker
	t.begin(c, c.direct, 0).announced = true
	t.begin(c, t.everyone, 0).announced = true
	t.w.tracef("%s is admitted as %s", k.name, c.id)
}

func (t *truth) message(ev engine.Event) {
	c := t.conns[ev.Conn]
	var b body
	if json.Unmarshal(ev.Message.Payload(), &b) != nil {
		return
	}
	q := t.w.clientOf(ev.Conn).request(b.Ref)
	if q != nil {
		q.taken = true
	}
	if c == nil {
		return
	}
	c.current = q
	if q != nil && t.w.plan.historic {
		t.foresee(q)
	}
	switch q := c.current; {
	case q == nil:
	case b.Type == "broadcast":
		if ms := c.open(b.Room, false); ms != nil {
			t.broadcasts(c, q, ms.room, b.Data.M)
		}
	case b.Type == "join" && c.open(b.Room, false) != nil:
		c.current = nil // it is a member already
	case b.Type == "reconnect":
		if s := t.sessions[b.Token]; s != nil {
			c.claims = s.of
			if s.of.claimedAt == 0 {
				s.of.claimedAt = t.w.now
			}
		}
	}
}

func (t *truth) joined(ev engine.Event) {
	c, r := t.conns[ev.Conn], t.room(ev.Room)
	t.chronicle(ev.Room)
	at, held := c.holds[r]
	delete(c.holds, r)
	q := c.current
	byMessage := !held && q != nil && q.typ == "join" && q.room == ev.Room && q.entered == nil
	inherits := !held && q != nil && q.typ == "reconnect" && c.claims != nil && slices.Contains(c.claims.final, ev.Room)
	if !held {
		at = len(r.log)
		if inherits {
			if then, ok := c.claims.handedOver[r]; ok {
				at = then
			}
		}
	}
	ms := t.begin(c, r, at)
	if held {
		ms.latest = at
	}
	switch {
	case byMessage:
		q.entered, q.members, ms.strict = ms, len(r.members), true
	case inherits:
		q.inherited = append(q.inherited, ms)
	default:
		ms.announced = true
	}
	if limit := t.w.plan.config.MaxConnectionsPerRoom; limit > 0 && len(r.members) > limit {
		t.w.complain("limits", "room %s has %d members, %d are allowed", r.name, len(r.members), limit)
	}
	if limit, n := t.w.plan.config.MaxRoomsPerConnection, len(c.conn.Rooms()); limit > 0 && n > limit {
		t.w.complain("limits", "%s is in %d rooms, %d are allowed", c.id, n, limit)
	}
	t.w.tracef("%s enters %s", c.id, r.name)
	t.w.meanwhile()
}

func (t *truth) left(ev engine.Event) {
	c := t.conns[ev.Conn]
	asked := c.current != nil && c.current.typ == "leave" && c.current.room == ev.Room && c.current.entered == nil &&
		(c.conn.Cause() == engine.CauseNone || !t.w.mayNumber(ev.Room)) // a leave that waited is not carried out then
	ms := c.open(ev.Room, true)
	if ms == nil || asked && c.open(ev.Room, false) != nil {
		ms = c.open(ev.Room, false)
	}
	if ms == nil {
		t.w.complain("events", "%s leaves room %s, where it is not", c.id, ev.Room)
		return
	}
	switch {
	case asked:
		c.current.entered = ms
	case ms.room.deleted:
	case c.conn.Cause() != engine.CauseNone:
		c.final = append(c.final, ev.Room)
	default:
		if c.leaves[ev.Room] > 0 {
			c.leaves[ev.Room]--
			c.unsure = true
		}
		c.handedOver[ms.room] = len(ms.room.log)
		c.final = append(c.final, ev.Room)
	}
	t.finish(ms)
	t.w.tracef("%s leaves %s", c.id, ev.Room)
	t.w.meanwhile()
}

func (t *truth) resumed(ev engine.Event) {
	c, old := t.conns[ev.Conn], t.byID[ev.Session.PreviousConnectionID]
	if old == nil {
		t.w.complain("sessions", "%s resumes the session of nobody", c.id)
		return
	}
	if limit := t.w.plan.config.ReconnectionMaxAttempts; ev.Session.Attempts > limit {
		t.w.complain("sessions", "%s was resumed %d times in a row, %d are allowed", c.id, ev.Session.Attempts, limit)
	}
	if value, _ := engine.Attribute[string](c.conn, "note"); value != old.attribute && old.attribute != "" {
		t.w.complain("sessions", "%s inherits the attribute %q, its session had %q", c.id, value, old.attribute)
	} else if old.attribute != "" {
		c.attribute = value
	}
	c.current = nil
	c.follow(&old.speaker)
	t.w.tracef("%s resumes %s", c.id, old.id)
}

// turnEnded clears the present message of a loop's connections, unless it may go on in a later turn.
func (t *truth) turnEnded(loop int) {
	for _, k := range t.w.clients {
		if c := k.truth; c != nil && k.loop == loop && c.current != nil && !t.goesOn(c.current) {
			c.current = nil
		}
	}
}

// goesOn reports whether a request may be carried out in a later turn. A leave waits for the answers of rooms with history.
func (t *truth) goesOn(q *request) bool {
	return q.typ == "reconnect" || q.typ == "join" || q.typ == "leave" && t.w.mayNumber(q.room)
}

func (t *truth) disconnected(ev engine.Event) {
	c := t.conns[ev.Conn]
	c.ended, c.endedAt = true, t.w.now
	if q := c.current; q != nil && q.typ == "leave" && ev.Cause == engine.CauseTakenOver {
		c.unsure = true // the leave was that of the take-over: one that waits is not carried out
	}
	for _, ms := range c.shown {
		if ms.end < 0 {
			if ms.room != c.direct && ms.room != t.everyone {
				t.w.complain("events", "%s has ended, and is still in room %s", c.id, ms.room.name)
			}
			t.finish(ms)
		}
	}
	silence := t.w.now - c.heardAt
	if ev.Cause == engine.CauseHeartbeat && silence < t.w.plan.config.HeartbeatTimeout {
		t.w.complain("heartbeat", "%s is cut off after a silence of %v", c.id, silence)
	}
	slices.Sort(c.final)
	t.w.tracef("%s has ended: %v", c.id, ev.Cause)
	t.w.meanwhile()
}
