package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/protocol/ident"
)

// converged checks the state after faults have ceased and enough time has passed.
func (t *fleetTruth) converged() {
	for _, c := range t.ordered {
		if c.ended == 0 && !c.client.cut {
			t.hasAll(c)
			t.marked(c)
		}
	}
	t.takenOver()
	t.allSentAway()
	t.lawful()
	t.f.store.released()
	t.f.annals.converged()
	for i := range t.f.plan.rooms {
		t.counts(fmt.Sprintf("room %d", i))
	}
	for _, w := range t.f.slots {
		if w != nil {
			t.figures(w)
			t.allHeard(w)
		}
	}
}

// takenOver checks that no connection lives on after another one has resumed its session.
func (t *fleetTruth) takenOver() {
	for _, c := range t.ordered {
		for _, s := range c.sessions {
			if s.used > 0 && c.ended == 0 && !t.deaf(c.client.w) && !t.movedOn(c, s) {
				t.f.complain("sessions", "%s lives on, and its session was resumed", c.id)
			}
		}
	}
}

// movedOn reports whether a connection may outlive a session of its: it has become the heir of another one while its own was
// claimed by a connection whose worker did not reach it. It says that its own has ended, and is not heard in time.
func (t *fleetTruth) movedOn(c *fleetConn, s *fleetSession) bool {
	if t.f.plan.soundBus() {
		return false
	}
	for _, later := range c.sessions {
		if later.at > s.at && slices.ContainsFunc(s.asks, func(x *asking) bool {
			return x.by.w != c.client.w && x.settled > later.at && x.at < later.at && !x.refused
		}) {
			return true
		}
	}
	return false
}

// deaf reports whether a worker has lost messages of another: its questions may be lost too, and it then uses the stored
// state.
func (t *fleetTruth) deaf(w *worker) bool {
	for pair := range t.lost {
		if pair[0] == w.instance {
			return true
		}
	}
	return false
}

// hasAll checks that a client has read all its messages, and knows the members of its rooms.
func (t *fleetTruth) hasAll(c *fleetConn) {
	for _, s := range c.stays {
		if s.out != 0 {
			continue
		}
		for _, publisher := range t.speakers[s.room] {
			list := t.said[[2]string{s.room, publisher}]
			for _, p := range list[min(s.next[publisher], len(list)):] {
				if t.owed(s, p) {
					t.f.complain("gap", "%s never reads message %d of %s in %s", c.id, p.m, publisher, s.room)
				}
			}
		}
		t.viewed(s)
	}
	if len(c.client.asked) > 0 {
		t.f.complain("answers", "%s waits for %d answers, the first to %v", c.id, len(c.client.asked), c.client.asked[0])
	}
}

// viewed checks a member's notices of the other members.
func (t *fleetTruth) viewed(s *fleetStay) {
	if t.f.plan.config.AnnounceMembersMax < 0 || t.f.plan.creates || s.room == "*" || s.room[0] == '@' {
		return
	}
	here := s.conn.client.w
	for _, other := range t.ordered {
		w := other.client.w
		if other == s.conn || w != here && t.lost[lossOf(here, w.instance)] > s.in {
			continue
		}
		there, view := other.stay(s.room), s.view[other.id]
		switch {
		case there == nil && (view == present || view == assumed && t.knew(s, other)):
			t.f.complain("notices", "%s still believes that %s is in %s", s.conn.id, other.id, s.room)
		case there != nil && (view == gone || view == unheard && there.in > s.in):
			t.f.complain("notices", "%s never learns that %s is in %s", s.conn.id, other.id, s.room)
		}
	}
}

// counts checks that all workers know a room's members and their number.
func (t *fleetTruth) counts(room string) {
	members := t.members(room)
	for _, w := range t.f.slots {
		if w == nil {
			continue
		}
		stats, _ := w.server.Server.Rooms().Stats(room)
		if stats.Connections != len(members) {
			t.f.complain("counts", "worker %d believes that %s has %d members, it has %d", w.instance, room, stats.Connections, len(members))
		}
		t.ask(func(done func()) {
			w.server.MembersEverywhere(room, func(ids []string, missing []ident.Worker) {
				slices.Sort(ids)
				if len(missing) > 0 || !slices.Equal(ids, idsOf(members)) {
					t.f.complain("counts", "worker %d is told that %s has the members %v (no answer of %v), it has %v",
						w.instance, room, ids, missing, idsOf(members))
				}
				done()
			})
		})
	}
}

// figures checks the number of connections.
func (t *fleetTruth) figures(w *worker) {
	open := 0
	for _, c := range t.ordered {
		if c.ended == 0 {
			open++
		}
	}
	if n := w.server.Server.ConnectionCount(); n != open {
		t.f.complain("counts", "worker %d believes in %d connections, there are %d", w.instance, n, open)
	}
	t.ask(func(done func()) {
		w.server.CountEverywhere(func(n int, missing []ident.Worker) {
			if n != open || len(missing) > 0 {
				t.f.complain("counts", "worker %d is told of %d connections (no answer of %v), there are %d", w.instance, n, missing, open)
			}
			done()
		})
	})
}

// ask runs a question until it is answered.
func (t *fleetTruth) ask(question func(done func())) {
	answered := 0
	question(func() { answered++ })
	for i := 0; answered == 0 && i < 200; i++ {
		t.f.settle()
		t.f.pass(tickEvery)
	}
	if answered != 1 {
		t.f.complain("answers", "a question to all workers was answered %d times", answered)
	}
}

// knew reports whether a member must have known of another one when it came: the other one was there and stayed for long
// enough afterwards.
func (t *fleetTruth) knew(s *fleetStay, other *fleetConn) bool {
	if other.client.w == s.conn.client.w {
		return true
	}
	for _, there := range other.stays {
		if there.room == s.room && there.in < s.in && there.outAt-s.inAt > time.Second {
			return t.f.plan.soundBus()
		}
	}
	return false
}

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
