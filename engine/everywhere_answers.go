package engine

import (
	"encoding/json"
	"errors"
	"math"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/protocol/message"
	"github.com/parleyd/parley/rooms"
)

// The answering side of [Everywhere]. What concerns one connection is done on the goroutine that receives entries, so
// that it keeps its place between what the asker says before and after; what walks through rooms or connections is done
// on a small pool, so that entries do not wait for it.

const (
	verbCount verb = iota + 64
	verbStats
	verbMembers
	verbRooms
	verbFind
	verbFacts
	verbClose
	verbJoin
	verbLeave
	verbSend
)

const (
	answerers   = 2        // goroutines for what takes a while
	membersPage = 10_000   // ids in one answer
	answerBytes = 64 << 10 // what an answer of many parts should not exceed by much
)

// everywhereAnswerer is who answers one of the questions above.
func everywhereAnswerer(v verb) answerer {
	switch v {
	case verbCount:
		return func(s *Server, _ []byte, answer func([]byte)) { answer(appendNumber(nil, uint64(s.live.Load()))) }
	case verbStats:
		return atLeisure((*Server).answerStats)
	case verbMembers:
		return atLeisure((*Server).answerMembers)
	case verbRooms:
		return atLeisure((*Server).answerRooms)
	case verbFind:
		return atLeisure((*Server).answerFind)
	case verbFacts, verbClose, verbJoin, verbLeave, verbSend:
		return func(s *Server, question []byte, answer func([]byte)) { s.answerForConn(v, question, answer) }
	}
	return nil
}

// atLeisure has f answer on the pool. Where that is full, nobody answers.
func atLeisure(f func(s *Server, r *entryReader) []byte) answerer {
	return func(s *Server, question []byte, answer func([]byte)) {
		if s.peers == nil {
			answer(f(s, &entryReader{rest: question}))
			return
		}
		own := append([]byte(nil), question...)
		s.peers.answering.submit(func() { answer(f(s, &entryReader{rest: own})) })
	}
}

func appendNumber(dst []byte, n uint64) []byte {
	w := entryWriter{dst}
	return w.number(n).buf
}

func (s *Server) answerStats(*entryReader) []byte {
	raw, err := json.Marshal(s.StatsHere())
	if err != nil {
		s.log.Error("encode figures", "err", err)
	}
	return raw
}

// membersQuestion asks for a page of a room's members.
type membersQuestion struct {
	room []byte
	max  int
	from rooms.Cursor
}

func appendMembersQuestion(dst []byte, q membersQuestion) []byte {
	w := entryWriter{dst}
	return w.bytes(q.room).number(uint64(q.max)).number(uint64(q.from.Loop)).number(uint64(q.from.Left)).buf
}

// membersAnswer is the page.
//
// Owner: who asked.
type membersAnswer struct {
	count  int // of all members there
	more   bool
	next   rooms.Cursor
	places []place
}

func (s *Server) answerMembers(r *entryReader) []byte {
	q := membersQuestion{r.bytes(), int(r.number()), rooms.Cursor{Loop: uint8(r.number()), Left: uint32(r.number())}}
	if r.bad {
		return nil
	}
	a := s.membersHere(q)
	list := make([]ident.ID, len(a.places))
	for i, p := range a.places {
		list[i] = s.idOf(p)
	}
	more := uint64(0)
	if a.more {
		more = 1
	}
	w := new(entryWriter)
	w.number(uint64(a.count)).number(more).number(uint64(a.next.Loop)).number(uint64(a.next.Left)).places(list)
	return w.buf
}

func (s *Server) membersHere(q membersQuestion) (a membersAnswer) {
	room := s.index.Find(q.room)
	if room == nil {
		return a
	}
	a.count = room.Entered()
	a.places, a.next, a.more = room.Page(nil, q.from, min(max(q.max, 1), membersPage))
	return a
}

func readMembersPage(r *entryReader, worker ident.Worker) membersAnswer {
	a := membersAnswer{count: int(r.number()), more: r.number() != 0}
	a.next = rooms.Cursor{Loop: uint8(r.number()), Left: uint32(r.number())}
	a.places = r.places(worker)
	return a
}

// answerRooms tells rooms from a place in the index on, and where to go on; 0: that was all.
func (s *Server) answerRooms(r *entryReader) []byte {
	from := int(r.number())
	var list entryWriter
	next := s.index.RangeFrom(from, func(r *rooms.Room) {
		list.text(r.Name()).number(uint64(r.Len())).number(uint64(r.CreatedAt())).number(uint64(r.Limit())).bytes(r.Metadata())
	}, func() bool { return len(list.buf) < answerBytes })
	return append(appendNumber(nil, uint64(next)), list.buf...)
}

func readRoomStats(r *entryReader) RoomStats {
	one := RoomStats{Name: string(r.bytes()), Connections: int(r.number()), CreatedAt: int64(r.number()), MaxMembers: int(r.number())}
	if raw := r.bytes(); len(raw) > 0 {
		one.Metadata = append(json.RawMessage(nil), raw...)
	}
	return one
}

// findQuestion asks for the connections that a chooser accepts, from a place on.
//
// Owner: who asks.
type findQuestion struct {
	kind       entryKind // as of the entry that sends something to them
	key        string
	value      []byte
	loop, slot uint64
}

func (q *findQuestion) appendTo(dst []byte) []byte {
	w := entryWriter{dst}
	return w.number(uint64(q.kind)).text(q.key).bytes(q.value).number(q.loop).number(q.slot).buf
}

func (s *Server) answerFind(r *entryReader) []byte {
	q := findQuestion{entryKind(r.number()), string(r.bytes()), r.bytes(), r.number(), r.number()}
	chosen := s.chooser(asked{q.kind, q.key, q.value})
	if r.bad || chosen == nil {
		return nil
	}
	var found, w entryWriter
	for loop := q.loop; loop < uint64(len(s.loops)); loop++ {
		slot, more := s.loops[loop].slab.from(uint32(q.slot), func(c *Conn) bool {
			if c.isOpen() && chosen(c) {
				raw, err := message.Encode(nil, c.Facts())
				if err == nil {
					found.bytes(raw)
				}
			}
			return len(found.buf) < answerBytes
		})
		if more {
			return append(w.number(1).number(loop).number(uint64(slot)).buf, found.buf...)
		}
		q.slot = 0
	}
	return append(w.number(0).number(0).number(0).buf, found.buf...)
}

// Outcomes of what is asked for one connection, in front of the answer.
const (
	outcomeDone uint64 = iota
	outcomeUnknown
	outcomeNotOpen
	outcomeRefused // a code of the wire protocol and a text follow
)

func (s *Server) answerForConn(v verb, question []byte, answer func([]byte)) {
	r := &entryReader{rest: question}
	c := s.connAt(r.ownPlace())
	if c == nil {
		answer(appendNumber(nil, outcomeUnknown))
		return
	}
	told := func(err error) { answer(appendOutcome(err)) }
	switch v {
	case verbFacts:
		raw, err := message.Encode(appendOutcome(nil), c.Facts())
		if err != nil {
			s.log.Error("encode facts", "err", err)
		}
		answer(raw)
	case verbClose:
		c.CloseWith(ws.StatusCode(min(r.number(), math.MaxUint16)), string(r.bytes()))
		told(nil)
	case verbJoin:
		s.Rooms().JoinThen(c, string(r.bytes()), told)
	case verbLeave:
		s.Rooms().Leave(c, string(r.bytes()))
		told(nil)
	case verbSend:
		if f := r.frame(); f != nil {
			told(c.sendFrame(f))
		}
	}
}

func appendOutcome(err error) []byte {
	var w entryWriter
	refused, ok := errors.AsType[*Error](err)
	switch {
	case err == nil:
		w.number(outcomeDone)
	case err == ErrNotOpen:
		w.number(outcomeNotOpen)
	case ok:
		w.number(outcomeRefused).text(refused.Code).text(refused.Message)
	default:
		w.number(outcomeRefused).text(message.Internal.String()).text(err.Error())
	}
	return w.buf
}

// readOutcome gives the error that its teller had, so that errors.Is finds it.
func readOutcome(r *entryReader) error {
	switch r.number() {
	case outcomeDone:
		if r.bad {
			return errEntry
		}
		return nil
	case outcomeUnknown:
		return ErrConnectionUnknown
	case outcomeNotOpen:
		return ErrNotOpen
	}
	told := &Error{Code: string(r.bytes()), Message: string(r.bytes())}
	if r.bad {
		return errEntry
	}
	for _, known := range []*Error{ErrRoomFull, ErrTooManyRooms, ErrNotInRoom, errOverloaded, errUnavailable} {
		if known.Code == told.Code {
			return known
		}
	}
	return told
}
