package turn

// Rescue is deferred where a stranger's connection is worked for outside its turn.
func (l *Loop) Rescue(c *Conn) {
	if v := recover(); v != nil {
		l.giveUp(c, v, false)
	}
}

// rescueTurn is deferred where a stranger's input is taken with its answers in the cork. Once the cork has been handed to
// the write, an answer may have left in part.
func (l *Loop) rescueTurn(c *Conn) {
	if v := recover(); v != nil {
		l.giveUp(c, v, l.corked != c)
		l.uncork(c)
	}
}

// giveUp ends a connection in whose work a panic was caught. Where it was being written to, an answer may have left in
// part: then, and where it is closing already, nothing more can be told it. A second panic is not caught.
func (l *Loop) giveUp(c *Conn, v any, writing bool) {
	l.Ground.Survive("the turn of a connection", c, v)
	l.goingOn = false
	if c.Rare != nil {
		c.Rare.rest = nil // the panic may be in it, and would come again
	}
	if !writing && c.Phase < PhaseClosing {
		l.EndBy(c, CausePanic)
		c.Flags |= flagNoHandshake // what it sends is not worth reading any more
		return
	}
	if c.Phase < PhaseClosing {
		l.detach(c, CausePanic)
		c.Phase = PhaseClosing
	}
	if writing {
		l.cork = l.cork[:0]
	}
	l.drop(c)
}
