package order

import (
	"bytes"
	"testing"
	"time"

	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/rooms"
)

// A batch is within the bound, or one message: a large one leaves alone, since the bus takes no message much larger than it.
func TestBatchesAreBounded(t *testing.T) {
	now := int64(1)
	f := NewFollower(FollowerOptions{Self: ident.On(0, 7), Floor: &member{}, Ring: func() {}, Clock: func() int64 { return now }})
	s := NewSequencer(SequencerOptions{Term: 1, Linger: time.Hour, History: func(string) *rooms.HistoryOptions { return nil },
		Epoch: func() string { return "e" }, Tell: func(ident.Worker, []byte) {}, Say: func(entry []byte) {
			if err := f.Hear(entry); err != nil {
				t.Error(err)
			}
		}})
	if err := s.Take(7, f.Outgoing(nil), now); err != nil {
		t.Fatal(err)
	}
	const large = 8 << 20
	for _, size := range []int{100 << 10, 100 << 10, large} {
		if err := f.Submit(&Submission{}, &Message{Room: "r", Body: bytes.Repeat([]byte("x"), size)}); err != nil {
			t.Fatal(err)
		}
	}
	var sizes []int
	for raw := f.Outgoing(nil); len(raw) > 0; raw = f.Outgoing(nil) {
		sizes = append(sizes, len(raw)/1000)
	}
	if len(sizes) != 2 || sizes[0] != 204 || sizes[1] != large/1000 {
		t.Errorf("batches of %d kB", sizes)
	}
}

// Count is of [Floor].
func (m *member) Count(ident.Worker, uint64, int) {}
