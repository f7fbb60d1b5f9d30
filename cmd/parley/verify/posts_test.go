package verify

import (
	"fmt"
	"testing"

	"github.com/parleyd/parley/cmd/parley/verify/caller"
)

// heard is a checker with a member of one room and a backend.
func heard() (k *checker, s *stay, b *backend) {
	o := DefaultOptions()
	k = newChecker(&o, target{})
	k.api = &backends{series: map[int]*series{}}
	b = &backend{k: k}
	b.series = k.api.newSeries(b)
	c := &conn{k: k, actor: k.actors[0], phase: open, stays: map[*room]*stay{}, heardOf: map[*series]int{}}
	k.living[c] = true
	s = c.stayIn(k.rooms[0], joining)
	s.become(in)
	return k, s, b
}

// A message of a backend must come once, in order, to those that are its receivers and to no others.
func TestPosts(t *testing.T) {
	for name, c := range map[string]struct {
		fates []fate
		reads []int
		found string
	}{
		"all come":                                 {[]fate{accepted, accepted}, []int{0, 1}, ""},
		"one is missing at the end":                {[]fate{accepted, accepted}, []int{0}, "lost"},
		"one is overtaken":                         {[]fate{accepted, accepted}, []int{1}, "lost"},
		"they come in another order":               {[]fate{accepted, accepted}, []int{1, 0}, "order"},
		"one comes twice":                          {[]fate{accepted, accepted}, []int{0, 0, 1}, "twice"},
		"a refused one comes":                      {[]fate{refused, accepted}, []int{0, 1}, "leak"},
		"the outcome is unknown":                   {[]fate{uncertain, accepted}, []int{1}, ""},
		"the outcome is unknown, and twice":        {[]fate{uncertain, accepted}, []int{0, 0, 1}, "twice"},
		"it was repeated to another process":       {[]fate{repeated, accepted}, []int{0, 1, 0}, ""},
		"it was repeated to another, and is a gap": {[]fate{repeated, accepted}, []int{1}, ""},
	} {
		k, s, b := heard()
		for _, f := range c.fates {
			p := b.series.post(k, audience{rooms: []*room{s.room}}, nil)
			p.by, p.fate = &ask{}, f
		}
		for _, n := range c.reads {
			m := &body{Type: "broadcast", Room: s.room.name, Payload: append([]byte{}, b.series.at(n).payload(k)...)}
			b.series.deliver(s.conn, m, n)
		}
		k.allCame(true)
		k.api.settle(k)
		if found := k.report.Found; len(found) > 1 || c.found == "" && len(found) > 0 || c.found != "" && found[c.found] == 0 {
			t.Errorf("%s: found is %v, want %q", name, found, c.found)
		}
	}
}

// A connection that was no receiver when the message was sent, or is excepted, need not get it; an excepted one must not.
func TestReceivers(t *testing.T) {
	k, s, b := heard()
	late := &conn{k: k, actor: k.actors[1], phase: open, stays: map[*room]*stay{}, heardOf: map[*series]int{}}
	p := b.series.post(k, audience{rooms: []*room{s.room}}, s.conn)
	late.stayIn(s.room, joining).become(in)
	p.fate = accepted
	if k.allCame(true); len(k.report.Found) > 0 {
		t.Errorf("found is %v", k.report.Found)
	}
	if kind, _ := p.reach(s.conn); kind != "leak" {
		t.Errorf("the excepted one: %q", kind)
	}
	if kind, _ := p.reach(late); kind != "" {
		t.Errorf("the late one: %q", kind)
	}
}

// A token that comes while a revocation is on its way need not be good.
func TestTokenBehindRevocation(t *testing.T) {
	for _, revoked := range []bool{false, true} {
		k, s, _ := heard()
		c := s.conn
		c.resumed = true
		if revoked {
			c.dismissed = codeUnauthorized
		}
		c.tokenRead("token", 300)
		heir := &conn{k: k, actor: k.actors[1], phase: open, stays: map[*room]*stay{}}
		c.session.asking = 1
		heir.claimRefused(&request{kind: "reconnect", token: c.session}, "invalid_token")
		if found := k.report.Found["session"] > 0; found == revoked {
			t.Errorf("revoked %v: found is %v", revoked, k.report.Found)
		}
	}
}

// A request whose connection was cut is sent again, with those behind it, one at a time; not after the api process has been
// replaced, when an answer says no more than that it may have come twice.
func TestRepeats(t *testing.T) {
	for name, c := range map[string]struct {
		replaced bool
		sent     string
		want     fate
	}{
		"the same process": {false, "0", pending},
		"another process":  {true, "", uncertain},
	} {
		k, s, b := heard()
		asks := make(chan []*caller.Exchange, 1)
		b.asks, b.rng = asks, k.rng
		var list []*ask
		for i := range 2 {
			a := &ask{what: "publish", posts: []*post{b.series.post(k, audience{rooms: []*room{s.room}}, nil)}, tries: 1}
			a.Path, a.Body, a.Key, a.Err = fmt.Sprint(i), []byte("{}"), fmt.Sprint(i), caller.ErrLeft
			list = append(list, a)
		}
		b.sent = list
		if c.replaced {
			k.api.life++
		}
		b.heard()
		got := ""
		if len(asks) > 0 {
			for _, x := range <-asks {
				got += x.Path
			}
		}
		if got != c.sent || list[1].posts[0].fate != c.want || c.replaced != b.idle() {
			t.Errorf("%s: %q is sent again, the fate is %v, idle %v", name, got, list[1].posts[0].fate, b.idle())
		}
	}
}

// A client that joins again while a backend takes it out is in the room if the server has read its request last.
func TestJoinsAgainWhileTakenOut(t *testing.T) {
	for name, c := range map[string]struct {
		first string
		is    state
	}{"the leave comes first": {"left", in}, "the join comes first": {"joined", out}} {
		_, s, _ := heard()
		s.conn.asked = map[string]*request{}
		q := s.conn.expect(&request{kind: "join", room: s.room, already: true})
		s.expelled, s.moving = true, true
		s.become(leaving)
		left, joined := &body{Type: "left", Room: s.room.name}, &body{Type: "joined", Room: s.room.name, Ref: q.ref}
		if c.first == "left" {
			s.conn.answered(left)
			s.conn.answered(joined)
		} else {
			s.conn.answered(joined)
			s.conn.answered(left)
		}
		if got := s.conn.stays[s.room]; got.state != c.is || got.possible != (c.is == in) {
			t.Errorf("%s: the state is %d, want %d", name, got.state, c.is)
		}
	}
}
