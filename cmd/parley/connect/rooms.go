package connect

import (
	"fmt"
	"slices"
	"time"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/cmd/parley/client"
)

// room is a room that the client wants to be in.
//
// Owner: the conversation.
type room struct {
	name     string
	been     bool      // the client was a member, on this connection or an earlier one
	member   bool      // it is one on this connection
	position *position // of the newest message that arrived; nil in a room without history
	retry    retry
	again    time.Time // of the next join, after one that could not be carried out; zero for none
}

// session is what resumes the client's session on the next connection.
//
// Owner: the conversation.
type session struct {
	token   string // works once
	fresh   string // that of the connection's own session, while a resume has no answer
	pending bool   // a resume has no answer
}

func (s *session) heard(token string) {
	if s.pending {
		s.fresh = token
		return
	}
	s.token = token
}

// answered notes the answer to a resume. After a success the token is used up, and a fresh one follows.
func (s *session) answered(resumed bool) {
	s.pending = false
	s.token = ""
	if !resumed {
		s.token = s.fresh
	}
	s.fresh = ""
}

// dropped keeps the token of a resume that had no answer.
func (s *session) dropped() { s.pending, s.fresh = false, "" }

func (c *conversation) find(name string) *room {
	if i := slices.IndexFunc(c.rooms, func(r *room) bool { return r.name == name }); i >= 0 {
		return c.rooms[i]
	}
	return nil
}

// want finds a room, or adds it.
func (c *conversation) want(name string) *room {
	r := c.find(name)
	if r == nil {
		r = &room{name: name, retry: retry{min: c.limits.RetryMin, max: c.limits.RetryMax}}
		c.rooms = append(c.rooms, r)
	}
	return r
}

// forget drops a room that the client is not in any more.
func (c *conversation) forget(name string) {
	c.rooms = slices.DeleteFunc(c.rooms, func(r *room) bool { return r.name == name })
	if c.current != name {
		return
	}
	c.current = ""
	if len(c.rooms) > 0 {
		c.current = c.rooms[len(c.rooms)-1].name
		c.p.say("what you type goes to %s now", escaped(c.current))
	}
}

// join sends a join, from where the client was.
func (c *conversation) join(r *room, k kind) {
	m := &request{Type: "join", Room: r.name}
	switch {
	case r.position != nil:
		m.Since = r.position
	case c.o.Last > 0 && !r.been:
		m.Since = newest{c.o.Last}
	}
	c.ask(k, r.name, m)
}

// arrived takes a frame of the server.
func (c *conversation) arrived(a *arrival) {
	switch a.op {
	case ws.OpPing:
		c.p.got(a)
		if c.leaving.IsZero() {
			c.p.sent(ws.OpPong, a.payload)
			c.link.send(ws.OpPong, a.payload)
		}
		return
	case ws.OpText:
	default:
		c.p.got(a)
		return
	}
	m, ok := readReply(a.payload)
	if !ok {
		c.p.got(a)
		if c.o.Form == Lines {
			c.p.event(time.Time{}, "", "a text that is no message: "+clipped(escaped(string(a.payload))))
		}
		return
	}
	q, answers := c.asks[textOf(m.Ref)]
	delete(c.asks, textOf(m.Ref))
	if !answers || c.o.Form == Raw || q.kind != askLast && q.kind != askQuiet {
		c.p.got(a)
	}
	if c.advance(&m) {
		c.p.message(&m, a.payload)
	}
	c.follow(&m)
	if answers {
		c.answered(q, &m)
	}
}

// follow does what a message of the server asks for.
func (c *conversation) follow(m *reply) {
	switch m.Type {
	case "connected":
		c.connected(m)
	case "reconnect_token":
		c.session.heard(m.Token)
	case "ping":
		c.tell([]byte(`{"type":"pong"}`))
	case "goodbye":
		c.retry.goodbye(time.Duration(min(max(m.RetryAfter, 0), 3600))*time.Second, time.Now())
		c.p.say("the server says goodbye: come back in %d s", m.RetryAfter)
	case "auth_expiring":
		c.renew(m)
	case "reconnected":
		if c.session.pending {
			c.resumed(m)
		}
	case "joined", "position", "left":
		if m.Room != nil {
			c.moved(m, *m.Room)
		}
	}
}

// moved follows what a message says of the client's place in a room.
func (c *conversation) moved(m *reply, name string) {
	switch m.Type {
	case "joined":
		r := c.want(name)
		if c.current == "" {
			c.current = name
		}
		if !c.session.pending || textOf(m.Ref) != "" { // else the answer to the resume says where the client stands
			c.stands(r, m.start)
		}
	case "position":
		c.want(name).position = &position{m.Seq, m.Epoch}
	case "left":
		c.forget(name)
	}
}

// connected begins, or shows the token first.
func (c *conversation) connected(m *reply) {
	if c.opening == 0 {
		return // --raw without a room does not wait for it
	}
	switch {
	case !m.AuthRequired:
		c.begin()
		c.settled()
	case c.shown != "":
		c.ask(askOpening, "", &request{Type: "auth", Token: c.shown})
		c.settled()
	default:
		c.failure = client.Error{Code: client.Refused, Err: fmt.Errorf("%s demands an access token: give one with --token-file, or in PARLEY_TOKEN", c.address())}
		c.leave()
	}
}

// begin resumes the session, or joins.
func (c *conversation) begin() {
	if c.session.token == "" {
		c.joinAll(nil)
		return
	}
	last := map[string]position{}
	for _, r := range c.rooms {
		if r.position != nil {
			last[r.name] = *r.position
		}
	}
	c.session.pending = true
	c.ask(askResume, "", &request{Type: "reconnect", Token: c.session.token, Last: last})
}

// joinAll joins the rooms that the session did not bring.
func (c *conversation) joinAll(brought []string) {
	for _, r := range c.rooms {
		if !slices.Contains(brought, r.name) {
			c.join(r, askOpening)
		}
	}
}

// settled notes that one of the answers is there for which the connection waits before it takes input.
func (c *conversation) settled() {
	if c.opening > 0 {
		if c.opening--; c.opening == 0 {
			c.opened()
		}
	}
}

// answered takes the answer to a question.
func (c *conversation) answered(q ask, m *reply) {
	refused := m.Type == "error"
	if refused && (q.kind == askOpening && q.room == "" || q.kind == askResume && passing(m.Code)) {
		c.reopen(q, m)
		return
	}
	switch q.kind {
	case askLast:
		c.leave()
	case askPing:
		c.p.say("pong after %.1f ms", float64(time.Since(q.at).Microseconds())/1000)
	case askResume:
		if refused {
			c.session.answered(false)
			c.p.say("the session is gone (%s): the client joins its rooms anew", escaped(m.Code))
			c.joinAll(nil)
		}
		c.settled()
	case askOpening, askJoin:
		r := c.find(q.room)
		switch {
		case q.room == "" && !refused: // auth
			c.begin()
		case r == nil || !refused:
		case passing(m.Code):
			r.again = time.Now().Add(r.retry.next(time.Now()))
		default:
			c.forget(q.room)
		}
		if q.kind == askOpening {
			c.settled()
		}
	case askOther:
		if m.Type == "members" && m.Next != "" {
			c.ask(askOther, q.room, &request{Type: "members", Room: q.room, After: m.Next})
		}
	}
}

// reopen leaves it to the next connection to show the access token, or to resume. After a refused token the server closes.
func (c *conversation) reopen(q ask, m *reply) {
	if q.kind == askResume {
		c.p.say("the session cannot be resumed now: %s", escaped(m.Code))
		c.link.conn.Close()
	}
}

// renew shows another access token, if there is one.
func (c *conversation) renew(m *reply) {
	token, err := c.o.Token()
	if err != nil || token == "" || token == c.shown {
		c.p.say("the access token ends in %d s, and there is no other one", m.ExpiresIn)
		return
	}
	c.shown = token
	c.ask(askOther, "", &request{Type: "auth", Token: token})
}
