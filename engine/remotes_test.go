package engine

import "testing"

// ear is a bus that keeps the counts that were told: of each room the latest.
type ear map[string]uint64

func (e ear) Append(entry []byte) error {
	if entryKind(entry[0]) == entryCount {
		r := &entryReader{rest: entry[entryHead:]}
		e[string(r.bytes())] = r.number()
	}
	return nil
}

func (ear) Flush()   {}
func (ear) Up() bool { return true }

// tick lets the loops look at their timers, later than the last time.
func (w *script) tick() {
	w.now += w.server.TickEvery()
	w.server.Tick()
	w.drain()
}

// A seat that was kept for an heir who never came is not counted any more: the others are told.
func TestCountsForgetKeptSeats(t *testing.T) {
	w, told := newScript(t, nil), ear{}
	w.server.Server.Attach(Membership{Instance: 7, Bus: told})
	stays, old, heir := w.welcome(1), w.welcome(0), w.welcome(1)
	for _, c := range []*Conn{stays, old} {
		w.say(c, `{"type":"join","room":"r"}`)
	}
	w.tick()
	if told["r"] != 2 {
		t.Fatal("two are in, and the others are told", told)
	}
	w.say(heir, `{"type":"reconnect","token":"`+w.token(old)+`"}`)
	w.server.Drain(0) // it hands over
	w.now += w.server.TickEvery()
	w.server.Drain(0) // and the count is told, while the seat waits
	w.server.Gone(heir)
	w.drain()
	w.tick()
	if told["r"] != 1 || w.server.Server.index.FindString("r").Len() != 1 {
		t.Error("one is in, and the others were told", told)
	}

	// The application's join, of one who ends before it is in.
	late := w.welcome(1)
	if err := w.server.Server.Rooms().Join(late, "r"); err != nil {
		t.Fatal(err)
	}
	w.say(w.welcome(0), `{"type":"join","room":"r"}`)
	w.now += w.server.TickEvery()
	w.server.Drain(0)
	w.server.Gone(late)
	w.drain()
	w.tick()
	if told["r"] != 2 {
		t.Error("two are in, and the others were told", told)
	}
}

// What a worker said last is lost: those who missed it learn the truth, also of rooms that it has left since.
func TestCountsAfterLoss(t *testing.T) {
	ws := startWorkers(t, 2, nil, nil)
	here, there := ws.list[0], ws.list[1]
	stays := dial(t, here.Server)
	stays.join("r")
	goes := dial(t, there.Server)
	goes.join("r")
	away := func() int { return here.index.FindString("r").AwayOf(there.instance) }
	eventually(t, "its member is counted", func() bool { return away() == 1 })

	there.loses.Store(uint32(entryCount))
	goes.send(`{"type":"leave","room":"r"}`)
	goes.skipTo("left")
	eventually(t, "its last word is lost", func() bool { return there.swallowed.Load() > 0 })
	there.loses.Store(0)
	if away() != 1 {
		t.Fatal("the count is right although nobody told it")
	}
	here.Missed(there.instance)
	eventually(t, "nobody is counted who is gone", func() bool { return away() == 0 })
}
