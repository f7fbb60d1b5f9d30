package fleet

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/ident"
)

// Several workers are one server. Each has its own connections and its part of every room. It publishes one stream of
// entries that all other workers read: entries of one goroutine arrive in order.
//
// Every message to a room goes to all workers, even to workers without known members. A worker's knowledge of the others'
// members is older than a join that was just answered there: such a member would lose the messages behind its join.

// Bus carries entries to the other workers. Its methods are for any goroutine and, but for Confirm, never wait.
type Bus interface {
	// Append copies an entry into the batch that is being filled.
	Append(entry []byte) error
	// Flush sends the batch.
	Flush()
	// Up reports whether the bus is believed to be reachable.
	Up() bool
	// Confirm waits until the bus has all entries that were appended before: see the method of that name of engine.Server.
	Confirm(ctx context.Context) error
}

// silence is the bus of a worker that is alone.
type silence struct{}

// Append is of [Bus].
func (silence) Append([]byte) error { return nil }

// Flush is of [Bus].
func (silence) Flush() {}

// Up is of [Bus].
func (silence) Up() bool { return true }

// Confirm is of [Bus].
func (silence) Confirm(context.Context) error { return nil }

// Above are the functions of the floors above that a link calls, on any goroutine and under no lock.
//
// Owner: immutable once the link is made.
type Above struct {
	Clock func() int64 // nanoseconds since the server's start
	// Answer answers another worker's question, and reports false for an unknown verb. It runs on the goroutine that receives
	// entries and must not block; payload is borrowed. It calls answer once, at once or later, on any goroutine; answer copies
	// its argument.
	Answer func(v Verb, payload []byte, answer func([]byte)) (known bool)
	Untold func(error) // an entry could not be sent
}

// Link is a worker's knowledge of the other workers, and its way to them. A worker that is alone has one, too: it knows no
// other worker, and its bus takes entries and sends them nowhere. Its methods are for any goroutine, unless they say otherwise.
//
// Owner: shared (mutex: mu); immutable once the server runs are the exported fields, above and alone.
type Link struct {
	Self     ident.Worker // this worker's number in connection ids; never 0
	Bus      Bus
	BytesMax int   // bytes of the longest message to other workers
	Loops    uint8 // of each worker

	above   Above
	alone   bool
	alive   atomic.Pointer[[]ident.Worker]
	serving atomic.Pointer[[]ident.Worker] // the other workers that can be asked, in order
	asks    asks

	mu         sync.Mutex
	entry      []byte                 // the entry that is being appended
	full       []ident.Worker         // workers that accept no connections
	missedSaid map[ident.Worker]int64 // when the log last named a worker whose messages find no place here
	figures    figuresAway
	wishes     wishes
	wanted     atomic.Uint32 // the union of all wishes
}

// NewLink makes the link of a worker that is alone.
func NewLink(self ident.Worker, loops int, above Above) *Link {
	l := &Link{Self: self, Bus: silence{}, BytesMax: math.MaxInt, Loops: uint8(loops), above: above, alone: true}
	l.alive.Store(new([]ident.Worker))
	l.serving.Store(new([]ident.Worker))
	return l
}

// Join makes the worker one of several, before the server starts.
func (l *Link) Join(self ident.Worker, bus Bus, bytesMax int) {
	l.Self, l.Bus, l.BytesMax, l.alone = self, bus, bytesMax, false
}

// Alone reports whether the worker is the only one: then work for others is in vain.
func (l *Link) Alone() bool { return l.alone }

// ErrMessageTooLarge is the error for a message that is longer than BytesMax of the link.
var ErrMessageTooLarge = errors.New("the message is larger than one worker can send to another")

// EncodeFrame makes a text frame of v that also fits on the bus.
func (l *Link) EncodeFrame(v any) (*turn.Frame, error) {
	f, err := turn.EncodeFrame(v)
	if err == nil && len(f.Plain)-int(f.Payload) > l.BytesMax {
		return nil, ErrMessageTooLarge
	}
	return f, err
}

// Say appends an entry; flush sends it now, and not at the turn's end.
func (l *Link) Say(flush bool, e *Entry) {
	if l.alone {
		return
	}
	l.Lock()
	err := l.Append(e)
	l.Unlock()
	l.Said(flush, err)
}

// Lock begins the telling of a state, which holds until it is told again. The caller reads the state behind Lock, and appends
// it: so the state that is read last is told last. [Link.Append], [Link.Unlock] and [Link.Said] follow.
func (l *Link) Lock() { l.mu.Lock() }

// Unlock ends what Lock began.
func (l *Link) Unlock() { l.mu.Unlock() }

// Append appends an entry. The caller has called Lock.
func (l *Link) Append(e *Entry) error {
	l.entry = Append(l.entry[:0], e)
	err := l.Bus.Append(l.entry)
	if cap(l.entry) > turn.CorkBytesKept {
		l.entry = nil
	}
	return err
}

// Said finishes Append, after Unlock.
func (l *Link) Said(flush bool, err error) {
	switch {
	case err != nil:
		l.above.Untold(err)
	case flush:
		l.Bus.Flush()
	}
}

// Peers sets the other workers that live.
func (l *Link) Peers(alive []ident.Worker) {
	list := l.others(alive)
	for _, gone := range *l.alive.Swap(&list) {
		if !slices.Contains(list, gone) {
			l.forgetAsks(gone)
			l.NoteFull(gone, false)
		}
	}
}

// Serving sets the other workers that take connections and can be asked; starting and ending workers have no answers.
func (l *Link) Serving(ready []ident.Worker) {
	list := l.others(ready)
	slices.Sort(list)
	l.serving.Store(&list)
}

func (l *Link) others(all []ident.Worker) []ident.Worker {
	return slices.DeleteFunc(slices.Clone(all), func(x ident.Worker) bool { return x == l.Self })
}

// Others are the workers that serve besides this one, in order. The caller must not change the list.
func (l *Link) Others() []ident.Worker { return *l.serving.Load() }

// Lives reports whether another worker of this server is believed to live.
func (l *Link) Lives(w ident.Worker) bool { return slices.Contains(*l.alive.Load(), w) }

// Lowest reports whether this worker has the lowest number.
func (l *Link) Lowest() bool {
	list := l.Others()
	return len(list) == 0 || list[0] > l.Self
}

// CutOff reports whether the bus is known to be away while other workers exist.
func (l *Link) CutOff() bool { return len(l.Others()) > 0 && !l.Bus.Up() }

// Seldom reports true at most once a second; said is the last time, on the clock that now is of.
func Seldom(said *atomic.Int64, now int64) bool {
	last := said.Load()
	return (last == 0 || now-last >= int64(time.Second)) && said.CompareAndSwap(last, now)
}
