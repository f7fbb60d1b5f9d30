package fleet

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/protocol/frame"
	"github.com/parleyd/parley/protocol/ident"
)

const self ident.Worker = 7

// one is an entry of each kind, with all fields set.
func one(kind Kind) *Entry {
	return &Entry{
		Kind: kind, Room: "r", Rooms: []string{"r", "s"}, Key: "k",
		Conns: []ident.ID{{Worker: self, Place: ident.Place{Loop: 1, Slot: 2, Gen: 3}}, {Worker: 9, Place: ident.Place{Gen: 1 << 47}}},
		Frame: frame.Append(nil, ws.OpText, bytes.Repeat([]byte("x"), 200)),
		Users: []string{"ann", ""},
		Body: Body{Payload: []byte("p"), Number: 1 << 40, Verb: Members, Members: 5, Asks: AsksAnyway, On: true, Loop: 3,
			Events: 31, Figures: FigureSet{1, 2, 3, 4, 5, 6}},
	}
}

// again writes an entry that was read.
func again(h Heard) []byte {
	e := Entry{Kind: h.Kind, Room: string(h.Room), Key: string(h.Key), Frame: h.Frame, Users: h.Users, Body: h.Body}
	for _, name := range h.Rooms {
		e.Rooms = append(e.Rooms, string(name))
	}
	for i := range h.Conns.Len() {
		e.Conns = append(e.Conns, h.Conns.At(i))
	}
	return Append(nil, &e)
}

// Each kind has a name, and is read as it was written. Cut short, or followed by a byte, it is damaged.
func TestKinds(t *testing.T) {
	names := map[string]bool{}
	for kind := Skipped + 1; kind < KindsEnd; kind++ {
		if names[kind.String()] || kind.String() == "" {
			t.Errorf("kind %d is called %q", kind, kind)
		}
		names[kind.String()] = true
		raw := Append(nil, one(kind))
		h, err := Decode(raw, self)
		if err != nil || h.Kind != kind || h.Newer || !bytes.Equal(again(h), raw) {
			t.Errorf("%s: %v %v", kind, h, err)
		}
		e := one(kind)
		e.Users = nil
		older := len(Append(nil, e)) // where a field that older versions do not write begins, if the kind has one
		for cut := range raw {
			if _, err := Decode(raw[:cut], self); err == nil && cut != older {
				t.Errorf("%s: %d bytes of %d are taken", kind, cut, len(raw))
			}
		}
		if _, err := Decode(append(raw, 0), self); err == nil {
			t.Errorf("%s: a byte behind it is taken", kind)
		}
	}
}

// The method that the table names for a kind exists.
func TestHandlers(t *testing.T) {
	var paths []string
	for _, pattern := range []string{filepath.Join("..", "..", "*.go"), filepath.Join("..", "*", "*.go")} {
		list, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, list...)
	}
	var engine []byte
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		engine = append(engine, text...)
	}
	for kind := Skipped + 1; kind < KindsEnd; kind++ {
		if method := ") " + kinds[kind].handler + "("; !bytes.Contains(engine, []byte(method)) {
			t.Errorf("%s: no floor has %q", kind, method)
		}
	}
}

// The kinds and fields of a newer version are skipped, and Newer is set.
func TestNewerVersions(t *testing.T) {
	for kind := Skipped + 1; kind < KindsEnd; kind++ {
		raw := append(Append(nil, one(kind)), "what this version does not know"...)
		raw[0] = Version + 1
		h, err := Decode(raw, self)
		if err != nil || h.Kind != kind || !h.Newer {
			t.Errorf("%s with a further field: %v %v", kind, h, err)
		}
		h.Newer = false
		plain, _ := Decode(Append(nil, one(kind)), self)
		if !reflect.DeepEqual(h, plain) {
			t.Errorf("%s: the fields that are known differ", kind)
		}
	}
	unknown := []byte{Version + 1, byte(KindsEnd), 0, 0, 1, 2, 3}
	if h, err := Decode(unknown, self); err != nil || h.Kind != Skipped || !h.Newer {
		t.Error("a kind of a newer version:", h, err)
	}
	unknown[0] = Version
	if _, err := Decode(unknown, self); err != ErrEntry {
		t.Error("a kind that no version knows:", err)
	}
}

// A field of a later version is zero in an older entry.
func TestOlderVersions(t *testing.T) {
	var h Heard
	r := Reader{Rest: new(Writer).Text("r").B}
	if h.read(&r, []field{fieldRoom, fieldMembers | appended}); r.Bad || string(h.Room) != "r" || h.Members != 0 {
		t.Error(h, r.Bad)
	}
	r = Reader{Rest: new(Writer).Text("r").Number(4).B}
	if h.read(&r, []field{fieldRoom, fieldMembers | appended}); r.Bad || h.Members != 4 {
		t.Error(h, r.Bad)
	}
	if _, err := Decode([]byte{byte(Publish), 0, 7, 1, 'r'}, self); err != ErrEntry {
		t.Error("an entry without a version:", err)
	}
}

// An entry for another worker is skipped, whatever its bytes.
func TestTargets(t *testing.T) {
	e := one(Direct)
	for target, want := range map[ident.Worker]Kind{0: Direct, self: Direct, 8: Skipped} {
		e.Target = target
		if h, err := Decode(Append(nil, e), self); err != nil || h.Kind != want || h.Newer {
			t.Errorf("for %d: %v %v", target, h, err)
		}
	}
}

// An entry that was read from any bytes is written and read again without a change, and payloads are read without a panic.
func FuzzDecode(f *testing.F) {
	for kind := Skipped + 1; kind < KindsEnd; kind++ {
		f.Add(Append(nil, one(kind)))
	}
	f.Add([]byte{Version + 1, byte(KindsEnd), 0, 0, 1})
	f.Fuzz(func(t *testing.T, raw []byte) {
		h, err := Decode(raw, self)
		if err == nil && h.Kind != Skipped {
			back, err := Decode(again(h), self)
			h.Newer = false
			if err != nil || !reflect.DeepEqual(h, back) {
				t.Fatalf("%+v became %+v, %v", h, back, err)
			}
		}
		r := Reader{Rest: raw}
		var members MembersQuestion
		members.Read(&r)
		if !r.Bad && members.Max >= 0 {
			var same MembersQuestion
			if same.Read(&Reader{Rest: members.AppendTo(nil)}); !reflect.DeepEqual(members, same) {
				t.Fatalf("%+v became %+v", members, same)
			}
		}
		var find FindQuestion
		find.Read(&Reader{Rest: raw})
		var row RoomRow
		row.Read(&Reader{Rest: raw})
		new(MembersPage).Read(&Reader{Rest: raw})
		var address, readdress Address
		a := Reader{Rest: raw}
		if address.Read(&a); !a.Bad {
			if readdress.Read(&Reader{Rest: address.AppendTo(nil)}); !reflect.DeepEqual(address, readdress) {
				t.Fatalf("%+v became %+v", address, readdress)
			}
		}
		checkLists(t, raw)
		if q, ok := ReadHandOver(raw); ok && !bytes.HasPrefix(raw, q.AppendTo(nil)) {
			t.Fatalf("%v became %v", raw, q)
		}
	})
}

// Entries are written and read without an allocation.
func TestNoAllocations(t *testing.T) {
	buf, e := make([]byte, 0, 1024), one(Publish)
	n := testing.AllocsPerRun(100, func() {
		buf = Append(buf[:0], e)
		if h, err := Decode(buf, 3); err != nil || h.Kind != Publish {
			t.Error(h.Kind, err)
		}
	})
	if n != 0 {
		t.Error(n, "allocations")
	}
}
