package rooms

import (
	"math/rand/v2"
	"testing"
)

// A member that stays during the whole listing appears on a page, however others come and go between the pages.
func TestPages(t *testing.T) {
	x, random := NewIndex(3, Options{}), rand.New(rand.NewPCG(1, 1))
	room := []byte("r")
	var stays, goes []Place
	for i := range 2000 {
		p := at(uint8(random.IntN(3)), uint32(i+1))
		x.Enter(room, p, 1)
		if i%2 == 0 {
			stays = append(stays, p)
		} else {
			goes = append(goes, p)
		}
	}
	r := x.FindString("r")
	seen := map[Place]bool{}
	cursor, more, pages := FirstPage, true, 0
	for more {
		var page []Place
		page, cursor, more = r.Page(nil, cursor, 70)
		if pages++; len(page) > 70 || more && len(page) < 70 {
			t.Fatalf("page %d has %d places", pages, len(page))
		}
		for _, p := range page {
			seen[p] = true
		}
		for range 20 {
			i := random.IntN(len(goes))
			x.Leave(r, goes[i])
			x.Enter(room, at(uint8(random.IntN(3)), uint32(3000+random.IntN(500))), 1)
		}
	}
	for _, p := range stays {
		if !seen[p] {
			t.Fatalf("%v was a member all the time and is on no page", p)
		}
	}
	for _, nonsense := range []Cursor{{Loop: 9, Left: 3}, {Loop: 2, Left: 0}} {
		if page, _, more := r.Page(nil, nonsense, 10); len(page) != 0 || more {
			t.Error(nonsense, page, more)
		}
	}
}
