package ledger

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/parleyd/parley/protocol/ident"
)

// losses are the ways in which the bus loses its records while workers go on.
var losses = map[string]func(t *testing.T, b *bus, js jetstream.JetStream){
	"the bus comes back without its files": func(t *testing.T, b *bus, _ jetstream.JetStream) {
		b.process.kill()
		if err := os.RemoveAll(b.dir); err != nil {
			t.Fatal(err)
		}
		b.start()
	},
	"stream rm sessions": func(t *testing.T, _ *bus, js jetstream.JetStream) { remove(t, js, sessionBucket) },
	"stream rm seats":    func(t *testing.T, _ *bus, js jetstream.JetStream) { remove(t, js, seatBucket) },
	"stream rm shared":   func(t *testing.T, _ *bus, js jetstream.JetStream) { remove(t, js, sharedBucket) },
	"stream rm all": func(t *testing.T, _ *bus, js jetstream.JetStream) {
		remove(t, js, sharedBucket, seatBucket, sessionBucket)
	},
	"stream purge": func(t *testing.T, _ *bus, js jetstream.JetStream) {
		for _, bucket := range []string{sessionBucket, seatBucket, sharedBucket} {
			s, err := js.Stream(t.Context(), streamOf(bucket))
			if err == nil {
				err = s.Purge(t.Context())
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	},
	"somebody else makes the streams": func(t *testing.T, _ *bus, js jetstream.JetStream) {
		for _, bucket := range []string{sessionBucket, seatBucket, sharedBucket} {
			remove(t, js, bucket)
			// A worker may have made the stream before.
			_, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: bucket, Storage: jetstream.MemoryStorage})
			if err != nil && !errors.Is(err, jetstream.ErrBucketExists) && !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
				t.Fatal(err)
			}
		}
	},
}

func remove(t *testing.T, js jetstream.JetStream, buckets ...string) {
	t.Helper()
	for _, bucket := range buckets {
		if err := js.DeleteStream(t.Context(), streamOf(bucket)); err != nil {
			t.Fatal(err)
		}
	}
}

// member is a worker that has its sessions saved again when they are lost.
type member struct {
	*Ledger
	lost atomic.Int64
}

func (b *bus) member(t *testing.T, instance ident.Worker, peers []ident.Worker, sessions map[Key]string) *member {
	t.Helper()
	m := &member{}
	m.Ledger = b.open(t, instance, func(o *Options) {
		o.Peers = peers
		o.Lost = func(done func()) {
			m.lost.Add(1)
			for k, value := range sessions {
				if err := m.Sessions.Save(k, []byte(value), func(error) {}); err != nil {
					t.Error(err)
				}
			}
			done()
		}
	})
	return m
}

// The workers rewrite the records that the bus has lost, all or some of them. Until then no client is told that a session
// is over, and none gets a seat that is taken.
func TestWhatIsLostIsWrittenAnew(t *testing.T) {
	for name, lose := range losses {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := startBus(t)
			k := keyOf(1, 1)
			kept := map[Key]string{k: "live", keyOf(1, 2): "another", keyOf(1, 3): "a third"}
			a := b.member(t, 1, []ident.Worker{2}, kept)
			c := b.member(t, 2, []ident.Worker{1}, nil)
			for key, value := range kept {
				is(t, a.Sessions.save(t, key, value), nil)
			}
			grant(t, a.Ledger, "r", 4, 3)
			must(t, func(done func(error)) error { return a.Rooms.Create(Room{Name: "made"}, done) })
			eventually(t, "the other worker has heard of the room", func() bool {
				_, known := c.Rooms.Find("made")
				return known
			})
			must(t, func(done func(error)) error { return a.Dead(9, time.Time{}, done) })

			lose(t, b, b.jetstream(t))
			granted := 0
			eventually(t, "the free seat is given, and no other", func() bool {
				n, err := take(t, c.Ledger, "r", 4, 4)
				if granted += n; granted > 1 {
					t.Fatalf("%d seats of four are given, while three are in use (%v)", granted, err)
				}
				return granted == 1
			})
			eventually(t, "the session can be claimed", func() bool {
				got, err := c.Sessions.claim(t, Claim{k, nonceOf(1)})
				if err == ErrUnknown {
					t.Fatal("a live session is said to be over")
				}
				return err == nil && string(got.Value) == "live"
			})
			must(t, func(done func(error)) error { return c.Sessions.Spend(Claim{k, nonceOf(1)}, done) })
			is(t, a.Sessions.save(t, k, "too late"), ErrUnknown)
			is(t, a.Sessions.save(t, keyOf(1, 2), "changed"), nil)
			is(t, await(t, func(done func(error)) error { return c.Rooms.Create(Room{Name: "made"}, done) }), ErrExists)
			eventually(t, "all is well", func() bool { return a.Why() == "" && c.Why() == "" })

			d := b.member(t, 3, []ident.Worker{1, 2}, nil)
			if _, known := d.Rooms.Find("made"); !known {
				t.Error("a newcomer does not know the room that was created")
			}
			told := make(chan bool)
			d.post(func() { told <- d.life.isDead(worker{testEpoch, 9}) })
			if !<-told {
				t.Error("a newcomer does not know who is dead")
			}
			if n, err := take(t, d.Ledger, "r", 4, 1); err != ErrFull {
				t.Errorf("a newcomer takes %d seats of a full room (%v)", n, err)
			}
			if _, err := d.Sessions.claim(t, Claim{k, nonceOf(2)}); err != ErrUnknown {
				t.Errorf("claiming a session that was used up gives %v", err)
			}
		})
	}
}

// A claim that succeeded before the bus lost its records is spent, undone or parked as without the loss.
func TestClaimsThatAreOpenWhenAllIsLost(t *testing.T) {
	t.Parallel()
	b := startBus(t)
	a := b.member(t, 1, []ident.Worker{2}, nil)
	c := b.member(t, 2, []ident.Worker{1}, nil)
	spent, parked, back := keyOf(1, 1), keyOf(1, 2), keyOf(1, 3)
	for i, k := range []Key{spent, parked, back} {
		is(t, a.Sessions.save(t, k, fmt.Sprint(i)), nil)
		_, err := c.Sessions.claim(t, Claim{k, nonceOf(i)})
		is(t, err, nil)
		a.Sessions.Forget(k) // it has handed over
	}
	remove(t, b.jetstream(t), sessionBucket)
	try := func(call func(done func(error)) error) {
		t.Helper()
		eventually(t, "the claim ends", func() bool {
			err := await(t, call)
			if err != nil && err != ErrAway {
				t.Fatal(err)
			}
			return err == nil
		})
	}
	try(func(done func(error)) error { return c.Sessions.Spend(Claim{spent, nonceOf(0)}, done) })
	try(func(done func(error)) error {
		return c.Sessions.Restore(Claim{parked, nonceOf(1)}, []byte("parked"), time.Minute, done)
	})
	try(func(done func(error)) error { return c.Sessions.Unclaim(Claim{back, nonceOf(2)}, done) })
	got, err := a.Sessions.claim(t, Claim{parked, nonceOf(4)})
	is(t, err, nil)
	if string(got.Value) != "parked" || got.State != Parked {
		t.Errorf("what was parked is %v", got)
	}
	eventually(t, "what was spent is over", func() bool {
		_, err := a.Sessions.claim(t, Claim{spent, nonceOf(5)})
		if err == nil {
			t.Fatal("what was spent can be claimed")
		}
		return err == ErrUnknown
	})
}

// A worker that starts long after the server does not delete the others' records: by then the record of the server's start
// has expired.
func TestLateWorkerSweepsNothing(t *testing.T) {
	t.Parallel()
	b := startBus(t)
	a := b.open(t, 1)
	is(t, a.Sessions.save(t, keyOf(1, 1), "live"), nil)
	grant(t, a, "r", 4, 3)
	s, err := b.stream(t, sharedBucket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := s.Purge(ctx, jetstream.WithPurgeSubject(subjectOf(sharedBucket, "epoch.>"))); err != nil {
		t.Fatal(err)
	}
	c := b.open(t, 2, func(o *Options) { o.SessionTTL = time.Second; o.Peers = []ident.Worker{1} })
	granted, err := take(t, c, "r", 4, 4)
	if granted != 1 {
		t.Errorf("%d seats of four are given, while three are in use (%v)", granted, err)
	}
	for range 3 {
		<-time.After(sweepSpread) // what must not happen cannot be waited for
		is(t, a.Sessions.save(t, keyOf(1, 1), fmt.Sprint("live", time.Now())), nil)
	}
}
