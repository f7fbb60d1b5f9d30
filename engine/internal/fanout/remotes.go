package fanout

import (
	"strings"
	"sync"

	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/protocol/message"
	"github.com/parleyd/parley/rooms"
)

// What workers know of each other's members.
//
// Counts: a change marks its room, and the next tick of loop 0 tells all workers the counts of marked rooms. They keep a
// count even without a room of that name (rooms/elsewhere.go): the first member that joins it there learns how many members
// it has. A worker that has just started, or that has missed entries, asks for the counts of all rooms. A worker also asks
// once for the members of a room that is new to it. So all counts are right a few ticks after the last change.
//
// Ids: while a worker announces the joins and leaves of a room, the other workers keep the ids and users of its members. They
// need them in one case: when the worker dies, they announce its members' leaves. A worker that stops announcing in a room says
// so. A worker that begins again, or that is asked, tells its roster. Each loop tells its own part, in order with its
// notices, so that no member is missing or named twice.

// Counted marks a room whose count has changed: the others learn it within a tick.
func (x *Rooms) Counted(r *rooms.Room) {
	if x.Link.Alone() || !r.SetCounted(true) {
		return
	}
	x.changed.mu.Lock()
	x.changed.list = append(x.changed.list, r)
	x.changed.mu.Unlock()
}

// changedRooms are the rooms with a count to tell.
//
// Owner: shared (mutex: mu).
type changedRooms struct {
	mu   sync.Mutex
	list []*rooms.Room
}

// take returns up to n rooms, and whether others are left.
func (x *changedRooms) take(n int) (part []*rooms.Room, more bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	n = min(n, len(x.list))
	part, x.list = x.list[:n], x.list[n:]
	if len(x.list) == 0 {
		x.list = nil
	}
	return part, x.list != nil
}

// CountsWait is the number of rooms with a count to tell.
func (x *Rooms) CountsWait() int {
	x.changed.mu.Lock()
	defer x.changed.mu.Unlock()
	return len(x.changed.list)
}

// CountsMax is the number of rooms whose counts are told in one part.
const CountsMax = 4096

// ReportCounts tells the other workers how many members rooms have here, in parts, so that input gets its turns in between.
// For a room that is new here it asks for the other workers' members.
func (l *Loop) ReportCounts() {
	part, more := l.Rooms.changed.take(CountsMax)
	for _, r := range part {
		r.SetCounted(false)
		l.Rooms.reportCount(r)
	}
	if len(part) > 0 {
		l.Owes.Flush = true
	}
	if more {
		l.PostCall(l.ReportCounts)
	}
}

// reportCount tells one count. A deleted room may have a successor of the same name: the count is that of the name.
func (x *Rooms) reportCount(r *rooms.Room) {
	asks := fleet.AsksNothing
	if heir := x.Index.FindString(r.Name()); heir != nil && heir.Introduce() {
		asks = fleet.AsksMembers
	}
	x.sayCount(0, r.Name(), asks)
}

// sayCount tells a worker, or all, how many members a room has here. The count is read while the entry is appended, so it is
// ordered with the joins and leaves that loops append.
func (x *Rooms) sayCount(target ident.Worker, name string, asks fleet.Asks) {
	e := fleet.Entry{Kind: fleet.Count, Target: target, Room: name, Body: fleet.Body{Asks: asks}}
	p := x.Link
	p.Lock()
	if r := x.Index.FindString(name); r != nil && !r.Dead() {
		e.Members = uint64(r.Len())
	}
	err := p.Append(&e)
	p.Unlock()
	p.Said(false, err)
}

// HearCount notes how many members a room has on another worker.
func (x *Rooms) HearCount(from ident.Worker, h *fleet.Heard) {
	if h.Asks == fleet.AsksAnyway {
		x.sayCount(from, string(h.Room), fleet.AsksNothing)
		x.Link.Bus.Flush()
	}
	room := x.Index.SetAway(h.Room, from, int32(min(h.Members, 1<<30)))
	if room == nil {
		return
	}
	x.reviewAnnouncements(room)
	if h.Asks != fleet.AsksNothing && room.Len() > 0 {
		x.Counted(room)
		x.tellRoster(room, from)
	}
}

// AskCounts asks a worker, or all, for the counts of all rooms with members there.
func (x *Rooms) AskCounts(target ident.Worker) {
	x.Link.Say(true, &fleet.Entry{Kind: fleet.Census, Target: target})
}

// HearCensus tells another worker all counts.
func (x *Rooms) HearCensus(from ident.Worker) {
	l := x.Loops[0]
	l.PostCall(func() { l.tellCounts(from, 0) })
}

// tellCounts tells a worker the counts of all rooms, from a place in the index on, in parts, so that input gets its turns in
// between. The worker's figures come first.
func (l *Loop) tellCounts(target ident.Worker, at int) {
	if at == 0 {
		l.Owes.Flush = true
		l.Link.SayFigures(target, l.Rooms.Above.Figures())
	}
	n := 0
	next := l.Rooms.Index.RangeFrom(at, func(r *rooms.Room) {
		if r.Len() > 0 {
			l.Rooms.sayCount(target, r.Name(), fleet.AsksNothing)
			n++
		}
	}, func() bool { return n < CountsMax })
	l.Owes.Flush = l.Owes.Flush || n > 0
	if next > 0 {
		l.PostCall(func() { l.tellCounts(target, next) })
	}
}

// reviewAnnouncements tells the members here if joins and leaves on other workers change whether the room announces.
func (x *Rooms) reviewAnnouncements(r *rooms.Room) {
	limit, n := x.Above.AnnounceMax(), r.Len()+r.Away()
	if limit > 0 && r.Len() > 0 && (n > limit && !r.Quiet() || n < (limit+1)/2 && r.Quiet()) {
		l := x.Loops[0]
		l.PostCall(func() { l.maySay(r) })
	}
}

// forwardNotice tells the other workers of a join or leave, at the end of the turn. If another loop has found meanwhile that
// the room has grown too large, they keep no id any more, and the notice is sent as any message.
func (l *Loop) forwardNotice(f *turn.Frame, n *notice) {
	if l.Link.Alone() {
		return
	}
	l.Owes.Flush = true
	p := l.Link
	e := fleet.Entry{Kind: fleet.Notice, Room: n.room.Name(), Conns: []ident.ID{l.Link.IDOf(n.place)}, Frame: f.Plain, Body: fleet.Body{On: n.joined}}
	p.Lock()
	switch {
	case n.room.Quiet():
		e.Kind, e.Conns = fleet.Publish, nil
	case n.user != "":
		e.Users = []string{n.user}
	}
	err := p.Append(&e)
	p.Unlock()
	p.Said(false, err)
}

func (x *Rooms) hearNotice(from ident.Worker, room *rooms.Room, h *fleet.Heard) error {
	if h.Conns.Len() != 1 || h.Conns.At(0).Worker != from {
		return fleet.ErrEntry
	}
	if who := h.Conns.At(0); h.On {
		room.RemoteJoined(from, who.Place, strings.Join(h.Users, ""))
	} else {
		room.RemoteLeft(from, who.Place)
	}
	x.publishHere(from, room, HeardFrame(h.Frame), nil)
	return nil
}

func (x *Rooms) hearRoster(from ident.Worker, room *rooms.Room, h *fleet.Heard) {
	room.RemoteRoster(from, h.Loop, h.Conns.Of(from), h.Users)
}

func (x *Rooms) hearQuiet(from ident.Worker, room *rooms.Room) { room.RemoteUnknown(from) }

// tellRoster tells a worker, or all, the members of a room here, if the room announces.
func (x *Rooms) tellRoster(r *rooms.Room, target ident.Worker) {
	if x.Link.Alone() || x.Above.AnnounceMax() <= 0 || r.Quiet() {
		return
	}
	for _, l := range x.Loops {
		l.PostCall(func() { l.sayRoster(r, target) })
	}
}

// sayRoster tells this loop's part of the roster. All its members have been announced: the notices of this turn go first.
func (l *Loop) sayRoster(r *rooms.Room, target ident.Worker) {
	l.Announce()
	roster := r.Roster(l.Index)
	if len(roster) == 0 {
		return
	}
	e := fleet.Entry{Kind: fleet.Roster, Target: target, Room: r.Name(), Conns: make([]ident.ID, len(roster)), Body: fleet.Body{Loop: l.Index}}
	for i, m := range roster {
		e.Conns[i] = l.Link.IDOf(ident.Place{Loop: l.Index, Slot: m.Slot, Gen: m.Gen})
		e.Users = userAt(e.Users, i, l.Rooms.shown(ConnOf(l.Slab.At(m.Slot))))
	}
	l.Owes.Flush = true
	p := l.Link
	p.Lock()
	if r.Quiet() {
		e.Kind = fleet.Quiet
	}
	err := p.Append(&e)
	p.Unlock()
	p.Said(false, err)
}

// announcementsChanged tells the other workers whether joins and leaves will be announced.
func (l *Loop) announcementsChanged(r *rooms.Room, on bool) {
	switch {
	case l.Link.Alone():
	case on:
		l.Rooms.tellRoster(r, 0)
	default:
		l.Owes.Flush = true
		l.Link.Say(false, &fleet.Entry{Kind: fleet.Quiet, Room: r.Name()})
	}
}

// Missed asks another worker, whose messages are lost for good, for its counts: what is known of its members may be wrong.
// Cost: a walk through all rooms, and a count of each from that worker.
func (x *Rooms) Missed(from ident.Worker) {
	x.Index.Doubt(from, func(r *rooms.Room) {
		r.RemoteUnknown(from)
		x.sayCount(from, r.Name(), fleet.AsksAnyway)
	})
	x.AskCounts(from)
}

// Gone removes the members of a worker that has died, and announces their leaves in rooms that announce.
func (x *Rooms) Gone(from ident.Worker) {
	x.Index.Bury(from, func(r *rooms.Room, left rooms.Lost) {
		x.reviewAnnouncements(r)
		if r.Quiet() || x.Above.AnnounceMax() <= 0 {
			return
		}
		for _, p := range left.Places {
			m := message.Notice{Room: r.Name(), ID: ident.ID{Worker: from, Place: p}.Append(nil)}
			if x.Above.ShowUsers() {
				m.User = left.User(p)
			}
			x.publishHere(from, r, noticeFrame(m, false), nil)
		}
	})
}
