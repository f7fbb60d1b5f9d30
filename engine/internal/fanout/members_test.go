package fanout

import (
	"slices"
	"testing"

	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/rooms"
)

// A page that ends within a worker's answer is continued with the first member that it has no place for.
func TestPageEndsWithinAnAnswer(t *testing.T) {
	x := rooms.NewIndex(4, rooms.Options{})
	for i := range 40 {
		x.Enter([]byte("r"), ident.Place{Loop: uint8(i % 7 % 4), Slot: uint32(i), Gen: 1}, 1)
	}
	r := x.FindString("r")
	all := slices.Collect(r.Places())
	for size := 1; size <= len(all); size++ {
		var a membersAnswer
		var next rooms.Cursor
		a.Places, next, a.More = r.Page(nil, rooms.FirstPage, size)
		a.Next = fleet.Cursor(next)
		for n := range size + 1 {
			if n == size && !a.More {
				continue
			}
			if rest, _, _ := r.Page(nil, a.after(n), len(all)); !slices.Equal(rest, all[n:]) {
				t.Errorf("behind %d of %d members: %v", n, size, rest)
			}
		}
	}
}
