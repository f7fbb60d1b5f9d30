package verify

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/parleyd/parley/cmd/parley/verify/caller"
)

// backendActs are the kinds of behaviour of a backend. try begins one, and reports whether it was possible.
var backendActs = []struct {
	weight int
	try    func(b *backend) bool
}{
	{40, (*backend).publish},
	{12, (*backend).publishBurst},
	{10, (*backend).publishBatch},
	{3, (*backend).publishUnderUsedKey},
	{10, (*backend).join},
	{6, (*backend).leave},
	{6, (*backend).attributes},
	{3, (*backend).disconnect},
	{1, (*backend).revoke},
}

// perform makes a backend do something, if it can.
func (b *backend) perform() {
	total := 0
	for _, x := range backendActs {
		total += x.weight
	}
	for range choices {
		draw := b.rng.IntN(total)
		for _, x := range backendActs {
			if draw -= x.weight; draw < 0 {
				if x.try(b) {
					return
				}
				break
			}
		}
	}
}

// key draws whether a request has an Idempotency-Key, and makes it.
func (b *backend) key() string {
	if b.rng.IntN(4) == 0 {
		return ""
	}
	b.k.api.keys++
	return fmt.Sprintf("verify-%s-%d", b.k.run, b.k.api.keys)
}

// drawConn draws a main connection that is certainly connected; nil if it has not met one.
func (b *backend) drawConn() *conn {
	for range choices {
		if c := b.k.actors[b.rng.IntN(len(b.k.actors))].main; c != nil && c.sure() && c.session != nil {
			return c
		}
	}
	return nil
}

// audience draws the receivers of a message.
func (b *backend) audience() audience {
	k := b.k
	one := func(r *room) audience {
		return audience{field: fmt.Sprintf(`"room":%q`, r.name), rooms: []*room{r}}
	}
	c := b.drawConn()
	switch draw := b.rng.IntN(10); {
	case draw < 2:
		rooms := []*room{k.drawRoom(b.rng), k.drawRoom(b.rng), k.drawRoom(b.rng)}
		slices.SortFunc(rooms, func(x, y *room) int { return bytes.Compare([]byte(x.name), []byte(y.name)) })
		rooms = slices.Compact(rooms)
		names := []string{}
		for _, r := range rooms {
			names = append(names, r.name)
		}
		list, _ := json.Marshal(names)
		return audience{field: fmt.Sprintf(`"rooms":%s`, list), rooms: rooms}
	case draw == 2 && c != nil:
		return audience{field: fmt.Sprintf(`"connection":%q`, c.id), conn: c}
	case draw == 3 && c != nil && c.actor.user != "":
		return audience{field: fmt.Sprintf(`"user":%q`, c.actor.user), user: c.actor.user}
	}
	return one(k.drawRoom(b.rng))
}

// message makes a message and the fields of its request.
func (b *backend) message() (p *post, fields []byte) {
	k := b.k
	if b.series == nil {
		b.series = k.api.newSeries(b)
	}
	to := b.audience()
	var except *conn
	if to.rooms != nil && b.rng.IntN(6) == 0 {
		except = b.drawConn()
	}
	p = b.series.post(k, to, except)
	p.typed = to.rooms == nil || b.rng.IntN(3) == 0 && (len(to.rooms) == 1 || !k.remembers())
	fields = append(fields, to.field...)
	if p.numbered(k) && p.typed {
		fields = fmt.Appendf(fields, `,"message":{"type":"verify","room":%q,"data":%s}`, to.rooms[0].name, p.payload(k))
	} else if p.typed {
		fields = fmt.Appendf(fields, `,"message":{"type":"verify","data":%s}`, p.payload(k))
	} else {
		fields = fmt.Appendf(fields, `,"data":%s`, p.payload(k))
	}
	if except != nil {
		fields = fmt.Appendf(fields, `,"except":[%q]`, except.id)
	}
	return p, fields
}

// newPublish makes a request that publishes one message.
func (b *backend) newPublish() *ask {
	p, fields := b.message()
	a := &ask{Exchange: caller.Exchange{Path: "/v1/publish", Key: b.key()}, what: "publish", posts: []*post{p}}
	p.by = a
	if len(p.to.rooms) == 1 && b.rng.IntN(4) == 0 {
		r := p.to.rooms[0]
		a.count = &count{asker: b, room: r, what: "a counted publish", from: r.marks()}
		if p.except != nil {
			a.count.low--
		}
		fields = append(fields, `,"count":true`...)
	}
	a.Body = fmt.Appendf(nil, `{%s}`, fields)
	return a
}

func (b *backend) publish() bool {
	b.send(b.newPublish())
	return true
}

// publishBurst sends several publishes without waiting for answers.
func (b *backend) publishBurst() bool {
	var list []*ask
	for range 2 + b.rng.IntN(3) {
		list = append(list, b.newPublish())
	}
	b.send(list...)
	return true
}

// publishBatch publishes several messages by one request.
func (b *backend) publishBatch() bool {
	a := &ask{Exchange: caller.Exchange{Path: "/v1/batch", Key: b.key()}, what: "batch"}
	var operations [][]byte
	for range 2 + b.rng.IntN(5) {
		p, fields := b.message()
		p.by = a
		a.posts = append(a.posts, p)
		operations = append(operations, fmt.Appendf(nil, `{"do":"publish",%s}`, fields))
	}
	a.Body = fmt.Appendf(nil, `{"operations":[%s]}`, bytes.Join(operations, []byte{','}))
	b.send(a)
	return true
}

// publishUnderUsedKey sends another message with a key that was used: it must be refused.
func (b *backend) publishUnderUsedKey() bool {
	if b.used == nil || b.used.life != b.k.api.life {
		return false
	}
	a := b.newPublish()
	a.Key, a.what, a.want, a.count = b.used.Key, "a publish with a used key", "idempotency_mismatch", nil
	b.send(a)
	return true
}

// act sends a request about a connection, and calls then with the answer if the connection lives. An action whose outcome is
// unknown costs the connection: what a session of it restores shows whether it was carried out.
func (b *backend) act(c *conn, what, body string, then func(a *ask, m *apiAnswer)) *ask {
	a := &ask{Exchange: caller.Exchange{Path: "/v1/" + what, Body: []byte(body), Key: b.key()}, what: what}
	a.then = func(m *apiAnswer) {
		switch {
		case c.phase == ended:
		case m == nil || a.life != b.k.api.life && a.tries > 1, m.Code == "unavailable", m.Code == "overloaded", m.Partial != nil:
			if m != nil && m.Code == "unavailable" && a.tries == 1 && c.sure() {
				b.unavailable(a)
			}
			c.hang()
		case m.Code == "not_found":
			b.k.suspect("answer", nil, []*conn{c}, fmt.Sprintf("%v asks %s of %v and is told that it is not there: %.200s", b, what, c, a.Text))
			c.unsure = true
			c.reckon()
		default:
			then(a, m)
		}
	}
	return a
}

// join takes a connection into a room.
func (b *backend) join() bool {
	c := b.drawConn()
	if c == nil {
		return false
	}
	r, n := c.actor.stranger(c), 0
	for _, s := range c.stays {
		if s.state != out {
			n++
		}
	}
	if r == nil || n >= roomsEach || !c.actor.mayJoin(r) {
		return false
	}
	s := c.stayIn(r, joining)
	b.send(b.move(s, "join"))
	return true
}

// leave takes a connection out of a room.
func (b *backend) leave() bool {
	c := b.drawConn()
	if c == nil {
		return false
	}
	s := c.actor.stayOf(c)
	if s == nil {
		return false
	}
	s.expelled = true
	s.become(leaving)
	b.send(b.move(s, "leave"))
	return true
}

// move asks for a join or a leave. The client must read that it has joined or left, without having asked.
func (b *backend) move(s *stay, what string) *ask {
	c, k := s.conn, b.k
	s.moving = true
	c.note(step{what: "is made to " + what + " by " + b.String(), room: s.room, n: -1})
	a := b.act(c, what, fmt.Sprintf(`{"connection":%q,"room":%q}`, c.id, s.room.name), func(a *ask, m *apiAnswer) {
		n := m.Joined
		if what == "leave" {
			n = m.Left
		}
		switch {
		case m.Code == "room_full" && k.opt.RoomLimit > 0 && s.state == joining:
			s.moving = false
			s.become(out)
		case n == nil || *n != 1:
			b.complain(a, "wants 1")
			c.hang()
		default:
			k.must(k.opt.Patience, func() bool { return !s.moving || !c.sure() }, func() {
				k.found("silent", s.room, []*conn{c}, fmt.Sprintf("%v is told that %s of %v is done, and the client reads nothing of it", b, what, c))
			})
		}
	})
	return a
}

// taken takes a `joined` or `left` for which the client has not asked.
func (s *stay) taken(m *body) bool {
	switch {
	case s == nil || !s.moving || len(m.Ref) > 0:
		return false
	case m.Type == "joined" && s.state == joining:
		if s.become(in); s.conn.past != nil {
			s.conn.past.joined(s, nil, m)
		}
	case m.Type == "left" && s.state == leaving:
		s.become(out)
	default:
		return false
	}
	s.moving = false
	s.conn.note(step{what: "reads unasked " + m.Type, room: s.room, n: -1})
	return true
}

// attributes changes attributes of a connection, and reads them back on the same line.
func (b *backend) attributes() bool {
	c := b.drawConn()
	if c == nil || c.marking {
		return false
	}
	c.marking = true
	name, other := "verify-"+strconv.Itoa(b.rng.IntN(3)), "verify-"+strconv.Itoa(3+b.rng.IntN(2))
	value := strconv.FormatUint(b.rng.Uint64N(1<<30), 10)
	known := !c.blurred
	want := maps.Clone(c.attributes)
	if want == nil {
		want = map[string]string{}
	}
	want[name] = value
	delete(want, other)
	check := func(a *ask, m *apiAnswer) {
		got := map[string]string{}
		for key, raw := range m.Attributes {
			got[key] = string(raw)
		}
		if m.Code != "" || known && !maps.Equal(got, want) || got[name] != value {
			b.complain(a, "of %v: attributes %v, wants %v", c, got, want)
		}
		c.attributes, c.blurred, c.marked = got, false, b.k.now
	}
	set := b.act(c, "attributes", fmt.Sprintf(`{"connection":%q,"set":{%q:%s},"remove":[%q]}`, c.id, name, value, other), check)
	read := b.act(c, "connection", "", check)
	set.then = then(set.then, func() { c.blurred = true }, nil)
	read.Path, read.Body, read.Key, read.then = "/v1/connection?id="+url.QueryEscape(c.id), nil, "", then(read.then, nil, func() { c.marking = false })
	b.send(set, read)
	return true
}

// then wraps the end of an action.
func then(f func(m *apiAnswer), before, after func()) func(m *apiAnswer) {
	return func(m *apiAnswer) {
		if before != nil {
			before()
		}
		f(m)
		if after != nil {
			after()
		}
	}
}

// disconnect ends a connection, and sometimes its session.
func (b *backend) disconnect() bool {
	c := b.drawConn()
	if c == nil {
		return false
	}
	k, s, forever := b.k, c.session, b.rng.IntN(2) == 0
	c.dismissed = 4007
	more := ""
	if b.rng.IntN(2) == 0 {
		c.dismissed = 4100 + 400*b.rng.IntN(2)
		more = fmt.Sprintf(`,"code":%d,"reason":"by %v"`, c.dismissed, b)
	}
	if forever {
		s.spoiled = true
		more += `,"resume":false`
	}
	c.reckon()
	c.note(step{what: "is disconnected by " + b.String(), n: int64(c.dismissed)})
	a := b.act(c, "disconnect", fmt.Sprintf(`{"connection":%q%s}`, c.id, more), func(a *ask, m *apiAnswer) {
		switch {
		case m.Closed == nil:
			b.complain(a, "wants the number of closed connections")
		case *m.Closed == 0:
			k.suspect("answer", nil, []*conn{c}, fmt.Sprintf("%v disconnects %v and is told that there is none", b, c))
		default:
			k.due++
			k.mustEnd(c, k.granted+k.opt.Patience/2, func() {
				k.found("ended", nil, []*conn{c}, fmt.Sprintf("%v disconnects %v and is told that it is closed, and it goes on", b, c))
			})
		}
	})
	a.then = then(a.then, nil, func() {
		if m := a.read(); forever && a.Err == nil && m.Closed != nil && *m.Closed == 1 && m.Partial == nil {
			s.revoked = true
			k.used = append(k.used, s)
			if !k.calm {
				c.actor.showDead(s) // another user's client is refused in any case
			}
		}
	})
	b.send(a)
	return true
}

// must calls complain if what must be met is not once the machine has granted wait. The end of a run waits for that.
func (k *checker) must(wait time.Duration, met func() bool, complain func()) {
	k.due++
	until := k.granted + wait
	var look func()
	look = func() {
		if !met() && k.granted < until {
			k.in(lookEvery, look)
			return
		}
		k.due--
		if !met() && !k.disturbed() {
			complain()
		}
	}
	look()
}

// revoke makes the tokens of a user good no more. Its clients come back with newer ones.
func (b *backend) revoke() bool {
	k, a := b.k, b.k.actors[b.rng.IntN(len(b.k.actors))]
	if a.user == "" || a.main == nil || !a.main.sure() {
		return false
	}
	before, old := int64(0), [][]byte{}
	var conns []*conn
	for _, a := range k.api.byUser[a.user] {
		for c := range a.conns {
			conns = append(conns, c)
		}
		old = append(old, a.hello)
		before = max(before, a.issued+1)
		a.last = nil
		a.renew(k.api.secret)
	}
	for c := range k.living { // those that an actor has left behind, half open, too
		if c.actor.user == a.user && !slices.Contains(conns, c) {
			conns = append(conns, c)
		}
	}
	for _, c := range conns {
		c.note(step{what: "is revoked by " + b.String(), n: before})
		c.dismissed = codeUnauthorized
		if c.session != nil {
			c.session.spoiled = true
		}
		c.reckon()
	}
	x := &ask{Exchange: caller.Exchange{Path: "/v1/tokens/revoke", Key: b.key(), Body: fmt.Appendf(nil, `{"user":%q,"issued_before":%d}`, a.user, before)}, what: "revoke"}
	x.then = func(m *apiAnswer) {
		for _, c := range conns {
			switch {
			case c.phase == ended:
			case m == nil || m.Closed == nil || m.Partial != nil:
				c.hang()
			default:
				k.due++
				k.mustEnd(c, k.granted+revokedWithin, func() {
					k.found("rights", nil, []*conn{c}, fmt.Sprintf("%v goes on %v after its tokens were revoked by %v", c, revokedWithin, b))
				})
			}
		}
		switch {
		case m == nil:
		case m.Closed != nil && m.Partial == nil:
			k.api.revoked = append(k.api.revoked, old...)
			k.api.revoked = k.api.revoked[max(0, len(k.api.revoked)-usedKept):]
		case m.Code == "unavailable":
			b.unavailable(x)
		case m.Partial == nil:
			b.complain(x, "wants the number of closed connections")
		}
	}
	b.send(x)
	return true
}

// revokedWithin is how long a connection may go on after its token was revoked.
const revokedWithin = time.Second

// showRevoked connects with a revoked token, which must be refused.
func (a *actor) showRevoked(*conn) bool {
	k := a.k
	if k.api == nil || len(k.api.revoked) == 0 {
		return false
	}
	c := a.connect(func(c *conn) {
		k.found("rights", nil, []*conn{c}, fmt.Sprintf("%v is let in with a token that was revoked", c))
		c.hang()
	})
	if c != nil {
		c.hello, c.dismissed = k.api.revoked[a.rng.IntN(len(k.api.revoked))], codeUnauthorized
	}
	return true
}
