package engine

import (
	"encoding/base64"
	"encoding/binary"
	"slices"
	"strings"
	"testing"
)

// single is a store that gives one session to whoever claims any, and keeps what it is given in order.
type single struct {
	shelf
	value []byte
	saved [][]byte
}

func (s *single) Save(_ SessionKey, value SessionValue, done func(error)) error {
	s.saved = append(s.saved, value.Bytes())
	done(nil)
	return nil
}

func (s *single) Claim(_ SessionClaim, done func(ClaimedSession, error)) error {
	done(ClaimedSession{Value: s.value}, nil)
	return nil
}

func (s *single) Spend(_ SessionClaim, done func(error)) error {
	done(nil)
	return nil
}

func (s *single) Drop(_ SessionKey, done func(error)) {
	if done != nil {
		done(nil)
	}
}

// A room that is full when a session is resumed is lost: it is not in the session that follows either, not even in its
// first version, which is what is restored where the heir's worker is killed at once.
func TestLostRoomsAreNotStored(t *testing.T) {
	w, d := newDesk(t, nil)
	store := &single{value: (&parked{instance: 9, rooms: []string{"r", "s"}}).encode()}
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
	if next, err := decodeParked(store.saved[0]); err != nil || !slices.Equal(next.rooms, []string{"r"}) {
		t.Errorf("stored is %v: %v", next, err)
	}
}
