package session

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"reflect"
	"testing"

	"github.com/parleyd/parley/engine/internal/fanout"
	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/protocol/ident"
)

func fullSession() *parked {
	var attrs *attributes
	attrs = attrs.with(attribute{key: "name", value: []byte(`"ann"`)}).with(attribute{key: "empty", value: []byte{}}).
		with(attribute{key: "n", value: []byte("12")})
	return &parked{previous: ident.Place{Loop: 3, Slot: 70000, Gen: 1 << 47}, instance: 65535, principal: "ann",
		rooms: []string{"lobby", "a\"b", "room\u00e9"}, attrs: attrs, userData: &userData{raw: []byte(`{"user":"data"}`)}, attempts: 4, resumedAtMillis: 1_790_000_000_123,
		line: lineage{ident.ID{Worker: 3, Place: ident.Place{Loop: 1, Slot: 2, Gen: 5}}, 7}}
}

// What is stored is what comes back.
func TestSessionValueRoundTrip(t *testing.T) {
	plain := fullSession()
	plain.line = lineage{}
	for _, p := range []*parked{{previous: ident.Place{Gen: 1}, instance: 1}, plain, fullSession()} {
		got, err := decodeParked(p.encode())
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, p) {
			t.Errorf("got %+v, want %+v", got, p)
		}
	}
}

// A session that has not been resumed has the form that earlier programs read; one that has been is refused without a beginning.
func TestLineageOfValues(t *testing.T) {
	p := fullSession()
	p.line = lineage{}
	if raw := p.encode(); raw[0] != 1 {
		t.Error("version", raw[0])
	}
	p.line = p.next()
	if p.line.generation != 2 || p.line.began != (ident.ID{Worker: p.instance, Place: p.previous}) {
		t.Error(p.line)
	}
	raw := p.encode()
	got, err := decodeParked(raw)
	if raw[0] != 2 || err != nil || got.next() != (lineage{p.line.began, 3}) {
		t.Error(raw[0], got, err)
	}
	for _, end := range [][]byte{{0, 1}, {0}, {0, 0}} {
		if _, err := decodeParked(append(raw[:len(raw)-18:len(raw)-18], end...)); err == nil {
			t.Errorf("%v is taken for a lineage", end)
		}
	}
	raw[len(raw)-1] = 0
	if _, err := decodeParked(raw); err == nil {
		t.Error("the generation 0 is taken")
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
		if err != nil || fmt.Sprint(again.rooms) != fmt.Sprint(p.rooms) || again.attempts != p.attempts || again.line != p.line {
			t.Errorf("%+v became %+v (%v)", p, again, err)
		}
	})
}

// With a store apart, a session's token names the worker that began it; any other text is no token.
func TestTokenNamesItsOwner(t *testing.T) {
	s := New(&fanout.Rooms{Link: fleet.NewLink(0xabcd, 1, fleet.Above{})}, Options{}, Above{})
	var x token
	rand.Read(x[:])
	unnamed := s.tokenText(x)
	s.KeepSessions(noStore{})
	text := s.tokenText(x)
	if owner, ok := s.ownerOf([]byte(text)); !ok || owner != 0xabcd {
		t.Errorf("%q is said to be of %x, %v", text, owner, ok)
	}
	for _, wrong := range []string{"", text[:23], text + "A", text[:23] + "=", text[:23] + "\n", text[:22] + "\r\n", unnamed} {
		if _, ok := s.ownerOf([]byte(wrong)); ok {
			t.Errorf("%q is taken for a token", wrong)
		}
	}
}

// noStore is a store for a server that is never started.
type noStore struct{ Store }
