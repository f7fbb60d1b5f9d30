package engine

import (
	"errors"
	"fmt"
	"testing"
)

// A counted publish tells how many connections it was queued for: also those that have joined, or left, on another worker in this
// instant, of which this worker has heard nothing yet.
func TestOrderedCounts(t *testing.T) {
	ws, _ := startOrdered(t, 3, "chat**=messages:100", nil)
	stays := dial(t, ws.list[1].Server)
	for _, room := range []string{"chat", "chat2"} {
		stays.send(`{"type":"join","room":"` + room + `"}`)
		stays.skipTo("joined")
	}
	comes := dial(t, ws.list[2].Server)
	for i := range 100 {
		from, want := ws.list[i%3], 1+(i+1)%2
		if i%2 == 0 {
			comes.send(`{"type":"join","room":"chat"}`)
			comes.skipTo("joined")
		} else {
			comes.send(`{"type":"leave","room":"chat"}`)
			comes.skipTo("left")
		}
		switch i % 4 {
		case 0, 1:
			if n, err := from.Everywhere().Post(t.Context(), Address{Rooms: []string{"chat", "chat2", "chat", "none", "chat3"}}, M{"type": "x"}); err != nil || n != want+1 {
				t.Fatalf("%d: %d, %v, want %d", i, n, err, want+1)
			}
		default:
			if p := publishCounted(t, from.Server, BroadcastOptions{}); p.Recipients != want || p.Partial != nil {
				t.Fatalf("%d: %+v, want %d", i, p, want)
			}
		}
	}
	for want, o := range map[int]BroadcastOptions{0: {Except: []string{stays.id}}, 1: {Except: []string{comes.id, "nonsense"}, ExceptUsers: []string{"nobody"}}} {
		if p := publishCounted(t, ws.list[0].Server, o); p.Recipients != want {
			t.Errorf("%+v: %+v, want %d", o, p, want)
		}
	}
	for _, again := range []bool{false, true} {
		p := publishCounted(t, ws.list[2].Server, BroadcastOptions{IdempotencyKey: "once"})
		if want := map[bool]int{false: 1, true: 0}[again]; p.Duplicate != again || p.Recipients != want {
			t.Errorf("%+v, want %d", p, want)
		}
	}
}

// A worker that misses the message does not tell: the answer names it, and counts the others.
func TestOrderedCountsInPart(t *testing.T) {
	ws, o := startOrdered(t, 2, "chat=messages:100", nil)
	for _, w := range ws.list {
		c := dial(t, w.Server)
		c.send(`{"type":"join","room":"chat"}`)
		c.skipTo("joined")
	}
	o.mu.Lock()
	lossy := o.followers[1]
	o.mu.Unlock()
	want := fmt.Sprint([]uint16{lossy.self.Instance()})
	lossy.loses.Store(true)
	if p := publishCounted(t, ws.list[0].Server, BroadcastOptions{}); p.Recipients != 1 || p.Seq == 0 || p.Partial == nil || fmt.Sprint(p.Partial.Workers) != want {
		t.Errorf("%+v, want 1, and that %s is missing", p, want)
	}
	lossy.loses.Store(true)
	n, err := ws.list[0].Everywhere().Post(t.Context(), Address{Rooms: []string{"chat"}}, M{"type": "x"})
	if partial, ok := errors.AsType[*PartialError](err); n != 1 || !ok || fmt.Sprint(partial.Workers) != want {
		t.Errorf("%d, %v, want 1, and that %s is missing", n, err, want)
	}
	if p := publishCounted(t, ws.list[1].Server, BroadcastOptions{}); p.Recipients != 2 || p.Partial != nil {
		t.Errorf("%+v, want 2", p)
	}
	o.silent.Store(true)
	done := make(chan error, 2)
	if err := ws.list[0].Publish("chat", M{"type": "x"}, BroadcastOptions{Count: true, Done: func(_ Published, err error) { done <- err }}); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, ErrUnavailable) {
		t.Error(err)
	}
	if _, err := ws.list[0].Everywhere().Post(t.Context(), Address{Rooms: []string{"chat"}}, M{"type": "x"}); !errors.Is(err, ErrUnavailable) {
		t.Error(err)
	}
}

func publishCounted(t *testing.T, s *Server, o BroadcastOptions) Published {
	t.Helper()
	done := make(chan Published, 2)
	o.Count, o.Done = true, func(p Published, err error) {
		if err != nil {
			t.Error(err)
		}
		done <- p
	}
	if err := s.Publish("chat", M{"type": "x"}, o); err != nil {
		t.Fatal(err)
	}
	return <-done
}
