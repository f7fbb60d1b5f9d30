package fanout

import (
	"slices"

	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/protocol/message"
	"github.com/parleyd/parley/rooms"
)

// To publish, a room numbers the frame and posts one letter to every loop that has members; each loop fans it out to its
// part of the roster. The frame is encoded once and shared.

// publication is one frame on its way into a room. It is the room's poster: it reserves places on every loop concerned
// before the room numbers the frame, so that a full mailbox refuses the frame as a whole.
//
// Owner: the goroutine that publishes.
type publication struct {
	rooms  *Rooms
	frame  *turn.Frame
	room   *rooms.Room
	except ident.Place
	spread *spread
	from   ident.Worker // the other worker that sent it; 0: this one
	ring   loopBits     // loops to wake, once the room's lock is released
	missed loopBits     // loops without a place for a message of another worker
}

// Kinds of letters for the floor.
const (
	letterPublish = turn.LettersOfFloor + iota // a frame for the members of a room on this loop: To is a *rooms.Room, or a *spread
	letterSpread                               // a frame for connections chosen by a *spread
)

// loopBits is a set of loops.
type loopBits [(255 + 1) / 64]uint64

func (b *loopBits) add(loop uint8)      { b[loop/64] |= 1 << (loop % 64) }
func (b *loopBits) has(loop uint8) bool { return b[loop/64]&(1<<(loop%64)) != 0 }

// spread names the receivers of a letter that is not for exactly one room or one connection.
//
// Owner: immutable once posted.
type spread struct {
	room   *rooms.Room   // its members, without several exceptions
	rooms  []*rooms.Room // members of any of these, once each; all open connections where it is nil
	seqs   []uint64      // the frame's number in each room
	conns  []*turn.Conn  // exactly these
	except []ident.Place
}

// Reserve takes a place in a loop's mailbox. If there is none for a message of another worker, only that loop misses the
// message.
func (p *publication) Reserve(loop uint8) bool {
	mail := &p.rooms.Loops[loop].Mail
	if p.from == 0 {
		return mail.Reserve(len(p.frame.Plain))
	}
	if !mail.ReserveForeign(len(p.frame.Plain)) {
		p.missed.add(loop)
	}
	return true
}

// Cancel frees the place.
func (p *publication) Cancel(loop uint8) {
	if !p.missed.has(loop) {
		p.rooms.Loops[loop].Mail.Cancel(1, len(p.frame.Plain))
	}
}

// Post posts the letter for a reserved place. The loop is woken later: this runs under the room's lock.
func (p *publication) Post(loop uint8, seq uint64) {
	if p.missed.has(loop) {
		return
	}
	x := turn.Letter{Kind: letterPublish, Frame: p.frame, Seq: seq, Except: p.except}
	switch {
	case p.room == nil:
		x.Kind, x.To = letterSpread, p.spread
	case p.spread != nil:
		x.To = p.spread
	default:
		x.To = p.room
	}
	if p.rooms.Loops[loop].Mail.Post(x) {
		p.ring.add(loop)
	}
}

// publish numbers and posts the frame, and returns how many members the room had. Any goroutine.
func (p *publication) publish() (members int, err error) {
	_, members, err = p.room.Publish(p)
	p.wake()
	return members, p.rooms.orOverloaded(err)
}

// orOverloaded counts a refusal, and turns it into the public error.
func (x *Rooms) orOverloaded(err error) error {
	if err == nil {
		return nil
	}
	x.Count[CountOverloaded].Add(1)
	return message.ErrOverloaded
}

func (p *publication) wake() {
	for _, l := range p.rooms.Loops {
		if p.ring.has(l.Index) {
			l.Wires.Ring()
		}
	}
	if p.missed != (loopBits{}) {
		p.rooms.missedHere(p.from)
	}
}

// HeardFrame copies a whole frame that another worker has encoded.
func HeardFrame(raw []byte) *turn.Frame {
	header, _ := fleet.FrameSize(raw)
	return turn.CopyFrame(raw, header)
}

// publishAll numbers and posts the frame in several rooms.
func (p *publication) publishAll() error {
	err := rooms.PublishAll(p.spread.rooms, p.spread.seqs, p)
	p.wake()
	return p.rooms.orOverloaded(err)
}

func (p *publication) postEverywhere() error {
	for i, l := range p.rooms.Loops {
		if !p.Reserve(l.Index) {
			for _, reserved := range p.rooms.Loops[:i] {
				p.Cancel(reserved.Index)
			}
			return p.rooms.orOverloaded(rooms.ErrOverloaded)
		}
	}
	for _, l := range p.rooms.Loops {
		p.Post(l.Index, 0)
	}
	p.wake()
	return nil
}

// PublishChosen sends the frame to all chosen connections or, if a mailbox is full, to none: a refused caller may try
// again.
func (x *Rooms) PublishChosen(chosen func(*Conn) bool, f *turn.Frame, out []ident.Place) (total int, err error) {
	lists, total := x.chosen(chosen, out)
	for i, conns := range lists {
		if len(conns) > 0 && !x.Loops[i].Mail.Reserve(len(f.Plain)) {
			for j := range i {
				if len(lists[j]) > 0 {
					x.Loops[j].Mail.Cancel(1, len(f.Plain))
				}
			}
			return 0, x.orOverloaded(rooms.ErrOverloaded)
		}
	}
	for i, conns := range lists {
		if len(conns) > 0 {
			x.Loops[i].Post(turn.Letter{Kind: letterSpread, Frame: f, To: &spread{conns: conns}})
		}
	}
	return total, nil
}

// chosen lists the chosen connections by loop.
func (x *Rooms) chosen(chosen func(*Conn) bool, out []ident.Place) (lists [][]*turn.Conn, total int) {
	lists = make([][]*turn.Conn, len(x.Loops))
	for i, l := range x.Loops {
		l.Slab.Each(func(t *turn.Conn) bool {
			if c := ConnOf(t); c.IsOpen() && !slices.Contains(out, c.Place()) && chosen(c) {
				lists[i] = append(lists[i], t)
			}
			return true
		})
		total += len(lists[i])
	}
	return lists, total
}

// Untold logs and counts an entry that the other workers do not get, at most once a second in the log. Messages are bounded
// earlier: such an entry is a call of the application about very many rooms or connections, or a large event of its own.
func (x *Rooms) Untold(err error) {
	x.Count[CountUntold].Add(1)
	if fleet.Seldom(&x.untoldSaid, x.Ground.Clock()) {
		x.Ground.Log.Error("a message is too large for the bus, and other workers do not get it; send less in one call", "err", err)
	}
}

// forward sends the other workers a message to a room.
func (x *Rooms) forward(flush bool, f *turn.Frame, room string, except []ident.ID) {
	x.Link.Say(flush, &fleet.Entry{Kind: fleet.Publish, Room: room, Conns: except, Frame: f.Plain})
}

// forward sends the other workers a message by or about one of the loop's connections, at the end of the turn.
func (l *Loop) forward(f *turn.Frame, room string, except ident.Place) {
	if l.Link.Alone() {
		return
	}
	l.Owes.Flush = true
	l.Rooms.forward(false, f, room, []ident.ID{l.Link.IDOf(except)})
}

// Broadcast publishes a message to a room on all workers, and returns how many members are known. except are connections of
// any worker. Any goroutine.
func (x *Rooms) Broadcast(room string, f *turn.Frame, except []ident.ID) (members int, err error) {
	if n, ok, err := (Historic{x}).Publish(room, Publish{Text: f.Plain[f.Payload:], Except: except}); ok {
		return n.Members, err
	}
	return x.BroadcastPlain(room, f, except)
}

// BroadcastPlain is Broadcast of a message without a number. Any goroutine.
func (x *Rooms) BroadcastPlain(room string, f *turn.Frame, except []ident.ID) (members int, err error) {
	if r := x.Index.FindString(room); r != nil {
		if members, err = x.publishHere(0, r, f, x.Link.Own(except)); err != nil {
			return members, err
		}
	}
	if x.Link.Alone() {
		return members, nil
	}
	x.forward(true, f, room, except)
	return members + x.Index.Away(room), nil
}

// roomsOf lists the rooms of these names that exist, each once.
func roomsOf[Name string | []byte](find func(Name) *rooms.Room, names []Name) (list []*rooms.Room) {
	for _, name := range names {
		if r := find(name); r != nil && !slices.Contains(list, r) {
			list = append(list, r)
		}
	}
	return list
}

// BroadcastRooms publishes a message to several rooms on all workers, once to each connection, and once more for each of the
// rooms with history. Any goroutine.
func (x *Rooms) BroadcastRooms(names []string, f *turn.Frame, except []ident.ID) error {
	names, _, err := Historic{x}.publishAll(names, Publish{Text: f.Plain[f.Payload:], Except: except})
	if err != nil || len(names) == 0 {
		return err
	}
	if list := roomsOf(x.Index.FindString, names); len(list) > 0 {
		p := &publication{rooms: x, frame: f, spread: &spread{rooms: list, seqs: make([]uint64, len(list)), except: x.Link.Own(except)}}
		if err := p.publishAll(); err != nil {
			return err
		}
	}
	x.forwardSpread(f, names, except)
	return nil
}

// BroadcastAll publishes a message to every open connection of all workers. Any goroutine.
func (x *Rooms) BroadcastAll(f *turn.Frame, except []ident.ID) error {
	p := &publication{rooms: x, frame: f, spread: &spread{except: x.Link.Own(except)}}
	if err := p.postEverywhere(); err != nil {
		return err
	}
	x.forwardSpread(f, nil, except)
	return nil
}

// Broadcast publishes a message of c, a member of the room, to the room on all workers, and returns how many members the room
// has here. Notices of joins before the message go out before it.
func (l *Loop) Broadcast(c *Conn, r *rooms.Room, f *turn.Frame) (members int, err error) {
	p := &l.outgoing
	*p = publication{rooms: l.Rooms, frame: f, room: r, except: c.Place()}
	if members, err = p.publish(); err == nil {
		l.forward(f, r.Name(), c.Place())
	}
	return members, err
}

// forwardSpread sends the other workers a message to several rooms, or to all connections if names is empty.
func (x *Rooms) forwardSpread(f *turn.Frame, names []string, except []ident.ID) {
	x.Link.Say(true, &fleet.Entry{Kind: fleet.Spread, Rooms: names, Conns: except, Frame: f.Plain})
}
