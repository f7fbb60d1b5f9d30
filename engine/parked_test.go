package engine

import (
	"fmt"
	"testing"
	"time"
)

// Parked sessions are bounded by what they hold together: the oldest go first, and are counted.
func TestParkedSessionsAreBoundedInBytes(t *testing.T) {
	s := newSessionMemory(time.Hour, 5)
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
	if parked, evicted := s.parkedLen(), int(s.evicted.Load()); parked+evicted != n || parked < n/4 {
		t.Errorf("%d sessions are parked and %d were pushed out, of %d", parked, evicted, n)
	}
	if !s.holds(hashToken(fmt.Append(nil, n-1))) || s.holds(hashToken(fmt.Append(nil, 0))) {
		t.Error("the oldest must go first")
	}
	s.expire(1)
	if bytes, _ := held(); bytes != 0 {
		t.Errorf("%d bytes are left of no session", bytes)
	}
}

// Who connects and leaves again and again pushes out sessions like its own, and none that restores something.
func TestBlankSessionsGoFirst(t *testing.T) {
	var h sessionShard
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
