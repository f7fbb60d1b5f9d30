package fanout

import (
	"slices"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/protocol/message"
	"github.com/parleyd/parley/rooms"
)

// notice is the announcement of a join or a leave, kept until the end of the turn.
//
// Owner: loop.
type notice struct {
	room   *rooms.Room
	place  ident.Place
	user   string // as others learn it; "" for none
	seq    uint64 // of the join or leave: the notice is for members from before it
	joined bool
}

// notify keeps a notice until the end of the turn. A join and a leave of one connection within the turn cancel each other
// [wire protocol, announcements], unless the room has changed in between: a member that came then saw the one and must get
// the other.
func (l *Loop) notify(n notice) {
	if l.Rooms.Above.AnnounceMax() <= 0 {
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

// Announce publishes the notices of the turn.
func (l *Loop) Announce() {
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

func (l *Loop) say(n *notice) {
	var id [ident.TextBytes]byte
	f := noticeFrame(message.Notice{Room: n.room.Name(), ID: l.Link.IDOf(n.place).Append(id[:0]), User: n.user}, n.joined)
	p := &l.outgoing
	*p = publication{rooms: l.Rooms, frame: f, room: n.room, except: n.place}
	l.Rooms.orOverloaded(n.room.Tell(p, n.seq)) // an overloaded loop loses the notice; the turn goes on
	p.wake()
	l.forwardNotice(f, n)
}

// noticeFrame announces a join or leave. The id in m is borrowed.
func noticeFrame(m message.Notice, joined bool) *turn.Frame {
	size := len(m.Room) + noticeBytes
	if m.User != "" {
		size += len(m.User) + userBytes
	}
	return turn.BuildFrame(ws.OpText, size, func(dst []byte) []byte {
		if joined {
			return message.AppendMemberJoined(dst, m)
		}
		return message.AppendMemberLeft(dst, m)
	})
}

// noticeBytes is about what a notice costs besides the room; userBytes is about what a user costs besides its text.
const (
	noticeBytes = 80
	userBytes   = len(`,"user":""`)
)

// maySay reports whether a room is small enough for notices, and tells its members when that changes.
func (l *Loop) maySay(r *rooms.Room) bool {
	limit, n := l.Rooms.Above.AnnounceMax(), r.Len()+r.Away()
	switch {
	case n > limit && r.SetQuiet(true):
		l.tellAnnouncements(r, false, n)
	case n < (limit+1)/2 && r.SetQuiet(false):
		l.tellAnnouncements(r, true, n)
	}
	return !r.Quiet()
}

func (l *Loop) tellAnnouncements(r *rooms.Room, on bool, members int) {
	f := turn.BuildFrame(ws.OpText, len(r.Name())+noticeBytes, func(dst []byte) []byte {
		return message.AppendAnnouncements(dst, r.Name(), on, members)
	})
	p := &l.outgoing
	*p = publication{rooms: l.Rooms, frame: f, room: r, except: Nowhere}
	if _, err := p.publish(); err != nil {
		r.SetQuiet(on) // the members were not told: the next join or leave tries again
		return
	}
	l.announcementsChanged(r, on)
}
