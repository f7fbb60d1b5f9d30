package order

import (
	"testing"
	"time"

	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/rooms"
)

// Any bytes in place of a batch, an entry or an answer do nothing worse than to be refused.
func FuzzOrder(f *testing.F) {
	var said, told, sent [][]byte
	now := int64(1)
	bounds := func(string) *rooms.HistoryOptions {
		return &rooms.HistoryOptions{Messages: 4, Bytes: 1000, Age: time.Hour}
	}
	newSequencer := func(term uint64, living ...ident.Worker) *Sequencer {
		return NewSequencer(SequencerOptions{Term: term, Linger: time.Hour, History: bounds, Living: living, Now: now,
			Epoch: func() string { return "e" }, Say: func(raw []byte) { said = append(said, append([]byte{}, raw...)) },
			Tell: func(_ ident.Worker, raw []byte) { told = append(told, raw) }})
	}
	newFollower := func() *Follower {
		return NewFollower(FollowerOptions{Self: 7, Floor: careless{}, Ring: func() {}, Clock: func() int64 { return now }})
	}
	// What two of them say to each other is what the fuzzer begins with.
	for term, s, x := uint64(1), newSequencer(1), newFollower(); term < 3; term++ {
		for round := range 20 {
			_ = x.Submit(&Submission{}, &Message{Room: "r", Body: []byte(`{"a":1`), Once: "k", Key: "c", Out: []ident.ID{{Worker: 7}}})
			x.Prepare("r", nil, rooms.Since{Last: 3}, func(error) {})
			if batch := x.Outgoing(nil); len(batch) > 0 {
				sent = append(sent, batch)
				_ = s.Take(7, batch, now)
			}
			for _, raw := range said {
				f.Add(byte(1), raw)
				_ = x.Hear(raw)
			}
			for _, raw := range told {
				f.Add(byte(2), raw)
				_ = x.Piece(raw)
			}
			said, told = nil, nil
			if now += int64(time.Second / 4); round == 10 {
				s = newSequencer(term+1, 7)
			}
			x.Tick()
			s.Tick(now)
		}
	}
	for _, raw := range sent {
		f.Add(byte(0), raw)
	}
	s, rebuilding, x, late := newSequencer(9), newSequencer(9, 7), newFollower(), newFollower()
	for _, raw := range sent {
		_ = s.Take(7, raw, now)
	}
	f.Fuzz(func(t *testing.T, kind byte, raw []byte) {
		now++
		said, told = nil, nil
		switch kind % 3 {
		case 0:
			_ = s.Take(7, raw, now)
			_ = rebuilding.Take(7, raw, now)
		case 1:
			_ = x.Hear(raw)
			_ = late.Hear(raw)
		default:
			_ = x.Piece(raw)
		}
		for _, one := range []*Follower{x, late} {
			one.Tick()
			for i := 0; len(one.Outgoing(nil)) > 0; i++ {
				if i > 100 {
					t.Fatal("there is no end of batches")
				}
			}
		}
		s.Tick(now)
		rebuilding.Tick(now)
	})
}

// careless is a floor without rooms.
type careless struct{}

func (careless) Begin(string, rooms.Position)                    {}
func (careless) Take(*Ordered)                                   {}
func (careless) TakeKept(string, *Kept)                          {}
func (careless) Skip(string, uint64)                             {}
func (careless) Fill(string, string, []Kept)                     {}
func (careless) Reset(string, rooms.Position)                    {}
func (careless) Keys(string) []rooms.KeyedNumber                 { return nil }
func (careless) TakeKeys(string, string, []rooms.KeyedNumber)    {}
func (careless) Kept(string, string, uint64, uint64) []Kept      { return nil }
func (careless) Settle(*Submission, Outcome)                     {}
func (careless) Count(ident.Worker, uint64, int)                 {}
func (careless) At(string) (at rooms.Position, _ uint64, _ bool) { return at, 0, true }
