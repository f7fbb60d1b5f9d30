package engine

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"
)

// shelf is a store of sessions that takes everything, and says so at once.
type shelf struct{ SessionStore }

// keep has the server use a store.
func (w *script) keep(store SessionStore) { w.server.Server.KeepSessions(store) }

func (*shelf) Save(_ SessionKey, _ SessionValue, done func(error)) error {
	done(nil)
	return nil
}

func (*shelf) Drop(SessionKey, func(error)) {}

func (*shelf) Forget(SessionKey) {}

func (*shelf) Unclaim(SessionClaim) {}

func (*shelf) Restore(SessionClaim, SessionValue, time.Duration) {}

// Who was sent away with 4001 has no session any more, whatever the store still says: another worker that has claimed it
// is told so by the owner, before and after the connection has heard of it.
func TestSentAwayForGood(t *testing.T) {
	for _, claimedFirst := range []bool{false, true} {
		w, _ := newPeer(t, nil)
		s := w.server.Server
		w.keep(&shelf{})
		c := w.welcome(0)
		key := s.keyOf(c.token)
		var answer []byte
		ask := func() {
			s.answerHandOver(handoverQuestion{key: key.Hash}.append(nil), func(b []byte) { answer = bytes.Clone(b) })
		}
		c.CloseWith(StatusUnauthorized, "")
		if !claimedFirst {
			w.drain()
		}
		ask()
		w.drain()
		if len(answer) != 1 || handoverKind(answer[0]) != handoverEnded {
			t.Errorf("claimed first: %v: the owner answers %v: the session can be resumed", claimedFirst, answer)
		}
	}
}

// counter is a store of sessions that gives everybody the session that it has, and is slow to drop one.
type counter struct {
	shelf
	value []byte
	drops []func(error)
	of    []SessionKey
}

func (x *counter) Claim(_ SessionClaim, done func(ClaimedSession, error)) error {
	done(ClaimedSession{Value: x.value}, nil)
	return nil
}

func (*counter) Spend(_ SessionClaim, done func(error)) error {
	done(nil)
	return nil
}

func (x *counter) Drop(key SessionKey, done func(error)) {
	x.of, x.drops = append(x.of, key), append(x.drops, done)
}

// A client that resumes is told so when the session that it had until then has ended for everybody: were its worker to
// die now, the store would give that to whoever shows its token. A store that is away holds nobody up for long.
func TestOwnSessionEndsBeforeTheAnswer(t *testing.T) {
	for _, outcome := range []error{nil, ErrSessionsAway, ErrSessionClaimed} {
		w, _ := newPeer(t, nil)
		s := w.server.Server
		store := &counter{}
		w.keep(store)
		store.value = (&parked{previous: place{Gen: 1}, instance: 3, rooms: []string{"r"}}).encode()
		c := w.welcome(0)
		own, began := s.keyOf(c.token), s.tokenText(c.token)
		w.say(c, `{"type":"reconnect","token":"`+s.tokenText(token{1})+`"}`)
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
		if !s.sessions.ended(own.Hash) {
			t.Error("its owner does not remember that the session has ended")
		}
		w.pass(saveAgain + time.Second)
		if again := slices.Contains(store.of[1:], own); again != (outcome != nil) {
			t.Errorf("after %v it is dropped again: %v", outcome, again)
		}
	}
}

// A client that ends in between leaves no session that nobody knows, and no room that it is in.
func TestEndsBeforeTheAnswer(t *testing.T) {
	w, _ := newPeer(t, nil)
	s := w.server.Server
	store := &counter{value: (&parked{previous: place{Gen: 1}, instance: 3, rooms: []string{"r"}}).encode()}
	w.keep(store)
	c := w.welcome(0)
	w.say(c, `{"type":"reconnect","token":"`+s.tokenText(token{1})+`"}`)
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

// held is a store that has a session which another connection has claimed, and gives it to nobody.
type held struct{ shelf }

func (held) Claim(_ SessionClaim, done func(ClaimedSession, error)) error {
	done(ClaimedSession{}, ErrSessionClaimed)
	return nil
}

// A session that stays claimed may be put back: its client is told to try again, and keeps its token.
func TestClaimedSessionMayComeBack(t *testing.T) {
	w := newScript(t, nil)
	w.keep(&held{})
	c, other := w.open(0), w.open(1)
	w.read(c)
	token := w.server.Server.tokenText(other.token)
	w.say(c, `{"type":"reconnect","ref":1,"token":"`+token+`"}`)
	w.drain()
	if told := strings.Join(w.read(c), " "); !strings.Contains(told, `"unavailable"`) {
		t.Error("it is told", told)
	}
}
