package fleet

import (
	"slices"
	"sync"
)

// Listeners are this worker's listeners for events of all workers. The zero value has none.
//
// Owner: shared (mutex: mu).
type Listeners[E any] struct {
	mu   sync.Mutex
	list []*listener[E]
}

type listener[E any] struct {
	kinds uint32
	call  func(E)
}

// Add makes call hear the events of some kinds, one bit for each, and tells the other workers the new wish. off removes it. Any
// goroutine.
func (x *Listeners[E]) Add(l *Link, kinds uint32, call func(E)) (off func()) {
	one := &listener[E]{kinds, call}
	x.change(l, func(list []*listener[E]) []*listener[E] { return append(slices.Clip(list), one) })
	return func() {
		x.change(l, func(list []*listener[E]) []*listener[E] {
			return slices.DeleteFunc(slices.Clone(list), func(y *listener[E]) bool { return y == one })
		})
	}
}

func (x *Listeners[E]) change(l *Link, change func([]*listener[E]) []*listener[E]) {
	x.mu.Lock()
	x.list = change(x.list)
	own := uint32(0)
	for _, one := range x.list {
		own |= one.kinds
	}
	changed := l.SetWish(own)
	x.mu.Unlock()
	if changed {
		l.SayWish(false)
	}
}

// Of are the calls of the listeners for a kind, by its bit. Any goroutine.
func (x *Listeners[E]) Of(kind uint32) (calls []func(E)) {
	x.mu.Lock()
	list := x.list
	x.mu.Unlock()
	for _, one := range list {
		if one.kinds&kind != 0 {
			calls = append(calls, one.call)
		}
	}
	return calls
}
