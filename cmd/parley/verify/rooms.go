package verify

import (
	"fmt"
	"time"
)

// state is how far a stay has come, as the client knows it.
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
	asked  uint64 // places in the order of events: the join was sent,
	joined uint64 // its answer read,
	left   uint64 // the leave sent
	moved  time.Time
	again  bool // the connection was in this room before

	next map[*conn]int // the place that each publisher's lane must go on with

	heard map[*conn]bool // the latest notice about each other: it joined
	since uint64         // what happened before is settled

	certain  bool          // it is a member,
	surely   time.Duration // granted when it became so
	possible bool          // it may be
	over     bool          // its connection has ended, and the server knows; the state is what a session restores
	awaited  bool          // though it is over, somebody resumes that session: he may have its seat before we read so
}

// A room is a room of the server's that this run uses.
//
// Owner: the goroutine that runs the checker.
type room struct {
	name       string
	lanes      map[*conn]*lane
	members    map[*stay]bool // the possible ones
	certain    int
	possible   int
	departures int       // of certain members, so far
	removals   int       // of possible ones,
	removed    []removal // of the latest that were members, or may have been
	parted     []*stay
	quiet      bool // it has grown past announcing
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

// become moves a stay on.
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
		if s.joined != 0 {
			s.room.parted = append(s.room.parted, s)
		}
	}
	s.reckon()
}

// reckon renews what is certain about a stay, and the room's counts with it.
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

// removal is a possible member that is one no longer. The time is granted.
type removal struct {
	at     time.Duration
	joined bool // it had read so; else its connection ended before
}

// remove takes a possible member out.
func (r *room) remove(s *stay) {
	k := s.conn.k
	r.removals++
	delete(r.members, s)
	for len(r.removed) > 0 && k.granted-r.removed[0].at > k.opt.Patience+2*countsWithin {
		r.removed = r.removed[1:]
	}
	if s.joined != 0 || s.conn.phase == ended {
		r.removed = append(r.removed, removal{k.granted, s.joined != 0})
	}
}

// verdictTime is for how long several workers may go on refusing after a room was full.
const verdictTime = 100 * time.Millisecond

// mostIn is how many may have had a seat of a room when a join was refused, the one who asked included: members, those on
// their way in, and those that went a moment ago.
func (k *checker) mostIn(q *request) int {
	most := q.room.possible + q.room.removals - q.marks.removals
	if k.opt.ExactCounts {
		return most
	}
	for _, x := range q.room.removed {
		if x.joined && x.at < q.granted && q.granted-x.at < verdictTime {
			most++
		}
	}
	return most
}

// limitReached looks whether more are in a room than may be. Some of them may have been ended by the server without
// our having read so: each must prove that it was alive.
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

// A count is what the server said of a room's size, to be judged when all that was under way at the time has come in.
//
// Owner: the checker's queue.
type count struct {
	conn *conn
	room *room
	what string
	got  int
	low  int // what the least differs from the certain members
	most int
	from marks
	due  int64
}

// marks are a room's counters when something was sent.
type marks struct{ certain, departures, removals int }

func (r *room) marks() marks { return marks{r.certain, r.departures, r.removals} }

// counted takes down what an answer says of a room's size. A broadcast's count leaves out who asks.
func (k *checker) counted(c *conn, q *request, got int) {
	n := &count{conn: c, room: q.room, what: q.kind, got: got, from: q.marks, due: k.now.UnixNano() + countWait}
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
	// At no moment between the question and the answer were there more than those that may be there now and
	// those that may have gone since.
	n.most = q.room.possible + q.room.removals - q.marks.removals - without
	k.counts = append(k.counts, n)
}

// countedByMany is counted where several workers serve. Each knows exactly whom it has itself, and of the others how many they
// had at some moment within the last second. So whoever was a member all that time is counted, and nobody is who was none
// at any moment of it. A member that is being taken over may be counted where it was and where it will be.
func (k *checker) countedByMany(c *conn, q *request, n *count) {
	since := q.granted - countsWithin
	if k.restUntil > since {
		k.report.Done["counts not judged"]++ // a worker that was killed or frozen had its members counted, or not
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

// countWait is how long an answer with a count waits to be judged: connections that the server has ended before are
// read as ended by then.
const countWait = int64(1e9)

// judgeCounts judges those that are due.
func (k *checker) judgeCounts(all bool) {
	i := 0
	for ; i < len(k.counts) && (all || k.counts[i].due <= k.now.UnixNano()); i++ {
		n := k.counts[i]
		k.report.Checked["counts"]++
		least := max(n.from.certain-(n.room.departures-n.from.departures)+n.low, 0)
		if n.got < least || n.got > n.most {
			k.found("count", n.room, []*conn{n.conn}, fmt.Sprintf("%v is told of %d in answer to %s in %s, there were %d to %d",
				n.conn, n.got, n.what, n.room.name, least, n.most))
		}
	}
	k.counts = k.counts[i:]
}
