package fleet

import (
	"reflect"
	"testing"

	"github.com/parleyd/parley/protocol/ident"
)

// part is a question, an answer or a row.
type part interface {
	Read(r *Reader)
	AppendTo(b []byte) []byte
}

// byValue is a part that is written by value.
type byValue[T interface{ AppendTo([]byte) []byte }] struct {
	it   *T
	read func(*T, *Reader)
}

func (v byValue[T]) Read(r *Reader)           { v.read(v.it, r) }
func (v byValue[T]) AppendTo(b []byte) []byte { return (*v.it).AppendTo(b) }

// lists are pairs of an empty part of each type, and one with all fields set.
func lists() [][2]part {
	at := Address{Rooms: []string{"r"}, Ephemeral: true, Key: "k", Value: []byte("1"), Except: []ident.ID{{Worker: 1, Place: ident.Place{Gen: 4}}}}
	place := ident.Place{Loop: 1, Slot: 2, Gen: 3}
	return [][2]part{
		{byValue[NamesQuestion]{new(NamesQuestion), (*NamesQuestion).Read},
			byValue[NamesQuestion]{&NamesQuestion{7, "a", "b", 100}, nil}},
		{byValue[NamesPage]{new(NamesPage), (*NamesPage).Read}, byValue[NamesPage]{&NamesPage{true, 7, "a"}, nil}},
		{byValue[UserRow]{new(UserRow), (*UserRow).Read}, byValue[UserRow]{&UserRow{"ann", 3}, nil}},
		{byValue[TopRow]{new(TopRow), (*TopRow).Read}, byValue[TopRow]{&TopRow{1 << 40, place}, nil}},
		{byValue[AttributesChange]{new(AttributesChange), (*AttributesChange).Read},
			byValue[AttributesChange]{&AttributesChange{[]string{"k"}, [][]byte{[]byte("1")}, []string{"x"}, false}, nil}},
		{new(CloseQuestion), &CloseQuestion{at, 4007, "enough", true}},
		{new(ConnsQuestion), &ConnsQuestion{[]ident.ID{{Worker: 1, Place: place}}, "u", "r", "::1", "k", []byte("1"), 1, 2, 3}},
	}
}

// Each question, answer and row is read as it was written, and is damaged where it is cut short.
func TestLists(t *testing.T) {
	for _, pair := range lists() {
		raw := pair[1].AppendTo(nil)
		r := Reader{Rest: raw}
		if pair[0].Read(&r); r.Bad || len(r.Rest) > 0 || !reflect.DeepEqual(pair[0].AppendTo(nil), raw) {
			t.Errorf("%T: %v", pair[0], r)
		}
		for cut := range raw {
			r := Reader{Rest: raw[:cut]}
			if pair[0].Read(&r); !r.Bad {
				t.Errorf("%T: %d bytes of %d are taken", pair[0], cut, len(raw))
			}
		}
	}
}

// checkLists reads any bytes as each part: without a panic, and as it writes them.
func checkLists(t *testing.T, raw []byte) {
	for i, pair := range lists() {
		r := Reader{Rest: raw}
		if pair[0].Read(&r); r.Bad {
			continue
		}
		again := lists()[i][0]
		if again.Read(&Reader{Rest: pair[0].AppendTo(nil)}); !reflect.DeepEqual(pair[0].AppendTo(nil), again.AppendTo(nil)) {
			t.Fatalf("%T of %v is not the same again", again, raw)
		}
	}
}
