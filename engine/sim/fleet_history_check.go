package sim

import (
	"encoding/json"
	"slices"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/engine/internal/fanout"
	"github.com/parleyd/parley/protocol/ident"
)

// What clients of several workers read of rooms with history. A worker may be behind the sequencer, so that a start is judged by
// what the sequencer had when the client asked and has when the client reads the answer.

// turnOf is the place of the request that an answer may be for: the oldest one, but for broadcasts to rooms with history, whose
// answers stand in the order of the room. -1: there is none.
func (k *fleetClient) turnOf(ref int) int {
	for i, q := range k.asked {
		if q.ref == ref {
			return i
		}
		if q.numbers == nil {
			return -1
		}
	}
	return -1
}

// isNumbered takes a message that tells a position, and reports whether it is nothing else.
func (k *fleetClient) isNumbered(b *body, text []byte) bool {
	switch {
	case b.Seq == nil || b.Type == "joined":
		return false
	case b.Type == "position":
		k.placed(b, nil)
	case b.Reset:
		k.anew(b)
	default:
		k.numbered(b, text, false)
	}
	return b.Type != "broadcast_sent"
}

// anew takes the news that a room has a new epoch.
func (k *fleetClient) anew(b *body) {
	h, st := k.epochs[b.Epoch], k.stands[b.Room]
	switch {
	case h == nil || h.room != b.Room || *b.Seq > uint64(len(h.log)):
		k.f.complain("positions", "%s is told that %s is at %d of the new epoch %s", k.name, b.Room, *b.Seq, b.Epoch)
	case st == nil:
		k.f.complain("delivery", "%s is told of a new epoch of %s, where it is not", k.name, b.Room)
	case st.h.turn >= h.turn:
		k.f.complain("epochs", "%s is in epoch %s of %s and is told that %s is new", k.name, st.h.epoch, b.Room, h.epoch)
	default:
		k.stands[b.Room] = &stand{h: h, base: *b.Seq, at: *b.Seq, until: *b.Seq}
	}
}

// placed takes a joined: the position that it tells is the client's. q is nil where the application took it in.
func (k *fleetClient) placed(b *body, q *fleetRequest) {
	h := k.epochs[b.Epoch]
	switch {
	case b.Seq == nil:
		if k.f.annals.keeps(b.Room) && !k.f.plan.creates {
			k.f.complain("positions", "%s joins %s and is told no position", k.name, b.Room)
		}
		return
	case h == nil || h.room != b.Room:
		k.f.complain("positions", "%s joins %s and is told the epoch %s", k.name, b.Room, b.Epoch)
		return
	}
	s := start{Position: engine.Position{Seq: *b.Seq, Epoch: b.Epoch}, h: h, recovered: b.Recovered, until: *b.Seq, gap: b.Gap}
	if b.Until != nil {
		s.until = *b.Until
	}
	json.Unmarshal(b.Missing, &s.missing)
	if st := k.stands[b.Room]; st != nil && st.h.turn > h.turn {
		k.f.complain("epochs", "%s is in epoch %s of %s and is told that it is in %s", k.name, st.h.epoch, b.Room, h.epoch)
	}
	k.stands[b.Room] = &stand{h: h, base: s.Seq, at: s.Seq, until: s.until}
	if q != nil {
		s.asked = q.since
		k.judge(q, s)
	} else if s.until != s.Seq || s.gap {
		k.f.complain("starts", "%s was taken into %s and is told %+v", k.name, b.Room, s)
	}
}

// judge checks where the server lets a client begin that names a place, or none. A join that waits for a seat or the store while
// a new epoch begins, or while the room is deleted on its worker, may get fewer messages than are kept.
func (k *fleetClient) judge(q *fleetRequest, s start) {
	asked, then, now := s.asked, q.then[s.h.room], s.h.extent()
	wrong := func(what string) {
		k.f.complain("starts", "%s %v: %s: it named %+v and is told %+v; the history was %+v and is %+v", k.name, q, what, asked, s.Position, then, now)
	}
	switch {
	case s.until > now.top || s.Seq > s.until:
		wrong("no such numbers")
	case asked == nil:
		if s.Seq != s.until || s.gap {
			wrong("it begins elsewhere than at the top")
		}
	case asked.last > 0:
		if n := s.until - s.Seq; s.gap || n > asked.last || n < asked.last && s.Seq >= now.low && then.epoch == s.Epoch && !k.f.annals.deleted(s.h.room, s.h) {
			wrong("other than the last messages")
		}
	case s.recovered != nil && *s.recovered == s.gap:
		wrong("it is recovered and has a gap, or neither")
	case asked.at.Epoch != s.Epoch:
		h := k.epochs[asked.at.Epoch]
		if !s.gap || s.missing != (span{}) || s.Seq != s.until {
			wrong("nothing is known of its position")
		}
		if h != nil && h.room == s.h.room && h.turn > s.h.turn {
			wrong("its epoch is a later one")
		}
	case !s.gap:
		if s.Seq != asked.at.Seq {
			wrong("it begins elsewhere")
		}
	case s.missing == span{}:
		if s.Seq != s.until || then.epoch == s.Epoch && asked.at.Seq <= then.top {
			wrong("there was such a position")
		}
	case s.missing != span{asked.at.Seq + 1, s.Seq} || asked.at.Seq >= s.Seq:
		wrong("the gap is not what it missed")
	case s.Seq >= now.low:
		wrong("it is told a gap of messages that are kept")
	}
}

// restarted checks where a session goes on in its rooms.
func (k *fleetClient) restarted(q *fleetRequest, b *body) {
	var missing map[string]span
	old := k.f.truth.sessions[q.token].of.client
	k.as.heirOf = k.as.earlier
	json.Unmarshal(b.Missing, &missing)
	for _, room := range b.Rooms {
		p, told := b.Positions[room]
		h := k.epochs[p.Epoch]
		switch {
		case told != k.f.annals.keeps(room):
			if !k.f.plan.creates {
				k.f.complain("positions", "%s resumes in %s and is told a position: %v", k.name, room, told)
			}
			continue
		case !told:
			continue
		case h == nil || h.room != room:
			k.f.complain("positions", "%s resumes in %s and is told the epoch %s", k.name, room, p.Epoch)
			continue
		}
		before := old.stands[room]
		st := &stand{h: h, base: p.Seq, at: p.Seq, until: p.Until, repeats: b.Repeats[room]}
		k.stands[room] = st
		s := start{Position: p.Position, h: h, until: p.Until, gap: slices.Contains(b.Gaps, room), missing: missing[room]}
		at, named := q.last[room]
		switch {
		case named:
			st.repeats = p.Until
			s.asked = &since{named: true, at: at}
			k.judge(q, s)
		case before != nil && before.h == h:
			st.heard = before.heard
			if !old.rebases(room) && (!s.gap && s.Seq > before.at || s.gap && s.missing != (span{}) && s.missing.From > before.at+1) {
				k.f.complain("proof", "%s had read up to %d of %s and goes on at %+v", k.name, before.at, room, s)
			}
		}
	}
}

// rebases reports whether the client's position in a room may have been told anew, on its way to it.
func (k *fleetClient) rebases(room string) bool {
	return slices.ContainsFunc(k.asked, func(q *fleetRequest) bool {
		return q.typ == "reconnect" || q.room == room && (q.typ == "join" || q.typ == "leave")
	}) || k.truth.taken[room]
}

// converged checks at rest that members are at the newest message, and that nothing waits for a number.
func (a *annals) converged() {
	if !a.f.plan.historic {
		return
	}
	for _, c := range a.f.truth.ordered {
		for _, s := range c.stays {
			if c.ended != 0 || c.client.cut || s.out != 0 || !a.keeps(s.room) {
				continue
			}
			h, st := a.latest[s.room], c.client.stands[s.room]
			if h == nil || st == nil || st.h != h || st.at != uint64(len(h.log)) {
				a.f.complain("gap", "%s is at %+v of %s, which is at %+v", c.id, st, s.room, h.extent())
			}
		}
	}
	a.nothingWaits()
	a.reachable()
}

// reachable checks that a client could join each room on each worker.
func (a *annals) reachable() {
	for _, w := range a.f.slots {
		for i := range a.f.plan.rooms {
			if room := roomOf(i); w != nil && a.keeps(room) {
				a.f.truth.ask(func(done func()) {
					w.server.Server.Worker().Rooms.Order.Prepare(room, fanout.Followed{}.Since, func(err error) {
						if err != nil {
							a.f.complain("stall", "worker %d has no part of %s: %v", w.instance, room, err)
						}
						done()
					})
				})
			}
		}
	}
}

func (a *annals) nothingWaits() {
	for _, w := range a.f.slots {
		if w == nil {
			continue
		}
		if n := w.server.Server.Worker().Rooms.Order.Counts(); n.Outstanding != 0 || n.OutstandingBytes != 0 {
			a.f.complain("leaks", "worker %d waits for the numbers of %d messages", w.instance, n.Outstanding)
		}
	}
}

// unused lets the time pass after which rooms without members are followed no longer, and their epochs end.
func (a *annals) unused() {
	if a.f.plan.historic {
		a.f.calm(unusedTime)
	}
}

// leftovers checks that nothing is kept when everybody has long gone.
func (a *annals) leftovers() {
	if !a.f.plan.historic || a.f.sequencer == nil {
		return
	}
	a.nothingWaits()
	for _, w := range a.f.slots {
		if w == nil {
			continue
		}
		if n := w.server.Server.Worker().Rooms.Order.Counts(); n.Rooms != 0 {
			a.f.complain("leaks", "worker %d follows %d rooms that nobody is in", w.instance, n.Rooms)
		}
	}
	if n := a.f.sequencer.rules.Histories.HistoryCounts(); n.Rooms != 0 || n.Messages != 0 {
		a.f.complain("leaks", "the sequencer keeps %d rooms with %d messages, and nobody is in", n.Rooms, n.Messages)
	}
	dead := func(w ident.Worker) bool { return a.f.of(w).dead }
	if list := a.f.sequencer.rules.Followers(); slices.ContainsFunc(list, dead) {
		a.f.complain("leaks", "the sequencer counts on %v, and some are dead", list)
	}
}
