package ledger

import (
	"testing"
	"time"
)

// A bus that is killed reads its files again when it is back. What was spent or dropped stays so, however long ago.
func TestNothingComesBackToLife(t *testing.T) {
	b := startBus(t)
	owner, taker := b.open(t, 1), b.open(t, 2)
	spent, dropped, kept := keyOf(1, 1), keyOf(1, 2), keyOf(1, 3)
	for _, k := range []Key{spent, dropped, kept} {
		is(t, owner.Sessions.save(t, k, "first"), nil)
	}
	at := Claim{spent, nonceOf(1)}
	_, err := taker.Sessions.claim(t, at)
	is(t, err, nil)
	must(t, func(done func(error)) error { return taker.Sessions.Spend(at, done) })
	owner.Sessions.Drop(dropped)
	eventually(t, "the markers have expired", func() bool { return b.records(t, sessionBucket) == 1 })
	b.restart()
	third := b.open(t, 3)
	must(t, func(done func(error)) error { return third.Dead(1, time.Time{}, done) })
	must(t, func(done func(error)) error { return third.Dead(2, time.Time{}, done) })
	for _, k := range []Key{spent, dropped} {
		_, err := third.Sessions.claim(t, Claim{k, nonceOf(2)})
		is(t, err, ErrUnknown)
	}
	_, err = third.Sessions.claim(t, Claim{kept, nonceOf(2)})
	is(t, err, nil)
	if n := b.records(t, sessionBucket); n != 1 {
		t.Errorf("%d records are left, want the one that is claimed", n)
	}
}

func TestSeatsGivenBackStayFree(t *testing.T) {
	b := startBus(t)
	a, c := b.open(t, 1), b.open(t, 2)
	grant(t, a, "kept", 1, 1)
	grant(t, a, "r", 4, 4)
	a.Seats.Release("r", 4)
	eventually(t, "the marker has expired", func() bool { return b.records(t, seatBucket) == 1 })
	b.restart()
	grant(t, c, "r", 4, 4)
}
