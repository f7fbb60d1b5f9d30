package engine

import (
	"slices"

	"github.com/parleyd/parley/engine/internal/invariant"
)

// What must hold on a loop at the end of each turn, where the build has the tag invariants. A turn looks at the connection
// that it served and at a few others, the next ones with each turn, so that its cost does not depend on how many there are:
// lists are compared with what they list as long as they are short.

const (
	checkedConns = 2
	checkedList  = 64 // what is longer is not walked through
)

// check panics where the loop contradicts itself.
func (l *turnLoop) check() {
	if len(l.doomed)+len(l.drops) > 0 {
		invariant.Broken("the turn is over, and %d connections are still to be ended, %d to be dropped", len(l.doomed), len(l.drops))
	}
	dirty := l.dirty[l.dirtyAt:]
	if (len(dirty) > 0 || l.owes.writes) && !l.mail.rung.Load() {
		invariant.Broken("%d connections are to be written to (notices: %v), and no drain follows", len(dirty), l.owes.writes)
	}
	for _, c := range dirty[:min(len(dirty), checkedList)] {
		if !c.has(flagDirty) {
			invariant.Broken("connection %d is in the dirty list without the flag", c.slot)
		}
	}
	l.mail.check(l.letters[l.opened:])
	if c := l.served; c != nil && c.phase != phaseGone {
		l.checkConn(c)
	}
	for range min(checkedConns, l.slab.size) {
		if l.checkAt++; l.checkAt >= l.slab.size {
			l.checkAt = 0
		}
		if c := l.slab.at(l.checkAt); c != nil {
			l.checkConn(c)
		}
	}
}

// check panics where more letters wait than places are taken for them. unopened are those that the loop has taken out.
func (m *mailbox) check(unopened []letter) {
	m.mu.Lock()
	defer m.mu.Unlock()
	letters, bytes := int64(0), int64(0)
	if len(m.letters)+len(unopened) <= checkedList {
		for _, list := range [...][]letter{m.letters, unopened} {
			for i := range list {
				if f := list[i].frame; f != nil {
					letters++
					bytes += int64(len(f.plain))
				}
			}
		}
	}
	if waiting, held := m.waiting.Load(), m.bytes.Load(); waiting < letters || held < bytes {
		invariant.Broken("%d letters of %d bytes wait in a mailbox that counts %d of %d", letters, bytes, waiting, held)
	}
}

// checkConn panics where a connection contradicts itself or its loop.
func (l *turnLoop) checkConn(c *turnConn) {
	switch {
	case l.slab.at(c.slot) != c || c.gen == 0 || c.loop != l:
		invariant.Broken("connection %d of generation %d is not in its slot", c.slot, c.gen)
	case c.phase == phaseGone && !c.has(flagKept):
		invariant.Broken("connection %d is gone and keeps its slot", c.slot)
	case c.posted.Load() < 0:
		invariant.Broken("connection %d counts %d posted frames", c.slot, c.posted.Load())
	}
	checkQueue(c)
	l.checkLists(c)
	l.floor.check(c)
}

// checkQueue compares the backlog with the frames that are queued. Nothing more is written of a connection that is dropped: a
// panic that was caught may have left its queue in any state.
func checkQueue(c *turnConn) {
	if c.has(flagDropping) {
		return
	}
	if c.first == nil {
		if c.more != nil || c.taken != 0 || c.backlog != 0 {
			invariant.Broken("connection %d has an empty queue, of which %d bytes are taken and %d left", c.slot, c.taken, c.backlog)
		}
		return
	}
	first := len(c.first.variant(c.bits))
	if c.taken < 0 || c.taken >= first && first > 0 {
		invariant.Broken("connection %d has written %d bytes of a frame of %d", c.slot, c.taken, first)
	}
	if !c.has(flagDirty) && !c.blocked && c.phase < phaseLinger {
		invariant.Broken("connection %d has frames queued, and no write follows", c.slot)
	}
	bytes := first - c.taken
	if c.more != nil {
		if len(c.more.frames)-c.more.head > checkedList {
			return
		}
		for _, f := range c.more.frames[c.more.head:] {
			bytes += len(f.variant(c.bits))
		}
	}
	if bytes != c.backlog {
		invariant.Broken("connection %d has %d bytes queued and counts %d", c.slot, bytes, c.backlog)
	}
}

// checkLists compares what a connection says of the lists that it is in with the lists.
func (l *turnLoop) checkLists(c *turnConn) {
	if dirty := l.dirty[l.dirtyAt:]; c.has(flagDirty) && len(dirty) <= checkedList && !slices.Contains(dirty, c) {
		invariant.Broken("connection %d is marked dirty, and not in the list", c.slot)
	}
	if c.doomed {
		invariant.Broken("connection %d is marked to be ended, and the turn is over", c.slot)
	}
	if listed := c.rare != nil && c.rare.listed; len(l.late) <= checkedList && slices.Contains(l.late, c) != listed {
		invariant.Broken("connection %d says that its input waits: %v, and the list says otherwise", c.slot, listed)
	}
}
