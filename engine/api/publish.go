package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/engine/access"
	"github.com/parleyd/parley/protocol/message"
)

// publishRequest is the body of /v1/publish, or a publish in a batch. Its slices are borrowed from the body.
//
// Owner: one goroutine.
type publishRequest struct {
	targets []string // the fields that name receivers, in their order
	to      engine.Address
	where   []byte

	data    []byte
	message []byte

	count          bool
	idempotencyKey string
	conflateKey    string
	historic       []string // of the rooms, those where it takes a number; to has the others

	text []byte // of the payload; the next publish of a batch or a socket writes over it
}

// reset prepares p for the next publish of a batch or a socket.
func (p *publishRequest) reset() {
	*p = publishRequest{text: p.text, targets: p.targets[:0], historic: p.historic[:0]}
}

// aims makes a field one of those that name receivers.
func aims(name string, take func(p *publishRequest, value []byte) string) field[publishRequest] {
	return field[publishRequest]{name, func(p *publishRequest, value []byte) string {
		p.targets = append(p.targets, name)
		return take(p, value)
	}}
}

// takeOne reads a string that is the only element of a list.
func takeOne(into *[]string, value []byte) (wrong string) {
	var text string
	wrong = takeText(&text, value)
	*into = []string{text}
	return wrong
}

// takeUser is takeOne for a user. The empty text is no user: connections without one have it.
func takeUser(into *[]string, value []byte) (wrong string) {
	if wrong = takeOne(into, value); wrong == "" && (*into)[0] == "" {
		wrong = userRule
	}
	return wrong
}

// takeUsers is takeTexts for users.
func takeUsers(into *[]string, value []byte) (wrong string) {
	if wrong = takeTexts(into, value); wrong == "" && slices.Contains(*into, "") {
		wrong = userRule
	}
	return wrong
}

const userRule = "the name of a user has one byte at least"

var publishFields = fields[publishRequest]{
	aims("room", func(p *publishRequest, v []byte) string { return takeOne(&p.to.Rooms, v) }),
	aims("rooms", func(p *publishRequest, v []byte) string { return takeTexts(&p.to.Rooms, v) }),
	aims("user", func(p *publishRequest, v []byte) string { return takeUser(&p.to.Users, v) }),
	aims("users", func(p *publishRequest, v []byte) string { return takeUsers(&p.to.Users, v) }),
	aims("connection", func(p *publishRequest, v []byte) string { return takeOne(&p.to.Connections, v) }),
	aims("connections", func(p *publishRequest, v []byte) string { return takeTexts(&p.to.Connections, v) }),
	aims("where", func(p *publishRequest, v []byte) string { p.where = v; return "" }),
	aims("everybody", func(p *publishRequest, v []byte) string {
		if wrong := takeBool(&p.to.Everybody, v); wrong != "" || p.to.Everybody {
			return wrong
		}
		return "give true, or leave the field out"
	}),
	{"data", func(p *publishRequest, v []byte) string { p.data = v; return "" }},
	{"message", func(p *publishRequest, v []byte) string {
		if p.message = v; message.Sendable(v) != message.OK {
			return "give an object with a string as its type, in which type, room, data, ref, token, to, last, since and after stand once at most"
		}
		return ""
	}},
	{"except", func(p *publishRequest, v []byte) string { return takeTexts(&p.to.Except, v) }},
	{"except_user", func(p *publishRequest, v []byte) string { return takeUser(&p.to.ExceptUsers, v) }},
	{"count", func(p *publishRequest, v []byte) string { return takeBool(&p.count, v) }},
	{"idempotency_key", func(p *publishRequest, v []byte) string { return takeShort(&p.idempotencyKey, v) }},
	{"key", func(p *publishRequest, v []byte) string { return takeShort(&p.conflateKey, v) }},
	{"history", func(p *publishRequest, v []byte) string {
		wrong := takeBool(&p.to.Ephemeral, v)
		p.to.Ephemeral = !p.to.Ephemeral
		return wrong
	}},
}

// publish sends a message to the connections at an address. The answer waits for the bus: see [Server.settle].
func publish(s *Server, c *call) ([]byte, *problem) {
	if int64(len(c.raw)) > s.publishMax.bytes {
		return nil, &problem{code: tooLarge, detail: s.publishMax.says}
	}
	p := &c.publish
	p.reset()
	if wrong := publishFields.decode(c.object, p); wrong != nil {
		return nil, wrong
	}
	if wrong := p.check(c); wrong != nil {
		return nil, wrong
	}
	if wrong := p.allowed(c.key); wrong != nil {
		return nil, wrong
	}
	if wrong := p.findHistoric(s.engine.Rooms()); wrong != nil {
		return nil, wrong
	}
	if len(p.historic) > 0 {
		return s.publishHistoric(c, p)
	}
	switch {
	case p.toNone() && p.count:
		return []byte(`{"recipients":0}`), nil
	case p.toNone():
		return []byte("{}"), nil
	case p.count:
		recipients, partial, wrong := s.publishCounted(c, p)
		if wrong != nil {
			return nil, wrong
		}
		return append(s.appendPartial(appendRecipients(recipients), partial), '}'), nil
	}
	if err := s.engine.Post(p.to, p.payload(p.first(), c.now)); err != nil {
		return nil, s.problemOf(c, err)
	}
	c.sent = true
	return []byte("{}"), nil
}

func appendRecipients(n int) []byte { return strconv.AppendInt([]byte(`{"recipients":`), int64(n), 10) }

// check holds the fields against each other.
func (p *publishRequest) check(c *call) *problem {
	var faults []fault
	say := func(name, detail string) { faults = append(faults, fault{c.at + name, detail}) }
	switch len(p.targets) {
	case 1:
	case 0:
		say("", "name the receivers: by exactly one of room, rooms, user, users, connection, connections, where and everybody")
	default:
		say("/"+p.targets[1], "name the receivers once: give only one of "+strings.Join(p.targets, " and "))
	}
	switch {
	case p.data == nil && p.message == nil:
		say("", "say what to publish: by exactly one of data and message")
	case p.data != nil && p.message != nil:
		say("/message", "say what to publish once: give data or message, not both")
	case p.data != nil && len(faults) == 0 && !p.toRooms():
		say("/data", "data is for rooms: give a message")
	}
	if p.idempotencyKey != "" && p.to.Ephemeral {
		say("/idempotency_key", "the key belongs to a number, and with \"history\":false the message takes none")
	}
	if len(faults) > 0 {
		return invalid(faults)
	}
	if p.where != nil {
		where, wrong := readWhere(object{raw: p.where, at: c.at + "/where"})
		p.to.Attribute, p.to.Value = where.attribute, json.RawMessage(where.value)
		return wrong
	}
	return p.checkRooms(c)
}

func (p *publishRequest) toRooms() bool { return p.targets[0] == "room" || p.targets[0] == "rooms" }

// toNone reports whether the list of receivers is empty.
func (p *publishRequest) toNone() bool {
	return p.where == nil && !p.to.Everybody && len(p.to.Rooms)+len(p.to.Users)+len(p.to.Connections) == 0
}

const roomRule = "give 1 to 255 bytes without control characters"

func (p *publishRequest) checkRooms(c *call) *problem {
	for i, room := range p.to.Rooms {
		if message.ValidRoom([]byte(room)) == message.OK {
			continue
		}
		at := c.at + "/" + p.targets[0]
		if p.targets[0] == "rooms" {
			at += "/" + strconv.Itoa(i)
		}
		return &problem{code: invalidRoom, faults: []fault{{at, roomRule}}}
	}
	return nil
}

// allowed holds the receivers against the key's rooms. A key with rooms addresses rooms only.
func (p *publishRequest) allowed(k *key) *problem {
	if k.rooms == nil {
		return nil
	}
	if !p.toRooms() {
		return k.addressesAll(p.targets[0])
	}
	for _, room := range p.to.Rooms {
		if wrong := k.isFor(room); wrong != nil {
			return wrong
		}
	}
	return nil
}

// isFor refuses a room that the key is not for.
func (k *key) isFor(room string) *problem {
	if k.mayRoom(room) {
		return nil
	}
	return &problem{code: forbidden, detail: "the key is not for the room " + strconv.Quote(clip([]byte(room)))}
}

// whereValue chooses connections by an attribute.
type whereValue struct {
	attribute string
	value     []byte
}

var whereFields = fields[whereValue]{
	{"attribute", func(w *whereValue, v []byte) string { return takeText(&w.attribute, v) }},
	{"value", func(w *whereValue, v []byte) string { w.value = v; return "" }},
}

func readWhere(o object) (w whereValue, _ *problem) {
	if wrong := whereFields.decode(o, &w); wrong != nil {
		return w, wrong
	}
	if w.attribute == "" || w.value == nil {
		return w, invalid([]fault{{o.at, "give an object with attribute, a name, and value"}})
	}
	return w, nil
}

// first is the room that data names: the first of several, since all members get the same frame. It is "" where no room is addressed.
func (p *publishRequest) first() string {
	if len(p.to.Rooms) == 0 {
		return ""
	}
	return p.to.Rooms[0]
}

// payload is the text that receivers get, until the next call. Data names the room.
func (p *publishRequest) payload(room string, now time.Time) []byte {
	if p.message != nil {
		return p.message
	}
	dst := slices.Grow(p.text[:0], len(p.data)+len(room)+80)
	dst = message.AppendString(append(dst, `{"type":"broadcast","room":`...), room)
	dst = append(append(dst, `,"data":`...), p.data...)
	dst = strconv.AppendInt(append(dst, `,"timestamp":`...), now.Unix(), 10)
	p.text = append(dst, '}')
	return p.text
}

// publishCounted publishes, and answers for how many connections the message was queued. The workers that answered have the
// message, so that it waits for the bus only where one did not.
func (s *Server) publishCounted(c *call, p *publishRequest) (recipients int, partial *engine.PartialError, wrong *problem) {
	var err error
	if wrong := s.ask(c, func(ctx context.Context) error {
		recipients, err = s.engine.Everywhere().Post(ctx, p.to, p.payload(p.first(), c.now))
		return nil
	}); wrong != nil {
		return 0, nil, wrong
	}
	partial, asPartial := errors.AsType[*engine.PartialError](err)
	switch {
	case errors.Is(err, engine.ErrOverloaded) && (recipients > 0 || asPartial):
		return 0, nil, &problem{code: unavailable, detail: fmt.Sprintf("a worker is overloaded; on the others the message was queued for %d connections", recipients)}
	case errors.Is(err, engine.ErrOverloaded), err != nil && !asPartial:
		return 0, nil, s.problemOf(c, err)
	}
	c.sent = asPartial
	return recipients, partial, nil
}

// appendPartial names the workers that did not answer in time, as a member of an object.
func (s *Server) appendPartial(dst []byte, partial *engine.PartialError) []byte {
	if partial == nil {
		return dst
	}
	dst = append(dst, `,"partial":[`...)
	for i, instance := range partial.Workers {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, '{')
		if index := s.places.of(s.operator, instance); index != nil {
			dst = append(strconv.AppendInt(append(dst, `"worker":`...), int64(*index), 10), ',')
		}
		dst = append(strconv.AppendUint(append(dst, `"instance":`...), uint64(instance), 10), '}')
	}
	return append(dst, ']')
}

// settle waits until the end of no single process takes what the call has sent from members on other workers. Where the bus
// is away it does not wait on: the message leaves when the bus is back, and the result says that it is delayed.
func (s *Server) settle(c *call, results ...*[]byte) {
	if s.engine.Confirm(c.ctx) == nil {
		return
	}
	for _, result := range results {
		text := (*result)[:len(*result)-1]
		if len(text) > 1 {
			text = append(text, ',')
		}
		*result = append(text, `"delayed":true}`...)
	}
}

const (
	asksMax = 256 // requests that ask workers at once
	askSpan = 5 * time.Second
)

// problemOf makes an answer of an error of the engine; nil of none.
func (s *Server) problemOf(c *call, err error) *problem {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, engine.ErrOverloaded):
		return &problem{code: overloaded}
	case errors.Is(err, engine.ErrConnectionUnknown), errors.Is(err, engine.ErrNotOpen):
		return &problem{code: notFound, detail: "connection: " + err.Error()}
	case errors.Is(err, engine.ErrRoomUnknown):
		return &problem{code: notFound, detail: "room: " + err.Error()}
	case errors.Is(err, engine.ErrCursor):
		return invalid([]fault{{c.at + "/after", err.Error()}})
	case err == errIncomplete:
		return &problem{code: incomplete, detail: err.Error()}
	case errors.Is(err, engine.ErrNotObject):
		return invalid([]fault{{c.at + "/message", err.Error()}})
	case errors.Is(err, engine.ErrNoHistory):
		return &problem{code: noHistory}
	case errors.Is(err, engine.ErrHistoryShared):
		return invalid([]fault{{c.at + "/history", err.Error()}})
	case errors.Is(err, engine.ErrRoomExists):
		return &problem{code: roomExists}
	case errors.Is(err, engine.ErrAttributesFull):
		return &problem{code: tooLarge, detail: err.Error()}
	case errors.Is(err, engine.ErrRoomFull):
		return &problem{code: roomFull}
	case errors.Is(err, engine.ErrTooManyRooms):
		return &problem{code: tooManyRooms}
	case errors.Is(err, engine.ErrNotInRoom):
		return &problem{code: notInRoom, detail: "the connection left the room before it was in"}
	case errors.Is(err, engine.ErrNotObject):
		return invalid([]fault{{c.at + "/message", err.Error()}})
	case errors.Is(err, engine.ErrMessageTooLarge):
		return &problem{code: tooLarge, detail: err.Error()}
	case errors.Is(err, access.ErrRevocation):
		return invalid([]fault{{c.at, err.Error()}})
	case errors.Is(err, access.ErrRevocationsFull):
		return &problem{code: overloaded, detail: err.Error()}
	case err == errSpreads:
		return &problem{code: unavailable, detail: "the change is kept, and has not reached all workers: repeat the request"}
	case errors.Is(err, engine.ErrUnanswered), errors.Is(err, engine.ErrUnavailable), errors.Is(err, engine.ErrPartial), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return &problem{code: unavailable, detail: "a worker did not answer in time: it may have done it or not"}
	}
	s.log.Error("the server failed at a request to the HTTP API, and answered 500", "request", c.request, "key", c.key.id, "err", err)
	return &problem{code: internal, detail: "the server's log says why, under the id of this request"}
}
