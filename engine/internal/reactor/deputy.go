package reactor

import (
	"sync"
	"sync/atomic"

	"github.com/parleyd/parley/engine/internal/turn"
)

// A goroutine that posts letters wakes their loop. Where the process has one loop, a deputy takes the loop's turn instead.
//
// Problem: gnet's event loop sleeps in a system call. To wake it costs two system calls and a change of threads, and the Go
// scheduler, which sees a thread in a system call, moves the processor from it and back each time. For a publish over HTTP this
// was a third of the CPU time.
//
// Invariant: a turn is taken under the lock, by the event loop's goroutine or by the deputy. The deputy takes one only while the
// event loop is not in a turn; else it wakes the event loop as ever.
//
// Trap: gnet may have read input of a connection and wait for the lock. So the deputy never closes a connection in gnet: it
// leaves that to the event loop. For the same reason a deputy is rung for goroutines alone, and not by a turn that has more to
// do: connections with input come first then.
//
// What lost: the turn taken by the goroutine that publishes. The application may hold a lock that a handler in that turn needs.

// deputy takes turns of a loop while its event loop sleeps.
//
// Owner: shared (mutex: turn), except what is atomic.
type deputy struct {
	host    *host
	turn    sync.Mutex
	own     atomic.Bool // the event loop is in a turn; written by its goroutine
	away    atomic.Bool // the deputy is in a turn
	stopped bool
	rung    chan struct{}
	drops   []dropped // connections for the event loop to close
}

// dropped is a connection that its loop has dropped.
type dropped struct {
	slot uint32
	gen  uint64
}

func newDeputy(h *host) *deputy { return &deputy{host: h, rung: make(chan struct{}, 1)} }

// enter begins a turn of the event loop, and leave ends it. OnClose may come within one.
func (d *deputy) enter() (entered bool) {
	if d == nil || d.own.Load() {
		return false
	}
	d.turn.Lock()
	d.own.Store(true)
	return true
}

func (d *deputy) leave(entered bool) {
	if entered {
		d.own.Store(false)
		d.turn.Unlock()
	}
}

// ring wakes the deputy, and reports false where the event loop is to be woken. Any goroutine.
func (d *deputy) ring() bool {
	if d == nil || d.own.Load() || d.away.Load() {
		return false
	}
	select {
	case d.rung <- struct{}{}:
	default:
	}
	return true
}

func (d *deputy) run(stopped <-chan struct{}) {
	for {
		select {
		case <-d.rung:
			if !d.Drain() {
				d.host.ringBell()
			}
		case <-stopped:
			return
		}
	}
}

// Drain takes a turn, and reports false if the event loop is to take one.
func (d *deputy) Drain() (done bool) {
	if !d.turn.TryLock() {
		return false
	}
	defer d.turn.Unlock()
	if d.stopped {
		return true
	}
	returned := false
	defer d.host.reactor.cfg.MustReturn(&returned)
	d.away.Store(true)
	d.host.loop.Drain()
	d.away.Store(false)
	returned = true
	return len(d.drops) == 0
}

// drop has the event loop close a connection, if the deputy is in a turn; else it reports false.
func (d *deputy) drop(c *turn.Conn) bool {
	if d == nil || !d.away.Load() {
		return false
	}
	d.drops = append(d.drops, dropped{c.Slot, c.Gen})
	return true
}

// closeDropped closes the connections that were dropped in the deputy's turns. On the event loop, in a turn.
func (d *deputy) closeDropped() {
	if d == nil {
		return
	}
	for _, x := range d.drops {
		if c := d.host.loop.Slab.At(x.slot); c != nil && c.Gen == x.gen {
			d.host.Drop(c)
		}
	}
	d.drops = d.drops[:0]
}

// stop ends the deputy's turns.
func (d *deputy) stop() {
	if d != nil {
		d.turn.Lock()
		d.stopped = true
		d.turn.Unlock()
	}
}
