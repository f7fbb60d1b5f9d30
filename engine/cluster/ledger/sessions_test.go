package ledger

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/parleyd/parley/protocol/ident"
)

func keyOf(instance ident.Worker, n int) (k Key) {
	k.Instance = instance
	binary.BigEndian.PutUint64(k.Hash[:], uint64(n))
	return k
}

func nonceOf(n int) (nonce Nonce) {
	binary.BigEndian.PutUint64(nonce[8:], uint64(n)+1<<40)
	return nonce
}

func (s *Sessions) save(t testing.TB, k Key, value string) error {
	t.Helper()
	return await(t, func(done func(error)) error { return s.Save(k, []byte(value), done) })
}

func (s *Sessions) park(t testing.TB, k Key, value string, ttl time.Duration) error {
	t.Helper()
	return await(t, func(done func(error)) error { return s.Park(k, []byte(value), ttl, done) })
}

func (s *Sessions) claim(t testing.TB, at Claim) (got Claimed, err error) {
	t.Helper()
	err = await(t, func(done func(error)) error {
		return s.Claim(at, func(c Claimed, err error) { got = c; done(err) })
	})
	return got, err
}

func is(t testing.TB, err, want error) {
	t.Helper()
	if err != want {
		t.Fatalf("got %v, want %v", err, want)
	}
}

// records is the number of records in a bucket, markers included.
func (b *bus) records(t testing.TB, bucket string) uint64 {
	t.Helper()
	return b.state(t, bucket).NumSubjects
}

// state is that of a bucket's stream, as if origins and marks were none of its records: sequences begin after worker 1's mark.
func (b *bus) state(t testing.TB, bucket string) jetstream.StreamState {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s, err := b.stream(t, bucket)
	if err != nil {
		t.Fatal(err)
	}
	info, err := s.Info(ctx, jetstream.WithSubjectFilter(">"))
	if err != nil {
		t.Fatal(err)
	}
	state := info.State
	for subject := range state.Subjects {
		if strings.HasSuffix(subject, "."+originKey) || strings.Contains(subject, ".mark") {
			state.NumSubjects--
			state.Msgs--
		}
	}
	if m, err := s.GetLastMsgForSubject(ctx, subjectOf(bucket, sessionMark(1))); err == nil {
		state.LastSeq -= m.Sequence
	}
	return state
}

func (b *bus) stream(t testing.TB, bucket string) (jetstream.Stream, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return b.jetstream(t).Stream(ctx, streamOf(bucket))
}

func (b *bus) jetstream(t testing.TB) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(connect(t, b.url()))
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func TestSessionIsClaimedOnce(t *testing.T) {
	t.Parallel()
	b := startBus(t)
	owner, taker := b.open(t, 1), b.open(t, 2)
	k := keyOf(1, 1)
	is(t, owner.Sessions.save(t, k, "rooms: a"), nil)
	is(t, owner.Sessions.park(t, k, "rooms: a, b", time.Minute), nil)
	at := Claim{k, nonceOf(1)}
	got, err := taker.Sessions.claim(t, at)
	is(t, err, nil)
	if string(got.Value) != "rooms: a, b" || got.State != Parked || got.OwnerAlive || got.Expires == 0 {
		t.Fatalf("claimed %+v", got)
	}
	got, err = taker.Sessions.claim(t, at)
	is(t, err, nil) // the same claim, repeated
	if string(got.Value) != "rooms: a, b" || got.State != Parked {
		t.Fatalf("claimed again %+v", got)
	}
	_, err = owner.Sessions.claim(t, Claim{k, nonceOf(2)})
	is(t, err, ErrClaimed)
	_, err = taker.Sessions.claim(t, Claim{keyOf(1, 2), nonceOf(3)})
	is(t, err, ErrUnknown)
	must(t, func(done func(error)) error { return taker.Sessions.Spend(at, done) })
	_, err = owner.Sessions.claim(t, Claim{k, nonceOf(4)})
	is(t, err, ErrUnknown)
	is(t, await(t, func(done func(error)) error { return taker.Sessions.Unclaim(at, done) }), ErrUnknown)
}

func TestOwnerLearnsOfAClaim(t *testing.T) {
	t.Parallel()
	b := startBus(t)
	owner, taker := b.open(t, 1), b.open(t, 2)
	k := keyOf(1, 1)
	is(t, owner.Sessions.save(t, k, "1"), nil)
	at := Claim{k, nonceOf(1)}
	got, err := taker.Sessions.claim(t, at)
	is(t, err, nil)
	if got.State != Live || !got.OwnerAlive || string(got.Value) != "1" {
		t.Fatalf("claimed %+v", got)
	}
	must(t, func(done func(error)) error { return taker.Sessions.Unclaim(at, done) })
	is(t, owner.Sessions.save(t, k, "2"), nil) // put back: still the owner's
	got, err = taker.Sessions.claim(t, at)
	is(t, err, nil)
	if string(got.Value) != "2" {
		t.Fatalf("claimed %q", got.Value)
	}
	is(t, owner.Sessions.save(t, k, "3"), ErrClaimed)
	is(t, await(t, func(done func(error)) error { return taker.Sessions.Restore(at, []byte("4"), time.Minute, done) }), nil)
	got, err = owner.Sessions.claim(t, Claim{k, nonceOf(2)})
	is(t, err, nil)
	if string(got.Value) != "4" || got.State != Parked {
		t.Fatalf("claimed %q, %v", got.Value, got.State)
	}
	is(t, await(t, func(done func(error)) error { return taker.Sessions.Spend(at, done) }), ErrClaimed)
}

func TestSavesCoalesce(t *testing.T) {
	t.Parallel()
	b := startBus(t)
	owner := b.open(t, 1, func(o *Options) { o.Coalesce = 100 * time.Millisecond })
	k := keyOf(1, 1)
	before := b.state(t, sessionBucket).LastSeq
	is(t, owner.Sessions.save(t, k, "first"), nil)
	told := make(chan error, 1000)
	for i := range 1000 {
		if err := owner.Sessions.Save(k, fmt.Appendf(nil, "%d", i), func(err error) { told <- err }); err != nil {
			t.Fatal(err)
		}
	}
	for range 1000 {
		is(t, <-told, nil)
	}
	if n := b.state(t, sessionBucket).LastSeq - before; n > 10 {
		t.Errorf("%d writes for 1,001 saves", n)
	}
	got, err := owner.Sessions.claim(t, Claim{k, nonceOf(1)})
	is(t, err, nil)
	if !bytes.Equal(got.Value, []byte("999")) {
		t.Errorf("claimed %q", got.Value)
	}
}

// A claim by the owner itself comes after its own earlier saves.
func TestClaimComesAfterSaves(t *testing.T) {
	t.Parallel()
	b := startBus(t)
	owner := b.open(t, 1, func(o *Options) { o.Coalesce = time.Hour })
	k := keyOf(1, 1)
	is(t, owner.Sessions.save(t, k, "first"), nil)
	saved := make(chan error, 1)
	if err := owner.Sessions.Save(k, []byte("second"), func(err error) { saved <- err }); err != nil {
		t.Fatal(err)
	}
	got, err := owner.Sessions.claim(t, Claim{k, nonceOf(1)})
	is(t, err, nil)
	is(t, <-saved, nil)
	if string(got.Value) != "second" {
		t.Errorf("claimed %q", got.Value)
	}
}

func TestNothingStays(t *testing.T) {
	t.Parallel()
	b := startBus(t)
	owner := b.open(t, 1)
	for i := range 3 {
		is(t, owner.Sessions.save(t, keyOf(1, i), "x"), nil)
	}
	is(t, owner.Sessions.park(t, keyOf(1, 0), "x", time.Second), nil)
	owner.Sessions.Drop(keyOf(1, 1), nil)
	at := Claim{keyOf(1, 2), nonceOf(1)}
	_, err := owner.Sessions.claim(t, at)
	is(t, err, nil)
	must(t, func(done func(error)) error { return owner.Sessions.Spend(at, done) })
	_, err = owner.Sessions.claim(t, Claim{keyOf(1, 1), nonceOf(1)})
	is(t, err, ErrUnknown)
	eventually(t, "records and markers expire", func() bool { return b.records(t, sessionBucket) == 0 })
	_, err = owner.Sessions.claim(t, Claim{keyOf(1, 0), nonceOf(1)})
	is(t, err, ErrUnknown)
}

func TestDeadOwner(t *testing.T) {
	t.Parallel()
	b := startBus(t)
	ttl := func(o *Options) { o.SessionTTL = 3 * time.Second }
	owner, other, third := b.open(t, 1, ttl), b.open(t, 2, ttl), b.open(t, 3, ttl)
	for i := range 10 {
		is(t, owner.Sessions.save(t, keyOf(1, i), "x"), nil)
	}
	// A taker that dies before it has spent the claim.
	_, err := owner.Sessions.claim(t, Claim{keyOf(1, 9), nonceOf(9)})
	is(t, err, nil)
	owner.Close()
	must(t, func(done func(error)) error { return other.Dead(1, time.Time{}, done) })
	must(t, func(done func(error)) error { return third.Dead(1, time.Time{}, done) })
	got, err := third.Sessions.claim(t, Claim{keyOf(1, 0), nonceOf(1)})
	is(t, err, nil)
	if got.State != Live || got.OwnerAlive {
		t.Errorf("claimed %+v", got)
	}
	_, err = other.Sessions.claim(t, Claim{keyOf(1, 9), nonceOf(2)})
	is(t, err, nil)
	must(t, func(done func(error)) error { return other.Sessions.Unclaim(Claim{keyOf(1, 9), nonceOf(2)}, done) })
	eventually(t, "the dead owner's sessions are deleted", func() bool { return b.records(t, sessionBucket) == 0 })
	_, err = other.Sessions.claim(t, Claim{keyOf(1, 5), nonceOf(3)})
	is(t, err, ErrUnknown)
	eventually(t, "a worker that opens later knows of the death", func() bool {
		late := b.open(t, 4, ttl)
		dead := make(chan bool)
		late.post(func() { dead <- late.life.isDead(worker{testEpoch, 1}) })
		return <-dead
	})
}

// After all processes were killed and started again, stored sessions are there, and count as parked since the start.
func TestRestartOfEverything(t *testing.T) {
	t.Parallel()
	b := startBus(t)
	before := b.open(t, 1)
	for i := range 100 {
		if err := before.Sessions.save(t, keyOf(1, i), fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	is(t, before.Sessions.park(t, keyOf(1, 0), "parked", time.Minute), nil)
	must(t, func(done func(error)) error {
		return before.Rooms.Create(Room{Name: "lobby", MembersMax: 5, Metadata: []byte("{}")}, done)
	})
	grant(t, before, "lobby", 5, 5)
	b.restart()
	before.Close()
	later := func(o *Options) { o.Epoch = time.Now().UnixMilli(); o.SessionTTL = 3 * time.Second }
	after := b.open(t, 1, later)
	if room, ok := after.Rooms.Find("lobby"); !ok || room.MembersMax != 5 || string(room.Metadata) != "{}" {
		t.Errorf("room is %+v, %v", room, ok)
	}
	grant(t, after, "lobby", 5, 5) // nobody is in it any more
	for i := range 50 {
		got, err := after.Sessions.claim(t, Claim{keyOf(1, i), nonceOf(i)})
		is(t, err, nil)
		if want := fmt.Sprint(i); i > 0 && (string(got.Value) != want || got.State != Live || got.OwnerAlive) {
			t.Fatalf("claimed %+v", got)
		}
	}
	is(t, after.Sessions.save(t, keyOf(1, 1000), "new"), nil) // the same instance, in a later epoch
	eventually(t, "what nobody came back for is deleted", func() bool {
		_, err := after.Sessions.claim(t, Claim{keyOf(1, 99), nonceOf(99)})
		return err == ErrUnknown
	})
	eventually(t, "the records go", func() bool { return b.records(t, sessionBucket) <= 50 })
	is(t, after.Sessions.save(t, keyOf(1, 1000), "newer"), nil)
}

func TestAway(t *testing.T) {
	t.Parallel()
	b := startBus(t)
	away := func(o *Options) { o.AwayAfter = 300 * time.Millisecond; o.PendingMax = 50 }
	owner := b.open(t, 1, away)
	k := keyOf(1, 1)
	is(t, owner.Sessions.save(t, k, "before"), nil)
	b.process.kill()
	is(t, owner.Sessions.save(t, k, "while away"), ErrAway)
	_, err := owner.Sessions.claim(t, Claim{keyOf(1, 2), nonceOf(1)})
	is(t, err, ErrAway)
	is(t, await(t, func(done func(error)) error { return owner.Rooms.Create(Room{Name: "x"}, done) }), ErrAway)
	is(t, await(t, func(done func(error)) error {
		return owner.Seats.Acquire("x", 3, 1, func(_ int, err error) { done(err) })
	}), ErrAway)
	busy := 0
	for i := range 100 {
		if err := owner.Sessions.Save(keyOf(1, 10+i), nil, func(error) {}); err == ErrBusy {
			busy++
		}
	}
	if busy == 0 {
		t.Error("nothing is refused over the bound")
	}
	b.start()
	other := b.open(t, 2)
	eventually(t, "what could not be saved is saved later", func() bool { return other.peek(k) == "while away" })
}

// peek reads the value of a session without touching it.
func (l *Ledger) peek(k Key) string {
	value := make(chan string)
	l.post(func() {
		l.get(sessionBucket, k.subject(), func(f found) {
			rec, err := decodeSession(f.payload)
			if err != nil {
				value <- err.Error()
				return
			}
			value <- string(rec.value)
		})
	})
	return <-value
}

func TestClose(t *testing.T) {
	t.Parallel()
	b := startBus(t)
	l := b.open(t, 1)
	b.process.kill()
	told := make(chan error, 1)
	if err := l.Sessions.Save(keyOf(1, 1), nil, func(err error) { told <- err }); err != nil {
		t.Fatal(err)
	}
	l.Close()
	is(t, <-told, ErrClosed)
	is(t, l.Sessions.Save(keyOf(1, 1), nil, func(error) {}), ErrClosed)
	b.start()
}

// No later save by its owner restores a spent session, and a session that was unclaimed is its owner's again.
func TestSpentStaysGone(t *testing.T) {
	t.Parallel()
	b := startBus(t)
	owner, taker := b.open(t, 1), b.open(t, 2)
	k := keyOf(1, 1)
	is(t, owner.Sessions.save(t, k, "1"), nil)
	at := Claim{k, nonceOf(1)}
	_, err := taker.Sessions.claim(t, at)
	is(t, err, nil)
	is(t, owner.Sessions.save(t, k, "2"), ErrClaimed)
	is(t, owner.Sessions.save(t, k, "3"), ErrClaimed)
	must(t, func(done func(error)) error { return taker.Sessions.Unclaim(at, done) })
	is(t, owner.Sessions.save(t, k, "4"), nil)
	at = Claim{k, nonceOf(2)}
	got, err := taker.Sessions.claim(t, at)
	is(t, err, nil)
	if string(got.Value) != "4" {
		t.Fatalf("claimed %q", got.Value)
	}
	is(t, owner.Sessions.save(t, k, "5"), ErrClaimed)
	must(t, func(done func(error)) error { return taker.Sessions.Spend(at, done) })
	for range 3 {
		is(t, owner.Sessions.save(t, k, "6"), ErrUnknown)
		is(t, owner.Sessions.park(t, k, "6", time.Minute), ErrUnknown)
	}
	eventually(t, "the marker goes", func() bool { return b.records(t, sessionBucket) == 0 })
	is(t, owner.Sessions.save(t, k, "7"), ErrUnknown)
	_, err = taker.Sessions.claim(t, Claim{k, nonceOf(3)})
	is(t, err, ErrUnknown)
}

// Sessions with another owner leave no state behind: forgotten while idle, claimed, or with a write on its way.
func TestForgotten(t *testing.T) {
	t.Parallel()
	b := startBus(t)
	owner, taker := b.open(t, 1), b.open(t, 2)
	for i := range 30 {
		k := keyOf(1, i)
		is(t, owner.Sessions.save(t, k, "1"), nil)
		if i%3 > 0 {
			_, err := taker.Sessions.claim(t, Claim{k, nonceOf(i)})
			is(t, err, nil)
		}
		if i%3 > 1 {
			if err := owner.Sessions.Park(k, []byte("2"), time.Minute, func(error) {}); err != nil {
				t.Fatal(err)
			}
		}
		owner.Sessions.Forget(k)
	}
	eventually(t, "nothing is owned any more", func() bool {
		n := make(chan int)
		owner.post(func() { n <- len(owner.Sessions.owned) })
		return <-n == 0
	})
	if n := b.records(t, sessionBucket); n != 30 {
		t.Errorf("%d of 30 records are left: forgetting deletes nothing", n)
	}
}

// A record of another version is no session, and the claim is not repeated.
func TestRecordOfAnotherVersion(t *testing.T) {
	t.Parallel()
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

// A session that is too large is refused before any write.
func TestSessionTooLarge(t *testing.T) {
	t.Parallel()
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
