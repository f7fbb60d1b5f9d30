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

// A worker opens the ledger over its link before it serves, and passes the deaths that the supervisor reports on to it.

const (
	openWait = 30 * time.Second
	// awayAfter is below the two seconds after which a client must know that the bus is away.
	awayAfter = 1500 * time.Millisecond
	// reapAgain is when a dead worker's seats are freed a second time: its last write may have been on its way to the bus
	// the first time.
	reapAgain = time.Second
)

// openLedger opens the ledger. It waits for a bus that is away, as dial does.
func (w *worker) openLedger(ctx context.Context, given inheritance, peers []ident.Worker) error {
	bounded, cancel := context.WithTimeout(ctx, openWait)
	defer cancel()
	opts := ledgerOptions(w.srv, given.Epoch, w.options)
	opts.AwayAfter, opts.RoomChanged, opts.Peers = awayAfter, w.roomChanged, peers
	records, err := ledger.Open(bounded, w.bus.link.Load().Conn(), opts)
	if err != nil {
		return fmt.Errorf("open ledger: %w", err)
	}
	w.ledger.Store(records)
	w.srv.Worker().Sessions.KeepSessions(sessions{records})
	return nil
}

// fault is the reason why sessions and seats cannot be kept, as it was logged last.
type fault struct {
	why   string // empty: none
	since time.Time
}

// log logs why where it has changed.
func (f *fault) log(why string, log *slog.Logger) {
	switch {
	case why == f.why:
		return
	case why == "":
		log.Info("sessions, seats and created rooms can be used again", "after", time.Since(f.since).Round(time.Millisecond))
	case f.why == "":
		f.since = time.Now()
		fallthrough
	default:
		log.Warn("sessions, seats and created rooms cannot be used: clients that resume or join a limited room are told to try again", "why", why)
	}
	f.why = why
}

// died records the death of a worker in the ledger, and frees its seats.
func (w *worker) died(d supervise.Death) {
	records := w.ledger.Load()
	reap := func() {
		w.insist("the seats of a dead worker cannot be freed yet", d.Instance, func(done func(error)) error { return records.Seats.Reap(d.Instance, done) })
	}
	w.insist("the end of a worker cannot be recorded yet", d.Instance, func(done func(error)) error { return records.Dead(d.Instance, d.At, done) })
	reap()
	time.AfterFunc(reapAgain, reap)
}

// insist calls again until the ledger accepts the call: after an absence of the bus the ledger can be busy, and a worker
// that is not recorded as dead would keep its seats and sessions for ever. The ledger completes a call that it accepted.
func (w *worker) insist(what string, instance ident.Worker, call func(done func(error)) error) {
	done := func(err error) {
		if err != nil && !errors.Is(err, ledger.ErrClosed) {
			w.options.Log.Warn(what, "worker", instance, "err", err)
		}
	}
	switch err := call(done); {
	case errors.Is(err, ledger.ErrBusy):
		time.AfterFunc(tryAgain, func() { w.insist(what, instance, call) })
	default:
		done(err)
	}
}
