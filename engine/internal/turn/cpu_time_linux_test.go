package turn

import (
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patient bounds the wait for the machine.
const patient = 30 * time.Second

// pinned runs f on a thread that has one processor, the first that this process may use.
func pinned(t *testing.T, f func()) (ended chan struct{}) {
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Skip(err)
	}
	for cpu := range 1024 {
		if all.IsSet(cpu) {
			one.Set(cpu)
			break
		}
	}
	ended = make(chan struct{})
	go func() {
		defer close(ended)
		runtime.LockOSThread() // for good: the thread goes with its affinity
		if err := unix.SchedSetaffinity(0, &one); err == nil {
			f()
		}
	}()
	return ended
}

// A thread that computes has run; a thread that shares its processor has waited; the log blames the handler or the machine
// accordingly.
func TestCPUTime(t *testing.T) {
	if readCPU().thread == 0 {
		t.Skip("the kernel has no such figures")
	}
	var stop atomic.Bool
	rival := pinned(t, func() {
		for !stop.Load() {
		}
	})
	<-pinned(t, func() {
		before := readCPU()
		after := before
		for end := time.Now().Add(patient); after.waited-before.waited < int64(20*time.Millisecond) || after.ran == before.ran; after = readCPU() {
			if time.Now().After(end) || after.thread != before.thread {
				t.Errorf("from %+v to %+v beside a rival", before, after)
				return
			}
		}
	})
	stop.Store(true)
	<-rival
}

func TestBlame(t *testing.T) {
	const ms = int64(time.Millisecond)
	before := cpuTime{thread: 7, ran: 5 * ms, waited: 9 * ms}
	for name, c := range map[string]struct {
		after   cpuTime
		starved bool
		attrs   int
	}{
		"computes":        {cpuTime{7, 270 * ms, 10 * ms}, false, 4},
		"blocks":          {cpuTime{7, 6 * ms, 10 * ms}, false, 4},
		"is starved":      {cpuTime{7, 20 * ms, 240 * ms}, true, 4},
		"changes threads": {cpuTime{8, 20 * ms, 240 * ms}, false, 0},
		"knows nothing":   {cpuTime{}, false, 0},
	} {
		if _, starved, attrs := blame(before, c.after, 271*ms); starved != c.starved || len(attrs) != c.attrs {
			t.Errorf("a handler that %s: starved %v, %v", name, starved, attrs)
		}
	}
}
