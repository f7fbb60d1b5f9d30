package fanout

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/protocol/message"
	"github.com/parleyd/parley/rooms"
)

// The list of a room's members over all workers: worker by worker, and on each in the order of its loops. All workers that may
// have a part of a page are asked at once, each for a whole page. Where the page ends within one worker's answer, the place in
// front of the rest is computed from the answer, so no worker is asked twice.

// MembersMax bounds the ids in one answer to a client, which asks for the next page if it wants more.
const MembersMax = 1000

// MembersCursor is a place in the list: a worker, and a place in its part.
type MembersCursor struct {
	Worker ident.Worker
	rooms.Cursor
}

// MembersBegin is the beginning of the list.
var MembersBegin = MembersCursor{Cursor: rooms.FirstPage}

// ParseCursor reads the "next" of a page that a client got.
func ParseCursor(text []byte) (from MembersCursor, ok bool) {
	var instance uint16
	var end string
	n, _ := fmt.Sscanf(string(text)+" .", "%d.%d.%d %s", &instance, &from.Loop, &from.Left, &end)
	from.Worker = ident.On(0, instance)
	return from, n == 4 && end == "."
}

// Text is the cursor as the "next" of a page for a client.
func (c MembersCursor) Text() []byte {
	return fmt.Appendf(nil, "%d.%d.%d", c.Worker.Instance(), c.Loop, c.Left)
}

// MembersList is a page of the list that is being put together. The caller sends the questions of Ask, with the verb of Verb,
// and gives the answers to Take or TakeAll; then Page has the page.
//
// Owner: the goroutine that asks, then the one that takes the last answer.
type MembersList struct {
	Rooms    *Rooms
	Room     []byte
	From     MembersCursor
	Max      int  // ids on the page; 0: all, and a worker that has more is asked again
	Users    bool // the user of each member is listed too
	CountAll bool // the workers in front of From are asked for their counts; else the counts that they told last are used
	parts    []membersPart
}

// membersPart is an answer of one worker.
type membersPart struct {
	worker ident.Worker
	membersAnswer
}

// Verb is the verb of the questions.
func (b *MembersList) Verb() fleet.Verb {
	if b.Users {
		return fleet.MemberUsers
	}
	return fleet.Members
}

// Ask takes this worker's own part, and returns the questions to the others.
func (b *MembersList) Ask() (questions []fleet.Part) {
	self := b.Rooms.Link.Self
	for q, more := b.question(self), true; more; {
		a := b.Rooms.membersHere(q, b.Users)
		b.parts = append(b.parts, membersPart{self, a})
		q.From, more = a.Next, b.Max == 0 && a.More
	}
	for _, worker := range b.Rooms.Link.Others() {
		if b.CountAll || worker >= b.From.Worker {
			questions = append(questions, fleet.Part{Worker: worker, Bytes: b.question(worker).AppendTo(nil)})
		}
	}
	return questions
}

// question is the first question to a worker: for a page from where its part begins, or for the count alone.
func (b *MembersList) question(worker ident.Worker) fleet.MembersQuestion {
	q := fleet.MembersQuestion{Room: b.Room, Max: b.Max, From: fleet.Cursor(rooms.FirstPage)}
	switch {
	case worker < b.From.Worker:
		q.Max = 1
	case worker == b.From.Worker:
		q.From = fleet.Cursor(b.From.Cursor)
	}
	if b.Max == 0 {
		q.Max = rooms.PageMax
	}
	return q
}

// Take takes a worker's answer, and returns what to ask it next; nil: nothing. A damaged answer, of which r tells, counts as
// none.
func (b *MembersList) Take(worker ident.Worker, r *fleet.Reader) (next []byte) {
	a := readMembers(r, worker)
	if r.Bad {
		return nil
	}
	b.parts = append(b.parts, membersPart{worker, a})
	if b.Max == 0 && a.More {
		next = fleet.MembersQuestion{Room: b.Room, Max: rooms.PageMax, From: a.Next}.AppendTo(nil)
	}
	return next
}

// TakeAll takes the answers of a gathering, and reports whether none is damaged.
func (b *MembersList) TakeAll(answers []fleet.Part) (whole bool) {
	whole = true
	for _, a := range answers {
		r := &fleet.Reader{Rest: a.Bytes}
		b.Take(a.Worker, r)
		whole = whole && !r.Bad
	}
	return whole
}

// Page is the page. next is where the next one begins, if there are more members. Count is the number of all members as far as
// is known; without Max it is of no use.
func (b *MembersList) Page() (p message.Members, next MembersCursor, more bool) {
	slices.SortStableFunc(b.parts, func(x, y membersPart) int { return cmp.Compare(x.worker, y.worker) })
	room := b.Rooms.Index.Find(b.Room)
	if room != nil && !b.CountAll {
		p.Count = room.Away()
	}
	for _, part := range b.parts {
		p.Count += part.Count
		if room != nil && !b.CountAll {
			p.Count -= room.AwayOf(part.worker)
		}
		if part.worker < b.From.Worker || more {
			continue
		}
		n := len(part.Places)
		if b.Max > 0 {
			n = min(n, b.Max-len(p.IDs))
			more = n < len(part.Places) || part.More
			next = MembersCursor{part.worker, part.after(n)}
		}
		for i, at := range part.Places[:n] {
			if i < len(part.Users) {
				p.Users = userAt(p.Users, len(p.IDs), part.Users[i])
			}
			p.IDs = append(p.IDs, ident.ID{Worker: part.worker, Place: at}.String())
		}
	}
	return p, next, more
}

// membersAnswer is a page of the members of one worker.
//
// Owner: the worker that asked.
type membersAnswer struct {
	fleet.MembersPage
	Places []ident.Place
	Users  []string // of those, in their order; where it is shorter, the others have none
}

// after is the place behind the first n members: those of its loop that follow in the answer are left, and those that follow
// the answer.
func (a *membersAnswer) after(n int) rooms.Cursor {
	if n == len(a.Places) {
		return rooms.Cursor(a.Next)
	}
	at := rooms.Cursor{Loop: a.Places[n].Loop}
	for _, p := range a.Places[n:] {
		if p.Loop == at.Loop {
			at.Left++
		}
	}
	if a.More && a.Next.Loop == at.Loop {
		at.Left += a.Next.Left
	}
	return at
}

// AnswerMembers answers another worker, perhaps with the user of each member.
func (x *Rooms) AnswerMembers(r *fleet.Reader, users bool) []byte {
	var q fleet.MembersQuestion
	if q.Read(r); r.Bad {
		return nil
	}
	a := x.membersHere(q, users)
	list := make([]ident.ID, len(a.Places))
	for i, p := range a.Places {
		list[i] = x.Link.IDOf(p)
	}
	w := fleet.Writer{B: a.AppendTo(nil, list)}
	for i := range a.Places {
		switch {
		case !users:
		case i < len(a.Users):
			w.Text(a.Users[i])
		default:
			w.Text("")
		}
	}
	return w.B
}

// membersHere is a page of the members on this worker, perhaps with the user of each.
func (x *Rooms) membersHere(q fleet.MembersQuestion, users bool) (a membersAnswer) {
	room := x.Index.Find(q.Room)
	if room == nil {
		return a
	}
	a.Count = room.Entered()
	var next rooms.Cursor
	a.Places, next, a.More = room.Page(nil, rooms.Cursor(q.From), min(max(q.Max, 1), rooms.PageMax))
	a.Next = fleet.Cursor(next)
	if users && x.Users.Len() > 0 {
		for i, p := range a.Places {
			if c := x.ConnAt(p); c != nil {
				a.Users = userAt(a.Users, i, x.Above.User(c))
			}
		}
	}
	return a
}

// userAt notes the user of the i-th of several connections. Empty ones at the end are left out.
func userAt(users []string, i int, user string) []string {
	if user == "" {
		return users
	}
	return append(append(users, make([]string, i-len(users))...), user)
}

// readMembers reads another worker's answer, with or without users.
func readMembers(r *fleet.Reader, worker ident.Worker) (a membersAnswer) {
	a.Places = a.Read(r).Of(worker)
	for i := 0; i < len(a.Places) && len(r.Rest) > 0; i++ {
		a.Users = userAt(a.Users, i, string(r.Bytes()))
	}
	return a
}
