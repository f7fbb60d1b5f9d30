package membership

import (
	"encoding/json"
	"math"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/engine/internal/fanout"
	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/message"
)

// The answering side of all questions. A question about one connection is answered on the goroutine that receives entries, so
// that it keeps its order among the asking worker's entries. A question that walks through rooms or connections is answered
// on a small pool, so that entries do not wait for it.

// answerer answers the questions of one verb.
type answerer func(w *Worker, question []byte, answer func([]byte))

// Answer answers another worker's question, or one of this worker to itself: [fleet.Above] says how.
func (w *Worker) Answer(v fleet.Verb, question []byte, answer func([]byte)) (known bool) {
	by := answererOf(v)
	if by != nil {
		by(w, question, answer)
	}
	return by != nil
}

// answererOf is the answerer of a verb; nil for an unknown one.
func answererOf(v fleet.Verb) answerer {
	switch v {
	case fleet.HandOver:
		return func(w *Worker, question []byte, answer func([]byte)) { w.Sessions.AnswerHandOver(question, answer) }
	case fleet.Connections:
		return func(w *Worker, _ []byte, answer func([]byte)) { answer(appendNumber(nil, uint64(w.Rooms.Open.Load()))) }
	case fleet.Stats:
		return atLeisure(answerStats)
	case fleet.Members:
		return atLeisure(func(w *Worker, r *fleet.Reader) []byte { return w.Rooms.AnswerMembers(r, false) })
	case fleet.Rooms:
		return atLeisure(func(w *Worker, r *fleet.Reader) []byte { return w.Rooms.AnswerRooms(r) })
	case fleet.Find:
		return atLeisure(answerFind)
	case fleet.PostCounted:
		return answerPost
	case fleet.UserCounts:
		return atLeisure(func(w *Worker, r *fleet.Reader) []byte { return w.Rooms.AnswerUserCounts(r) })
	case fleet.Delivered:
		return atLeisure(func(w *Worker, r *fleet.Reader) []byte { return fanout.Historic{Rooms: w.Rooms}.AnswerDelivered(r) })
	case fleet.UserNames:
		return atLeisure(func(w *Worker, r *fleet.Reader) []byte { return w.Rooms.AnswerUserNames(r, ListMax) })
	case fleet.RoomNames:
		return atLeisure(func(w *Worker, r *fleet.Reader) []byte { return w.Rooms.AnswerRoomNames(r) })
	case fleet.Room:
		return func(w *Worker, name []byte, answer func([]byte)) { answer(w.Rooms.AppendRoom(nil, name)) }
	case fleet.MemberUsers:
		return atLeisure(func(w *Worker, r *fleet.Reader) []byte { return w.Rooms.AnswerMembers(r, true) })
	case fleet.Conns, fleet.ConnsTop:
		return func(w *Worker, question []byte, answer func([]byte)) { w.answerConns(v, question, answer) }
	case fleet.CloseAt:
		return (*Worker).answerCloseAt
	case fleet.JoinAt, fleet.LeaveAt:
		return func(w *Worker, question []byte, answer func([]byte)) { w.answerMoveAt(v, question, answer) }
	case fleet.Attributes:
		return (*Worker).answerAttributes
	case fleet.Facts, fleet.Close, fleet.Join, fleet.Leave, fleet.Send:
		return func(w *Worker, question []byte, answer func([]byte)) { w.answerForConn(v, question, answer) }
	}
	return nil
}

// atLeisure makes an answerer that runs f on the pool. If the pool is full, the question stays unanswered.
func atLeisure(f func(w *Worker, r *fleet.Reader) []byte) answerer {
	return func(w *Worker, question []byte, answer func([]byte)) {
		if w.Link.Alone() {
			answer(f(w, &fleet.Reader{Rest: question}))
			return
		}
		own := append([]byte(nil), question...)
		w.Above.Later(func() { answer(f(w, &fleet.Reader{Rest: own})) })
	}
}

func appendNumber(dst []byte, n uint64) []byte {
	w := fleet.Writer{B: dst}
	return w.Number(n).B
}

func answerStats(w *Worker, _ *fleet.Reader) []byte {
	raw, err := json.Marshal(w.Above.Stats())
	if err != nil {
		w.Rooms.Ground.Log.Error("figures cannot be encoded; please report this", "err", err)
	}
	return raw
}

func answerFind(w *Worker, r *fleet.Reader) []byte {
	var q fleet.FindQuestion
	q.Read(r)
	chosen := w.Above.Chooser(q.Kind, string(q.Key), q.Value)
	if r.Bad || chosen == nil {
		return nil
	}
	var found fleet.Writer
	for loop := q.Loop; loop < uint64(len(w.Rooms.Loops)); loop++ {
		slot, more := w.Rooms.Loops[loop].Slab.From(uint32(q.Slot), func(t *turn.Conn) bool {
			c := fanout.ConnOf(t)
			if c.IsOpen() && chosen(c) {
				raw, err := message.Encode(nil, w.Above.Facts(c))
				if err == nil {
					found.Bytes(raw)
				}
			}
			return len(found.B) < fanout.AnswerBytes
		})
		if more {
			return append(fleet.FindPage{More: true, Loop: loop, Slot: uint64(slot)}.AppendTo(nil), found.B...)
		}
		q.Slot = 0
	}
	return append(fleet.FindPage{}.AppendTo(nil), found.B...)
}

// answerForConn answers a question about one connection.
func (w *Worker) answerForConn(v fleet.Verb, question []byte, answer func([]byte)) {
	r := &fleet.Reader{Rest: question}
	c := w.Rooms.ConnAt(r.Place())
	if c == nil {
		answer(appendNumber(nil, uint64(fleet.Unknown)))
		return
	}
	done := func(err error) { answer(AppendOutcome(err)) }
	switch v {
	case fleet.Facts:
		raw, err := message.Encode(AppendOutcome(nil), w.Above.Facts(c))
		if err != nil {
			w.Rooms.Ground.Log.Error("the description of a connection cannot be encoded; its attributes may hold what JSON has not", "err", err)
		}
		answer(raw)
	case fleet.Close:
		c.CloseWith(ws.StatusCode(min(r.Number(), math.MaxUint16)), string(r.Bytes()))
		done(nil)
	case fleet.Join:
		w.Rooms.JoinThen(c, string(r.Bytes()), done)
	case fleet.Leave:
		room := string(r.Bytes())
		c.Wire().Loop.PostCall(func() { c.LeaveRoom(room) })
		done(nil)
	case fleet.Send:
		if raw := r.Frame(); raw != nil {
			done(c.Send(fanout.HeardFrame(raw)))
		}
	}
}

// answerPost sends another worker's message to the connections of this one at an address, and tells their number.
func answerPost(w *Worker, question []byte, answer func([]byte)) {
	var a fleet.Address
	r := fleet.Reader{Rest: question}
	a.Read(&r)
	raw := r.Frame()
	if r.Bad {
		return
	}
	n, err := w.Rooms.Post(&a, fanout.HeardFrame(raw))
	answer(appendNumber(AppendOutcome(err), uint64(n)))
}
