package verify

import "fmt"

// noticed checks a member_joined or member_left: its reader must be a member, its subject must have asked to join or may
// have left, and joins and leaves of one subject must alternate.
func (c *conn) noticed(m *body) {
	k := c.k
	k.report.Checked["notices"]++
	joined := m.Type == "member_joined"
	if c.mode == frozen {
		return // it reads now the notices that came while it was frozen, of connections that may be forgotten
	}
	r, other := k.byName[m.Room], k.byID[m.ID]
	c.note(step{what: "reads " + m.Type, room: r, from: other, n: -1})
	complain := func(format string, args ...any) {
		k.found("notice", r, []*conn{c, other}, fmt.Sprintf("%v reads %s of %v in %s, ", c, m.Type, other, m.Room)+fmt.Sprintf(format, args...))
	}
	if r == nil || other == nil {
		complain("connection %s: no such room or connection", m.ID)
		return
	}
	s, of := c.stays[r], other.stays[r]
	switch {
	case s == nil || s.state == joining || s.state == out:
		complain("where it is no member")
		return
	case other == c:
		complain("which is itself")
		return
	case of == nil && other.claim != nil && (joined || k.remembers()): // with slow:disconnect it may be sent away at once
	case of == nil:
		complain("which never asked to join")
		return
	}
	was, known := s.heard[other]
	if known && was == joined && !r.quiet {
		complain("which it has read before")
	}
	if !joined && of != nil && of.certain && !of.again {
		k.suspect("notice", r, []*conn{other}, fmt.Sprintf("%v reads that %v has left %s, where it still is", c, other, r.name))
	}
	s.heard[other] = joined
}

// announcing records that a room has grown past announcing, or has shrunk again.
func (c *conn) announcing(m *body) {
	if r := c.k.byName[m.Room]; r != nil {
		r.quiet = true // from here on its notices are no longer complete
	}
}

// missedNotice finds a notice that a member should have got by the quiet point.
func (r *room) missedNotice() (s *stay, other *conn, what string) {
	for s := range r.members {
		if !s.certain {
			continue
		}
		for x := range r.members {
			joined, known := s.heard[x.conn]
			if x.certain && x != s && (known && !joined || !known && x.asked > s.joined && x.asked > s.since) {
				return s, x.conn, "member_joined"
			}
		}
		for _, x := range r.parted {
			if s.missesLeave(x) {
				return s, x.conn, "member_left"
			}
		}
		for x := range r.members {
			if x.conn.phase == ended && x.joined != 0 && s.missesLeave(x) {
				return s, x.conn, "member_left"
			}
		}
	}
	return nil, nil, ""
}

// missesLeave reports whether s should have got a notice of x's leave. Three leaves are excused: a connection that the
// server ended may have left before s joined; a worker that was frozen or about to be killed when s joined may not have
// told its members to the others, and then no leave of them is told; a connection that froze while it left may have been
// announced before the latest quiet point.
func (s *stay) missesLeave(x *stay) bool {
	if x.conn == s.conn || x.conn.stays[x.room] != x {
		return false
	}
	joined, known := s.heard[x.conn]
	if known {
		return joined
	}
	if x.conn.killed && s.joined > x.conn.k.beforeKill {
		return false
	}
	end := x.left
	if end == 0 || x.state == leaving && x.conn.unsure { // the server may have ended it before it asked
		end = x.conn.cutAt
	}
	return x.joined < s.asked && end > s.joined && end > s.since
}

// forgetNotices begins anew at a quiet point: all notices up to now have come or were reported.
func (r *room) forgetNotices(evt uint64) {
	for s := range r.members {
		clear(s.heard)
		s.since = evt
	}
	r.parted = r.parted[:0]
}
