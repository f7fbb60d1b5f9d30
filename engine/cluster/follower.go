package cluster

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/parleyd/parley/engine/cluster/bus"
	"github.com/parleyd/parley/engine/internal/fanout"
)

// mailbag carries between this process and the sequencer: what clients and the application publish to rooms with history goes
// there, and the answers to questions about them come back. What the sequencer says to all comes as a stream like that of a
// worker, by the link.
//
// Owner: shared (atomic: courier).
type mailbag struct {
	courier atomic.Pointer[bus.Courier] // nil until open
	stop    chan struct{}
	ticking sync.WaitGroup
}

// ring is of [membership.Membership]. Before the courier works nothing is lost: the next tick rings again.
func (m *mailbag) ring() {
	if c := m.courier.Load(); c != nil {
		c.Wake()
	}
}

// open begins to carry, once the server hears what other workers say: it would not hear the sequencer's welcome before. The
// ticks have a goroutine of their own, since the courier's waits for a bus that does not read; after two seconds clients must be
// told nevertheless.
func (w *worker) openMailbag() error {
	held := w.srv.Worker().Rooms.Order
	courier, err := w.bus.link.Load().Follow(held.Outgoing, func(answer []byte) {
		if err := held.HearPiece(answer); err != nil {
			w.options.Log.Error("an answer of the sequencer cannot be read; please report this", "err", err)
		}
	})
	if err != nil {
		return err
	}
	m := &w.mail
	m.courier.Store(courier)
	m.stop = make(chan struct{})
	m.ticking.Go(func() { m.tick(held) })
	courier.Wake()
	return nil
}

func (m *mailbag) tick(held *fanout.Ordering) {
	t := time.NewTicker(tickEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			held.Tick()
		case <-m.stop:
			return
		}
	}
}

// close lets what was published leave.
func (m *mailbag) close() {
	close(m.stop)
	m.ticking.Wait()
	m.courier.Load().Close()
}
