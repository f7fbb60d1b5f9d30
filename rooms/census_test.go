package rooms

import (
	"math/rand/v2"
	"testing"

	"github.com/parleyd/parley/protocol/ident"
)

// Several workers, whose members come and go at random and whose counts reach each other late, together count each room
// once when all counts have arrived.
func TestCensus(t *testing.T) {
	const workers, names = 3, 4
	random := rand.New(rand.NewPCG(7, 7))
	var list []*Index
	for i := range workers {
		x := NewIndex(1, Options{})
		x.SetWorker(ident.Worker(i + 1))
		list = append(list, x)
	}
	room := func(i int) string { return string(rune('a' + i)) }
	tell := func(from int, name string) {
		n := int32(0)
		if r := list[from].FindString(name); r != nil {
			n = int32(r.Len())
		}
		for i, x := range list {
			if r := x.FindString(name); i != from && r != nil {
				r.SetAway(ident.Worker(from+1), n)
			}
		}
	}
	for round := range 300 {
		for range 40 {
			x, name, p := list[random.IntN(workers)], room(random.IntN(names)), at(0, uint32(random.IntN(3)+1))
			switch r := x.FindString(name); random.IntN(5) {
			case 0, 1:
				x.Enter([]byte(name), p, 1)
			case 2:
				if h, err := x.Hold([]byte(name), p, 1); err == nil && !h.Already {
					h.Room.EnterHeld(p)
				}
			case 3:
				if r != nil {
					x.Leave(r, p)
				}
			default:
				tell(random.IntN(workers), name)
			}
		}
		living := map[string]bool{}
		for range 2 { // a room that came late hears of all only now
			for i, x := range list {
				for n := range names {
					tell(i, room(n))
					if x.FindString(room(n)) != nil {
						living[room(n)] = true
					}
				}
			}
		}
		counted := 0
		for i, x := range list {
			counted += x.Counted(i == 0)
		}
		if counted != len(living) {
			t.Fatalf("round %d: %d rooms are counted, %d live", round, counted, len(living))
		}
	}
	x := list[0]
	x.Create("created", CreateOptions{})
	with := x.Counted(true)
	if x.Counted(false) != with-1 {
		t.Error("a created room without members is counted by the lowest worker alone")
	}
	x.Delete("created")
	if x.Counted(true) != with-1 {
		t.Error("a deleted room is counted")
	}
}

// The members known on other workers follow the entries from there, and a worker's death leaves none.
func TestRemoteMembers(t *testing.T) {
	x := NewIndex(1, Options{})
	x.Enter([]byte("r"), at(0, 1), 1)
	r := x.FindString("r")
	r.RemoteJoined(5, at(0, 7), "ann")
	r.RemoteJoined(5, at(1, 8), "bob")
	r.SetAway(5, 2)
	r.RemoteRoster(5, 0, []Place{at(0, 7), at(0, 9)}, []string{"", "cid"})
	if r.RemoteMembers(5) != 3 || r.Away() != 2 || r.AwayOf(5) != 2 {
		t.Fatal(r.RemoteMembers(5), r.Away())
	}
	r.RemoteLeft(5, at(0, 7))
	r.RemoteLeft(5, at(3, 3))
	left := r.Bury(5)
	if len(left.Places) != 2 || r.Away() != 0 || r.remotes != nil {
		t.Fatal(left, r.Away())
	}
	if left.User(at(1, 8)) != "bob" || left.User(at(0, 9)) != "cid" || left.User(at(0, 7)) != "" {
		t.Fatal("the users of the lost members:", left)
	}
	r.SetAway(6, 1)
	r.RemoteJoined(6, at(0, 1), "ann")
	r.RemoteUnknown(6)
	if r.RemoteMembers(6) != 0 || r.Away() != 1 {
		t.Fatal("the count is forgotten together with the places")
	}
	r.SetAway(6, 0)
	r.RemoteLeft(6, at(0, 1))
	if r.remotes != nil || r.Bury(6).Places != nil {
		t.Error("an empty share is kept")
	}
}
