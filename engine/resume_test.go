package engine

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/engine/internal/session"
)

// shelf is a store of sessions that takes everything, and says so at once.
type shelf struct{ session.Store }

// keep has the server use a store.
func (w *script) keep(store session.Store) { w.server.Server.sessions.KeepSessions(store) }

func (*shelf) Save(_ session.Key, _ session.Value, done func(error)) error {
	done(nil)
	return nil
}

func (*shelf) Drop(session.Key, func(error)) {}

func (*shelf) Forget(session.Key) {}

func (*shelf) Unclaim(session.Claim) {}

func (*shelf) Restore(session.Claim, session.Value, time.Duration) {}

// A client that was sent away with 4001 has no session any more, whatever the store still says: its owner tells another
// worker that has claimed it, before and after the connection has heard of it.
func TestSentAwayForGood(t *testing.T) {
	for _, claimedFirst := range []bool{false, true} {
		w, _ := newPeer(t, nil)
		s := w.server.Server
		w.keep(&shelf{})
		c := w.welcome(0)
		key := c.wire.Key()
		var answer []byte
		ask := func() {
			s.sessions.AnswerHandOver(fleet.HandOverQuestion{Key: key.Hash}.AppendTo(nil), func(b []byte) { answer = bytes.Clone(b) })
		}
		c.CloseWith(StatusUnauthorized, "")
		if !claimedFirst {
			w.drain()
		}
		ask()
		w.drain()
		if len(answer) != 1 || fleet.HandedOver(answer[0]) != fleet.HandedOverEnded {
			t.Errorf("claimed first: %v: the owner answers %v: the session can be resumed", claimedFirst, answer)
		}
	}
}

// counter is a store of sessions that gives the session that it has for every claim, and is slow to drop one.
type counter struct {
	shelf
	value []byte
	alive bool
	drops []func(error)
	of    []session.Key
}

func (x *counter) Claim(_ session.Claim, done func(session.Claimed, error)) error {
	done(session.Claimed{Value: x.value, OwnerAlive: x.alive}, nil)
	return nil
}

func (*counter) Spend(_ session.Claim, done func(error)) error {
	done(nil)
	return nil
}

func (x *counter) Drop(key session.Key, done func(error)) {
	x.of, x.drops = append(x.of, key), append(x.drops, done)
}

// A client that resumes is answered when the session that it had until then has ended in the store, too: else the store
// would give that session to the next client with its token if the worker died now. A store that is away delays the answer
// only for a while.
func TestOwnSessionEndsBeforeTheAnswer(t *testing.T) {
	for _, outcome := range []error{nil, session.ErrAway, session.ErrClaimed} {
		w, _ := newPeer(t, nil)
		s := w.server.Server
		store := &counter{}
		w.keep(store)
		store.value = storedSession(3, "", "r")
		c := w.welcome(0)
		own, began := c.wire.Key(), c.wire.Token()
		w.say(c, `{"type":"reconnect","token":"`+tokenOf(3)+`"}`)
		w.drain()
		w.expect(c, "")
		if len(store.drops) != 1 || store.of[0] != own {
			t.Fatal("dropped:", store.of)
		}
		store.drops[0](outcome)
		w.drain()
		if texts := w.expect(c, "reconnected reconnect_token"); strings.Contains(texts[1], began) {
			t.Error("the token is the old one:", texts)
		}
		if !s.sessions.Memory.Ended(own.Hash) {
			t.Error("its owner does not remember that the session has ended")
		}
		// A worker that is killed now must not leave a session with a token that is good again.
		if w.pass(50 * time.Millisecond); outcome == session.ErrClaimed {
			if store.drops[len(store.drops)-1](outcome); !slices.Contains(store.of[1:], own) {
				t.Error("the claim has ended, and the session is not dropped yet")
			}
			store.of = store.of[:1]
		}
		w.pass(session.SaveAgain + time.Second)
		if again := slices.Contains(store.of[1:], own); again != (outcome != nil) {
			t.Errorf("after %v it is dropped again: %v", outcome, again)
		}
	}
}

// A client that ends in between leaves no session that no client can resume, and no room that it is in.
func TestEndsBeforeTheAnswer(t *testing.T) {
	w, _ := newPeer(t, nil)
	s := w.server.Server
	store := &counter{value: storedSession(3, "", "r")}
	w.keep(store)
	c := w.welcome(0)
	w.say(c, `{"type":"reconnect","token":"`+tokenOf(3)+`"}`)
	w.drain()
	w.server.Gone(c)
	store.drops[0](nil)
	w.drain()
	if len(store.drops) != 2 || store.of[1] == store.of[0] {
		t.Error("the session that followed is not dropped:", store.of)
	}
	if n := s.Rooms().Len(); n != 0 {
		t.Error(n, "rooms are left")
	}
}

// held is a store that has a session which another connection has claimed, and refuses all claims.
type held struct{ shelf }

func (held) Claim(_ session.Claim, done func(session.Claimed, error)) error {
	done(session.Claimed{}, session.ErrClaimed)
	return nil
}

// A session that stays claimed may be put back: its client is told to try again, and keeps its token.
func TestClaimedSessionMayComeBack(t *testing.T) {
	w := newScript(t, nil)
	w.keep(&held{})
	c, other := w.open(0), w.open(1)
	w.read(c)
	token := other.wire.Token()
	w.say(c, `{"type":"reconnect","ref":1,"token":"`+token+`"}`)
	w.drain()
	if told := strings.Join(w.read(c), " "); !strings.Contains(told, `"unavailable"`) {
		t.Error("it is told", told)
	}
}
