package cluster_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/parleyd/parley/engine"
)

// Ended sessions are good on no worker: one with a connection, one that waits in the store, one whose worker was killed. The
// session of another user stays good, and keeps its name over workers.
func TestEndSessionsEverywhere(t *testing.T) {
	t.Parallel()
	s := startProcesses(t, engine.Config{Processes: 3, HeartbeatInterval: time.Minute})
	dying, live := s.dial("?user=ann"), s.dial("?user=ann")
	for live.pid == dying.pid {
		live = s.dial("?user=ann")
	}
	waits, bob := s.dial("?user=ann"), s.dial("?user=bob")
	for bob.pid == dying.pid {
		bob = s.dial("?user=bob")
	}
	bob.keep("his")
	waits.conn.Close()
	bob.conn.Close()
	if err := syscall.Kill(dying.pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	other := s.dialAt("", dying.pid, live.pid)
	poll(t, "all workers that live have answered", func() bool {
		return other.do(deed{Verb: "endSessions", To: "ann"})["err"] == nil
	})
	if code := live.closed(); code != engine.StatusUnauthorized {
		t.Error("closed with", code)
	}
	for _, c := range []*client{dying, live, waits} {
		s.dialAt("?user=ann", dying.pid).expectRefused(c.token, "invalid_token")
	}
	heir := s.dialAt("?user=bob", bob.pid)
	heir.expectResumed(bob, "his")
	if got := other.do(deed{Verb: "facts", To: heir.id})["n"]; got != bob.id {
		t.Errorf("the session is called %v, want %s", got, bob.id)
	}
}
