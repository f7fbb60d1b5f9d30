// Package membership makes a server one of several workers: it takes the entries of the other workers and passes each to the
// floor that the entry is for.
//
// What it refuses to do: it has no state of its own besides the floors, and an entry that is damaged has no effect.
//
// Start reading at Worker.hear.
package membership

import (
	"fmt"
	"sync/atomic"

	"github.com/parleyd/parley/engine/internal/fanout"
	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/engine/internal/reactor"
	"github.com/parleyd/parley/engine/internal/session"
	"github.com/parleyd/parley/protocol/ident"
)

// Membership makes a server one of several workers. Package cluster provides it.
//
// Owner: immutable once it is given.
type Membership struct {
	Instance   ident.Worker // this worker's number in connection ids; never 0, and no other worker has it
	Bus        fleet.Bus
	BytesMax   int              // bytes of the longest message on the bus; 0: as for the embedded bus
	Listener   reactor.Listener // a socket that the workers share; nil: the server opens its own
	Clientless bool             // see [Worker]
	Seats      fanout.Seats     // seats of limited rooms; nil: limits hold for each worker by itself
	Rooms      fanout.Created   // created rooms; nil: each worker has its own
	// Order is called when there is a batch for the sequencer, which numbers the messages of rooms with history: see
	// [fanout.Ordering.Outgoing]. Any goroutine; it must not block. nil: each worker numbers its own rooms.
	Order func()
}

// SharedBytesMax bounds a message between workers: a message on the bus has at most 8 MiB, with the fields beside the frame.
const SharedBytesMax = 8<<20 - 64<<10

// Worker is a server as one of several workers, or as the only one.
//
// Owner: immutable once the server runs, except Receiving.
type Worker struct {
	Link       *fleet.Link
	Rooms      *fanout.Rooms
	Sessions   *session.Sessions
	Listener   reactor.Listener // nil: the server opens its own
	Clientless bool             // it accepts nobody, so that its room for clients is not the server's
	Receiving  atomic.Bool      // entries of other workers have effect
	shares     map[string]Shared
	Above      Above
}

// Above are the functions of the application's floor, for any goroutine.
//
// Owner: immutable once the server runs.
type Above struct {
	// Chooser is the choice of an entry; nil if its filter is not registered here.
	Chooser    func(kind fleet.Kind, key string, value []byte) func(*fanout.Conn) bool
	Event      func(from ident.Worker, payload []byte) error
	Survive    func(where string, v any) // notes a caught panic of ours
	MustReturn func(returned *bool)      // ends the process if a handler has ended the goroutine
	Skipped    func()                    // an entry of a newer version was not understood in full
	Later      func(func()) bool         // runs a function on the pool for long answers; false if that is full
	Stats      func() any                // this worker's figures, to be encoded as JSON
	Facts      func(c *fanout.Conn) any  // the description of a connection, to be encoded as JSON
}

// Attach makes the server one of several workers. It is called once, before the start.
func (w *Worker) Attach(m Membership) {
	if m.BytesMax == 0 {
		m.BytesMax = SharedBytesMax
	}
	w.Link.Join(m.Instance, m.Bus, min(m.BytesMax, SharedBytesMax))
	w.Rooms.Index.SetWorker(m.Instance)
	w.Listener, w.Clientless = m.Listener, m.Clientless
	if m.Seats != nil {
		w.Rooms.Seats = m.Seats
		w.Rooms.Index.ShareSeats(m.Seats)
	}
	if m.Rooms != nil {
		w.Rooms.Created = m.Rooms
	}
	if m.Order != nil {
		fanout.ShareOrder(w.Rooms, m.Order)
	}
}

// Meet asks the other workers for their counts, figures and wishes.
func (w *Worker) Meet() {
	w.Link.SayWish(true)
	w.Rooms.AskCounts(0)
	w.askShares()
}

// Receive takes an entry of another worker. One goroutine calls it, in the order of that worker's stream. entry is borrowed.
// The error says that the entry is damaged, or that a panic has cost it: then it counts as missed.
func (w *Worker) Receive(from ident.Worker, entry []byte) (err error) {
	returned := false
	defer w.Above.MustReturn(&returned)
	err = w.receive(from, entry)
	returned = true
	return err
}

func (w *Worker) receive(from ident.Worker, entry []byte) (err error) {
	defer func() {
		if v := recover(); v != nil {
			w.Above.Survive("receiving from another worker", v)
			w.missed(from)
			err = fmt.Errorf("panic: %v", v)
		}
	}()
	if !w.Receiving.Load() {
		return nil // there is no connection yet
	}
	h, err := fleet.Decode(entry, w.Link.Self)
	if err != nil {
		return err
	}
	if h.Newer {
		w.Above.Skipped()
	}
	return w.hear(from, &h)
}

// hear carries out an entry. The entry was already read to its end, so that a damaged one has no effect.
func (w *Worker) hear(from ident.Worker, h *fleet.Heard) error {
	switch h.Kind {
	case fleet.Publish, fleet.Notice, fleet.Roster, fleet.Quiet:
		if room := w.Rooms.Index.Find(h.Room); room != nil {
			return w.Rooms.HearInRoom(from, room, h)
		}
	case fleet.Spread:
		w.Rooms.HearSpread(from, h)
	case fleet.Matching, fleet.Filtered:
		w.hearChosen(from, h)
	case fleet.Direct:
		return w.Rooms.HearDirect(from, h)
	case fleet.Count:
		w.Rooms.HearCount(from, h)
	case fleet.Census:
		w.Rooms.HearCensus(from)
	case fleet.Wish:
		w.Link.HearWish(from, h)
	case fleet.Event:
		return w.Above.Event(from, h.Payload)
	case fleet.News:
		return w.hearNews(from, h)
	case fleet.Request:
		if !w.Link.HearRequest(from, h) {
			w.Above.Skipped()
		}
	case fleet.Answer:
		w.Link.HearAnswer(from, h)
	case fleet.Post:
		return w.Rooms.HearPost(from, h)
	case fleet.Order:
		return w.Rooms.Order.HearOrder(from, h)
	case fleet.Vacate:
		w.Rooms.HearVacate(h)
	case fleet.Full:
		w.Link.NoteFull(from, h.On)
	case fleet.Figures:
		w.Link.HearFigures(from, h)
	}
	return nil
}

// hearChosen gives a message to the connections that an attribute or a filter chooses.
func (w *Worker) hearChosen(from ident.Worker, h *fleet.Heard) {
	chosen := w.Above.Chooser(h.Kind, string(h.Key), append([]byte(nil), h.Payload...))
	if chosen == nil {
		w.Rooms.Ground.Log.Warn("another worker asks for a filter that is not registered here: register it in every worker", "filter", string(h.Key))
		return
	}
	w.Rooms.HearChosen(from, h, chosen)
}

// Missed notes that messages of another worker are lost for good: this worker's knowledge of its members may be wrong, and
// is requested again, unless that worker has died. It is called as [Worker.Receive] is. Cost: a walk through all rooms, and
// a count of each from every worker.
func (w *Worker) Missed(from ident.Worker) {
	returned := false
	defer w.Above.MustReturn(&returned)
	w.missed(from)
	returned = true
}

func (w *Worker) missed(from ident.Worker) {
	if w.Rooms.Order != nil && w.Rooms.Order.Missed(from) {
		return // it was the sequencer's stream, which has nothing else
	}
	w.askShares()
	w.Rooms.Count[fanout.CountMissed].Add(1)
	w.Rooms.Ground.Log.Error("messages of another worker are lost for the clients of this worker", "worker", from)
	w.Rooms.Above.Missed(from)
	if !w.Link.Lives(from) {
		return // a dead worker does not answer; Gone follows
	}
	w.Rooms.Missed(from)
	w.Link.SayWish(true)
}

// Gone removes the members of a worker that has died, and announces their leaves in rooms that announce. It is called as
// [Worker.Receive] is, behind that worker's last entry.
func (w *Worker) Gone(from ident.Worker) {
	w.Link.Gone(from)
	w.Rooms.Gone(from)
}
