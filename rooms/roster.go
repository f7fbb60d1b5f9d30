package rooms

import "math/bits"

// roster is a room's members on one loop: a dense slice to walk through and, once it is long, a table from
// slot to position.
//
// Owner: its loop, which writes under the room's lock.
type roster struct {
	members []Member
	table   []uint32 // position+1 by hash of the slot, open addressing; nil while members are few
	held    int32
	stands  []Stand // of the members, in a room with history; else nil
	given   uint64  // the newest number that was delivered on the loop
	missed  uint64  // in a room that is followed: the first message that the loop had no place for; 0 for none
	told    uint32  // and the generation of the history that the members who are not fresh know of
}

// scanMax is the length up to which a scan of the members is as fast as the table.
const scanMax = 16

// present reports whether messages must be posted to the loop.
func (s *roster) present() bool { return s != nil && (len(s.members) > 0 || s.held > 0) }

// find returns the position of p, -1 if it is no member.
func (s *roster) find(p Place) int {
	i := s.position(p.Slot)
	if i >= 0 && s.members[i].Gen == p.Gen {
		return i
	}
	return -1
}

func (s *roster) position(slot uint32) int {
	if s.table == nil {
		for i := range s.members {
			if s.members[i].Slot == slot {
				return i
			}
		}
		return -1
	}
	if h := s.probe(slot); s.table[h] != 0 {
		return int(s.table[h]) - 1
	}
	return -1
}

// probe returns the place of slot in the table, or the free place for it.
func (s *roster) probe(slot uint32) uint32 {
	mask := uint32(len(s.table) - 1)
	h := s.home(slot)
	for s.table[h] != 0 && s.members[s.table[h]-1].Slot != slot {
		h = (h + 1) & mask
	}
	return h
}

func (s *roster) home(slot uint32) uint32 {
	return (slot * 0x9e3779b1) >> (32 - uint(bits.TrailingZeros(uint(len(s.table)))))
}

// add appends a member that is not in yet.
func (s *roster) add(m Member) {
	s.members = append(s.members, m)
	n := len(s.members)
	switch {
	case s.table == nil && n <= scanMax:
	case s.table == nil || 4*n > 3*len(s.table):
		s.rehash(n)
	default:
		s.table[s.probe(m.Slot)] = uint32(n)
	}
}

func (s *roster) rehash(n int) {
	s.table = make([]uint32, 1<<bits.Len(uint(2*n-1)))
	for i := range s.members {
		s.table[s.probe(s.members[i].Slot)] = uint32(i + 1)
	}
}

// remove takes the member at a position out. The last member moves there.
func (s *roster) remove(at int) {
	last := len(s.members) - 1
	if s.table != nil {
		s.forget(s.members[at].Slot)
		if at != last {
			s.table[s.probe(s.members[last].Slot)] = uint32(at + 1)
		}
	}
	s.members[at] = s.members[last]
	s.members = s.members[:last]
	if s.stands != nil {
		s.stands[at] = s.stands[last]
		s.stands = s.stands[:last]
	}
	switch {
	case last == 0:
		s.members, s.table, s.stands = nil, nil, nil
	case last == scanMax/2:
		s.table = nil
		s.shrink(scanMax)
	case cap(s.members) > 4*last && last > scanMax:
		s.shrink(2 * last)
		s.rehash(last)
	}
}

// shrink makes the slices shorter.
func (s *roster) shrink(capacity int) {
	s.members = append(make([]Member, 0, capacity), s.members...)
	if s.stands != nil {
		s.stands = append(make([]Stand, 0, capacity), s.stands...)
	}
}

// forget takes slot out of the table and moves later entries of its chain up.
func (s *roster) forget(slot uint32) {
	mask := uint32(len(s.table) - 1)
	hole := s.probe(slot)
	for i := (hole + 1) & mask; s.table[i] != 0; i = (i + 1) & mask {
		home := s.home(s.members[s.table[i]-1].Slot)
		if (i-home)&mask >= (i-hole)&mask {
			s.table[hole] = s.table[i]
			hole = i
		}
	}
	s.table[hole] = 0
}
