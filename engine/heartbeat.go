package engine

import "github.com/gobwas/ws"

// A connection has one timer in its loop's wheel, set to the earliest of what it waits for. Activity
// only stamps the connection; when the timer comes up, the stamp is looked at.

// roomsHeartbeat is the seed's ping and the protocol's, for every connection the same, in one write.
var roomsHeartbeat = func() *outFrame {
	f := newOutFrame(ws.OpText, []byte(`{"type":"ping"}`))
	f.plain = append(f.plain, newOutFrame(ws.OpPing, nil).plain...)
	f.payload = int32(len(f.plain)) // two frames: never compressed
	return f
}()

// arm sets the timer of c to the earliest deadline it has.
func (l *turnLoop) arm(c *turnConn) {
	at := c.nextBeat
	if r := c.rare; r != nil {
		at = earlier(at, r.deadline)
		at = earlier(at, r.alarm)
		if r.softSince != 0 {
			at = earlier(at, r.softSince+int64(l.ground.limits.grace))
		}
	}
	if at == 0 {
		l.wheel.clear(c.slot)
		return
	}
	l.wheel.set(c.slot, at)
}

// setAlarm sets the one timer that the owner of c has; 0: none.
func (l *turnLoop) setAlarm(c *turnConn, at int64) {
	if at != 0 || c.rare != nil {
		c.extra().alarm = at
	}
	l.arm(c)
}

// earlier is the smaller of two times, of which 0 means none.
func earlier(a, b int64) int64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// timeout sees which of its deadlines c has reached.
func (l *turnLoop) timeout(c *turnConn) {
	defer l.rescue(c)
	if r := c.rare; r != nil {
		if r.deadline != 0 && r.deadline <= l.now {
			r.deadline = 0
			l.overdue(c)
		}
		if r.alarm != 0 && r.alarm <= l.now {
			r.alarm = 0
			l.owner.alarm(c)
		}
		if r.softSince != 0 && r.softSince+int64(l.ground.limits.grace) <= l.now {
			r.softSince = 0
			l.endBy(c, CauseSlow)
		}
	}
	if c.nextBeat != 0 && c.nextBeat <= l.now {
		l.beat(c)
	}
	if c.phase != phaseGone {
		l.arm(c)
	}
}

// overdue ends what a phase has time for.
func (l *turnLoop) overdue(c *turnConn) {
	if c.has(flagMute) && c.phase < phaseClosing {
		l.endBy(c, CausePeerGone)
		return
	}
	switch c.phase {
	case phaseHead, phasePreface:
		// Its request may lie unread: what was there before this tick is read before the next one, for the kernel tells
		// of descriptors in the order in which they became ready.
		if r := c.rare; !r.lastLook {
			r.lastLook, r.deadline = true, l.now+1
			return
		}
		l.refuse(c, refusalTooSlow)
	case phaseClosing, phaseRefused:
		if c.blocked {
			l.drop(c) // it does not even take the last that it is told
			return
		}
		l.linger(c)
	case phaseLinger:
		l.drop(c)
	}
}

// beat asks a silent connection for a sign of life, or ends it.
func (l *turnLoop) beat(c *turnConn) {
	t := l.ground.beats.Load()
	interval, limit := t.interval, t.timeout
	if c.phase != phaseOpen {
		c.nextBeat = 0
		return
	}
	heard := c.lastActive.Load()
	silence := l.now - heard
	switch {
	case silence >= limit:
		c.nextBeat = 0
		l.endBy(c, CauseHeartbeat)
	case silence < interval:
		c.nextBeat = heard + interval
	default:
		l.tally[countPings]++
		l.pushRaw(c, l.ground.heartbeat)
		if c.blocked {
			l.judge(c)
		} else {
			l.soil(c)
		}
		c.nextBeat = min(heard+(silence/interval+1)*interval, heard+limit)
	}
}

var bareHeartbeat = newOutFrame(ws.OpPing, nil)

// rebeat moves heartbeats forward that have become due earlier. Those that have become due later find that out
// themselves.
func (l *turnLoop) rebeat() {
	t := l.ground.beats.Load()
	l.slab.each(func(c *turnConn) bool {
		if c.nextBeat != 0 {
			heard := c.lastActive.Load()
			c.nextBeat = min(c.nextBeat, max(l.now, heard+t.interval), max(l.now, heard+t.timeout))
			l.arm(c)
		}
		return true
	})
}
