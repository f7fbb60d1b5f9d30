package interop

import (
	"syscall"
	"testing"
	"time"
)

// The server closes a client whose process is stopped soon after the heartbeat timeout; a client that only answers
// protocol PINGs stays.
func TestStoppedProcess(t *testing.T) {
	s := serve(t, "--heartbeat-interval", "1", "--heartbeat-timeout", "4")
	node := greet(t, "node", s.ws)
	node.say(`{"type":"join","room":"r"}`)
	node.until("joined")
	watcher := greet(t, "gorilla", s.ws) // answers only while it is read
	watcher.say(`{"type":"join","room":"r"}`)
	watcher.until("joined")
	process := node.c.(*nodeClient).cmd.Process
	if err := process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	stopped := time.Now()
	if m := watcher.until("member_left"); m["connection_id"] != node.id {
		t.Error(m)
	}
	eventually(t, "one is left", func() bool { return s.stats("connections") == 1 })
	if took := time.Since(stopped); took > 15*time.Second {
		t.Errorf("noticed after %v, the timeout is 4 s, one second is allowed, and some more on a slow machine", took)
	}
}
