package api

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/protocol/message"
)

// Rooms with history: what a publish gets there, and reading what they keep.

// findHistoric takes the rooms where the message takes a number out of the address.
func (p *publishRequest) findHistoric(rooms *engine.Rooms) *problem {
	if p.toRooms() && !p.to.Ephemeral {
		others := p.to.Rooms[:0]
		for _, room := range p.to.Rooms {
			if !rooms.HasHistory(room) {
				others = append(others, room)
			} else if !slices.Contains(p.historic, room) {
				p.historic = append(p.historic, room)
			}
		}
		p.to.Rooms = others
	}
	switch {
	case p.idempotencyKey == "":
		return nil
	case !p.toRooms():
		return &problem{code: noHistory, detail: "idempotency_key is for rooms with history; the header field Idempotency-Key is for all requests"}
	case len(p.to.Rooms) > 0:
		return &problem{code: noHistory, detail: strconv.Quote(clip([]byte(p.to.Rooms[0]))) +
			" keeps no history, and idempotency_key needs one; the header field Idempotency-Key is for all requests"}
	}
	return nil
}

// publishHistoric publishes to rooms with history, to each by itself, and then to the other rooms.
func (s *Server) publishHistoric(c *call, p *publishRequest) ([]byte, *problem) {
	var last engine.Published
	recipients, duplicates := 0, 0
	missing := new(engine.PartialError)
	for i, room := range p.historic {
		got, wrong := s.publishNumbered(c, p, room)
		if wrong != nil {
			return nil, p.refusedAt(i, wrong)
		}
		if recipients += got.Recipients; got.Duplicate {
			duplicates++
		}
		last = got
		missing.Add(got.Partial)
	}
	c.sent = true
	if len(p.to.Rooms) > 0 {
		more, partial, wrong := s.publishRest(c, p)
		if wrong != nil {
			return nil, p.refusedAt(len(p.historic), wrong)
		}
		recipients, c.sent = recipients+more, true
		missing.Add(partial)
	}
	partial, _ := missing.OrNil().(*engine.PartialError)
	result := []byte{'{'}
	if p.count {
		result = appendRecipients(recipients)
	}
	comma := func() {
		if len(result) > 1 {
			result = append(result, ',')
		}
	}
	if len(p.historic) == 1 && len(p.to.Rooms) == 0 {
		comma()
		result = strconv.AppendUint(append(result, `"seq":`...), last.Seq, 10)
		result = message.AppendString(append(result, `,"epoch":`...), last.Epoch)
	}
	if duplicates == len(p.historic) && len(p.to.Rooms) == 0 {
		comma()
		result = append(result, `"duplicate":true`...)
	}
	return append(s.appendPartial(result, partial), '}'), nil
}

// publishNumbered publishes to a room with history, and waits for the number and, if the request wants the count, for the workers.
func (s *Server) publishNumbered(c *call, p *publishRequest, room string) (got engine.Published, wrong *problem) {
	publish := func(ctx context.Context) (err error) {
		got, err = s.awaitNumber(ctx, c, p, room)
		return err
	}
	if p.count {
		wrong = s.ask(c, publish)
	} else {
		wrong = s.problemOf(c, publish(c.ctx))
	}
	return got, wrong
}

func (s *Server) awaitNumber(ctx context.Context, c *call, p *publishRequest, room string) (engine.Published, error) {
	type outcome struct {
		engine.Published
		err error
	}
	done := make(chan outcome, 1)
	_ = s.engine.Publish(room, p.payload(room, c.now), engine.BroadcastOptions{Except: p.to.Except, ExceptUsers: p.to.ExceptUsers,
		IdempotencyKey: p.idempotencyKey, Key: p.conflateKey, Scope: "key " + c.key.id, Count: p.count,
		Done: func(got engine.Published, err error) { done <- outcome{got, err} }}) // which gets the same error
	select {
	case got := <-done:
		return got.Published, got.err
	case <-ctx.Done():
		return engine.Published{}, engine.ErrUnavailable
	}
}

// publishRest publishes to the rooms without history.
func (s *Server) publishRest(c *call, p *publishRequest) (recipients int, partial *engine.PartialError, wrong *problem) {
	if p.count {
		return s.publishCounted(c, p)
	}
	return 0, nil, s.problemOf(c, s.engine.Post(p.to, p.payload(p.first(), c.now)))
}

// refusedAt is the problem of a publish that a number of rooms has taken before.
func (p *publishRequest) refusedAt(taken int, wrong *problem) *problem {
	if taken == 0 {
		return wrong
	}
	detail := strconv.Itoa(taken) + " of the rooms have the message, and the next one refuses it (" + wrong.code.String() + ")"
	if p.idempotencyKey != "" {
		detail += ": repeat the request, and the former get nothing twice"
	}
	return &problem{code: unavailable, detail: detail}
}

// takeSeq reads the number of a message.
func takeSeq(into **uint64, value []byte) (wrong string) {
	n, err := strconv.ParseUint(string(value), 10, 64)
	if *into = &n; err != nil || n > message.SeqMax {
		return "give a whole number from 0 to " + strconv.FormatUint(message.SeqMax, 10)
	}
	return ""
}

// takeEpoch reads an epoch.
func takeEpoch(into *string, value []byte) (wrong string) {
	if wrong = takeText(into, value); wrong == "" && !message.ValidEpoch(*into) {
		wrong = "give the epoch of an answer: 1 to 22 letters, digits, hyphens and underscores"
	}
	return wrong
}

// checkHistory holds the parameters of a read of a history against each other.
func (q *readRequest) checkHistory(c *call) *problem {
	if wrong := c.seesRoom(q.room); wrong != nil {
		return wrong
	}
	wrong := func(name, detail string) *problem { return invalid([]fault{{c.at + name, detail}}) }
	switch named := q.since != nil || q.before != nil; {
	case q.since != nil && q.before != nil:
		return wrong("/before_seq", "give since_seq or before_seq, not both")
	case named && q.epoch == "":
		return wrong("/epoch", "give the epoch that the number is of: an answer has both")
	case q.epoch != "" && !named:
		return wrong("/epoch", "an epoch needs the number that is of it: since_seq or before_seq")
	case q.limit > message.HistoryLimitMax:
		return wrong("/limit", "give a number from 1 to "+strconv.Itoa(message.HistoryLimitMax))
	}
	return nil
}

// position is a number and its epoch.
func (q *readRequest) position(seq *uint64) *engine.Position {
	if seq == nil {
		return nil
	}
	return &engine.Position{Seq: *seq, Epoch: q.epoch}
}

// history reads a part of what a room keeps. Messages pass byte for byte.
func history(s *Server, c *call) (result []byte, wrong *problem) {
	var q readRequest
	if wrong = c.route.reads.decode(c.object, &q); wrong != nil {
		return nil, wrong
	}
	if wrong = q.checkHistory(c); wrong != nil {
		return nil, wrong
	}
	wrong = s.ask(c, func(ctx context.Context) error {
		page, err := s.engine.History(ctx, q.room, engine.HistoryQuery{Since: q.position(q.since), Before: q.position(q.before), Limit: q.limit})
		if err == nil {
			result = appendHistory(nil, &page)
		}
		return err
	})
	if wrong != nil && wrong.code == noHistory && s.engine.Rooms().HasHistory(q.room) {
		wrong.detail = "the room has had neither a message nor a member for a while: its history begins with the next one"
	}
	return result, wrong
}

func appendHistory(dst []byte, page *engine.HistoryPage) []byte {
	dst = message.AppendString(append(dst, `{"epoch":`...), page.Epoch)
	dst = strconv.AppendUint(append(dst, `,"low":`...), page.Low, 10)
	dst = strconv.AppendUint(append(dst, `,"top":`...), page.Top, 10)
	dst = append(dst, `,"messages":[`...)
	for i, m := range page.Messages {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = strconv.AppendUint(append(dst, `{"seq":`...), m.Seq, 10)
		dst = append(append(append(dst, `,"message":`...), m.Message...), '}')
	}
	dst = strconv.AppendBool(append(dst, `],"more":`...), page.More)
	if page.Gap {
		dst = append(dst, `,"gap":true`...)
	}
	if page.MissingFrom > 0 {
		dst = strconv.AppendUint(append(dst, `,"missing":{"from":`...), page.MissingFrom, 10)
		dst = append(strconv.AppendUint(append(dst, `,"to":`...), page.MissingTo, 10), '}')
	}
	return append(dst, '}')
}

// The bounds that a room may be given.
const (
	historyMessagesMax = 100_000
	historyBytesMax    = 64 << 20
	historyAgeMax      = 30 * 24 * time.Hour
)

var historyFields = fields[engine.HistoryOptions]{
	{"messages", func(o *engine.HistoryOptions, v []byte) string { return takeWhole(&o.Messages, v, historyMessagesMax) }},
	{"bytes", func(o *engine.HistoryOptions, v []byte) string { return takeWhole(&o.Bytes, v, historyBytesMax) }},
	{"age", func(o *engine.HistoryOptions, v []byte) (wrong string) {
		var text string
		var err error
		if wrong = takeText(&text, v); wrong != "" {
			return wrong
		}
		if o.Age, err = time.ParseDuration(text); err != nil || o.Age < time.Millisecond || o.Age > historyAgeMax {
			wrong = `give a duration such as "300s", at most "720h"`
		}
		return wrong
	}},
	{"slow", func(o *engine.HistoryOptions, v []byte) (wrong string) {
		var word string
		if wrong = takeText(&word, v); wrong != "" {
			return wrong
		}
		policy, known := slowPolicies[word]
		if o.Slow = policy; !known {
			wrong = "give drop, disconnect or conflate"
		}
		return wrong
	}},
}

var slowPolicies = map[string]engine.SlowPolicy{"drop": engine.SlowDrop, "disconnect": engine.SlowDisconnect, "conflate": engine.SlowConflate}

// takeWhole reads a whole number from 1 on.
func takeWhole(into *int, value []byte, most int) (wrong string) {
	n, err := strconv.ParseUint(string(value), 10, 31)
	if *into = int(n); err != nil || n < 1 || n > uint64(most) {
		return "give a number from 1 to " + strconv.Itoa(most)
	}
	return ""
}

// readHistory reads the history that a room is to have; nil for a field that is not given.
func readHistory(o object) (*engine.HistoryOptions, *problem) {
	switch {
	case o.raw == nil:
		return nil, nil
	case string(o.raw) == "false":
		return &engine.HistoryOptions{Messages: -1}, nil
	case o.raw[0] != '{':
		return nil, invalid([]fault{{o.at, "give an object, or false for no history"}})
	}
	var options engine.HistoryOptions
	if wrong := historyFields.decode(o, &options); wrong != nil {
		return nil, wrong
	}
	return &options, nil
}
