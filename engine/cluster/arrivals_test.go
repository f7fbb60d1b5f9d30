package cluster

import (
	"bytes"
	"testing"
	"time"

	"github.com/parleyd/parley/engine/internal/order"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/rooms"
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

// While its stream cannot leave, the sequencer takes no more than its ring holds: what the ring drops would be lost for all.
func TestSequencerWaitsForItsStream(t *testing.T) {
	server, s, to := newBusProcess(t)
	if err := s.open(t.Context(), to); err != nil {
		t.Fatal(err)
	}
	defer s.link.Close()
	defer s.mail.Close()
	server.Close()
	body := bytes.Repeat([]byte("x"), 100_000)
	options := &rooms.HistoryOptions{Messages: 10, Bytes: 1 << 20, Age: time.Hour}
	for i := ident.Worker(1); i <= 7; i++ { // of whom each has 4 MiB under way
		f := order.NewFollower(order.FollowerOptions{Self: i, Floor: new(counter), Ring: func() {}, Clock: func() int64 { return 1 }})
		twin := order.NewSequencer(order.SequencerOptions{Term: 1, Say: func(entry []byte) { f.Hear(entry) }})
		hello := f.Outgoing(nil)
		s.in.add(arrival{from: i, batch: hello})
		if err := twin.Take(i, hello, 1); err != nil {
			t.Fatal(err)
		}
		for f.Submit(&order.Submission{}, &order.Message{Room: "r", Body: body, Options: options}) == nil {
		}
		for raw := f.Outgoing(nil); len(raw) > 0; raw = f.Outgoing(nil) {
			s.in.add(arrival{from: i, batch: raw})
		}
	}
	s.takeAll()
	if unsent := s.link.Unsent(); len(s.todo) == 0 || unsent < unsentBytesMax || unsent > unsentBytesMax+1<<20 || s.in.dropped.Load() > 0 {
		t.Errorf("%d arrivals are left, %d bytes have not left, %d were dropped", len(s.todo), unsent, s.in.dropped.Load())
	}
	before := len(s.todo)
	s.takeAll()
	if st := s.link.Stats(); len(s.todo) != before || st.BatchesOverrun > 0 {
		t.Errorf("%d arrivals were left, %d are; the ring has dropped %d batches", before, len(s.todo), st.BatchesOverrun)
	}
}
