package session

import (
	"fmt"
	"testing"
	"time"
)

func (s *Memory) holds(key tokenHash) bool {
	held, _ := s.still(key, &parked{})
	return held
}

// Parked sessions are bounded by what they hold together: the oldest go first, and are counted.
func TestParkedSessionsAreBoundedInBytes(t *testing.T) {
	s := newMemory(time.Hour, 5)
	raw := make([]byte, 1<<20)
	const n = 2 * sessionsBytesMax / (1 << 20)
	held := func() (bytes, most int) {
		for i := range s.shards {
			bytes += s.shards[i].bytes
			most = max(most, s.shards[i].bytes)
		}
		return bytes, most
	}
	for i := range n {
		key := hashToken(fmt.Append(nil, i))
		s.begin(key, nil)
		s.park(key, &parked{userData: &userData{raw: raw}, expiresAt: 1})
	}
	if _, most := held(); most > sessionShardBytes {
		t.Errorf("a shard holds %d bytes of %d", most, sessionShardBytes)
	}
	if parked, evicted := s.Parked(), int(s.evicted.Load()); parked+evicted != n || parked < n/4 {
		t.Errorf("%d sessions are parked and %d were pushed out, of %d", parked, evicted, n)
	}
	if !s.holds(hashToken(fmt.Append(nil, n-1))) || s.holds(hashToken(fmt.Append(nil, 0))) {
		t.Error("the oldest must go first")
	}
	s.Expire(1)
	if bytes, _ := held(); bytes != 0 {
		t.Errorf("%d bytes are left of no session", bytes)
	}
}

// Who connects and leaves again and again pushes out sessions like its own, and none that restores something.
func TestBlankSessionsGoFirst(t *testing.T) {
	var h shard
	h.parked = map[tokenHash]*parked{}
	good := hashToken([]byte("good"))
	h.keep(good, &parked{rooms: []string{"r"}, expiresAt: 1})
	for i := range 3 * sessionsParkedMax / sessionShards {
		h.keep(hashToken(fmt.Append(nil, i)), &parked{expiresAt: 1})
	}
	if h.parked[good] == nil || len(h.parked) != sessionsParkedMax/sessionShards {
		t.Errorf("%d sessions are parked; the one with a room: %v", len(h.parked), h.parked[good])
	}
}

// A claimed session leaves the queue of those that wait for their end.
func TestClaimedsLeaveTheQueue(t *testing.T) {
	s := newMemory(time.Hour, 5)
	for i := range 100_000 {
		key := hashToken(fmt.Append(nil, i))
		s.begin(key, nil)
		if !s.park(key, &parked{expiresAt: 1 << 60}) {
			t.Fatal("not parked")
		}
		at := Claim{Key: Key{Hash: key}}
		if err := (memoryStore{s}).Claim(at, func(Claimed, error) {}); err != nil {
			t.Fatal(err)
		}
		if err := (memoryStore{s}).Spend(at, func(error) {}); err != nil {
			t.Fatal(err)
		}
	}
	total := 0
	for i := range s.shards {
		total += s.shards[i].queued()
	}
	if total > sessionShards*(sessionQueueSlack+2) {
		t.Errorf("%d entries are left of sessions that were claimed", total)
	}
}
