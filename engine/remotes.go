package engine

import (
	"fmt"

	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/rooms"
)

// What workers know of each other's members.
//
// Counts: a change marks its room, and the next tick of loop 0 tells all workers the counts of marked rooms. They keep a
// count even without a room of that name (rooms/elsewhere.go): the first member that joins it there learns how many members
// it has. A worker that has just started, or that has missed entries, asks for the counts of all rooms. A worker also asks
// once for the members of a room that is new to it. So all counts are right a few ticks after the last change.
//
// Ids: while a worker announces the joins and leaves of a room, the other workers keep the ids of its members. They need
// them in one case: when the worker dies, they announce its members' leaves. A worker that stops announcing in a room says
// so. A worker that begins again, or that is asked, tells its roster. Each loop tells its own part, in order with its
// notices, so that no member is missing or named twice.

// counted marks a room whose count has changed: the others learn it within a tick.
func (s *Server) counted(r *rooms.Room) {
	if s.peers == nil || !r.SetCounted(true) {
		return
	}
	s.peers.mu.Lock()
	s.peers.changed = append(s.peers.changed, r)
	s.peers.mu.Unlock()
}

// countsMax is the number of rooms whose counts are told in one part.
const countsMax = 4096

// reportCounts tells the other workers how many members rooms have here, in parts, so that input gets its turns in between.
// For a room that is new here it asks for the other workers' members.
func (l *loop) reportCounts() {
	p := l.srv.peers
	p.mu.Lock()
	list := p.changed
	n := min(len(list), countsMax)
	p.changed = list[n:]
	if n == len(list) {
		p.changed = nil
	}
	p.mu.Unlock()
	for _, r := range list[:n] {
		r.SetCounted(false)
		l.srv.reportCount(r)
	}
	if n > 0 {
		l.Owes.Flush = true
	}
	if n < len(list) {
		l.postCall((*loop).reportCounts)
	}
}

// reportCount tells one count. A deleted room may have a successor of the same name: the count is that of the name.
func (s *Server) reportCount(r *rooms.Room) {
	asks := fleet.AsksNothing
	if heir := s.index.FindString(r.Name()); heir != nil && heir.Introduce() {
		asks = fleet.AsksMembers
	}
	s.sayCount(0, r.Name(), asks)
}

// sayCount tells a worker, or all, how many members a room has here. The count is read while the entry is appended, so it is
// ordered with the joins and leaves that loops append.
func (s *Server) sayCount(target ident.Worker, name string, asks fleet.Asks) {
	e := fleet.Entry{Kind: fleet.Count, Target: target, Room: name, Body: fleet.Body{Asks: asks}}
	p := s.peers
	p.mu.Lock()
	if r := s.index.FindString(name); r != nil && !r.Dead() {
		e.Members = uint64(r.Len())
	}
	err := p.append(&e)
	p.mu.Unlock()
	p.said(false, err)
}

func (s *Server) receiveCount(from ident.Worker, h *fleet.Heard) {
	if h.Asks == fleet.AsksAnyway {
		s.sayCount(from, string(h.Room), fleet.AsksNothing)
		s.peers.Bus.Flush()
	}
	room := s.index.SetAway(h.Room, from, int32(min(h.Members, 1<<30)))
	if room == nil {
		return
	}
	s.reviewAnnouncements(room)
	if h.Asks != fleet.AsksNothing && room.Len() > 0 {
		s.counted(room)
		s.tellRoster(room, from)
	}
}

// askCounts asks a worker, or all, for the counts of all rooms with members there.
func (s *Server) askCounts(target ident.Worker) {
	if s.peers != nil {
		s.peers.say(true, &fleet.Entry{Kind: fleet.Census, Target: target})
	}
}

func (s *Server) receiveCensus(from ident.Worker) {
	s.loops[0].postCall(func(l *loop) { l.tellCounts(from, 0) })
}

// tellCounts tells a worker the counts of all rooms, from a place in the index on, in parts, so that input gets its turns in
// between. The worker's figures come first.
func (l *loop) tellCounts(target ident.Worker, at int) {
	if at == 0 {
		l.sayFigures(target, l.srv.figuresHere())
	}
	n := 0
	next := l.srv.index.RangeFrom(at, func(r *rooms.Room) {
		if r.Len() > 0 {
			l.srv.sayCount(target, r.Name(), fleet.AsksNothing)
			n++
		}
	}, func() bool { return n < countsMax })
	l.Owes.Flush = l.Owes.Flush || n > 0
	if next > 0 {
		l.postCall(func(l *loop) { l.tellCounts(target, next) })
	}
}

// reviewAnnouncements tells the members here if joins and leaves on other workers change whether the room announces.
func (s *Server) reviewAnnouncements(r *rooms.Room) {
	limit, n := s.tuned.Load().announceMax, r.Len()+r.Away()
	if limit > 0 && r.Len() > 0 && (n > limit && !r.Quiet() || n < (limit+1)/2 && r.Quiet()) {
		s.loops[0].postCall(func(l *loop) { l.maySay(r) })
	}
}

// forwardNotice tells the other workers of a join or leave, at the end of the turn. If another loop has found meanwhile that
// the room has grown too large, they keep no id any more, and the notice is sent as any message.
func (l *loop) forwardNotice(f *turn.Frame, n *notice) {
	if l.srv.peers == nil {
		return
	}
	l.Owes.Flush = true
	p := l.srv.peers
	e := fleet.Entry{Kind: fleet.Notice, Room: n.room.Name(), Conns: []ident.ID{l.srv.idOf(n.place)}, Frame: f.Plain, Body: fleet.Body{On: n.joined}}
	p.mu.Lock()
	if n.room.Quiet() {
		e.Kind, e.Conns = fleet.Publish, nil
	}
	err := p.append(&e)
	p.mu.Unlock()
	p.said(false, err)
}

func (s *Server) receiveNotice(from ident.Worker, room *rooms.Room, h *fleet.Heard) error {
	if h.Conns.Len() != 1 || h.Conns.At(0).Worker != from {
		return fleet.ErrEntry
	}
	if who := h.Conns.At(0); h.On {
		room.RemoteJoined(from, who.Place)
	} else {
		room.RemoteLeft(from, who.Place)
	}
	s.publishHere(from, room, heardFrame(h.Frame), nil)
	return nil
}

func (s *Server) receiveRoster(from ident.Worker, room *rooms.Room, h *fleet.Heard) {
	room.RemoteRoster(from, h.Loop, h.Conns.Of(from))
}

func (s *Server) receiveQuiet(from ident.Worker, room *rooms.Room) { room.RemoteUnknown(from) }

// tellRoster tells a worker, or all, the members of a room here, if the room announces.
func (s *Server) tellRoster(r *rooms.Room, target ident.Worker) {
	if s.peers == nil || s.tuned.Load().announceMax <= 0 || r.Quiet() {
		return
	}
	for _, l := range s.loops {
		l.postCall(func(l *loop) { l.sayRoster(r, target) })
	}
}

// sayRoster tells this loop's part of the roster. All its members have been announced: the notices of this turn go first.
func (l *loop) sayRoster(r *rooms.Room, target ident.Worker) {
	l.announce()
	roster := r.Roster(l.Index)
	if len(roster) == 0 {
		return
	}
	list := make([]ident.ID, len(roster))
	for i, m := range roster {
		list[i] = l.srv.idOf(place{Loop: l.Index, Slot: m.Slot, Gen: m.Gen})
	}
	l.Owes.Flush = true
	p := l.srv.peers
	e := fleet.Entry{Kind: fleet.Roster, Target: target, Room: r.Name(), Conns: list, Body: fleet.Body{Loop: l.Index}}
	p.mu.Lock()
	if r.Quiet() {
		e.Kind = fleet.Quiet
	}
	err := p.append(&e)
	p.mu.Unlock()
	p.said(false, err)
}

// announcementsChanged tells the other workers whether joins and leaves will be announced.
func (l *loop) announcementsChanged(r *rooms.Room, on bool) {
	switch {
	case l.srv.peers == nil:
	case on:
		l.srv.tellRoster(r, 0)
	default:
		l.Owes.Flush = true
		l.srv.peers.say(false, &fleet.Entry{Kind: fleet.Quiet, Room: r.Name()})
	}
}

// MissedError is the error event of a worker that has missed messages of another one for good: the bus was away for longer
// than that worker's ring lasts, or that worker died. Connections of this worker may lack broadcasts and direct messages.
type MissedError struct {
	Worker uint16 // the instance of the worker whose messages were missed
}

func (e *MissedError) Error() string {
	return fmt.Sprintf("messages of worker %d are lost for the connections of this one", e.Worker)
}

// Missed notes that messages of another worker are lost for good: this worker's knowledge of its members may be wrong, and
// is requested again, unless that worker has died. It is called as [Server.Receive] is. Cost: a walk through all rooms, and
// a count of each from every worker.
func (s *Server) Missed(from ident.Worker) {
	returned := false
	defer s.mustReturn(&returned)
	s.missed(from)
	returned = true
}

func (s *Server) missed(from ident.Worker) {
	s.count[countMissed].Add(1)
	s.log.Error("messages of another worker are lost", "worker", from)
	s.emit(Event{Kind: EventError, Err: &MissedError{from.Instance()}})
	if !s.lives(from) {
		return // a dead worker does not answer; Gone follows
	}
	s.index.Doubt(from, func(r *rooms.Room) {
		r.RemoteUnknown(from)
		s.sayCount(from, r.Name(), fleet.AsksAnyway)
	})
	s.askCounts(from)
	s.sayWish(true)
}

// Gone removes the members of a worker that has died, and announces their leaves in rooms that announce. It is called as
// [Server.Receive] is, behind that worker's last entry.
func (s *Server) Gone(from ident.Worker) {
	s.forgetWish(from)
	s.noteFigures(from, nil)
	s.index.Bury(from, func(r *rooms.Room, left []place) {
		s.reviewAnnouncements(r)
		if r.Quiet() || s.tuned.Load().announceMax <= 0 {
			return
		}
		for _, p := range left {
			s.tellLeft(r, from, p)
		}
	})
}

// tellLeft announces to the members here that a member on another worker is gone.
func (s *Server) tellLeft(r *rooms.Room, worker ident.Worker, p place) {
	s.publishHere(worker, r, noticeFrame(r, ident.ID{Worker: worker, Place: p}.Append(nil), false), nil)
}
