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

// pair is a follower and a sequencer, whose entries wait until the follower hears them.
type pair struct {
	t    *testing.T
	m    *member
	f    *Follower
	s    *Sequencer
	said [][]byte
}

// newPair makes a follower that is welcome, and has the room r.
func newPair(t *testing.T) *pair {
	w := &world{t: t, texts: map[string]string{}}
	p := &pair{t: t, m: &member{w: w, self: ident.On(0, 7), rooms: map[string]*copyOf{}, settled: map[*Submission]int{}}}
	p.f = NewFollower(FollowerOptions{Self: p.m.self, Floor: p.m, Ring: func() {}, Clock: func() int64 { return 1 }})
	p.s = NewSequencer(SequencerOptions{Term: 1, Linger: time.Hour, Now: 1,
		History: func(string) *rooms.HistoryOptions {
			return &rooms.HistoryOptions{Messages: 8, Bytes: 1 << 20, Age: time.Hour}
		},
		Epoch: func() string { return "e" }, Tell: func(ident.Worker, []byte) {},
		Say: func(entry []byte) { p.said = append(p.said, bytes.Clone(entry)) }})
	p.take(p.f.Outgoing(nil))
	p.hear(len(p.said))
	p.f.Prepare("r", nil, rooms.Since{}, func(error) {})
	p.take(p.f.Outgoing(nil))
	p.hear(len(p.said))
	return p
}

// take has the sequencer take a batch, if there is one.
func (p *pair) take(batch []byte) {
	p.t.Helper()
	if len(batch) == 0 {
		return
	}
	if err := p.s.Take(p.m.self, batch, 1); err != nil {
		p.t.Fatal(err)
	}
}

// hear has the follower hear the next entries.
func (p *pair) hear(n int) {
	p.t.Helper()
	for _, entry := range p.said[:n] {
		if err := p.f.Hear(entry); err != nil {
			p.t.Fatal(err)
		}
	}
	p.said = p.said[n:]
}

// A question that arrives once more, behind the leave, does not have the sequencer believe for ever that the room is needed.
func TestQuestionBehindItsLeave(t *testing.T) {
	p := newPair(t)
	p.f.Lost()
	question := p.f.Outgoing(nil)
	p.take(question)
	p.f.Leave("r")
	p.take(p.f.Outgoing(nil))
	p.take(question)
	if n := len(p.s.followers[p.m.self].rooms); n != 1 {
		t.Fatalf("the question has attached the follower to %d rooms", n)
	}
	p.hear(len(p.said))
	p.take(p.f.Outgoing(nil))
	if n := len(p.s.followers[p.m.self].rooms); n != 0 {
		t.Error("the sequencer believes that the room is needed")
	}
}

// Whoever comes back to a room is not judged by the answer to a question from before the leave.
func TestAnswerFromBeforeTheLeave(t *testing.T) {
	p := newPair(t)
	p.f.Lost()
	p.take(p.f.Outgoing(nil))
	early := len(p.said)
	p.f.Leave("r")
	delete(p.m.rooms, "r")
	if err := p.f.Submit(&Submission{}, &Message{Room: "r", Body: []byte(`{"by":"w","n":1`)}); err != nil {
		t.Fatal(err)
	}
	p.take(p.f.Outgoing(nil))
	calls := 0
	p.f.Prepare("r", nil, rooms.Since{Named: true, Position: rooms.Position{Seq: 1, Epoch: "e"}}, func(err error) {
		if at, _, _ := p.m.At("r"); err != nil || at.Seq != 1 {
			t.Errorf("judged at %+v: %v", at, err)
		}
		calls++
	})
	p.hear(early)
	if calls > 0 {
		t.Fatal("judged by the answer to an earlier question")
	}
	p.take(p.f.Outgoing(nil))
	p.hear(len(p.said))
	if calls != 1 {
		t.Errorf("%d answers", calls)
	}
}
