package fanout

import (
	"slices"

	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/rooms"
)

// A post is a message for the connections at an address, on all workers.

// Post sends a frame to the connections of this worker at an address, and returns their number. A full mailbox refuses it as a
// whole. Any goroutine.
func (x *Rooms) Post(a *fleet.Address, f *turn.Frame) (n int, err error) {
	return (&publication{rooms: x, frame: f, except: Nowhere}).post(a)
}

// HearPost takes a message of another worker for the connections at an address.
func (x *Rooms) HearPost(from ident.Worker, h *fleet.Heard) error {
	var a fleet.Address
	r := fleet.Reader{Rest: h.Payload}
	if a.Read(&r); r.Bad {
		return fleet.ErrEntry
	}
	_, err := (&publication{rooms: x, frame: HeardFrame(h.Frame), except: Nowhere, from: from}).post(&a)
	return err
}

// post sends the frame to the connections of this worker at an address, and returns their number. A full mailbox refuses a
// message of this worker as a whole.
func (p *publication) post(a *fleet.Address) (n int, err error) {
	x := p.rooms
	out := distinct(x.Users.PlacesOf(x.Link.Own(a.Except), a.ExceptUsers))
	switch {
	case a.Everybody:
		p.spread = &spread{except: out}
		n = int(x.Open.Load()) - p.countOpen(out)
		return max(n, 0), p.postEverywhere()
	case len(a.Rooms) > 0 && a.Ephemeral:
		return p.postUnnumbered(a.Rooms, out)
	case len(a.Rooms) > 0:
		return p.postToRooms(a, out)
	case a.Key != "":
		lists, n := x.chosen(x.Above.HasAttribute(a.Key, a.Value), out)
		return n, p.postTo(lists)
	}
	lists, n := p.connsAt(x.Users.PlacesOf(x.Link.Own(a.Conns), a.Users), out)
	return n, p.postTo(lists)
}

// postToRooms publishes to the members of an address's rooms, once to each connection.
func (p *publication) postToRooms(a *fleet.Address, out []ident.Place) (n int, err error) {
	m := Publish{Text: p.frame.Plain[p.frame.Payload:], Out: out}
	if p.rooms.Order != nil {
		if p.from != 0 { // its worker has submitted the message
			return p.postUnnumbered(Historic{p.rooms}.withoutHistory(a.Rooms), out)
		}
		m.Out, m.Except, m.OutUsers = nil, a.Except, a.ExceptUsers
	}
	names, n, err := Historic{p.rooms}.publishAll(a.Rooms, m)
	if err != nil || len(names) == 0 {
		return n, err
	}
	more, err := p.postUnnumbered(names, out)
	return n + more, err
}

// withoutHistory are those of several rooms that have no history.
func (x Historic) withoutHistory(names []string) (others []string) {
	for _, name := range names {
		if !x.Index.Keeps([]byte(name)) {
			others = append(others, name)
		}
	}
	return others
}

// postUnnumbered is postToRooms for a message that takes no number.
func (p *publication) postUnnumbered(names []string, out []ident.Place) (n int, err error) {
	list := roomsOf(p.rooms.Index.FindString, names)
	switch len(list) {
	case 0:
		return 0, nil
	case 1:
		p.room = list[0]
		if len(out) > 0 {
			p.spread = &spread{room: p.room, except: out}
		}
		n, err = p.publish()
		for _, x := range out {
			if p.room.IsMember(x) {
				n--
			}
		}
		return max(n, 0), err
	}
	p.spread = &spread{rooms: list, seqs: make([]uint64, len(list)), except: out}
	return countMembers(list, out), p.publishAll()
}

// countMembers is the number of connections that are members of any of the rooms, without those at places.
func countMembers(list []*rooms.Room, out []ident.Place) (n int) {
	members := map[ident.Place]bool{}
	for _, r := range list {
		for m := range r.Places() {
			members[m] = !slices.Contains(out, m)
		}
	}
	for _, in := range members {
		if in {
			n++
		}
	}
	return n
}

// postTo sends the frame to connections, listed by loop: to all of them or, if a mailbox is full, to none.
func (p *publication) postTo(lists [][]*turn.Conn) error {
	for i, conns := range lists {
		if len(conns) == 0 || p.Reserve(uint8(i)) {
			continue
		}
		for j := range i {
			if len(lists[j]) > 0 {
				p.Cancel(uint8(j))
			}
		}
		return p.rooms.orOverloaded(rooms.ErrOverloaded)
	}
	for i, conns := range lists {
		if len(conns) > 0 {
			p.spread = &spread{conns: conns}
			p.Post(uint8(i), 0)
		}
	}
	p.wake()
	return nil
}

// connsAt lists the open connections at places by loop, each once.
func (p *publication) connsAt(places, out []ident.Place) (lists [][]*turn.Conn, total int) {
	lists = make([][]*turn.Conn, len(p.rooms.Loops))
	seen := make(map[ident.Place]bool, len(places))
	for _, at := range places {
		if seen[at] || slices.Contains(out, at) {
			continue
		}
		seen[at] = true
		if c := p.rooms.ConnAt(at); c != nil {
			lists[at.Loop] = append(lists[at.Loop], c.Wire())
			total++
		}
	}
	return lists, total
}

// countOpen is the number of open connections at places.
func (p *publication) countOpen(places []ident.Place) (n int) {
	for i, at := range places {
		if p.rooms.ConnAt(at) != nil && !slices.Contains(places[:i], at) {
			n++
		}
	}
	return n
}
