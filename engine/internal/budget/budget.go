package budget

import (
	"sync/atomic"
	"time"

	"github.com/parleyd/parley/engine/internal/fanout"
	"github.com/parleyd/parley/engine/internal/session"
)

// Budget is the memory that a worker may hold for others: unread frames, histories, sessions, letters, incomplete messages.
//
// Problem: each of these has a bound of its own, and all together may still be more than the machine has. Then the kernel would
// end the worker, and with it what is no one's fault.
//
// Invariant: a tenth of a second after the sum has passed the limit, a tenth of the limit is free again, or newcomers are
// refused. What is freed first costs the fewest: the clients that read least, then what no client is waiting for.
//
// Steps: each loop weighs its connections, every tenth of a second. Loop 0 adds all up, and relieves.
//
// Owner: shared (atomic), except at, a loop's own each, and what is set before the start.
type Budget struct {
	Limit    int64 // bytes; 0: none
	Rooms    *fanout.Rooms
	Sessions *session.Sessions

	weights  [256]atomic.Pointer[weight]
	at       [256]int64
	refuses  atomic.Bool
	relieved [steps]atomic.Uint64
	said     int64 // when the log last spoke of it; loop 0's
}

// Step is one way to free memory. The steps stand in the order in which they are taken.
type step uint8

const (
	stepConnections step = iota // with the largest backlog
	stepUnused                  // histories of rooms without members, the longest unused first
	stepHistories               // the older half of the largest histories
	stepSessions                // that wait for a connection, the oldest first
	stepNewcomers               // are refused
	steps
)

// Steps are the names of the steps, in their order.
var Steps = [steps]string{"connections", "unused_histories", "histories", "sessions", "newcomers"}

// lookEvery is the time between two looks.
const lookEvery = int64(100 * time.Millisecond)

// free is the part of the limit that relief frees: a tenth.
const free = 10

// Look weighs a loop's connections, which tidies the loop's lists of them, and relieves on loop 0 if there is a limit. Loop
// only; once a tick.
func (b *Budget) Look(l *fanout.Loop) {
	if l.Now-b.at[l.Index] < lookEvery && b.at[l.Index] != 0 {
		return
	}
	b.at[l.Index] = l.Now
	w := weigh(l.Base())
	b.weights[l.Index].Store(&w)
	if l.Index == 0 && b.Limit > 0 {
		b.relieve(l)
	}
}

// Parts is what the worker holds, by part, in bytes. Any goroutine.
func (b *Budget) Parts() map[string]int64 {
	parts := map[string]int64{"histories": b.Rooms.Index.HistoryBytes(), "sessions": b.Sessions.Memory.Bytes()}
	for i, l := range b.Rooms.Loops {
		parts["mailboxes"] += l.Mail.Bytes.Load()
		if w := b.weights[i].Load(); w != nil {
			parts["queues"] += w.queues
			parts["sockets"] += w.sockets
			parts["partial"] += w.partial
		}
	}
	return parts
}

// Held is the sum of all parts. Any goroutine.
func (b *Budget) Held() (n int64) {
	for _, part := range b.Parts() {
		n += part
	}
	return n
}

// Relieved is how often each step was taken. Any goroutine.
func (b *Budget) Relieved() (n [steps]uint64) {
	for i := range n {
		n[i] = b.relieved[i].Load()
	}
	return n
}

// Refuses reports whether newcomers are refused, because nothing else frees enough. Any goroutine.
func (b *Budget) Refuses() bool { return b.refuses.Load() }

// relieve frees memory if the worker holds more than its limit.
func (b *Budget) relieve(l *fanout.Loop) {
	held := b.Held()
	if held <= b.Limit-b.Limit/free {
		b.refuses.Store(false)
	}
	if held <= b.Limit {
		return
	}
	need := held - (b.Limit - b.Limit/free)
	for s := stepConnections; s < steps && need > 0; s++ {
		freed := b.take(s, need)
		if need -= freed; freed > 0 || s == stepNewcomers {
			b.relieved[s].Add(1)
			b.say(l, s, held, freed)
		}
	}
}

func (b *Budget) take(s step, need int64) (freed int64) {
	switch s {
	case stepConnections:
		return b.endHeaviest(need)
	case stepUnused:
		return b.Rooms.Index.DropUnused(need)
	case stepHistories:
		return b.Rooms.Index.DropHalves(need)
	case stepSessions:
		return b.Sessions.Memory.Evict(need)
	}
	b.refuses.Store(true)
	return 0
}

// endHeaviest ends the connections with the largest backlogs, and returns about what that frees. It goes by the backlogs that
// the loops have found; each connection is ended on its loop.
func (b *Budget) endHeaviest(need int64) (freed int64) {
	ends := make([]int, len(b.Rooms.Loops))
	for freed < need {
		most := -1
		for i := range ends {
			if w := b.weights[i].Load(); w != nil && ends[i] < len(w.backlogs) && (most < 0 || w.backlogs[ends[i]] > b.weights[most].Load().backlogs[ends[most]]) {
				most = i
			}
		}
		if most < 0 {
			break
		}
		freed += int64(socketBytes + b.weights[most].Load().backlogs[ends[most]])
		ends[most]++
	}
	for i, n := range ends {
		if base := b.Rooms.Loops[i].Base(); n > 0 {
			b.Rooms.Loops[i].PostCall(func() { endHeaviest(base, n) })
		}
	}
	return freed
}

// sayEvery is the time between two lines of the log.
const sayEvery = int64(10 * time.Second)

func (b *Budget) say(l *fanout.Loop, s step, held, freed int64) {
	if b.said != 0 && l.Now-b.said < sayEvery && s != stepNewcomers {
		return
	}
	b.said = l.Now
	l.Ground.Log.Warn("the memory budget is used up; raise memory_bytes_max if the machine has more, or lower the bounds of history and backlog",
		"step", Steps[s], "held_bytes", held, "limit_bytes", b.Limit, "freed_bytes", freed)
}
