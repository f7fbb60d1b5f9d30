package cluster

import (
	"testing"

	"github.com/parleyd/parley/protocol/ident"
)

// What arrives is taken in its order. Batches beyond the bound are dropped, and counted; deaths never are.
func TestArrivalsAreBounded(t *testing.T) {
	a := arrivals{wake: make(chan struct{}, 1)}
	quarter := make([]byte, batchesBytesMax/4)
	for i := range ident.Worker(6) {
		a.add(arrival{from: i, batch: quarter})
	}
	a.add(arrival{from: 6, dead: true})
	list := a.take()
	if len(list) != 5 || a.dropped.Load() != 2 || !list[4].dead {
		t.Fatalf("%d are taken and %d dropped, want 5 and 2", len(list), a.dropped.Load())
	}
	for i, x := range list[:4] {
		if x.from != ident.Worker(i) {
			t.Errorf("the batch of %d is in place %d", x.from, i)
		}
	}
	<-a.wake
	a.add(arrival{from: 1, batch: quarter})
	if list = a.take(); len(list) != 1 || a.dropped.Load() != 2 {
		t.Error("there is no space again")
	}
}
