package cluster

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/parleyd/parley/engine"
)

// A session is resumed on any worker, with all that belongs to it, once.
func TestResumeAnywhere(t *testing.T) {
	s := startProcesses(t, engine.Config{Processes: 3, HeartbeatInterval: time.Minute})
	t.Run("after a clean cut", func(t *testing.T) {
		ann := s.dial("")
		ann.join("a", "b")
		ann.keep("one")
		ann.conn.Close()
		heir := s.dialAt("", ann.pid)
		heir.expectResumed(ann, "one", "a", "b")
		for _, at := range []*client{s.dialAt("", ann.pid, heir.pid), s.dialAt("", heir.pid), s.dial("")} {
			at.expectRefused(ann.token, "invalid_token")
		}
		heir.expectRefused(heir.token, "already_resumed")
		heir.conn.Close()
		s.dialAt("", heir.pid).expectResumed(heir, "one", "a", "b")
	})
	t.Run("on the same worker", func(t *testing.T) {
		ann := s.dial("")
		ann.join("same")
		ann.keep("two")
		own := s.dial("")
		own.expectRefused(own.token, "invalid_token")
		for own.pid != ann.pid {
			own = s.dial("")
		}
		own.expectResumed(ann, "two", "same")
		if code := ann.closed(); code != 4004 {
			t.Errorf("the earlier connection was closed with %d", code)
		}
	})
	t.Run("take-over", func(t *testing.T) { takeOver(t, s) })
	t.Run("attempts", func(t *testing.T) {
		c := s.dial("")
		c.keep("again")
		for range 5 {
			next := s.dialAt("", c.pid)
			next.expectResumed(c, "again")
			c.conn.Close()
			c = next
		}
		s.dialAt("", c.pid).expectRefused(c.token, "attempts_exhausted")
		c.tell() // it lives on
		c.conn.Close()
		s.dialAt("", c.pid).expectRefused(c.token, "attempts_exhausted")
	})
	t.Run("principals", func(t *testing.T) {
		ann := s.dial("?user=ann")
		ann.keep("hers")
		s.dialAt("?user=eve", ann.pid).expectRefused(ann.token, "invalid_token")
		s.dialAt("", ann.pid).expectRefused(ann.token, "invalid_token")
		ann.tell()
		s.dialAt("?user=ann", ann.pid).expectResumed(ann, "hers")
	})
	t.Run("no token", func(t *testing.T) {
		c := s.dial("")
		for _, text := range []string{"", "x", "AAAAAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAAAAAAA", c.token + "A", c.token[:23] + "="} {
			c.expectRefused(text, "invalid_token")
		}
	})
}

// A half-open link: the earlier connection looks alive, and is ended in favour of its heir on another worker.
func takeOver(t *testing.T, s *serverProcess) {
	ann := s.dial("")
	ann.join("hall")
	watch := s.dialAt("", ann.pid)
	watch.join("hall")
	heir := s.dialAt("", ann.pid, watch.pid)
	ann.keep("latest") // younger than what is stored
	heir.expectResumed(ann, "latest", "hall")
	if code := ann.closed(); code != 4004 {
		t.Errorf("the earlier connection was closed with %d", code)
	}
	if left := watch.expect("member_left"); left["connection_id"] != ann.id {
		t.Errorf("the room was told %v", left)
	}
	if joined := watch.expect("member_joined"); joined["connection_id"] != heir.id {
		t.Errorf("the room was told %v", joined)
	}
}

// Of two claims of one token at once, on two workers, exactly one succeeds.
func TestClaimsAtOnce(t *testing.T) {
	s := startProcesses(t, engine.Config{Processes: 3})
	for round := range 200 {
		ann := s.dial("")
		first, second := s.dial(""), s.dial("")
		for second.pid == first.pid {
			second.conn.Close()
			second = s.dial("")
		}
		if round%2 == 0 {
			ann.conn.Close()
		}
		for _, c := range []*client{first, second} {
			c.send(m{"type": "reconnect", "token": ann.token, "ref": "r"})
		}
		won, refused := 0, 0
		for _, c := range []*client{first, second} {
			switch answer := c.answer("r"); {
			case answer["type"] == "reconnected":
				won++
			case answer["code"] == "invalid_token":
				refused++
			default:
				t.Fatalf("round %d: got %v", round, answer)
			}
		}
		if won != 1 || refused != 1 {
			t.Fatalf("round %d: %d claims succeeded, %d were refused", round, won, refused)
		}
		for _, c := range []*client{ann, first, second} {
			c.conn.Close()
		}
	}
}

// Who was on a worker that is killed comes back on another as he was 50 ms before.
func TestResumeAfterKill(t *testing.T) {
	s := startProcesses(t, engine.Config{Processes: 3})
	for round := range 4 {
		value := fmt.Sprint("round ", round)
		ann := s.dial("")
		ann.join("a", "b", "c")
		ann.send(m{"type": "leave", "room": "b"})
		ann.until("left")
		ann.keep(value)
		<-time.After(50 * time.Millisecond)
		kill(t, ann.pid)
		heir := s.dialAt("", ann.pid)
		heir.expectResumed(ann, value, "a", "c")
		s.dialAt("", heir.pid).expectRefused(ann.token, "invalid_token")
		poll(t, "the worker is back", func() bool { return len(s.pids()) == 3 })
	}
}

func kill(t testing.TB, pid int) { send(t, pid, syscall.SIGKILL) }

func send(t testing.TB, pid int, sig syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, sig); err != nil {
		t.Fatal(err)
	}
}
