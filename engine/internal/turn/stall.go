package turn

// Time during which a loop did not look does not count against its connections: the process was stopped, or starved, or
// a handler held the loop. What the peers sent meanwhile lies unread in their sockets, and the tick that ends them may
// come first. So a tick that comes late moves everything that is measured against a peer: its silence, the deadlines of
// its handshake, authentication, answers and close, the grace of its backlog; and the time of sessions.
//
// The alternative, a second look before each end, costs every silent peer a tick and a flag, and would be needed in each
// of these places.

// stallTicks is how many ticks one may be late: above that, what it is late by does not count.
const stallTicks = 4

// catchUp is told that the tick was due at due.
func (l *Loop) catchUp(due int64) {
	late := l.Now - due
	if due == 0 || late <= stallTicks*int64(l.Ground.Tick) {
		return
	}
	l.Count[CountStalls].Add(1)
	l.Slab.Each(func(c *Conn) bool {
		l.excuse(c, late)
		return true
	})
	l.Floor.Stalled(late)
}

// excuse moves what is measured against the peer of c by the time of a stall that ends now.
func (l *Loop) excuse(c *Conn, stall int64) {
	now := l.Now
	for heard := c.LastActive.Load(); !c.LastActive.CompareAndSwap(heard, max(heard, min(heard+stall, now))); {
		heard = c.LastActive.Load()
	}
	r := c.Rare
	if r == nil {
		return
	}
	if r.deadline != 0 {
		r.deadline += stall
	}
	if r.softSince != 0 {
		r.softSince = min(r.softSince+stall, now)
	}
	if r.Alarm != 0 {
		l.Owner.Excuse(c, stall)
	}
}
