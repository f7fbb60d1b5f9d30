package turn

import (
	"slices"

	"github.com/parleyd/parley/engine/internal/invariant"
)

// The invariants of a loop at the end of each turn, in builds with the tag invariants. A turn checks the connection that it
// served and a few others, the next ones with each turn, so that its cost does not depend on the number of connections. A
// list is compared with its connections while it is short.

const (
	checkedConns = 2
	checkedList  = 64 // longer lists are not walked through
)

// Check panics where the loop contradicts itself.
func (l *Loop) Check() {
	if len(l.Doomed)+len(l.Drops) > 0 {
		invariant.Broken("the turn is over, and %d connections are still to be ended, %d to be dropped", len(l.Doomed), len(l.Drops))
	}
	dirty := l.Dirty[l.dirtyAt:]
	if (len(dirty) > 0 || l.Owes.Writes) && !l.Mail.Rung.Load() {
		invariant.Broken("%d connections are to be written to (notices: %v), and no drain follows", len(dirty), l.Owes.Writes)
	}
	for _, c := range dirty[:min(len(dirty), checkedList)] {
		if !c.Has(FlagDirty) {
			invariant.Broken("connection %d is in the dirty list without the flag", c.Slot)
		}
	}
	l.Mail.check(l.Letters[l.Opened:])
	if c := l.Served; c != nil && c.Phase != PhaseGone {
		l.checkConn(c)
	}
	for range min(checkedConns, l.Slab.Size) {
		if l.CheckAt++; l.CheckAt >= l.Slab.Size {
			l.CheckAt = 0
		}
		if c := l.Slab.At(l.CheckAt); c != nil {
			l.checkConn(c)
		}
	}
}

// check panics where more letters wait than places are taken for them. unopened are the letters that the loop has taken out.
func (m *Mailbox) check(unopened []Letter) {
	m.Mu.Lock()
	defer m.Mu.Unlock()
	letters, bytes := int64(0), int64(0)
	if len(m.Letters)+len(unopened) <= checkedList {
		for _, list := range [...][]Letter{m.Letters, unopened} {
			for i := range list {
				if f := list[i].Frame; f != nil {
					letters++
					bytes += int64(len(f.Plain))
				}
			}
		}
	}
	if waiting, held := m.Waiting.Load(), m.Bytes.Load(); waiting < letters || held < bytes {
		invariant.Broken("%d letters of %d bytes wait in a mailbox that counts %d of %d", letters, bytes, waiting, held)
	}
}

// checkConn panics where a connection contradicts itself or its loop.
func (l *Loop) checkConn(c *Conn) {
	switch {
	case l.Slab.At(c.Slot) != c || c.Gen == 0 || c.Loop != l:
		invariant.Broken("connection %d of generation %d is not in its slot", c.Slot, c.Gen)
	case c.Phase == PhaseGone && !c.Has(FlagKept):
		invariant.Broken("connection %d is gone and keeps its slot", c.Slot)
	case c.Posted.Load() < 0:
		invariant.Broken("connection %d counts %d posted frames", c.Slot, c.Posted.Load())
	}
	checkQueue(c)
	l.checkLists(c)
	l.Floor.Check(c)
}

// checkQueue compares the backlog with the queued frames. A connection that is being dropped is skipped: a caught panic may
// have left its queue in any state, and nothing more is written to it.
func checkQueue(c *Conn) {
	if c.Has(FlagDropping) {
		return
	}
	if c.First == nil {
		if c.More != nil || c.Taken != 0 || c.Backlog != 0 {
			invariant.Broken("connection %d has an empty queue, of which %d bytes are taken and %d left", c.Slot, c.Taken, c.Backlog)
		}
		return
	}
	first := len(c.First.variant(c.Bits))
	if int(c.Taken) < 0 || int(c.Taken) >= first && first > 0 {
		invariant.Broken("connection %d has written %d bytes of a frame of %d", c.Slot, c.Taken, first)
	}
	if !c.Has(FlagDirty) && !c.Blocked && c.Phase < phaseLinger {
		invariant.Broken("connection %d has frames queued, and no write follows", c.Slot)
	}
	bytes := first - int(c.Taken)
	if c.More != nil {
		if len(c.More.frames)-c.More.head > checkedList {
			return
		}
		for _, f := range c.More.frames[c.More.head:] {
			bytes += len(f.variant(c.Bits))
		}
	}
	if bytes != c.Backlog {
		invariant.Broken("connection %d has %d bytes queued and counts %d", c.Slot, bytes, c.Backlog)
	}
}

// checkLists compares the connection's marks with the lists that the marks name.
func (l *Loop) checkLists(c *Conn) {
	if dirty := l.Dirty[l.dirtyAt:]; c.Has(FlagDirty) && len(dirty) <= checkedList && !slices.Contains(dirty, c) {
		invariant.Broken("connection %d is marked dirty, and not in the list", c.Slot)
	}
	if c.Doomed {
		invariant.Broken("connection %d is marked to be ended, and the turn is over", c.Slot)
	}
	if listed := c.Rare != nil && c.Rare.Listed; len(l.Late) <= checkedList && slices.Contains(l.Late, c) != listed {
		invariant.Broken("connection %d says that its input waits: %v, and the list says otherwise", c.Slot, listed)
	}
}
