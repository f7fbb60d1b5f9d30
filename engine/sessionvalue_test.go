package engine

import (
	"bytes"
	"fmt"
	"reflect"
	"testing"
)

func fullSession() *parked {
	var attrs *attributes
	attrs = attrs.with(attribute{key: "name", value: []byte(`"ann"`)}).with(attribute{key: "empty", value: []byte{}}).
		with(attribute{key: "n", value: []byte("12")})
	return &parked{previous: place{Loop: 3, Slot: 70000, Gen: 1 << 47}, instance: 65535, principal: "ann",
		rooms: []string{"lobby", "a\"b", "room\u00e9"}, attrs: attrs, userData: &userData{raw: []byte(`{"user":"data"}`)}, attempts: 4, resumedAtMillis: 1_790_000_000_123}
}

// What is stored is what comes back.
func TestSessionValueRoundTrip(t *testing.T) {
	for _, p := range []*parked{{previous: place{Gen: 1}, instance: 1}, fullSession()} {
		got, err := decodeParked(p.encode())
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, p) {
			t.Errorf("got %+v, want %+v", got, p)
		}
	}
}

// A value that is cut, or longer than it should be, is refused whole, and never believed to hold more than it has.
func TestDamagedSessionValue(t *testing.T) {
	whole := fullSession().encode()
	for n := range whole {
		if _, err := decodeParked(whole[:n]); err == nil {
			t.Errorf("%d of %d bytes are taken for a session", n, len(whole))
		}
	}
	if _, err := decodeParked(append(bytes.Clone(whole), 0)); err == nil {
		t.Error("a byte too many goes unnoticed")
	}
	other := bytes.Clone(whole)
	other[0]++
	if _, err := decodeParked(other); err == nil {
		t.Error("another version is taken for this one")
	}
}

func FuzzSessionValue(f *testing.F) {
	f.Add([]byte{})
	f.Add(fullSession().encode())
	f.Fuzz(func(t *testing.T, value []byte) {
		p, err := decodeParked(value)
		if err != nil {
			return
		}
		again, err := decodeParked(p.encode())
		if err != nil || fmt.Sprint(again.rooms) != fmt.Sprint(p.rooms) || again.attempts != p.attempts {
			t.Errorf("%+v became %+v (%v)", p, again, err)
		}
	})
}

// A session's token says who began it; whatever else is no token.
func TestTokenNamesItsOwner(t *testing.T) {
	s, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	s.KeepSessions(noStore{})
	s.instance = 0xabcd
	var x token
	s.entropy(x[:])
	text := s.tokenText(x)
	if owner, ok := s.ownerOf([]byte(text)); !ok || owner != 0xabcd {
		t.Errorf("%q is said to be of %x, %v", text, owner, ok)
	}
	for _, wrong := range []string{"", text[:23], text + "A", text[:23] + "=", text[:23] + "\n", text[:22] + "\r\n", x.String()} {
		if _, ok := s.ownerOf([]byte(wrong)); ok {
			t.Errorf("%q is taken for a token", wrong)
		}
	}
}

// noStore is a store for a server that is never started.
type noStore struct{ SessionStore }
