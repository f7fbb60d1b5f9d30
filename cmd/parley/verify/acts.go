package verify

import (
	"fmt"
	"time"

	"github.com/parleyd/parley/cmd/parley/verify/history"
)

// act is one kind of behaviour of a client. try performs it on an actor's main connection, which is open and lively, and
// reports whether it was possible.
//
// Owner: immutable.
type act struct {
	name   string
	weight int
	plain  bool // possible in every dialect
	try    func(a *actor, c *conn) bool
}

var acts = []act{
	{"publish", 560, true, (*actor).publish},
	{"join", 150, true, (*actor).join},
	{"leave", 60, false, (*actor).leave},
	{"join again", 10, false, (*actor).joinAgain},
	{"members", 30, false, (*actor).askMembers},
	{"ping", 30, false, func(_ *actor, c *conn) bool { c.ping(); return true }},
	{"publish elsewhere", 15, false, (*actor).publishElsewhere},
	{"leave elsewhere", 5, false, (*actor).leaveElsewhere},
	{"nonsense", 10, false, (*actor).nonsense},
	{"cut", 25, true, func(_ *actor, c *conn) bool { c.hang(); return true }},
	{"close", 10, true, func(_ *actor, c *conn) bool { c.close(); return true }},
	{"stall", 10, true, func(a *actor, c *conn) bool { c.stall(a.between(50*time.Millisecond, time.Second)); return true }},
	{"flood a slow reader", 2, false, (*actor).flood},
	{"freeze", 4, false, func(_ *actor, c *conn) bool { c.freeze(); return true }},
	{"freeze and come back", 8, false, (*actor).freezeAndResume},
	{"fall silent", 4, false, func(_ *actor, c *conn) bool { c.mute(); return true }},
	{"take over", 10, false, (*actor).takeOver},
	{"show a used token", 12, false, (*actor).showUsed},
	{"show its own token", 5, false, (*actor).showOwn},
	{"show a made-up token", 4, false, (*actor).showMadeUp},
	{"resume twice", 6, false, (*actor).resumeTwice},
	{"show a revoked token", 6, false, (*actor).showRevoked},
}

// roomsEach bounds the rooms of one connection.
const roomsEach = 3

// choose draws an act for an actor.
func (a *actor) choose() *act {
	total, list := 0, acts
	if a.k.remembers() {
		list = rememberingActs
	}
	for i := range list {
		total += list[i].weight
	}
	draw := a.rng.IntN(total)
	for i := range list {
		if draw -= list[i].weight; draw < 0 {
			return &list[i]
		}
	}
	return nil
}

// perform makes an actor do one act, if it can.
func (a *actor) perform() {
	c := a.main
	if c == nil || c.phase != open || c.mode != lively || c.claimed || c.dismissed != 0 || len(a.conns) > 1 {
		return
	}
	for range choices {
		if x := a.choose(); (x.plain || a.k.speaks.members) && x.try(a, c) {
			a.k.report.Done[x.name]++
			return
		}
	}
}

// choices is the most draws of an actor for an act that it can do.
const choices = 5

// stayOf draws one of the rooms in which c certainly is; nil if there is none.
func (a *actor) stayOf(c *conn) *stay {
	var chosen *stay
	n := 0
	for _, r := range a.k.rooms { // not the map: its order does not depend on the seed
		if s := c.stays[r]; s != nil && s.state == in {
			if n++; a.rng.IntN(n) == 0 {
				chosen = s
			}
		}
	}
	return chosen
}

// stranger draws a room, and returns it if c is neither in it nor on its way in or out; else nil.
func (a *actor) stranger(c *conn) *room {
	r := a.k.drawRoom(a.rng)
	if s := c.stays[r]; s != nil && s.state != out {
		return nil
	}
	return r
}

func (a *actor) publish(c *conn) bool {
	s := a.stayOf(c)
	if s == nil {
		return false
	}
	var want []string
	if !a.mayPublish(s.room) {
		want = forbidden
	}
	for range 1 + a.rng.IntN(3) {
		c.publish(s.room, want...)
	}
	return true
}

func (a *actor) join(c *conn) bool {
	r, n := a.stranger(c), 0
	for _, s := range c.stays {
		if s.state != out {
			n++
		}
	}
	if r == nil || n >= a.k.roomsEach() {
		return false
	}
	a.joinHow(c, r)
	return true
}

// joinHow joins a room, in one of the ways in which a client can ask for missed messages.
func (a *actor) joinHow(c *conn, r *room) {
	if a.k.remembers() {
		if x := a.drawStart(c, r); x != nil {
			c.join(r, x)
			return
		}
	}
	var since *history.Asked
	if a.rng.IntN(6) == 0 {
		since = &never
	}
	c.join(r, since)
}

// never asks for messages of an epoch that never existed.
var never = history.Asked{Since: &history.Position{Seq: 1, Epoch: "verify"}}

// forbidden is the answer to a request that the client's token does not allow.
var forbidden = []string{"forbidden"}

// join asks to join; with since, it also asks for missed messages.
func (c *conn) join(r *room, since *history.Asked) {
	k := c.k
	s := c.stays[r]
	already := s != nil && s.state == in
	if since == nil || !k.speaks.refs {
		since = &history.Asked{}
	}
	q := c.expect(&request{kind: "join", room: r, already: already, gap: since == &never})
	if c.past != nil {
		q.start = r.history.Asks(*since)
	}
	if !c.actor.mayJoin(r) {
		q.want = forbidden
	}
	if !already {
		c.stayIn(r, joining)
	}
	c.note(step{what: "asks to join", room: r, n: -1})
	text := k.speaks.join(r.name, q.ref)
	c.say(append(since.Append(text[:len(text)-1]), '}'))
}

func (a *actor) joinAgain(c *conn) bool {
	s := a.stayOf(c)
	if s != nil {
		a.joinHow(c, s.room)
	}
	return s != nil
}

func (a *actor) leave(c *conn) bool {
	s := a.stayOf(c)
	if s == nil {
		return false
	}
	q := c.expect(&request{kind: "leave", room: s.room})
	c.note(step{what: "asks to leave", room: s.room, n: -1})
	c.say(about("leave", s.room.name, q.ref))
	s.become(leaving)
	return true
}

func (a *actor) askMembers(c *conn) bool {
	s := a.stayOf(c)
	if s == nil {
		return false
	}
	q := c.expect(&request{kind: "members", room: s.room})
	c.note(step{what: "asks for the members of", room: s.room, n: -1})
	c.say(about("members", s.room.name, q.ref))
	return true
}

func (a *actor) publishElsewhere(c *conn) bool {
	r := a.stranger(c)
	if r == nil {
		return false
	}
	want := []string{"not_in_room"}
	if !a.mayPublish(r) {
		want = append(want, forbidden...)
	}
	c.publish(r, want...)
	return true
}

func (a *actor) leaveElsewhere(c *conn) bool {
	r := a.stranger(c)
	if r == nil {
		return false
	}
	q := c.expect(&request{kind: "leave", room: r, want: []string{"not_in_room"}})
	c.note(step{what: "asks to leave", room: r, n: -1})
	c.say(about("leave", r.name, q.ref))
	return true
}

// nonsense sends a message that must get an error, and must not end the connection.
func (a *actor) nonsense(c *conn) bool {
	text, code := []byte("nonsense"), "invalid_json"
	switch a.rng.IntN(3) {
	case 0:
		text, code = []byte(`{"type":"join","type":"leave","room":"x"}`), "invalid_message"
	case 1:
		text, code = []byte(`{"type":"no such type"}`), "unknown_type"
	}
	c.expect(&request{kind: "junk", want: []string{code}})
	c.note(step{what: "says nonsense, for " + code, n: -1})
	c.say(text)
	return true
}

// flood makes another member of a small room stop reading, and publishes more than a server may keep for it.
func (a *actor) flood(c *conn) bool {
	s := a.stayOf(c)
	if s == nil || s.room.possible > floodRoomMax || !a.mayPublish(s.room) {
		return false
	}
	for other := range s.room.members {
		if other.certain && other != s {
			other.conn.stall(floodMessages/floodPiece*floodPause + a.between(100*time.Millisecond, time.Second))
			if a.k.remembers() {
				a.k.in(floodMessages/floodPiece*floodPause, other.publishUnread)
			}
			break
		}
	}
	c.floodOn(s, floodMessages)
	return true
}

// floodOn publishes n large messages, a few at a time, so that members that read at once keep up.
func (c *conn) floodOn(s *stay, n int) {
	if n == 0 || s.state != in || !c.sure() || c.k.calm {
		return
	}
	c.k.bulky = true
	for range floodPiece {
		c.publish(s.room)
	}
	c.k.bulky = false
	c.k.in(floodPause, func() { c.floodOn(s, n-floodPiece) })
}

const (
	floodRoomMax  = 8
	floodMessages = 50 // 2.4 MB
	floodPiece    = 2
	floodPause    = 20 * time.Millisecond
)

// freezeAndResume leaves a half-open connection behind and goes on with a new one, as a phone does.
func (a *actor) freezeAndResume(c *conn) bool {
	if !c.session.usable(a.k.now) || c.chain >= chainMax {
		return false
	}
	s := c.session
	c.freeze()
	delete(a.conns, c)
	a.main = nil
	if a.k.remembers() { // long enough for a receipt to be asked for
		a.k.in(a.between(0, time.Second), func() { a.resumeFrozen(s) })
		return true
	}
	a.connect(func(heir *conn) { a.claim(heir, s) })
	return true
}

// takeOver resumes the session of a connection that is alive.
func (a *actor) takeOver(c *conn) bool {
	if !c.session.usable(a.k.now) || c.chain >= chainMax {
		return false
	}
	s := c.session
	a.connect(func(heir *conn) { a.claim(heir, s) })
	return true
}

// showUsed shows a used token, on a connection of its own that then ends.
func (a *actor) showUsed(*conn) bool {
	k := a.k
	if len(k.used) == 0 {
		return false
	}
	a.showDead(k.used[a.rng.IntN(len(k.used))])
	return true
}

// showDead shows a token that must be refused, on a connection of its own that then ends.
func (a *actor) showDead(s *session) {
	a.connect(func(c *conn) {
		c.resume(s, "invalid_token").count = func(*body) { a.k.in(0, func() { a.dismiss(c) }) }
	})
}

// dismiss ends a connection that is not the main one.
func (a *actor) dismiss(c *conn) {
	if c.phase != ended && a.main != c {
		c.hang()
	}
}

func (a *actor) showOwn(c *conn) bool {
	if c.session == nil || c.resumed || c.claim != nil {
		return false
	}
	c.resume(c.session, "invalid_token")
	return true
}

func (a *actor) showMadeUp(c *conn) bool {
	if c.resumed {
		return false
	}
	c.resume(&session{token: fmt.Sprintf("verify-%s-%d", a.k.run, a.rng.Uint64()), conn: c}, "invalid_token")
	return true
}

func (a *actor) resumeTwice(c *conn) bool {
	if !c.resumed || len(a.k.used) == 0 {
		return false
	}
	c.resume(a.k.used[a.rng.IntN(len(a.k.used))], "already_resumed", "invalid_token")
	return true
}

// storm cuts many connections at once. Their actors all come back at the same time.
func (k *checker) storm() {
	share := 5 + k.rng.IntN(25)
	n := 0
	for _, a := range k.actors {
		if c := a.main; c != nil && c.phase == open && c.mode == lively && a.rng.IntN(100) < share {
			c.hang()
			n++
		}
	}
	k.report.Done["storms"]++
	k.report.Done["cut by storms"] += int64(n)
}
