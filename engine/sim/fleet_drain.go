package sim

import (
	"slices"
	"time"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/engine"
)

// A worker that an operator drains sends its clients away, one by one, stores their sessions, and ends. Another one takes
// its slot.

const (
	leaveTime  = 2 * time.Second // until the connections that have not ended are cut off
	finishTime = 2 * time.Second // for the last calls to the stores
)

// drainOne begins to drain a worker.
func (f *Fleet) drainOne() {
	w := f.slots[f.rand.IntN(len(f.slots))]
	if w == nil || !w.serving || w.draining {
		return
	}
	w.draining = true
	over := f.span(0, pick(f.rand, 0, 100*time.Millisecond, 2*time.Second))
	f.tracef("worker %d is drained over %v", w.instance, over)
	for _, k := range f.clients { // the last changes are stored with the parked session alone
		if k.w == w && k.talks() {
			f.talk(k)
		}
	}
	if over == 0 {
		w.leave()
		return
	}
	left := f.plan.config.Loops
	w.server.DrainOver(over, func() {
		if left--; left == 0 {
			w.leave()
		}
	})
	f.later(over+time.Second, func() {
		if left > 0 && !w.dead {
			f.complain("drain", "worker %d is to send its clients away over %v, and does not come to an end", w.instance, over)
		}
	})
}

// leave is the end of a worker that has sent its clients away.
func (w *worker) leave() {
	w.server.SendAway()
	w.leaves = w.f.now
	w.awaitEmpty()
}

// awaitEmpty waits until all clients have gone and all calls to the stores were answered.
func (w *worker) awaitEmpty() {
	f, waited := w.f, w.f.now-w.leaves
	connected := slices.ContainsFunc(f.clients, func(k *fleetClient) bool { return k.w == w && !k.departed })
	stored := len(w.shelves.under) == 0 && len(w.book) == 0
	switch {
	case w.dead:
		return
	case connected && waited < leaveTime, !stored && waited < leaveTime+finishTime, slices.Contains(w.busy, true), w.receiving:
		f.later(5*time.Millisecond, w.awaitEmpty)
		return
	}
	w.kept = stored && !connected
	if w.Flush(); w.link.Waiting() {
		w.link.Round()
	}
	w.left = w.link.Up()
	f.tracef("worker %d has left: all is stored: %v", w.instance, w.kept)
	f.end(w)
}

// sentAway checks the close frame of a client whose worker sends its clients away.
func (k *fleetClient) sentAway(code ws.StatusCode) {
	if k.truth == nil {
		return
	}
	want, away := goings[k.conn.Cause()]
	switch {
	case away && code != want, !away && (code == goings[engine.CauseDrain] || code == goings[engine.CauseShutdown]):
		k.f.complain("drain", "%s has ended for %v and is told %d", k.name, k.conn.Cause(), code)
	case away && !k.goodbye:
		k.f.complain("drain", "%s is told %d without a goodbye", k.name, code)
	}
}

// goings are the codes of closes after which clients come back to another worker.
var goings = map[engine.Cause]ws.StatusCode{engine.CauseDrain: 1012, engine.CauseShutdown: ws.StatusGoingAway}

// allSentAway checks that clients whose worker sent them away were told so.
func (t *fleetTruth) allSentAway() {
	for _, c := range t.ordered {
		if _, away := goings[c.conn.Cause()]; away && !c.client.cut && !c.client.hungUp && !c.client.closed {
			t.f.complain("drain", "%s has ended for %v, and was never told", c.client.name, c.conn.Cause())
		}
	}
}
