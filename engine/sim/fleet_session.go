package sim

import (
	"crypto/sha256"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/engine/internal/fleet"
	workers "github.com/parleyd/parley/engine/internal/membership"
)

// fleetSession is the expected state behind a token.
//
// Owner: the simulation.
type fleetSession struct {
	of        *fleetConn
	hash      [16]byte // of the token, as the store knows it
	at        int      // when the client got the token
	used      int
	asks      []*asking // reconnect messages with this token
	exhausted bool      // it was resumed too often in a row
}

// asking is a reconnect message.
//
// Owner: the simulation.
type asking struct {
	by      *fleetClient
	at      int
	session *fleetSession
	refused bool
	settled int // when it was answered
}

// given notes a token that a client got.
func (t *fleetTruth) given(k *fleetClient, token string) {
	k.person.known = append(k.person.known, token)
	sum := sha256.Sum256([]byte(token))
	s := &fleetSession{of: k.truth, hash: [16]byte(sum[:]), at: t.tick()}
	t.sessions[token], k.truth.sessions = s, append(k.truth.sessions, s)
}

// reconnect shows a token: mostly the person's own latest, sometimes any.
func (f *Fleet) reconnect(k *fleetClient) {
	from := k.person
	if f.chance(0.1) {
		from = f.people[f.rand.IntN(len(f.people))]
	}
	if len(from.known) == 0 {
		return
	}
	token := from.known[len(from.known)-1-min(pick(f.rand, 0, 0, 0, 1, 2), len(from.known)-1)]
	s := f.truth.sessions[token]
	last, text := f.lastOf(s.of)
	q := k.ask("reconnect", "", `,"token":"`+token+`"`+text)
	q.token, q.last = token, last
	x := &asking{by: k, at: q.at, session: s}
	s.asks, k.shown = append(s.asks, x), append(k.shown, x)
}

// settleAsking notes the result of a reconnect message.
func (k *fleetClient) settleAsking(q *fleetRequest, refused bool) {
	for _, x := range k.shown {
		if x.at == q.at {
			x.settled, x.refused = k.f.truth.tick(), refused
		}
	}
}

// doubtful reports whether a session may be over although its token was not used: another client has shown the token and got
// no answer, or the session's own connection has become the heir of another one.
func (s *fleetSession) doubtful(by *fleetRequest) bool {
	own := slices.ContainsFunc(s.of.client.shown, func(x *asking) bool { return !x.refused && (x.settled == 0 || x.settled > s.at) })
	for _, other := range s.of.sessions { // a claimant of an earlier one takes over the connection, and ends the later
		if slices.ContainsFunc(other.asks, func(x *asking) bool { return x.at != by.at && !x.refused }) {
			return true
		}
	}
	return own
}

// wanted reports whether another client may have claimed a session of this one before its own request was answered: the server
// then refuses the request, since it is about to end the connection in favour of that client. A claim that fails counts, too: the
// hand-over may have begun before.
func (k *fleetClient) wanted(q *fleetRequest) bool {
	return slices.ContainsFunc(k.truth.sessions, func(s *fleetSession) bool {
		return slices.ContainsFunc(s.asks, func(x *asking) bool { return x.by != k && (!x.refused || x.settled > q.at) })
	})
}

// spurned checks the refusal of a token.
func (t *fleetTruth) spurned(k *fleetClient, q *fleetRequest, code string) {
	k.settleAsking(q, true)
	s, f := t.sessions[q.token], t.f
	switch {
	case code == "unavailable" && f.plan.sound() && len(s.asks) == 1 && len(s.of.sessions) == 1 && len(s.of.client.shown) == 0 && !k.wanted(q):
		f.complain("sessions", "%s is told %s, and nothing is away", k.name, code)
	case code == "attempts_exhausted" && f.plan.config.ReconnectionMaxAttempts > 10:
		f.complain("sessions", "%s is told %s", k.name, code)
	case code == "already_resumed" && !slices.ContainsFunc(k.shown, func(x *asking) bool { return x.at < q.at && x.settled != 0 && !x.refused }):
		f.complain("sessions", "%s is told %s", k.name, code)
	case code != "invalid_token" || s.used > 0 || s.of == k.truth || s.exhausted || s.doubtful(q) || t.mayBeLost(s) || t.foreign(k, s):
	case s.of.ended != 0 && f.now-s.of.endedAt > f.plan.config.ReconnectionTTL-time.Second:
	default:
		f.complain("sessions", "%s shows a good token of %s and is told %s", k.name, s.of.id, code)
	}
	s.exhausted = s.exhausted || code == "attempts_exhausted"
}

// restored checks the state that a token restored.
func (t *fleetTruth) restored(k *fleetClient, q *fleetRequest, b *body) {
	k.settleAsking(q, false)
	s := t.sessions[q.token]
	t.resumed++
	t.mayResume(k, s)
	if s.used++; s.used > 1 {
		t.f.complain("sessions", "%s resumes with a token that was used before", k.name)
	}
	if b.Previous != s.of.id {
		t.f.complain("sessions", "%s resumes %s with a token of %s", k.name, b.Previous, s.of.id)
	}
	for _, room := range b.Rooms {
		k.truth.announce(room)
	}
	got := slices.Clone(b.Rooms)
	for _, lost := range b.Lost {
		got = append(got, lost.Room)
	}
	t.compare(k, s.of, got)
}

// compare compares the restored rooms with those of the earlier connection.
func (t *fleetTruth) compare(k *fleetClient, old *fleetConn, got []string) {
	f := t.f
	if old.ended == 0 || f.trouble > 0 && min(old.endedAt, f.now)-f.trouble < 3*time.Second || f.plan.storeDelay > quickStore {
		return
	}
	if old.note != "" && k.truth.inherited != old.note && old.firm(old.notedAt) {
		f.complain("sessions", "%s inherits the attribute %q, %s had %q", k.name, k.truth.inherited, old.id, old.note)
	}
	t.marksRestored(k.truth, old)
	for i := range f.plan.rooms {
		room := roomOf(i)
		was, since := old.had(room)
		if old.firm(since) && !old.moving(room) && was != slices.Contains(got, room) {
			f.complain("sessions", "%s resumes %s and gets the rooms %v; that it was in %s was %v since %v", k.name, old.id, got, room, was, since)
		}
	}
}

// quickStore is the greatest delay of a store that keeps changes older than 50 ms without help.
const quickStore = 10 * time.Millisecond

// had reports whether a connection was in a room when it ended, and since when.
func (c *fleetConn) had(room string) (was bool, since time.Duration) {
	for _, s := range c.stays {
		switch {
		case s.room != room:
		case s.final:
			was, since = true, s.inAt
		default:
			was, since = false, s.outAt
		}
	}
	return was, since
}

// storedWithin is the time in which a change reaches a sound store.
const storedWithin = 50 * time.Millisecond

// firm reports whether a change at a time must have outlived the connection's worker. A store that was busy then, or that had given
// the session to a claimant, gets the change a second later.
func (c *fleetConn) firm(at time.Duration) bool {
	w := c.client.w
	late := func(s *fleetSession) bool { return w.shelves.late[s.hash] >= at }
	return !w.dead || (w.kept || w.died-at > storedWithin) && !slices.ContainsFunc(c.sessions, late)
}

// moving reports whether the session of a connection may have been stored, or handed over, with a join or leave of the room that
// did not happen, or without the room, which was being deleted.
func (c *fleetConn) moving(room string) bool {
	if at, ok := c.refusedAt[room]; ok && c.client.w.dead && c.client.w.died-at <= storedWithin {
		return true
	}
	last := slices.IndexFunc(c.stays, func(s *fleetStay) bool { return s.room == room && s.unsure })
	return last >= 0 || c.client.w.dead && slices.ContainsFunc(c.client.asked, func(q *fleetRequest) bool { return q.room == room })
}

// Backends on any worker set an attribute of any connection. The last writer wins: of two values, one of which was set when the
// other was asked for, the other stays. A resume restores it.

// marking is one value of the attribute, as a backend set it.
//
// Owner: the simulation.
type marking struct {
	value  string
	asked  int // see fleetTruth.clock
	set    int // 0: perhaps not yet
	setAt  time.Duration
	failed bool
}

// mark makes a backend on a worker set the attribute.
func (f *Fleet) mark(w *worker, c *fleetConn) {
	x := &marking{value: strconv.Itoa(f.number()), asked: f.truth.tick()}
	c.marks = append(c.marks, x)
	f.tracef("worker %d marks %s with %s", w.instance, c.id, x.value)
	change := fleet.AttributesChange{Keys: []string{"mark"}, Values: [][]byte{[]byte(strconv.Quote(x.value))}}
	q := workers.Question{Verb: fleet.Attributes, ID: c.id, With: func(q *fleet.Writer) { q.B = change.AppendTo(q.B) }}
	w.server.Server.Worker().AskThen(q, func(err error) {
		f.tracef("worker %d has marked %s with %s: %v", w.instance, c.id, x.value, err)
		switch {
		case err == nil:
			x.set, x.setAt = f.truth.tick(), f.now
			f.truth.marked(c)
		case !errors.Is(err, fleet.ErrUnanswered):
			x.failed = true
		}
	})
}

// marked checks the attribute of a connection.
func (t *fleetTruth) marked(c *fleetConn) {
	value, _ := engine.Attribute[string](c.conn, "mark")
	if !c.mayHave(value, func(*marking) bool { return true }) {
		t.f.complain("attributes", "%s is marked with %q, which was overwritten or never set", c.id, value)
	}
}

// mayHave reports whether a value is not overwritten by another that counts.
func (c *fleetConn) mayHave(value string, counts func(*marking) bool) bool {
	return slices.ContainsFunc(c.marks, func(x *marking) bool {
		return x.value == value && !x.failed && (x.set == 0 || !slices.ContainsFunc(c.marks, func(later *marking) bool {
			return later.set != 0 && later.asked > x.set && counts(later)
		}))
	})
}

// marksBegin notes the value with which a connection begins, or goes on after a resume.
func (t *fleetTruth) marksBegin(c *fleetConn) {
	value, _ := engine.Attribute[string](c.conn, "mark")
	c.marks = slices.DeleteFunc(c.marks, func(x *marking) bool { return x.set != 0 || x.failed })
	c.marks = append(c.marks, &marking{value: value, asked: t.tick(), set: t.tick(), setAt: t.f.now})
}

// marksRestored checks the value that a resume has restored. One that the session does not have stays that of the heir.
func (t *fleetTruth) marksRestored(heir, old *fleetConn) {
	firm := func(x *marking) bool { return x.set != 0 && x.value != "" && old.firm(x.setAt) }
	if slices.ContainsFunc(old.marks, firm) && !old.mayHave(heir.inheritedMark, firm) {
		t.f.complain("attributes", "%s inherits the mark %q of %s, which was overwritten or never set", heir.id, heir.inheritedMark, old.id)
	}
}
