//go:build linux

package main

import (
	"cmp"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/parleyd/parley/bench/load"
)

// startBus starts a process that may be killed, until the test ends.
func startBus(t *testing.T) (pid int) {
	t.Helper()
	cmd := exec.Command("sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return cmd.Process.Pid
}

// outageAt is a short plan for a keeper whose figures name one bus process after the other, the last one for good.
func outageAt(t *testing.T, k *keeper, buses ...int) load.Plan {
	stats := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"bus_process":{"pid":%d}}`, buses[0])
		buses = buses[min(1, len(buses)-1):]
	}))
	t.Cleanup(stats.Close)
	return load.Plan{Scenario: "outage", Addr: k.start(t), Stats: stats.Listener.Addr().String(), PID: os.Getpid(), Conns: 5, Rooms: 1, Publishers: 1, Window: 1,
		Size: 16, Rate: 200, Warmup: 100 * time.Millisecond, Measure: 200 * time.Millisecond}
}

// Messages that are told to be gone, messages that come twice, and new epochs are counted, by each member. A server that breaks its
// promises otherwise voids the run.
func TestOutageCounts(t *testing.T) {
	good := func(_ int, _ bool, m string) []string { return []string{m} }
	sixth := func(instead func(m string) []string) func(int, bool, string) []string {
		return func(n int, _ bool, m string) []string {
			if n == 5 {
				return instead(m)
			}
			return []string{m}
		}
	}
	calls := 0
	for name, row := range map[string]struct {
		server                *keeper
		lost, doubled, resets uint64
		again, publishers     int
		void                  string
	}{
		"faultless":          {server: &keeper{faulty: good}},
		"has the repetition": {server: &keeper{faulty: good, refused: 5, code: "unavailable"}, again: 1},
		"numbers it twice":   {server: &keeper{faulty: good, refused: 5, code: "unavailable", keyless: true}, again: 1, doubled: 4},
		"refuses":            {server: &keeper{faulty: good, refused: 5, code: "internal"}, void: "is told"},
		"tells of a gap":     {server: &keeper{faulty: sixth(func(string) []string { return []string{`{"type":"gap","from":6,"seq":6,"epoch":"e"}`} })}, lost: 4},
		"begins a new epoch": {server: &keeper{faulty: sixth(func(m string) []string { return []string{m, `{"type":"gap","seq":6,"epoch":"e","reset":true}`} })}, resets: 4},
		"loses in silence":   {server: &keeper{faulty: sixth(func(string) []string { return nil })}, void: "comes after"},
		"loses the last in silence": {server: &keeper{faulty: func(n int, _ bool, m string) []string {
			if n > 50 {
				return nil
			}
			return []string{m}
		}}, publishers: 1, void: "are missing"},
		"sends it twice": {server: &keeper{faulty: sixth(func(m string) []string { return []string{m, m} })}, void: "comes after"},
		"orders them in two ways": {server: &keeper{faulty: sixth(func(m string) []string {
			if calls++; calls > 2 { // the first may be the publisher, for which it is not
				return []string{m}
			}
			return []string{strings.Replace(m, "0000000005", "0000000004", 1)}
		})}, publishers: 1, void: "for another member"},
	} {
		t.Run(name, func(t *testing.T) {
			p := outageAt(t, row.server, startBus(t), startBus(t))
			p.Publishers = cmp.Or(row.publishers, 2)
			r := play(t, p)
			if row.void != "" {
				if !strings.Contains(r.Void, row.void) {
					t.Errorf("%+v", r)
				}
				return
			}
			if r.Void != "" || r.Lost != row.lost || r.Doubled != row.doubled || r.Resets != row.resets || r.Again != row.again || r.Reach == 0 {
				t.Errorf("%+v", r)
			}
		})
	}
}

// A run in which no bus was killed, or none came in its place, does not count, and no process is killed that is not the server's.
func TestOutageNeedsABus(t *testing.T) {
	k := func() *keeper { return &keeper{faulty: func(_ int, _ bool, m string) []string { return []string{m} }} }
	if r := play(t, outageAt(t, k(), startBus(t))); !strings.Contains(r.Void, "not replaced") {
		t.Errorf("%+v", r)
	}
	for _, pid := range []int{0, os.Getpid(), os.Getppid()} {
		if r := play(t, outageAt(t, k(), pid)); !strings.Contains(r.Void, "no bus process") {
			t.Errorf("%d: %+v", pid, r)
		}
	}
}

// The cells about several processes with history play on the real server, and the bus that is killed costs no message and no epoch.
func TestHistoryOverProcesses(t *testing.T) {
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{root: root, self: os.Args[0], parley: filepath.Join(t.TempDir(), "parley"), options: options{out: t.TempDir()}}
	if err := b.shell(root, "go", "build", "-o", b.parley, "./cmd/parley"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"history-processes", "history-processes-latency", "history-bus-killed"} {
		c, ok := find(name)
		if !ok {
			t.Fatalf("there is no cell %s", name)
		}
		c.plan.Conns, c.plan.Rooms, c.plan.Warmup, c.plan.Measure = 40, 2, 100*time.Millisecond, 500*time.Millisecond
		c.plan.Rate = min(c.plan.Rate, 100)
		r := b.play(c, "parley-history", 1)
		for ; (r.Messages == 0 || r.Void != "") && c.plan.Measure < time.Minute; c.plan.Measure *= 4 { // a starved machine needs longer
			t.Logf("%s: %+v", name, r)
			r = b.play(c, "parley-history", 1)
		}
		if r.Void != "" || r.Messages == 0 || c.figure.of(r) == 0 || r.Lost+r.Doubled+r.Resets > 0 {
			t.Errorf("%s: %+v", name, r)
		}
	}
}
