package users

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/parleyd/parley/protocol/ident"
)

func place(n int) ident.Place {
	return ident.Place{Loop: uint8(n % 4), Slot: uint32(n), Gen: uint64(n + 1)}
}

// The index gives the same answers as a map of sets does, over random additions and removals.
func TestAgainstMap(t *testing.T) {
	for seed := range uint64(20) {
		dice := rand.New(rand.NewPCG(seed, 1))
		model := map[string]map[ident.Place]bool{}
		x := new(Index)
		for step := range 3000 {
			user := fmt.Sprint("user-", dice.IntN(60))
			if dice.IntN(2) == 0 {
				if model[user] == nil {
					model[user] = map[ident.Place]bool{}
				}
				model[user][place(step)] = true
				x.Add(user, place(step))
				continue
			}
			p := place(dice.IntN(3000)) // often one that is not there
			for known := range model[user] {
				p = known
			}
			if delete(model[user], p); len(model[user]) == 0 {
				delete(model, user)
			}
			x.Remove(user, p)
		}
		for n := range 60 {
			user := fmt.Sprint("user-", n)
			got := x.Places(nil, user)
			if len(got) != len(model[user]) || x.Count(user) != len(got) {
				t.Fatalf("seed %d: %s has %v, wanted %v", seed, user, got, model[user])
			}
			for _, p := range got {
				if !model[user][p] {
					t.Fatalf("seed %d: %s has %v", seed, user, p)
				}
			}
		}
		if x.Len() != len(model) {
			t.Errorf("seed %d: %d users, wanted %d", seed, x.Len(), len(model))
		}
		rows := pages(x, 1+dice.IntN(9))
		if len(rows) != len(model) {
			t.Errorf("seed %d: the pages have %d users, wanted %d", seed, len(rows), len(model))
		}
	}
}

// pages reads all users, a page after the other.
func pages(x *Index, limit int) map[string]int {
	found := map[string]int{}
	var at Cursor
	for more := true; more; {
		var rows []Row
		if rows, at, more = x.Page(nil, at, limit); len(rows) > limit {
			panic("a page is too long")
		}
		for _, r := range rows {
			if found[r.User] != 0 {
				panic("a user is on two pages")
			}
			found[r.User] = r.Connections
		}
	}
	return found
}

// A user that is there all the time is on exactly one page, whatever the others do meanwhile.
func TestPagesWhileUsersComeAndGo(t *testing.T) {
	x := new(Index)
	for n := range 2000 {
		x.Add(fmt.Sprint("stays-", n), place(n))
	}
	stop := make(chan struct{})
	var others sync.WaitGroup
	for g := range 3 {
		others.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				user := fmt.Sprint("moves-", g, "-", n%500)
				x.Add(user, place(n))
				x.Remove(user, place(n))
			}
		})
	}
	for range 10 {
		found := pages(x, 37)
		maps.DeleteFunc(found, func(user string, _ int) bool { return user[0] == 'm' })
		if len(found) != 2000 {
			t.Errorf("%d users that stay are on the pages", len(found))
		}
	}
	close(stop)
	others.Wait()
}

// Nobody has no user, a cursor from a client may be anything, and the memory of users that left is given back.
func TestEdges(t *testing.T) {
	x := new(Index)
	x.Add("", place(1))
	x.Remove("unknown", place(1))
	if x.Len() != 0 || x.Count("") != 0 || len(x.Places(nil, "")) != 0 {
		t.Error("the empty user is kept")
	}
	x.Add("a", place(1))
	x.Remove("a", place(2))
	if x.Count("a") != 1 {
		t.Error("another connection's place removed a user")
	}
	for _, c := range []Cursor{{-1, ""}, {Shards, ""}, {1 << 40, "x"}} {
		if rows, _, more := x.Page(nil, c, 10); len(rows) != 0 || more {
			t.Errorf("%v: %v", c, rows)
		}
	}
	one := ShardOf("a")
	for n := range 100 * Shards {
		if user := fmt.Sprint(n); ShardOf(user) == one {
			x.Add(user, place(n))
		}
	}
	for n := range 100 * Shards {
		x.Remove(fmt.Sprint(n), place(n))
	}
	if s := &x.shards[one]; len(s.list) != 1 || cap(s.list) > 16 {
		t.Errorf("%d users keep space for %d", len(s.list), cap(s.list))
	}
	if !slices.Equal(x.Places(nil, "a"), []ident.Place{place(1)}) {
		t.Error(x.Places(nil, "a"))
	}
}

// BenchmarkMemory reports the bytes that a user with one connection costs, besides its name.
func BenchmarkMemory(b *testing.B) {
	const users = 1 << 18
	names := make([]string, users)
	for i := range names {
		names[i] = fmt.Sprint("user-", i)
	}
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		x := new(Index)
		for i, name := range names {
			x.Add(name, place(i))
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/users, "B/user")
		runtime.KeepAlive(x)
	}
}

// BenchmarkAddRemove is a connection of a user that comes and goes.
func BenchmarkAddRemove(b *testing.B) {
	x := new(Index)
	for i := range 1 << 18 {
		x.Add(fmt.Sprint("user-", i), place(i))
	}
	b.ReportAllocs()
	for b.Loop() {
		x.Add("somebody", place(1))
		x.Remove("somebody", place(1))
	}
}
