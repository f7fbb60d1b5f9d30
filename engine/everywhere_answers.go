package engine

import (
	"encoding/json"
	"errors"
	"math"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/protocol/message"
	"github.com/parleyd/parley/rooms"
)

// The answering side of [Everywhere]. A question about one connection is answered on the goroutine that receives entries, so
// that it keeps its order among the asking worker's entries. A question that walks through rooms or connections is answered
// on a small pool, so that entries do not wait for it.

const (
	answerers   = 2        // goroutines for long answers
	membersPage = 10_000   // ids in one answer
	answerBytes = 64 << 10 // the size at which an answer of many parts ends
)

// everywhereAnswerer is the answerer of a verb.
func everywhereAnswerer(v fleet.Verb) answerer {
	switch v {
	case fleet.Connections:
		return func(s *Server, _ []byte, answer func([]byte)) { answer(appendNumber(nil, uint64(s.live.Load()))) }
	case fleet.Stats:
		return atLeisure((*Server).answerStats)
	case fleet.Members:
		return atLeisure((*Server).answerMembers)
	case fleet.Rooms:
		return atLeisure((*Server).answerRooms)
	case fleet.Find:
		return atLeisure((*Server).answerFind)
	case fleet.Facts, fleet.Close, fleet.Join, fleet.Leave, fleet.Send:
		return func(s *Server, question []byte, answer func([]byte)) { s.answerForConn(v, question, answer) }
	}
	return nil
}

// atLeisure makes an answerer that runs f on the pool. If the pool is full, the question stays unanswered.
func atLeisure(f func(s *Server, r *fleet.Reader) []byte) answerer {
	return func(s *Server, question []byte, answer func([]byte)) {
		if s.peers == nil {
			answer(f(s, &fleet.Reader{Rest: question}))
			return
		}
		own := append([]byte(nil), question...)
		s.peers.answering.submit(func() { answer(f(s, &fleet.Reader{Rest: own})) })
	}
}

func appendNumber(dst []byte, n uint64) []byte {
	w := fleet.Writer{B: dst}
	return w.Number(n).B
}

func (s *Server) answerStats(*fleet.Reader) []byte {
	raw, err := json.Marshal(s.StatsHere())
	if err != nil {
		s.log.Error("encode figures", "err", err)
	}
	return raw
}

// membersAnswer is a page of the members of one worker.
//
// Owner: the worker that asked.
type membersAnswer struct {
	fleet.MembersPage
	places []place
}

func (s *Server) answerMembers(r *fleet.Reader) []byte {
	var q fleet.MembersQuestion
	if q.Read(r); r.Bad {
		return nil
	}
	a := s.membersHere(q)
	list := make([]ident.ID, len(a.places))
	for i, p := range a.places {
		list[i] = s.idOf(p)
	}
	return a.AppendTo(nil, list)
}

func (s *Server) membersHere(q fleet.MembersQuestion) (a membersAnswer) {
	room := s.index.Find(q.Room)
	if room == nil {
		return a
	}
	a.Count = room.Entered()
	var next rooms.Cursor
	a.places, next, a.More = room.Page(nil, rooms.Cursor(q.From), min(max(q.Max, 1), membersPage))
	a.Next = fleet.Cursor(next)
	return a
}

func readMembersPage(r *fleet.Reader, worker ident.Worker) (a membersAnswer) {
	a.places = a.Read(r).Of(worker)
	return a
}

// answerRooms lists rooms from a place in the index on, and returns where to continue; 0: nowhere.
func (s *Server) answerRooms(r *fleet.Reader) []byte {
	from := int(r.Number())
	var list []byte
	next := s.index.RangeFrom(from, func(r *rooms.Room) {
		list = fleet.RoomRow{Name: r.Name(), Members: uint64(r.Len()), CreatedAt: uint64(r.CreatedAt()), MaxMembers: uint64(r.Limit()),
			Metadata: r.Metadata()}.AppendTo(list)
	}, func() bool { return len(list) < answerBytes })
	return append(appendNumber(nil, uint64(next)), list...)
}

func readRoomStats(r *fleet.Reader) RoomStats {
	var row fleet.RoomRow
	row.Read(r)
	one := RoomStats{Name: row.Name, Connections: int(row.Members), CreatedAt: int64(row.CreatedAt), MaxMembers: int(row.MaxMembers)}
	if len(row.Metadata) > 0 {
		one.Metadata = append(json.RawMessage(nil), row.Metadata...)
	}
	return one
}

func (s *Server) answerFind(r *fleet.Reader) []byte {
	var q fleet.FindQuestion
	q.Read(r)
	chosen := s.chooser(asked{q.Kind, string(q.Key), q.Value})
	if r.Bad || chosen == nil {
		return nil
	}
	var found fleet.Writer
	for loop := q.Loop; loop < uint64(len(s.loops)); loop++ {
		slot, more := s.loops[loop].Slab.From(uint32(q.Slot), func(t *turn.Conn) bool {
			c := connOf(t)
			if c.isOpen() && chosen(c) {
				raw, err := message.Encode(nil, c.Facts())
				if err == nil {
					found.Bytes(raw)
				}
			}
			return len(found.B) < answerBytes
		})
		if more {
			return append(fleet.FindPage{More: true, Loop: loop, Slot: uint64(slot)}.AppendTo(nil), found.B...)
		}
		q.Slot = 0
	}
	return append(fleet.FindPage{}.AppendTo(nil), found.B...)
}

func (s *Server) answerForConn(v fleet.Verb, question []byte, answer func([]byte)) {
	r := &fleet.Reader{Rest: question}
	c := s.connAt(r.Place())
	if c == nil {
		answer(appendNumber(nil, uint64(fleet.Unknown)))
		return
	}
	told := func(err error) { answer(appendOutcome(err)) }
	switch v {
	case fleet.Facts:
		raw, err := message.Encode(appendOutcome(nil), c.Facts())
		if err != nil {
			s.log.Error("encode facts", "err", err)
		}
		answer(raw)
	case fleet.Close:
		c.CloseWith(ws.StatusCode(min(r.Number(), math.MaxUint16)), string(r.Bytes()))
		told(nil)
	case fleet.Join:
		s.Rooms().JoinThen(c, string(r.Bytes()), told)
	case fleet.Leave:
		s.Rooms().Leave(c, string(r.Bytes()))
		told(nil)
	case fleet.Send:
		if raw := r.Frame(); raw != nil {
			f := heardFrame(raw)
			told(c.sendFrame(f))
		}
	}
}

func appendOutcome(err error) []byte {
	var w fleet.Writer
	outcome := func(o fleet.Outcome) *fleet.Writer { return w.Number(uint64(o)) }
	refused, ok := errors.AsType[*Error](err)
	switch {
	case err == nil:
		outcome(fleet.Done)
	case err == ErrNotOpen:
		outcome(fleet.NotOpen)
	case ok:
		outcome(fleet.Refused).Text(refused.Code).Text(refused.Message)
	default:
		outcome(fleet.Refused).Text(message.Internal.String()).Text(err.Error())
	}
	return w.B
}

// readOutcome returns the answering worker's error in a form that errors.Is finds.
func readOutcome(r *fleet.Reader) error {
	switch fleet.Outcome(r.Number()) {
	case fleet.Done:
		if r.Bad {
			return fleet.ErrEntry
		}
		return nil
	case fleet.Unknown:
		return ErrConnectionUnknown
	case fleet.NotOpen:
		return ErrNotOpen
	}
	told := &Error{Code: string(r.Bytes()), Message: string(r.Bytes())}
	if r.Bad {
		return fleet.ErrEntry
	}
	for _, known := range []*Error{ErrRoomFull, ErrTooManyRooms, ErrNotInRoom, errOverloaded, errUnavailable} {
		if known.Code == told.Code {
			return known
		}
	}
	return told
}
