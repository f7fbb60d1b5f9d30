package rooms

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/parleyd/parley/protocol/message"
)

// silent posts nothing: it numbers messages of a room.
type silent struct {
	room   string
	refuse bool
}

func (s *silent) Reserve(uint8) bool { return !s.refuse }
func (s *silent) Cancel(uint8)       {}
func (s *silent) Post(uint8, uint64) {}
func (s *silent) Number(p Position) []byte {
	return message.AppendNumber(nil, []byte(`{"room":"`+s.room+`"`), p)
}

func historic(o HistoryOptions) (*Index, *Room) {
	epochs := 0
	x := NewIndex(2, Options{History: func(string) *HistoryOptions { return &o }, Linger: time.Minute, Epoch: func() string {
		epochs++
		return fmt.Sprint("e", epochs)
	}})
	return x, x.Make("r", 0)
}

// kept is one message of the model.
type kept struct {
	number uint64
	at     int64
	bytes  int
}

// model is a history as a list that is cut by each bound.
type model struct {
	HistoryOptions
	list []kept
	top  uint64
}

func (m *model) cut(now int64) {
	bytes := 0
	for _, k := range m.list {
		bytes += k.bytes
	}
	for len(m.list) > 0 && (len(m.list) > m.Messages || bytes > m.Bytes || now-m.list[0].at >= int64(m.Age)) {
		bytes -= m.list[0].bytes
		m.list = m.list[1:]
	}
}

// The ring keeps what a list keeps that is cut by each bound, whatever comes when, and counts it.
func FuzzHistory(f *testing.F) {
	f.Add([]byte{3, 20, 5, 1, 1, 1, 9, 1, 1})
	f.Add([]byte{1, 1, 1, 1, 200, 0, 1})
	f.Fuzz(func(t *testing.T, plan []byte) {
		if len(plan) < 3 {
			return
		}
		o := HistoryOptions{Messages: 1 + int(plan[0]%9), Bytes: 50 + 10*int(plan[1]), Age: time.Duration(1+plan[2]%20) * time.Millisecond}
		x, r := historic(o)
		h, m, now := r.History(), &model{HistoryOptions: o}, int64(time.Millisecond)
		for _, step := range plan[3:] {
			now += int64(step%4) * int64(time.Millisecond)
			if step%5 == 4 {
				x.SweepHistories(now, 1)
				m.cut(now)
			} else {
				p := &silent{room: string(make([]byte, step%64)), refuse: step%7 == 6}
				n, err := h.Publish(p, NumberedMessage{Now: now})
				if p.refuse != (err == ErrOverloaded) && r.taken.Load() > 0 {
					t.Fatal(err)
				}
				if err == nil {
					m.top++
					m.list = append(m.list, kept{m.top, now, len(p.Number(n.Position))})
					m.cut(now)
				}
			}
			got := h.Part(PartQuery{Limit: 100, BytesMax: 1 << 20}, now)
			m.cut(now)
			bytes := 0
			for _, k := range m.list {
				bytes += k.bytes
			}
			if got.Top != m.top || int(got.Top-got.Low)+1 != len(m.list) || len(got.Frames) != len(m.list) {
				t.Fatalf("%d to %d are kept, want %d", got.Low, got.Top, len(m.list))
			}
			for i, k := range m.list {
				if got.First+uint64(i) != k.number || len(got.Frames[i]) != k.bytes {
					t.Fatalf("message %d: %s", k.number, got.Frames[i])
				}
			}
			if c := x.HistoryCounts(); c.Messages != int64(len(m.list)) || c.Bytes != int64(bytes) {
				t.Fatalf("%+v is counted, want %d of %d bytes", c, len(m.list), bytes)
			}
		}
	})
}

// Keys count for five minutes, and as long as they are among the newest 4,096; the history need not have their messages.
func TestRecentKeys(t *testing.T) {
	x, r := historic(HistoryOptions{Messages: 1, Bytes: 1000, Age: time.Hour})
	h := r.History()
	publish := func(key string, now time.Duration) Numbered {
		t.Helper()
		n, err := h.Publish(&silent{}, NumberedMessage{Now: int64(now), Idempotency: x.Key("s", key)})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	publish("first", 0)
	for i := range keysMax - 1 {
		publish(fmt.Sprint(i), time.Second)
	}
	if n := publish("first", 299*time.Second); !n.Duplicate || n.Seq != 1 {
		t.Errorf("%+v", n)
	}
	if n := publish("first", 300*time.Second); n.Duplicate || n.Seq != keysMax+1 {
		t.Errorf("after five minutes: %+v", n)
	}
	publish("more", 300*time.Second)
	if n := publish("0", 300*time.Second); n.Duplicate {
		t.Error("a key beyond the newest 4,096 counts")
	}
	if x.Key("a", "bc") == x.Key("ab", "c") {
		t.Error("the scope and the key run into each other")
	}
	x.Delete("r")
	if n := x.HistoryBytes(); n != 0 {
		t.Errorf("%d bytes are left", n)
	}
}

// The stand of each member follows it through the roster, whatever joins and leaves.
func TestStandsFollowMembers(t *testing.T) {
	x, r := historic(HistoryOptions{Messages: 10, Bytes: 1000, Age: time.Hour})
	h := r.History()
	base := map[Place]uint64{}
	for i := range uint32(100) {
		p := at(0, i)
		e, err := x.Enter([]byte("r"), p, 0)
		if err != nil {
			t.Fatal(err)
		}
		base[p] = e.Base
		if _, err := h.Publish(&silent{}, NumberedMessage{Now: 1}); err != nil {
			t.Fatal(err)
		}
		if i%3 == 0 {
			gone := at(0, i/2)
			if left, _ := x.Leave(r, gone); left {
				delete(base, gone)
			}
		}
		for p, want := range base {
			if k, ok := h.KnownOf(p); !ok || k.Base.Seq != want {
				t.Fatalf("member %v is at %+v, want %d", p, k, want)
			}
		}
		if len(h.Stands(0)) != len(r.Roster(0)) {
			t.Fatal(len(h.Stands(0)), "stands of", len(r.Roster(0)))
		}
	}
}

// A room made by hand may have bounds of its own, or none although the setting names it; a history that has begun goes on.
func TestHistoryOfCreatedRooms(t *testing.T) {
	x, old := historic(HistoryOptions{Messages: 5, Bytes: 1000, Age: time.Hour})
	made, err := x.Create("none", CreateOptions{History: &HistoryOptions{Messages: -1}})
	if err != nil || made.History() != nil {
		t.Error(err, "a room without history has one")
	}
	x.SweepHistories(1, 10)
	if _, err := old.History().Publish(&silent{}, NumberedMessage{Now: 1}); err != nil {
		t.Fatal(err)
	}
	if _, err := x.Create("r", CreateOptions{History: &HistoryOptions{Messages: -1}}); err != nil || old.History() == nil {
		t.Error(err, "a history that has begun ended")
	}
	if n := x.HistoryCounts(); n.Rooms != 1 {
		t.Errorf("%+v", n)
	}
	if !slices.Contains(DroppedCauses[:], "memory") {
		t.Error(DroppedCauses)
	}
}

// A member from a held seat begins at the top: its loop may have opened a letter for the room before the member entered.
func TestHistoryHeldSeat(t *testing.T) {
	x, r := historic(HistoryOptions{Messages: 10, Bytes: 1000, Age: time.Hour})
	p := Place{Loop: 0, Slot: 1, Gen: 1}
	if _, err := x.Hold([]byte("r"), p, 0); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := r.History().Publish(&silent{room: "r"}, NumberedMessage{Now: 1}); err != nil {
			t.Fatal(err)
		}
	}
	if e, err := r.EnterHeld(p); err != nil || e.Position() != (Position{Seq: 2, Epoch: "e1"}) {
		t.Errorf("it begins at %+v, want 2 (%v)", e.Position(), err)
	}
}
