package order

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"strconv"
	"time"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/protocol/frame"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/protocol/message"
	"github.com/parleyd/parley/rooms"
)

// SequencerOptions say how a sequencer works.
//
// Owner: immutable.
type SequencerOptions struct {
	Term    uint64 // higher than that of every earlier sequencer of the server
	History func(room string) *rooms.HistoryOptions
	Epoch   func() string
	Linger  time.Duration // see [rooms.Options]
	Secret  []byte        // the same for all sequencers of the server: of the hashes of idempotency keys
	Now     int64         // on the clock of Take and Tick
	// Living are the followers that live, and may have been welcome in an earlier term; Dead are all that have died since the server
	// started.
	Living, Dead []ident.Worker

	Say  func(entry []byte)                  // appends to the stream; entry is borrowed
	Tell func(to ident.Worker, piece []byte) // answers a read; piece is the callee's
}

// Sequencer numbers the messages of all rooms with history, and keeps their histories. It decides by nothing but what it was
// told, so that a simulation of it can be repeated.
//
// Owner: one goroutine at a time, except Histories.
type Sequencer struct {
	SequencerOptions
	Histories *rooms.Index // for the budget and the figures
	Numbered  uint64       // messages that have taken a number
	said      uint64       // entries of the stream
	followers map[ident.Worker]*admitted
	dead      map[ident.Worker]bool
	entry     fleet.Writer
	now       int64
	rebuild   *rebuild            // nil once messages are numbered
	keepers   map[string][]keeper // of rooms whose older messages followers have
	reads     map[string][]waitingRead
	Kept      uint64 // rebuilds that kept the epochs
	Anew      uint64 // and those after which all rooms began new ones
}

// admitted is a follower that was welcomed.
type admitted struct {
	next  uint64            // the number of its next publish
	asked uint64            // the number that was asked for again last
	rooms map[string]uint64 // that it is attached to: the question that was answered last
}

// PieceBytes bounds an answer to a read; one message at least.
const PieceBytes = 256 << 10

// NewSequencer begins a term.
func NewSequencer(o SequencerOptions) *Sequencer {
	s := &Sequencer{SequencerOptions: o, followers: map[ident.Worker]*admitted{}, dead: map[ident.Worker]bool{}, keepers: map[string][]keeper{}, reads: map[string][]waitingRead{}, now: o.Now}
	for _, w := range o.Dead {
		s.dead[w] = true
	}
	s.Histories = rooms.NewIndex(0, rooms.Options{History: o.History, Epoch: o.Epoch, Linger: o.Linger})
	s.restart()
	return s
}

// begin begins an entry, and say appends it to the stream.
func (s *Sequencer) begin(kind byte) *fleet.Writer {
	s.said++
	s.entry.B = append(s.entry.B[:0], Version)
	return s.entry.Number(s.Term).Number(s.said).Number(uint64(kind))
}

func (s *Sequencer) about(kind byte, w ident.Worker) *fleet.Writer {
	return s.begin(kind).Number(uint64(w.Instance()))
}

func (s *Sequencer) say() { s.Say(s.entry.B) }

// Take carries out a batch of a follower. batch is borrowed. Errors: [ErrWire]; the items in front of the damage have effect.
func (s *Sequencer) Take(from ident.Worker, batch []byte, now int64) error {
	r := fleet.Reader{Rest: batch}
	if !head(&r) {
		return ErrWire
	}
	if s.dead[from] {
		return nil // it was buried: what it had sent must not appear behind that
	}
	s.now = now
	r.Number() // up to this number, the follower has all answers
	for len(r.Rest) > 0 {
		if !s.item(from, &r) || r.Bad {
			return ErrWire
		}
	}
	return nil
}

// item carries out one item, and reports false for an unknown kind.
func (s *Sequencer) item(from ident.Worker, r *fleet.Reader) bool {
	kind := r.Byte()
	if kind <= itemState {
		s.greetingItem(from, kind, r)
		return true
	}
	f := s.followers[from]
	switch kind {
	case itemSubmit:
		number := r.Number()
		if m := readMessage(r); !r.Bad && f.takes(s, from, number) {
			s.publish(from, number, &m)
		}
	case itemVoid:
		if number := r.Number(); !r.Bad && f.takes(s, from, number) {
			s.already(from, number, outcomeUnknown, rooms.Position{})
		}
	case itemAsk:
		question, room := r.Number(), string(r.Bytes())
		if o := readOptions(r); !r.Bad && f != nil {
			s.attach(from, question, room, o)
		}
	case itemRead:
		q := readQuestion(r)
		if !r.Bad && f != nil {
			s.read(from, &q)
		}
	case itemLeave:
		number, room, question := r.Number(), string(r.Bytes()), r.Number()
		if !r.Bad && f.takes(s, from, number) {
			if f.rooms[room] <= question { // else it has asked again since
				s.detach(f, room)
			}
			s.already(from, number, outcomeUnknown, rooms.Position{})
		}
	case itemKeys:
		id, room, epoch := r.Number(), string(r.Bytes()), string(r.Bytes())
		if !r.Bad && f != nil {
			s.tellKeys(from, id, room, epoch)
		}
	case itemKept:
		room, epoch, list := string(r.Bytes()), string(r.Bytes()), readKept(r)
		if !r.Bad && f != nil {
			s.takeKept(from, room, epoch, list)
		}
	case itemEnd:
		number, room := r.Number(), string(r.Bytes())
		if !r.Bad && f.takes(s, from, number) {
			s.end(room)
			s.already(from, number, outcomeUnknown, rooms.Position{})
		}
	default:
		return false
	}
	return true
}

// greetingItem carries out an item of a follower that need not be welcome.
func (s *Sequencer) greetingItem(from ident.Worker, kind byte, r *fleet.Reader) {
	switch kind {
	case itemHello:
		g := readGreet(r)
		switch {
		case r.Bad:
		case s.rebuild != nil:
			s.greeted(from, g)
		default:
			s.welcome(from, g.next)
		}
	case itemLog:
		first := r.Number()
		var list [][]byte
		for range min(r.Number(), uint64(len(r.Rest))) {
			list = append(list, r.Bytes())
		}
		if !r.Bad {
			s.takeLog(from, first, list)
		}
	case itemState:
		x := state{at: readPlace(r), next: r.Number(), part: r.Number(), parts: r.Number()}
		for range min(r.Number(), uint64(len(r.Rest))) {
			var one roomState
			one.read(r)
			x.rooms = append(x.rooms, one)
		}
		if !r.Bad {
			s.takeState(from, &x)
		}
	}
}

// welcome lets a follower take part in this term. A greeting that is repeated is answered once more.
func (s *Sequencer) welcome(from ident.Worker, next uint64) {
	f := s.followers[from]
	if f == nil {
		f = &admitted{next: max(next, 1), rooms: map[string]uint64{}}
		s.followers[from] = f
	}
	appendWorkers(s.about(entryWelcome, from).Number(f.next), sortedWorkers(s.dead))
	s.say()
}

// Bury notes that a follower's process is gone, and says so behind everything that the follower has caused.
func (s *Sequencer) Bury(w ident.Worker) {
	if s.dead[w] {
		return
	}
	s.dead[w] = true
	if f := s.followers[w]; f != nil {
		for room := range f.rooms {
			s.detach(f, room)
		}
		delete(s.followers, w)
	}
	s.about(entryBuried, w)
	s.say()
	if s.rebuild != nil {
		s.buriedMeanwhile(w)
	}
}

// takes reports whether a number is the next one of a follower, and counts it.
func (f *admitted) takes(s *Sequencer, from ident.Worker, number uint64) bool {
	switch {
	case f == nil: // its greeting is still to come
		return false
	case number < f.next:
		s.already(from, number, outcomeUnknown, rooms.Position{})
		return false
	case number > f.next:
		if f.asked != f.next { // once for each hole: the follower repeats what stays unanswered
			f.asked = f.next
			s.about(entryAgain, from).Number(f.next)
			s.say()
		}
		return false
	}
	f.next++
	return true
}

func (s *Sequencer) already(from ident.Worker, number uint64, outcome byte, at rooms.Position) {
	s.about(entryAlready, from).Number(number).Number(uint64(outcome)).Number(at.Seq).Text(at.Epoch)
	s.say()
}

// publish numbers a message, and says it.
func (s *Sequencer) publish(from ident.Worker, number uint64, m *Message) {
	h := s.history(m.Room, m.Options)
	if h == nil {
		s.already(from, number, outcomeRefused, rooms.Position{})
		return
	}
	about := rooms.NumberedMessage{Now: s.now, By: whoOf(m.By)}
	for _, id := range m.Out {
		about.Out = append(about.Out, rooms.Who(id))
	}
	if m.Key != "" {
		about.ConflateKey = s.Histories.Hash(m.Key)
	}
	if m.Once != "" {
		about.Idempotency = s.key(m.Scope, m.Once)
	}
	p := &completion{body: m.Body}
	n, err := h.Publish(p, about)
	switch {
	case err != nil: // the room was forgotten in this instant
		s.already(from, number, outcomeRefused, rooms.Position{})
		return
	case n.Duplicate:
		s.already(from, number, outcomeDuplicate, n.Position)
		return
	}
	s.Numbered++
	w := s.about(entryOrdered, from).Number(number).Number(m.Ticket).Text(m.Room)
	(&Ordered{Epoch: n.Epoch, Seq: n.Seq, By: m.By, Out: m.Out, OutUsers: m.OutUsers, Key: about.ConflateKey, Once: about.Idempotency, Frame: p.frame}).append(w)
	s.say()
}

func whoOf(id ident.ID) uint64 {
	if id == (ident.ID{}) {
		return 0
	}
	return rooms.Who(id)
}

// key hashes an idempotency key. Without the secret, a client could choose two keys that count as one.
func (s *Sequencer) key(scope, once string) (k rooms.Key) {
	h := hmac.New(sha256.New, s.Secret)
	_, _ = io.WriteString(h, strconv.Itoa(len(scope))+" "+scope+once)
	sum := h.Sum(nil)
	return rooms.Key{binary.LittleEndian.Uint64(sum) | 1, binary.LittleEndian.Uint64(sum[8:])}
}

// completion makes the frame of a message; the sequencer has no members to post letters to.
type completion struct{ body, frame []byte }

// Number is of [rooms.NumberedPoster].
func (p *completion) Number(at rooms.Position) []byte {
	size := message.NumberedBytes(p.body, at)
	raw := frame.AppendHeader(make([]byte, 0, frame.HeaderSize(size)+size), ws.OpText, size)
	p.frame = message.AppendNumber(raw, p.body, at)
	return p.frame
}

// Reserve is of [rooms.Poster].
func (p *completion) Reserve(uint8) bool { return true }

// Cancel is of [rooms.Poster].
func (p *completion) Cancel(uint8) {}

// Post is of [rooms.Poster].
func (p *completion) Post(uint8, uint64) {}

// history is the history of a room, which is made if there is none; nil where the room has none.
func (s *Sequencer) history(room string, o *rooms.HistoryOptions) *rooms.History {
	if r := s.Histories.FindString(room); r == nil && o == nil && !s.Histories.Keeps([]byte(room)) {
		return nil
	}
	return s.Histories.MakeHistory(room, o)
}

// attach tells a follower where a room is, in the stream, so that the room's next message is the one behind.
func (s *Sequencer) attach(from ident.Worker, question uint64, room string, o *rooms.HistoryOptions) {
	f, h := s.followers[from], s.history(room, o)
	at, low, keys := rooms.Position{}, uint64(0), false
	if h != nil {
		if f.rooms[room] == 0 {
			h.Use(1)
		}
		f.rooms[room] = max(f.rooms[room], question)
		top, kept := h.Kept()
		at, low, keys = top, top.Seq-uint64(kept)+1, h.AnyKeys(s.now)
		for _, k := range s.keepers[room] {
			low = min(low, k.low)
		}
	}
	s.about(entryAttached, from).Number(question).Text(room).Text(at.Epoch).Number(low).Number(at.Seq).Flag(keys)
	s.say()
}

// tellKeys answers the question for the idempotency keys of a room.
func (s *Sequencer) tellKeys(from ident.Worker, id uint64, room, epoch string) {
	r := s.Histories.FindString(room)
	if r == nil || r.History() == nil || r.History().Epoch() != epoch {
		return // the follower is about to learn of another epoch
	}
	w := fleet.Writer{B: []byte{Version, pieceKeys}}
	w.Number(s.Term).Number(id).Text(room).Text(epoch)
	appendKeys(&w, r.History().Keys(s.now))
	s.Tell(from, w.B)
}

func (s *Sequencer) detach(f *admitted, room string) {
	if f.rooms[room] == 0 {
		return
	}
	delete(f.rooms, room)
	if r := s.Histories.FindString(room); r != nil && r.History() != nil {
		r.History().Use(-1)
	}
}

// end ends the epoch of a room that was deleted.
func (s *Sequencer) end(room string) {
	if _, was := s.Histories.Delete(room); !was {
		return
	}
	delete(s.keepers, room)
	delete(s.reads, room)
	for _, f := range s.followers {
		delete(f.rooms, room)
	}
	s.begin(entryEnded).Text(room)
	s.say()
}

// question asks for messages of a room.
//
// Owner: the caller.
type question struct {
	id          uint64
	room        string
	epoch       string
	first, last uint64
}

func (q *question) append(w *fleet.Writer) {
	w.Number(q.id).Text(q.room).Text(q.epoch).Number(q.first).Number(q.last)
}

func readQuestion(r *fleet.Reader) question {
	return question{r.Number(), string(r.Bytes()), string(r.Bytes()), r.Number(), r.Number()}
}

// read answers a question with as many messages as fit. Those that are not kept any more are left out: low says which.
func (s *Sequencer) read(from ident.Worker, q *question) {
	var w fleet.Writer
	w.B = append(w.B, Version, pieceMessages)
	w.Number(s.Term).Number(q.id).Text(q.room)
	r := s.Histories.FindString(q.room)
	if r == nil || r.History() == nil {
		w.Text("").Number(0).Number(0)
		s.Tell(from, w.B)
		return
	}
	if q.epoch == r.History().Epoch() && len(s.keepers[q.room]) > 0 && s.fetch(from, q, r.History()) {
		return
	}
	e := r.History().Entries(q.first, q.last, PieceBytes, s.now)
	if e.Epoch != q.epoch {
		w.Text("").Number(0).Number(0)
		s.Tell(from, w.B)
		return
	}
	appendKept(w.Text(e.Epoch).Number(e.Low), KeptOf(&e, s.now))
	s.Tell(from, w.B)
}

// Tick forgets what is too old; a few rooms with each call.
func (s *Sequencer) Tick(now int64) {
	s.now = now
	s.tickRebuild()
	s.Histories.SweepHistories(now, roomsAtOnce)
}

// roomsAtOnce is the rooms that one tick visits.
const roomsAtOnce = 1024

// Followers are the followers that were welcomed, in order.
func (s *Sequencer) Followers() []ident.Worker { return sortedWorkers(s.followers) }
