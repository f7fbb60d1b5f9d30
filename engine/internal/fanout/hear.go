package fanout

import (
	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/rooms"
)

// The entries of other workers about rooms. One goroutine hears them, in the order of the other worker's stream; h is borrowed.

// HearInRoom carries out an entry about a room.
func (x *Rooms) HearInRoom(from ident.Worker, room *rooms.Room, h *fleet.Heard) error {
	switch h.Kind {
	case fleet.Publish:
		x.hearPublish(from, room, h)
	case fleet.Notice:
		return x.hearNotice(from, room, h)
	case fleet.Roster:
		x.hearRoster(from, room, h)
	case fleet.Quiet:
		x.hearQuiet(from, room)
	}
	return nil
}

func (x *Rooms) hearPublish(from ident.Worker, room *rooms.Room, h *fleet.Heard) {
	x.publishHere(from, room, HeardFrame(h.Frame), h.Conns.Of(x.Link.Self))
}

// publishHere publishes to the members on this worker, and returns their number. from is the other worker that sent the
// message; 0: this one.
func (x *Rooms) publishHere(from ident.Worker, room *rooms.Room, f *turn.Frame, except []ident.Place) (members int, err error) {
	p := &publication{rooms: x, frame: f, room: room, except: Nowhere, from: from}
	switch len(except) {
	case 0:
	case 1:
		p.except = except[0]
	default:
		p.spread = &spread{room: room, except: except}
	}
	return p.publish()
}

// HearSpread publishes a message to several rooms, or to all connections.
func (x *Rooms) HearSpread(from ident.Worker, h *fleet.Heard) {
	list := roomsOf(x.Index.Find, h.Rooms)
	if len(h.Rooms) > 0 && len(list) == 0 {
		return
	}
	p := &publication{rooms: x, frame: HeardFrame(h.Frame), spread: &spread{except: h.Conns.Of(x.Link.Self)}, from: from}
	if len(h.Rooms) == 0 {
		p.postEverywhere()
		return
	}
	p.spread.rooms, p.spread.seqs = list, make([]uint64, len(list))
	p.publishAll()
}

// HearDirect posts a message for one connection.
func (x *Rooms) HearDirect(from ident.Worker, h *fleet.Heard) error {
	if h.Conns.Len() != 1 {
		return fleet.ErrEntry
	}
	to := h.Conns.At(0)
	if to.Worker != x.Link.Self {
		return nil
	}
	if c := x.ConnAt(to.Place); c != nil && !c.Post(HeardFrame(h.Frame), true) {
		x.missedHere(from)
	}
	return nil
}

// missedHere notes that a loop of this worker, which a handler holds or which is behind, has no place for a message of
// another worker: the connections on that loop do not get it. Every message is counted; the log and an event name each
// worker at most once a second.
func (x *Rooms) missedHere(from ident.Worker) {
	x.Count[CountMissed].Add(1)
	if !x.Link.MissedSeldom(from) || x.Above.Stopped() { // all connections are being ended
		return
	}
	x.Ground.Log.Error("an event loop is too far behind: messages of another worker are lost for its connections", "worker", from)
	x.Above.Missed(from)
}

// HearChosen posts a message to the connections that chosen accepts.
func (x *Rooms) HearChosen(from ident.Worker, h *fleet.Heard, chosen func(*Conn) bool) {
	lists, _ := x.chosen(chosen, h.Conns.Of(x.Link.Self))
	p := &publication{rooms: x, frame: HeardFrame(h.Frame), from: from}
	for i, conns := range lists {
		if len(conns) > 0 {
			p.spread = &spread{conns: conns}
			p.Reserve(uint8(i))
			p.Post(uint8(i), 0)
		}
	}
	p.wake()
}
