package cluster_test

import (
	"net/url"
	"syscall"
	"testing"
	"time"

	"github.com/parleyd/parley/engine"
)

// Members on all workers read the users of the others: when they come, speak and are listed, when their worker is killed, and
// when the whole server says goodbye.
func TestUsersOverProcesses(t *testing.T) {
	t.Parallel()
	s := startProcesses(t, engine.Config{Processes: 3, HeartbeatInterval: time.Minute})
	const name = "a\"\\\x01\n\u2028é"
	ann := s.dial("?user=ann")
	far := s.dialAt("?user="+url.QueryEscape(name), ann.pid)
	nobody := s.dialAt("", ann.pid, far.pid)
	users := map[string]any{ann.id: "ann", far.id: name, nobody.id: nil}
	ann.join("r")
	for _, c := range []*client{nobody, far} { // in this order: the worker of nobody hears who comes later
		c.join("r")
		if m := ann.until("member_joined"); m["connection_id"] != c.id || m["user"] != users[c.id] {
			t.Fatal(m)
		}
	}
	far.send(m{"type": "broadcast", "room": "r", "data": 1})
	for _, c := range []*client{ann, nobody} {
		if m := c.until("broadcast"); m["from"] != far.id || m["user"] != name {
			t.Error(m)
		}
	}
	answer := ann.must(`{"type":"members","room":"r"}`, "members")
	ids, listed := answer["members"].([]any), answer["users"].([]any)
	if len(ids) != 3 || len(listed) != 3 {
		t.Fatal(answer)
	}
	for i, id := range ids {
		if listed[i] != users[id.(string)] {
			t.Error(answer)
		}
	}
	kill(t, far.pid)
	for _, c := range []*client{ann, nobody} {
		if m := c.until("member_left"); m["connection_id"] != far.id || m["user"] != name {
			t.Error("after the kill:", m)
		}
	}
	send(t, s.cmd.Process.Pid, syscall.SIGTERM)
	for _, c := range []*client{ann, nobody} {
		if m := c.until("goodbye"); m["retry_after"].(float64) < 1 || m["retry_after"].(float64) > 60 {
			t.Error(m)
		}
		if code := c.closed(); code != 1001 {
			t.Error("closed with", code)
		}
		c.conn.Close()
	}
}
