package rooms

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"
)

// check holds the invariants of an index at rest.
func check(t interface{ Fatalf(string, ...any) }, x *Index) {
	n := 0
	for i := range x.shards {
		for name, r := range x.shards[i].rooms {
			n++
			members := 0
			for loop := range r.rosters {
				s := r.rosters[loop].Load()
				if s == nil {
					continue
				}
				members += len(s.members)
				for at, m := range s.members {
					if got := s.position(m.Slot); got != at {
						t.Fatalf("room %q: slot %d is at %d, the table says %d", name, m.Slot, at, got)
					}
				}
			}
			if taken := int(r.taken.Load()); taken != members+len(r.held) {
				t.Fatalf("room %q: %d taken, %d members and %d held", name, taken, members, len(r.held))
			}
			if r.dead || r.taken.Load() == 0 && !r.explicit {
				t.Fatalf("room %q is dead or empty and still in the index", name)
			}
		}
	}
	if n != x.Len() {
		t.Fatalf("%d rooms, Len says %d", n, x.Len())
	}
}

func at(loop uint8, slot uint32) Place { return Place{Loop: loop, Slot: slot, Gen: uint64(slot) + 1} }

func TestEnterAndLeave(t *testing.T) {
	x := NewIndex(2, Options{MaxMembers: 2})
	a, b, c := at(0, 1), at(1, 1), at(0, 2)
	e, err := x.Enter([]byte("r"), a, 7)
	if err != nil || e.Members != 1 || e.Room.CreatedAt() != 7 || e.Already {
		t.Fatal(e, err)
	}
	if e, err := x.Enter([]byte("r"), b, 8); err != nil || e.Members != 2 {
		t.Fatal(e, err)
	}
	if _, err := x.Enter([]byte("r"), c, 8); err != ErrFull {
		t.Fatal(err)
	}
	if e, err := x.Enter([]byte("r"), a, 8); err != nil || !e.Already {
		t.Fatal("a full room refuses its own member:", e, err)
	}
	r := x.FindString("r")
	if r.Has(c) || !r.Has(a) || len(r.Members(nil)) != 2 {
		t.Fatal("wrong members")
	}
	late := a
	late.Gen++
	if left, _ := x.Leave(r, late); left {
		t.Fatal("a stale generation left")
	}
	for _, p := range []Place{a, b} {
		if left, _ := x.Leave(r, p); !left {
			t.Fatal("not left")
		}
	}
	if x.Len() != 0 || x.FindString("r") != nil {
		t.Fatal("the empty room stays")
	}
}

func TestCreateAndDelete(t *testing.T) {
	x := NewIndex(1, Options{})
	x.Enter([]byte("r"), at(0, 1), 1)
	x.Enter([]byte("r"), at(0, 2), 1)
	r, err := x.Create("r", CreateOptions{MaxMembers: 1, Metadata: []byte(`{"k":1}`), CreatedAt: 9})
	if err != nil || r.Len() != 2 || r.Limit() != 1 || string(r.Metadata()) != `{"k":1}` {
		t.Fatal("adopting:", err, r.Len(), r.Limit())
	}
	if _, err := x.Create("r", CreateOptions{}); err != ErrExists {
		t.Fatal(err)
	}
	x.Leave(r, at(0, 1))
	x.Leave(r, at(0, 2))
	if x.Len() != 1 {
		t.Fatal("a created room vanished")
	}
	x.Enter([]byte("r"), at(0, 3), 1)
	if _, ok := x.Delete("r"); !ok || x.Len() != 0 {
		t.Fatal("not deleted")
	}
	e, err := x.Enter([]byte("r"), at(0, 3), 1)
	if err != nil || e.Room == r || e.Already {
		t.Fatal("entering after a deletion is entering another room")
	}
	if left, _ := x.Leave(r, at(0, 3)); !left || x.Len() != 1 {
		t.Fatal("leaving the deleted room touched the new one")
	}
	check(t, x)
}

// post records what a publish does to mailboxes.
type post struct {
	refuse   int // the loop that has no place
	reserved map[uint8]int
	posted   map[uint8][]uint64
}

func newPost(refuse int) *post {
	return &post{refuse: refuse, reserved: map[uint8]int{}, posted: map[uint8][]uint64{}}
}
func (p *post) Reserve(l uint8) bool {
	if int(l) == p.refuse {
		return false
	}
	p.reserved[l]++
	return true
}
func (p *post) Cancel(l uint8) { p.reserved[l]-- }
func (p *post) Post(l uint8, seq uint64) {
	p.reserved[l]--
	p.posted[l] = append(p.posted[l], seq)
}

// A publish reaches every loop with members or held seats, or none.
func TestPublish(t *testing.T) {
	x := NewIndex(4, Options{})
	x.Enter([]byte("r"), at(0, 1), 1)
	x.Enter([]byte("r"), at(3, 1), 1)
	x.Hold([]byte("r"), at(2, 1), 1)
	r := x.FindString("r")
	p := newPost(3)
	if _, _, err := r.Publish(p); err != ErrOverloaded || len(p.posted) != 0 || r.seq != 3 || fmt.Sprint(p.reserved) != "map[0:0 2:0]" {
		t.Fatal("a refused publish left something behind:", err, p)
	}
	p = newPost(-1)
	if seq, members, err := r.Publish(p); seq != 4 || members != 3 || err != nil || fmt.Sprint(p.posted) != "map[0:[4] 2:[4] 3:[4]]" {
		t.Fatal(seq, members, err, p.posted)
	}
	e, _ := x.Enter([]byte("r"), at(0, 9), 1)
	if e.JoinSeq != 5 {
		t.Fatal("a newcomer would be given older messages:", e.JoinSeq)
	}
	if e, err := r.EnterHeld(at(2, 1)); err != nil || e.JoinSeq != 6 || r.Roster(2)[0].JoinSeq != 3 || e.Members != 4 {
		t.Fatal("a seat counts from when it was taken, its join from when it was filled:", e, err)
	}
	x.Enter([]byte("s"), at(0, 1), 1)
	list, seqs := []*Room{x.FindString("s"), r}, make([]uint64, 2)
	p = newPost(-1)
	if err := PublishAll(list, seqs, p); err != nil || fmt.Sprint(p.posted) != "map[0:[0] 2:[0] 3:[0]]" || list[0] != r || seqs[0] != 7 || seqs[1] != 2 {
		t.Fatal(err, p.posted, seqs)
	}
	p = newPost(-1)
	if err := r.Tell(p, 5); err != nil || r.seq != 7 || fmt.Sprint(p.posted) != "map[0:[5] 2:[5] 3:[5]]" {
		t.Fatal("telling a join takes no number of its own:", err, r.seq, p.posted)
	}
	p = newPost(2)
	if err := PublishAll(list, seqs, p); err != ErrOverloaded || r.seq != 7 || fmt.Sprint(p.reserved) != "map[0:0]" {
		t.Fatal(err, p)
	}
}

// machine drives an index and a naive model with the same steps.
func TestAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const loops, limit = 3, 4
		x := NewIndex(loops, Options{MaxMembers: limit})
		members, held := map[string]map[Place]*Room{}, map[string]map[Place]*Room{}
		names := []string{"a", "b"}
		for _, n := range names {
			members[n], held[n] = map[Place]*Room{}, map[Place]*Room{}
		}
		place := rapid.Custom(func(t *rapid.T) Place {
			return Place{Loop: rapid.Uint8Range(0, loops-1).Draw(t, "loop"), Slot: rapid.Uint32Range(0, 30).Draw(t, "slot"), Gen: 1}
		})
		pick := func() (string, Place) {
			return rapid.SampledFrom(names).Draw(t, "room"), place.Draw(t, "place")
		}
		t.Repeat(map[string]func(*rapid.T){
			"enter": func(t *rapid.T) {
				n, p := pick()
				full := len(members[n])+len(held[n]) >= limit && members[n][p] == nil && held[n][p] == nil
				e, err := x.Enter([]byte(n), p, 1)
				if (err == ErrFull) != full || err == nil && e.Already != (members[n][p] != nil) {
					t.Fatalf("enter %s %v: %+v %v, full=%v", n, p, e, err, full)
				}
				if err == nil {
					delete(held[n], p)
					members[n][p] = e.Room
				}
			},
			"hold": func(t *rapid.T) {
				n, p := pick()
				in := members[n][p] != nil || held[n][p] != nil
				h, err := x.Hold([]byte(n), p, 1)
				if in != h.Already || !in && (err == ErrFull) != (len(members[n])+len(held[n]) >= limit) {
					t.Fatalf("hold %s %v: %+v %v", n, p, h, err)
				}
				if err == nil && !in {
					held[n][p] = h.Room
				}
			},
			"enterHeld": func(t *rapid.T) {
				n, p := pick()
				r := held[n][p]
				if r == nil {
					t.Skip()
				}
				if e, err := r.EnterHeld(p); err != nil || e.Already {
					t.Fatalf("%+v %v", e, err)
				}
				delete(held[n], p)
				members[n][p] = r
			},
			"release": func(t *rapid.T) {
				n, p := pick()
				if r := held[n][p]; r != nil {
					x.Release(r, p)
					delete(held[n], p)
				}
			},
			"leave": func(t *rapid.T) {
				n, p := pick()
				r := x.FindString(n)
				if r == nil {
					t.Skip()
				}
				left, _ := x.Leave(r, p)
				if left != (members[n][p] != nil) {
					t.Fatalf("leave %s %v: %v", n, p, left)
				}
				delete(members[n], p)
			},
			"handover": func(t *rapid.T) {
				n, p := pick()
				_, to := pick()
				r := members[n][p]
				if r == nil || p == to {
					t.Skip()
				}
				if left, _ := x.Handover(r, p, to); !left {
					t.Fatalf("handover refused")
				}
				delete(members[n], p)
				if members[n][to] == nil {
					held[n][to] = r
				}
			},
			"": func(t *rapid.T) {
				for _, n := range names {
					r := x.FindString(n)
					if want := len(members[n]) + len(held[n]); want == 0 && r != nil || want > 0 && r.Len() != want || want > limit {
						t.Fatalf("room %s: want %d", n, want)
					}
				}
				check(t, x)
			},
		})
	})
}

// Members enter and leave on their loops, other goroutines hold and publish, an observer watches the limit: for -race.
func TestConcurrent(t *testing.T) {
	const loops, limit, rounds = 4, 5, 3000
	x := NewIndex(loops, Options{MaxMembers: limit})
	var stop atomic.Bool
	var watch, work sync.WaitGroup
	watch.Add(1)
	go func() {
		defer watch.Done()
		for !stop.Load() {
			if r := x.FindString("r"); r != nil && r.Len() > limit {
				t.Errorf("%d members, the limit is %d", r.Len(), limit)
			}
			x.Range(func(r *Room) bool { r.Members(nil); return true })
			runtime.Gosched()
		}
	}()
	for loop := range uint8(loops) {
		work.Add(1)
		go func() {
			defer work.Done()
			for i := range uint32(rounds) {
				p := Place{Loop: loop, Slot: i % 4, Gen: uint64(i) + 1}
				var e Entry
				var err error
				if i%3 == 0 {
					h, herr := x.Hold([]byte("r"), p, 1)
					if herr != nil {
						continue
					}
					e, err = h.Room.EnterHeld(p)
				} else {
					e, err = x.Enter([]byte("r"), p, 1)
				}
				if err != nil {
					continue
				}
				e.Room.Publish(newPost(-1))
				for _, m := range e.Room.Roster(loop) {
					if m.Slot > 3 {
						t.Errorf("slot %d", m.Slot)
					}
				}
				if left, _ := x.Leave(e.Room, p); !left {
					t.Errorf("a member could not leave")
				}
			}
		}()
	}
	work.Wait()
	stop.Store(true)
	watch.Wait()
	if x.Len() != 0 {
		t.Errorf("%d rooms are left", x.Len())
	}
}

// nothingPost is a mailbox without a bottom.
type nothingPost struct{}

func (nothingPost) Reserve(uint8) bool { return true }
func (nothingPost) Cancel(uint8)       {}
func (nothingPost) Post(uint8, uint64) {}

// Joins, leaves and publishes in a warm room allocate nothing.
func TestNoAllocation(t *testing.T) {
	x := NewIndex(2, Options{})
	for i := range uint32(100) {
		x.Enter([]byte("r"), at(0, i), 1)
	}
	name, p := []byte("r"), at(0, 500)
	if n := testing.AllocsPerRun(100, func() {
		r := x.Find(name)
		r.Has(p)
		r.Publish(nothingPost{})
		x.Enter(name, p, 1)
		x.Leave(r, p)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkPublish(b *testing.B) {
	for _, loops := range []int{1, 4} {
		b.Run(fmt.Sprintf("%dloops", loops), func(b *testing.B) {
			x := NewIndex(loops, Options{})
			for l := range loops {
				x.Enter([]byte("r"), at(uint8(l), 1), 1)
			}
			r := x.FindString("r")
			for b.Loop() {
				r.Publish(nothingPost{})
			}
		})
	}
}

func BenchmarkEnterLeave(b *testing.B) {
	for _, n := range []int{10, 1_000_000} {
		b.Run(fmt.Sprintf("%drooms", n), func(b *testing.B) {
			x := NewIndex(1, Options{})
			names := make([][]byte, n)
			for i := range names {
				names[i] = fmt.Appendf(nil, "room-%d", i)
				x.Enter(names[i], at(0, 1), 1)
			}
			i := 0
			for b.Loop() {
				i = (i + 7919) % n
				e, _ := x.Enter(names[i], at(0, 2), 1)
				x.Leave(e.Room, at(0, 2))
			}
		})
	}
}

// BenchmarkMemory reports the heap of rooms with one member, and of members in one room.
func BenchmarkMemory(b *testing.B) {
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	const n = 100_000
	for b.Loop() {
		before := heap()
		x := NewIndex(2, Options{})
		for i := range n {
			x.Enter(fmt.Appendf(nil, "room-%d", i), at(0, 1), 1)
		}
		rooms := heap()
		y := NewIndex(2, Options{})
		for i := range uint32(n) {
			y.Enter([]byte("r"), at(0, i), 1)
		}
		members := heap()
		b.ReportMetric(float64(rooms-before)/n, "B/room")
		b.ReportMetric(float64(members-rooms)/n, "B/member")
		runtime.KeepAlive(x)
		runtime.KeepAlive(y)
	}
}
