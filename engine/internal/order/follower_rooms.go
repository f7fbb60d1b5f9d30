package order

import (
	"bytes"
	"slices"

	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/protocol/message"
	"github.com/parleyd/parley/rooms"
)

// followed is a room that a follower is attached to, or wants to be.
//
// Invariant: a live room has every message up to top, and the next one comes in the stream. One that is not live holds what
// comes, until it is known what came in front of it: attached says where the room stands in the stream, and what lies between
// is read.
//
// Owner: Follower (mutex: mu).
type followed struct {
	epoch   string // "" until the room was attached once
	top     uint64 // the newest message that the floor has
	live    bool
	options *rooms.HistoryOptions

	asked    uint64 // the newest question; 0 for none
	askedAt  int64
	answered uint64
	held     []Ordered // messages behind a hole
	heldSize int
	reads    *reading
	keys     uint64 // the question for the idempotency keys that is out; 0: the floor has all
	keysAt   int64

	waiters []waiter
}

// waiter waits until a room is attached.
//
// Owner: Follower (mutex: mu).
type waiter struct {
	since    rooms.Since
	question uint64 // its answer is needed; 0: any
	read     bool   // what it needs was read, as far as it is kept
	until    int64
	done     func(error)
}

// heldBytesMax bounds what waits behind a hole; beyond it everything is read.
const heldBytesMax = 1 << 20

// lose notes that the follower does not know any more which message is next.
func (f *Follower) lose(p *followed) {
	f.dropHeld(p)
	p.live, p.reads = false, nil
}

// dropHeld forgets what is held. It comes again by a read, which does not say whose publish it was.
func (f *Follower) dropHeld(p *followed) {
	for _, m := range p.held {
		f.forgo(m.Own)
	}
	p.held, p.heldSize = nil, 0
}

// forgo tells that the outcome of a publish is not known; s may be nil.
func (f *Follower) forgo(s *Submission) {
	if s != nil {
		f.settle(s, Outcome{Err: message.ErrUnavailable})
	}
}

// ask asks the sequencer to attach the follower.
func (f *Follower) ask(name string, p *followed) {
	f.questions++
	p.asked = f.questions
	f.askAgain(name, p)
}

func (f *Follower) askAgain(name string, p *followed) {
	p.askedAt = f.Clock()
	w := new(fleet.Writer).Number(uint64(itemAsk)).Number(p.asked).Text(name)
	appendOptions(w, p.options)
	f.send(w)
}

// Prepare calls done once, perhaps before it returns: with nil when the floor has the room, and what since needs of its
// messages; with [message.ErrUnavailable] after [GiveUpAfter]; with that of [message.NoHistory] where the sequencer knows of no
// history. A position that is ahead of this process is judged by the sequencer's answer to a question that is asked now. Any
// goroutine; done runs on any goroutine, under no lock.
func (f *Follower) Prepare(room string, options *rooms.HistoryOptions, since rooms.Since, done func(error)) {
	f.mu.Lock()
	p := f.rooms[room]
	w := waiter{since: since, until: f.Clock() + int64(GiveUpAfter), done: done}
	if p == nil {
		p = &followed{options: options}
		f.rooms[room] = p
		f.ask(room, p)
		w.question = p.asked // what is answered before that was asked before the process had left the room
	} else if at, _, ok := f.Floor.At(room); ahead(since, at, ok) {
		if p.asked == p.answered {
			f.ask(room, p)
			w.question = p.asked
		} else {
			w.question = f.questions + 1 // the one that is out may have been answered before the client came
		}
	}
	ready := f.ready(room, p, &w)
	if !ready {
		p.waiters = append(p.waiters, w)
	}
	f.mu.Unlock()
	if ready {
		done(nil)
		return
	}
	f.Ring()
}

// ahead reports whether a position is not one that this process can judge: it has the room only up to another one, if at all.
func ahead(since rooms.Since, at rooms.Position, has bool) bool {
	return since.Named && since.Position.Epoch != "" && (!has || since.Position.Epoch != at.Epoch || since.Position.Seq > at.Seq)
}

// need is the oldest message that since needs; 0 for none.
func need(since rooms.Since, at rooms.Position) uint64 {
	switch {
	case since.Last > 0:
		return at.Seq - min(since.Last, at.Seq) + 1
	case since.Named && since.Position.Epoch == at.Epoch && since.Position.Seq < at.Seq:
		return since.Position.Seq + 1
	}
	return 0
}

// ready reports whether a waiter waits for nothing more. Older messages that it needs are read.
func (f *Follower) ready(name string, p *followed, w *waiter) bool {
	at, low, ok := f.Floor.At(name)
	if !p.live || !ok || at.Epoch != p.epoch || w.question > p.answered {
		return false
	}
	first := need(w.since, at)
	if first == 0 || w.read || low <= first {
		return true
	}
	if p.reads == nil {
		p.reads = &reading{question: question{room: name, epoch: p.epoch, first: first, last: low - 1}, fills: true, from: first}
		f.read(p)
	}
	return false
}

// release lets those go on that wait for nothing more, once the floor has done what is to be done in front of it.
func (f *Follower) release(name string) {
	f.later(func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		p := f.rooms[name]
		if p == nil {
			return
		}
		newer := false
		p.waiters = slices.DeleteFunc(p.waiters, func(w waiter) bool {
			if f.ready(name, p, &w) {
				f.later(func() { w.done(nil) })
				return true
			}
			newer = newer || w.question > p.asked
			return false
		})
		if newer && p.asked == p.answered {
			f.ask(name, p)
		}
	})
}

// attachment says where a room stands in the stream.
//
// Owner: the goroutine that read it.
type attachment struct {
	question uint64
	room     string
	epoch    string
	low, top uint64
	keys     bool
}

func readAttached(r *fleet.Reader) attachment {
	return attachment{r.Number(), string(r.Bytes()), string(r.Bytes()), r.Number(), r.Number(), r.Flag()}
}

// attached carries on with the answer to a question.
func (f *Follower) attached(a *attachment) {
	p := f.rooms[a.room]
	if p == nil {
		if a.epoch != "" { // the question may have arrived behind the leave, or once more
			f.command(itemLeave, a.room)
			f.Ring()
		}
		return
	}
	p.answered = max(p.answered, a.question)
	at := rooms.Position{Seq: a.top, Epoch: a.epoch}
	switch {
	case a.epoch == "":
		f.refuse(a.room, p, message.ErrorOf(message.NoHistory))
		return
	case p.epoch == "":
		p.epoch, p.top, p.live = a.epoch, a.top, true
		f.later(func() { f.Floor.Begin(a.room, at) })
		f.needKeys(a, p)
	case p.epoch != a.epoch:
		f.lose(p)
		p.epoch, p.top, p.live = a.epoch, a.top, true
		f.count.Resets++
		f.needKeys(a, p)
		f.later(func() { f.Floor.Reset(a.room, at) })
	case !p.live && p.reads == nil:
		if p.top < a.top {
			f.needKeys(a, p)
		}
		f.mend(a.room, p, a.top)
	}
	f.release(a.room)
	f.Ring()
}

// needKeys asks for the idempotency keys of messages that the floor does not take. Without them the room cannot be offered to a new
// sequencer: it would publish a message twice.
func (f *Follower) needKeys(a *attachment, p *followed) {
	p.keys = 0
	if a.keys {
		f.askKeys(a.room, p)
	}
}

func (f *Follower) askKeys(name string, p *followed) {
	f.questions++
	p.keys, p.keysAt = f.questions, f.Clock()
	f.send(new(fleet.Writer).Number(uint64(itemKeys)).Number(p.keys).Text(name).Text(p.epoch))
}

// mend reads what lies between the newest message and those that are held; where none is held, up to a number.
func (f *Follower) mend(name string, p *followed, to uint64) {
	if len(p.held) > 0 {
		to = p.held[0].Seq - 1
	}
	if p.top >= to {
		f.catchUp(name, p)
		return
	}
	p.reads = &reading{question: question{room: name, epoch: p.epoch, first: p.top + 1, last: to}}
	f.read(p)
}

// catchUp gives the floor what is held: the room is live then.
func (f *Follower) catchUp(name string, p *followed) {
	p.reads = nil
	for _, m := range p.held {
		if m.Seq == p.top+1 && m.Epoch == p.epoch {
			p.top++
			f.later(func() { f.Floor.Take(&m) })
			continue
		}
		f.forgo(m.Own)
	}
	p.held, p.heldSize, p.live = nil, 0, true
}

// ordered takes a message of the stream.
func (f *Follower) ordered(from ident.Worker, r *fleet.Reader) (m Ordered, taken, ok bool) {
	number, ticket, room := r.Number(), r.Number(), r.Bytes()
	p := f.rooms[string(room)]
	if ticket != 0 && (p == nil || p.epoch == "") && !r.Bad {
		f.later(func() { f.Floor.Count(from, ticket, 0) })
	}
	if p == nil && from != f.Self {
		return m, false, true
	}
	m.Room, m.From, m.Ticket = string(room), from, ticket
	m.read(r)
	if r.Bad {
		return m, false, false
	}
	var own *Submission
	if from == f.Self {
		if own = f.find(number); own != nil && !f.settled(own) {
			own = nil
		}
	}
	switch {
	case p == nil || p.epoch == "":
		if own != nil {
			f.settle(own, Outcome{Position: rooms.Position{Seq: m.Seq, Epoch: m.Epoch}})
		}
	case p.live && m.Seq == p.top+1 && m.Epoch == p.epoch:
		p.top++
		m.Own = own
		return m, true, true
	case p.live: // a part of the stream was lost
		f.lose(p)
		f.hold(p, m, own)
		f.ask(m.Room, p)
		f.Ring()
	default:
		f.hold(p, m, own)
	}
	return m, false, true
}

// hold keeps a message until those in front of it are there.
func (f *Follower) hold(p *followed, m Ordered, own *Submission) {
	if n := len(p.held); n > 0 && (m.Seq != p.held[n-1].Seq+1 || m.Epoch != p.held[n-1].Epoch) || p.heldSize > heldBytesMax {
		f.forgo(own)
		f.lose(p)
		f.ask(m.Room, p) // the answer says where the room stands behind this message
		f.Ring()
		return
	}
	m.Frame, m.Own = bytes.Clone(m.Frame), own
	p.held = append(p.held, m)
	p.heldSize += len(m.Frame)
}

// ended notes that the sequencer has forgotten a room, because it was deleted. The room may be in use here: its members are not
// gone yet, or came after the deletion.
func (f *Follower) ended(name string) {
	if p := f.rooms[name]; p != nil {
		f.lose(p)
		f.ask(name, p)
		f.Ring()
	}
}

// Dropped notes that the floor has deleted a room. It is called as Hear is.
func (f *Follower) Dropped(room string) {
	f.mu.Lock()
	p := f.rooms[room]
	if _, _, has := f.Floor.At(room); p == nil || p.epoch == "" || has {
		f.mu.Unlock()
		return
	}
	f.lose(p)
	p.epoch = ""
	if len(p.waiters) > 0 {
		f.ask(room, p)
	} else {
		delete(f.rooms, room)
		f.command(itemLeave, room)
	}
	f.mu.Unlock()
	f.act()
	f.Ring()
}

// refuse forgets a room, and tells those who wait for it.
func (f *Follower) refuse(name string, p *followed, err error) {
	delete(f.rooms, name)
	for _, w := range p.waiters {
		f.later(func() { w.done(err) })
	}
	f.dropHeld(p)
}

// Leave has the process follow a room no longer, unless somebody waits for it; ok is false then. Any goroutine.
func (f *Follower) Leave(room string) (ok bool) {
	f.mu.Lock()
	p := f.rooms[room]
	if p != nil && (len(p.waiters) > 0 || len(p.held) > 0) {
		f.mu.Unlock()
		return false
	}
	if p != nil {
		delete(f.rooms, room)
		f.command(itemLeave, room)
	}
	f.mu.Unlock()
	f.Ring()
	return true
}

// End tells the sequencer that a room is deleted. Any goroutine.
func (f *Follower) End(room string) {
	f.mu.Lock()
	f.command(itemEnd, room)
	f.mu.Unlock()
	f.Ring()
}

// waits reports whether a question about the room is out, or somebody waits for the room.
func (p *followed) waits() bool {
	return len(p.waiters) > 0 || p.asked > p.answered || p.reads != nil || p.keys != 0
}

// tickRoom repeats what was not answered, and gives up what waits for too long.
func (f *Follower) tickRoom(name string, p *followed, now int64) {
	p.waiters = slices.DeleteFunc(p.waiters, func(w waiter) bool {
		late := now >= w.until
		if late {
			f.later(func() { w.done(message.ErrUnavailable) })
		}
		return late
	})
	switch {
	case !f.welcomed:
	case p.asked > p.answered && now-p.askedAt > repeatAfter:
		f.askAgain(name, p)
	case p.reads != nil && now-p.reads.at > repeatAfter:
		f.read(p)
	case p.keys != 0 && now-p.keysAt > repeatAfter:
		f.askKeys(name, p)
	}
}
