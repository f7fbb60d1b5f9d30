package order

import (
	"slices"
	"time"

	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/protocol/message"
	"github.com/parleyd/parley/rooms"
)

// A follower's publishes, from their submission to their outcome.

// Submission is a publish of this process on its way to the sequencer, or a command.
//
// Owner: the follower, once it is submitted; Of is the floor's.
type Submission struct {
	Of     any
	number uint64
	item   []byte
	at     int64
	void   bool // it was given up; its number still waits for its answer
	orders bool // it is a command: it is sent until it is answered, and nobody waits for that
	done   bool
}

// Submit submits a message; its outcome comes with a Take or a Settle. m is borrowed. Any goroutine. Errors:
// [message.ErrOverloaded]: too many wait already; [ErrTooLarge].
func (f *Follower) Submit(s *Submission, m *Message) error {
	var w fleet.Writer
	f.mu.Lock()
	if len(f.outstanding) >= outstandingMax || f.bytes > outstandingBytesMax {
		f.mu.Unlock()
		return message.ErrOverloaded
	}
	s.number, s.at = f.next, f.Clock()
	f.next++
	w.B = make([]byte, 0, len(m.Body)+len(m.Room)+64)
	w.Number(uint64(itemSubmit)).Number(s.number)
	m.append(&w)
	if f.Most > 0 && len(w.B) > f.Most {
		f.next--
		f.mu.Unlock()
		return ErrTooLarge
	}
	s.item = w.B
	f.outstanding = append(f.outstanding, s)
	f.bytes += len(s.item)
	f.count.Publishes++
	f.mu.Unlock()
	f.Ring()
	return nil
}

// command submits what must reach the sequencer once, and is no message.
func (f *Follower) command(kind byte, room string) {
	s := &Submission{number: f.next, at: f.Clock(), orders: true}
	f.next++
	w := new(fleet.Writer).Number(uint64(kind)).Number(s.number).Text(room)
	if kind == itemLeave {
		w.Number(f.questions)
	}
	s.item = w.B
	f.outstanding = append(f.outstanding, s)
	f.bytes += len(s.item)
}

// append appends the item. A publish that was given up is not published by being sent again.
func (s *Submission) append(dst []byte) []byte {
	if !s.void && !s.done {
		return append(dst, s.item...)
	}
	w := fleet.Writer{B: dst}
	return w.Number(uint64(itemVoid)).Number(s.number).B
}

// again has publishes sent again, from a number on. Those in front of the outstanding ones have their answers, by entries that a new
// sequencer said again, and are sent as voids.
func (f *Follower) again(from uint64) {
	first := f.next - uint64(len(f.outstanding))
	for ; from < first; from++ {
		f.send(new(fleet.Writer).Number(uint64(itemVoid)).Number(from))
	}
	f.unsent = min(f.unsent, int(min(from-first, uint64(len(f.outstanding)))))
	f.Ring()
}

// find is the publish of a number, while it has no answer.
func (f *Follower) find(number uint64) *Submission {
	if len(f.outstanding) == 0 || number < f.outstanding[0].number {
		return nil
	}
	if i := number - f.outstanding[0].number; i < uint64(len(f.outstanding)) && !f.outstanding[i].done {
		return f.outstanding[i]
	}
	return nil
}

// settled takes a publish off the list, and reports whether somebody still waits for it. Those behind it may stay.
func (f *Follower) settled(s *Submission) (waits bool) {
	s.done = true
	waits = !s.void && !s.orders
	if waits {
		f.wait(f.Clock() - s.at)
	}
	for len(f.outstanding) > 0 && f.outstanding[0].done {
		f.bytes -= len(f.outstanding[0].item)
		f.outstanding[0] = nil
		f.outstanding = f.outstanding[1:]
		f.unsent = max(f.unsent-1, 0)
	}
	return waits
}

func (f *Follower) wait(nanos int64) {
	i, _ := slices.BinarySearch(WaitBounds[:], time.Duration(nanos).Seconds())
	f.count.Waits[i]++
	f.count.Micros += uint64(nanos / 1e3)
}

// settle tells the outcome of a publish.
func (f *Follower) settle(s *Submission, o Outcome) {
	if o.Err == message.ErrUnavailable {
		f.count.Unanswered++
	}
	f.later(func() { f.Floor.Settle(s, o) })
}

func (f *Follower) already(number uint64, outcome byte, at rooms.Position) {
	s := f.find(number)
	if s == nil || !f.settled(s) {
		return
	}
	switch outcome {
	case outcomeDuplicate:
		f.settle(s, Outcome{Position: at, Duplicate: true})
	case outcomeRefused:
		f.settle(s, Outcome{Err: message.ErrorOf(message.NoHistory)})
	default:
		f.settle(s, Outcome{Err: message.ErrUnavailable})
	}
}
