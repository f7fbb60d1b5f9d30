package rooms

import "testing"

// A roster that was long, has shrunk and grows again keeps its table whole: a member added between the two bounds is
// found, and is there once.
func TestRosterGrowsAgain(t *testing.T) {
	for low := scanMax/2 + 1; low <= scanMax; low++ {
		var s roster
		next := uint32(0)
		add := func(n int) {
			for len(s.members) < n {
				s.add(Member{Slot: next, Gen: uint64(next) + 1})
				next++
			}
		}
		add(scanMax + 4)
		for len(s.members) > low {
			s.remove(len(s.members) / 2)
		}
		add(scanMax + 4)
		for i, m := range s.members {
			if at := s.find(Place{Slot: m.Slot, Gen: m.Gen}); at != i {
				t.Fatalf("grown again from %d members: the member at %d is found at %d", low, i, at)
			}
		}
	}
}
