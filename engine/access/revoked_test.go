package access

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// bearer are the claims of a token: its user, its jti, and when it was issued, in seconds before the moment; 0: never said.
func bearer(user, jti string, ago int64) *Claims {
	c := &Claims{User: user, ID: jti}
	if ago != 0 {
		c.Issued = moment.Add(-time.Duration(ago) * time.Second)
	}
	return c
}

func must(t testing.TB, change []byte, err error) []byte {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return change
}

// A user's tokens from before a time are revoked, later ones are not; a jti is revoked until its time.
func TestRevoked(t *testing.T) {
	var r Revocations
	for _, c := range []*Claims{bearer("42", "j", 10), bearer("", "", 0)} {
		if r.Revoked(c, moment) {
			t.Error("a token is revoked by nothing")
		}
	}
	change, err := r.RevokeUser("42", moment.Add(-60*time.Second), moment)
	must(t, change, err)
	change, err = r.RevokeID("j", moment.Add(time.Hour), moment)
	must(t, change, err)
	for _, c := range []struct {
		claims  *Claims
		later   time.Duration
		revoked bool
	}{
		{bearer("42", "", 61), 0, true},
		{bearer("42", "", 60), 0, false},
		{bearer("42", "", 59), 0, false},
		{bearer("42", "", 0), 0, true},
		{bearer("43", "", 61), 0, false},
		{bearer("43", "j", 5), 0, true},
		{bearer("43", "42", 5), 0, false},
		{bearer("j", "", 5), 0, false},
		{bearer("43", "j", 5), time.Hour, true},
		{bearer("43", "j", 5), time.Hour + time.Second, false},
		{bearer("42", "", 61), UserKept - time.Second, true},
		{bearer("42", "", 61), UserKept, false},
	} {
		if got := r.Revoked(c.claims, moment.Add(c.later)); got != c.revoked {
			t.Errorf("%+v after %v: %v", c.claims, c.later, got)
		}
	}
	want := []Revocation{{User: "42", IssuedBefore: moment.Unix() - 60, Until: moment.Add(UserKept).Unix()}, {ID: "j", Until: moment.Unix() + 3601}}
	if got := r.List(moment); !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
	r.Expire(moment.Add(2 * time.Hour))
	if r.Len() != 1 || len(r.List(moment)) != 1 {
		t.Errorf("%d are left", r.Len())
	}
}

// A weaker revocation takes nothing back; lifting does; revoking again holds.
func TestRevokedAgain(t *testing.T) {
	var r Revocations
	if change, err := r.LiftUser("42", moment); change != nil || err != nil || r.Len() != 0 {
		t.Errorf("%v, %v", change, err)
	}
	steps := []struct {
		do      func() ([]byte, error)
		revoked [2]bool // of a token from 100 seconds ago, and from 10
	}{
		{func() ([]byte, error) { return r.RevokeUser("42", moment.Add(-50*time.Second), moment) }, [2]bool{true, false}},
		{func() ([]byte, error) { return r.RevokeUser("42", moment.Add(-200*time.Second), moment) }, [2]bool{true, false}},
		{func() ([]byte, error) { return r.RevokeUser("42", moment, moment.Add(-time.Hour)) }, [2]bool{true, true}},
		{func() ([]byte, error) { return r.LiftUser("42", moment.Add(-time.Hour)) }, [2]bool{false, false}},
		{func() ([]byte, error) { return r.RevokeUser("42", moment.Add(-50*time.Second), moment) }, [2]bool{true, false}},
		{func() ([]byte, error) { return r.RevokeID("j", moment.Add(time.Second), moment) }, [2]bool{true, true}},
		{func() ([]byte, error) { return r.LiftID("j", moment) }, [2]bool{true, false}},
	}
	var other Revocations
	for n, s := range steps {
		change, err := s.do()
		if changed, mergeErr := other.Merge(must(t, change, err), moment); !changed || mergeErr != nil {
			t.Errorf("step %d: merged: %v, %v", n, changed, mergeErr)
		}
		for _, state := range []*Revocations{&r, &other} {
			if got := [2]bool{state.Revoked(bearer("42", "j", 100), moment), state.Revoked(bearer("42", "j", 10), moment)}; got != s.revoked {
				t.Errorf("step %d: %v", n, got)
			}
		}
	}
	if change, err := r.LiftID("j", moment); change != nil || err != nil {
		t.Errorf("lifted twice: %v, %v", change, err)
	}
}

// Names and times that no token has are refused, and so is one revocation more than there is a place for.
func TestRevocationsRefused(t *testing.T) {
	var r Revocations
	for _, user := range []string{"", "a\x00", "\xff", strings.Repeat("u", 129)} {
		if _, err := r.RevokeUser(user, moment, moment); !errors.Is(err, ErrRevocation) {
			t.Errorf("%q: %v", user, err)
		}
	}
	for _, until := range []time.Time{{}, moment, moment.Add(-1), time.Unix(secondsMax, 0)} {
		if _, err := r.RevokeID("j", until, moment); !errors.Is(err, ErrRevocation) {
			t.Errorf("%v: %v", until, err)
		}
	}
	if _, err := r.RevokeUser("u", time.Unix(-1, 0), moment); !errors.Is(err, ErrRevocation) {
		t.Error(err)
	}
	for n := range RevocationsMax {
		if _, err := r.RevokeID(fmt.Sprint(n), moment.Add(time.Hour), moment); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.RevokeUser("u", moment, moment); !errors.Is(err, ErrRevocationsFull) {
		t.Error(err)
	}
	var other Revocations
	change, err := other.RevokeUser("u", moment, moment)
	if changed, err := r.Merge(must(t, change, err), moment); changed || !errors.Is(err, ErrRevocationsFull) {
		t.Errorf("%v, %v", changed, err)
	}
	if _, err := r.RevokeID("7", moment.Add(2*time.Hour), moment); err != nil {
		t.Errorf("one that is known: %v", err)
	}
	later := moment.Add(3 * time.Hour)
	if changed, err := r.Merge(change, later); !changed || err != nil || r.Len() != 1 {
		t.Errorf("merged after the others expired: %v, %v, %d", changed, err, r.Len())
	}
	for n := range RevocationsMax - 1 {
		if _, err := r.RevokeID(fmt.Sprint(n), later.Add(time.Hour), later); err != nil {
			t.Fatal(err)
		}
	}
	later = later.Add(time.Hour + 2*time.Second)
	if _, err := r.RevokeUser("w", later, later); err != nil || r.Len() != 2 {
		t.Errorf("after the others expired: %v, %d", err, r.Len())
	}
}

// Workers that hear of the same changes agree, in whatever order and however often they hear, and in parts.
func TestMergeAgrees(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		workers := make([]Revocations, 3)
		var changes [][]byte
		for range rapid.IntRange(1, 20).Draw(t, "changes") {
			w := &workers[rapid.IntRange(0, 2).Draw(t, "worker")]
			name := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "name")
			at := moment.Add(time.Duration(rapid.IntRange(-3, 3).Draw(t, "at")) * time.Millisecond)
			offset := time.Duration(rapid.IntRange(1, 5).Draw(t, "offset")) * time.Second
			var change []byte
			var err error
			switch rapid.IntRange(0, 3).Draw(t, "act") {
			case 0:
				change, err = w.RevokeUser(name, moment.Add(offset), at)
			case 1:
				change, err = w.RevokeID(name, moment.Add(offset), at)
			case 2:
				change, err = w.LiftUser(name, at)
			case 3:
				change, err = w.LiftID(name, at)
			}
			if err != nil {
				t.Fatal(err)
			}
			if change != nil {
				changes = append(changes, change)
			}
		}
		states := make([]Revocations, 3)
		for i := range states {
			for _, change := range append(rapid.Permutation(changes).Draw(t, "order"), changes[:len(changes)/2]...) {
				if _, err := states[i].Merge(change, moment); err != nil {
					t.Fatal(err)
				}
			}
		}
		for i := range workers { // and workers who tell each other all they know
			for j := range workers {
				for _, part := range workers[j].EncodeParts(512) {
					if _, err := workers[i].Merge(part, moment); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		for i := range workers {
			for _, part := range workers[i].EncodeParts(1) {
				workers[0].Merge(part, moment)
			}
		}
		if a, b, c := string(states[0].Encode()), string(states[1].Encode()), string(states[2].Encode()); a != b || b != c || a != string(workers[0].Encode()) {
			t.Errorf("%q, %q, %q, %q", a, b, c, workers[0].Encode())
		}
	})
}

// A full state goes in parts that fit into messages.
func TestEncodeParts(t *testing.T) {
	var r, other Revocations
	for n := range 5000 {
		change, err := r.RevokeUser(fmt.Sprint("user ", n), moment, moment)
		must(t, change, err)
	}
	parts := r.EncodeParts(4096)
	for _, part := range parts {
		if len(part) > 4096 {
			t.Errorf("a part has %d bytes", len(part))
		}
		if changed, err := other.Merge(part, moment); !changed || err != nil {
			t.Errorf("%v, %v", changed, err)
		}
	}
	if len(parts) < 20 || string(other.Encode()) != string(r.Encode()) {
		t.Errorf("%d parts, %d of %d arrived", len(parts), other.Len(), r.Len())
	}
	if changed, err := other.Merge(r.Encode(), moment); changed || err != nil {
		t.Errorf("the same again: %v, %v", changed, err)
	}
	if empty := (&Revocations{}).EncodeParts(512); len(empty) != 1 {
		t.Errorf("an empty state has %d parts", len(empty))
	}
}

// No torn or changed bytes are taken for a state, and they leave the state alone.
func TestMergeRefusesDamage(t *testing.T) {
	var r Revocations
	change, err := r.RevokeUser("42", moment, moment)
	must(t, change, err)
	change, err = r.RevokeID("j", moment.Add(time.Hour), moment)
	must(t, change, err)
	good := r.Encode()
	var other Revocations
	for n := range good {
		if _, err := other.Merge(good[:n], moment); !errors.Is(err, ErrDamaged) {
			t.Errorf("the first %d bytes: %v", n, err)
		}
		changed := slices.Clone(good)
		changed[n] ^= 1 << (n % 8)
		if _, err := other.Merge(changed, moment); !errors.Is(err, ErrDamaged) {
			t.Errorf("byte %d changed: %v", n, err)
		}
	}
	if _, err := other.Merge(append(slices.Clone(good), 0), moment); !errors.Is(err, ErrDamaged) || other.Len() != 0 {
		t.Errorf("%v, %d entries", err, other.Len())
	}
}

// Whatever the bytes, they are a state that has exactly these bytes, or ErrDamaged.
func FuzzRevocations(f *testing.F) {
	var r Revocations
	f.Add(r.Encode())
	r.RevokeUser("42", moment, moment)
	r.RevokeID("j", moment.Add(time.Hour), moment)
	r.LiftID("j", moment)
	f.Add(r.Encode())
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, b := range [][]byte{text, sealed(text)} {
			records, err := decode(b)
			if err != nil && !errors.Is(err, ErrDamaged) {
				t.Errorf("%q: %v", b, err)
			}
			if err == nil && string(encode(records)) != string(b) {
				t.Errorf("%q is also %q", b, encode(records))
			}
		}
	})
}

// A check allocates nothing.
func TestRevokedAllocatesNothing(t *testing.T) {
	r, c := filled(t, 1000), bearer("user 7", "jti", 10)
	revoked := 0
	if n := testing.AllocsPerRun(100, func() {
		if r.Revoked(c, moment) {
			revoked++
		}
	}); n != 0 || revoked == 0 {
		t.Errorf("%v allocations, %d times revoked", n, revoked)
	}
}

func filled(t testing.TB, n int) *Revocations {
	t.Helper()
	r := &Revocations{}
	for i := range n {
		change, err := r.RevokeUser(fmt.Sprint("user ", i), moment, moment)
		must(t, change, err)
	}
	return r
}

// Checks, changes, merges and lists on several goroutines agree in the end.
func TestRevocationsAreShared(t *testing.T) {
	var r, other Revocations
	var group sync.WaitGroup
	for g := range 4 {
		group.Go(func() {
			for n := range 200 {
				change, err := r.RevokeID(fmt.Sprint(g, n), moment.Add(time.Hour), moment)
				if err != nil {
					t.Error(err)
				}
				if _, err := other.Merge(change, moment); err != nil {
					t.Error(err)
				}
				if !other.Revoked(bearer("u", fmt.Sprint(g, n), 1), moment) {
					t.Error("a change was lost")
				}
				r.Encode()
			}
		})
	}
	group.Wait()
	if r.Len() != 800 || string(r.Encode()) != string(other.Encode()) {
		t.Errorf("%d and %d", r.Len(), other.Len())
	}
}

// A check in a state of 100,000, for a token that is not revoked.
func BenchmarkRevoked(b *testing.B) {
	r, c := filled(b, RevocationsMax), bearer("ann", "d1f4c2e0-0000-4000-8000-000000000000", 10)
	b.ReportAllocs()
	for b.Loop() {
		if r.Revoked(c, moment) {
			b.Fatal("revoked")
		}
	}
}

// Of two changes with one stamp, the one that revokes more holds, on both sides.
func TestRevocationsAtOneTime(t *testing.T) {
	strongest := []revocation{{before: 7, until: 9, stamp: 5}, {before: 7, until: 8, stamp: 5}, {before: 6, until: 9, stamp: 5}, {until: 9, stamp: 5, lifted: true}}
	for i, a := range strongest {
		for j, b := range strongest {
			if got := a.later(b); got != (i < j) {
				t.Errorf("%+v over %+v: %v", a, b, got)
			}
		}
	}
}
