package engine

// rescue is deferred where a stranger's connection is worked for outside its turn.
func (l *turnLoop) rescue(c *turnConn) {
	if v := recover(); v != nil {
		l.giveUp(c, v, false)
	}
}

// rescueTurn is deferred where a stranger's input is taken with its answers in the cork. Once the cork has been handed to
// the write, an answer may have left in part.
func (l *turnLoop) rescueTurn(c *turnConn) {
	if v := recover(); v != nil {
		l.giveUp(c, v, l.corked != c)
		l.uncork(c)
	}
}

// giveUp ends a connection in whose work a panic was caught. Where it was being written to, an answer may have left in
// part: then, and where it is closing already, nothing more can be told it. A second panic is not caught.
func (l *turnLoop) giveUp(c *turnConn, v any, writing bool) {
	l.ground.survive("the turn of a connection", c, v)
	l.goingOn = false
	if c.rare != nil {
		c.rare.rest = nil // the panic may be in it, and would come again
	}
	if !writing && c.phase < phaseClosing {
		l.endBy(c, CausePanic)
		c.flags |= flagNoHandshake // what it sends is not worth reading any more
		return
	}
	if c.phase < phaseClosing {
		l.detach(c, CausePanic)
		c.phase = phaseClosing
	}
	if writing {
		l.cork = l.cork[:0]
	}
	l.drop(c)
}
