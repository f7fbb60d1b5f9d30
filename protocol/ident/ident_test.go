package ident

import (
	"math/rand/v2"
	"testing"
)

// An id that is written and read again names the same connection, and other texts are no ids.
func TestIDs(t *testing.T) {
	for range 1000 {
		id := ID{On(0, uint16(rand.Uint32())), Place{Loop: uint8(rand.Uint32()), Slot: rand.Uint32() & (SlotsMax - 1), Gen: rand.Uint64() & GenMax}}
		if got, ok := Parse(id.String()); !ok || got != id || len(id.String()) != TextBytes {
			t.Fatalf("%v became %s became %v", id, id.String(), got)
		}
	}
	for _, bad := range []string{"", "00", "g00000000000000000000000", "0000000000000000000000000"} {
		if _, ok := Parse(bad); ok {
			t.Errorf("%q passed", bad)
		}
	}
	id := ID{On(0, 0x1234), Place{Loop: 0x56, Slot: 0x789abc, Gen: 0xdef012345678}}
	if got := id.String(); got != "123456789abcdef012345678" {
		t.Error("the text of an id has changed, and clients hold old ones:", got)
	}
}

// A worker's name holds its node and its instance, and workers of node 0 are their instances.
func TestWorkers(t *testing.T) {
	if w := On(3, 9); w.Node() != 3 || w.Instance() != 9 {
		t.Error(w.Node(), w.Instance())
	}
	if On(0, 7) != 7 || On(0, 1<<16-1) >= On(1, 0) {
		t.Error("workers are not in the order of their nodes")
	}
}
