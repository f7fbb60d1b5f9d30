package turn

import "github.com/gobwas/ws"

// A connection has one timer in its loop's wheel, set to its earliest deadline. Activity only stamps the connection; the
// timer looks at the stamp.

// RoomsHeartbeat is the seed's ping and the protocol's ping in one frame, the same for every connection.
var RoomsHeartbeat = func() *Frame {
	f := NewFrame(ws.OpText, []byte(`{"type":"ping"}`))
	f.Plain = append(f.Plain, NewFrame(ws.OpPing, nil).Plain...)
	f.Payload = int32(len(f.Plain)) // two frames: never compressed
	return f
}()

// arm sets the timer of c to the earliest deadline it has.
func (l *Loop) arm(c *Conn) {
	at := c.nextBeat
	if r := c.Rare; r != nil {
		at = Earlier(at, r.deadline)
		at = Earlier(at, r.Alarm)
		if r.softSince != 0 {
			at = Earlier(at, r.softSince+int64(l.Ground.Limits.Grace))
		}
	}
	if at == 0 {
		l.Wheel.Clear(c.Slot)
		return
	}
	l.Wheel.Set(c.Slot, at)
}

// SetAlarm sets the one timer of the owner of c; 0: none.
func (c *Conn) SetAlarm(at int64) {
	l := c.Loop
	if at != 0 || c.Rare != nil {
		c.Extra().Alarm = at
	}
	l.arm(c)
}

// Earlier is the smaller of two times, of which 0 means none.
func Earlier(a, b int64) int64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// timeout acts on the deadlines that c has reached.
func (l *Loop) timeout(c *Conn) {
	defer l.Rescue(c)
	if r := c.Rare; r != nil {
		if r.deadline != 0 && r.deadline <= l.Now {
			r.deadline = 0
			c.overdue()
		}
		if r.Alarm != 0 && r.Alarm <= l.Now {
			r.Alarm = 0
			l.Owner.Alarm(c)
		}
		if r.softSince != 0 && r.softSince+int64(l.Ground.Limits.Grace) <= l.Now {
			r.softSince = 0
			c.EndBy(CauseSlow)
		}
	}
	if c.nextBeat != 0 && c.nextBeat <= l.Now {
		c.beat()
	}
	if c.Phase != PhaseGone {
		l.arm(c)
	}
}

// overdue ends a phase whose time is over.
func (c *Conn) overdue() {
	l := c.Loop
	if c.Has(FlagMute) && c.Phase < PhaseClosing {
		c.EndBy(CausePeerGone)
		return
	}
	switch c.Phase {
	case phaseHead, phasePreface:
		// Its request may still be unread. Input that was there before this tick is read before the next one, because the
		// kernel reports descriptors in the order in which they became ready.
		if r := c.Rare; !r.lastLook {
			r.lastLook, r.deadline = true, l.Now+1
			return
		}
		c.Refuse(refusalTooSlow)
	case PhaseClosing, phaseRefused:
		if c.Blocked {
			c.drop() // the peer does not even read the refusal or the close frame
			return
		}
		c.linger()
	case phaseLinger:
		c.drop()
	}
}

// beat pings a silent connection, or ends it.
func (c *Conn) beat() {
	l := c.Loop
	t := l.Ground.Beats.Load()
	interval, limit := t.Interval, t.Timeout
	if c.Phase != PhaseOpen {
		c.nextBeat = 0
		return
	}
	heard := c.LastActive.Load()
	silence := l.Now - heard
	switch {
	case silence >= limit:
		c.nextBeat = 0
		c.EndBy(CauseHeartbeat)
	case silence < interval:
		c.nextBeat = heard + interval
	default:
		if r := c.Rare; r != nil && r.record.Forget(l.Now) {
			c.Trim()
		}
		l.tally[CountPings]++
		Control(c, l.Ground.Heartbeat)
		c.nextBeat = min(heard+(silence/interval+1)*interval, heard+limit)
	}
}

// Control queues a control frame that is no answer.
func Control(c *Conn, f *Frame) {
	c.push(f)
	if c.Blocked {
		c.checkBacklog()
	}
}

// BareHeartbeat is the protocol's ping alone.
var BareHeartbeat = NewFrame(ws.OpPing, nil)

// Rebeat moves those heartbeats forward that have become due earlier. A timer that is now too early finds the later time
// when it fires.
func (l *Loop) Rebeat() {
	t := l.Ground.Beats.Load()
	l.Slab.Each(func(c *Conn) bool {
		if c.nextBeat != 0 {
			heard := c.LastActive.Load()
			c.nextBeat = min(c.nextBeat, max(l.Now, heard+t.Interval), max(l.Now, heard+t.Timeout))
			l.arm(c)
		}
		return true
	})
}
