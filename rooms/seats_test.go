package rooms

import (
	"slices"
	"testing"
)

// ledger counts the shared seats of an index.
type ledger struct {
	held   map[string]int
	forced map[string]int
}

func (s *ledger) Release(room string) { s.held[room]-- }

func (s *ledger) Force(room string, limit, n int) {
	s.held[room] += n
	s.forced[room] = limit
}

func sharing(limit int) (*Index, *ledger) {
	x := NewIndex(2, Options{MaxMembers: limit})
	s := &ledger{held: map[string]int{}, forced: map[string]int{}}
	x.ShareSeats(s)
	return x, s
}

// seat acquires one and enters with it.
func seat(t *testing.T, x *Index, s *ledger, name string, p Place) *Room {
	t.Helper()
	s.held[name]++
	e, spare := x.EnterSeated([]byte(name), p, 1)
	if spare {
		s.Release(name)
	}
	return e.Room
}

func TestSharedSeats(t *testing.T) {
	x, s := sharing(2)
	a, b, c := at(0, 1), at(1, 2), at(0, 3)
	if e, err := x.Enter([]byte("r"), a, 1); err != ErrSeat || e.Limit != 2 || x.Len() != 0 {
		t.Fatal("a seat must be acquired first, and no room is made:", e, err, x.Len())
	}
	if _, err := x.Hold([]byte("r"), a, 1); err != ErrSeat || x.Len() != 0 {
		t.Fatal(err, x.Len())
	}
	if n := x.Scarce([]byte("r"), a); n != 2 {
		t.Fatal("the limit is", n)
	}
	r := seat(t, x, s, "r", a)
	seat(t, x, s, "r", b)
	seat(t, x, s, "r", b)
	if s.held["r"] != 2 || r.Len() != 2 || x.Scarce([]byte("r"), a) != 0 {
		t.Fatal("a seat that was not needed stays taken:", s.held, r.Len())
	}
	if e, err := x.Enter([]byte("r"), a, 1); err != nil || !e.Already {
		t.Fatal("a member needs no seat:", e, err)
	}
	if _, err := x.Enter([]byte("r"), c, 1); err != ErrSeat {
		t.Fatal(err)
	}
	x.Handover(r, a, c)
	if s.held["r"] != 2 {
		t.Fatal("a seat was freed that is handed on")
	}
	if seat(t, x, s, "r", c); s.held["r"] != 2 {
		t.Fatal("the heir needs no other seat")
	}
	x.Handover(r, b, c)
	x.Leave(r, c)
	if s.held["r"] != 0 || x.Len() != 0 {
		t.Fatal("seats without a holder are kept:", s.held, x.Len())
	}
}

// A withdrawal keeps a shared seat, and frees any other.
func TestWithdraw(t *testing.T) {
	x, s := sharing(2)
	a, b := at(0, 1), at(1, 2)
	r := seat(t, x, s, "r", a)
	if left, seq, kept := x.Withdraw(r, a); !left || seq != 2 || !kept || s.held["r"] != 1 || r.Len() != 0 || x.Len() != 0 {
		t.Error(left, seq, kept, s.held, r.Len(), x.Len())
	}
	if left, _, kept := x.Withdraw(r, a); left || kept {
		t.Error("a second withdrawal took effect")
	}
	free, none := sharing(0)
	e, _ := free.Enter([]byte("r"), b, 1)
	if left, _, kept := free.Withdraw(e.Room, b); !left || kept || len(none.held) != 0 {
		t.Error("a room without a limit has seats:", left, kept, none.held)
	}
}

// Members take shared seats when their room gets a limit, and give them back when it loses it; they stay where it is lower than
// their number.
func TestUpdate(t *testing.T) {
	x, s := sharing(0)
	limit := func(n int) {
		t.Helper()
		if err := x.Update("r", UpdateOptions{MaxMembers: &n}); err != nil {
			t.Fatal(err)
		}
	}
	if err := x.Update("r", UpdateOptions{}); err != ErrUnknown {
		t.Error(err)
	}
	for i := range uint32(3) {
		if _, err := x.Enter([]byte("r"), at(0, i), 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := x.Update("r", UpdateOptions{}); err != ErrUnknown {
		t.Error("a room that its members made is updated:", err)
	}
	r, _ := x.Adopt("r", CreateOptions{Metadata: []byte("m")})
	for _, n := range []int{2, 0, 5, 1, 0} {
		want := 0
		if n > 0 {
			want = 3
		}
		if limit(n); s.held["r"] != want || r.Limit() != n || r.Len() != 3 || string(r.Metadata()) != "m" {
			t.Errorf("limit %d: %d seats, %d members, %q", r.Limit(), s.held["r"], r.Len(), r.Metadata())
		}
	}
	limit(2)
	if _, err := x.Enter([]byte("r"), at(1, 1), 1); err != ErrSeat {
		t.Error(err)
	}
	for i := range uint32(3) {
		x.Leave(r, at(0, i))
	}
	if s.held["r"] != 0 || x.FindString("r") != r {
		t.Error("seats are left, or the created room is gone:", s.held)
	}
}

func TestAdopt(t *testing.T) {
	x, s := sharing(0)
	for i := range uint32(3) {
		if _, err := x.Enter([]byte("r"), at(0, i), 1); err != nil {
			t.Fatal(err)
		}
	}
	r := x.FindString("r")
	x.Leave(r, at(0, 0))
	if len(s.held) != 0 {
		t.Fatal("a room without a limit has seats:", s.held)
	}
	o := CreateOptions{MaxMembers: 3, Metadata: []byte("m"), CreatedAt: 7}
	if _, old := x.Adopt("r", o); old != nil || x.FindString("r") != r || s.held["r"] != 2 || s.forced["r"] != 3 {
		t.Fatal("its members have no seats:", old, s.held)
	}
	if r.Limit() != 3 || string(r.Metadata()) != "m" || r.CreatedAt() != 7 || !r.Explicit() {
		t.Fatal("it is not what was created")
	}
	seat(t, x, s, "r", at(0, 0))
	if _, old := x.Adopt("r", CreateOptions{}); old != r || !r.Dead() || x.FindString("r") == r || x.FindString("r").Limit() != 0 {
		t.Fatal("a room that is created again was deleted in between")
	}
	if e, err := x.Enter([]byte("r"), at(1, 9), 1); err != nil || e.Room == r {
		t.Fatal(e, err)
	}
	for i := range uint32(3) {
		x.Leave(r, at(0, i))
	}
	if s.held["r"] != 0 {
		t.Fatal("the dead room keeps seats:", s.held)
	}
	// The limit has gone while a member waited for its seat: the seat is spare.
	if seat(t, x, s, "r", at(0, 1)); s.held["r"] != 0 {
		t.Fatal("a seat in a room without a limit:", s.held)
	}
	names := []string{}
	x.Range(func(r *Room) bool { names = append(names, r.Name()); return true })
	if !slices.Equal(names, []string{"r"}) {
		t.Fatal(names)
	}
	check(t, x)
}
