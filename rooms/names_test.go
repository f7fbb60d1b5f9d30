package rooms

import (
	"fmt"
	"strings"
	"testing"
)

// namesBy reads all rooms with a prefix, some on each page.
func namesBy(t *testing.T, x *Index, prefix string, limit, examineMax int) map[string]int {
	t.Helper()
	got := map[string]int{}
	at, more := NameCursor{}, true
	for pages := 0; more; pages++ {
		n, before := 0, at
		at, more = x.PageByName(at, prefix, examineMax, func(r *Room) bool {
			got[r.Name()]++
			n++
			return n < limit
		})
		if n > limit || more && at == before {
			t.Fatalf("%d rooms on a page from %v to %v", n, before, at)
		}
	}
	return got
}

// A room that is there all the time is on exactly one page, while others come and go; a prefix and a bound on the work skip
// none.
func TestPagesByName(t *testing.T) {
	x := NewIndex(1, Options{})
	for n := range 3000 {
		x.Enter(fmt.Appendf(nil, "%s:%d", []string{"chat", "game", "chats"}[n%3], n), at(0, uint32(n+1)), 1)
	}
	for _, row := range []struct {
		prefix            string
		limit, examineMax int
		want              int
	}{{"", 7, 1 << 20, 3000}, {"", 1000, 1, 3000}, {"chat:", 3, 20, 1000}, {"chat", 64, 1 << 20, 2000}, {"none", 1, 50, 0}} {
		got := namesBy(t, x, row.prefix, row.limit, row.examineMax)
		if len(got) != row.want {
			t.Errorf("%+v: %d rooms", row, len(got))
		}
		for name, n := range got {
			if n != 1 || !strings.HasPrefix(name, row.prefix) {
				t.Errorf("%+v: %s is on %d pages", row, name, n)
			}
		}
	}
	at0 := NameCursor{}
	seen, moved := map[string]bool{}, 0
	for more := true; more; {
		n := 0
		at0, more = x.PageByName(at0, "", 1<<20, func(r *Room) bool {
			seen[r.Name()] = true
			n++
			return n < 50
		})
		name := fmt.Sprintf("moves:%d", moved)
		x.Enter([]byte(name), at(0, uint32(5000+moved)), 1)
		if gone := fmt.Sprintf("moves:%d", moved-2); x.FindString(gone) != nil {
			x.Leave(x.FindString(gone), at(0, uint32(5000+moved-2)))
		}
		moved++
	}
	for n := range 3000 {
		if name := fmt.Sprintf("%s:%d", []string{"chat", "game", "chats"}[n%3], n); !seen[name] {
			t.Errorf("%s is on no page", name)
		}
	}
	for _, nonsense := range []NameCursor{{Shard: -1}, {Shard: Shards}, {Shard: 1 << 40, After: "x"}} {
		if _, more := x.PageByName(nonsense, "", 10, func(*Room) bool { t.Error("a room"); return true }); more {
			t.Error(nonsense)
		}
	}
}
