package interop

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

const (
	reloads         = 3
	reloadListeners = 10
	reloadPace      = 2 * time.Millisecond // between two broadcasts
	messagesBetween = 100                  // at least, between two reloads
)

// numbered is a broadcast of the load: 0, 1, 2 ..., and -1 at the end.
type numbered struct {
	Type string `json:"type"`
	Data int    `json:"data"`
}

// listen reads broadcasts up to the last, which tells their number, and returns the first fault.
func (p *person) listen(count *int) error {
	for next := 0; ; {
		raw, err := p.c.read()
		if err != nil {
			return fmt.Errorf("after %d messages: %w", next, err)
		}
		var m numbered
		if json.Unmarshal(raw, &m); m.Type != "broadcast" {
			continue
		}
		switch m.Data {
		case -1:
			*count = next
			return nil
		case next:
			next++
		default:
			return fmt.Errorf("message %d came in place of %d", m.Data, next)
		}
	}
}

// retiring is the number of nginx's workers that serve their connections and accept no new ones.
func (n *nginx) retiring() (count int) {
	n.t.Helper()
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", n.cmd.Process.Pid, n.cmd.Process.Pid))
	if err != nil {
		n.t.Skipf("the processes of nginx cannot be seen: %v", err)
	}
	for pid := range strings.FieldsSeq(string(children)) {
		if name, err := os.ReadFile(filepath.Join("/proc", pid, "cmdline")); err == nil && strings.Contains(string(name), "shutting down") {
			count++
		}
	}
	return count
}

// When nginx is reloaded while members publish, no client is disconnected, every message arrives in order, and new clients
// can connect all the time.
func TestNginxReload(t *testing.T) {
	s := serve(t, "--trusted-proxies", "127.0.0.1")
	n := startNginx(t, "nginx.conf", s)
	var people []*person
	for i := range reloadListeners {
		p := n.dial(fmt.Sprintf("127.0.0.%d", 2+i), nil)
		p.say(`{"type":"join","room":"r"}`)
		p.until("joined")
		people = append(people, p)
	}
	counts := make([]int, len(people))
	ended := make(chan error, len(people))
	for i, p := range people {
		go func() { ended <- p.listen(&counts[i]) }()
	}
	speaker := n.dial("127.0.0.100", nil)
	speaker.say(`{"type":"join","room":"r"}`)
	speaker.until("joined")
	var sent atomic.Int64
	stop, spoken := make(chan struct{}), make(chan struct{})
	go func() { speak(speaker, &sent, stop); close(spoken) }()
	for i := range reloads {
		if out, err := exec.Command(n.command[0], append(n.command[1:], "-s", "reload")...).CombinedOutput(); err != nil {
			t.Fatalf("reload: %v\n%s", err, out)
		}
		eventually(t, "workers retire", func() bool { return n.retiring() > i })
		before := sent.Load()
		eventually(t, "the load goes on", func() bool { return sent.Load() > before+messagesBetween })
		newcomer := fmt.Sprintf("127.0.0.%d", 200+i)
		if got := n.dial(newcomer, nil).address(); got != newcomer {
			t.Errorf("a newcomer at %s is taken for %s", newcomer, got)
		}
	}
	close(stop)
	<-spoken
	want := int(sent.Load())
	for range people {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	for i, got := range counts {
		if got != want {
			t.Errorf("client %d got %d messages of %d", i, got, want)
		}
	}
	if left := n.retiring(); left == 0 {
		t.Error("no worker retires any more, although its connections live")
	}
}

// speak broadcasts until it must stop, and counts.
func speak(p *person, sent *atomic.Int64, stop <-chan struct{}) {
	tick := time.NewTicker(reloadPace)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			p.c.send(`{"type":"broadcast","room":"r","data":-1}`)
			return
		case <-tick.C:
			if p.c.send(fmt.Sprintf(`{"type":"broadcast","room":"r","data":%d}`, sent.Load())) == nil {
				sent.Add(1)
			}
		}
	}
}
