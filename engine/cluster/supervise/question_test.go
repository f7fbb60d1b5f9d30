package supervise

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/parleyd/parley/engine/canary"
)

// ask sends a line to the api process, and returns its answer.
func (p *parent) ask(text string) string {
	p.t.Helper()
	c, err := dial(p.status().API.Address)
	if err != nil {
		p.t.Fatal(err)
	}
	defer c.conn.Close()
	fmt.Fprintln(c.conn, text)
	return c.line(p.t)
}

// line is the next line that the caller is sent.
func (c *caller) line(t *testing.T) string {
	t.Helper()
	c.conn.SetDeadline(time.Now().Add(canary.Stretch(patient)))
	text, err := c.lines.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(text, "\n")
}

// An operator's drain ends a worker without a failure, and it is started again at once. What cannot drain is refused.
func TestDrainWorker(t *testing.T) {
	t.Parallel()
	p := begin(t, script{Workers: 2, Bus: true, API: "127.0.0.1:0"})
	st := p.running()
	client := clientOf(t, st, 1)
	for text, want := range map[string]string{
		"overview":   `"shown" <nil>`,
		"drain 2 0":  "drain: there is no such worker",
		"drain -1 0": "drain: there is no such worker",
		"drain 1 0":  "drain: <nil>",
	} {
		if got := p.ask(text); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
	if got := client.line(t); got != "bye orphaned=false" {
		t.Error(got)
	}
	st = p.until("it is back", func(st Status) bool { return allReady(st) && st.Workers[1].Restarts == 1 })
	if st.Workers[1].Cause != "exit code 0" || st.Workers[0].Restarts != 0 {
		t.Errorf("%+v", st.Workers)
	}
	p.says("worker 1 has drained")
	if p.said("ERROR") != 0 {
		t.Error("a drain is a failure:", p.output())
	}
}

// While one worker drains, the other must stay; the draining one is not told twice.
func TestLastWorkerStays(t *testing.T) {
	t.Parallel()
	p := begin(t, script{Workers: 2, API: "127.0.0.1:0"})
	p.running()
	if got := p.ask("drain 0 1h"); got != "drain: <nil>" {
		t.Fatal(got)
	}
	p.until("it drains", func(st Status) bool { return st.Workers[0].State == "draining" })
	if got := p.ask("drain 0 0"); got != "drain: worker 0 is draining: a worker drains only while it is ready" {
		t.Error(got)
	}
	if got := p.ask("drain 1 0"); got != "drain: "+ErrLastWorker.Error() {
		t.Error(got)
	}
	// The shutdown ends a drain that takes longer.
	p.signal(syscall.SIGTERM)
	if code := p.exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if p.said("did not drain") != 0 {
		t.Error("the draining worker was killed:", p.output())
	}
}

// SIGTERM to a worker that drains slowly ends its drain.
func TestHurried(t *testing.T) {
	t.Parallel()
	p := begin(t, script{Workers: 2, API: "127.0.0.1:0"})
	st := p.running()
	if got := p.ask("drain 0 1h"); got != "drain: <nil>" {
		t.Fatal(got)
	}
	p.until("it drains", func(st Status) bool { return st.Workers[0].State == "draining" })
	for range 3 {
		syscall.Kill(st.Workers[0].PID, syscall.SIGTERM)
	}
	p.until("it is back", func(st Status) bool { return allReady(st) && st.Workers[0].Restarts == 1 })
}

// A worker that does not end in the time of its drain is killed.
func TestDrainTooLong(t *testing.T) {
	t.Parallel()
	p := begin(t, script{Workers: 2, API: "127.0.0.1:0", DrainTimeout: 1, Acts: []act{{Role: RoleWorker, How: "stubborn"}}})
	p.running()
	if got := p.ask("drain 0 100ms"); got != "drain: <nil>" {
		t.Fatal(got)
	}
	p.until("it is back", func(st Status) bool { return allReady(st) && st.Workers[0].Restarts == 1 })
	p.says("did not drain in time")
}
