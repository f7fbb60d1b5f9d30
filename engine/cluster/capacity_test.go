package cluster_test

import (
	"encoding/json"
	"os"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/engine"
)

// A full worker leaves new connections to the others. Only when all are full is one refused; when a connection ends, a new
// one is accepted.
func TestFullWorkersLeaveNewcomersToOthers(t *testing.T) {
	t.Parallel()
	const workers, each = 3, 8
	s := startProcesses(t, engine.Config{Processes: workers, MaxConnections: each})
	accepted := func() bool {
		conn, _, _, err := ws.Dial(t.Context(), "ws://"+s.addr+"/")
		if err == nil {
			t.Cleanup(func() { _ = conn.Close() })
			return true
		}
		if status, is := err.(ws.StatusError); !is || status != 503 {
			t.Fatalf("dialling a full server: %v, want status 503", err)
		}
		return false
	}
	var clients []*client
	for range workers * each {
		clients = append(clients, s.dial("")) // fails where it is refused
	}
	if accepted() {
		t.Error("there is one more than all workers may have")
	}
	gone := clients[0].pid
	holds := func(connections int) func() bool { // by the worker's newest report, which may be a second old
		return func() bool {
			for _, w := range s.status().Workers {
				var stats engine.Stats
				if w.PID == gone && json.Unmarshal(w.Stats, &stats) == nil && stats.MaxConnections > 0 {
					return stats.Connections == connections
				}
			}
			return false
		}
	}
	poll(t, "one worker reports that it is full", holds(each)) // its first report, from before all clients, says 0 too
	for _, c := range clients {
		if c.pid == gone {
			_ = c.conn.Close()
		}
	}
	poll(t, "one worker has room again", holds(0)) // for all, not only for the first: it hears of one end after the other
	// The others may be waiting for a connection already, which each of them then refuses.
	for taken, refused := 0, 0; taken < each; {
		if accepted() {
			taken++
		} else if refused++; refused > workers-1 {
			t.Fatalf("%d newcomers were refused, although there is room for %d", refused, each-taken)
		}
	}
}

// A worker whose loops are all blocked by handlers leaves new connections to the others before the supervisor takes it for
// frozen: the supervisor is stopped here.
func TestStuckWorkersLeaveNewcomersToOthers(t *testing.T) {
	const dialsMax = 2000
	s := startProcesses(t, engine.Config{Processes: 2})
	first := s.dial("")
	on := []*client{first}
	for range 7 { // they are spread over both loops
		on = append(on, s.dialTo(first.pid))
	}
	send(t, s.cmd.Process.Pid, syscall.SIGSTOP)
	dir := t.TempDir()
	letGo := func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
		send(t, s.cmd.Process.Pid, syscall.SIGCONT)
	}
	defer letGo()
	for _, c := range on {
		c.send(m{"type": "hold", "dir": dir})
	}
	poll(t, "both loops are held", func() bool {
		files, _ := os.ReadDir(dir)
		return len(files) == 2
	})
	// The connections that it had accepted before it noticed wait: of all new ones, they are ever fewer.
	var dialled, served atomic.Int64
	poll(t, "three of four newcomers are served by the other worker", func() bool {
		for range min(10, dialsMax-dialled.Load()) {
			dialled.Add(1)
			go func() {
				if conn, _, _, err := ws.Dial(t.Context(), "ws://"+s.addr+"/"); err == nil {
					served.Add(1)
					conn.Close()
				}
			}()
		}
		return dialled.Load() >= 100 && served.Load() >= dialled.Load()*3/4
	})
	t.Logf("%d of %d wait", dialled.Load()-served.Load(), dialled.Load())
}
