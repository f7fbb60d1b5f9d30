package engine

import (
	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/rooms"
)

// A [Lockstep] that is one of several workers. Its world carries the entries of its bus to the others' [Server.Receive],
// and calls what package cluster calls: Peers, Serving, Missed, Gone, RoomCreated, RoomDeleted, SaveSessions.

// Attach is [Server.Attach]: before anything else, and followed by Meet.
func (x *Lockstep) Attach(m Membership) {
	x.Server.Attach(m)
	x.Server.peers.answering = newPool(0)
}

// Meet is when the worker begins to take connections, and to listen to the others.
func (x *Lockstep) Meet() {
	x.Server.receiving.Store(true)
	x.Server.meet()
}

// CountEverywhere is [Everywhere.ConnectionCount], which tells done and does not wait. missing are the workers that gave no
// answer.
func (x *Lockstep) CountEverywhere(done func(n int, missing []ident.Worker)) {
	x.gather(fleet.Connections, nil, func(answers []parcel, missing []ident.Worker) {
		n := 0
		for _, a := range answers {
			r := &fleet.Reader{Rest: a.bytes}
			n += int(r.Number())
		}
		done(n, missing)
	})
}

// MembersEverywhere is [Everywhere.Members], of up to 10,000 members a worker; as CountEverywhere.
func (x *Lockstep) MembersEverywhere(room string, done func(ids []string, missing []ident.Worker)) {
	question := fleet.MembersQuestion{Room: []byte(room), Max: membersPage, From: fleet.Cursor(rooms.FirstPage)}.AppendTo(nil)
	x.gather(fleet.Members, question, func(answers []parcel, missing []ident.Worker) {
		var ids []string
		for _, a := range answers {
			for _, p := range readMembersPage(&fleet.Reader{Rest: a.bytes}, a.worker).places {
				ids = append(ids, ident.ID{Worker: a.worker, Place: p}.String())
			}
		}
		done(ids, missing)
	})
}

// gather asks every worker, this one too. A question that this worker puts to itself has a timer of its own.
func (x *Lockstep) gather(v fleet.Verb, question []byte, done func(answers []parcel, missing []ident.Worker)) {
	s := x.Server
	questions := []parcel{{s.instance, question}}
	for _, worker := range s.others() {
		questions = append(questions, parcel{worker, question})
	}
	h := s.gather(v, questions, gatherWait, done)
	s.loops[0].postAfter(gatherWait+gatherGrace, func(*loop) { h.giveUp() })
}

// JoinEverywhere is [Everywhere.Join], as CountEverywhere.
func (x *Lockstep) JoinEverywhere(id, room string, done func(error)) {
	e := errand{verb: fleet.Join, id: id, with: func(w *fleet.Writer) { w.Text(room) }}
	x.one(e, done)
}

// SendToEverywhere is [Everywhere.SendTo], as CountEverywhere. The error is ErrConnectionUnknown where that reports false.
func (x *Lockstep) SendToEverywhere(id string, v any, done func(error)) {
	f, err := x.Server.encodeShared(v)
	if err != nil {
		done(err)
		return
	}
	x.one(errand{verb: fleet.Send, id: id, with: func(w *fleet.Writer) { w.B = append(w.B, f.plain...) }}, done)
}

func (x *Lockstep) one(e errand, done func(error)) {
	worker, question, ok := e.question(x.Server)
	if !ok {
		done(ErrConnectionUnknown)
		return
	}
	s := x.Server
	h := s.gather(e.verb, []parcel{{worker, question}}, waitOf(e.verb), func(answers []parcel, missing []ident.Worker) {
		if len(missing) > 0 {
			done(ErrUnanswered)
			return
		}
		done(e.outcome(answers))
	})
	s.loops[0].postAfter(waitOf(e.verb)+gatherGrace, func(*loop) { h.giveUp() })
}

// CreateRoom is [Rooms.Create] of a room without metadata, and DeleteRoom [Rooms.Delete]; both as CountEverywhere.
func (x *Lockstep) CreateRoom(name string, membersMax int, done func(error)) {
	x.Server.Rooms().createEverywhere(CreatedRoom{Name: name, MaxMembers: membersMax}, done)
}

// DeleteRoom tells whether there was one.
func (x *Lockstep) DeleteRoom(name string, done func(existed bool)) {
	x.Server.Rooms().deleteEverywhere(name, done)
}
