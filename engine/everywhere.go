package engine

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/engine/internal/reactor"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/protocol/message"
	"github.com/parleyd/parley/rooms"
)

// Everywhere asks all workers that are one server, where the methods of [Server], [Rooms] and [Conn] know this one.
// With one process it works on that.
//
// Every method waits for answers: a few tenths of a millisecond where all workers are well, and a second at most for one
// that does not answer. So they are for handlers registered with [Offload] and for goroutines of the application's
// own; on a loop they would hold up all of its connections. What could not be asked is named by a [*PartialError]; what
// comes with it is true as far as it goes.
type Everywhere struct{ srv *Server }

// Everywhere gives access to all workers. Any goroutine.
func (s *Server) Everywhere() *Everywhere { return &Everywhere{s} }

// ErrPartial is what errors.Is finds in a [*PartialError].
var ErrPartial = errors.New("a worker did not answer in time")

// PartialError says whose part is missing in a result.
type PartialError struct {
	Workers []uint16 // their instances
	cause   error
}

func (e *PartialError) Error() string {
	text := fmt.Sprintf("workers %v did not answer in time: their part is missing", e.Workers)
	if e.cause != nil {
		text += ": " + e.cause.Error()
	}
	return text
}

// Unwrap gives [ErrPartial], and the context's error where that was the cause.
func (e *PartialError) Unwrap() []error {
	if e.cause != nil {
		return []error{ErrPartial, e.cause}
	}
	return []error{ErrPartial}
}

// ErrConnectionUnknown says that no worker has an open connection with this id.
var ErrConnectionUnknown = errors.New("there is no open connection with this id")

// Up reports whether the other workers are reached, as far as is known; it does not wait. While they are not, what is
// said to them waits, and questions are answered in part. True where there is one process.
//
// Scope: all workers.
func (x *Everywhere) Up() bool { return x.srv.peers == nil || x.srv.peers.Bus.Up() }

// ConnectionCount is the number of open connections. Cost: one question to each worker. Errors: [*PartialError].
//
// Scope: all workers.
func (x *Everywhere) ConnectionCount(ctx context.Context) (total int, err error) {
	err = x.each(ctx, fleet.Connections, nil, func(_ ident.Worker, r *fleet.Reader) { total += int(r.Number()) })
	return total, err
}

// Stats adds up the figures of all workers, as /stats does; a room is counted once. Cost: one question to each, which
// takes it about 40 us. Errors: [*PartialError].
//
// Scope: all workers.
func (x *Everywhere) Stats(ctx context.Context) (Stats, error) {
	total := Stats{Ended: map[string]uint64{}}
	err := x.each(ctx, fleet.Stats, nil, func(_ ident.Worker, r *fleet.Reader) {
		var one Stats
		if r.Bad = json.Unmarshal(r.Rest, &one) != nil; !r.Bad {
			total.Add(one)
		}
	})
	total.Rooms = total.RoomsCounted
	return total, err
}

// Members lists the ids of a room's members. Who is a member all the time is listed, once. Cost: a question to each
// worker for every 10,000 of its members. Errors: [*PartialError].
//
// Scope: all workers.
func (x *Everywhere) Members(ctx context.Context, room string) ([]string, error) {
	var ids []string
	seen := map[ident.ID]bool{}
	first := fleet.MembersQuestion{Room: []byte(room), Max: membersPage, From: fleet.Cursor(rooms.FirstPage)}.AppendTo(nil)
	err := x.pages(ctx, fleet.Members, first, func(worker ident.Worker, r *fleet.Reader) (next []byte) {
		page := readMembersPage(r, worker)
		for _, p := range page.places {
			if id := (ident.ID{Worker: worker, Place: p}); !seen[id] {
				seen[id] = true
				ids = append(ids, id.String())
			}
		}
		if page.More {
			next = fleet.MembersQuestion{Room: []byte(room), Max: membersPage, From: page.Next}.AppendTo(nil)
		}
		return next
	})
	return ids, err
}

// Rooms lists all rooms, each once, sorted by name, with the members that they have on all workers together. Cost: each
// worker walks through all of its rooms, and sends them in questions of about 64 KiB: a tenth of a second for
// 100,000 rooms. Errors: [*PartialError].
//
// Scope: all workers.
func (x *Everywhere) Rooms(ctx context.Context) ([]RoomStats, error) {
	byName := map[string]*RoomStats{}
	err := x.pages(ctx, fleet.Rooms, appendNumber(nil, 0), func(_ ident.Worker, r *fleet.Reader) (next []byte) {
		after := r.Number()
		for len(r.Rest) > 0 && !r.Bad {
			one := readRoomStats(r)
			old := byName[one.Name]
			if old == nil {
				byName[one.Name] = &one
				continue
			}
			old.Connections += one.Connections
			old.CreatedAt = min(old.CreatedAt, one.CreatedAt)
			old.MaxMembers = max(old.MaxMembers, one.MaxMembers)
			if old.Metadata == nil {
				old.Metadata = one.Metadata
			}
		}
		if after != 0 {
			next = appendNumber(nil, after)
		}
		return next
	})
	list := make([]RoomStats, 0, len(byName))
	for _, r := range byName {
		list = append(list, *r)
	}
	slices.SortFunc(list, func(a, b RoomStats) int { return cmp.Compare(a.Name, b.Name) })
	return list, err
}

// FindByAttribute describes the open connections whose attribute has a value, compared as JSON. Cost: each
// worker looks through all of its connections (about 30 ns each) and sends those found, some 4 us each.
// Errors: [*PartialError]; value cannot be encoded.
//
// Scope: all workers.
func (x *Everywhere) FindByAttribute(ctx context.Context, key string, value any) ([]Facts, error) {
	raw, err := message.Encode(nil, value)
	if err != nil {
		return nil, err
	}
	return x.find(ctx, fleet.FindQuestion{Kind: fleet.Matching, Key: []byte(key), Value: raw})
}

// FindFiltered describes the open connections that a filter accepts which every worker has registered
// ([Server.RegisterFilter]), asked for with asked. Cost: that of [Everywhere.FindByAttribute], and the filter's.
// Errors: [ErrFilterUnknown]; [*PartialError], also for a worker that has not registered it.
//
// Scope: all workers.
func (x *Everywhere) FindFiltered(ctx context.Context, filter string, asked []byte) ([]Facts, error) {
	if x.srv.filter(filter) == nil {
		return nil, ErrFilterUnknown
	}
	return x.find(ctx, fleet.FindQuestion{Kind: fleet.Filtered, Key: []byte(filter), Value: asked})
}

func (x *Everywhere) find(ctx context.Context, q fleet.FindQuestion) (list []Facts, err error) {
	err = x.pages(ctx, fleet.Find, q.AppendTo(nil), func(_ ident.Worker, r *fleet.Reader) (next []byte) {
		var page fleet.FindPage
		page.Read(r)
		for len(r.Rest) > 0 && !r.Bad {
			var f Facts
			if message.Decode(r.Bytes(), &f) != nil {
				r.Bad = true
				break
			}
			list = append(list, f)
		}
		if page.More {
			q := q
			q.Loop, q.Slot = page.Loop, page.Slot
			next = q.AppendTo(nil)
		}
		return next
	})
	return list, err
}

// Connection describes an open connection. Cost: one question to its worker, none where that is this one. Errors:
// [ErrConnectionUnknown]; [ErrUnanswered].
//
// Scope: all workers.
func (x *Everywhere) Connection(ctx context.Context, id string) (f Facts, err error) {
	err = x.one(ctx, errand{verb: fleet.Facts, id: id, take: func(r *fleet.Reader) error {
		return message.Decode(r.Rest, &f)
	}})
	return f, err
}

// Close ends a connection as [Conn.CloseWith] does, and returns once its worker has heard it. Cost and errors as of
// [Everywhere.Connection].
//
// Scope: all workers.
func (x *Everywhere) Close(ctx context.Context, id string, code ws.StatusCode, reason string) error {
	return x.one(ctx, errand{verb: fleet.Close, id: id, with: func(w *fleet.Writer) { w.Number(uint64(code)).Text(reason) }})
}

// Join takes a connection into a room, and returns when it is in, as [Rooms.JoinThen] does. Cost: one question to its
// worker, which for a limited room asks the bus for a seat. Errors: those of [Rooms.JoinThen] and of
// [Everywhere.Connection]; [ErrOnLoop]: the connection is this worker's, whose loop may be the one that the call is made
// on. After [ErrUnanswered], within 2.5 s, it may be in or not.
//
// Scope: all workers.
func (x *Everywhere) Join(ctx context.Context, id, room string) error {
	if _, whose := x.srv.locate(id); whose == ours && reactor.OnLoop() {
		return ErrOnLoop
	}
	return x.one(ctx, errand{verb: fleet.Join, id: id, with: func(w *fleet.Writer) { w.Text(room) }})
}

// Leave takes a connection out of a room, soon, as [Rooms.Leave] does. Cost and errors as of [Everywhere.Connection].
//
// Scope: all workers.
func (x *Everywhere) Leave(ctx context.Context, id, room string) error {
	return x.one(ctx, errand{verb: fleet.Leave, id: id, with: func(w *fleet.Writer) { w.Text(room) }})
}

// SendTo sends v to one connection, and reports whether it exists; [Server.SendTo] does not wait, and knows only whether
// its worker lives. What one goroutine sends and broadcasts arrives in its order. Cost: one question to its worker.
// Errors: v cannot be encoded; [ErrMessageTooLarge]; [ErrOverloaded]; [ErrUnanswered]: it may have been sent or not.
//
// Scope: all workers.
func (x *Everywhere) SendTo(ctx context.Context, id string, v any) (exists bool, err error) {
	f, err := x.srv.encodeShared(v)
	if err != nil {
		return false, err
	}
	err = x.one(ctx, errand{verb: fleet.Send, id: id, with: func(w *fleet.Writer) { w.B = append(w.B, f.Plain...) }})
	if err == ErrConnectionUnknown {
		return false, nil
	}
	return err == nil, err
}

// errand is what is asked for one connection.
//
// Owner: who asks.
type errand struct {
	verb fleet.Verb
	id   string
	with func(w *fleet.Writer)       // what goes along; may be nil
	take func(r *fleet.Reader) error // the answer, where it is more than an error; may be nil
}

// one asks the worker of a connection.
func (x *Everywhere) one(ctx context.Context, e errand) error {
	worker, question, ok := e.question(x.srv)
	if !ok {
		return ErrConnectionUnknown
	}
	answers, err := x.collect(ctx, e.verb, []parcel{{worker, question}})
	switch {
	case err != nil && ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return ErrUnanswered
	}
	return e.outcome(answers)
}

// question is what is asked of the connection's worker; ok is false where the id is none.
func (e *errand) question(s *Server) (worker ident.Worker, question []byte, ok bool) {
	id, whose := s.locate(e.id)
	w := new(fleet.Writer)
	w.Place(id.Place)
	if e.with != nil {
		e.with(w)
	}
	return id.Worker, w.B, whose != nobodys
}

// waitOf is how long an answer is waited for.
func waitOf(v fleet.Verb) time.Duration {
	if v == fleet.Join {
		return joinWait
	}
	return gatherWait
}

// outcome is what the worker says.
func (e *errand) outcome(answers []parcel) error {
	if len(answers) == 0 {
		return ErrConnectionUnknown // its worker is gone, and it with that
	}
	r := &fleet.Reader{Rest: answers[0].bytes}
	if err := readOutcome(r); err != nil {
		return err
	}
	if e.take != nil {
		return e.take(r)
	}
	return nil
}

// each asks every worker the same, this one too.
func (x *Everywhere) each(ctx context.Context, v fleet.Verb, question []byte, take func(worker ident.Worker, r *fleet.Reader)) error {
	return x.pages(ctx, v, question, func(worker ident.Worker, r *fleet.Reader) []byte {
		take(worker, r)
		return nil
	})
}

// pages asks every worker, and asks on those whose answer names what to ask next. An answer that makes no sense counts as
// none.
func (x *Everywhere) pages(ctx context.Context, v fleet.Verb, first []byte, take func(worker ident.Worker, r *fleet.Reader) (next []byte)) error {
	questions := []parcel{{x.srv.instance, first}}
	for _, worker := range x.srv.others() {
		questions = append(questions, parcel{worker, first})
	}
	partial := new(PartialError)
	for len(questions) > 0 {
		answers, err := x.collect(ctx, v, questions)
		if err != nil {
			partial.Workers, partial.cause = append(partial.Workers, err.Workers...), err.cause
		}
		questions = nil
		for _, a := range answers {
			r := &fleet.Reader{Rest: a.bytes}
			next := take(a.worker, r)
			switch {
			case r.Bad:
				partial.Workers = append(partial.Workers, a.worker.Instance())
			case next != nil:
				questions = append(questions, parcel{a.worker, next})
			}
		}
	}
	if len(partial.Workers) == 0 {
		return nil
	}
	slices.Sort(partial.Workers)
	return partial
}

// collect gathers and waits.
func (x *Everywhere) collect(ctx context.Context, v fleet.Verb, questions []parcel) (answers []parcel, partial *PartialError) {
	wait := waitOf(v)
	if until, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(until))
	}
	var missing []ident.Worker
	told := make(chan struct{})
	h := x.srv.gather(v, questions, wait, func(a []parcel, m []ident.Worker) {
		answers, missing = a, m
		close(told)
	})
	var cause error
	bounded, cancel := context.WithTimeout(ctx, wait+gatherGrace) // a worker that asks itself is not reminded
	defer cancel()
	select {
	case <-told:
	case <-bounded.Done():
		h.giveUp()
		<-told
		cause = ctx.Err()
	}
	if len(missing) == 0 {
		return answers, nil
	}
	partial = &PartialError{cause: cause}
	for _, worker := range missing {
		partial.Workers = append(partial.Workers, worker.Instance())
	}
	return answers, partial
}
