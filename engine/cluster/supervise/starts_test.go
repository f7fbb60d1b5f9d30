package supervise

import (
	"testing"
	"time"
)

// Many workers start a few at a time: each is ready soon after it was started, and none is killed for being slow because
// all of them share the cores.
func TestStartsAreBounded(t *testing.T) {
	t.Parallel()
	p := begin(t, script{Workers: startsMax() + 3, Acts: []act{{RoleWorker, 0, "late"}}, StartTimeout: time.Hour})
	started := func(st Status) (n int) {
		for _, w := range st.Workers {
			if w.PID != 0 {
				n++
			}
		}
		return n
	}
	p.until("as many start as may", func(st Status) bool { return started(st) == startsMax() })
	first := p.status()
	for range 50 {
		if n := started(p.status()); n != startsMax() {
			t.Fatalf("%d workers start at once", n)
		}
	}
	if now := p.status(); now.Workers[0].PID != first.Workers[0].PID {
		t.Error("a worker that starts was replaced")
	}
}

// All start in the end.
func TestManyStart(t *testing.T) {
	t.Parallel()
	p := begin(t, script{Workers: startsMax() + 3})
	p.until("all are ready", allReady)
}
