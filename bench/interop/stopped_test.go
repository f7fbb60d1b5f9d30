package interop

import (
	"syscall"
	"testing"
	"time"
)

// A client whose process is stopped is gone within the heartbeat timeout plus one second; one that only answers
// protocol PINGs stays.
func TestStoppedProcess(t *testing.T) {
	s := serve(t, "--heartbeat-interval", "1", "--heartbeat-timeout", "2")
	watcher, node := greet(t, "gorilla", s.ws), greet(t, "node", s.ws)
	watcher.say(`{"type":"join","room":"r"}`)
	watcher.until("joined")
	node.say(`{"type":"join","room":"r"}`)
	node.until("joined")
	process := node.c.(*nodeClient).cmd.Process
	if err := process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	stopped := time.Now()
	if m := watcher.until("member_left"); m["connection_id"] != node.id {
		t.Error(m)
	}
	eventually(t, "one is left", func() bool { return s.stats("connections") == 1 })
	if took := time.Since(stopped); took > 3500*time.Millisecond {
		t.Errorf("noticed after %v, the timeout is 2 s and one second is allowed", took)
	}
}
