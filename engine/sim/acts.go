package sim

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/engine"
)

func (w *World) roomName() string { return fmt.Sprintf("room %d", w.rand.IntN(w.plan.rooms)) }

// act makes a person do something.
func (w *World) act(p *person) {
	k := p.now
	switch {
	case k == nil:
		w.dial(p)
	case w.chance(w.plan.cuts):
		w.cut(k)
	case w.chance(w.plan.hangups):
		w.hangUp(k)
	case w.chance(w.plan.freezes):
		k.frozen = !k.frozen
		if w.chance(0.3) { // without a close: the server still believes that the connection lives
			k.frozen, p.now = true, nil
		}
		w.tracef("%s is frozen: %v", k.name, k.frozen)
	case k.frozen:
		if w.chance(0.1) {
			k.frozen = false
		}
	case k.open && !k.closing && len(k.asked) < 20:
		w.talk(k)
	case k.head || k.refused:
		w.hurry(k)
	}
}

// hurry makes a client send something although it has no answer yet, or has been refused.
func (w *World) hurry(k *client) {
	switch {
	case k.wire.upEnd:
	case k.unsent != "":
		if w.chance(0.5) {
			k.sendHead(1 + w.rand.IntN(len(k.unsent)))
		} else if k.hurried {
			w.pester(k)
		}
	case k.refused && w.chance(0.2):
		k.wire.upEnd, k.person.now = true, nil
	case k.hurried && k.refused:
		w.pester(k)
	case k.hurried && len(k.asked) < 20:
		w.talk(k)
	}
}

// pester sends bytes that the server does not wait for: frames, halves of them, another request.
func (w *World) pester(k *client) {
	w.tracef("%s pesters", k.name)
	before := len(k.wire.up)
	switch w.rand.IntN(3) {
	case 0:
		k.wire.up = append(k.wire.up, "GET / HTTP/1.1\r\nHost: sim\r\n\r\n"...)
	case 1:
		k.frame(ws.Header{Fin: true, OpCode: ws.OpClose, Masked: true}, ws.NewCloseFrameBody(ws.StatusNormalClosure, ""))
	default:
		k.frame(ws.Header{Fin: true, OpCode: ws.OpText, Masked: true}, []byte(`{"type":"ping"}`))
	}
	if n := len(k.wire.up) - before; w.chance(0.3) && n > 0 {
		k.wire.up = k.wire.up[:before+w.rand.IntN(n)]
	}
}

// cut resets a connection. Bytes on their way are lost.
func (w *World) cut(k *client) {
	w.tracef("%s is cut", k.name)
	k.wire.cut, k.wire.down = true, nil
	if w.chance(0.5) {
		k.wire.up, k.wire.torn = nil, true
	}
	k.person.now = nil
}

// hangUp makes a client send something and go at once: with a close frame or without, by ending its half, or by a reset that
// comes when all its bytes have arrived.
func (w *World) hangUp(k *client) {
	w.tracef("%s hangs up", k.name)
	for range w.rand.IntN(5) {
		if (k.open || k.head && k.unsent == "") && !k.closing {
			w.talk(k)
		}
	}
	if w.chance(0.5) {
		k.closing = true
		k.frame(ws.Header{Fin: true, OpCode: ws.OpClose, Masked: true}, ws.NewCloseFrameBody(ws.StatusNormalClosure, ""))
	}
	k.person.now = nil
	if w.chance(0.3) {
		k.wire.cut, k.wire.down = true, nil
	} else {
		k.wire.upEnd = true
	}
}

// talk sends something.
func (w *World) talk(k *client) {
	if w.chance(w.plan.garbage) {
		w.misbehave(k)
		return
	}
	if k.truth == nil && w.plan.authHandler && w.chance(0.8) {
		k.ask("auth", "", `,"token":"let me in"`)
		return
	}
	if w.plan.historic && w.chance(0.6) {
		w.talkHistory(k)
		return
	}
	switch n := w.rand.IntN(20); {
	case n < 4:
		k.ask("join", w.roomName(), "")
	case n < 6:
		k.ask("leave", w.roomName(), "")
	case n < 12:
		w.broadcast(k, w.roomName(), telling{m: w.number(), pad: w.pad("x")})
	case n < 13:
		k.ask("ping", "", "")
	case n < 14:
		k.ask("members", w.roomName(), "")
	case n < 15:
		k.ask("work", w.roomName(), "")
	case n < 16:
		k.ask("note", "", fmt.Sprintf(`,"from":"%d"`, w.number()))
	case n < 18:
		k.ask("say", w.roomName(), fmt.Sprintf(`,"m":%d`, w.number()))
	default:
		w.reconnect(k)
	}
}

// reconnect shows a token: mostly one of the person's own, sometimes any.
func (w *World) reconnect(k *client) {
	from := k.person
	if w.chance(0.2) {
		from = w.people[w.rand.IntN(len(w.people))]
	}
	if len(from.known) == 0 {
		return
	}
	i := len(from.known) - 1 - min(w.rand.IntN(4), len(from.known)-1)
	token := from.known[i]
	last, text := w.lastOf(token)
	q := k.ask("reconnect", "", fmt.Sprintf(`,"token":%q`, token)+text)
	q.token, q.last = token, last
}

// misbehave breaks a rule.
func (w *World) misbehave(k *client) {
	w.tracef("%s misbehaves", k.name)
	k.spoilt = true
	switch w.rand.IntN(5) {
	case 0:
		k.wire.up = append(k.wire.up, 0xff, 0xff, 0xff)
	case 1:
		k.frame(ws.Header{Fin: true, OpCode: ws.OpBinary, Masked: true}, []byte("binary"))
	case 2:
		k.frame(ws.Header{Fin: true, OpCode: ws.OpText, Masked: true}, []byte("\xc0\x80"))
	case 3:
		k.closing = true
		k.frame(ws.Header{Fin: true, OpCode: ws.OpClose, Masked: true}, ws.NewCloseFrameBody(ws.StatusNormalClosure, ""))
	default:
		k.wire.upEnd = true // half-closed
		k.person.now = nil
	}
}

// serveApplication registers the application's handlers.
func (w *World) serveApplication() {
	s := w.server.Server
	s.On("work", func(c *engine.Conn, m *engine.Message, s *engine.Server) (any, error) {
		return engine.M{"type": "worked"}, nil
	}, engine.Offload())
	s.On("note", func(c *engine.Conn, m *engine.Message, s *engine.Server) (any, error) {
		note := decode(m.Payload()).from()
		w.truth.conns[c].attribute = note
		return engine.M{"type": "noted"}, c.SetAttribute("note", note)
	})
	s.On("say", func(c *engine.Conn, m *engine.Message, s *engine.Server) (any, error) {
		w.meanwhile()
		number, r := decode(m.Payload()).M, w.truth.rooms[m.Room()]
		if w.mayNumber(m.Room()) {
			w.publish(m.Room(), telling{m: number}, nil)
			return engine.M{"type": "said"}, nil
		}
		if r != nil {
			w.truth.publish(number, w.truth.conns[c].client.name, nil, r)
		}
		_, err := s.Broadcast(m.Room(), engine.M{"type": "app", "m": number})
		return engine.M{"type": "said"}, err
	})
	if w.plan.connectHandler {
		s.OnConnect(w.admits)
	}
	if w.plan.authHandler {
		s.OnAuth(func(*engine.Conn, string) error { return nil })
	}
}

// admits is the application's connect handler.
func (w *World) admits(c *engine.Conn, _ *engine.Request) error {
	if !w.chance(w.plan.refusals) {
		return nil
	}
	w.tracef("%s is not let in", w.clientOf(c).name)
	switch w.rand.IntN(4) {
	case 0:
		return engine.Refuse(4900, "enough")
	case 1:
		c.CloseWith(4900, "enough")
		return nil
	default:
		return engine.RefuseStatus(pick(w.rand, 401, 403, 599), strings.Repeat("no ", w.rand.IntN(100)))
	}
}

// applicationActs is a goroutine of the application that calls the server.
func (w *World) applicationActs() {
	s, t := w.server.Server, w.truth
	name := w.roomName()
	if w.mayNumber(name) && w.chance(0.7) {
		w.applicationPublishes(name)
		return
	}
	r, m := t.rooms[name], w.number()
	message := engine.M{"type": "app", "m": m}
	var c *conn
	if k := w.clients; len(k) > 0 {
		c = k[w.rand.IntN(len(k))].truth
	}
	switch n := w.rand.IntN(9); {
	case n == 0 && r != nil && !w.mayNumber(name):
		t.publish(m, "application", nil, r)
		s.Broadcast(name, message)
	case n == 1:
		t.publish(m, "application", nil, t.everyone)
		s.BroadcastAll(message)
	case n == 2:
		var list []*room
		var names []string
		for _, other := range t.rooms {
			names = append(names, other.name)
			if !w.mayNumber(other.name) {
				list = append(list, other)
			}
		}
		slices.SortFunc(list, func(a, b *room) int { return strings.Compare(a.name, b.name) })
		slices.Sort(names)
		t.publish(m, "application", nil, list...)
		s.BroadcastRooms(names, message)
		for _, name := range names {
			if w.mayNumber(name) {
				t.took(name, telling{m: m, text: encode(message)}, nil, nil)
			}
		}
	case n == 3 && r != nil:
		w.tracef("the application deletes %s", name)
		if s.Rooms().Delete(name) {
			r.deleted = true
			delete(t.rooms, name)
			if h := t.chronicles[name]; h != nil {
				h.deleted = true
			}
		}
	case n == 4:
		w.applicationCreates(name)
	case c == nil:
	case n == 5:
		if !c.ended {
			t.publish(m, "application", nil, c.direct)
		}
		if s.SendTo(c.id, message) == c.ended {
			w.complain("events", "SendTo finds %s: %v, and it has ended: %v", c.id, !c.ended, c.ended)
		}
	case n == 6:
		w.applicationJoins(c, name)
	case n == 7:
		w.tracef("the application takes %s out of %s", c.id, name)
		c.leaves[name]++
		s.Rooms().Leave(c.conn, name)
	case n == 8 && w.chance(0.2):
		w.tracef("the application closes %s", c.id)
		c.conn.CloseWith(4900, "enough")
	}
}

func (w *World) applicationJoins(c *conn, name string) {
	s := w.server.Server
	if r := w.truth.rooms[name]; s.Rooms().Has(name, c.conn) || r == nil && c.ended {
		return
	}
	err := s.Rooms().Join(c.conn, name)
	w.tracef("the application takes %s into %s: %v", c.id, name, err)
	if err == nil {
		r := w.truth.room(name)
		c.holds[r] = len(r.log)
	}
}

// talkHistory sends something that is about rooms with history.
func (w *World) talkHistory(k *client) {
	room := w.roomName()
	switch n := w.rand.IntN(20); {
	case n < 4:
		w.joinSince(k, room)
	case n < 5:
		k.ask("leave", room, "")
	case n < 15:
		p := telling{m: w.number(), pad: w.pad("x")}
		p.key = pick(w.rand, "", "", "k1", "k2")
		if w.chance(0.2) {
			p.idempotencyKey = pick(w.rand, "i1", "i2", "i3")
		}
		p.ephemeral = w.chance(0.1)
		if w.chance(0.05) {
			p.malformed = pick(w.rand, `"key":5`, `"history":0`, `"idempotency_key":""`)
		}
		w.broadcast(k, room, p)
	case n < 17:
		more := pick(w.rand, "", `,"limit":2`, `,"limit":100`)
		if st := k.stands[room]; st != nil {
			more += fmt.Sprintf(`,%q:{"seq":%d,"epoch":%q}`, pick(w.rand, "since", "before"), st.at-min(st.at, w.rand.Uint64N(8)), st.h.epoch)
		}
		k.ask("history", room, more)
	default:
		w.reconnect(k)
	}
}

func (w *World) pad(of string) string {
	if w.plan.heavy {
		return strings.Repeat(of, 2500+w.rand.IntN(1000))
	}
	return strings.Repeat(of, w.rand.IntN(pick(w.rand, 10, 300, 3000)))
}

// broadcast sends a message with options.
func (w *World) broadcast(k *client, room string, p telling) {
	more := fmt.Sprintf(`,"data":%s`, dataOf(p.m, p.pad))
	if p.key != "" {
		more += fmt.Sprintf(`,"key":%q`, p.key)
	}
	if p.idempotencyKey != "" {
		more += fmt.Sprintf(`,"idempotency_key":%q`, p.idempotencyKey)
	}
	if p.ephemeral {
		more += `,"history":false`
	}
	if p.malformed != "" {
		p.key, p.idempotencyKey, p.ephemeral = "", "", false
		more = fmt.Sprintf(`,"data":%s,`, dataOf(p.m, p.pad)) + p.malformed
	}
	k.ask("broadcast", room, more).published = &p
}

// joinSince joins at a place: mostly one that the person has been at.
func (w *World) joinSince(k *client, room string) {
	if w.chance(0.3) {
		m := 1 + w.rand.Uint64N(5)
		k.ask("join", room, fmt.Sprintf(`,"since":{"last":%d}`, m)).since = &since{last: m}
		return
	}
	var at engine.Position
	for _, other := range slices.Backward(w.clients) {
		if st := other.stands[room]; st != nil && (other.person == k.person || w.chance(0.1)) {
			at = w.mistake(engine.Position{Seq: st.at, Epoch: st.h.epoch})
			break
		}
	}
	if at.Epoch == "" {
		k.ask("join", room, "")
		return
	}
	q := k.ask("join", room, fmt.Sprintf(`,"since":{"seq":%d,"epoch":%q}`, at.Seq, at.Epoch))
	if w.mayNumber(room) {
		q.since = &since{named: true, at: at}
	}
}

// mistake is a position, or sometimes another.
func (w *World) mistake(at engine.Position) engine.Position {
	switch w.rand.IntN(12) {
	case 0:
		at.Epoch = "other"
	case 1:
		at.Seq += w.rand.Uint64N(5)
	case 2, 3:
		at.Seq -= min(at.Seq, w.rand.Uint64N(10))
	}
	return at
}

// lastOf is what a client names that resumes the session of a token: its positions, or nothing.
func (w *World) lastOf(token string) (last map[string]engine.Position, text string) {
	s := w.truth.sessions[token]
	if !w.plan.historic || s == nil || w.chance(0.4) {
		return nil, ""
	}
	last = map[string]engine.Position{}
	var parts []string
	for i := range w.plan.rooms {
		room := fmt.Sprint("room ", i)
		if st := s.of.client.stands[room]; st != nil && w.chance(0.9) {
			at := w.mistake(engine.Position{Seq: st.at, Epoch: st.h.epoch})
			last[room] = at
			parts = append(parts, fmt.Sprintf(`%q:{"seq":%d,"epoch":%q}`, room, at.Seq, at.Epoch))
		}
	}
	return last, `,"last":{` + strings.Join(parts, ",") + "}"
}

// applicationPublishes makes the application publish to a room with history.
func (w *World) applicationPublishes(room string) {
	p := telling{m: w.number(), key: pick(w.rand, "", "", "k1", "k2"), ephemeral: w.chance(0.1)}
	if w.chance(0.2) {
		p.idempotencyKey = pick(w.rand, "i1", "i2")
	}
	var out []*speaker
	for range w.rand.IntN(3) {
		if c := w.clients; len(c) > 0 {
			if c := c[w.rand.IntN(len(c))].truth; c != nil {
				out = append(out, &c.speaker)
			}
		}
	}
	if p.ephemeral {
		p.idempotencyKey, out = "", nil
	}
	w.publish(room, p, out)
}

// publish publishes a message of the application to a room with history.
func (w *World) publish(room string, p telling, out []*speaker) {
	pad := w.pad("y")
	message := engine.M{"type": "app", "m": p.m, "pad": pad, "room": room}
	var told engine.Published
	o := engine.BroadcastOptions{IdempotencyKey: p.idempotencyKey, Key: p.key, Ephemeral: p.ephemeral, Done: func(p engine.Published, _ error) { told = p }}
	for _, c := range out {
		o.Except = append(o.Except, c.id)
	}
	if r := w.truth.rooms[room]; p.ephemeral && r != nil {
		w.truth.publish(p.m, "application", nil, r)
	}
	w.truth.chronicle(room)
	if err := w.server.Server.Publish(room, message, o); err != nil {
		w.complain("answers", "the application publishes to %s: %v", room, err)
	}
	if !p.ephemeral {
		p.text = encode(message)
		w.truth.took(room, p, out, &told)
	}
}

// applicationCreates creates a room, perhaps with bounds of its own.
func (w *World) applicationCreates(room string) {
	var o engine.RoomOptions
	if bounds, is := w.plan.histories[room]; is && w.chance(0.5) {
		bounds.Messages, bounds.Slow = pick(w.rand, 1, 2, 20), engine.SlowPolicy(w.rand.IntN(3))
		o.History = &bounds
	}
	err := w.server.Server.Rooms().Create(room, o)
	w.truth.room(room)
	if h := w.truth.chronicle(room); h != nil && err == nil {
		h.created = true
		if o.History != nil {
			h.take(*o.History)
			h.oldest()
		}
	}
	w.tracef("the application creates %s: %v, %+v", room, err, o.History)
}
