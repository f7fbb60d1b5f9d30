package rooms

import (
	"fmt"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/parleyd/parley/protocol/ident"
)

// kept is the number of counts in the tables.
func (x *Index) kept() (n int) {
	for i := range x.shards {
		for _, s := range x.shards[i].elsewhere {
			n += len(s)
		}
	}
	return n
}

// A new room here has the counts that other workers told before, in whatever order rooms and counts came and went.
func TestElsewhereModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := NewIndex(1, Options{})
		p := at(0, 1)
		names := []string{"a", "b", "c"}
		told := map[ident.Worker]map[string]int32{1: {}, 2: {}}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			name := rapid.SampledFrom(names).Draw(t, "name")
			worker := rapid.SampledFrom([]ident.Worker{1, 2}).Draw(t, "worker")
			switch rapid.IntRange(0, 6).Draw(t, "step") {
			case 0, 1:
				n := rapid.Int32Range(0, 3).Draw(t, "n")
				if room := x.SetAway([]byte(name), worker, n); room != x.FindString(name) {
					t.Fatal("it returns", room)
				}
				told[worker][name] = n
			case 2:
				x.Enter([]byte(name), p, 1)
			case 3:
				if r := x.FindString(name); r != nil {
					x.Leave(r, p)
				}
			case 4:
				x.Bury(worker, func(*Room, Lost) {})
				told[worker] = map[string]int32{}
			case 5:
				x.Doubt(worker, func(r *Room) { r.SetAway(worker, told[worker][r.Name()]) })
				for _, other := range names { // and that worker tells all that it has
					x.SetAway([]byte(other), worker, told[worker][other])
				}
			case 6:
				x.Delete(name)
			}
			in := 0
			for _, name := range names {
				want := told[1][name] + told[2][name]
				if got := x.Away(name); got != int(want) {
					t.Fatalf("%s: %d are known elsewhere, %d are there", name, got, want)
				}
				if r := x.FindString(name); r != nil {
					in += len(r.remotes)
				}
			}
			shares := 0
			for _, of := range told {
				for _, n := range of {
					shares += min(int(n), 1)
				}
			}
			if got := int(x.elsewhere.Load()); got != x.kept() || got+in != shares {
				t.Fatalf("%d are counted, %d are in the tables and %d in rooms, of %d", got, x.kept(), in, shares)
			}
		}
	})
}

// A dead room that a new one has replaced hands its counts on, and takes none back.
func TestElsewhereOfTheDead(t *testing.T) {
	x := NewIndex(1, Options{})
	x.SetWorker(7)
	x.SetAway([]byte("r"), 5, 3)
	e, _ := x.Enter([]byte("r"), at(0, 1), 1)
	old := e.Room
	old.mu.Lock()
	old.dead = true // it goes, and is not out of the index yet
	old.mu.Unlock()
	x.SetAway([]byte("r"), 5, 4)
	e, _ = x.Enter([]byte("r"), at(0, 2), 1)
	x.drop(old)
	if e.Room == old || e.Room.Away() != 4 || x.kept() != 0 || x.Counted(false) != 0 {
		t.Errorf("the heir knows of %d, and %d are kept besides", e.Room.Away(), x.kept())
	}
}

// The tables are bounded, also while rooms come and go.
func TestElsewhereIsBounded(t *testing.T) {
	x := NewIndex(1, Options{})
	x.elsewhereMax = 100
	for i := range 300 {
		name := fmt.Appendf(nil, "room %d", i)
		x.SetAway(name, ident.Worker(1+i%2), 1)
		x.SetAway(name, ident.Worker(1+i%2), 2)
	}
	if x.kept() != 100 || x.elsewhere.Load() != 100 {
		t.Fatal(x.kept(), "are kept")
	}
	if x.Away("room 0") != 2 || x.Away("room 299") != 0 {
		t.Error("the first counts must stay, and one beyond the bound must be dropped")
	}
	x.SetAway([]byte("room 0"), 1, 0)
	x.SetAway([]byte("room 299"), 2, 5)
	if x.kept() != 100 || x.Away("room 299") != 5 {
		t.Error("a place that has become free is not used")
	}
	x.Bury(1, func(*Room, Lost) {})
	x.Bury(2, func(*Room, Lost) {})
	for i := range x.shards {
		if len(x.shards[i].elsewhere) > 0 {
			t.Fatal("a worker that is gone keeps a table")
		}
	}
}

// Counts that arrive while rooms come and go on several loops end in one place.
func TestElsewhereWhileRoomsVanish(t *testing.T) {
	x := NewIndex(4, Options{})
	var loops sync.WaitGroup
	for loop := range uint8(4) {
		loops.Go(func() {
			for i := range 2000 {
				name := fmt.Appendf(nil, "r%d", i%3)
				e, err := x.Enter(name, at(loop, 1), 1)
				if err != nil {
					t.Error(err)
					return
				}
				x.Leave(e.Room, at(loop, 1))
			}
		})
	}
	for i := range int32(2000) {
		for _, name := range []string{"r0", "r1", "r2"} {
			x.SetAway([]byte(name), 1, i)
		}
		x.Bury(2, func(*Room, Lost) {})
		x.SetAway([]byte("r0"), 2, i+1)
	}
	loops.Wait()
	for name, want := range map[string]int{"r0": 3999, "r1": 1999, "r2": 1999} {
		if got := x.Away(name); got != want {
			t.Errorf("%s: %d are known elsewhere, want %d", name, got, want)
		}
	}
	if x.kept() != 4 || x.elsewhere.Load() != 4 {
		t.Errorf("%d are in the tables, %d are counted, want 4", x.kept(), x.elsewhere.Load())
	}
}
