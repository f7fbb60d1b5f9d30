package ledger

import (
	"testing"
)

// take waits for seats.
func take(t testing.TB, l *Ledger, room string, limit, n int) (granted int, err error) {
	t.Helper()
	err = await(t, func(done func(error)) error {
		return l.Seats.Acquire(room, limit, n, func(g int, err error) { granted = g; done(err) })
	})
	return granted, err
}

func grant(t testing.TB, l *Ledger, room string, limit, n int) {
	t.Helper()
	if granted, err := take(t, l, room, limit, n); granted != n || err != nil {
		t.Fatalf("granted %d of %d: %v", granted, n, err)
	}
}

func TestSeats(t *testing.T) {
	t.Parallel()
	b := startBus(t)
	a, c := b.open(t, 1), b.open(t, 2)
	name := string(make([]byte, 255))
	grant(t, a, name, 10, 4)
	grant(t, c, name, 10, 5)
	granted, err := take(t, c, name, 10, 3)
	if granted != 1 || err != nil {
		t.Fatalf("granted %d: %v", granted, err)
	}
	_, err = take(t, a, name, 10, 1)
	is(t, err, ErrFull)
	c.Seats.Release(name, 1)
	eventually(t, "a seat given back is free", func() bool {
		granted, _ := take(t, a, name, 10, 1)
		return granted == 1
	})
	_, err = take(t, a, name, 9, 1) // a lower limit is for those who come later
	is(t, err, ErrFull)
	grant(t, a, name, 12, 2)
	a.Seats.Release(name, 7)
	c.Seats.Release(name, 5)
	eventually(t, "empty records vanish", func() bool { return b.records(t, seatBucket) == 0 })
}

// Seats that lie idle with one worker are given to another that is short, at once.
func TestIdleSeatsAreGivenBack(t *testing.T) {
	t.Parallel()
	b := startBus(t)
	a, c := b.open(t, 1), b.open(t, 2)
	grant(t, a, "r", 160, 1) // and a block of ten
	grant(t, c, "r", 160, 159)
	_, err := take(t, a, "r", 160, 1)
	is(t, err, ErrFull)
}

// Far from the limit most seats cost no round trip.
func TestBlocks(t *testing.T) {
	t.Parallel()
	b := startBus(t)
	a := b.open(t, 1)
	before := b.state(t, seatBucket).LastSeq
	for range 1000 {
		grant(t, a, "r", 10000, 1)
	}
	if n := b.state(t, seatBucket).LastSeq - before; n > 10 {
		t.Errorf("%d writes for 1,000 seats of 10,000", n)
	}
}

func TestReap(t *testing.T) {
	t.Parallel()
	b := startBus(t)
	a, c := b.open(t, 1), b.open(t, 2)
	for _, room := range []string{"r", "s", "t"} {
		grant(t, a, room, 4, 4)
	}
	grant(t, c, "u", 4, 1)
	a.Close()
	_, err := take(t, c, "r", 4, 1)
	is(t, err, ErrFull)
	for range 2 {
		must(t, func(done func(error)) error { return c.Seats.Reap(1, done) })
	}
	grant(t, c, "r", 4, 4)
	third := b.open(t, 3) // it knows of no death, but the records are clean
	grant(t, third, "s", 4, 4)
	grant(t, third, "u", 4, 3)
}

// Seats that are forced are used already: they count, even beyond the limit, until they are given back.
func TestForcedSeats(t *testing.T) {
	t.Parallel()
	b := startBus(t)
	a, c := b.open(t, 1), b.open(t, 2)
	a.Seats.Force("r", 4, 3)
	c.Seats.Force("r", 4, 3)
	eventually(t, "both are on record", func() bool { return seatsOnRecord(a, "r") == 6 })
	_, err := take(t, c, "r", 4, 1)
	is(t, err, ErrFull)
	a.Seats.Release("r", 2)
	eventually(t, "what was released is on record", func() bool { return seatsOnRecord(a, "r") == 4 })
	_, err = take(t, a, "r", 4, 1)
	is(t, err, ErrFull)
	c.Seats.Release("r", 1)
	eventually(t, "a seat below the limit can be had", func() bool {
		granted, _ := take(t, a, "r", 4, 1)
		return granted == 1
	})
	_, err = take(t, c, "r", 4, 1)
	is(t, err, ErrFull)
	a.Seats.Release("r", 2)
	c.Seats.Release("r", 2)
	eventually(t, "empty records vanish", func() bool { return b.records(t, seatBucket) == 0 })
}

// seatsOnRecord is how many of a room are on record.
func seatsOnRecord(l *Ledger, room string) int {
	sum := make(chan int, 1)
	l.post(func() {
		l.get(seatBucket, encodeName(room), func(f found) {
			r, _ := l.Seats.decode(f)
			n, _ := r.others(0)
			sum <- n
		})
	})
	return <-sum
}
