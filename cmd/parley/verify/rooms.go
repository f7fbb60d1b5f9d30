package verify

import (
	"fmt"
	"time"

	"github.com/parleyd/parley/cmd/parley/verify/history"
)

// state is the progress of a stay, as the client knows it.
type state uint8

const (
	joining state = iota
	in
	leaving
	out
)

// A stay is a connection's membership of a room, from asking to join to the end.
//
// Owner: the goroutine that runs the checker.
type stay struct {
	conn   *conn
	room   *room
	state  state
	asked  uint64 // place in the order of events of the join
	joined uint64 // place of its answer
	left   uint64 // place of the leave
	moved  time.Time
	again  bool // the connection was in this room before

	next map[*conn]int // the next place in each publisher's lane

	heard map[*conn]bool // whether the latest notice about each other connection was a join
	since uint64         // earlier events are settled

	certain  bool           // it is certainly a member
	surely   time.Duration  // granted when it became certain
	possible bool           // it may be a member
	over     bool           // its connection has ended, and the server knows; state is the one that a resume restores
	expelled bool           // a backend has taken it out, or is about to
	moving   bool           // a backend takes it in or out, and the client has not read so
	awaited  bool           // a resume of its session is under way: the heir may have its seat before we read so
	stand    *history.Stand // its position in a room with history; nil: not told yet
	rebased  bool           // its connection ended while the server may have told it another position
	late     bool           // its join was refused because an answer was late: it may have had a seat for a moment
}

// A room is a room of the server's that this run uses.
//
// Owner: the goroutine that runs the checker.
type room struct {
	name       string
	closed     bool // not all users may enter it
	lanes      map[*conn]*lane
	members    map[*stay]bool // the possible ones
	certain    int
	possible   int
	departures int       // of certain members, so far
	removals   int       // of possible members, so far
	removed    []removal // the latest removals
	parted     []*stay
	quiet      bool          // it has grown past announcing
	history    *history.Room // nil: it has none
}

func newRoom(name string) *room {
	return &room{name: name, lanes: map[*conn]*lane{}, members: map[*stay]bool{}}
}

// stayIn begins a stay.
func (c *conn) stayIn(r *room, st state) *stay {
	c.k.evt++
	s := &stay{conn: c, room: r, state: st, asked: c.k.evt, next: map[*conn]int{}, heard: map[*conn]bool{}}
	s.since = s.asked
	if old := c.stays[r]; old != nil {
		s.again = true
		if old.possible {
			old.become(out)
		}
	}
	c.stays[r] = s
	s.reckon()
	return s
}

// become changes the state of a stay.
func (s *stay) become(st state) {
	k := s.conn.k
	k.evt++
	s.state, s.moved = st, k.now
	switch st {
	case in:
		s.joined = k.evt
	case leaving:
		s.left = k.evt
	case out:
		s.conn.actor.leaves(s)
		if s.joined != 0 {
			s.room.parted = append(s.room.parted, s)
		}
	}
	s.reckon()
}

// reckon renews the certainty of a stay, and the room's counts.
func (s *stay) reckon() {
	r := s.room
	certain, possible := s.state == in && s.conn.sure(), s.state != out && (!s.over || s.awaited)
	if certain != s.certain {
		s.certain = certain
		if certain {
			s.surely = s.conn.k.granted
			r.certain++
			s.conn.k.limitReached(r)
		} else {
			r.certain--
			r.departures++
		}
	}
	if possible != s.possible {
		s.possible = possible
		if possible {
			r.possible++
			r.members[s] = true
		} else {
			r.possible--
			r.remove(s)
		}
	}
}

// removal is the end of a possible member.
type removal struct {
	at time.Duration // granted
}

// remove takes a possible member out.
func (r *room) remove(s *stay) {
	k := s.conn.k
	r.removals++
	delete(r.members, s)
	for len(r.removed) > 0 && k.granted-r.removed[0].at > k.opt.Patience+2*countsWithin {
		r.removed = r.removed[1:]
	}
	if s.joined != 0 || s.conn.phase == ended || s.late {
		r.removed = append(r.removed, removal{k.granted})
	}
}

// verdictTime is how long several workers may go on refusing after a seat has become free. A join that came to nothing, because
// its answer was late or its connection was cut, may have had a seat, too.
const verdictTime = 250 * time.Millisecond

// seatsUnderWay is the seats of a room that several workers may be handing to each other at a moment: nobody sits there, and none of
// them can give it to a client.
const seatsUnderWay = 1

// mostIn is the most connections that may have had a seat of a room when a join was refused, the refused one included:
// members, connections on their way in, and those that left a moment ago.
func (k *checker) mostIn(q *request) int {
	most := q.room.possible + q.room.removals - q.marks.removals
	if k.opt.ExactCounts {
		return most
	}
	most += seatsUnderWay
	for _, x := range q.room.removed {
		if x.at < q.granted && q.granted-x.at < verdictTime {
			most++
		}
	}
	return most
}

// limitReached checks that a room has not more members than its limit. The server may have ended some of them, unread by
// us: each must prove that it was alive.
func (k *checker) limitReached(r *room) {
	if k.opt.RoomLimit == 0 {
		return
	}
	k.report.Checked["limits"]++
	if r.certain <= k.opt.RoomLimit {
		return
	}
	var conns []*conn
	for s := range r.members {
		if s.certain {
			conns = append(conns, s.conn)
		}
	}
	k.suspect("limit", r, conns, fmt.Sprintf("%s holds %d members at once, %d are allowed", r.name, r.certain, k.opt.RoomLimit))
}

// A count is a room's size in an answer of the server. It is checked when all events under way at the time have been read.
//
// Owner: the checker's queue.
type count struct {
	asker fmt.Stringer
	room  *room
	what  string
	got   int
	low   int // the least less the number of certain members
	most  int
	from  marks
	due   int64
}

// marks are a room's counters when a request was sent.
type marks struct{ certain, departures, removals int }

func (r *room) marks() marks { return marks{r.certain, r.departures, r.removals} }

// counted records the room's size in an answer. The count of a broadcast does not include its publisher.
func (k *checker) counted(c *conn, q *request, got int) {
	n := &count{asker: c, room: q.room, what: q.kind, got: got, from: q.marks, due: k.now.UnixNano() + countWait}
	if !k.opt.ExactCounts {
		k.countedByMany(c, q, n)
		return
	}
	without := 0
	switch {
	case q.kind == "broadcast":
		n.low, without = -1, 1
	case q.kind == "join" && !q.already:
		n.low = 1
	}
	// At no moment between the request and the answer were there more members than those that may be there now, and
	// those that may have left since.
	n.most = q.room.possible + q.room.removals - q.marks.removals - without
	k.counts = append(k.counts, n)
}

// countedByMany is counted for several workers. Each counts its own members exactly, and has the counts of the others as of
// some moment within the last second. So a connection that was a member all that time is counted, and one that was a member
// at no moment of it is not. A member that is being taken over may be counted on its old and on its new worker.
func (k *checker) countedByMany(c *conn, q *request, n *count) {
	since := q.granted - countsWithin
	if k.restUntil > since {
		k.report.Done["counts not judged"]++ // the members of a killed or frozen worker may be counted, or not
		return
	}
	r := q.room
	n.from = marks{departures: r.departures}
	for s := range r.members {
		switch {
		case s.conn == c:
			continue
		case s.certain && s.surely < since:
			n.from.certain++
		}
		n.most++
		if s.awaited {
			n.most++
		}
	}
	for _, x := range r.removed {
		if x.at >= since {
			n.most++
		}
	}
	if q.kind != "broadcast" {
		n.low++
		n.most++
	}
	k.counts = append(k.counts, n)
}

// countWait is how long a count waits for its check, in nanoseconds: by then we have read the ends of connections that the
// server had ended before.
const countWait = int64(1e9)

// judgeCounts checks the counts that are due.
func (k *checker) judgeCounts(all bool) {
	i := 0
	for ; i < len(k.counts) && (all || k.counts[i].due <= k.now.UnixNano()); i++ {
		n := k.counts[i]
		k.report.Checked["counts"]++
		least := max(n.from.certain-(n.room.departures-n.from.departures)+n.low, 0)
		if n.got < least || n.got > n.most {
			c, _ := n.asker.(*conn)
			k.found("count", n.room, []*conn{c}, fmt.Sprintf("%v is told of %d in answer to %s in %s, there were %d to %d",
				n.asker, n.got, n.what, n.room.name, least, n.most))
		}
	}
	k.counts = k.counts[i:]
}
