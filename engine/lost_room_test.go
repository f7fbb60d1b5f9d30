package engine

import (
	"encoding/base64"
	"encoding/binary"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/engine/internal/session"
)

// single is a store that gives one session for any claim, and keeps the values that it is given, in order.
type single struct {
	shelf
	value []byte
	saved [][]byte
}

func (s *single) Save(_ session.Key, value session.Value, done func(error)) error {
	s.saved = append(s.saved, value.Bytes())
	done(nil)
	return nil
}

func (s *single) Claim(_ session.Claim, done func(session.Claimed, error)) error {
	done(session.Claimed{Value: s.value}, nil)
	return nil
}

func (s *single) Spend(_ session.Claim, done func(error)) error {
	done(nil)
	return nil
}

func (s *single) Drop(_ session.Key, done func(error)) {
	if done != nil {
		done(nil)
	}
}

// A room that is full when a session is resumed is lost: it is not in the session that follows either, not even in its
// first version, which is what is restored where the heir's worker is killed at once.
func TestLostRoomsAreNotStored(t *testing.T) {
	w, d := newSeatGiver(t, nil)
	store := &single{value: storedSession(9, "", "r", "s")}
	w.keep(store)
	heir := w.welcome(0)
	raw := binary.BigEndian.AppendUint16(nil, 9)
	w.say(heir, `{"type":"reconnect","token":"`+base64.RawURLEncoding.EncodeToString(append(raw, make([]byte, 16)...))+`"}`)
	w.drain()
	store.saved = nil
	d.answer("r", nil)
	d.answer("s", ErrRoomFull)
	w.drain()
	if texts := w.expect(heir, "reconnected reconnect_token"); !strings.Contains(texts[0], `"lost":[{"room":"s","code":"room_full"}]`) {
		t.Fatal(texts)
	}
	if len(store.saved) == 0 {
		t.Fatal("nothing is stored")
	}
	if rooms := storedRooms(store.saved[0]); !slices.Equal(rooms, []string{"r"}) {
		t.Error("stored is", rooms)
	}
}

// forgetful is a store that gives one session to any claimant, and answers when it is told to.
type forgetful struct {
	waiter
	value []byte
	spent func(error)
}

func (x *forgetful) Claim(_ session.Claim, done func(session.Claimed, error)) error {
	done(session.Claimed{Value: x.value}, nil)
	return nil
}

func (x *forgetful) Spend(_ session.Claim, done func(error)) error {
	x.spent = done
	return nil
}

func (x *forgetful) Drop(_ session.Key, done func(error)) {
	if done != nil {
		done(nil)
	}
}

// The store loses its sessions in the middle of a resume, when it has stored the following session, which no connection has
// yet: the client gets its token when the session is stored once more.
func TestFollowingSessionOutlivesALoss(t *testing.T) {
	for _, lost := range []bool{false, true} {
		w, _ := newPeer(t, nil)
		store := &forgetful{value: storedSession(9, "")}
		w.keep(store)
		step := func(c *Conn, want string) {
			store.answer(nil)
			w.drain()
			w.expect(c, want)
		}
		heir := w.open(0)
		step(heir, "connected reconnect_token")
		raw := binary.BigEndian.AppendUint16(nil, 9)
		w.say(heir, `{"type":"reconnect","token":"`+base64.RawURLEncoding.EncodeToString(append(raw, make([]byte, 16)...))+`"}`)
		w.drain()
		step(heir, "")
		if lost {
			w.server.Server.sessions.SaveSessions(func() {})
			w.drain()
			store.answer(nil)
		}
		store.spent(nil)
		w.drain()
		if lost {
			w.expect(heir, "reconnected")
			step(heir, "reconnect_token")
		} else {
			w.expect(heir, "reconnected reconnect_token")
		}
	}
}

// A store that has lost its sessions is not given those that are on their way to an heir: it has lost the heir's claim, too, and
// their tokens would be valid a second time.
func TestClaimedSessionIsNotWrittenAnew(t *testing.T) {
	for _, claimed := range []bool{false, true} {
		w, _ := newPeer(t, nil)
		s, store := w.server.Server, &forgetful{}
		w.keep(store)
		s.On("work", func(*Conn, *Message, *Server) (any, error) { return nil, nil }, Offload())
		c := w.open(0)
		store.answer(nil)
		w.drain()
		w.say(c, `{"type":"work"}`)
		w.say(c, `{"type":"ping"}`) // the heir waits until it is carried out
		if claimed {
			s.sessions.AnswerHandOver(fleet.HandOverQuestion{Key: c.wire.Key().Hash}.AppendTo(nil), func([]byte) {})
			w.drain()
		}
		given := len(store.given)
		s.sessions.SaveSessions(func() {})
		w.drain()
		if again := len(store.given) > given; again == claimed {
			t.Errorf("claimed: %v; it is stored again: %v", claimed, again)
		}
	}
}

// busy is a store that refuses to save while it is busy.
type busy struct {
	shelf
	refusal error
}

func (x *busy) Save(key session.Key, value session.Value, done func(error)) error {
	if x.refusal != nil {
		return x.refusal
	}
	return x.shelf.Save(key, value, done)
}

// A worker has not saved all sessions again until the store has accepted each.
func TestBusyStoreIsGivenAllSessions(t *testing.T) {
	w, _ := newPeer(t, nil)
	store := &busy{}
	w.keep(store)
	for range 3 {
		w.open(0)
	}
	w.drain()
	store.refusal = session.ErrAway
	done := 0
	w.server.Server.sessions.SaveSessions(func() { done++ })
	w.pass(3 * time.Second)
	if done != 0 {
		t.Error("all are saved, and the store has refused them")
	}
	store.refusal = nil
	w.pass(2 * time.Second)
	if done != 1 {
		t.Error("all are saved:", done, "times")
	}
}

// The seat of a room that a resumed session may not enter any more is free again.
func TestForbiddenRoomsKeepNoSeat(t *testing.T) {
	w, d := newSeatGiver(t, nil)
	w.server.Server.SetPolicy(policyFunc(func(_ *Conn, _ Act, room string, _ bool) Decision {
		if room == "s" {
			return Decision{Refuse: &Error{Code: "forbidden"}}
		}
		return Decision{}
	}))
	w.keep(&single{value: storedSession(9, "", "r", "s")})
	heir := w.welcome(0)
	raw := binary.BigEndian.AppendUint16(nil, 9)
	w.say(heir, `{"type":"reconnect","token":"`+base64.RawURLEncoding.EncodeToString(append(raw, make([]byte, 16)...))+`"}`)
	w.drain()
	d.answer("r", nil)
	d.answer("s", nil)
	w.drain()
	if texts := w.expect(heir, "reconnected reconnect_token"); !strings.Contains(texts[0], `"lost":[{"room":"s","code":"forbidden"}]`) {
		t.Fatal(texts)
	}
	if d.taken["r"] != 1 || d.taken["s"] != 0 {
		t.Error("seats that are taken:", d.taken)
	}
}
