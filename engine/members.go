package engine

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/protocol/message"
	"github.com/parleyd/parley/rooms"
)

// The question for a room's members. Alone, a server answers it at once. Of several workers, the one that is asked asks
// all others for a page each, and puts one page together, worker by worker: the cursor that the
// client gets names a worker and a place in its part.

// membersMax bounds the ids in one answer; a client that wants more asks for the next page.
const membersMax = 1000

// membersCursor is a place between the pages of all workers.
type membersCursor struct {
	worker ident.Worker
	rooms.Cursor
}

// parseCursor reads the "next" of a page.
func parseCursor(text []byte) (from membersCursor, ok bool) {
	var instance uint16
	var end string
	n, _ := fmt.Sscanf(string(text)+" .", "%d.%d.%d %s", &instance, &from.Loop, &from.Left, &end)
	from.worker = ident.On(0, instance)
	return from, n == 4 && end == "."
}

func (c membersCursor) text() []byte {
	return fmt.Appendf(nil, "%d.%d.%d", c.worker.Instance(), c.Loop, c.Left)
}

func (l *loop) onMembers(c *Conn, e *message.Envelope) {
	r := l.ownRoom(c, e)
	if r == nil || c.has(turn.FlagMute) {
		return
	}
	from := membersCursor{Cursor: rooms.FirstPage}
	if e.After != nil {
		var ok bool
		if from, ok = parseCursor(e.After); !ok {
			l.complain(c, &Error{Code: message.InvalidMessage.String(),
				Message: `"after" must be the "next" of the page before`}, e.Ref)
			return
		}
	}
	b := &membersBook{srv: l.srv, room: append([]byte(nil), e.Room...), from: from}
	if len(l.srv.others()) == 0 {
		b.compile(nil, nil)
		l.tellMembers(c, b, e.Ref)
		return
	}
	p := l.await(c, pendingMembers, "members", e.Ref)
	b.done = func() {
		l.postCall(func(l *loop) {
			if l.settled(c, p) {
				l.tellMembers(c, b, p.ref)
				l.goOnAfter(c, p)
			}
		})
	}
	b.ask()
}

func (l *loop) tellMembers(c *Conn, b *membersBook, ref []byte) {
	l.Paged = true
	m := b.page
	m.Room, m.Ref = b.room, ref
	l.Text = message.AppendMembers(l.Text[:0], m)
	l.answer(c, l.Text)
}

// membersBook is a page that is being put together.
//
// Owner: whoever asked, then whoever tells the last answer, one after the other.
type membersBook struct {
	srv  *Server
	room []byte
	from membersCursor
	page message.Members
	done func()
}

// ask asks every worker from the cursor on for a page. Those before it had their turn: of them only the count is of use,
// which is known well enough.
func (b *membersBook) ask() {
	var questions []parcel
	for _, worker := range b.srv.others() {
		if worker >= b.from.worker {
			questions = append(questions, b.question(worker, b.start(worker), membersMax))
		}
	}
	b.srv.gather(fleet.Members, questions, gatherWait, func(answers []parcel, missing []ident.Worker) {
		if cut := b.compile(answers, missing); cut != nil {
			b.askAgain(*cut)
			return
		}
		b.done()
	})
}

// compile puts the page together. Where it ends within another worker's part, that is asked again for as many as fit: only
// it can say where the next page begins then.
func (b *membersBook) compile(answers []parcel, missing []ident.Worker) (cut *parcel) {
	b.page.Partial = len(missing) > 0
	parts, known := b.parts(answers)
	b.page.Count = known
	for _, part := range parts {
		left := membersMax - len(b.page.IDs)
		begin := membersCursor{part.worker, b.start(part.worker)}
		if part.worker == b.srv.instance {
			part.membersAnswer = b.srv.membersHere(fleet.MembersQuestion{Room: b.room, Max: max(left, 1), From: fleet.Cursor(begin.Cursor)})
		}
		switch {
		case len(part.places) == 0:
			continue
		case left == 0:
			b.page.Next = begin.text()
			return nil
		case len(part.places) > left:
			q := b.question(part.worker, begin.Cursor, left)
			return &q
		}
		b.add(part)
		if part.More {
			return nil
		}
	}
	return nil
}

// membersPart is one worker's part of a page.
type membersPart struct {
	worker ident.Worker
	membersAnswer
}

// parts are those that the page may be made of, in the order of workers, and the number of all members as far as is
// known: what was answered just now, else what was told last.
func (b *membersBook) parts(answers []parcel) (parts []membersPart, known int) {
	if room := b.srv.index.Find(b.room); room != nil {
		known = room.Entered() + room.Away()
		for _, a := range answers {
			part := membersPart{a.worker, readMembersPage(&fleet.Reader{Rest: a.bytes}, a.worker)}
			known += part.Count - room.AwayOf(a.worker)
			parts = append(parts, part)
		}
	}
	if b.srv.instance >= b.from.worker {
		parts = append(parts, membersPart{worker: b.srv.instance})
	}
	slices.SortFunc(parts, func(x, y membersPart) int { return cmp.Compare(x.worker, y.worker) })
	return parts, known
}

// add puts a part on the page, whole.
func (b *membersBook) add(part membersPart) {
	for _, p := range part.places {
		b.page.IDs = append(b.page.IDs, ident.ID{Worker: part.worker, Place: p}.String())
	}
	if part.More {
		b.page.Next = membersCursor{part.worker, rooms.Cursor(part.Next)}.text()
	}
}

// askAgain asks for the last part of the page.
func (b *membersBook) askAgain(q parcel) {
	b.srv.gather(fleet.Members, []parcel{q}, gatherWait, func(answers []parcel, missing []ident.Worker) {
		for _, a := range answers {
			b.add(membersPart{a.worker, readMembersPage(&fleet.Reader{Rest: a.bytes}, a.worker)})
		}
		if len(missing) > 0 {
			b.page.Partial, b.page.Next = true, membersCursor{q.worker, b.start(q.worker)}.text()
		}
		b.done()
	})
}

func (b *membersBook) question(worker ident.Worker, from rooms.Cursor, n int) parcel {
	return parcel{worker, fleet.MembersQuestion{Room: b.room, Max: n, From: fleet.Cursor(from)}.AppendTo(nil)}
}

// start is where a worker's part begins for this page.
func (b *membersBook) start(worker ident.Worker) rooms.Cursor {
	if worker == b.from.worker {
		return b.from.Cursor
	}
	return rooms.FirstPage
}
