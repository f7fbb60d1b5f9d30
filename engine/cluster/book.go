package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/parleyd/parley/engine/cluster/ledger"
	"github.com/parleyd/parley/engine/cluster/supervise"
	"github.com/parleyd/parley/protocol/ident"
)

// The ledger, as a worker uses it: opened over its link before it serves, told of the dead as the supervisor says so.

const (
	openWait = 30 * time.Second
	// awayAfter is below the two seconds within which a client is told that the bus is away.
	awayAfter = 1500 * time.Millisecond
	// reapAgain is after how long the seats of the dead are looked for once more: their last write may have been on its
	// way to the bus when they were reaped for the first time.
	reapAgain = time.Second
)

// openBook opens the ledger. It waits for a bus that is away, as dial does.
func (w *worker) openBook(ctx context.Context, given inheritance, peers []ident.Worker) error {
	bounded, cancel := context.WithTimeout(ctx, openWait)
	defer cancel()
	opts := bookOptions(w.srv, given.Epoch, w.options)
	opts.AwayAfter, opts.RoomChanged, opts.Peers = awayAfter, w.roomChanged, peers
	book, err := ledger.Open(bounded, w.road.link.Load().Conn(), opts)
	if err != nil {
		return fmt.Errorf("open ledger: %w", err)
	}
	w.book.Store(book)
	w.srv.KeepSessions(sessions{book})
	return nil
}

// keeping is whether sessions and seats can be kept, as the log was told last.
//
// Owner: whoever asks.
type keeping struct {
	why   string
	since time.Time
}

func (k *keeping) say(why string, log *slog.Logger) {
	switch {
	case why == k.why:
		return
	case why == "":
		log.Info("sessions, seats and created rooms can be used again", "after", time.Since(k.since).Round(time.Millisecond))
	case k.why == "":
		k.since = time.Now()
		fallthrough
	default:
		log.Warn("sessions, seats and created rooms cannot be used: clients that resume or join a limited room are told to try again", "why", why)
	}
	k.why = why
}

// buried tells the ledger of a worker that the kernel says is gone.
func (w *worker) buried(d supervise.Death) {
	book := w.book.Load()
	reap := func() {
		w.insist("free a worker's seats", d.Instance, func(done func(error)) error { return book.Seats.Reap(d.Instance, done) })
	}
	w.insist("record a worker's end", d.Instance, func(done func(error)) error { return book.Dead(d.Instance, d.At, done) })
	reap()
	time.AfterFunc(reapAgain, reap)
}

// insist calls again until the ledger takes the call: it is busy where a bus that was away has left much to do, and
// whoever is not recorded as dead keeps seats and sessions for ever. What it has taken it sees through by itself.
func (w *worker) insist(what string, instance ident.Worker, call func(done func(error)) error) {
	told := func(err error) {
		if err != nil && !errors.Is(err, ledger.ErrClosed) {
			w.options.Log.Warn(what, "worker", instance, "err", err)
		}
	}
	switch err := call(told); {
	case errors.Is(err, ledger.ErrBusy):
		time.AfterFunc(tryAgain, func() { w.insist(what, instance, call) })
	default:
		told(err)
	}
}
