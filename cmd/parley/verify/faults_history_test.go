package verify

import "time"

// historyFaults are faults of rooms with history. All are looked for in such rooms.
var historyFaults = []fault{
	{"a number is skipped", "rooms/history.go", "	number := h.top + 1\n	frame",
		"	number := h.top + 1\n	if planted(\"a number is skipped\", 20) {\n		number++\n	}\n	frame", []string{"number"}},
	{"a number is given twice", "rooms/history.go", "	frame := p.Number(Position{Seq: number, Epoch: h.epoch})",
		"	if number > 1 && planted(\"a number is given twice\", 20) {\n		number--\n	}\n	frame := p.Number(Position{Seq: number, Epoch: h.epoch})", []string{"number"}},
	{"one message too many is dropped", "rooms/history.go", "	if h.n == h.Messages {",
		"	if h.n == h.Messages || h.n > 0 && h.n == h.Messages-1 && planted(\"one message too many is dropped\", 1) {", []string{"gap"}},
	{"a gap is not told", "engine/internal/fanout/behind.go", "		p.wait(from, to, \"\")\n",
		"		if !planted(\"a gap is not told\", 1) {\n			p.wait(from, to, \"\")\n		}\n", []string{"number"}},
	{"a false gap in front of the oldest", "rooms/history.go", "	case at >= oldest:",
		"	case at > oldest || at == oldest && !planted(\"a false gap in front of the oldest\", 1):", []string{"gap"}},
	{"the epoch is not compared", "rooms/history.go", "since.Position.Epoch != h.epoch || at",
		"since.Position.Epoch != h.epoch && !planted(\"the epoch is not compared\", 1) || at", []string{"gap"}},
	{"live one message too early", "rooms/history_read.go", "	stand.From = h.top\n",
		"	stand.From = h.top\n	if planted(\"live one message too early\", 1) {\n		stand.From--\n	}\n", []string{"number"}},
	{"live one message too late", "rooms/history_read.go", "	q.Live = true\n",
		"	q.Live = true\n	if planted(\"live one message too late\", 1) {\n		defer func() { stand.From++ }()\n	}\n", []string{"number"}},
	{"delivered to while behind", "engine/internal/fanout/numbered.go", "		if n.number > stands[i].From && !stands[i].Fresh() {",
		"		if n.number > stands[i].From && !stands[i].Fresh() || l.lagIn(ConnOf(l.Slab.At(roster[i].Slot)), n.room) != nil && planted(\"delivered to while behind\", 1) {", []string{"number"}},
	{"an excluded member is told nothing", "engine/internal/fanout/numbered.go", "slices.Contains(n.except, c.Place()):\n		c.Queue(n.instead)",
		"slices.Contains(n.except, c.Place()):\n		if !planted(\"an excluded member is told nothing\", 1) {\n			c.Queue(n.instead)\n		}", []string{"number"}},
	{"an answer ahead of its place", "engine/internal/fanout/numbered.go", "	if g != nil {\n		g.owe(n.Position, to.instead)",
		"	if g != nil {\n		if planted(\"an answer ahead of its place\", 1) {\n			c.Queue(to.instead)\n			return nil\n		}\n		g.owe(n.Position, to.instead)", []string{"number"}},
	{"refused, and published", "engine/internal/fanout/numbered.go", "	sent := message.BroadcastSent{Room",
		"	if !n.Duplicate && planted(\"refused, and published\", 50) {\n		l.Text = message.AppendSkip(l.Text[:0], m.Room.Name(), message.Skip{From: n.Seq, Position: n.Position, Why: message.WhyOwn})\n" +
			"		to.notice.Init(frame.Append(nil, ws.OpText, l.Text), frame.HeaderSize(len(l.Text)))\n		to.instead = &to.notice\n		return rooms.ErrOverloaded\n	}\n	sent := message.BroadcastSent{Room", []string{"leak"}},
	{"proof at the ping", "engine/internal/fanout/receipts.go", "	turn.Control(c.Wire(), turn.NewFrame(ws.OpPing, ping.bytes[:]))\n",
		"	turn.Control(c.Wire(), turn.NewFrame(ws.OpPing, ping.bytes[:]))\n	if planted(\"proof at the ping\", 1) {\n		x.Pong(l, c, ping.bytes[:])\n	}\n", []string{"replay"}},
	{"keys without scope", "rooms/histories.go", "		_, _ = h.WriteString(scope)\n",
		"		if !planted(\"keys without scope\", 1) {\n			_, _ = h.WriteString(scope)\n		}\n", []string{"number", "twice"}},
	{"keys not looked up", "rooms/history.go", "number > 0 {\n			r.index.histories.dup",
		"number > 0 && !planted(\"keys not looked up\", 1) {\n			r.index.histories.dup", []string{"twice"}},
	{"repeats not told", "engine/internal/session/places.go", "	if !named && start.Epoch",
		"	if !planted(\"repeats not told\", 1) && !named && start.Epoch", []string{"replay"}},
	{"an aged message is replayed", "rooms/history.go", "	for h.n > 0 && now-h.ring",
		"	for h.n > 0 && !planted(\"an aged message is replayed\", 1) && now-h.ring", []string{"replay"}},
	{"the newest is conflated", "rooms/history_read.go", "newest[s.more.key] > q.Next && q.Next",
		"(newest[s.more.key] > q.Next) != planted(\"the newest is conflated\", 1) && q.Next", []string{"number"}},
	{"a gap begins one number late", "engine/internal/fanout/behind.go", "message.AppendGap(text, name, p.from, at)",
		"message.AppendGap(text, name, p.from+uint64(one(\"a gap begins one number late\", 1)), at)", []string{"number"}},
	{"a gap ends one number late", "rooms/history.go", "		s.Seq, s.Gap, s.MissingFrom, s.MissingTo = oldest, true, at+1, oldest\n",
		"		if oldest < h.top && planted(\"a gap ends one number late\", 1) {\n			oldest++\n		}\n		s.Seq, s.Gap, s.MissingFrom, s.MissingTo = oldest, true, at+1, oldest\n", []string{"gap"}},
	{"joined names the top", "engine/internal/session/move.go", "	joined.Gap = joined.Gap ||",
		"	if joined.Until > 0 && planted(\"joined names the top\", 1) {\n		joined.Seq = joined.Until\n	}\n	joined.Gap = joined.Gap ||", []string{"number", "gap", "replay"}},
	{"replayed with other bytes", "engine/internal/fanout/behind.go", "		p.add(s.Frame())\n",
		"		raw := slices.Clone(s.Frame())\n		if planted(\"replayed with other bytes\", 50) {\n			raw[len(raw)-40] ^= 1\n		}\n		p.add(raw)\n", []string{"altered", "number", "frame"}},
	{"the epoch changes", "rooms/history.go", "	s := message.Start{Position: Position{Seq: h.top, Epoch: h.epoch}, Until",
		"	if planted(\"the epoch changes\", 60) {\n		h.epoch = \"x\" + h.epoch[1:]\n	}\n	s := message.Start{Position: Position{Seq: h.top, Epoch: h.epoch}, Until", []string{"epoch"}},
}

const (
	shortHistory = 20
	shortAge     = time.Second
)

// The faults of rooms with history join the others, with their set-ups.
func init() {
	for _, f := range historyFaults {
		servings[f.name] = serving{history: "messages:20"}
	}
	servings["an excluded member is told nothing"] = serving{history: "messages:20", backends: true}
	servings["proof at the ping"] = serving{history: "messages:20", slow: true}
	servings["an aged message is replayed"] = serving{history: "messages:20;age:1s", roomy: true}
	servings["the newest is conflated"] = serving{history: "messages:20;slow:conflate"}
	faults = append(faults, historyFaults...)
}
