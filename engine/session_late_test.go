package engine

import (
	"slices"
	"testing"
	"time"

	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/engine/internal/session"
)

// waiter is a store of sessions that says nothing of what it was given until it is told to.
type waiter struct {
	shelf
	given [][]string // rooms
	done  []func(error)
}

func (x *waiter) Save(_ session.Key, value session.Value, done func(error)) error {
	x.given, x.done = append(x.given, storedRooms(value.Bytes())), append(x.done, done)
	return nil
}

// answer tells all who wait.
func (x *waiter) answer(err error) {
	done := x.done
	x.done = nil
	for _, f := range done {
		f(err)
	}
}

func (x *waiter) rooms() []string { return x.given[len(x.given)-1] }

// A client that reads joined has that room back after kill -9, if it was told 50 ms ago: while the store is late it is told
// only what is stored. What cannot be stored in time has not happened.
func TestLateStoreIsWaitedFor(t *testing.T) {
	w, _ := newPeer(t, nil)
	l, store := w.server.Server.loops[0], &waiter{}
	w.keep(store)
	w.now = time.Second
	c := w.open(0)
	w.expect(c, "connected")
	store.answer(nil)
	w.drain()
	w.expect(c, "reconnect_token")

	// In time: a join is answered at once, and stored a little later.
	w.say(c, `{"type":"join","room":"quick"}`)
	w.expect(c, "joined")
	l.SaveChanged()
	w.now += 60 * time.Millisecond // and the store says nothing
	w.say(c, `{"type":"join","room":"late","ref":"1"}`)
	w.expect(c, "")
	if !slices.Equal(store.rooms(), []string{"quick", "late"}) {
		t.Fatal("what is stored before the answer:", store.rooms())
	}
	if got := w.server.Server.Stats().SessionUnsavedMillis; got != 61 {
		t.Error("the oldest change that is not stored is", got, "ms old, want 61: rounded up, and 0 where all is stored")
	}
	store.answer(nil)
	w.drain()
	w.expect(c, "joined")
	given := len(store.given)
	l.SaveChanged()
	if len(store.given) != given {
		t.Error("what was stored before the answer is stored once more after it")
	}

	// It stays late for a while. A leave waits, too, and nothing happens where it cannot be stored.
	l.SaveChanged()
	store.answer(nil)
	w.say(c, `{"type":"leave","room":"late"}`)
	w.expect(c, "")
	if !slices.Equal(store.rooms(), []string{"quick"}) {
		t.Fatal("what is stored before the answer:", store.rooms())
	}
	store.answer(session.ErrAway)
	w.drain()
	w.expect(c, "error")
	if !slices.Equal(c.Rooms(), []string{"quick", "late"}) {
		t.Error("after a leave that was refused it is in", c.Rooms())
	}
	w.say(c, `{"type":"join","room":"never"}`)
	store.answer(session.ErrAway)
	w.drain()
	w.expect(c, "error")
	l.SaveChanged()
	if !slices.Equal(store.rooms(), []string{"quick", "late"}) {
		t.Error("what is stored after a join that was refused:", store.rooms())
	}
	store.answer(nil)

	// A store that has been quick for a while counts as quick.
	w.now += time.Duration(session.LateFor) + time.Millisecond
	w.say(c, `{"type":"join","room":"quick again"}`)
	w.expect(c, "joined")
	s := w.server.Server.Stats()
	total := uint64(0)
	for _, n := range s.SessionSaves {
		total += n
	}
	if total != 4 || s.SessionSaves[4] != 1 || s.SessionSaveMicros < 60_000 {
		t.Error("counted:", s.SessionSaves, s.SessionSaveMicros)
	}
}

// A limited room's seat takes a while, in which other saves of the session may leave: what is stored before the answer
// stays stored, and a store that has become late meanwhile is waited for.
func TestLateStoreKeepsSeatedJoins(t *testing.T) {
	w, d := newSeatGiver(t, nil)
	l, store := w.server.Server.loops[0], &waiter{}
	w.keep(store)
	w.now = time.Second
	c := w.open(0)
	store.answer(nil)
	w.drain()
	w.expect(c, "connected reconnect_token")

	// Late already: stored, then seated, then told.
	w.server.Server.sessions.Late(l.Now)
	for _, refusal := range []error{nil, ErrRoomFull} {
		room := map[bool]string{true: "in", false: "full"}[refusal == nil]
		w.say(c, `{"type":"join","room":"`+room+`"}`)
		store.answer(nil)
		w.drain()
		l.SaveChanged()
		if !slices.Contains(store.rooms(), room) {
			t.Error("a save that leaves while a stored join waits for its seat forgets the room:", store.rooms())
		}
		store.answer(nil)
		d.answer(room, refusal)
		w.drain()
		if refusal == nil {
			w.expect(c, "joined")
		} else {
			w.expect(c, "error")
		}
		l.SaveChanged()
		if !slices.Equal(store.rooms(), []string{"in"}) {
			t.Error("stored after the answer:", store.rooms())
		}
		store.answer(nil)
	}

	// Late by the time that the seat is there.
	w.now += time.Duration(session.LateFor) + time.Millisecond
	for _, failure := range []error{nil, session.ErrAway} {
		w.say(c, `{"type":"join","room":"slow"}`)
		w.say(c, `{"type":"leave","room":"slow"}`)
		w.server.Server.sessions.Late(l.Now)
		d.answer("slow", nil)
		w.drain()
		w.expect(c, "")
		if !slices.Contains(store.rooms(), "slow") {
			t.Fatal("what is stored before the answer:", store.rooms())
		}
		store.answer(failure)
		w.drain()
		store.answer(nil) // the leave
		w.drain()
		if failure == nil {
			w.expect(c, "joined left")
		} else {
			w.expect(c, "error error")
		}
		if d.taken["slow"] != 0 || c.wire.RoomsTaken.Load() != 1 {
			t.Error("seats are left over:", d.taken, c.wire.RoomsTaken.Load())
		}
		l.SaveChanged()
		store.answer(nil)
		w.now += time.Duration(session.LateFor) + time.Millisecond
	}
}

// The first save of a session leaves at once. One that is not answered tells that the store is late, before any change has
// waited for long.
func TestFirstSavesTellThatTheStoreIsLate(t *testing.T) {
	w, _ := newPeer(t, nil)
	store := &waiter{}
	w.keep(store)
	w.now = time.Second
	c := w.open(0)
	store.answer(nil)
	w.drain()
	w.open(0)
	w.expect(c, "connected reconnect_token")
	w.now += time.Duration(session.SaveLate - session.SaveGathers)
	w.say(c, `{"type":"join","room":"quick"}`)
	w.expect(c, "joined")
	w.now += time.Millisecond
	w.say(c, `{"type":"join","room":"late"}`)
	w.expect(c, "")
	store.answer(nil)
	w.drain()
	w.expect(c, "joined")
}

// Moves that a client sends in one piece share a save while the store is late, and what becomes of it.
func TestLateStoreTakesMovesTogether(t *testing.T) {
	w, _ := newPeer(t, nil)
	l, store := w.server.Server.loops[0], &waiter{}
	w.keep(store)
	w.now = time.Second
	c := w.open(0)
	store.answer(nil)
	w.drain()
	w.expect(c, "connected reconnect_token")
	w.server.Server.sessions.Late(l.Now)
	for _, row := range []struct {
		leave   string
		becomes error // of what is stored together
		stored  []string
		answers string
		in      []string
	}{
		{"a", session.ErrAway, []string{"b", "d"}, "error error error pong error", []string{"a"}},
		{"never", nil, []string{"a", "b", "d"}, "joined error joined pong joined", []string{"a", "b", "d", "e"}},
	} {
		given := len(store.given)
		w.say(c, `{"type":"join","room":"a"}`)
		w.say(c, `{"type":"join","room":"b"}`)
		w.say(c, `{"type":"leave","room":"`+row.leave+`"}`)
		w.say(c, `{"type":"join","room":"d"}`)
		w.say(c, `{"type":"ping"}`)
		w.say(c, `{"type":"join","room":"e"}`)
		store.answer(nil)
		w.drain()
		w.expect(c, "joined")
		if !slices.Equal(store.rooms(), row.stored) {
			t.Error("stored together:", store.rooms(), "want", row.stored)
		}
		for range 2 {
			store.answer(row.becomes)
			w.drain()
		}
		w.expect(c, row.answers)
		if n := len(store.given) - given; n != 3 {
			t.Error(n, "saves for six messages, want 3")
		}
		l.SaveChanged()
		if !slices.Equal(c.Rooms(), row.in) || !slices.Equal(store.rooms(), row.in) {
			t.Error("it is in", c.Rooms(), "and stored as in", store.rooms(), "want", row.in)
		}
		store.answer(nil)
	}
}

// withheld is a store of sessions that refuses to park, such as one in which another worker's claim holds the session. It notes
// which sessions are dropped or forgotten.
//
// Owner: its test.
type withheld struct {
	shelf
	parks              int
	refusal            error
	dropped, forgotten []session.Key
}

func (x *withheld) Park(_ session.Key, _ session.Value, _ time.Duration, done func(error)) error {
	x.parks++
	done(x.refusal)
	return nil
}

func (x *withheld) Drop(key session.Key, done func(error)) {
	x.dropped = append(x.dropped, key)
	if done != nil {
		done(nil)
	}
}

func (x *withheld) Forget(key session.Key) { x.forgotten = append(x.forgotten, key) }

// A session that cannot be parked before its time is over, since another worker's claim holds it, is dropped from the store; one
// that this worker gave to a claimant is forgotten. When the store has lost its data, so is each one that another worker may have
// restored: it was handed over while its connection lived, or its parked state was, or the store said that a claim holds it.
func TestClaimOutlastsTheParkedSession(t *testing.T) {
	for _, fate := range []string{"expired", "claimed", "lost", "told and lost", "parked and lost"} {
		w, _ := newPeer(t, func(c *Config) { c.ReconnectionTTL = 3 * time.Second })
		s, store := w.server.Server, &withheld{refusal: session.ErrClaimed}
		w.keep(store)
		w.now = time.Second
		c := w.welcome(0)
		key := c.wire.Key()
		if fate == "lost" {
			s.sessions.AnswerHandOver(fleet.HandOverQuestion{Key: key.Hash}.AppendTo(nil), func([]byte) {})
		}
		if fate == "told and lost" {
			store.refusal = session.ErrAway // the store has said nothing
		}
		w.server.Gone(c)
		w.drain()
		switch fate {
		case "claimed":
			if s.sessions.Memory.Kept().Parked != 1 {
				t.Fatal("the parked state is not here")
			}
			s.sessions.Memory.Release(key.Hash)
		case "told and lost":
			s.sessions.AnswerHandOver(fleet.HandOverQuestion{Key: key.Hash}.AppendTo(nil), func([]byte) {})
			fallthrough
		case "lost", "parked and lost":
			s.sessions.SaveSessions(func() {})
		}
		w.pass(6 * time.Second)
		if drops := slices.Contains(store.dropped, key); drops != (fate == "expired") {
			t.Errorf("%s: after %d attempts to park it, the session is dropped: %v", fate, store.parks, drops)
		}
		if forgets := slices.Contains(store.forgotten, key); forgets != (fate != "expired") {
			t.Errorf("%s: after %d attempts to park it, the session is forgotten: %v", fate, store.parks, forgets)
		}
		if fate == "expired" && store.parks < 2 {
			t.Error("it was parked", store.parks, "times before its time was over")
		}
	}
}
