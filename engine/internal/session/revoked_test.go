package session

import "testing"

// A session that was revoked is remembered as such for as long as a session can be resumed, and not longer: until the
// store has heard of it, its owner is the only one who knows.
func TestRevokedIsRemembered(t *testing.T) {
	s := newMemory(1000, 5)
	key := tokenHash{1}
	s.begin(key, new(Conn))
	if !s.revoke(key) {
		t.Fatal("the session was not there")
	}
	s.remember(key, 0)
	s.Expire(999)
	if given := s.Release(key); given.conn != nil || given.state != nil || !given.revoked {
		t.Errorf("what is left of a revoked session: %+v", given)
	}
	s.Expire(1000)
	if s.Release(key).revoked {
		t.Error("it is remembered for ever")
	}
}
