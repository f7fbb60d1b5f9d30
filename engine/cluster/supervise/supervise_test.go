package supervise

import (
	"bufio"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/parleyd/parley/engine/canary"
	"github.com/parleyd/parley/protocol/ident"
)

// The bus starts first, then the workers; each knows its own instance, the others, and how to reach the bus.
func TestStart(t *testing.T) {
	t.Parallel()
	p := begin(t, script{Workers: 3, Bus: true})
	st := p.running()
	if st.Bus.Address == "" || st.Bus.Started.After(st.Workers[0].Started) {
		t.Errorf("the bus is at %q, started at %v, the first worker at %v", st.Bus.Address, st.Bus.Started, st.Workers[0].Started)
	}
	passwords := map[string]bool{}
	secret := Bus{Secret: heardBy(t, *st.Bus).Welcome.Bus.Secret}
	if len(secret.Secret) != 32 {
		t.Errorf("the bus's secret has %d bytes", len(secret.Secret))
	}
	st = p.until("every worker knows that all are ready", func(st Status) bool {
		for _, w := range st.Workers {
			if !slices.Equal(heardBy(t, w).Peers.Ready, []ident.Worker{2, 3, 4}) {
				return false
			}
		}
		return true
	})
	for i, w := range st.Workers {
		h := heardBy(t, w)
		if h.Welcome.Index != i || h.Welcome.Instance != w.Instance || h.Welcome.Role != RoleWorker {
			t.Errorf("worker %d was told %+v", i, h.Welcome)
		}
		if h.Welcome.Bus.Address != st.Bus.Address || len(h.Welcome.Bus.Secret) > 0 ||
			h.Welcome.Bus.Password != secret.access(w.Instance).Password {
			t.Errorf("worker %d was told of the bus: %+v", i, h.Welcome.Bus)
		}
		passwords[h.Welcome.Bus.Password] = true
		if !slices.Equal(h.Peers.Peers, []ident.Worker{2, 3, 4}) || h.Peers.Bus != 1 {
			t.Errorf("worker %d knows the peers %v", i, h.Peers)
		}
		if len(h.Leaked) > 0 || h.Sockets > 0 || h.Secret {
			t.Errorf("worker %d: variables %v and %d sockets would be inherited; secret seen: %v", i, h.Leaked, h.Sockets, h.Secret)
		}
		if !slices.Contains(h.Args, "--a-flag=of-ours") {
			t.Errorf("worker %d has the arguments %q", i, h.Args)
		}
	}
	if len(passwords) != 3 {
		t.Errorf("%d passwords for 3 workers", len(passwords))
	}
	p.says("[bus] bus says hello")
	p.says("[worker 2 #4] worker says hello")
}

// Connections are spread evenly over workers that wait.
func TestSpread(t *testing.T) {
	p := begin(t, script{Workers: 3})
	address := p.running().Listen[0]
	const n = 300
	by := map[int]int{}
	for range n {
		c, err := dial(address)
		if err != nil {
			t.Fatal(err)
		}
		by[c.index]++
		c.conn.Close()
	}
	for i := range 3 {
		if by[i] < n*20/100 || by[i] > n*47/100 {
			t.Errorf("worker %d took %d of %d", i, by[i], n)
		}
	}
	t.Log(by)
}

// No client that dials notices that a worker is stopped, or killed.
func TestDialsThroughout(t *testing.T) {
	p := begin(t, script{Workers: 3, FrozenAfter: time.Second})
	st := p.running()
	d := &dials{address: st.Listen[0]}
	d.during(4*time.Second, map[time.Duration]func(){
		time.Second / 2: func() { halt(t, st.Workers[0].PID, syscall.SIGSTOP) },
		2 * time.Second: func() { halt(t, st.Workers[1].PID, syscall.SIGKILL) },
	})
	d.unhurt(t)
	now := p.until("both are replaced", func(st Status) bool {
		return allReady(st) && st.Workers[0].Restarts == 1 && st.Workers[1].Restarts == 1
	})
	if now.Workers[2].Restarts != 0 {
		t.Errorf("restarts: %+v", now.Workers)
	}
	if now.Workers[0].Cause != "frozen: no beat for 1s" || now.Workers[1].Cause != "signal 9 (killed)" {
		t.Errorf("causes: %q, %q", now.Workers[0].Cause, now.Workers[1].Cause)
	}
	p.says("worker 0 ended", "frozen", "worker=0", "instance=1")
	p.says("worker 1 ended", "signal 9", "worker=1", "instance=2")
}

// A worker that crashes is started again, with a new instance; the others are told of its death.
func TestCrash(t *testing.T) {
	t.Parallel()
	p := begin(t, script{Workers: 3})
	before := p.running()
	began := time.Now()
	p.order(1, "panic")
	st := p.until("worker 1 is back", func(st Status) bool {
		return st.Workers[1].State == "ready" && st.Workers[1].Restarts == 1
	})
	if st.Workers[1].Instance != 4 || st.Workers[1].PID == before.Workers[1].PID || st.Workers[1].Cause != "exit code 2" {
		t.Errorf("in its place: %+v", st.Workers[1])
	}
	p.until("the others know", func(st Status) bool {
		for _, i := range []int{0, 2} {
			h := heardBy(t, st.Workers[i])
			if len(h.Dead) != 1 || h.Dead[0].Instance != 2 || !slices.Equal(h.Peers.Ready, []ident.Worker{1, 3, 4}) && !slices.Equal(h.Peers.Ready, []ident.Worker{1, 4, 3}) {
				return false
			}
			if at := h.Dead[0].At; at.Before(began) || at.After(time.Now()) {
				t.Fatalf("the death is dated %v, not between %v and now", at, began)
			}
		}
		return true
	})
	if dead := heardBy(t, st.Workers[1]).Welcome.Peers.Dead; len(dead) != 1 || dead[0].Instance != 2 {
		t.Errorf("the newcomer is told of the dead: %v", dead)
	}
	p.says("[worker 1 #2] panic: told to")
}

// An instance is among the peers until the kernel has reaped it, even if it is frozen.
func TestFrozenStaysAPeer(t *testing.T) {
	p := begin(t, script{Workers: 2, FrozenAfter: time.Second})
	st := p.running()
	p.order(0, "mute") // alive, but no loop takes a turn
	p.until("worker 0 is replaced", func(now Status) bool {
		if isAlive(st.Workers[0].PID) {
			if peers := heardBy(t, now.Workers[1]).Peers.Peers; !slices.Contains(peers, 1) {
				t.Fatalf("instance 1 lives, and is no peer: %v", peers)
			}
		}
		return now.Workers[0].State == "ready" && now.Workers[0].Restarts == 1
	})
}

// A supervisor that was stopped itself kills no ward for the silence meanwhile.
func TestSuspended(t *testing.T) {
	p := begin(t, script{Workers: 2, FrozenAfter: 600 * time.Millisecond})
	st := p.running()
	p.signal(syscall.SIGSTOP)
	d := &dials{address: st.Listen[0]}
	d.during(2*time.Second, nil)
	d.unhurt(t)
	p.signal(syscall.SIGCONT)
	d.during(time.Second, nil)
	for _, w := range p.running().Workers {
		if w.Restarts != 0 {
			t.Errorf("worker %d was restarted: %s", w.Index, w.Cause)
		}
	}
}

// The bus is started again with its address and its secret, a new instance and a higher term, and the workers stay. They are
// told of the new instance, and not of the end of the old one.
func TestBusRestarts(t *testing.T) {
	t.Parallel()
	p := begin(t, script{Workers: 2, Bus: true})
	before := p.running()
	syscall.Kill(before.Bus.PID, syscall.SIGKILL)
	after := p.until("the bus is back", func(st Status) bool { return st.Bus.Restarts == 1 && st.Bus.State == "ready" })
	was, is := heardBy(t, *before.Bus).Welcome.Bus, heardBy(t, *after.Bus).Welcome.Bus
	if after.Bus.Address != before.Bus.Address || is.Address != before.Bus.Address || string(is.Secret) != string(was.Secret) {
		t.Errorf("the bus was at %s, is at %s", before.Bus.Address, after.Bus.Address)
	}
	old, young := heardBy(t, *before.Bus).Welcome, heardBy(t, *after.Bus).Welcome
	if young.Instance == 0 || young.Instance == old.Instance || young.Instance != after.Bus.Instance || old.Term == 0 || young.Term <= old.Term {
		t.Errorf("the bus was instance %d of term %d, is %d of %d", old.Instance, old.Term, young.Instance, young.Term)
	}
	after = p.until("the workers know the new bus", func(st Status) bool {
		return !slices.ContainsFunc(st.Workers, func(w WardStatus) bool { return heardBy(t, w).Peers.Bus != young.Instance })
	})
	for _, w := range after.Workers {
		if h := heardBy(t, w); w.Restarts != 0 || len(h.Dead) > 0 || h.Welcome.Peers.Bus != old.Instance || h.Welcome.Term != 0 {
			t.Errorf("worker %d: %+v", w.Index, w)
		}
	}
}

// The bus is told of each death of a worker once the kernel has reaped it, and a bus that starts later of the latest ones.
func TestBusHearsOfDeaths(t *testing.T) {
	t.Parallel()
	p := begin(t, script{Workers: 2, Bus: true})
	before := p.running()
	dead := before.Workers[0].Instance
	syscall.Kill(before.Workers[0].PID, syscall.SIGKILL)
	p.until("the bus knows of the death", func(st Status) bool {
		list := heardBy(t, *st.Bus).Dead
		return len(list) == 1 && list[0].Instance == dead
	})
	syscall.Kill(before.Bus.PID, syscall.SIGKILL)
	after := p.until("the bus is back", func(st Status) bool { return st.Bus.Restarts == 1 && st.Bus.State == "ready" })
	if list := heardBy(t, *after.Bus).Welcome.Peers.Dead; len(list) != 1 || list[0].Instance != dead {
		t.Errorf("the new bus was told of the deaths %v, want that of %d", list, dead)
	}
}

// A bus process that listens nowhere is ready without an address.
func TestBusSilent(t *testing.T) {
	t.Parallel()
	p := begin(t, script{Workers: 1, Bus: true, BusSilent: true})
	if st := p.running(); st.Bus.Address != "" || heardBy(t, st.Workers[0]).Peers.Bus != st.Bus.Instance {
		t.Errorf("the bus is at %q, and the worker knows %d", st.Bus.Address, heardBy(t, st.Workers[0]).Peers.Bus)
	}
}

// A worker that gets SIGTERM drains, and is replaced.
func TestWorkerTerminated(t *testing.T) {
	t.Parallel()
	p := begin(t, script{Workers: 2})
	st := p.running()
	c := clientOf(t, st, 1)
	syscall.Kill(st.Workers[1].PID, syscall.SIGTERM)
	if text, _ := c.lines.ReadString('\n'); text != "bye orphaned=false\n" {
		t.Errorf("its client was told %q", text)
	}
	now := p.until("worker 1 is replaced", func(st Status) bool { return st.Workers[1].Restarts == 1 && allReady(st) })
	if now.Workers[1].Cause != "exit code 0" {
		t.Errorf("it ended with %s", now.Workers[1].Cause)
	}
}

// clientOf is connected to the worker with an index.
func clientOf(t *testing.T, st Status, index int) *caller {
	t.Helper()
	for range 100 {
		c, err := dial(st.Listen[0])
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.conn.Close() })
		if c.index == index {
			c.conn.SetDeadline(time.Now().Add(canary.Stretch(patient)))
			return c
		}
	}
	t.Fatalf("worker %d takes no connection", index)
	return nil
}

// A ward that cannot start ends the server, with a message that names the ward and the reason, and a code.
func TestGivesUp(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name string
		acts []act
		code int
		want []string
	}{
		{"crash loop", []act{{RoleWorker, 0, "exit 1"}}, 1, []string{"cannot start: exit code 1, 5 times in a row; its last output:", "  the disk is full"}},
		{"one worker of three", []act{{RoleWorker, 3, "exit 1"}}, 1, []string{"worker 2 cannot start: exit code 1, 5 times", "  the disk is full"}},
		{"configuration", []act{{RoleWorker, 0, "exit 2"}}, 2, []string{"cannot start: exit code 2, which says that its configuration is wrong", "  port: 70000 is no port"}},
		{"panic", []act{{RoleWorker, 0, "panic"}}, 1, []string{"cannot start: exit code 2, 5 times in a row", "  panic: at the start"}},
		{"bus", []act{{RoleBus, 0, "exit 1"}}, 1, []string{"bus cannot start: exit code 1, 5 times in a row", "  the disk is full"}},
		{"never ready", []act{{RoleBus, 0, "late"}}, 1, []string{"bus cannot start: not ready after 200ms, 5 times in a row; it left no output"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			timeout := 10 * time.Second
			if row.name == "never ready" {
				timeout = 200 * time.Millisecond
			}
			p := begin(t, script{Workers: 3, Bus: strings.HasPrefix(row.want[0], "bus"), Acts: row.acts, StartTimeout: timeout})
			if code := p.exit(); code != row.code {
				t.Errorf("exit code %d, want %d", code, row.code)
			}
			for _, want := range row.want {
				p.says(want)
			}
		})
	}
}

// Settings that turned wrong while the server runs do not end it at the first restart.
func TestWrongConfigurationLater(t *testing.T) {
	t.Parallel()
	p := begin(t, script{Workers: 2, Acts: []act{{RoleWorker, 3, "exit 2"}}})
	st := p.running()
	syscall.Kill(st.Workers[0].PID, syscall.SIGKILL)
	p.until("worker 0 was tried again", func(now Status) bool {
		if now.Workers[1].State != "ready" && now.State == "running" {
			t.Fatalf("the other worker is %s", now.Workers[1].State)
		}
		return now.Workers[0].Restarts >= 3
	})
	if code := p.exit(); code != 2 {
		t.Errorf("exit code %d", code)
	}
	p.says("worker 0 cannot start: exit code 2")
}

// SIGTERM drains all workers, then the bus, in a bounded time.
func TestTerminate(t *testing.T) {
	t.Parallel()
	p := begin(t, script{Workers: 2, Bus: true})
	st := p.running()
	clients := []*caller{clientOf(t, st, 0), clientOf(t, st, 1)}
	p.signal(syscall.SIGTERM)
	for _, c := range clients {
		if text, err := c.lines.ReadString('\n'); text != "bye orphaned=false\n" {
			t.Errorf("a client of worker %d was told %q, %v", c.index, text, err)
		}
	}
	if code := p.exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	out := p.output()
	// The log is no witness for the order: its lines reach the output by another queue than those of the wards.
	if bus, worker := strings.Index(out, "[bus] bus drains"), strings.LastIndex(out, "worker has drained"); bus < worker {
		t.Errorf("the bus was told to drain at %d, before a worker had at %d", bus, worker)
	}
	if strings.Count(out, "worker has drained") != 2 {
		t.Error("not every worker has drained")
	}
	if p.said("killing") > 0 {
		t.Error("somebody was killed")
	}
	if _, err := dial(st.Listen[0]); err == nil {
		t.Error("somebody still listens")
	}
	p.noneLeft(0)
}

// Once no worker accepts connections, dials are refused; they do not wait.
func TestRefusedWhileLeaving(t *testing.T) {
	t.Parallel()
	p := begin(t, script{Workers: 2, Bus: true, Acts: []act{{RoleBus, 0, "stubborn"}}})
	address := p.running().Listen[0]
	p.signal(syscall.SIGTERM)
	if !poll(patient, func() bool { // for a second the bus is there still; on a slow machine that is over when this looks
		st := p.status()
		return len(st.Workers) == 0 || st.Workers[0].PID == 0 && st.Workers[1].PID == 0
	}) {
		t.Fatal("the workers do not go")
	}
	if _, err := dial(address); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a dial got %v", err)
	}
	if code := p.exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	p.says("killing bus", "did not drain within 1s")
}

// A worker that does not drain is ended at the deadline.
func TestDeadline(t *testing.T) {
	t.Parallel()
	p := begin(t, script{Workers: 2, Bus: true, Acts: []act{{RoleWorker, 3, "stubborn"}}, DrainTimeout: 500 * time.Millisecond})
	p.running()
	began := time.Now()
	p.signal(syscall.SIGINT)
	if code := p.exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if took := time.Since(began); took < 1500*time.Millisecond {
		t.Errorf("it was over after %v: nobody waited", took)
	}
	p.says("killing worker 1", "did not drain within 500ms")
	p.noneLeft(0)
}

// The second signal does not wait for wards that drain.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	p := begin(t, script{Workers: 2, Bus: true, Acts: []act{{RoleWorker, 0, "stubborn"}}, DrainTimeout: time.Minute})
	p.running()
	p.signal(syscall.SIGTERM)
	p.until("it drains", func(st Status) bool { return st.Workers[0].State == "draining" })
	again := time.NewTicker(50 * time.Millisecond) // a person who becomes impatient
	defer again.Stop()
	for ended := false; !ended; {
		select {
		case <-again.C:
			p.cmd.Process.Signal(syscall.SIGTERM)
		case <-p.ended:
			ended = true
		}
	}
	if code := p.exit(); code != 1 {
		t.Errorf("exit code %d", code)
	}
	p.says("stopped at once by a second signal")
	p.noneLeft(0)
}

// When a supervisor is killed its wards end too: those that send their clients away first, those that do not drain, and
// those that are stopped.
func TestOrphans(t *testing.T) {
	t.Parallel()
	p := begin(t, script{Workers: 3, Bus: true, Acts: []act{{RoleWorker, 4, "stubborn"}, {RoleWorker, 0, "chatty"}},
		DrainTimeout: 500 * time.Millisecond})
	st := p.running()
	c := clientOf(t, st, 0)
	syscall.Kill(st.Workers[1].PID, syscall.SIGSTOP)
	p.signal(syscall.SIGKILL)
	if text, _ := c.lines.ReadString('\n'); !strings.HasPrefix(text, "bye orphaned=") {
		t.Errorf("a client was told %q", text)
	}
	p.noneLeft(patient)
}

// Orphans drain in a short time, however long DrainTimeout is: a new server may be on their port.
func TestOrphansAreBrief(t *testing.T) {
	t.Parallel()
	p := begin(t, script{Workers: 2, Acts: []act{{RoleWorker, 2, "stubborn"}}, DrainTimeout: time.Hour})
	p.running()
	p.signal(syscall.SIGKILL)
	p.noneLeft(patient)
}

// A worker that was not ready has no clients, and gets little time to drain.
func TestOrphansThatStart(t *testing.T) {
	t.Parallel()
	p := begin(t, script{Workers: 1, Acts: []act{{RoleWorker, 0, "late"}}, DrainTimeout: time.Hour, StartTimeout: time.Hour})
	p.until("it starts", func(st Status) bool { return st.Workers[0].PID != 0 })
	p.signal(syscall.SIGKILL)
	p.noneLeft(patient)
}

// Each line of a panic or of a worker's own output names its ward, and JSON stays JSON.
func TestMarks(t *testing.T) {
	var out strings.Builder
	o := newOutlet(&out, slog.New(slog.DiscardHandler))
	kept := new(tail)
	in := "plain\n{\"level\":\"INFO\",\"msg\":\"x\"}\n{}\n\nwithout end"
	o.pass(bufio.NewReader(strings.NewReader(in)), markOf(&ward{role: RoleWorker, index: 2}, 17), kept)
	if err := o.lines.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := "[worker 2 #17] plain\n{\"worker\":2,\"instance\":17,\"level\":\"INFO\",\"msg\":\"x\"}\n[worker 2 #17] {}\n[worker 2 #17] \n[worker 2 #17] without end\n"
	if out.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", out.String(), want)
	}
	if lines, panicked := kept.last(); len(lines) != 5 || panicked {
		t.Errorf("kept %q, %v", lines, panicked)
	}
}
