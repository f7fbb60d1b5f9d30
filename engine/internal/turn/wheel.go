package turn

import "time"

// wheel is a hashed timing wheel over slots: one timer each, no allocation while running, no lock.
//
// A timer is set to a tick. The slots of one tick modulo the wheel's size form one list. A visit to a timer whose tick lies
// further ahead puts it back in its list. Nodes are indices and not pointers: twelve bytes each, and the garbage collector
// follows none.
//
// Owner: loop.
type wheel struct {
	tick    time.Duration
	now     uint32 // the last tick that was looked at
	buckets [wheelBuckets]uint32
	nodes   []wheelNode
}

// wheelBuckets ticks of 100 ms are 102 s: most timers are visited once.
const wheelBuckets = 1024

// wheelNode has links that are slot+1, so that the zero value means none.
type wheelNode struct {
	next, prev uint32
	due        uint32 // 0: not set
}

// NewWheel makes a wheel whose timers fire at multiples of tick.
func NewWheel(tick time.Duration) wheel { return wheel{tick: tick} }

// Set arms the timer of slot for at (nanoseconds on the server's clock), in place of its earlier time. It fires at the first
// tick that is not before at.
func (w *wheel) Set(slot uint32, at int64) {
	if int(slot) >= len(w.nodes) {
		w.nodes = append(w.nodes, make([]wheelNode, int(slot)+1-len(w.nodes))...)
	}
	due := uint32((at + int64(w.tick) - 1) / int64(w.tick))
	if due <= w.now {
		due = w.now + 1
	}
	n := &w.nodes[slot]
	if n.due != 0 {
		if n.due == due {
			return
		}
		w.unlink(slot)
	}
	n.due = due
	w.link(slot)
}

// Clear disarms the timer of slot.
func (w *wheel) Clear(slot uint32) {
	if int(slot) < len(w.nodes) && w.nodes[slot].due != 0 {
		w.unlink(slot)
		w.nodes[slot].due = 0
	}
}

func (w *wheel) link(slot uint32) {
	n := &w.nodes[slot]
	b := &w.buckets[n.due%wheelBuckets]
	n.next, n.prev = *b, 0
	if *b != 0 {
		w.nodes[*b-1].prev = slot + 1
	}
	*b = slot + 1
}

func (w *wheel) unlink(slot uint32) {
	n := &w.nodes[slot]
	if n.prev != 0 {
		w.nodes[n.prev-1].next = n.next
	} else {
		w.buckets[n.due%wheelBuckets] = n.next
	}
	if n.next != 0 {
		w.nodes[n.next-1].prev = n.prev
	}
}

// Due moves the wheel up to now and appends the slots whose timers fire. These timers are disarmed.
func (w *wheel) Due(now int64, slots []uint32) []uint32 {
	until := uint32(now / int64(w.tick))
	if until-w.now > wheelBuckets && until > w.now {
		w.now = until - wheelBuckets // after a long stop one visit to each list is enough
	}
	for w.now < until {
		w.now++
		for i := w.buckets[w.now%wheelBuckets]; i != 0; {
			n := &w.nodes[i-1]
			next := n.next
			if n.due <= until {
				w.unlink(i - 1)
				n.due = 0
				slots = append(slots, i-1)
			}
			i = next
		}
	}
	return slots
}

// Armed is the number of timers that are set.
func (w *wheel) Armed() (n int) {
	for i := range w.nodes {
		if w.nodes[i].due != 0 {
			n++
		}
	}
	return n
}
