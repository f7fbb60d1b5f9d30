package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/parleyd/parley/engine/cluster/ledger"
	"github.com/parleyd/parley/engine/cluster/supervise"
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
func (w *worker) openBook(ctx context.Context, given inheritance) error {
	bounded, cancel := context.WithTimeout(ctx, openWait)
	defer cancel()
	opts := bookOptions(w.srv, given.Epoch, w.options)
	opts.AwayAfter, opts.RoomChanged = awayAfter, w.roomChanged
	book, err := ledger.Open(bounded, w.road.link.Load().Conn(), opts)
	if err != nil {
		return fmt.Errorf("open ledger: %w", err)
	}
	w.book.Store(book)
	w.srv.KeepSessions(sessions{book})
	return nil
}

// buried tells the ledger of a worker that the kernel says is gone.
func (w *worker) buried(d supervise.Death) {
	book := w.book.Load()
	told := func(what string) func(error) {
		return func(err error) {
			if err != nil && !errors.Is(err, ledger.ErrClosed) {
				w.options.Log.Warn(what, "worker", d.Instance, "err", err)
			}
		}
	}
	note := func(what string, err error) {
		if err != nil {
			told(what)(err)
		}
	}
	note("record a worker's end", book.Dead(d.Instance, d.At, told("record a worker's end")))
	reap := func() { note("free a worker's seats", book.Seats.Reap(d.Instance, told("free a worker's seats"))) }
	reap()
	time.AfterFunc(reapAgain, reap)
}
