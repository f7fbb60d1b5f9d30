package ledger

import (
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
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

// A reading of everything is due after an absence that began in the middle of a reading, too.
func TestAbsenceWhileReading(t *testing.T) {
	l := startBus(t).open(t, 1)
	gone := Room{Name: "deleted while nobody listened"}
	begun := make(chan struct{})
	l.post(func() {
		defer close(begun)
		l.Rooms.known[gone.Name] = knownRoom{gone, 1}
		l.feed.read()
		l.feed.lastRead = l.now.Add(-time.Minute)
	})
	<-begun
	eventually(t, "the room is forgotten", func() bool { _, known := l.Rooms.Find(gone.Name); return !known })
}

// What another version has written is no session, and no reason to try again.
func TestRecordOfAnotherVersion(t *testing.T) {
	b := startBus(t)
	faults := make(chan error, 1)
	l := b.open(t, 2, func(o *Options) { o.Fault = func(err error) { faults <- err } })
	k := keyOf(1, 1)
	js, err := jetstream.New(connect(t, b.url()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), subjectOf(sessionBucket, k.subject()), []byte{sessionVersion + 1}); err != nil {
		t.Fatal(err)
	}
	_, err = l.Sessions.claim(t, Claim{k, nonceOf(1)})
	is(t, err, ErrUnknown)
	is(t, <-faults, errRecord)
}

// A session that is too large is refused before anything happens.
func TestSessionTooLarge(t *testing.T) {
	b := startBus(t)
	l := b.open(t, 1)
	k, large := keyOf(1, 1), string(make([]byte, ValueBytesMax+1))
	is(t, l.Sessions.save(t, k, large[1:]), nil)
	if err := l.Sessions.save(t, k, large); !errors.Is(err, ErrTooLarge) {
		t.Errorf("save: %v", err)
	}
	if err := l.Sessions.park(t, k, large, time.Minute); !errors.Is(err, ErrTooLarge) {
		t.Errorf("park: %v", err)
	}
	at := Claim{k, nonceOf(1)}
	got, err := l.Sessions.claim(t, at)
	is(t, err, nil)
	if len(got.Value) != ValueBytesMax {
		t.Errorf("%d bytes are stored", len(got.Value))
	}
	if err := await(t, func(done func(error)) error { return l.Sessions.Restore(at, []byte(large), time.Minute, done) }); !errors.Is(err, ErrTooLarge) {
		t.Errorf("restore: %v", err)
	}
}
