package sim

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/parleyd/parley/engine"
)

func roomOf(i int) string { return fmt.Sprintf("room %d", i) }

func (f *Fleet) roomName() string { return roomOf(f.rand.IntN(f.plan.rooms)) }

// act makes a person do something.
func (f *Fleet) act(p *fleetPerson) {
	k := p.now
	switch {
	case k == nil:
		f.dial(p)
	case f.fault(f.plan.cuts):
		k.reset()
	case f.fault(f.plan.hangups):
		f.tracef("%s hangs up", k.name)
		k.hangUp()
	case f.fault(f.plan.freezes):
		k.frozen, p.now = true, nil
		f.tracef("%s is gone without a word", k.name)
	case f.fault(f.plan.slow):
		k.slowUntil = f.now + f.span(0, time.Second)
		f.tracef("%s reads nothing for a while", k.name)
	case k.talks():
		f.talk(k)
	}
}

// talks reports whether the client can say more.
func (k *fleetClient) talks() bool {
	return k.open && !k.closing && !k.frozen && !k.cut && !k.upEnd && len(k.asked) < 10
}

// talk sends something.
func (f *Fleet) talk(k *fleetClient) {
	if f.plan.historic && f.chance(0.6) {
		f.talkHistory(k)
		return
	}
	switch n := f.rand.IntN(20); {
	case n < 5:
		k.ask("join", f.roomName(), "")
	case n < 7:
		k.ask("leave", f.roomName(), "")
	case n < 15:
		pad := strings.Repeat("x", f.rand.IntN(pick(f.rand, 10, 300, 1000)))
		room := f.roomName()
		if f.annals.keeps(room) {
			f.annals.publishes(k, room)
			return
		}
		k.ask("broadcast", room, fmt.Sprintf(`,"data":{"m":%d,"pad":%q}`, f.number(), pad))
	case n < 16:
		k.ask("members", f.roomName(), "")
	case n < 17 && f.plan.auth && f.chance(0.5):
		f.renew(k)
	case n < 17:
		k.ask("note", "", fmt.Sprintf(`,"from":"%d"`, f.number()))
	default:
		f.reconnect(k)
	}
}

// applicationActs is a goroutine of the application on a worker.
func (f *Fleet) applicationActs() {
	w := f.slots[f.rand.IntN(len(f.slots))]
	if w == nil || !w.serving || !f.chance(f.plan.application) {
		return
	}
	if f.plan.auth && f.fault(0.05) {
		f.revoke(f.people[f.rand.IntN(len(f.people))])
		return
	}
	s, m := w.server.Server, f.number()
	message := engine.M{"type": "app", "m": m}
	var c *fleetConn
	if list := f.truth.ordered; len(list) > 0 {
		c = list[f.rand.IntN(len(list))]
	}
	switch n := f.rand.IntN(9); {
	case n == 6:
		if f.plan.creates {
			f.createOrDelete(w)
		}
	case n < 2:
		room := f.roomName()
		if f.annals.keeps(room) {
			f.annals.applicationPublishes(w, room)
			return
		}
		f.truth.publish(w, m, room, nil)
		s.Broadcast(room, message)
	case n == 2:
		f.truth.publish(w, m, "*", nil)
		s.BroadcastAll(message)
	case c == nil:
	case n > 6:
		f.mark(w, c)
	case n == 3:
		p := f.truth.publish(w, m, "@"+c.id, nil)
		p.refused = !s.SendTo(c.id, message)
	case n == 4:
		f.applicationJoins(w, c)
	default:
		p, knows := f.truth.publish(w, m, "@"+c.id, nil), w.knows(c.client.w)
		p.refused = true
		w.server.SendToEverywhere(c.id, message, func(err error) {
			if errors.Is(err, engine.ErrConnectionUnknown) && c.ended == 0 && knows {
				f.complain("events", "worker %d does not find %s", w.instance, c.id)
			}
			p.refused = err != nil
		})
	}
}

func (f *Fleet) applicationJoins(w *worker, c *fleetConn) {
	room := f.roomName()
	f.tracef("worker %d takes %s into %s", w.instance, c.id, room)
	c.taken[room] = true
	w.server.JoinEverywhere(c.id, room, func(err error) { f.tracef("worker %d has taken %s into %s: %v", w.instance, c.id, room, err) })
}

// serveApplication registers the application's handlers.
func (w *worker) serveApplication() {
	w.server.Server.On("note", func(c *engine.Conn, m *engine.Message, _ *engine.Server) (any, error) {
		x := w.f.truth.conns[c.ID()]
		x.note, x.notedAt = decode(m.Payload()).from(), w.f.now
		return engine.M{"type": "noted"}, c.SetAttribute("note", x.note)
	})
}

// createOrDelete makes the application create a room, change or delete one, perhaps an unknown one.
func (f *Fleet) createOrDelete(w *worker) {
	room, limit := f.roomName(), 0
	if f.plan.config.MaxConnectionsPerRoom == 0 {
		limit = pick(f.rand, 0, 2)
	}
	if f.chance(0.3) {
		f.tracef("worker %d changes %s to be for %d", w.instance, room, limit)
		metadata := strconv.AppendInt(nil, int64(f.now), 10)
		w.server.UpdateRoom(room, limit, metadata, func(err error) { f.tracef("worker %d has changed %s: %v", w.instance, room, err) })
		return
	}
	if f.chance(0.6) {
		f.tracef("worker %d creates %s for %d", w.instance, room, limit)
		w.server.CreateRoom(room, limit, func(err error) { f.tracef("worker %d has created %s: %v", w.instance, room, err) })
		return
	}
	f.tracef("worker %d deletes %s", w.instance, room)
	f.truth.deleted[room] = f.now
	w.server.DeleteRoom(room, func(existed bool) { f.tracef("worker %d has deleted %s: %v", w.instance, room, existed) })
}
