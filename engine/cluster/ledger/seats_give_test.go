package ledger

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/parleyd/parley/protocol/ident"
)

func ticket(n int) (t Ticket) {
	copy(t[:], fmt.Sprintf("ticket %d", n))
	return t
}

func give(t testing.TB, from *Ledger, room string, to ident.Worker, n int) {
	t.Helper()
	must(t, func(done func(error)) error { return from.Seats.Give(room, to, ticket(n), done) })
}

func takeGiven(t testing.TB, l *Ledger, room string, limit, n int) error {
	t.Helper()
	return await(t, func(done func(error)) error { return l.Seats.Take(room, limit, ticket(n), done) })
}

// Only its receiver can take a given seat, however many calls wait for seats on all workers.
func TestSeatsAreHandedOn(t *testing.T) {
	t.Parallel()
	const limit = 5
	rounds := some(300, 100)
	b := startBus(t)
	list := []*Ledger{b.open(t, 1), b.open(t, 2), b.open(t, 3)}
	grant(t, list[0], "r", limit, limit)
	var all, queue sync.WaitGroup
	var over atomic.Bool
	var refused atomic.Int64
	for i := range 9 {
		queue.Go(func() {
			for !over.Load() {
				if granted, err := take(t, list[i%3], "r", limit, 1); granted > 0 || err != ErrFull {
					t.Errorf("somebody who queues is granted %d: %v", granted, err)
					return
				}
				refused.Add(1)
			}
		})
	}
	for seat := range limit {
		all.Go(func() {
			at := 0
			for round := range rounds {
				next, n := (at+1+(seat+round)%2)%3, seat*rounds+round
				give(t, list[at], "r", ident.Worker(next+1), n)
				if err := takeGiven(t, list[next], "r", limit, n); err != nil {
					t.Errorf("seat %d is lost in round %d: %v", seat, round, err)
					return
				}
				at = next
			}
		})
	}
	all.Wait()
	over.Store(true)
	queue.Wait()
	t.Logf("%d were refused", refused.Load())
	if refused.Load() == 0 {
		t.Error("nobody queued: the test shows nothing")
	}
}

// A seat can be given and taken in a room that has more members than its limit, too.
func TestHandedOnBeyondTheLimit(t *testing.T) {
	t.Parallel()
	b := startBus(t)
	a, c := b.open(t, 1), b.open(t, 2)
	a.Seats.Force("r", 2, 4)
	eventually(t, "they are on record", func() bool { return seatsOnRecord(a, "r") == 4 })
	give(t, a, "r", 2, 1)
	if err := takeGiven(t, c, "r", 2, 1); err != nil || seatsOnRecord(c, "r") != 4 {
		t.Error(err, seatsOnRecord(c, "r"))
	}
	a.Seats.Release("r", 3)
	c.Seats.Release("r", 1)
	eventually(t, "empty records vanish", func() bool { return b.records(t, seatBucket) == 0 })
}

// A gift that is not taken is free after a while, even if the giver has no other seat of the room.
func TestUntakenSeatsAreRecalled(t *testing.T) {
	t.Parallel()
	b := startBus(t)
	a, c := b.open(t, 1), b.open(t, 2)
	grant(t, a, "r", 1, 1)
	give(t, a, "r", 2, 1)
	is(t, takeGiven(t, c, "r", 1, 2), ErrFull) // another's ticket
	if n := seatsOnRecord(a, "r"); n != 1 {
		t.Errorf("%d seats are on record", n)
	}
	eventually(t, "empty records vanish", func() bool { return b.records(t, seatBucket) == 0 })
	if err := takeGiven(t, c, "r", 1, 1); err != nil { // too late: any other seat
		t.Error(err)
	}
}

// Many gifts that are not taken are recalled with few writes. With one write each, the writes conflicted: on a slow bus
// their rooms were blocked for minutes.
func TestUntakenSeatsLeaveTogether(t *testing.T) {
	t.Parallel()
	const seats, writes = 300, 20
	b := startBus(t)
	a := b.open(t, 1)
	grant(t, a, "r", seats, seats)
	var given sync.WaitGroup
	for n := range seats {
		given.Add(1)
		if err := a.Seats.Give("r", 2, ticket(n), func(error) { given.Done() }); err != nil {
			t.Fatal(err)
		}
	}
	given.Wait()
	before := b.state(t, seatBucket).LastSeq
	eventually(t, "empty records vanish", func() bool { return b.records(t, seatBucket) == 0 })
	if n := b.state(t, seatBucket).LastSeq - before; n > writes {
		t.Errorf("%d writes take %d seats back, want %d at most", n, seats, writes)
	}
}

// A gift of a dead worker can be taken until the worker is reaped for the second time; a gift to a dead worker never.
func TestGiftsOfTheDead(t *testing.T) {
	t.Parallel()
	b := startBus(t)
	a, c, d := b.open(t, 1), b.open(t, 2), b.open(t, 3)
	reap := func(l *Ledger, instance ident.Worker) {
		must(t, func(done func(error)) error { return l.Seats.Reap(instance, done) })
	}
	grant(t, a, "r", 2, 2)
	give(t, a, "r", 2, 1)
	give(t, a, "r", 2, 2)
	a.Close()
	reap(c, 1)
	if err := takeGiven(t, c, "r", 2, 1); err != nil || seatsOnRecord(c, "r") != 2 {
		t.Error("a dead worker's gift is lost:", err, seatsOnRecord(c, "r"))
	}
	reap(d, 1)
	_, err := take(t, d, "r", 2, 1)
	is(t, err, ErrFull)
	reap(d, 1)
	grant(t, d, "r", 2, 1)

	c.Seats.Release("r", 1)
	give(t, d, "r", 2, 3)
	reap(d, 2)
	grant(t, d, "r", 2, 2)
}
