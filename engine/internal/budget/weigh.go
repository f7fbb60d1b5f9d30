package budget

import (
	"slices"

	"github.com/parleyd/parley/engine/internal/turn"
)

// What the connections of a loop hold in memory.
//
// Problem: a look must be cheap with a million connections, of which few hold anything. So the loop keeps lists of those that
// may: the blocked ones, and those with a part of a message. They are tidied when they are looked at. A frame that waits for
// 500 connections is counted once.

// socketBytes is what the kernel may hold for a connection whose socket is full, in both directions.
const socketBytes = 128 << 10

// weight is what the connections of a loop hold, in bytes.
//
// Owner: immutable.
type weight struct {
	queues   int64 // frames
	sockets  int64 // of the kernel
	partial  int64 // incomplete messages, and input that waits
	backlogs []int // of the blocked connections, the largest first, backlogsMax at most
}

// backlogsMax bounds the list of backlogs: more connections than that do not end at one look.
const backlogsMax = 4096

// weigh looks at the connections of a loop that hold memory. Loop only.
func weigh(l *turn.Loop) (w weight) {
	frames, conns := map[*turn.Frame]struct{}{}, map[*turn.Conn]struct{}{}
	l.Blocked = kept(l.Blocked, func(c *turn.Conn) bool {
		if _, twice := conns[c]; twice || !c.Blocked {
			return false
		}
		conns[c] = struct{}{}
		w.sockets += socketBytes
		w.backlogs = append(w.backlogs, c.Backlog)
		for f := range turn.Queued(c) {
			if _, seen := frames[f]; !seen {
				frames[f] = struct{}{}
				w.queues += int64(len(f.Plain))
			}
		}
		w.partial += turn.WaitingInput(c)
		return true
	})
	l.Partial = kept(l.Partial, func(c *turn.Conn) bool {
		w.partial += int64(cap(c.Buf))
		return c.Buf != nil
	})
	for _, c := range l.Late {
		if !c.Blocked {
			w.partial += turn.WaitingInput(c)
		}
	}
	slices.SortFunc(w.backlogs, func(a, b int) int { return b - a })
	w.backlogs = w.backlogs[:min(len(w.backlogs), backlogsMax)]
	return w
}

// kept keeps the connections of a list for which keep returns true.
func kept(list []*turn.Conn, keep func(*turn.Conn) bool) []*turn.Conn {
	list = slices.DeleteFunc(list, func(c *turn.Conn) bool { return !keep(c) })
	if len(list) == 0 {
		return nil
	}
	return list
}

// endHeaviest ends the n blocked connections of a loop with the largest backlogs. Loop only.
func endHeaviest(l *turn.Loop, n int) {
	list := slices.Clone(l.Blocked)
	slices.SortFunc(list, func(a, b *turn.Conn) int { return b.Backlog - a.Backlog })
	for _, c := range list {
		if n > 0 && c.Blocked && c.Phase == turn.PhaseOpen {
			c.EndBy(turn.CauseMemory)
			n--
		}
	}
}
