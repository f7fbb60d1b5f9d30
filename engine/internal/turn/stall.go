package turn

// Time during which a loop does not run does not count as silence of its connections. The process was stopped or starved, or
// a handler held the loop. The peers' input of that time lies unread in their sockets, and the tick that would end them may
// come first. So a tick that comes late shifts each time that is measured against a peer: its silence, the deadlines of its
// handshake, authentication, answers and close, the grace of its backlog; and the lifetimes of sessions. Messages that came meanwhile are
// not taken for a burst.
//
// What lost: a second look before each end. It costs a tick and a flag for every silent peer, in each of these places.

// stallTicks is the lateness, in ticks, from which on a tick's lateness counts as a stall.
const stallTicks = 4

// catchUp measures the stall of a tick that was due at due.
func (l *Loop) catchUp(due int64) {
	late := l.Now - due
	if due == 0 || late <= stallTicks*int64(l.Ground.Tick) {
		return
	}
	l.Count[CountStalls].Add(1)
	l.stallBegan, l.stallEnded = due, l.Now
	l.Slab.Each(func(c *Conn) bool {
		c.excuse(late)
		return true
	})
	l.Floor.Stalled(late)
}

// excuse shifts the deadlines of c by a stall that ends now.
func (c *Conn) excuse(stall int64) {
	l := c.Loop
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

// cameSince is the earliest time at which the input of a turn of l may have come: now, unless the loop stalled.
func cameSince(l *Loop) int64 {
	switch late := stallTicks * int64(l.Ground.Tick); {
	case l.Now-l.nextTick > late:
		return l.nextTick // the tick that measures the stall comes behind this turn
	case l.stallEnded != 0 && l.Now-l.stallEnded < late:
		return l.stallBegan // input of that time may still be in the sockets
	}
	return l.Now
}
