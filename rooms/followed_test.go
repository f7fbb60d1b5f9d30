package rooms

import (
	"testing"
	"time"
)

// A room that is deleted is forgotten, also where another process numbers its messages.
func TestDeletedFollowedRoom(t *testing.T) {
	o := HistoryOptions{Messages: 5, Bytes: 1000, Age: time.Hour}
	x := NewIndex(1, Options{History: func(string) *HistoryOptions { return &o }})
	x.Follow(FollowOptions{Release: func(string) bool { t.Error("a deleted room is released"); return true }})
	if r, what := x.Begin("r", 1, 1, Position{Seq: 3, Epoch: "e"}); r == nil || what != FollowsNew {
		t.Fatal(r, what)
	}
	x.Delete("r")
	x.SweepHistories(2, 10)
	if c := x.HistoryCounts(); c.Rooms != 0 {
		t.Errorf("%d rooms are kept", c.Rooms)
	}
}

// A created room that is replaced by a later one of its name leaves nothing of its history behind.
func TestReplacedRoom(t *testing.T) {
	x, _ := historic(HistoryOptions{Messages: 5, Bytes: 1000, Age: time.Hour})
	r, _ := x.Adopt("r", CreateOptions{})
	if _, err := r.History().Publish(&silent{}, NumberedMessage{Now: 1}); err != nil {
		t.Fatal(err)
	}
	if _, old := x.Adopt("r", CreateOptions{}); old != r {
		t.Fatal("the room was not replaced")
	}
	x.Delete("r")
	if n := x.HistoryBytes(); n != 0 {
		t.Errorf("%d bytes of histories are kept, and there is no room", n)
	}
}
