package bus

import (
	"context"
	"errors"
	"sync"
	"syscall"
	"testing"
	"time"
)

// What Confirm has confirmed reaches the receivers although the publisher's connection ends at once, unflushed.
func TestConfirmed(t *testing.T) {
	noLeaks(t)
	s := startServer(t)
	g := newWitness()
	dial(t, options(s.URL(), 2), g)
	publisher := dial(t, options(s.URL(), 1, 2), newWitness())
	const entries = 5000
	for n := range uint64(entries) {
		appendEntry(t, publisher, n, 200)
	}
	if err := publisher.Confirm(t.Context()); err != nil {
		t.Fatal(err)
	}
	publisher.nc.Close()
	eventually(t, "all entries", func() bool { return g.has(1, entries) })
	g.check(t)
}

// Many goroutines confirm at once, each after its own entry: all are answered, and share rounds.
func TestConfirmTogether(t *testing.T) {
	noLeaks(t)
	s := startServer(t)
	g := newWitness()
	dial(t, options(s.URL(), 2), g)
	publisher := dial(t, options(s.URL(), 1, 2), newWitness())
	var callers sync.WaitGroup
	var appending sync.Mutex
	next := uint64(0)
	for range 200 {
		callers.Go(func() {
			for range 20 {
				appending.Lock()
				appendEntry(t, publisher, next, 20)
				next++
				appending.Unlock()
				if err := publisher.Confirm(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	callers.Wait()
	eventually(t, "all entries", func() bool { return g.has(1, next) })
	g.check(t)
}

// A bus that is frozen confirms nothing; the entry arrives when the bus runs again. A caller that gives up learns its own
// reason.
func TestConfirmWhileTheBusIsAway(t *testing.T) {
	noLeaks(t)
	p, addr := busProcess(t, t.TempDir(), 0)
	g := newWitness()
	dial(t, options(addr, 2), g)
	publisher := dial(t, options(addr, 1, 2), newWitness())
	p.signal(t, syscall.SIGSTOP)
	eventually(t, "a bus that stands still", func() bool { return publisher.Confirm(t.Context()) != nil })
	appendEntry(t, publisher, 0, 20)
	if err := publisher.Confirm(t.Context()); !errors.Is(err, ErrAway) {
		t.Errorf("a frozen bus: %v", err)
	}
	bounded, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := publisher.Confirm(bounded); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a caller that gave up: %v", err)
	}
	p.signal(t, syscall.SIGCONT)
	eventually(t, "the entry", func() bool { return g.has(1, 1) })
	if err := publisher.Confirm(t.Context()); err != nil {
		t.Errorf("a bus that is back: %v", err)
	}
}
