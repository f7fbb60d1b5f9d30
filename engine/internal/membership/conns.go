package membership

import (
	"cmp"
	"context"
	"slices"

	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/engine/internal/lists"
	"github.com/parleyd/parley/engine/internal/reactor"
	"github.com/parleyd/parley/engine/internal/session"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/protocol/message"
)

// Lists of connections over all workers. A worker reads some facts on the loops of the connections; so these calls are refused
// on a loop.

// ConnectionFilter chooses connections. Empty fields choose all; of several fields, all must hold.
//
// Owner: the caller.
type ConnectionFilter struct {
	User           string
	Room           string
	Address        string // of the client, without a port
	AttributeKey   string // the attribute of this name has AttributeValue, compared as JSON
	AttributeValue any
}

const (
	factsPage  = 256     // connections in one answer
	factsBytes = 4 << 20 // of a page: it ends behind the answer that exceeds them
)

// ConnectionFacts describes an open connection. Cost: one question to its worker and one letter to its loop. Errors:
// [ErrConnectionUnknown]; [fleet.ErrUnanswered]; [ErrOnLoop].
func (w *Worker) ConnectionFacts(ctx context.Context, id string) (f session.Facts, err error) {
	at, whose := w.Link.Locate(id)
	switch {
	case whose == fleet.Nobodys:
		return f, ErrConnectionUnknown
	case reactor.OnLoop():
		return f, ErrOnLoop
	}
	list, err := w.factsOf(ctx, []ident.ID{at})
	switch {
	case err == nil && len(list) == 0:
		return f, ErrConnectionUnknown
	case err != nil && ctx.Err() != nil:
		return f, ctx.Err()
	case err != nil:
		return f, fleet.ErrUnanswered
	}
	return list[0], nil
}

// ConnectionsPage lists up to limit (1 to 1000) open connections that a filter accepts, worker by worker. next is "" at the
// end, else the "after" of the next page. A page of more than 4 MiB ends earlier. A connection that is there all the time is on
// exactly one page. Cost: a question to each worker that the page needs, and a letter to each of its loops; a filter without a
// user or a room has the worker look through its connections, 50,000 for each question. Errors: [ErrCursor]; [ErrOnLoop];
// [*fleet.PartialError]; the value cannot be encoded.
func (w *Worker) ConnectionsPage(ctx context.Context, filter ConnectionFilter, after string, limit int) (rows []session.Facts, next string, err error) {
	c := course{verb: fleet.Conns}
	if after != "" {
		if c.from, err = lists.Connections.Slot(after); err != nil {
			return nil, "", err
		}
	}
	if reactor.OnLoop() {
		return nil, "", ErrOnLoop
	}
	q := fleet.ConnsQuestion{User: filter.User, Room: filter.Room, Address: filter.Address, Key: filter.AttributeKey}
	if q.Key != "" {
		if q.Value, err = message.Encode(nil, filter.AttributeValue); err != nil {
			return nil, "", err
		}
	}
	limit = listLimit(limit)
	size := 0
	c.full = func() bool { return len(rows) >= limit || size >= factsBytes }
	c.question = func(at lists.Slot) []byte {
		q.Loop, q.Slot, q.Max = at.Loop, at.At, uint64(min(limit-len(rows), factsPage))
		return q.AppendTo(nil)
	}
	c.take = func(_ ident.Worker, r *fleet.Reader) (lists.Slot, bool) {
		size += len(r.Rest)
		page := readFacts(r, &rows)
		return lists.Slot{Loop: page.Loop, At: page.Slot}, page.More
	}
	end, more, err := w.inTurn(ctx, c)
	if more {
		next = lists.Connections.SlotCursor(end)
	}
	return rows, next, err
}

// readFacts reads a worker's answer.
func readFacts(r *fleet.Reader, rows *[]session.Facts) (page fleet.FindPage) {
	page.Read(r)
	for len(r.Rest) > 0 {
		var f session.Facts
		if message.Decode(r.Bytes(), &f) != nil {
			r.Bad = true
			break
		}
		*rows = append(*rows, f)
	}
	return page
}

// topRow is one of the first connections of a worker.
type topRow struct {
	worker ident.Worker
	fleet.TopRow
}

// ConnectionsTop lists the first limit (1 to 1000) open connections of all workers in an order. Cost: a question to each
// worker, whose loops look through all of their connections (about 20 ns each, some in each turn), and one for the facts.
// Errors: [ErrOnLoop]; [*fleet.PartialError].
func (w *Worker) ConnectionsTop(ctx context.Context, order session.Order, limit int) ([]session.Facts, error) {
	if reactor.OnLoop() {
		return nil, ErrOnLoop
	}
	limit = listLimit(limit)
	var all []topRow
	partial := new(fleet.PartialError)
	partial.Gather(w.Link.Each(ctx, fleet.ConnsTop, new(fleet.Writer).Number(uint64(order)).Number(uint64(limit)).B, func(worker ident.Worker, r *fleet.Reader) {
		for len(r.Rest) > 0 {
			one := topRow{worker: worker}
			if one.Read(r); !r.Bad {
				all = append(all, one)
			}
		}
	}))
	slices.SortFunc(all, func(a, b topRow) int {
		return cmp.Or(cmp.Compare(b.By, a.By), cmp.Compare(a.worker, b.worker), session.CompareTop(a.TopRow, b.TopRow))
	})
	all = all[:min(len(all), limit)]
	ids, rank := make([]ident.ID, len(all)), make(map[string]int, len(all))
	for i, row := range all {
		ids[i] = ident.ID{Worker: row.worker, Place: row.Place}
		rank[ids[i].String()] = i
	}
	list, err := w.factsOf(ctx, ids)
	partial.Gather(err)
	slices.SortFunc(list, func(a, b session.Facts) int { return cmp.Compare(rank[a.ID], rank[b.ID]) })
	return list, partial.OrNil()
}

// factsOf asks the workers of connections for the facts of those that are open, in no order.
func (w *Worker) factsOf(ctx context.Context, ids []ident.ID) (list []session.Facts, err error) {
	asked := map[ident.Worker]*fleet.ConnsQuestion{}
	for _, id := range ids {
		if id.Worker != w.Link.Self && !w.Link.Lives(id.Worker) {
			continue
		}
		q := asked[id.Worker]
		if q == nil {
			q = &fleet.ConnsQuestion{Max: factsPage}
			asked[id.Worker] = q
		}
		q.IDs = append(q.IDs, id)
	}
	var questions []fleet.Part
	for worker, q := range asked {
		questions = append(questions, fleet.Part{Worker: worker, Bytes: q.AppendTo(nil)})
	}
	err = w.Link.PagesOf(ctx, fleet.Conns, questions, func(worker ident.Worker, r *fleet.Reader) (next []byte) {
		page := readFacts(r, &list)
		if page.More { // it has answered for one at least
			q := asked[worker]
			q.Loop, q.Slot = page.Loop, page.Slot
			next = q.AppendTo(nil)
		}
		return next
	})
	return list, err
}

// answerConns answers the questions for connections.
func (w *Worker) answerConns(v fleet.Verb, question []byte, answer func([]byte)) {
	r := &fleet.Reader{Rest: slices.Clone(question)}
	page := session.Page{Sessions: w.Sessions, Later: w.Above.Later, Answer: answer}
	if v == fleet.ConnsTop {
		order, most := session.Order(r.Number()), int(min(r.Number(), ListMax))
		if r.Bad {
			most = 0
		}
		page.Top(order, most)
		return
	}
	var q fleet.ConnsQuestion
	if q.Read(r); r.Bad {
		answer(nil)
		return
	}
	w.Above.Later(func() { page.Conns(&q) })
}
