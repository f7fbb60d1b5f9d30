package verify

import (
	"fmt"
	"slices"
	"time"
)

// A session is a connection's session on the server, with the claims on its token.
//
// Owner: the goroutine that runs the checker.
type session struct {
	token   string
	conn    *conn // that the session belongs to
	ttl     time.Duration
	asking  int   // claims that are not answered
	winner  *conn // the heir
	revoked bool  // its connection resumed another session
	spoiled bool  // the outcome of a claim is not known, or the server may rightly refuse it
	failed  int   // claims that were refused
	wiped   bool  // its store was wiped while it may have had no connection
}

// tokenRead records a token. The first one makes a connection ready; a second may come only after a resume.
func (c *conn) tokenRead(token string, ttl float64) {
	k := c.k
	c.note(step{what: "reads reconnect_token", n: -1})
	if token == "" || k.tokens[token] != nil {
		k.found("session", nil, []*conn{c}, fmt.Sprintf("%v is given a token that is empty or was given before", c))
		return
	}
	if c.session != nil {
		k.found("session", nil, []*conn{c}, fmt.Sprintf("%v is given a second token without having resumed", c))
	}
	// A revocation that is on its way ends this session too: the server sent the token before it heard of it.
	c.session = &session{token: token, conn: c, ttl: time.Duration(ttl * float64(time.Second)), spoiled: c.dismissed == codeUnauthorized}
	k.tokens[token] = c.session
	if k.remembers() {
		k.book.TTL = c.session.ttl
	}
	if !c.resumed {
		c.actor.up(c)
	}
}

// usable reports whether the token may be shown: no actor has shown it, and its time is not nearly over.
func (s *session) usable(now time.Time) bool {
	return s != nil && s.winner == nil && !s.revoked && !s.spoiled && s.asking == 0 &&
		(s.conn.phase != ended || now.Sub(s.conn.gone) < s.ttl-time.Second)
}

// resume shows a token. want are error codes, one of which must be the answer; without any, one claim must succeed.
func (c *conn) resume(s *session, want ...string) *request {
	k := c.k
	q := c.expect(&request{kind: "reconnect", token: s, want: want})
	text := fmt.Appendf(nil, `{"type":"reconnect","token":%q`, s.token)
	if c.past != nil && c.actor.rng.IntN(6) > 0 {
		text = c.past.namePlaces(q, text)
	} else if c.refs%2 == 0 {
		q.gap = true
		text = append(text, `,"last":{`...)
		first := true
		for r := range s.conn.stays {
			if !first {
				text = append(text, ',')
			}
			first = false
			text = fmt.Appendf(text, `%q:{"seq":1,"epoch":"verify"}`, r.name)
		}
		text = append(text, '}')
	}
	c.note(step{what: "shows the token of " + s.conn.String(), n: -1})
	if want == nil {
		c.claim = s
		s.asking++
		s.conn.claimed = true
		s.conn.await(true)
	}
	k.report.Done["claims"]++
	c.say(withRef(text, q.ref))
	return q
}

// await records whether a resume of c's session is under way.
func (c *conn) await(awaited bool) {
	for _, s := range c.stays {
		s.awaited = awaited
	}
	c.reckon()
}

// reconnected checks the answer to a successful claim, and makes the connection the heir.
func (c *conn) reconnected(q *request, m *body) {
	k, s := c.k, q.token
	c.claim = nil
	s.asking--
	k.report.Checked["sessions"]++
	complain := func(format string, args ...any) {
		k.found("session", nil, []*conn{c, s.conn, s.winner}, fmt.Sprintf("%v resumes %v ", c, s.conn)+fmt.Sprintf(format, args...))
	}
	switch {
	case s.winner != nil:
		complain("with a token that %v has used", s.winner)
	case s.revoked:
		complain("with a token that was revoked")
	case m.ID != c.id || m.Previous != s.conn.id:
		complain("and is told the ids %s and %s; they are %s and %s", m.ID, m.Previous, c.id, s.conn.id)
	}
	s.winner = c
	c.resumed, c.chain, c.tokenDue = true, s.conn.chain+1, k.granted
	if c.session != nil {
		c.session.revoked = true
		c.session = nil
	}
	if q.gap && !slices.Equal(sorted(m.Gaps), sorted(m.Rooms)) {
		k.found("gap", nil, []*conn{c}, fmt.Sprintf("%v resumes rooms %v from an epoch that never was, and is told of gaps in %v", c, m.Rooms, m.Gaps))
	}
	c.restored(s.conn, q, m, complain)
	if c.past != nil {
		c.past.resumed(q, m)
	}
	c.attributes = s.conn.attributes
	c.blurred = s.conn.blurred || s.conn.marking || k.recentlyChanged(s.conn, s.conn.marked)
	s.conn.await(false)
	k.used = append(k.used, s)
	if len(k.used) > usedKept {
		delete(k.tokens, k.used[0].token)
		k.used = k.used[1:]
	}
	k.due++
	k.mustEnd(s.conn, k.granted+k.opt.Patience/2, func() {
		complain("which goes on nevertheless: it must be closed with 4004")
	})
	c.actor.adopt(c)
}

// mustEnd calls complain if c, which reads, is still open once the machine has granted until. The end of a run waits for
// that.
func (k *checker) mustEnd(c *conn, until time.Duration, complain func()) {
	goesOn := c.phase != ended && c.mode == lively
	if goesOn && k.granted < until {
		k.in(lookEvery, func() { k.mustEnd(c, until, complain) })
		return
	}
	k.due--
	if goesOn && !k.disturbed() {
		complain()
	}
}

// usedKept is the number of used tokens that are kept, to be shown again.
const usedKept = 500

func sorted(list []string) []string { return slices.Sorted(slices.Values(list)) }

// restored compares the rooms of a resumed session with those of the old connection.
func (c *conn) restored(old *conn, q *request, m *body, complain func(string, ...any)) {
	k := c.k
	lost := map[string]string{}
	for _, l := range m.Lost {
		lost[l.Room] = l.Code
	}
	for r, s := range old.stays {
		has := slices.Contains(m.Rooms, r.name)
		switch code, is := lost[r.name]; {
		case s.state == out && has && !k.mayBeForgotten(s):
			complain("and gets %s, which that had left", r.name)
		case s.state == in && !has && !is && !k.mayBeForgotten(s):
			complain("and does not get %s, which that was in", r.name)
		case s.state == in && is && (code != "room_full" || k.opt.RoomLimit == 0):
			complain("and loses %s for %s", r.name, code)
		}
	}
	for _, name := range m.Rooms {
		r := k.byName[name]
		if r == nil || old.stays[r] == nil {
			complain("and gets %q, where that never was", name)
			continue
		}
		if s := c.stays[r]; s != nil && s.state == in {
			continue // it had joined before the resume
		}
		s := c.stayIn(r, joining)
		s.asked = q.evt
		s.become(in)
	}
}

// claimRefused checks that the server may refuse a claim.
func (c *conn) claimRefused(q *request, code string) {
	if q.want != nil {
		return
	}
	k, s := c.k, q.token
	c.claim = nil
	s.asking--
	s.failed++
	k.report.Checked["sessions"]++
	switch {
	case code == "attempts_exhausted" && s.conn.chain > 0:
		s.spoiled = true
		k.report.Done["attempts exhausted"]++
	case code == "invalid_token" && k.mayBeWiped(s):
		s.spoiled = true
		k.report.Done["sessions wiped"]++
	case slices.Contains(temporary, code):
		s.spoiled = true // another claim of this session may have been refused for that reason, too
	case code != "invalid_token":
		s.spoiled = true
		k.found("session", nil, []*conn{c, s.conn}, fmt.Sprintf("%v is refused the session of %v with %s", c, s.conn, code))
	case s.asking == 0 && s.winner == nil && !s.spoiled:
		s.spoiled = true
		k.found("session", nil, []*conn{c, s.conn}, fmt.Sprintf("the session of %v is lost: all %d claims are refused with %s", s.conn, s.failed, code))
	}
	if s.asking == 0 {
		s.conn.await(false)
	}
	if old := s.conn; s.asking == 0 && s.winner == nil && old.claimed && old.phase == open {
		old.claimed, old.unsure = false, true // it lives on
		old.ping()
	}
	c.actor.turnedDown(c)
}

// unanswered records that a claimant ended before its answer came: it may have won.
func (s *session) unanswered() {
	s.asking--
	s.spoiled = true
}
