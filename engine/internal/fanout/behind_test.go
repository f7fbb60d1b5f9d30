package fanout

import (
	"slices"
	"testing"

	"github.com/parleyd/parley/rooms"
)

// An answer whose letter was still on its way, when the connection fell behind, is owed in front of those to later messages.
func TestOwedInOrder(t *testing.T) {
	var g lag
	for _, number := range []uint64{2, 1, 4, 3, 5} {
		g.owe(rooms.Position{Seq: number}, nil)
	}
	var got []uint64
	for _, x := range g.owed {
		got = append(got, x.Seq)
	}
	if !slices.IsSorted(got) || len(got) != 5 {
		t.Error(got)
	}
}
