package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/protocol/ident"
)

// Each event of a worker reaches all workers: the events of each connection in order, each once.

// wanted are the kinds that every worker wants from the others.
var wanted = []engine.EventKind{engine.EventConnect, engine.EventDisconnect, engine.EventRoomJoin, engine.EventRoomLeave, engine.EventReconnect}

// hearing is a worker's possible position in the events of a connection: it may begin in the middle of them, and some events
// look alike.
//
// Owner: the simulation.
type hearing struct{ next []int }

// happening is an event of a connection.
type happening struct {
	text string
	at   time.Duration
}

// wish makes a worker want the events of all workers.
func (t *fleetTruth) wish(w *worker) {
	w.heard = map[string]*hearing{}
	w.server.Server.Everywhere().OnEvent(wanted, func(ev engine.RemoteEvent) {
		t.heard(w, ev)
	})
}

func textOf(kind engine.EventKind, room, cause string) string {
	return fmt.Sprintf("%s %s%s", kind, room, cause)
}

// happened notes an event on its own worker.
func (t *fleetTruth) happened(ev engine.Event) {
	id, cause := ev.Conn.ID(), ""
	if ev.Kind == engine.EventDisconnect {
		cause = ev.Cause.String()
	}
	t.events[id] = append(t.events[id], happening{textOf(ev.Kind, ev.Room, cause), t.f.now})
}

// heard checks an event that a worker receives from any worker.
func (t *fleetTruth) heard(w *worker, ev engine.RemoteEvent) {
	from := ident.Worker(ev.Worker)
	if from == w.instance {
		return // before the worker's own listeners
	}
	t.f.tracef("worker %d hears %s %s of %s", w.instance, ev.Kind, ev.Room, ev.Conn.ID)
	list, text := t.events[ev.Conn.ID], textOf(ev.Kind, ev.Room, ev.Cause)
	h := w.heard[ev.Conn.ID]
	first := 0
	if h != nil {
		first = h.next[0]
	}
	// A worker may hear some events before its wish is known, since they go to all when several want them.
	known := h != nil && h.next[0] < len(list) && t.known(w, t.f.of(from), list[h.next[0]].at)
	var next []int
	for i := first; i < len(list); i++ {
		if list[i].text == text && (h == nil || !known || slices.Contains(h.next, i)) {
			next = append(next, i+1)
		}
	}
	if len(next) == 0 {
		t.f.complain("remote events", "worker %d is told %v of %s out of turn: it had heard up to one of %v in %v",
			w.instance, text, ev.Conn.ID, h, list)
		return
	}
	w.heard[ev.Conn.ID] = &hearing{next}
}

// known reports whether a worker must have known at a time what another wants of it.
func (t *fleetTruth) known(w, other *worker, at time.Duration) bool {
	return t.f.plan.soundBus() && len(t.lost) == 0 && at-max(w.servedAt, other.servedAt) > time.Second
}

// allHeard checks at rest that a worker has received every event of the live workers' connections.
func (t *fleetTruth) allHeard(w *worker) {
	for _, c := range t.ordered {
		other := c.client.w
		if other == w || other.dead {
			continue
		}
		h, list := w.heard[c.id], t.events[c.id]
		late := t.known(w, other, c.admittedAt)
		switch {
		case h == nil && late:
			t.f.complain("remote events", "worker %d has heard nothing of %s", w.instance, c.id)
		case late && !slices.Contains(h.next, len(list)):
			t.f.complain("remote events", "worker %d has heard of %s up to one of %v in %v", w.instance, c.id, h.next, list)
		}
	}
}
