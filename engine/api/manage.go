package api

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/protocol/frame"
	"github.com/parleyd/parley/protocol/message"
)

// target names the connections that an action is about, in one way.
//
// Owner: one goroutine.
type target struct {
	ways   []string // the fields that name connections, in their order
	to     engine.Address
	where  []byte
	reason string // of a disconnect
	code   ws.StatusCode
	stays  bool // the sessions can be resumed
	room   string
}

// way makes a field one of those that name connections.
func way(name string, take func(t *target, value []byte) string) field[target] {
	return field[target]{name, func(t *target, value []byte) string {
		t.ways = append(t.ways, name)
		return take(t, value)
	}}
}

// byConnection reads a connection's id.
func byConnection(t *target, v []byte) string {
	wrong := takeOne(&t.to.Connections, v)
	if wrong == "" && t.to.Connections[0] == "" {
		wrong = "name the connection"
	}
	return wrong
}

// byUser reads a user.
func byUser(t *target, v []byte) string { return takeUser(&t.to.Users, v) }

var moveFields = fields[target]{
	way("connection", byConnection),
	way("user", byUser),
	{"room", func(t *target, v []byte) string { return takeText(&t.room, v) }},
}

var endFields = fields[target]{way("connection", byConnection), way("user", byUser)}

var disconnectFields = fields[target]{
	way("connection", byConnection),
	way("user", byUser),
	way("room", func(t *target, v []byte) string { return takeOne(&t.to.Rooms, v) }),
	way("where", func(t *target, v []byte) string { t.where = v; return "" }),
	{"except", func(t *target, v []byte) string { return takeTexts(&t.to.Except, v) }},
	{"resume", func(t *target, v []byte) string { return takeBool(&t.stays, v) }},
	{"code", func(t *target, v []byte) string {
		n, err := strconv.ParseUint(string(v), 10, 16)
		if t.code = ws.StatusCode(n); err != nil || !mayEnd(t.code) {
			return "give a close code that a server may choose: 1000, 1001, 1008, 1011 to 1013, or 3000 to 4999"
		}
		return ""
	}},
	{"reason", func(t *target, v []byte) string {
		wrong := takeText(&t.reason, v)
		if len(t.reason) > frame.ReasonBytesMax {
			wrong = "a close frame has room for " + strconv.Itoa(frame.ReasonBytesMax) + " bytes of reason"
		}
		return wrong
	}},
}

// mayEnd reports whether a backend may choose a close code; the others are for faults of a client.
func mayEnd(code ws.StatusCode) bool {
	return code == 1000 || code == 1001 || code == 1008 || code >= 1011 && code <= 1013 || code >= 3000 && code <= 4999
}

// check wants one way, which the key may take.
func (t *target) check(c *call, ways string) *problem {
	switch len(t.ways) {
	case 0:
		return invalid([]fault{{c.at, "name the connections: by exactly one of " + ways}})
	case 1:
	default:
		return invalid([]fault{{c.at + "/" + t.ways[1], "name the connections once: give " + t.ways[0] + " or " + t.ways[1] + ", not both"}})
	}
	if t.ways[0] == "room" {
		return c.seesRoom(t.to.Rooms[0])
	}
	if t.where != nil {
		where, wrong := readWhere(object{raw: t.where, at: c.at + "/where"})
		if wrong != nil {
			return wrong
		}
		t.to.Attribute, t.to.Value = where.attribute, json.RawMessage(where.value)
	}
	return c.key.addressesAll("a " + t.ways[0])
}

// addressesAll refuses a key with rooms: such a key addresses rooms only.
func (k *key) addressesAll(what string) *problem {
	if k.rooms == nil {
		return nil
	}
	return &problem{code: forbidden, detail: "the key is for some rooms only: it may address room and rooms, and not " + what}
}

// join takes connections into a room, and answers when they are in.
func join(s *Server, c *call) ([]byte, *problem) {
	return s.move(c, "joined", (*engine.Everywhere).Join, (*engine.Everywhere).JoinAt)
}

// leave takes connections out of a room.
func leave(s *Server, c *call) ([]byte, *problem) {
	return s.move(c, "left", (*engine.Everywhere).Leave, (*engine.Everywhere).LeaveAt)
}

// move is a join or a leave: of one connection, which must exist, or of those of a user.
func (s *Server) move(c *call, word string, one func(x *engine.Everywhere, ctx context.Context, id, room string) error,
	all func(x *engine.Everywhere, ctx context.Context, at engine.Address, room string) (int, error)) ([]byte, *problem) {
	var t target
	if wrong := moveFields.decode(c.object, &t); wrong != nil {
		return nil, wrong
	}
	if wrong := t.check(c, "connection and user"); wrong != nil {
		return nil, wrong
	}
	if message.ValidRoom([]byte(t.room)) != message.OK {
		return nil, &problem{code: invalidRoom, faults: []fault{{c.at + "/room", roomRule}}}
	}
	return s.act(c, word, func(ctx context.Context) (n int, err error) {
		if t.to.Users == nil {
			return 1, one(s.engine.Everywhere(), ctx, t.to.Connections[0], t.room)
		}
		if n, err = all(s.engine.Everywhere(), ctx, t.to, t.room); n > 0 && !isPartial(err) {
			err = nil // some are in: the number says so
		}
		return n, err
	})
}

// act carries out an action on all workers, and answers for how many connections. Workers that did not answer are named.
func (s *Server) act(c *call, word string, action func(ctx context.Context) (int, error)) ([]byte, *problem) {
	n := 0
	var partial *engine.PartialError
	if wrong := s.ask(c, func(ctx context.Context) (err error) {
		n, err = action(ctx)
		partial, err = new(readRequest).tolerate(err)
		return err
	}); wrong != nil {
		return nil, wrong
	}
	return append(s.appendPartial(fmt.Appendf(nil, `{%q:%d`, word, n), partial), '}'), nil
}

// ask runs a question to workers, for which only so many requests have a place at once.
func (s *Server) ask(c *call, question func(ctx context.Context) error) *problem {
	select {
	case s.asks <- struct{}{}:
	default:
		if !c.waits {
			return &problem{code: overloaded, detail: strconv.Itoa(asksMax) + " requests that ask workers are under way"}
		}
		select {
		case s.asks <- struct{}{}:
		case <-c.ctx.Done():
			return &problem{code: unavailable, detail: "the request has ended"}
		}
	}
	defer func() { <-s.asks }()
	ctx, cancel := context.WithTimeout(c.ctx, askSpan)
	defer cancel()
	return s.problemOf(c, question(ctx))
}

// disconnect ends connections, and answers when their loops have ended them. That there are none is no error.
func disconnect(s *Server, c *call) ([]byte, *problem) {
	t := target{code: engine.StatusDisconnected, stays: true}
	if wrong := disconnectFields.decode(c.object, &t); wrong != nil {
		return nil, wrong
	}
	if wrong := t.check(c, "connection, user, room and where"); wrong != nil {
		return nil, wrong
	}
	return s.act(c, "closed", func(ctx context.Context) (int, error) {
		return s.engine.Everywhere().CloseWhere(ctx, t.to, engine.Farewell{Code: t.code, Reason: t.reason, EndSessions: !t.stays})
	})
}

// endSessions ends sessions: those of live connections, and those that wait for one.
func endSessions(s *Server, c *call) ([]byte, *problem) {
	var t target
	if wrong := endFields.decode(c.object, &t); wrong != nil {
		return nil, wrong
	}
	if wrong := t.check(c, "connection and user"); wrong != nil {
		return nil, wrong
	}
	return s.act(c, "ended", func(ctx context.Context) (int, error) { return s.engine.Everywhere().EndSessions(ctx, t.to) })
}

// attributesRequest is the body of /v1/attributes.
type attributesRequest struct {
	connection string
	set        map[string]json.RawMessage
	remove     []string
}

var attributesFields = fields[attributesRequest]{
	{"connection", func(a *attributesRequest, v []byte) string { return takeText(&a.connection, v) }},
	{"set", func(a *attributesRequest, v []byte) (wrong string) {
		a.set = map[string]json.RawMessage{}
		code := message.EachMember(v, func(name, value []byte) bool {
			if _, twice := a.set[string(name)]; twice {
				wrong = strconv.Quote(clip(name)) + " stands twice"
			}
			a.set[string(name)] = value
			return wrong == ""
		})
		if wrong == "" && code != message.OK {
			wrong = "give an object of names and values, not " + kindOf(v)
		}
		return wrong
	}},
	{"remove", func(a *attributesRequest, v []byte) string { return takeTexts(&a.remove, v) }},
}

// attributes changes the attributes of a connection in one step, and answers with all that it has then.
func attributes(s *Server, c *call) (result []byte, _ *problem) {
	var a attributesRequest
	if wrong := attributesFields.decode(c.object, &a); wrong != nil {
		return nil, wrong
	}
	if a.connection == "" {
		return nil, invalid([]fault{{c.at + "/connection", "name the connection"}})
	}
	if wrong := c.key.addressesAll("a connection"); wrong != nil {
		return nil, wrong
	}
	wrong := s.ask(c, func(ctx context.Context) error {
		all, err := s.engine.Everywhere().SetAttributes(ctx, a.connection, a.set, a.remove)
		if err != nil {
			return err
		}
		if all == nil {
			all = map[string]json.RawMessage{}
		}
		result, err = message.Encode(nil, map[string]any{"attributes": all})
		return err
	})
	return result, wrong
}
