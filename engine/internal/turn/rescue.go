package turn

// Rescue is deferred around work for a connection outside its own turn.
func (l *Loop) Rescue(c *Conn) {
	if v := recover(); v != nil {
		l.giveUp(c, v, false)
	}
}

// rescueTurn is deferred around the turn that takes a connection's input, with its answers in the cork. Once the cork has
// been handed to the write, an answer may have left in part.
func (l *Loop) rescueTurn(c *Conn) {
	if v := recover(); v != nil {
		l.giveUp(c, v, l.corked != c)
		l.uncork(c)
	}
}

// giveUp ends a connection whose work has panicked. If the panic came while its answers were written, one may have left in
// part: then no close frame can follow, nor on a connection that is closing already. A second panic is not caught.
func (l *Loop) giveUp(c *Conn, v any, writing bool) {
	l.Ground.Survive("the turn of a connection", c, v)
	l.goingOn = false
	if c.Rare != nil {
		c.Rare.rest = nil // the panic may have come from it, and would come again
	}
	if !writing && c.Phase < PhaseClosing {
		c.EndBy(CausePanic)
		c.Flags |= flagNoHandshake // its input is discarded from now on
		return
	}
	if c.Phase < PhaseClosing {
		c.detach(CausePanic)
		c.Phase = PhaseClosing
	}
	if writing {
		l.cork = l.cork[:0]
	}
	c.drop()
}
