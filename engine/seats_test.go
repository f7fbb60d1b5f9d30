package engine

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/parleyd/parley/engine/internal/fanout"
	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/engine/internal/membership"
	"github.com/parleyd/parley/engine/internal/session"
	"github.com/parleyd/parley/protocol/ident"
)

// seatGiver gives out seats when the test says so, and counts them.
type seatGiver struct {
	t     *testing.T
	taken map[string]int
	asked []request
	gifts []gift
}

type request struct {
	room   string
	ticket fanout.SeatTicket
	done   func(error)
}

type gift struct {
	room   string
	to     ident.Worker
	ticket fanout.SeatTicket
	done   func()
}

func (d *seatGiver) Acquire(room string, _ int, ticket fanout.SeatTicket, done func(error)) {
	d.asked = append(d.asked, request{room, ticket, done})
}

func (d *seatGiver) Give(room string, to ident.Worker, ticket fanout.SeatTicket, done func()) {
	d.gifts = append(d.gifts, gift{room, to, ticket, done})
}

func (d *seatGiver) Release(room string) {
	if d.taken[room]--; d.taken[room] < 0 {
		d.t.Errorf("more seats of %q are given back than were taken", room)
	}
}

func (d *seatGiver) Force(room string, _, n int) { d.taken[room] += n }

// answer answers the earliest call for a seat of a room; without a call the test fails.
func (d *seatGiver) answer(room string, err error) {
	d.t.Helper()
	i := slices.IndexFunc(d.asked, func(r request) bool { return r.room == room })
	if i < 0 {
		d.t.Fatalf("no loop asks for a seat of %q", room)
	}
	r := d.asked[i]
	d.asked = slices.Delete(d.asked, i, i+1)
	if err == nil {
		d.taken[room]++
	}
	r.done(err)
}

// silentBus sends its entries nowhere.
type silentBus struct{}

func (silentBus) Append([]byte) error { return nil }
func (silentBus) Flush()              {}
func (silentBus) Up() bool            { return true }

func (silentBus) Confirm(context.Context) error { return nil }

func newSeatGiver(t *testing.T, change func(*Config)) (*script, *seatGiver) {
	w := newScript(t, func(c *Config) {
		c.MaxConnectionsPerRoom, c.AnnounceMembersMax = 10, -1
		if change != nil {
			change(c)
		}
	})
	d := &seatGiver{t: t, taken: map[string]int{}}
	w.server.Server.worker.Attach(membership.Membership{Instance: 7, Bus: silentBus{}, Seats: d})
	return w, d
}

func (w *script) welcome(loop int) *Conn {
	c := w.open(loop)
	w.expect(c, "connected reconnect_token")
	return c
}

// A join of a limited room waits for its seat, and what the client sends after it waits with it.
func TestJoinWaitsForASeat(t *testing.T) {
	w, d := newSeatGiver(t, nil)
	c := w.welcome(0)
	w.say(c, `{"type":"join","room":"r","ref":1}`)
	w.say(c, `{"type":"broadcast","room":"r","data":1,"ref":2}`)
	w.drain()
	w.expect(c, "")
	d.answer("r", nil)
	w.drain()
	if texts := w.expect(c, "joined broadcast_sent"); texts[0] != `{"type":"joined","room":"r","members":1,"ref":1}` {
		t.Error(texts)
	}
	w.say(c, `{"type":"join","room":"r"}`)
	w.drain()
	w.expect(c, "joined") // without asking
	w.say(c, `{"type":"leave","room":"r"}`)
	w.drain()
	w.expect(c, "left")
	if d.taken["r"] != 0 || len(d.asked) != 0 {
		t.Error("seats are left over:", d.taken, d.asked)
	}
}

// A client that is refused learns the reason; no room remains of the attempt, and the connection goes on.
func TestRefusedSeats(t *testing.T) {
	w, d := newSeatGiver(t, func(c *Config) { c.MaxRoomsPerConnection = 1 })
	c := w.welcome(0)
	for _, row := range []struct {
		err  error
		code string
	}{
		{ErrRoomFull, "room_full"}, {ErrUnavailable, "unavailable"}, {ErrOverloaded, "overloaded"}, {errors.New("?"), "unavailable"},
	} {
		w.say(c, `{"type":"join","room":"r","ref":"x"}`)
		w.say(c, `{"type":"ping"}`)
		d.answer("r", row.err)
		w.drain()
		texts := w.expect(c, "error pong")
		if !strings.Contains(texts[0], `"code":"`+row.code+`"`) || !strings.Contains(texts[0], `"ref":"x"`) {
			t.Error(texts)
		}
	}
	if w.server.Server.Rooms().Len() != 0 {
		t.Error("a room was made for who did not enter it")
	}
	w.say(c, `{"type":"join","room":"r"}`)
	d.answer("r", nil)
	w.drain()
	w.expect(c, "joined")
	w.say(c, `{"type":"join","room":"s"}`)
	w.drain()
	if texts := w.expect(c, "error"); !strings.Contains(texts[0], "too_many_rooms") {
		t.Error(texts)
	}
}

// A connection that ended, or whose answer was overdue, while it waited gives its seat back at once.
func TestSeatOfTheGone(t *testing.T) {
	w, d := newSeatGiver(t, nil)
	c := w.welcome(0)
	w.say(c, `{"type":"join","room":"r"}`)
	w.server.Gone(c)
	w.drain()
	d.answer("r", nil)
	w.drain()

	c = w.welcome(1)
	w.say(c, `{"type":"join","room":"r"}`)
	w.pass(40 * time.Second)
	if texts := w.read(c); !strings.Contains(strings.Join(texts, ""), `"code":"unavailable"`) {
		t.Error("an answer is overdue, and the client is told", texts)
	}
	d.answer("r", nil)
	w.drain()
	if d.taken["r"] != 0 || w.server.Server.Rooms().Len() != 0 {
		t.Error("the seat is kept for nobody:", d.taken)
	}
}

// Messages that were sent to a connection while it waited for its seat come before the answer, those of the room after it.
func TestNothingOvertakesASeat(t *testing.T) {
	w, d := newSeatGiver(t, nil)
	s := w.server.Server
	c := w.welcome(0)
	s.Emitter().On(EventRoomJoin, func(ev Event) { s.Broadcast(ev.Room, M{"type": "news"}) })
	w.say(c, `{"type":"join","room":"r"}`)
	w.say(c, `{"type":"ping"}`)
	d.answer("r", nil)
	c.Send(M{"type": "push"})
	w.drain()
	w.expect(c, "push joined pong news")
}

// The application's joins do not hold up the client's messages; a leave that overtakes one prevents it.
func TestJoinThen(t *testing.T) {
	w, d := newSeatGiver(t, func(c *Config) { c.MaxRoomsPerConnection = 2 })
	x := w.server.Server.Rooms()
	c := w.welcome(0)
	told := []error{}
	join := func(room string) { x.JoinThen(c, room, func(err error) { told = append(told, err) }) }
	expect := func(want ...error) {
		t.Helper()
		w.drain()
		if !slices.Equal(told, want) {
			t.Errorf("told %v, want %v", told, want)
		}
		told = told[:0]
	}
	join("r")
	w.say(c, `{"type":"ping"}`)
	w.drain()
	w.expect(c, "pong")
	expect()
	d.answer("r", nil)
	expect(nil)
	if !x.Has("r", c) {
		t.Error("it is not in")
	}
	join("r")
	expect(nil)
	join("s")
	join("s")
	expect(ErrTooManyRooms)
	d.answer("s", ErrRoomFull)
	expect(ErrRoomFull)
	join("s")
	w.drain()
	x.Leave(c, "s")
	w.drain()
	d.answer("s", nil)
	expect(ErrNotInRoom)
	join("s")
	w.drain()
	w.server.Gone(c)
	d.answer("s", nil)
	expect(ErrNotOpen)
	join("s")
	expect(ErrNotOpen)
	join("")
	w.drain()
	if len(told) != 1 || told[0] == nil {
		t.Error("a name that is none:", told)
	}
	if d.taken["r"] != 0 || d.taken["s"] != 0 || c.wire.RoomsTaken.Load() != 0 {
		t.Error("seats are left over:", d.taken, c.wire.RoomsTaken.Load())
	}
}

// Join answers as far as it knows.
func TestJoinOfASharedRoom(t *testing.T) {
	w, d := newSeatGiver(t, func(c *Config) { c.MaxConnectionsPerRoom = 1 })
	x := w.server.Server.Rooms()
	a, b := w.welcome(0), w.welcome(1)
	if err := x.Join(a, "r"); err != nil || x.Has("r", a) {
		t.Error("it is not in before it has its seat:", err)
	}
	w.drain()
	d.answer("r", nil)
	w.drain()
	if err := x.Join(b, "r"); err != ErrRoomFull || !x.Has("r", a) || len(d.asked) != 0 {
		t.Error("it is known here that there is no seat:", err)
	}
	if b.wire.RoomsTaken.Load() != 0 {
		t.Error("a seat is counted that is none")
	}
}

// A resuming connection waits for the seats of all its rooms. What is full is lost; where it is not known, nothing has
// happened, and the token stays good.
func TestResumeWaitsForSeats(t *testing.T) {
	w, d := newSeatGiver(t, nil)
	c := w.welcome(0)
	for _, room := range []string{"r", "s"} {
		w.say(c, `{"type":"join","room":"`+room+`"}`)
		d.answer(room, nil)
		w.drain()
	}
	token := w.token(c)
	w.server.Gone(c)
	w.drain()
	if d.taken["r"]+d.taken["s"] != 0 {
		t.Error("who has gone keeps seats:", d.taken)
	}
	resume := func(heir *Conn) { w.say(heir, `{"type":"reconnect","token":"`+token+`","ref":5}`) }

	first := w.welcome(1)
	resume(first)
	d.answer("r", nil)
	d.answer("s", ErrUnavailable)
	w.drain()
	if texts := w.expect(first, "error"); !strings.Contains(texts[0], "unavailable") || d.taken["r"] != 0 {
		t.Error(texts, d.taken)
	}
	second := w.welcome(1)
	resume(second)
	w.server.Gone(second)
	d.answer("s", ErrRoomFull)
	d.answer("r", nil)
	w.drain()
	if d.taken["r"] != 0 {
		t.Error("the claimant has gone, its seat is kept:", d.taken)
	}
	resume(first)
	w.say(first, `{"type":"ping"}`)
	d.answer("s", ErrRoomFull)
	d.answer("r", nil)
	first.Send(M{"type": "push"})
	w.drain()
	texts := w.expect(first, "push reconnected reconnect_token pong")
	if !strings.Contains(texts[1], `"rooms":["r"]`) || !strings.Contains(texts[1], `"lost":[{"room":"s","code":"room_full"}]`) {
		t.Error(texts[1])
	}
	w.say(first, `{"type":"leave","room":"r"}`)
	if d.taken["r"] != 0 {
		t.Error("seats are left over:", d.taken)
	}
}

// A take-over hands the seat on: it asks for none, and frees none in between.
func TestTakeOverHandsTheSeatOn(t *testing.T) {
	w, d := newSeatGiver(t, nil)
	c, heir := w.welcome(0), w.welcome(1)
	w.say(c, `{"type":"join","room":"r"}`)
	d.answer("r", nil)
	w.drain()
	w.say(heir, `{"type":"reconnect","token":"`+w.token(c)+`"}`)
	w.drain()
	if texts := w.expect(heir, "reconnected reconnect_token"); !strings.Contains(texts[0], `"rooms":["r"]`) {
		t.Error(texts)
	}
	if len(d.asked) != 0 || d.taken["r"] != 1 {
		t.Error("the heir asked for a seat, or the old one was freed:", d.asked, d.taken)
	}
	w.server.Gone(heir)
	w.drain()
	if d.taken["r"] != 0 {
		t.Error("seats are left over:", d.taken)
	}
}

// A worker whose connection is taken over on another one answers when its seats can be had there, and not before; they are
// given, not freed. A session without a connection has none.
func TestOwnerGivesTheSeats(t *testing.T) {
	w, d := newSeatGiver(t, nil)
	s := w.server.Server
	c, other := w.welcome(0), w.welcome(1)
	for _, at := range []*Conn{c, other} {
		for _, room := range []string{"r", "s"} {
			w.say(at, `{"type":"join","room":"`+room+`"}`)
			d.answer(room, nil)
			w.drain()
		}
		w.read(at)
	}
	s.sessions.Store = deadStore{}
	q := fleet.HandOverQuestion{Key: c.wire.Key().Hash, Heir: 9, Ticket: fanout.SeatTicket{1, 2, 3}}
	answers := [][]byte{}
	ask := func() { s.sessions.AnswerHandOver(q.AppendTo(nil), func(b []byte) { answers = append(answers, b) }) }
	ask()
	w.drain()
	if len(d.gifts) != 2 || len(answers) != 0 || d.taken["r"] != 2 || d.taken["s"] != 2 {
		t.Fatal("it does not wait for its gifts, or has freed what it gives:", d.gifts, answers, d.taken)
	}
	for i, g := range d.gifts {
		if len(answers) != 0 || g.to != 9 || g.ticket != q.Ticket {
			t.Error("gift", i, "is", g, answers)
		}
		g.done()
	}
	if len(answers) != 1 || len(answers[0]) == 0 || fleet.HandedOver(answers[0][0]) != fleet.HandedOverState {
		t.Fatal("it answers", answers)
	}
	if rooms := storedRooms(answers[0][1:]); !slices.Equal(rooms, []string{"r", "s"}) {
		t.Error("it hands over", rooms)
	}
	w.expect(c, "close 4004")
	if n := s.rooms.Index.FindString("r").Len(); n != 1 {
		t.Error(n, "are in")
	}
	ask()
	if w.drain(); len(answers) != 2 || !bytes.Equal(answers[1], answers[0]) || len(d.gifts) != 2 {
		t.Error("it does not keep what it has handed over until the store knows whose that is", answers)
	}
	for _, wrong := range [][]byte{nil, q.Key[:]} { // a longer one is of a later version
		s.sessions.AnswerHandOver(wrong, func(b []byte) {
			if fleet.HandedOver(b[0]) != fleet.HandedOverNothing {
				t.Error(b)
			}
		})
	}
}

// deadStore forgets.
type deadStore struct{ session.Store }

func (deadStore) Forget(session.Key) {}

// Rooms without a limit pay nothing for all this.
func TestUnlimitedRoomsNeedNoSeats(t *testing.T) {
	w, d := newSeatGiver(t, func(c *Config) { c.MaxConnectionsPerRoom = 0 })
	c := w.welcome(0)
	if w.say(c, `{"type":"join","room":"r"}`); len(w.expect(c, "joined")) != 1 || len(d.asked) != 0 {
		t.Error("asked for a seat")
	}
	alone := newScript(t, nil)
	other := alone.welcome(0)
	join, leave := []byte(`{"type":"join","room":"r"}`), []byte(`{"type":"leave","room":"r"}`)
	allocations := func(w *script, c *Conn) float64 {
		w.mute = true
		return testing.AllocsPerRun(200, func() {
			w.say(c, string(join))
			w.say(c, string(leave))
			w.drain()
		})
	}
	if raceEnabled {
		return // the race detector allocates
	}
	if here, there := allocations(w, c), allocations(alone, other); here > there+2 { // the count that others are told
		t.Errorf("%v allocations for a join and a leave, %v where there is one worker", here, there)
	}
}

// lossyStore notes what it is told of sessions.
type lossyStore struct {
	deadStore
	parks, forgotten []session.Key
}

func (x *lossyStore) Park(key session.Key, _ session.Value, _ time.Duration, _ func(error)) error {
	x.parks = append(x.parks, key)
	return nil
}

func (x *lossyStore) Forget(key session.Key) { x.forgotten = append(x.forgotten, key) }

// A store that has lost everything is not given a session that was handed over: its token has been used.
func TestLostStoreIsGivenNothingThatWasHandedOver(t *testing.T) {
	w, _ := newSeatGiver(t, nil)
	s := w.server.Server
	c := w.welcome(0)
	store := new(lossyStore)
	s.sessions.Store = store
	key := c.wire.Key().Hash
	s.sessions.AnswerHandOver(fleet.HandOverQuestion{Key: key, Heir: 9}.AppendTo(nil), func([]byte) {})
	w.drain()
	if s.sessions.Memory.Kept().Parked != 1 {
		t.Fatal("it does not keep what it has handed over until the store knows whose that is")
	}
	s.sessions.SaveSessions(func() {})
	w.drain()
	if s.sessions.Memory.Kept().Parked == 1 || !slices.Contains(store.forgotten, session.Key{Instance: s.link.Self, Hash: key}) {
		t.Error("it keeps a session that the store may have given away, and lost")
	}
	w.pass(5 * time.Second)
	if len(store.parks) != 0 {
		t.Error("it parks", store.parks)
	}
}
