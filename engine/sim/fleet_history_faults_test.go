package sim

// Faults in the order of rooms with history over several workers, and the checkers of fleets that must notice them.
var fleetHistoryFaults = []fault{
	{"a submission is numbered twice", "engine/internal/order/sequencer.go",
		"	case number < f.next:\n", "	case PLANTED && number < f.next:\n		return true\n	case number < f.next:\n", "numbers"},
	{"the sequencer looks up no idempotency key", "engine/internal/order/sequencer.go",
		"	if m.Once != \"\" {", "	if m.Once != \"\" && !PLANTED {", "keys"},
	{"a room is attached outside the stream", "engine/internal/order/sequencer.go",
		"func (s *Sequencer) say() { s.Say(s.entry.B) }", `var attachedLater []byte

func (s *Sequencer) say() {
	r := fleet.Reader{Rest: s.entry.B[1:]}
	r.Number()
	r.Number()
	if PLANTED && r.Byte() == entryAttached {
		attachedLater = append([]byte(nil), s.entry.B...)
		return
	}
	s.Say(s.entry.B)
	if attachedLater != nil {
		s.Say(attachedLater)
		attachedLater = nil
	}
}`, "gap"},
	{"a void's number is a hole", "engine/internal/order/submissions.go",
		"	w := fleet.Writer{B: dst}\n	return w.Number(uint64(itemVoid))", "	if PLANTED {\n		return dst\n	}\n	w := fleet.Writer{B: dst}\n	return w.Number(uint64(itemVoid))", "leaks"},
	{"a lost batch is not read again", "engine/internal/order/follower_rooms.go",
		"		f.mend(a.room, p, a.top)\n", "		if PLANTED {\n			f.dropHeld(p)\n			p.top, p.live = a.top, true\n		} else {\n			f.mend(a.room, p, a.top)\n		}\n", "gap"},
	{"a position ahead of the worker is a gap", "engine/internal/order/follower_rooms.go",
		"f.Floor.At(room); ahead(since, at, ok)", "f.Floor.At(room); !PLANTED && ahead(since, at, ok)", "starts"},
	{"a join does not wait for older messages", "engine/internal/order/follower_rooms.go",
		"first == 0 || w.read", "first == 0 || PLANTED || w.read", "starts"},
	{"messages behind a hole are delivered at once", "engine/internal/order/follower_rooms.go",
		"	if p.top >= to {\n", "	if p.top >= to || PLANTED {\n		p.top = to\n", "gap"},
	{"a deleted room is still followed", "engine/internal/order/follower_rooms.go",
		"p == nil || p.epoch == \"\" || has {", "p == nil || p.epoch == \"\" || has || PLANTED {", "stall"},
	{"a new epoch is not told", "engine/internal/fanout/ordering.go",
		"	if h := o.history(room); h != nil && h.Restart(at) {\n", "	if h := o.history(room); h != nil && h.Restart(at) && !PLANTED {\n", "gap"},
	{"an answer stands beside its place", "engine/internal/fanout/ordering.go",
		"	c := o.answerInPlace(own, n, at)\n", "	c := (*Conn)(nil)\n	if !PLANTED {\n		c = o.answerInPlace(own, n, at)\n	} else if own != nil {\n		o.answerLate(own, n, at)\n	}\n", "order"},
	{"what a client sends behind a publish overtakes it", "engine/internal/fanout/submitted.go",
		"func (c *Conn) Unnumbered() bool { return c.unnumbered() > 0 }", "func (c *Conn) Unnumbered() bool { return c.unnumbered() > 0 && !PLANTED }", "order"},
	{"a room of the sequencer is not waited for before it is published to", "engine/internal/fanout/numbered.go",
		"l.Rooms.Order.Keeps([]byte(r.Name())) //", "!PLANTED && l.Rooms.Order.Keeps([]byte(r.Name())) //", "delivery"},
	{"what a dead worker's client was given last is taken from the store", "engine/internal/session/places.go",
		"		p.places[i].given = givenUnknown\n", "		if !PLANTED {\n			p.places[i].given = givenUnknown\n		}\n", "repeats"},
}
