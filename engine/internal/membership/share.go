package membership

import (
	"fmt"

	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/protocol/ident"
)

// Shared is a state that all workers have: see package engine.
type Shared interface {
	Merge(part []byte) error
	Parts() [][]byte
}

// Share makes a state one of all workers. tell tells the others a change; any goroutine. Before the start.
func (w *Worker) Share(name string, x Shared) (tell func(change []byte)) {
	if w.shares == nil {
		w.shares = map[string]Shared{}
	}
	w.shares[name] = x
	return func(change []byte) { w.sayNews(0, name, fleet.AsksNothing, change) }
}

func (w *Worker) sayNews(to ident.Worker, name string, asks fleet.Asks, part []byte) {
	w.Link.Say(true, &fleet.Entry{Kind: fleet.News, Target: to, Key: name, Body: fleet.Body{Asks: asks, Payload: part}})
}

// askShares asks the other workers for all shared states.
func (w *Worker) askShares() {
	for name := range w.shares {
		w.sayNews(0, name, fleet.AsksMembers, nil)
	}
}

// hearNews takes a change of another worker, or answers its question. A state that is not shared here is skipped: the workers
// run programs of two versions.
func (w *Worker) hearNews(from ident.Worker, h *fleet.Heard) error {
	state := w.shares[string(h.Key)]
	switch {
	case state == nil:
		return nil
	case h.Asks != fleet.AsksNothing:
		for _, part := range state.Parts() {
			w.sayNews(from, string(h.Key), fleet.AsksNothing, part)
		}
		return nil
	}
	if err := state.Merge(h.Payload); err != nil {
		return fmt.Errorf("merge %s: %w", h.Key, err)
	}
	return nil
}
