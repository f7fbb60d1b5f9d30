package engine

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/parleyd/parley/engine/internal/turn"
)

// crowd is a world in which entering or leaving a room takes 5 us, and one connection in many rooms.
type crowd struct {
	*script
	ann     *Conn
	rooms   int
	longest time.Duration // of a turn
}

func newCrowd(t *testing.T, rooms int) *crowd {
	w := &crowd{script: newScript(t, func(c *Config) { c.MaxRoomsPerConnection = -1 }), rooms: rooms}
	w.ann = w.open(0)
	for i := range rooms {
		w.say(w.ann, fmt.Sprintf(`{"type":"join","room":"r%d"}`, i))
	}
	w.script.drain()
	w.read(w.ann)
	for _, kind := range []EventKind{EventRoomJoin, EventRoomLeave} {
		w.server.Server.Emitter().On(kind, func(Event) { w.now += 5 * time.Microsecond })
	}
	return w
}

// turn is one drain of each loop that asked for it. It reports whether there was any.
func (w *crowd) turn() (any bool) {
	for loop := range w.rung {
		if w.rung[loop] {
			w.rung[loop], any = false, true
			begun := w.now
			w.server.Drain(loop)
			w.longest = max(w.longest, w.now-begun)
		}
	}
	return any
}

func (w *crowd) drain() {
	for w.turn() {
	}
}

func (w *crowd) end() {
	w.t.Helper()
	if w.longest > 2*turn.DrainBudget {
		w.t.Errorf("a turn takes %v", w.longest)
	}
}

// resumed is how many rooms the answer to a reconnect names.
func (w *crowd) resumed(c *Conn) int {
	w.t.Helper()
	for _, text := range w.read(c) {
		if strings.HasPrefix(text, `{"type":"reconnected"`) {
			return strings.Count(text, `"r`) - 2 // less "reconnected" and "rooms"
		}
	}
	w.t.Fatal("there is no answer to the reconnect")
	return 0
}

// A connection that ends in very many rooms holds no turn for long, whichever way it ends. Its session keeps all rooms, and
// the members of each room learn that it left before they learn of its heir.
func TestLeavingManyRooms(t *testing.T) {
	for _, row := range []struct {
		name string
		end  func(w *crowd)
	}{
		{"hangs up", func(w *crowd) { w.server.Gone(w.ann) }},
		{"is closed", func(w *crowd) { w.ann.Close() }},
		{"is closed, and hangs up", func(w *crowd) { w.ann.Close(); w.turn(); w.server.Gone(w.ann) }},
		{"is taken over", func(*crowd) {}},
	} {
		for _, early := range []bool{true, false} {
			t.Run(fmt.Sprint(row.name, early), func(t *testing.T) {
				w := newCrowd(t, 3000)
				last := fmt.Sprintf(`"r%d"`, w.rooms-1)
				bob, heir := w.open(0), w.open(1)
				w.say(bob, `{"type":"join","room":`+last+`}`)
				w.drain()
				w.read(bob)
				w.read(heir)
				token := w.token(w.ann)
				row.end(w)
				if w.turn(); !early {
					w.drain()
				}
				w.say(heir, `{"type":"reconnect","token":"`+token+`"}`)
				for w.turn() {
					w.say(bob, `{"type":"ping"}`)
				}
				if n := w.resumed(heir); n != w.rooms {
					t.Errorf("%d of %d rooms are restored", n, w.rooms)
				}
				var told []string
				for _, text := range w.read(bob) {
					if strings.Contains(text, "member_") {
						told = append(told, text)
					}
				}
				if got := kinds(told); got != "member_left member_joined" {
					t.Errorf("a member is told %q", got)
				}
				w.end()
				for _, c := range []*Conn{w.ann, heir, bob} {
					w.server.Gone(c)
				}
				w.drain()
				w.pass(400 * time.Second)
				if left := w.server.Leftovers(); len(left) > 0 {
					t.Error(left)
				}
			})
		}
	}
}

// No other connection gets a slot while a room still names it.
func TestSlotOfTheLeaving(t *testing.T) {
	w := newCrowd(t, 3000)
	w.server.Gone(w.ann)
	w.turn()
	cid := w.open(0) // drains, and the leaving goes on
	w.read(cid)
	for i := range w.rooms {
		w.server.Server.Broadcast(fmt.Sprint("r", i), M{"type": "secret"})
	}
	w.drain()
	w.expect(cid, "")
}

// Messages of the rooms that a connection is entering, one after the other, come behind the answer. A connection that ends
// meanwhile leaves its session to the next one that shows the token.
func TestEnteringManyRooms(t *testing.T) {
	w := newCrowd(t, 3000)
	token := w.token(w.ann)
	w.server.Gone(w.ann)
	w.drain()
	first, second := w.open(0), w.open(1)
	w.read(second)
	w.say(first, `{"type":"reconnect","token":"`+token+`"}`)
	w.turn()
	if !first.wire.Has(turn.FlagDiverted) {
		t.Fatal("it is over before it began")
	}
	w.server.Gone(first)
	w.drain()
	w.say(second, `{"type":"reconnect","token":"`+token+`"}`)
	w.turn()
	w.server.Server.Broadcast("r0", M{"type": "news"})
	w.say(second, `{"type":"ping"}`)
	w.drain()
	w.end()
	if got := kinds(w.read(second)); got != "reconnected reconnect_token news pong" {
		t.Errorf("the heir reads %q", got)
	}
	if n := len(second.Rooms()); n != w.rooms {
		t.Errorf("the heir is in %d of %d rooms", n, w.rooms)
	}
}

// No connection resumes a session that was ended with 4001, also while its connection leaves many rooms.
func TestRevokedWhileLeaving(t *testing.T) {
	w := newCrowd(t, 3000)
	heir := w.open(1)
	w.read(heir)
	token := w.token(w.ann)
	w.ann.CloseWith(StatusUnauthorized, "")
	w.turn()
	w.say(heir, `{"type":"reconnect","token":"`+token+`"}`)
	w.drain()
	w.expect(heir, "error")
}

// To send all clients away, and to empty a large room, takes many turns.
func TestEverybodyLeavesInParts(t *testing.T) {
	for name, begin := range map[string]func(w *crowd){
		"shutdown": func(w *crowd) { w.server.SendAway() },
		"drain":    func(w *crowd) { w.server.DrainOver(0, func() {}) },
		"delete":   func(w *crowd) { w.server.Server.Rooms().Delete("all") },
	} {
		t.Run(name, func(t *testing.T) {
			w := newCrowd(t, 0)
			for range 2000 {
				w.say(w.open(0), `{"type":"join","room":"all"}`)
			}
			w.drain()
			w.longest = 0
			begin(w)
			w.drain()
			w.end()
			if n := w.server.Server.rooms.Index.Len(); n != 0 {
				t.Errorf("%d rooms are left", n)
			}
		})
	}
}

// Leaving one of many rooms costs the same whichever it is and however many there are.
func TestLeavingOneOfManyRooms(t *testing.T) {
	w := newCrowd(t, 2000)
	c := w.ann
	for i := range w.rooms {
		w.say(c, fmt.Sprintf(`{"type":"leave","room":"r%d"}`, i))
		if n := len(c.wire.Rooms); n != w.rooms-1-i {
			t.Fatalf("%d rooms are left, want %d", n, w.rooms-1-i)
		}
		if fault := c.wire.CheckIndex(); fault != "" {
			t.Fatal(fault)
		}
	}
}

// A connection may be in a thousand rooms unless the operator says otherwise.
func TestRoomsOfAConnectionAreLimited(t *testing.T) {
	for limit, most := range map[int]int{0: 1000, 7: 7, -1: 1200} {
		w := newScript(t, func(c *Config) { c.MaxRoomsPerConnection = limit })
		c := w.open(0)
		for i := range 1200 {
			w.say(c, fmt.Sprintf(`{"type":"join","room":"r%d"}`, i))
		}
		if n := len(c.Rooms()); n != most {
			t.Errorf("limit %d: %d rooms, want %d", limit, n, most)
		}
	}
}
