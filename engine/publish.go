package engine

import (
	"slices"

	"github.com/gobwas/ws"

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
	srv    *Server
	frame  *turn.Frame
	room   *rooms.Room
	except place
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
type loopBits [(loopsMax + 1) / 64]uint64

func (b *loopBits) add(loop uint8)      { b[loop/64] |= 1 << (loop % 64) }
func (b *loopBits) has(loop uint8) bool { return b[loop/64]&(1<<(loop%64)) != 0 }

// spread names the receivers of a letter that is not for exactly one room or one connection.
//
// Owner: immutable once posted.
type spread struct {
	room   *rooms.Room   // its members, without several exceptions
	rooms  []*rooms.Room // members of any of these, once each; all open connections where it is nil
	seqs   []uint64      // the frame's number in each room
	conns  []*Conn       // exactly these
	except []place
}

// Reserve takes a place in a loop's mailbox. If there is none for a message of another worker, only that loop misses the
// message.
func (p *publication) Reserve(loop uint8) bool {
	mail := &p.srv.loops[loop].Mail
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
		p.srv.loops[loop].Mail.Cancel(1, len(p.frame.Plain))
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
	if p.srv.loops[loop].Mail.Post(x) {
		p.ring.add(loop)
	}
}

// publish numbers and posts the frame, and returns how many members the room had. Any goroutine.
func (p *publication) publish() (members int, err error) {
	_, members, err = p.room.Publish(p)
	p.wake()
	return members, p.srv.orOverloaded(err)
}

// orOverloaded counts a refusal, and turns it into the public error.
func (s *Server) orOverloaded(err error) error {
	if err == nil {
		return nil
	}
	s.count[countOverloaded].Add(1)
	return ErrOverloaded
}

func (p *publication) wake() {
	for _, l := range p.srv.loops {
		if p.ring.has(l.Index) {
			l.Wires.Ring()
		}
	}
	if p.missed != (loopBits{}) {
		p.srv.missedHere(p.from)
	}
}

// Deliver takes the letters with frames for rooms and for chosen connections.
func (f roomsFloor) Deliver(letters []turn.Letter, bytesMax int) int {
	n, x := runLength(letters, bytesMax), &letters[0]
	switch {
	case n > 1:
		f.openRun(letters[:n])
	case x.Kind == letterPublish:
		f.Mail.Cancel(1, len(x.Frame.Plain))
		f.fanOut(x)
	default:
		f.Mail.Cancel(1, len(x.Frame.Plain))
		f.deliverSpread(x)
	}
	return n
}

// fanOut fans a published frame out to the room's members on this loop. It neither writes nor ends a connection: the roster
// must not change during the walk.
func (l *loop) fanOut(x *turn.Letter) {
	room, plain := x.To.(*rooms.Room)
	var except []place
	if !plain {
		many := x.To.(*spread)
		room, except = many.room, many.except
	}
	roster := room.Roster(l.Index)
	for i := range roster {
		m := &roster[i]
		if x.Seq <= m.JoinSeq || isExcepted(x, m) {
			continue
		}
		c := l.Slab.At(m.Slot)
		if except != nil && slices.Contains(except, c.Place()) {
			continue
		}
		l.Queue(c, x.Frame)
	}
}

// runLength is the number of first letters that are consecutive messages to one room, with at most bytesMax bytes together.
func runLength(letters []turn.Letter, bytesMax int) int {
	n, bytes := 0, 0
	first, ok := letters[0].To.(*rooms.Room)
	for ok && n < len(letters) && n < runMax {
		x := &letters[n]
		if room, ok := x.To.(*rooms.Room); !ok || room != first || bytes+len(x.Frame.Plain) > bytesMax {
			break
		}
		bytes += len(x.Frame.Plain)
		n++
	}
	return max(n, 1)
}

// runMax bounds the letters of a run: each member is compared with the publishers of all of them.
const runMax = 64

// openRun delivers several messages to one room at once: it walks through the members once instead of once a message, and
// each member gets one joined frame. Members that must not get all of them get theirs one by one: the publishers, and
// members that joined in between.
func (l *loop) openRun(letters []turn.Letter) {
	room := letters[0].To.(*rooms.Room)
	frames, least := make([]*turn.Frame, len(letters)), letters[0].Seq
	for i := range letters {
		frames[i] = letters[i].Frame
		least = min(least, letters[i].Seq) // a notice has the number of its join or leave
		l.Mail.Cancel(1, len(frames[i].Plain))
	}
	all := turn.Join(frames)
	roster := room.Roster(l.Index)
	for i := range roster {
		m := &roster[i]
		c := l.Slab.At(m.Slot)
		if least > m.JoinSeq && !excepts(letters, m) && !c.OwnContext() {
			l.Queue(c, all)
			continue
		}
		for j := range letters {
			if x := &letters[j]; x.Seq > m.JoinSeq && !isExcepted(x, m) {
				l.Queue(c, x.Frame)
			}
		}
	}
}

// isExcepted reports whether m is the letter's exception.
func isExcepted(x *turn.Letter, m *rooms.Member) bool {
	return m.Slot == x.Except.Slot && m.Gen == x.Except.Gen
}

// excepts reports whether m is the exception of one of the letters.
func excepts(letters []turn.Letter, m *rooms.Member) bool {
	for i := range letters {
		if isExcepted(&letters[i], m) {
			return true
		}
	}
	return false
}

// deliverSpread fans a frame out to the receivers of a spread, once to each.
func (l *loop) deliverSpread(x *turn.Letter) {
	s := x.To.(*spread)
	switch {
	case s.conns != nil:
		for _, c := range s.conns {
			l.Queue(&c.wire, x.Frame)
		}
	case s.rooms != nil:
		l.stamp++
		if n := int(l.Slab.Size); len(l.stamps) < n {
			l.stamps = append(l.stamps, make([]uint32, n-len(l.stamps))...)
		}
		for i, r := range s.rooms {
			for _, m := range r.Roster(l.Index) {
				if l.stamps[m.Slot] != l.stamp && s.seqs[i] > m.JoinSeq {
					l.stamps[m.Slot] = l.stamp
					l.deliverUnless(l.Slab.At(m.Slot), x)
				}
			}
		}
	default:
		l.Slab.Each(func(c *turn.Conn) bool {
			l.deliverUnless(c, x)
			return true
		})
	}
}

func (l *loop) deliverUnless(c *turn.Conn, x *turn.Letter) {
	if connOf(c).admitted.Load() && c.Phase == turn.PhaseOpen && !slices.Contains(x.To.(*spread).except, c.Place()) {
		l.Queue(c, x.Frame)
	}
}

// Broadcast sends v, encoded as JSON once, to all members of a room except those whose ids are given, and returns how many
// members the room had: exact within a worker, and the best known figure across workers. An unknown room has none. Cost: one
// entry on the bus. Any goroutine. Errors: v cannot be encoded; [ErrMessageTooLarge] and [ErrOverloaded], after which no
// member gets v.
//
// Scope: all workers.
func (s *Server) Broadcast(room string, v any, except ...string) (members int, err error) {
	f, err := s.encodeShared(v)
	if err != nil {
		return 0, err
	}
	out := idsOf(except)
	if r := s.index.FindString(room); r != nil {
		p := &publication{srv: s, frame: f, room: r, except: nowhere}
		if len(out) > 0 {
			p.spread = &spread{room: r, except: s.own(out)}
		}
		if members, err = p.publish(); err != nil {
			return members, err
		}
	}
	if s.peers != nil {
		members += s.index.Away(room)
		s.forward(true, f, room, out)
	}
	return members, nil
}

// BroadcastRooms sends v to the members of several rooms, once to each connection. Cost: one entry on the bus. Any
// goroutine.
//
// Scope: all workers.
func (s *Server) BroadcastRooms(names []string, v any, except ...string) error {
	f, err := s.encodeShared(v)
	if err != nil {
		return err
	}
	list := make([]*rooms.Room, 0, len(names))
	for _, name := range names {
		if r := s.index.FindString(name); r != nil && !slices.Contains(list, r) {
			list = append(list, r)
		}
	}
	out := idsOf(except)
	if len(list) > 0 {
		p := &publication{srv: s, frame: f, spread: &spread{rooms: list, seqs: make([]uint64, len(list)), except: s.own(out)}}
		if err := p.publishAll(); err != nil {
			return err
		}
	}
	if s.peers != nil && len(names) > 0 {
		s.forwardSpread(f, names, out)
	}
	return nil
}

// publishAll numbers and posts the frame in several rooms.
func (p *publication) publishAll() error {
	err := rooms.PublishAll(p.spread.rooms, p.spread.seqs, p)
	p.wake()
	return p.srv.orOverloaded(err)
}

// BroadcastAll sends v to every open connection, whether it is in a room or not. Cost: one entry on the bus. Any
// goroutine.
//
// Scope: all workers.
func (s *Server) BroadcastAll(v any, except ...string) error {
	f, err := s.encodeShared(v)
	if err != nil {
		return err
	}
	out := idsOf(except)
	p := &publication{srv: s, frame: f, spread: &spread{except: s.own(out)}}
	if err := p.postEverywhere(); err != nil || s.peers == nil {
		return err
	}
	s.forwardSpread(f, nil, out)
	return nil
}

func (p *publication) postEverywhere() error {
	for i, l := range p.srv.loops {
		if !p.Reserve(l.Index) {
			for _, reserved := range p.srv.loops[:i] {
				p.Cancel(reserved.Index)
			}
			return p.srv.orOverloaded(rooms.ErrOverloaded)
		}
	}
	for _, l := range p.srv.loops {
		p.Post(l.Index, 0)
	}
	p.wake()
	return nil
}

// BroadcastWhere sends v to the open connections that chosen accepts, and returns their number. chosen runs on the caller's
// goroutine. A function cannot be sent to another process: to reach the connections of all workers, use
// [Server.BroadcastMatching] or [Server.BroadcastFiltered]. Any goroutine.
//
// Scope: this worker.
func (s *Server) BroadcastWhere(chosen func(*Conn) bool, v any, except ...string) (int, error) {
	f, err := encodeFrame(v)
	if err != nil {
		return 0, err
	}
	return s.broadcastChosen(chosen, f, s.own(idsOf(except)))
}

// broadcastChosen sends the frame to all chosen connections or, if a mailbox is full, to none: a refused caller may try
// again.
func (s *Server) broadcastChosen(chosen func(*Conn) bool, f *turn.Frame, out []place) (total int, err error) {
	lists, total := s.chosen(chosen, out)
	for i, conns := range lists {
		if len(conns) > 0 && !s.loops[i].Mail.Reserve(len(f.Plain)) {
			for j := range i {
				if len(lists[j]) > 0 {
					s.loops[j].Mail.Cancel(1, len(f.Plain))
				}
			}
			return 0, s.orOverloaded(rooms.ErrOverloaded)
		}
	}
	for i, conns := range lists {
		if len(conns) > 0 {
			s.loops[i].Post(turn.Letter{Kind: letterSpread, Frame: f, To: &spread{conns: conns}})
		}
	}
	return total, nil
}

// chosen lists the chosen connections by loop.
func (s *Server) chosen(chosen func(*Conn) bool, out []place) (lists [][]*Conn, total int) {
	lists = make([][]*Conn, len(s.loops))
	for i, l := range s.loops {
		l.each(func(c *Conn) bool {
			if c.isOpen() && !slices.Contains(out, c.place()) && chosen(c) {
				lists[i] = append(lists[i], c)
			}
			return true
		})
		total += len(lists[i])
	}
	return lists, total
}

// notice is the announcement of a join or a leave, kept until the end of the turn.
//
// Owner: loop.
type notice struct {
	room   *rooms.Room
	place  place
	seq    uint64 // of the join or leave: the notice is for members from before it
	joined bool
}

// notify keeps a notice until the end of the turn. A join and a leave of one connection within the turn cancel each other
// [wire protocol, announcements], unless the room has changed in between: a member that came then saw the one and must get
// the other.
func (l *loop) notify(n notice) {
	if l.srv.tuned.Load().announceMax <= 0 {
		return
	}
	for i := len(l.notices) - 1; i >= 0 && i >= len(l.notices)-noticesSearched; i-- {
		if old := &l.notices[i]; old.room == n.room && old.place == n.place && old.joined != n.joined {
			if n.seq != old.seq+1 {
				break
			}
			l.notices = slices.Delete(l.notices, i, i+1)
			l.Owes.Writes = len(l.notices) > 0
			return
		}
	}
	l.notices = append(l.notices, n)
	l.Owes.Writes = true
}

// noticesSearched bounds the look back: a pair that is further apart is announced, one after the other.
const noticesSearched = 64

// announce publishes the notices of the turn.
func (l *loop) announce() {
	if len(l.notices) == 0 {
		return
	}
	for i := range l.notices {
		n := &l.notices[i]
		if l.maySay(n.room) {
			l.say(n)
		}
		n.room = nil
	}
	l.notices = l.notices[:0]
	l.Owes.Writes = false
}

func (l *loop) say(n *notice) {
	var id [idSize]byte
	f := noticeFrame(n.room, l.srv.idOf(n.place).Append(id[:0]), n.joined)
	p := &l.outgoing
	*p = publication{srv: l.srv, frame: f, room: n.room, except: n.place}
	l.srv.orOverloaded(n.room.Tell(p, n.seq)) // an overloaded loop loses the notice; the turn goes on
	p.wake()
	l.forwardNotice(f, n)
}

// noticeFrame announces a join or leave in a room. id is borrowed.
func noticeFrame(r *rooms.Room, id []byte, joined bool) *turn.Frame {
	m := message.Notice{Room: r.Name(), ID: id}
	return turn.BuildFrame(ws.OpText, len(m.Room)+noticeBytes, func(dst []byte) []byte {
		if joined {
			return message.AppendMemberJoined(dst, m)
		}
		return message.AppendMemberLeft(dst, m)
	})
}

const noticeBytes = 80

// maySay reports whether a room is small enough for notices, and tells its members when that changes.
func (l *loop) maySay(r *rooms.Room) bool {
	limit, n := l.srv.tuned.Load().announceMax, r.Len()+r.Away()
	switch {
	case n > limit && r.SetQuiet(true):
		l.tellAnnouncements(r, false, n)
	case n < (limit+1)/2 && r.SetQuiet(false):
		l.tellAnnouncements(r, true, n)
	}
	return !r.Quiet()
}

func (l *loop) tellAnnouncements(r *rooms.Room, on bool, members int) {
	f := turn.BuildFrame(ws.OpText, len(r.Name())+noticeBytes, func(dst []byte) []byte {
		return message.AppendAnnouncements(dst, r.Name(), on, members)
	})
	p := &l.outgoing
	*p = publication{srv: l.srv, frame: f, room: r, except: nowhere}
	if _, err := p.publish(); err != nil {
		r.SetQuiet(on) // the members were not told: the next join or leave tries again
		return
	}
	l.announcementsChanged(r, on)
}
