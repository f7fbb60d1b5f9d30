package engine

import (
	"context"
	"testing"
	"time"

	"github.com/parleyd/parley/engine/internal/fleet"
)

// Counts that workers tell each other are those of all, on each of them, and on one that has just started; a dead worker's
// vanish, and nothing is counted twice.
func TestFiguresOfAllWorkers(t *testing.T) {
	ws := startWorkers(t, 3, nil, nil)
	var all []*client
	for i := range 6 {
		c := dial(t, ws.list[i%3].Server)
		c.join("all")
		all = append(all, c)
	}
	all[0].join("own")
	all[0].send(`{"type":"broadcast","room":"all","data":1}`)
	all[5].skipTo("broadcast")
	expect := func(connections, rooms, own int) {
		t.Helper()
		for _, w := range ws.list {
			eventually(t, "each worker knows what all have", func() bool {
				s, room := w.Stats(), 0
				if of, ok := w.Rooms().Stats("own"); ok {
					room = of.Connections
				}
				of, ok := w.Rooms().Stats("all")
				return w.ConnectionCount() == connections && s.Connections == connections && s.Rooms == rooms && room == own &&
					ok && of.Connections == connections
			})
			if total, err := w.Everywhere().ConnectionCount(context.Background()); total != connections || err != nil {
				t.Errorf("%d are counted everywhere, want %d (%v)", total, connections, err)
			}
			if total, err := w.Everywhere().Stats(context.Background()); total.Connections != connections || total.Rooms != rooms || err != nil {
				t.Errorf("%d connections, %d rooms in all figures, want %d, %d (%v)", total.Connections, total.Rooms, connections, rooms, err)
			}
		}
	}
	expect(6, 2, 1)
	for _, w := range ws.list {
		if n := w.StatsHere().Connections; n != 2 {
			t.Errorf("a worker has %d connections of its own, want 2", n)
		}
		eventually(t, "what others have sent is in the figures", func() bool {
			s := w.Stats()
			return s.MessagesReceived >= 8 && s.MessagesSent >= 18 && s.MemoryUsage > w.StatsHere().MemoryUsage
		})
		if w != ws.list[0] {
			if room, ok := w.Rooms().Stats("own"); !ok || room.Name != "own" || room.Connections != 1 || room.CreatedAt != 0 {
				t.Errorf("of a room elsewhere it says %+v", room)
			}
		}
	}
	ws.die(ws.list[0])
	for _, w := range ws.list {
		eventually(t, "the dead worker's connections are counted no more", func() bool {
			_, own := w.Rooms().Stats("own")
			return w.ConnectionCount() == 4 && w.Stats().Rooms == 1 && !own
		})
	}
}

// A worker that has just started knows what the others have, although nothing changes there.
func TestFiguresAreToldToNewcomers(t *testing.T) {
	ws := startWorkers(t, 2, nil, nil)
	dial(t, ws.list[0].Server).join("r")
	eventually(t, "it is told", func() bool { return ws.list[1].ConnectionCount() == 1 })
	w := ws.start(nil, nil)
	eventually(t, "the newcomer is told", func() bool {
		room, ok := w.Rooms().Stats("r")
		return w.ConnectionCount() == 1 && w.Stats().Rooms == 1 && ok && room.Connections == 1
	})
}

// Changed figures are told with the next tick; unchanged ones once a second.
func TestFiguresAreToldSeldom(t *testing.T) {
	w, b := newPeer(t, nil)
	told := func(ticks int) int {
		before := len(b.of(fleet.Figures))
		for range ticks {
			w.now += w.server.TickEvery()
			w.server.Tick()
			w.drain()
		}
		return len(b.of(fleet.Figures)) - before
	}
	second := int(time.Second / w.server.TickEvery())
	if n := told(3 * second); n < 2 || n > 3 {
		t.Errorf("told %d times in three idle seconds", n)
	}
	c := w.welcome(0)
	if n := told(1); n != 1 {
		t.Errorf("told %d times with the tick after a connection came", n)
	}
	w.server.Gone(c)
	if n := told(1); n != 1 {
		t.Errorf("told %d times with the tick after it went", n)
	}
}
