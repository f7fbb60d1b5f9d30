package connect

import (
	"slices"

	"github.com/parleyd/parley/cmd/parley/show"
)

// What was missed, and which messages are gone.

// resumed takes the rooms that a session has brought.
func (c *conversation) resumed(m *reply) {
	c.session.answered(true)
	c.p.say("the session is resumed: %s", show.Things(len(m.Rooms), "room"))
	for _, name := range m.Rooms {
		s := m.Positions[name]
		s.Gap = slices.Contains(m.Gaps, name)
		if missing, ok := m.MissingIn[name]; ok {
			s.Missing = &missing
		}
		c.stands(c.want(name), s)
	}
	brought := slices.Clone(m.Rooms)
	for _, one := range m.Lost {
		c.p.say("[%s] the session has lost the room: %s", escaped(one.Room), escaped(one.Code))
		c.forget(one.Room)
	}
	c.joinAll(brought)
}

// stands takes the position that the server tells, and says what is missing in front of it.
func (c *conversation) stands(r *room, s start) {
	old, again, name := r.position, r.been && !r.member, escaped(r.name)
	r.been, r.member, r.retry.failures = true, true, 0
	if s.Epoch == "" {
		r.position = nil
		if again {
			c.p.say("[%s] the room has no history: what was said meanwhile is gone", name)
		}
		return
	}
	r.position = &s.position
	switch {
	case s.Missing != nil:
		c.gone(r, s.Missing.From, s.Missing.To)
	case old != nil && old.Epoch != s.Epoch:
		c.p.say("[%s] the messages are numbered anew: it is not known which are gone", name)
	case s.Gap:
		c.p.say("[%s] messages are gone, and it is not known which", name)
	case old != nil && s.Seq > old.Seq:
		c.gone(r, old.Seq+1, s.Seq)
	case again && s.Until <= s.Seq:
		c.p.say("[%s] nothing was missed", name)
	}
	if s.Until > s.Seq {
		c.p.say("[%s] %s from the history", name, show.Things(int(min(s.Until-s.Seq, 1<<31)), "message"))
	}
}

func (c *conversation) gone(r *room, from, to uint64) {
	if from == to {
		c.p.say("[%s] message %d is gone", escaped(r.name), from)
		return
	}
	c.p.say("[%s] messages %d to %d are gone", escaped(r.name), from, to)
}

// advance moves on to a numbered message. It reports false if the message came before.
func (c *conversation) advance(m *reply) bool {
	if m.Room == nil || m.Epoch == "" || c.session.pending {
		return true
	}
	r := c.find(*m.Room)
	switch m.Type {
	case "joined", "position", "history", "reconnected":
		return true
	}
	if r == nil {
		return true
	}
	from := m.Seq
	if m.Type == "skip" || m.Type == "gap" {
		if n := numberOf(m.From); n > 0 {
			from = n
		}
	}
	p := r.position
	switch {
	case m.Reset:
		c.p.say("[%s] the messages are numbered anew: it is not known which are gone", escaped(r.name))
	case p != nil && p.Epoch == m.Epoch && m.Seq <= p.Seq:
		return false
	case p != nil && p.Epoch == m.Epoch && from > p.Seq+1:
		c.gone(r, p.Seq+1, from-1)
	}
	if m.Type == "gap" && !m.Reset {
		c.gone(r, from, m.Seq)
	}
	r.position = &position{m.Seq, m.Epoch}
	return true
}
