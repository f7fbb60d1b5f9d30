package cluster_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/parleyd/parley/engine"
)

// A session is resumed on any worker, with its whole state, once.
func TestResumeAnywhere(t *testing.T) {
	t.Parallel()
	s := startProcesses(t, engine.Config{Processes: 3, HeartbeatInterval: time.Minute})
	run := func(name string, f func(t *testing.T)) {
		t.Run(name, func(sub *testing.T) {
			s.t = sub
			f(sub)
		})
		s.t = t
	}
	run("after a clean cut", func(t *testing.T) {
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
	run("on the same worker", func(t *testing.T) {
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
	run("take-over", func(t *testing.T) { takeOver(t, s) })
	run("attempts", func(t *testing.T) {
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
	run("principals", func(t *testing.T) {
		ann := s.dial("?user=ann")
		ann.keep("hers")
		s.dialAt("?user=eve", ann.pid).expectRefused(ann.token, "invalid_token")
		s.dialAt("", ann.pid).expectRefused(ann.token, "invalid_token")
		ann.tell()
		s.dialAt("?user=ann", ann.pid).expectResumed(ann, "hers")
		nobody := s.dial("")
		nobody.keep("nobody's")
		s.dialAt("?user=eve", nobody.pid).expectRefused(nobody.token, "invalid_token")
		bob := s.dialAt("?name=bob", nobody.pid) // what a connect handler sets is of who is there now
		if answer := bob.resume(nobody.token); answer["type"] != "reconnected" {
			t.Fatal(answer)
		}
		if got := bob.tell(); got.Attribute != "bob" || got.User != "nobody's" {
			t.Error(got)
		}
	})
	run("no token", func(t *testing.T) {
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
	for left, joined := false, false; !left || !joined; { // told by two workers: in either order
		switch notice := watch.next(); {
		case notice["type"] == "member_left" && notice["connection_id"] == ann.id:
			left = true
		case notice["type"] == "member_joined" && notice["connection_id"] == heir.id:
			joined = true
		case notice["type"] == "member_joined" && notice["connection_id"] == ann.id: // word of that comes late
		default:
			t.Fatalf("the room was told %v", notice)
		}
	}
}

// Of two claims of one token at once, on two workers, exactly one succeeds.
func TestClaimsAtOnce(t *testing.T) {
	s := startProcesses(t, engine.Config{Processes: 3})
	for round := range some(200, 50) {
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

// A client of a killed worker resumes on another, with the latest stored state. The time that this takes is measured by
// parley verify, not here: the machine may be busy.
func TestResumeAfterKill(t *testing.T) {
	t.Parallel()
	s := startProcesses(t, engine.Config{Processes: 3})
	for round := range some(4, 2) {
		value := fmt.Sprint("round ", round)
		ann := s.dial("")
		ann.join("a", "b", "c")
		ann.send(m{"type": "leave", "room": "b"})
		ann.until("left")
		ann.keep(value)
		ann.stored()
		kill(t, ann.pid)
		heir := s.dialAt("", ann.pid)
		heir.expectResumed(ann, value, "a", "c")
		s.dialAt("", heir.pid).expectRefused(ann.token, "invalid_token")
		poll(t, "the worker is back", func() bool { return len(s.pids()) == 3 })
	}
}

// kill ends a process and returns when it is gone: until then it may still accept a connection.
func kill(t testing.TB, pid int) {
	t.Helper()
	send(t, pid, syscall.SIGKILL)
	poll(t, "the process is gone", func() bool { return syscall.Kill(pid, 0) == syscall.ESRCH })
}

func send(t testing.TB, pid int, sig syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, sig); err != nil {
		t.Fatal(err)
	}
}

// freeze stops a process, and returns when none of its threads runs any more: one might still accept a connection.
func freeze(t testing.TB, pid int) {
	t.Helper()
	send(t, pid, syscall.SIGSTOP)
	poll(t, "the process stands still", func() bool {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		for _, path := range threads {
			text, err := os.ReadFile(path)
			if _, state, _ := strings.Cut(string(text), ") "); err == nil && !strings.HasPrefix(state, "T") {
				return false
			}
		}
		return err == nil && len(threads) > 0
	})
}

// The sessions of a frozen worker can be resumed on others; when it goes on, it gives them up.
func TestResumeFromFrozen(t *testing.T) {
	t.Parallel()
	s := startProcesses(t, engine.Config{Processes: 2})
	ann := s.dial("")
	ann.join("a")
	ann.keep("stored")
	ann.stored()
	send(t, s.cmd.Process.Pid, syscall.SIGSTOP) // it would kill a worker that is frozen for three seconds
	freeze(t, ann.pid)
	heir := s.dialAt("", ann.pid)
	heir.expectResumed(ann, "stored", "a")
	send(t, ann.pid, syscall.SIGCONT)
	if code := ann.closed(); code != 4004 {
		t.Errorf("the earlier connection was closed with %d", code)
	}
	send(t, s.cmd.Process.Pid, syscall.SIGCONT)
	heir.expectRefused(ann.token, "already_resumed")
	s.dial("").expectRefused(ann.token, "invalid_token")
	heir.conn.Close()
	s.dial("").expectResumed(heir, "stored", "a")
}

// While the bus is away no session is resumed, the client is told to try again, and its token stays valid.
func TestResumeWhileTheBusIsAway(t *testing.T) {
	t.Parallel()
	s := startProcesses(t, engine.Config{Processes: 2})
	ann, bob := s.dial(""), s.dial("")
	ann.join("a")
	ann.keep("before")
	bob.keep("bob")
	first, second := s.dialAt("", ann.pid), s.dialAt("", bob.pid)
	ann.conn.Close()

	bus := s.status().Bus.PID
	back := holdBus(t, s, false)
	first.expectRefused(ann.token, "unavailable")
	bob.keep("while away")
	send(t, bus, syscall.SIGKILL)
	back()
	first.expectHeir(first.resumeAtLast(ann.token), ann, "before", "a")
	second.expectHeir(second.resumeAtLast(bob.token), bob, "while away")

	poll(t, "the bus is back", func() bool { b := s.status().Bus; return b.PID != bus && b.State == "ready" })
	for round := range some(3, 2) {
		value := fmt.Sprint("round ", round)
		first.keep(value)
		kill(t, s.status().Bus.PID)
		heir := s.dial("") // its token comes when the bus is back
		heir.expectHeir(heir.resumeAtLast(first.token), first, value, "a")
		first.conn.Close()
		first = heir
		poll(t, "the bus is back", func() bool { b := s.status().Bus; return b.Restarts >= round+2 && b.State == "ready" })
	}
}

// With data_dir, sessions outlive the server, however it ended.
func TestResumeAfterRestart(t *testing.T) {
	t.Parallel()
	for _, processes := range []int{1, 2} {
		for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
			t.Run(fmt.Sprintf("%d processes, %v", processes, sig), func(t *testing.T) {
				cfg := engine.Config{Processes: processes, DataDir: t.TempDir()}
				before := startProcesses(t, cfg)
				ann, bob := before.dial(""), before.dial("")
				for _, c := range []*client{ann, bob} {
					c.join("a", "b")
					c.keep("kept " + c.id)
				}
				ann.stored()
				bob.stored()
				bob.conn.Close()
				go ann.hangUp()
				before.end(sig)
				after := startProcesses(t, cfg)
				after.dial("").expectResumed(ann, "kept "+ann.id, "a", "b")
				heir := after.dial("")
				heir.expectResumed(bob, "kept "+bob.id, "a", "b")
				after.dial("").expectRefused(ann.token, "invalid_token")
				heir.conn.Close()
				after.dial("").expectResumed(heir, "kept "+bob.id, "a", "b")
			})
		}
	}
}

// Of many sessions that change at the same moment all are stored.
func TestManyChangesAtOnce(t *testing.T) {
	t.Parallel()
	cfg := engine.Config{Processes: 1, DataDir: t.TempDir(), AnnounceMembersMax: -1}
	before := startProcesses(t, cfg)
	var crowd []*client
	for range some(600, 200) {
		crowd = append(crowd, before.dial(""))
	}
	crowd[0].send(m{"type": "gather"})
	crowd[0].until("gathered")
	crowd[0].stored() // and everybody with it: one process says what is not stored of all
	before.end(syscall.SIGKILL)
	after := startProcesses(t, cfg)
	for _, c := range crowd {
		c.conn.Close()
		after.dial("").expectResumed(c, "", "all")
	}
}

// If a session has become too large, its latest stored state is resumed, and the client is told so.
func TestSessionThatIsTooLarge(t *testing.T) {
	t.Parallel()
	const much = 600 << 10
	s := startProcesses(t, engine.Config{Processes: 2, HeartbeatInterval: time.Minute, MessageBytesMax: 1 << 20, AttributesBytesMax: 1 << 20})
	for _, alive := range []bool{false, true} {
		old := s.dial("")
		old.keep("small")
		old.stored()
		old.keep(strings.Repeat("x", much))
		poll(t, "the log says so", func() bool { return strings.Contains(s.output(), "a session is too large to be stored") })
		heir := s.dialAt("", old.pid)
		if alive {
			heir.expectRefused(old.token, "unavailable") // what its owner hands over cannot be stored: try again
		} else {
			old.conn.Close() // and as long as that is not noticed, the same
		}
		heir.expectHeir(heir.resumeAtLast(old.token), old, "small")
	}
}

// When the supervisor is killed, data_dir is kept, whatever its name.
func TestDataDirOutlivesTheSupervisor(t *testing.T) {
	t.Parallel()
	cfg := engine.Config{Processes: 2, DataDir: filepath.Join(t.TempDir(), "parley-bus-of-mine"), HeartbeatInterval: time.Minute}
	before := startProcesses(t, cfg)
	old := before.dial("")
	old.keep("kept")
	old.stored()
	before.end(syscall.SIGKILL)
	after := startProcesses(t, cfg)
	after.dial("").expectResumed(old, "kept")
}

// Two servers do not share a data_dir: the second waits as long as the first may take to stop, logs that, and ends with a
// code for which service managers start it again.
func TestDataDirIsOnesOwn(t *testing.T) {
	t.Parallel()
	cfg := engine.Config{Processes: 1, DataDir: t.TempDir(), ShutdownTimeout: 100 * time.Millisecond}
	startProcesses(t, cfg)
	var others []*serverProcess
	for _, workers := range []int{1, 2} {
		cfg.Processes = workers
		others = append(others, beginProcesses(t, cfg))
	}
	for _, second := range others {
		<-second.ended
		if code := second.cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(second.output(), "waiting for it to leave") || !strings.Contains(second.output(), cfg.DataDir+" is in use by another server") {
			t.Errorf("exit code %d:\n%s", code, second.output())
		}
	}
	cfg.DataDir = "/proc/nowhere"
	wrong := beginProcesses(t, cfg)
	<-wrong.ended
	if code := wrong.cmd.ProcessState.ExitCode(); code != 2 || !strings.Contains(wrong.output(), "data_dir: /proc/nowhere cannot be made") {
		t.Errorf("exit code %d:\n%s", code, wrong.output())
	}
}
