package lists

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"testing"
)

const shards = 16

func shardOf(name string) int {
	h := fnv.New32a()
	h.Write([]byte(name))
	return int(h.Sum32() % shards)
}

type row struct {
	name string
	n    int
}

func placeOf(r *row) Place { return Place{shardOf(r.name), r.name} }

// listed is what one worker lists behind a place: up to most rows, and sometimes fewer.
func listed(rows []row, from Place, most int) (p Part[row]) {
	for i := range rows {
		if at := placeOf(&rows[i]); at.Compare(from) > 0 {
			if len(p.Rows) == most {
				p.More, p.Until = true, placeOf(&p.Rows[most-1])
				return p
			}
			p.Rows = append(p.Rows, rows[i])
		}
	}
	return p
}

// The pages of several workers have each name once, with the sum of all workers, whatever the sizes of their parts.
func TestMerge(t *testing.T) {
	for seed := range uint64(50) {
		dice := rand.New(rand.NewPCG(seed, 7))
		workers, want := make([][]row, 1+dice.IntN(4)), map[string]int{}
		for i := range workers {
			for n := range 60 {
				if dice.IntN(2) == 0 {
					one := row{fmt.Sprint("name-", n), 1 + dice.IntN(5)}
					workers[i] = append(workers[i], one)
					want[one.name] += one.n
				}
			}
			slices.SortFunc(workers[i], func(a, b row) int { return placeOf(&a).Compare(placeOf(&b)) })
		}
		limit, got, before := 1+dice.IntN(20), map[string]int{}, Place{}
		for more := true; more; {
			var parts []Part[row]
			for _, rows := range workers {
				parts = append(parts, listed(rows, before, 1+dice.IntN(limit)))
			}
			page := Merge(parts, limit, placeOf, func(sum, r *row) { sum.n += r.n })
			if len(page.Rows) > limit || page.More && page.Next.Compare(before) <= 0 {
				t.Fatalf("seed %d: %+v after %v", seed, page, before)
			}
			for _, r := range page.Rows {
				if got[r.name] != 0 {
					t.Fatalf("seed %d: %s is on two pages", seed, r.name)
				}
				got[r.name] = r.n
			}
			before, more = page.Next, page.More
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("seed %d:\n%v, want\n%v", seed, got, want)
		}
	}
}

// A worker that looked through names without finding one moves the page on.
func TestMergeOfNothing(t *testing.T) {
	page := Merge([]Part[row]{{More: true, Until: Place{Shard: 3}}, {More: true, Until: Place{Shard: 5}}}, 10, placeOf, nil)
	if len(page.Rows) != 0 || !page.More || page.Next != (Place{Shard: 3}) {
		t.Errorf("%+v", page)
	}
}

// A cursor is read as it was written, and any other text is refused.
func TestCursors(t *testing.T) {
	for _, p := range []Place{{}, {Shard: shards - 1}, {shardOf("ann"), "ann"}, {shardOf("\x00é"), "\x00é"}} {
		got, err := Users.Place(Users.Cursor(p), shards, shardOf)
		if err != nil || got != p {
			t.Errorf("%v became %v, %v", p, got, err)
		}
		if _, err := Rooms.Place(Users.Cursor(p), shards, shardOf); err != ErrCursor {
			t.Errorf("%v of another list: %v", p, err)
		}
	}
	for _, p := range []Place{{Shard: shards}, {Shard: 1 << 40}, {(shardOf("ann") + 1) % shards, "ann"}} {
		if got, err := Users.Place(Users.Cursor(p), shards, shardOf); err != ErrCursor {
			t.Errorf("%v: %v, %v", p, got, err)
		}
	}
	for _, s := range []Slot{{}, {1, 2, 3}, {1<<16 - 1, 255, 1<<32 - 1}} {
		if got, err := Members.Slot(Members.SlotCursor(s)); err != nil || got != s {
			t.Errorf("%v became %v, %v", s, got, err)
		}
	}
	for _, s := range []Slot{{1 << 16, 0, 0}, {0, 256, 0}, {0, 0, 1 << 32}} {
		if got, err := Members.Slot(Members.SlotCursor(s)); err != ErrCursor {
			t.Errorf("%v: %v, %v", s, got, err)
		}
	}
}

// Texts of strangers are refused, or are cursors as this package writes them.
func FuzzCursors(f *testing.F) {
	f.Add(Users.Cursor(Place{shardOf("ann"), "ann"}))
	f.Add(Connections.SlotCursor(Slot{1, 2, 3}))
	f.Add("dQ")
	f.Add("dQ==")
	f.Add("../..")
	f.Fuzz(func(t *testing.T, text string) {
		if p, err := Users.Place(text, shards, shardOf); err == nil && text != "" && Users.Cursor(p) != text {
			t.Errorf("%q is %v", text, p)
		}
		if s, err := Connections.Slot(text); err == nil && Connections.SlotCursor(s) != text {
			t.Errorf("%q is %v", text, s)
		}
	})
}
